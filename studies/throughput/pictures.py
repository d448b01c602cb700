"""The pictures of tools/benchmark.py's report."""
from matplotlib import colormaps
from matplotlib.figure import Figure

from inceptionnext_seg.files import replacing

from .summary import summarize


def draw_throughput(result, path):
    """Bars of images/s with intervals, one group a setting, each candidate in its faster layout."""
    runs = result['runs']
    columns = min(4, len(runs))
    lines = -(-len(runs) // columns)
    figure = Figure(figsize=(1.8 + 2.4 * columns, 1.2 + 3 * lines), layout='constrained')
    colours = {}
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in panels[len(runs):]:
        axes.set_axis_off()
    for axes, run_result in zip(panels, runs, strict=False):
        for i, row in enumerate(summarize(run_result)):
            low, high = row['images_per_s_interval']
            value = row['images_per_s']
            colour = colours.setdefault(row['label'], f'C{len(colours)}')
            axes.bar(i, value, color=colour, label=row['label'])
            axes.errorbar(i, value, [[max(value - low, 0)], [max(high - value, 0)]], color='black', capsize=3)
        setting = run_result['setting']
        axes.set_title(f'{setting["part"]}, {setting["mode"]}, {setting["dtype"]},\n{setting["batch_size"]} × '
                       f'{setting["size"]}×{setting.get("width") or setting["size"]}', fontsize=8)
        axes.set_xticks([])
        axes.set_ylabel('images/s', fontsize=8)
    handles = {label: handle for axes in figure.axes for handle, label in zip(
        *axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc='outside lower center', ncols=2, fontsize=7)
    save(figure, path)


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
