"""The report of tools/benchmark.py: tables from its result file, which holds every raw sample."""
import statistics
from pathlib import Path

from inceptionnext_seg.files import markdown_table, without_html, write_text

from ..timing import describe_ratio, ratio
from .pictures import draw_growth, draw_profile
from .summary import growth, summarize

HEADER = ['candidate', 'layout', 'images/s (95 %)', 'speed against the first (95 %)', '× of limit',
          'peak memory of the process, MiB']


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
            f'{row["peak_memory"] / 2**20:.0f}' if row['peak_memory'] else '–'])
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
        f'{environment["date"]}, {environment["device"]}, {environment["threads"]} threads; {versions}.'
        + (f' Load average {environment["load_average"]:.1f}.' if 'load_average' in environment else ''), '']
    if result.get('stock'):
        lines += [f'"stock" is MMSegmentation\'s shipped ConvNeXt-T UperNet config, its norm made BN, with '
                  f'{result["stock"]}.', '']
    lines += [
        'Candidates took turns in random order within one process; medians over rounds. Brackets hold 95 % '
        'bootstrap intervals over the rounds of that process; they do not contain what changes from process to '
        'process, which was up to 10 % of the same cell where it was measured. A table shows each candidate in the '
        'faster of the layouts that it was measured in: where no tables by layout follow, only one was measured, '
        'and the other may be faster. Dtypes are compared with themselves; a candidate may be faster in another '
        '(docs/speed.md). The ratio is taken round by round, above 1 is faster than the first candidate. "× of '
        'limit" is the time over that of the matrix products alone at the rate of a square product measured in the '
        'same run, or of moving their operands at the measured copy bandwidth, whichever is longer; it is below 1 '
        'in bf16 where products are taken in float, which is faster on a CPU without bfloat16 tiles. "Did not '
        'settle" marks a candidate whose first and second half of samples disagree. Peak memory is of two steps in '
        'a process of its own, in the faster layout: on a CPU its resident set, libraries included; on CUDA that of'
        ' the allocator of torch. On a CPU memory once freed stays with the process, as in tools/train.py '
        '(inceptionnext_seg/engine/allocator.py), for all candidates but one named "as shipped".', '']
    for run_result in result['runs']:
        lines += [f'## {title_of(run_result["setting"])}', '']
        if run_result.get('command'):
            lines += [f'`{run_result["command"]}`', '']
        lines += [table(run_result), '']
        layouts = sorted({r['layout'] for r in run_result['results']})
        for layout in layouts if len(layouts) > 1 else ():
            lines += [f'{layout.upper()}:', '', table(run_result, layout), '']
        peaks = run_result['peaks']
        lines += [f'Measured limits: {peaks["macs_per_second"] / 1e9:.0f} GMACs/s in a product of size '
                  f'{peaks["matrix_size"]}, {peaks["bytes_per_second"] / 1e9:.1f} GB/s copied.', '']
    for mixer in result.get('mixers', ()):
        if 'command' not in mixer:  # a figure whose conditions are not known is not shown
            continue
        lines += [f'## Token mixer, {mixer["dtype"]}, {"×".join(map(str, mixer["shape"]))}, NHWC, '
                  f'{mixer["threads"]} thread(s)', '', f'`{mixer["command"]}`', '', mixer_table(mixer), '']
    for loader in result.get('loaders', ()):
        lines += [f'Data loading, {loader["label"]}: {loader["images_per_s"]:.1f} images/s with '
                  f'{loader["workers"]} worker(s); the step takes {loader["step_images_per_s"]:.1f}. '
                  f'Bottleneck: {loader["bottleneck"]}.', '']
    for picture in pictures:
        lines += [f'![{Path(picture).stem}]({picture})', '']
    return without_html('\n'.join(lines))


def write_report(result, path):
    """Write the Markdown at ``path`` and the pictures beside it."""
    path = Path(path)
    pictures = []
    if found := growth(result):
        pictures.append(path.with_name(f'{path.stem}_growth.png'))
        draw_growth(found, pictures[-1])
    if result.get('profiles'):
        pictures.append(path.with_name(f'{path.stem}_profile.png'))
        draw_profile(result['profiles'], pictures[-1])
    write_text(path, report(result, [picture.name for picture in pictures]))
