"""Fill the marked blocks of README.md and docs/*.md from docs/results: python tools/readme.py

With --run WORK_DIR the excerpt of a training run is taken from its newest log first. With --picture the plot of speed,
docs/pictures/speed.png, is drawn anew from docs/results/speed.json too.
"""
import argparse
import hashlib
import json
import re
from pathlib import Path

import _repository  # noqa: F401
from matplotlib.figure import Figure

from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import markdown_table, replacing, write_text
from studies import exported as exported_files
from studies import fuzzing, long_run
from studies import other_segmentors as others
from studies.gpu import stream as gpu_stream
from studies.paper import MMSEGMENTATION_CONVNEXT, UPERNET
from studies.reliability.cases import table as reliability_table
from studies.throughput.candidates import ALL, AS_SHIPPED, DEPLOYED, NONE, STOCK
from studies.throughput.summary import summarize
from studies.timing import Interval, describe_ratio

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'docs/results'
EXCERPT = RESULTS / 'mini_run.txt'
SPEED = RESULTS / 'speed.json'
OTHERS = RESULTS / 'accelerate_others.json'
EXPORTED = RESULTS / 'xeon-amx-2cores/exported.json'
RELIABILITY = RESULTS / 'reliability'
PICTURE = ROOT / 'docs/pictures/speed.png'


def excerpt_of(work_dir):
    """The last training line, the last table of classes and the summary of the newest log below ``work_dir``."""
    logs = sorted(Path(work_dir).glob('*/*.log'))
    if not logs:
        raise UserError(f'--run {work_dir}: no log below it. Expected: the work_dir of a run of tools/train.py.')
    text = re.sub(r'^(?:\d{4}/)?\d\d/\d\d [\d:]+ - mmengine - INFO - ', '', logs[-1].read_text(), flags=re.MULTILINE)
    training = re.findall(r'^Iter\(train\).*$', text, flags=re.MULTILINE)[-1]
    table = re.findall(r'^\+-.*?\n\n?(?=\S+\(|[A-Z])', text, flags=re.MULTILINE | re.DOTALL)[-1].rstrip()
    evaluation = re.findall(r'^Iter\(val\) .*aAcc.*$', text, flags=re.MULTILINE)[-1]
    summary = re.findall(r'^Summary: .*$', text, flags=re.MULTILINE)[-1]
    return '\n'.join([training, table, evaluation, summary]) + '\n'


def mini_run():
    """The last line of the excerpt, the run's summary, broken at its commas."""
    if not EXCERPT.is_file():
        return ''
    summary = EXCERPT.read_text().rstrip().splitlines()[-1]
    parts = summary.partition(', peak memory')
    return f'```\n{parts[0]},\n{(parts[1] + parts[2]).lstrip(", ")}\n```'.replace(', metrics', ',\nmetrics')


def paper():
    rows = []
    for row in UPERNET:
        stock = MMSEGMENTATION_CONVNEXT[row.arch] if row.family == 'ConvNeXt' else None
        rows.append([f'{row.family}-{row.arch[0].upper()}', f'{row.parameters} M', f'{row.macs} G', row.miou,
                     f'{stock[0]} / {stock[1]}' if stock else '–', 'not trained'])
    return markdown_table(
        ['backbone', 'parameters', 'MACs', 'paper, mIoU', "MMSegmentation's checkpoint, single scale / multi-scale",
         'here'], rows)


# Speed: every run of tools/benchmark.py in docs/results/speed.json compares candidates with the first of them.


def comparisons():
    """A dict for each candidate beside its run's first one: the setting, both rows, and the first one's layouts.

    ``first`` and ``ours`` are rows of :func:`studies.throughput.summarize`; ``change`` is what stands behind '::' in
    the candidate's name; ``layouts`` maps each layout that the first one was measured in to its images/s.
    """
    for run in json.loads(SPEED.read_text())['runs']:
        first, *others = summarize(run)
        measured = sorted({r['layout'] for r in run['results'] if r['name'] == first['name']})
        layouts = {layout: next(row for row in summarize(run, layout) if row['name'] == first['name'])['images_per_s']
                   for layout in measured}
        for ours in others:
            config, _, change = ours['name'].partition('::')
            yield dict(setting=run['setting'], first=first, ours=ours, config=Path(config).stem, change=change,
                       layouts=layouts)


def same_work(setting):
    """What two settings share that differ in their dtype at most."""
    return tuple(setting[key] for key in ('mode', 'part', 'batch_size', 'size', 'width', 'compile', 'device'))


def best_dtype(setting):
    """dtype and images/s of stock at its fastest over all dtypes, layouts and runs of the same work."""
    return max(((c['first']['images_per_s'], c['setting']['dtype']) for c in comparisons()
                if c['first']['name'] == STOCK and same_work(c['setting']) == same_work(setting)), default=None)


def images(setting):
    return f'{setting["batch_size"]} × {setting["size"]}×{setting["width"] or setting["size"]}'


def stock_cell(comparison):
    """images/s of the first candidate's better layout, and which layouts it was measured in."""
    (best, value), *rest = sorted(comparison['layouts'].items(), key=lambda item: -item[1])
    others = ', '.join(f'{layout.upper()} {other:.3g}' for layout, other in rest)
    return f'{value:.3g} ({best.upper()}{"; " + others if others else " only"})'


def best_dtype_cell(comparison):
    """Ours over stock at its faster dtype, or '–' where that is the row's own dtype or no other was measured."""
    best = best_dtype(comparison['setting']) if comparison['first']['name'] == STOCK else None
    if not best or best[1] == comparison['setting']['dtype']:
        return '–'
    return f'{comparison["ours"]["images_per_s"] / best[0]:.2f} ({best[1]}, {best[0]:.3g})'


def memory_cell(comparison):
    """Peaks of the two processes in MiB."""
    peaks = [comparison[side]['peak_memory'] for side in ('first', 'ours')]
    return ' → '.join(f'{peak / 2**20:.0f}' for peak in peaks) if all(peaks) else '–'


COLUMNS = ['stock, images/s (layouts measured)', 'ours, images/s', 'ours / stock (95 % over rounds)',
           "ours / stock's faster dtype", 'peak of the process, MiB, stock → ours']


def cells(comparison):
    return [stock_cell(comparison), f'{comparison["ours"]["images_per_s"]:.3g}',
            describe_ratio(comparison['ours']['speedup']), best_dtype_cell(comparison), memory_cell(comparison)]


def against_stock():
    """Comparisons of a whole network of ours with stock."""
    return [c for c in comparisons()
            if c['first']['name'] in (STOCK, AS_SHIPPED) and c['change'] in ('', ALL, DEPLOYED)]


# The README's rows and the picture's: label, the setting's mode and dtype, the first candidate.
MAIN = (('training, fp32', 'train', 'fp32', STOCK),
        ('training, fp32, stock as shipped', 'train', 'fp32', AS_SHIPPED),
        ('training, bf16', 'train', 'bf16', STOCK),
        ('inference, fp32', 'infer', 'fp32', STOCK))


def main_comparison(mode, dtype, first):
    """The comparison of whole segmentors at 512 pixels, that with most of stock's layouts and then memory."""
    found = [c for c in against_stock() if c['change'] == '' and c['first']['name'] == first
             and c['setting']['part'] == 'segmentor' and c['setting']['size'] == 512
             and (c['setting']['mode'], c['setting']['dtype']) == (mode, dtype)]
    if not found:
        raise UserError(f'{SPEED}: no {mode} row in {dtype} against {first!r} at 512 pixels. Next: measure it with '
                        'tools/benchmark.py --against, see docs/speed.md.')
    return max(found, key=lambda c: (len(c['layouts']), bool(c['ours']['peak_memory'])))


def speed():
    """Four rows for the README."""
    rows = []
    for label, mode, dtype, first in MAIN:
        comparison = main_comparison(mode, dtype, first)
        rows.append([f'{label}, {images(comparison["setting"])}', *cells(comparison)])
    return markdown_table(['', *COLUMNS], rows)


def speed_all():
    """Every comparison with stock."""
    rows = []
    for c in against_stock():
        s = c['setting']
        what = f'{s["part"]}, {"training" if s["mode"] == "train" else "inference"}, {s["dtype"]}, {images(s)}'
        what += ', deploy form' if c['change'] == DEPLOYED else ''
        what += ', stock as shipped' if c['first']['name'] == AS_SHIPPED else ''
        rows.append([what, *cells(c)])
    return markdown_table(['InceptionNeXt-T', *COLUMNS], rows)


def speed_variants():
    """Our own networks, plain operators against all parts of the acceleration."""
    rows = [[c['config'], f'{c["setting"]["mode"]}, {c["setting"]["dtype"]}, {images(c["setting"])}', *cells(c)[:3],
             memory_cell(c)] for c in comparisons() if c['first']['name'].endswith(f'::{NONE}') and c['change'] == '']
    return markdown_table(
        ['config', 'measured', 'plain, images/s (layouts measured)', 'accelerated, images/s',
         'accelerated / plain (95 % over rounds)', 'peak of the process, MiB, plain → accelerated'], rows)


def speed_parts():
    """Each part of the acceleration alone, against stock, in one run."""
    rows = [[c['change'], f'{c["ours"]["images_per_s"]:.3g}', describe_ratio(c['ours']['speedup']), memory_cell(c)]
            for c in comparisons() if c['first']['name'] == STOCK and c['change'] not in ('', DEPLOYED)]
    return markdown_table(
        ['InceptionNeXt-T UperNet, training, with this part alone', 'images/s', 'over stock (95 % over rounds)',
         'peak of the process, MiB, stock → this'], rows)


def speed_repeated():
    """Candidates measured in one setting and layout by several processes: each value, and how far they are apart."""
    found = {}
    for run in json.loads(SPEED.read_text())['runs']:
        work = (*same_work(run['setting']), run['setting']['dtype'])
        for layout in ('nchw', 'nhwc'):
            for row in summarize(run, layout):
                name = row['name'].removesuffix(f'::{ALL}')
                found.setdefault((work, name, layout), []).append(row['images_per_s'])
    rows = [['stock' if name == STOCK else Path(name).stem, layout.upper(), ', '.join(f'{v:.3g}' for v in values),
             f'{max(values) / min(values) - 1:.0%}']
            for (_, name, layout), values in found.items() if len(values) > 1]
    return markdown_table(['candidate', 'layout', 'images/s of each process', 'fastest over slowest'], rows)


# The picture

COLOURS = {AS_SHIPPED: '#b8b8b8', STOCK: '#6e6e6e', 'ours': '#1f77b4'}
NAMES = {AS_SHIPPED: 'MMSegmentation ConvNeXt-T, as shipped', STOCK: 'MMSegmentation ConvNeXt-T, freed memory kept',
         'ours': 'InceptionNeXt-T, accelerated (this package)'}


def picture_source():
    """What the picture is drawn from, written into it: a test compares."""
    return f'docs/results/speed.json sha256 {hashlib.sha256(SPEED.read_bytes()).hexdigest()}'


def draw_picture(path):
    """images/s of a training step and of inference, stock and ours, and their ratios on an axis of their own."""
    environment = json.loads(SPEED.read_text())['environment']
    found = {label: main_comparison(mode, dtype, first) for label, mode, dtype, first in MAIN if dtype == 'fp32'}
    training, shipped, inference = found.values()
    figure = Figure(figsize=(8, 3.5), layout='constrained')
    panels = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    for axes, title, sides in (
            (panels[0], 'training step',
             [(AS_SHIPPED, shipped['first']), (STOCK, training['first']), ('ours', training['ours'])]),
            (panels[1], 'inference', [(STOCK, inference['first']), ('ours', inference['ours'])])):
        setting = (training if axes is panels[0] else inference)['setting']
        for i, (name, row) in enumerate(sides):
            low, high = row['images_per_s_interval']
            value = row['images_per_s']
            axes.bar(i, value, 0.7, color=COLOURS[name])
            axes.errorbar(i, value, [[max(value - low, 0)], [max(high - value, 0)]], color='black', capsize=3)
            axes.annotate(f'{value:.3g}', (i, high), (0, 3), textcoords='offset points', ha='center', fontsize=9)
        axes.set_title(f'{title}, {images(setting)}', fontsize=9)
        axes.set_ylabel('images/s', fontsize=9)
        axes.set_xticks([])
        axes.set_ylim(0, 1.18 * max(row['images_per_s'] for _, row in sides))
    axes = panels[2]
    labels = ['training,\nas shipped', 'training', 'inference']
    for i, comparison in enumerate((shipped, training, inference)):
        interval = comparison['ours']['speedup']
        axes.errorbar(interval.median, -i, xerr=[[interval.median - interval.low], [interval.high - interval.median]],
                      fmt='o', color=COLOURS['ours'], ecolor='black', capsize=3)
        axes.annotate(f'{interval.median:.2f}', (interval.median, -i), (0, 6), textcoords='offset points', ha='center',
                      fontsize=9)
    axes.axvline(1, color='black', linewidth=1)
    axes.set_xlim(0, 5.5)
    axes.set_xticks(range(6))
    axes.set_yticks([0, -1, -2], labels, fontsize=9)
    axes.set_ylim(-2.5, 0.6)
    axes.set_xlabel('ours / stock (1: equally fast)', fontsize=9)
    axes.set_title('ratio of images/s', fontsize=9)
    for axes in panels:
        axes.tick_params(labelsize=9)
        axes.spines[['top', 'right']].set_visible(False)
    handles = [panels[0].bar(0, 0, color=colour) for colour in COLOURS.values()]
    figure.legend(handles, [NAMES[name] for name in COLOURS], loc='outside upper center', ncols=2, fontsize=9,
                  frameon=False)
    layouts = {label: ' and '.join(map(str.upper, c['layouts'])) for label, c in found.items()}
    measured = '; '.join(f'{label.replace(", fp32", "")} {names}' for label, names in layouts.items())
    figure.supxlabel(
        f'UperNet, fp32, {environment["device_name"]}, {environment["threads"]} threads, torch '
        f'{environment["versions"]["torch"]}; bars: 95 % over the rounds of one process\n'
        f'layouts stock was measured in, the faster is shown: {measured}', fontsize=8)
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100, format='png', metadata=dict(Description=picture_source()))


def any_upernet():
    """Other people's UperNets of 512 channels, how many times faster ``accelerate`` makes them."""
    result = json.loads(OTHERS.read_text())
    cells = []
    for row in others.rows(result):
        if row['channels'] == '512' and 'UP' in row['name'].upper():
            cells.append([row['name'], *(describe_ratio(Interval(row[mode]['faster'], *row[mode]['interval']))
                                         for mode in ('train', 'infer'))])
    return markdown_table(['512-channel head', 'training, times faster', 'inference, times faster'], cells)


def killed_runs():
    result = json.loads((RELIABILITY / 'kills.json').read_text())
    made = result['environment']
    return (f'{reliability_table(result)}\n\n{made["date"][:10]}, {made["device_name"]}, one thread, '
            f'torch {made["versions"]["torch"]}.')


def exported():
    """InceptionNeXt-T in each runtime: seconds of the plain graph, and how many times faster the others are."""
    result = json.loads(EXPORTED.read_text())
    threads = max(int(count) for run in result['runs'] for count in run['threads'])
    lines = []
    for runtime in ('openvino', 'onnx'):
        found = {cell: row for cell, row in exported_files.summary(result, 'inceptionnext', threads).items()
                 if cell.runtime == runtime}
        plain = {cell.dtype: row for cell, row in found.items() if cell.form == 'plain'}
        own = {}
        for cell, row in found.items():
            if cell.form != 'plain' and row['faster'] > own.get(cell.dtype, 0):
                own[cell.dtype] = row['faster']
        faster = ', '.join(
            f'{dtype} {value:.2f}×' + (f' (plain graph {plain[dtype]["faster"]:.2f}×)' if dtype != 'fp32' else '')
            for dtype, value in own.items())
        processes = min(row['processes'] for row in found.values())
        lines.append(f'- {exported_files.RUNTIMES[runtime]}: {plain["fp32"]["seconds"]:.2f} s on the plain fp32 graph; '
                     f"with this package's {faster}; processes of each: {processes}")
    return '\n'.join(lines)


def random_inputs():
    return fuzzing.words(json.loads((RELIABILITY / 'fuzz.json').read_text()))


def sanitized():
    result = json.loads((RELIABILITY / 'sanitize.json').read_text())
    return (f'{result["environment"]["date"][:10]}, {result["compiler"]}: {result["cases"]} random inputs, '
            f'{"no finding" if result["passed"] else "findings"}.')


def watched_run():
    return long_run.words(json.loads((RELIABILITY / 'long_run.json').read_text()))


BLOCKS = dict(mini_run=mini_run, any_upernet=any_upernet, paper=paper, speed=speed, speed_all=speed_all,
              speed_parts=speed_parts, speed_variants=speed_variants, speed_repeated=speed_repeated,
              exported=exported, killed_runs=killed_runs, random_inputs=random_inputs, sanitized=sanitized,
              watched_run=watched_run)
DOCUMENTS = {
    'README.md': ('mini_run', 'any_upernet', 'speed', 'exported'), 'docs/ade20k.md': ('paper', ),
    'docs/reliability.md': ('killed_runs', 'random_inputs', 'sanitized', 'watched_run'),
    'docs/speed.md': ('speed', 'speed_repeated', 'speed_parts', 'speed_all', 'speed_variants')}


# What was emulated for GPUs that are not here.
BLOCKS['gpu_stream'] = lambda: gpu_stream.table(json.loads((ROOT / 'docs/results/gpu_stream.json').read_text()))
DOCUMENTS['docs/gpu.md'] = ('gpu_stream', )


def filled(text, names):
    """``text`` with every block of ``names`` between its markers replaced by what the result files say."""
    for name in names:
        pattern = rf'(<!-- begin {name}: .*? -->\n).*?(<!-- end {name} -->)'
        if not re.search(pattern, text, flags=re.DOTALL):
            raise UserError(f'the document has no block {name!r}; expected: <!-- begin {name}: python tools/readme.py '
                            f'--> and <!-- end {name} -->.')
        text = re.sub(pattern, lambda m, b=BLOCKS[name]: f'{m[1]}{b()}\n{m[2]}', text, flags=re.DOTALL)
    return text


@exit_on_user_error
def main():
    parser = argparse.ArgumentParser(description='Fill the marked blocks of README.md and docs/*.md from docs/results')
    parser.add_argument('--run', metavar='WORK_DIR', help='take the excerpt of a run from here first')
    parser.add_argument('--picture', action='store_true', help=f'draw {PICTURE.relative_to(ROOT)} too')
    args = parser.parse_args()
    if args.run:
        write_text(EXCERPT, excerpt_of(args.run))
    for document, names in DOCUMENTS.items():
        path = ROOT / document
        write_text(path, filled(path.read_text(), names))
    if args.picture:
        draw_picture(PICTURE)


if __name__ == '__main__':
    main()
