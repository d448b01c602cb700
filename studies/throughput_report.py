"""The report of tools/benchmark.py: tables and pictures from its result file, which holds every raw sample."""
import statistics
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from inceptionnext_seg.files import markdown_table, replacing, write_text

from .throughput import summarize
from .timing import describe_ratio, ratio

matplotlib.use('Agg')

HEADER = ['candidate', 'layout', 'images/s (95 %)', 'speed against the first (95 %)', '× of limit',
          'peak memory MiB: step (process)']


def title_of(setting):
    part = 'whole segmentor' if setting['part'] == 'segmentor' else 'backbone alone'
    mode = 'training step' if setting['mode'] == 'train' else 'inference'
    compiled = ', torch.compile' if setting['compile'] else ''
    return (f'{part}, {mode}, {setting["dtype"]}{compiled}: {setting["batch_size"]} images of '
            f'{setting["size"]}×{setting.get("width") or setting["size"]}')


def table(run_result, layout=None):
    rows = []
    for row in summarize(run_result, layout):
        low, high = row['images_per_s_interval']
        rows.append([
            row['label'] + ('' if row['settled'] else ' (did not settle)'), row['layout'],
            f'{row["images_per_s"]:.3g} ({low:.3g}–{high:.3g})',
            '1' if row['speedup'] is None else describe_ratio(row['speedup']),
            f'{row["times_of_limit"]:.1f}',
            f'{row["step_memory"] / 2**20:.0f} ({row["peak_memory"] / 2**20:.0f})' if row['peak_memory'] else '–'])
    return markdown_table(HEADER, rows)


def mixer_table(mixer):
    """Each form's time, and how many copies of its input it takes, round by round."""
    copy = mixer['seconds']['copy']
    rows = []
    for name, seconds in mixer['seconds'].items():
        rows.append([name, f'{1e3 * statistics.median(seconds):.3f}',
                     '1' if name == 'copy' else describe_ratio(ratio(seconds, copy))])
    return markdown_table(['', 'ms', 'times of a copy of the input (95 %)'], rows)


def report(result, pictures=()):
    """Markdown of a result file's content; ``pictures`` are file names beside it."""
    environment = result['environment']
    versions = ', '.join(f'{name} {version}' for name, version in environment['versions'].items())
    lines = [
        f'# Throughput on {environment["device_name"]}', '',
        f'`{environment["command"]}`', '',
        f'{environment["date"]}, {environment["device"]}, {environment["threads"]} threads; {versions}.', '']
    if result.get('stock'):
        lines += [f'"stock" is MMSegmentation\'s shipped ConvNeXt-T UperNet config, its norm made BN, with '
                  f'{result["stock"]}.', '']
    lines += [
        'Candidates took turns in random order within one process; medians over rounds, 95 % bootstrap intervals. The '
        'ratio is taken round by round, above 1 is faster than the first candidate. "× of limit" is the time over that '
        "of the step's matrix products alone at the rate of a square product measured in the same run, or of moving "
        'their operands at the measured copy bandwidth, whichever is longer; it is below 1 in bf16 where products are '
        'taken in float, which is faster on a CPU without bfloat16 tiles. "Did not settle" marks a candidate whose '
        'first and second half of samples disagree. A table without a layout in its title shows each candidate in its '
        'faster one. Peak memory is of two steps in a process of its own, in the faster layout: on a CPU its resident '
        'set, and of that the step, weights and optimizer state included: what it had more than before there was a '
        "model, interpreter and libraries, which are the same for all; on CUDA that of torch's allocator. On a CPU "
        'memory once freed stays with the process, as in tools/train.py (inceptionnext_seg/allocator.py), for all '
        'candidates but one named "as shipped".', '']
    for run_result in result['runs']:
        lines += [f'## {title_of(run_result["setting"])}', '', table(run_result), '']
        layouts = sorted({r['layout'] for r in run_result['results']})
        for layout in layouts if len(layouts) > 1 else ():
            lines += [f'{layout.upper()}:', '', table(run_result, layout), '']
        peaks = run_result['peaks']
        lines += [f'Measured limits: {peaks["macs_per_second"] / 1e9:.0f} GMACs/s in a product of size '
                  f'{peaks["matrix_size"]}, {peaks["bytes_per_second"] / 1e9:.1f} GB/s copied.', '']
    for mixer in result.get('mixers', ()):
        lines += [f'## Token mixer, {mixer["dtype"]}, {"×".join(map(str, mixer["shape"]))}, NHWC, '
                  f'{mixer["threads"]} thread(s)', '', mixer_table(mixer), '']
    for loader in result.get('loaders', ()):
        lines += [f'Data loading, {loader["label"]}: {loader["images_per_s"]:.1f} images/s with '
                  f'{loader["workers"]} worker(s); the step takes {loader["step_images_per_s"]:.1f}. '
                  f'Bottleneck: {loader["bottleneck"]}.', '']
    for picture in pictures:
        lines += [f'![{Path(picture).stem}]({picture})', '']
    return '\n'.join(lines)


def draw_profile(profiles, path):
    """Stacked bars of where a step's time goes, by part and by operator, in seconds."""
    figure = Figure(figsize=(11, 5.5), layout='constrained')
    for axes, key in zip(figure.subplots(1, 2), ('by_part', 'by_operator'), strict=True):
        names = list(dict.fromkeys(name for p in profiles for name in p[key]))
        colours = matplotlib.colormaps['tab20'].colors
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


def growth(result):
    """How cost grows: (mode, dtype) -> label -> sorted (megapixels of a step, median seconds), of whole segmentors.

    Only what was measured at three sizes or more, each candidate in its faster layout; of a size measured twice, the
    later.
    """
    found = {}
    for run_result in result['runs']:
        setting = run_result['setting']
        if setting['part'] != 'segmentor' or setting['compile']:
            continue
        pixels = setting['batch_size'] * setting['size'] * (setting.get('width') or setting['size'])
        lines = found.setdefault((setting['mode'], setting['dtype']), {})
        for row in summarize(run_result):
            lines.setdefault(row['label'], {})[pixels / 1e6] = setting['batch_size'] / row['images_per_s']
    found = {key: {label: sorted(points.items()) for label, points in lines.items() if len(points) >= 3}
             for key, lines in found.items()}
    return {key: lines for key, lines in found.items() if lines}


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


def save(figure, path):
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=90)


def write_report(result, path):
    """Write the Markdown at ``path`` and the pictures beside it."""
    path = Path(path)
    pictures = []
    if result['runs']:
        pictures.append(path.with_name(f'{path.stem}.png'))
        draw_throughput(result, pictures[0])
    if found := growth(result):
        pictures.append(path.with_name(f'{path.stem}_growth.png'))
        draw_growth(found, pictures[-1])
    if result.get('profiles'):
        pictures.append(path.with_name(f'{path.stem}_profile.png'))
        draw_profile(result['profiles'], pictures[-1])
    write_text(path, report(result, [picture.name for picture in pictures]))
