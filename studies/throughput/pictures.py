"""The pictures of tools/benchmark.py's report."""
from matplotlib import colormaps
from matplotlib.figure import Figure

from inceptionnext_seg.files import replacing


def draw_growth(found, path):
    """Seconds of a step over its pixels, both logarithmic: on a straight line of slope 1 a pixel costs the same."""
    figure = Figure(figsize=(5 * len(found), 4), layout='constrained')
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, ((mode, dtype), lines) in zip(panels, found.items(), strict=True):
        for label, points in lines.items():
            axes.loglog(*zip(*points, strict=True), marker='o', label=label)
        axes.set_xlabel('megapixels of a step, batch × height × width')
        axes.set_ylabel('seconds of a step')
        axes.set_title(f'{"training step" if mode == "train" else "inference"}, {dtype}', fontsize=9)
        axes.grid(which='both', alpha=0.3)
        axes.legend(fontsize=7)
    save(figure, path)


def draw_profile(profiles, path):
    """Stacked bars of where a step's time goes, by part and by operator, in seconds."""
    figure = Figure(figsize=(11, 5.5), layout='constrained')
    for axes, key in zip(figure.subplots(1, 2), ('by_part', 'by_operator'), strict=True):
        names = list(dict.fromkeys(name for p in profiles for name in p[key]))
        colours = colormaps['tab20'].colors
        bottoms = [0.] * len(profiles)
        for i, name in enumerate(names):
            values = [p[key].get(name, 0.) for p in profiles]
            axes.bar(range(len(profiles)), values, bottom=bottoms, label=name.replace('aten::', ''),
                     color=colours[i % len(colours)])
            bottoms = [b + v for b, v in zip(bottoms, values, strict=True)]
        labels = [f'{p["label"]}, {p["dtype"]}, {p["layout"]}' for p in profiles]
        axes.set_xticks(range(len(profiles)), labels, fontsize=7, rotation=20, ha='right')
        axes.set_ylabel('seconds of one training step')
        axes.set_title('by part of the network' if key == 'by_part' else 'by operator (self time)')
        axes.legend(fontsize=7, loc='upper left', bbox_to_anchor=(1, 1))
    save(figure, path)


def save(figure, path):
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=90)
