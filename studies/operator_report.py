"""Tables, figures and the document of a result of :mod:`studies.operators`.

Every figure in ``docs/factorized_convolutions.md`` stands between two comments, ``<!-- measured: WHAT -->`` and
``<!-- /measured -->``, and :func:`fill` writes it there from the result file.
"""
import collections
import itertools
import math
import pathlib
import re
import statistics
from dataclasses import replace
from fractions import Fraction

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import markdown_table, replacing, write_text

from . import operators
from .operators import GROUPINGS, KERNELS, MODES, PARALLEL, PARTIAL, PROBE, Case, Table

COLOURS = dict(nchw='tab:blue', nhwc='tab:orange')
# The order in which tables list the conditions of a case.
LAYOUT_AND_MODE = [(layout, mode) for mode in MODES for layout in ('nchw', 'nhwc')]
# What is compared with a depthwise 7×7.
TOKEN_MIXERS = [('copy', (1, 1), 1.0), ('square', (5, 5), 1.0), ('square', (3, 3), 1.0), *PARTIAL, *PARALLEL,
                ('sequential', (7, 7), 1.0), ('sequential', (11, 11), 1.0)]


# Words for numbers


def quantity(value):
    """``12_345_678`` as ``'12.3 M'``; three digits."""
    for scale, unit in ((1e9, ' G'), (1e6, ' M'), (1e3, ' k')):
        if value >= scale:
            return f'{value / scale:.3g}{unit}' if value < 1000 * scale else f'{value / scale:.0f}{unit}'
    return f'{value:.3g}'


def factor(interval):
    """A ratio for a table: ``'1.52 (1.48–1.60)'``, with ``'='`` behind it where the interval covers 1."""
    text = f'{interval.median:.2f} ({interval.low:.2f}–{interval.high:.2f})'
    return f'{text} =' if interval.covers(1) else text


def milliseconds(interval):
    return '{:.3g} ({:.3g}–{:.3g})'.format(*[second * 1e3 for second in interval])


def number(value, digits=2):
    return '–' if value is None or math.isnan(value) else f'{value:.{digits}f}'


def shape(case):
    return f'{case.channels} × {case.size}² × {case.batch_size}, {case.dtype}'


def conditions(table, grouping):
    """The (layout, mode) pairs measured for ``grouping``."""
    seen = {(case.layout, case.mode) for case in table if case.grouping == grouping}
    return [pair for pair in LAYOUT_AND_MODE if pair in seen]


def modes_of(table):
    """The modes measured, in the order of :data:`MODES`."""
    seen = {case.mode for case in table}
    return [mode for mode in MODES if mode in seen]


def base_case(table, grouping, form, kernel, ratio=1.0, layout='nchw', mode='infer'):
    """The case of the shape under which most operators of ``grouping`` were measured, or None without one."""
    base = table.base(grouping)
    if base is None:
        return None
    channels, size, batch_size, dtype = base
    return Case(form, kernel, ratio, grouping, channels, size, batch_size, dtype, layout, mode)


def ratio_cell(table, a, b):
    return factor(table.ratio(a, b)) if a in table and b in table else '–'


def ratio_row(table, grouping, operator, reference):
    """Name, ratios of counts, and of time under each layout and mode, at the base shape; no row where unmeasured."""
    pairs = [tuple(base_case(table, grouping, *chosen, layout, mode) for chosen in (operator, reference))
             for layout, mode in conditions(table, grouping)]
    measured = [pair for pair in pairs if all(case in table for case in pair)]
    if not measured:
        return []
    counts = [f'{table.quotient(key, *measured[0]):.2f}' for key in ('parameters', 'macs', 'bytes')]
    return [[measured[0][0].operator, *counts, *[ratio_cell(table, *pair) for pair in pairs]]]


# Tables


def environment_line(result):
    """One sentence on where and when the result was measured."""
    e = result['environment']
    clock = dict(wall='wall clock', cpu='processor time of the one thread, so that time taken by other programs does '
                 'not count')[result['clock']]
    variables = ''.join(f'; {name}={value}' for name, value in e['variables'].items())
    return (f'{e["device_name"]} ({e["cpu_capability"]}), {e["threads"]} thread{"s" * (e["threads"] != 1)}, torch '
            f'{e["versions"]["torch"]}, {e["date"][:10]}; {clock}; {result["rounds"]} rounds{variables}')


def limits_table(result):
    rows = [[dtype, f'{p["macs_per_second"] / 1e9:.1f}', f'{p["bytes_per_second"] / 1e9:.1f}',
             f'{p["cache_bytes_per_second"] / 1e9:.1f}', f'{p["macs_per_second"] / p["bytes_per_second"]:.1f}']
            for dtype, p in result['peaks'].items()]
    first = next(iter(result['peaks'].values()))
    return markdown_table(
        ['dtype', f'product of {first["matrix_size"]}² matrices, GMACs/s',
         f'copy over {first["copy_working_set"] / 2**20:.0f} MiB, GB/s',
         f'copy within {first["cache_copy_working_set"] / 2**20:.0f} MiB, GB/s', 'ridge, MACs/byte'], rows)


def factorized_table(table, grouping):
    """Time of each factorized form over that of its n×n, at the base shape."""
    header = ['time over that of n×n', 'parameters', 'MACs', 'bytes',
              *[f'{layout}, {mode}' for layout, mode in conditions(table, grouping)]]
    rows = []
    for kernel, form in itertools.product(KERNELS, ('sequential', 'sequential_relu')):
        rows += ratio_row(table, grouping, (form, kernel, 1.0), ('square', kernel, 1.0))
    return markdown_table(header, rows)


def parallel_table(table):
    """Time of Inception and partial convolutions over that of 7×7, depthwise, at the base shape."""
    header = ['time over that of 7×7', 'parameters', 'MACs', 'bytes',
              *[f'{layout}, {mode}' for layout, mode in conditions(table, 'depthwise')]]
    rows = []
    for operator in TOKEN_MIXERS:
        rows += ratio_row(table, 'depthwise', operator, ('square', (7, 7), 1.0))
    return markdown_table(header, rows)


def shapes_table(table):
    """3×1 → 1×3 over 3×3, 7×1 → 1×7 and Inception with ratio 1/8 over 7×7, at every shape."""
    columns = [(grouping, layout, mode) for grouping in GROUPINGS for layout, mode in conditions(table, grouping)
               if mode != 'forward']
    rows = []
    for operator, kernel, groupings in ((('sequential', (3, 3), 1.0), (3, 3), GROUPINGS),
                                        (('sequential', (7, 7), 1.0), (7, 7), GROUPINGS),
                                        (('inception', (11, 11), 1 / 8), (7, 7), ('depthwise', ))):
        shapes = list(dict.fromkeys((case.channels, case.size, case.batch_size, case.dtype) for case in table if
                                    case.size > PROBE['size'] and case.grouping in groupings))
        for channels, size, batch_size, dtype in shapes:
            cells, example = [], None
            for grouping, layout, mode in columns:
                example = Case(*operator, grouping, channels, size, batch_size, dtype, layout, mode)
                square = replace(example, form='square', kernel=kernel, ratio=1.0)
                cells.append(ratio_cell(table, example, square) if grouping in groupings else '–')
            if set(cells) != {'–'}:
                rows.append([f'{example.operator} over {kernel[0]}×{kernel[1]}', shape(example), *cells])
    return markdown_table(['time over time', 'channels × size² × batch, dtype',
                           *[', '.join(column) for column in columns]], rows)


def reasons_table(result):
    """What the measurements say of each of the article's reasons."""
    rows = [[name, claim, grouping, mode, f.pairs, f.slower, f.faster, number(f.time), number(f.macs), number(f.bytes),
             f'**{f.verdict}**']
            for name, claim, grouping, mode, f in operators.reasons(Table(result))]
    not_measured = []
    if result['environment']['device'] == 'cpu':
        not_measured.append('the launch of kernels on a GPU, and waiting for it')
        if result['environment']['threads'] == 1:
            not_measured.append('the synchronization of threads on a CPU')
    rows += [['launch and synchronization', what, 'both', 'both', 0, '–', '–', '–', '–', '–', '**not measured**']
             for what in not_measured]
    return markdown_table(['reason', 'claim', 'convolutions', 'mode', 'pairs', 'slower', 'faster', 'time ×', 'MACs ×',
                           'bytes ×', 'verdict'], rows)


def verdicts_table(result):
    """:func:`reasons_table` in brief: in how many pairs each claim holds, and the median ratio of time."""
    found = list(operators.reasons(Table(result)))
    columns = list(dict.fromkeys((grouping, mode) for _, _, grouping, mode, _ in found))
    cells = {(name, grouping, mode): f for name, _, grouping, mode, f in found}
    held = {reason.name: reason.expected for reason in operators.REASONS}

    def cell(name, grouping, mode):
        f = cells[name, grouping, mode]
        holding = dict(slower=f.slower, faster=f.faster, different=f.slower + f.faster)[held.get(name, 'slower')]
        return f'**{f.verdict}**: {holding} of {f.pairs}, × {number(f.time)}' if f.pairs else f'**{f.verdict}**'

    return markdown_table(['reason', 'claim', *[f'{grouping}, {mode}' for grouping, mode in columns]], [
        [name, claim, *[cell(name, grouping, mode) for grouping, mode in columns]]
        for name, claim in dict.fromkeys((name, claim) for name, claim, *_ in found)])


def correlations_table(table):
    """Rank correlation of time with MACs and with bytes, at the base shape."""
    rows = []
    for grouping in GROUPINGS:
        for layout, mode in conditions(table, grouping):
            if found := operators.correlations(table, grouping, mode, layout):
                rows.append([grouping, layout, mode, found[0], number(found[1]), number(found[2])])
    return markdown_table(['convolutions', 'layout', 'mode', 'operators', 'time with MACs', 'time with bytes'], rows)


def kernels_table(table, grouping):
    """Which kernels of the library run each convolution, and what share of the bound they reach, at the base shape."""
    directions = list(dict.fromkeys(operators.ONEDNN_DIRECTIONS.values()))
    rows = []
    kernels, forms = ((3, 3), (7, 7)), ('square', 'column', 'row')
    for layout, kernel, form in itertools.product(('nchw', 'nhwc'), kernels, forms):
        infer = base_case(table, grouping, form, kernel, layout=layout)
        train = infer and replace(infer, mode='train')
        if infer not in table or train not in table:
            continue
        record = table.records[train]
        copied = record['layout_bytes']
        names = ['; '.join(name.removeprefix(direction).strip() for name in record['implementations']
                           if name.startswith(direction)) or 'not told' for direction in directions]
        rows.append([infer.operator, layout, *names,
                     '–' if copied is None else f'{copied / record["bytes"]:.1f}',
                     f'{table.share(infer):.2f}', f'{table.share(train):.2f}'])
    return markdown_table(['operator', 'layout', *directions, 'layout copies over least bytes', 'share of bound, infer',
                           'share of bound, train'], rows)


def overheads_table(table):
    """Price of the calls as a share of the time, by shape; the median over layouts."""
    shares = collections.defaultdict(lambda: collections.defaultdict(list))
    columns = []
    for grouping, mode in itertools.product(GROUPINGS, modes_of(table)):
        for case, share in operators.overheads(table, grouping, mode).items():
            if case.kernel == (7, 7) or (case.form == 'inception' and case.ratio == 1 / 8):
                column = f'{case.operator}, {mode}'
                columns.append(column)
                shares[grouping, shape(case)][column].append(share)
    columns = list(dict.fromkeys(columns))
    rows = [[grouping, where, *[f'{statistics.median(found[column]):.0%}' if column in found else '–'
                                for column in columns]] for (grouping, where), found in shares.items()]
    return markdown_table(['convolutions', 'channels × size² × batch, dtype', *columns], rows)


def prices_table(table):
    """Time of a call on one pixel, in microseconds: the price of the calls alone."""
    rows = []
    for grouping in GROUPINGS:
        for form, kernel, ratio in (('square', (7, 7), 1.0), ('column', (7, 7), 1.0), ('sequential', (7, 7), 1.0),
                                    ('sequential_relu', (7, 7), 1.0), ('inception', (11, 11), 1 / 8)):
            cells, case = [], None
            for layout, mode in conditions(table, grouping):
                case = Case(form, kernel, ratio, grouping, dtype='fp32', layout=layout, mode=mode, **PROBE)
                cells.append(f'{table.time(case).median * 1e6:.0f}' if case in table else '–')
            if set(cells) - {'–'}:
                rows.append([f'{case.operator}, {grouping}', *cells])
    columns = conditions(table, GROUPINGS[0]) or conditions(table, GROUPINGS[1])
    return markdown_table(['one call on one pixel, µs', *[f'{layout}, {mode}' for layout, mode in columns]], rows)


def group_table(table, cases):
    """All that is known of cases measured together."""
    rows = []
    for case in cases:
        record = table.records[case]
        kernel = (7, 7) if case.form in ('inception', 'partial', 'copy') else case.kernel
        square = replace(case, form='square', kernel=kernel, ratio=1.0)
        rows.append([
            f'{case.operator}{", hot" * (case.cache == "hot")}', quantity(record['parameters']),
            quantity(record['macs']), quantity(record['bytes']), f'{record["macs"] / record["bytes"]:.2f}',
            f'{record["bound_seconds"] * 1e3:.3g}', milliseconds(table.time(case)), f'{table.share(case):.2f}',
            '' if square == case else ratio_cell(table, case, square), 'yes' if record['settled'] else '**no**'])
    return markdown_table(['operator', 'parameters', 'MACs', 'least bytes', 'MACs/byte', 'bound, ms', 'time, ms',
                           'share of bound', 'time over n×n (7×7)', 'settled'], rows)


BLOCKS = {
    'limits': limits_table,
    'factorized dense': lambda result: factorized_table(Table(result), 'dense'),
    'factorized depthwise': lambda result: factorized_table(Table(result), 'depthwise'),
    'parallel': lambda result: parallel_table(Table(result)),
    'shapes': lambda result: shapes_table(Table(result)),
    'reasons': reasons_table,
    'verdicts': verdicts_table,
    'correlations': lambda result: correlations_table(Table(result)),
    'kernels dense': lambda result: kernels_table(Table(result), 'dense'),
    'kernels depthwise': lambda result: kernels_table(Table(result), 'depthwise'),
    'overheads': lambda result: overheads_table(Table(result)),
    'prices': lambda result: prices_table(Table(result)),
}


def summary(result):
    """The tables that answer the question, with their titles, as Markdown."""
    table = Table(result)
    unsettled = sum(not record['settled'] for record in table.records.values())
    lines = [f'Command: `{result["environment"]["command"]}`', '', environment_line(result) + '.', '',
             f'{len(table.records)} cases, {unsettled} of them not settled: their two halves disagree after the '
             'warm-up was extended. In brackets: 95 % bootstrap interval of the median. "=": no difference shown, '
             'the interval covers 1. A share of the bound may exceed 1 where outputs stay in the cache.', '']
    titles = {
        'limits': "The machine's limits", 'factorized dense': 'Factorized, dense',
        'factorized depthwise': 'Factorized, depthwise', 'parallel': 'Parallel and partial, depthwise',
        'shapes': 'By shape', 'correlations': 'What time goes with: rank correlation',
        'kernels dense': 'Kernels, dense', 'kernels depthwise': 'Kernels, depthwise', 'prices': 'The price of a call',
        'overheads': 'The price of the calls, of the time', 'reasons': 'Which reasons the numbers bear out'}
    for name, title in titles.items():
        block = BLOCKS[name](result)
        if block.count('\n') > 1:
            lines += [f'## {title}', '', block, '']
    return '\n'.join(lines)


def case_tables(result):
    """A table of each group of cases measured together, as Markdown."""
    table = Table(result)
    lines = []
    for group in operators.groups_of(table):
        for grouping in GROUPINGS:
            cases = [case for case in group if case.grouping == grouping]
            if cases:
                lines += [f'### {grouping}, {shape(cases[0])}, {cases[0].layout}, {cases[0].mode}', '',
                          group_table(table, cases), '']
    return '\n'.join(lines)


# Figures


def draw_factorized(table):
    """Time of n×1 → 1×n over n×n by kernel, with the ratios of MACs and bytes beside it."""
    modes = modes_of(table)
    figure = Figure(figsize=(5 * len(modes), 6.4), layout='constrained')
    axes = figure.subplots(2, len(modes), sharex=True, squeeze=False)
    labels = [f'{height}×{width}' for height, width in KERNELS]
    for row, grouping in zip(axes, GROUPINGS, strict=True):
        for ax, mode in zip(row, modes, strict=True):
            for shift, layout in ((-0.06, 'nchw'), (0.06, 'nhwc')):
                draw_intervals(ax, COLOURS[layout], f'time, {layout}', [
                    (i + shift, a, replace(a, form='square')) for i, kernel in enumerate(KERNELS)
                    if (a := base_case(table, grouping, 'sequential', kernel, layout=layout, mode=mode))], table)
            for key, style in (('macs', '--'), ('bytes', ':')):
                pairs = [(i, a, replace(a, form='square')) for i, kernel in enumerate(KERNELS)
                         if (a := base_case(table, grouping, 'sequential', kernel, mode=mode)) in table]
                ax.plot([i for i, _, _ in pairs], [table.quotient(key, a, b) for _, a, b in pairs], style,
                        color='gray', label=dict(macs='MACs', bytes='least bytes')[key])
            finish_ratio(ax, f'{grouping}, {MODES[mode]}', labels)
        row[0].set_ylabel('n×1 → 1×n over n×n')
    for ax in axes[1]:
        ax.set_xlabel('kernel n×n')
    legend(axes[0][0])
    return figure


def legend(ax):
    """One entry for each label on ``ax``, and none where nothing is labelled."""
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    if handles:
        ax.legend(handles.values(), handles.keys(), fontsize=8)


def draw_intervals(ax, colour, label, points, table):
    """Ratios with their intervals: ``points`` are (x, case, case it is compared with)."""
    found = [(x, table.ratio(a, b)) for x, a, b in points if a in table and b in table]
    if found:
        medians = [interval.median for _, interval in found]
        errors = [[interval.median - interval.low for _, interval in found],
                  [interval.high - interval.median for _, interval in found]]
        ax.errorbar([x for x, _ in found], medians, errors, fmt='o', markersize=5, capsize=3, color=colour, label=label)


def finish_ratio(ax, title, labels):
    ax.axhline(1, color='black', linewidth=0.8)
    ax.set_yscale('log', base=2)
    ax.yaxis.set_major_locator(LogLocator(base=2, subs=(1, 1.5)))
    ax.yaxis.set_major_formatter(lambda value, _: f'{value:.2g}')
    ax.set_xticks(range(len(labels)), labels, fontsize=8)
    ax.set_title(title, fontsize=9)
    ax.grid(axis='y', alpha=0.3)


def draw_roofline(result):
    """Achieved MACs/s against arithmetic intensity under the machine's roofline, at the base shapes."""
    table = Table(result)
    modes = modes_of(table)
    layout = 'nhwc' if any(case.layout == 'nhwc' for case in table) else 'nchw'
    figure = Figure(figsize=(1.5 + 4.7 * len(modes), 4.6), layout='constrained')
    markers = dict(square=('s', 'n×n'), sequential=('o', 'n×1 → 1×n'), column=('|', 'n×1'), row=('_', '1×n'),
                   one_pass=('D', '2×n'), inception=('^', 'Inception'), partial=('v', 'partial'))
    axes = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    for ax, mode in zip(axes, modes, strict=True):
        reach, dtype = [1.0], next(iter(result['peaks']))
        for grouping, (form, (marker, name)) in itertools.product(GROUPINGS, markers.items()):
            cases = [case for case in table if (case.form, case.grouping, case.mode, case.layout, case.cache) == (
                form, grouping, mode, layout, 'cold') and table.base(grouping) == (
                case.channels, case.size, case.batch_size, case.dtype)]
            if cases:
                # Without the products with padding, which need not be computed, or points could lie above the limit.
                x = [table.records[case]['needed_macs'] / table.records[case]['bytes'] for case in cases]
                y = [table.records[case]['needed_macs'] / table.time(case).median / 1e9 for case in cases]
                ax.plot(x, y, marker, markersize=7, label=f'{name}, {grouping}',
                        color=dict(dense='tab:green', depthwise='tab:purple')[grouping])
                reach += x
                dtype = cases[0].dtype
        peaks = result['peaks'][dtype]
        xs = [min(reach) / 2, peaks['macs_per_second'] / peaks['bytes_per_second'], max(reach) * 2]
        ax.plot(xs, [min(x * peaks['bytes_per_second'], peaks['macs_per_second']) / 1e9 for x in xs], color='black',
                label='limits: copy, product')
        ax.set_xscale('log')
        ax.set_yscale('log')
        ax.set_xlabel('MACs (without padding) per least byte')
        ax.set_title(f'{MODES[mode]}, {layout}', fontsize=9)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel('achieved, GMACs/s')
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc='outside right upper')
    return figure


def draw_parallel(table):
    """Time of the depthwise token mixers over that of 7×7, at the base shape."""
    modes = modes_of(table)
    figure = Figure(figsize=(1 + 4.5 * len(modes), 5.6), layout='constrained')
    axes = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    for ax, mode in zip(axes, modes, strict=True):
        for shift, layout in ((-0.15, 'nchw'), (0.15, 'nhwc')):
            for i, (form, kernel, ratio) in enumerate(TOKEN_MIXERS):
                case = base_case(table, 'depthwise', form, kernel, ratio, layout, mode)
                square = base_case(table, 'depthwise', 'square', (7, 7), 1.0, layout, mode)
                if case in table and square in table:
                    interval = table.ratio(case, square)
                    ax.errorbar(interval.median, i + shift, xerr=[[interval.median - interval.low],
                                                                  [interval.high - interval.median]],
                                fmt='o', capsize=3, color=COLOURS[layout], label=layout)
        ax.axvline(1, color='black', linewidth=0.8)
        ax.set_xscale('log', base=2)
        ax.xaxis.set_major_formatter(lambda value, _: f'{value:.2g}')
        ax.set_xlabel('time over that of 7×7 depthwise')
        ax.set_title(MODES[mode], fontsize=9)
        ax.grid(axis='x', alpha=0.3)
    axes[0].set_yticks(range(len(TOKEN_MIXERS)), [Case(*operator).operator for operator in TOKEN_MIXERS], fontsize=8)
    axes[0].invert_yaxis()
    legend(axes[0])
    return figure


def draw_shapes(table):
    """7×1 → 1×7 and Inception 1/8 over 7×7, by shape."""
    modes = modes_of(table)
    figure = Figure(figsize=(10, 0.6 + 2.9 * len(modes)), layout='constrained')
    axes = figure.subplots(len(modes), 3, squeeze=False)
    columns = (('sequential', (7, 7), 1.0, 'dense'), ('sequential', (7, 7), 1.0, 'depthwise'),
            ('inception', (11, 11), 1 / 8, 'depthwise'))
    for column, (form, kernel, ratio, grouping) in enumerate(columns):
        shapes = list(dict.fromkeys((c.channels, c.size, c.batch_size, c.dtype) for c in table if (
            c.form, c.kernel, c.ratio, c.grouping) == (form, kernel, ratio, grouping) and c.size > PROBE['size']))
        shapes.sort(key=lambda key: (key[3] != 'fp32', -key[1], key[2]))
        labels = [f'{channels}×{size}²×{batch}\n{dtype}' for channels, size, batch, dtype in shapes]
        for ax, mode in zip(axes[:, column], modes, strict=True):
            for shift, layout in ((-0.1, 'nchw'), (0.1, 'nhwc')):
                points = []
                for i, key in enumerate(shapes):
                    case = Case(form, kernel, ratio, grouping, *key, layout, mode)
                    points.append((i + shift, case, replace(case, form='square', kernel=(7, 7), ratio=1.0)))
                draw_intervals(ax, COLOURS[layout], layout, points, table)
            finish_ratio(ax, f'{Case(form, kernel, ratio).operator}, {grouping},\n{mode}', labels)
            ax.tick_params(axis='x', labelsize=6, rotation=60)
    for ax in axes[:, 0]:
        ax.set_ylabel('time over that of 7×7')
    axes[-1][0].set_xlabel('channels × size² × batch', fontsize=8)
    legend(axes[0][0])
    return figure


FIGURES = dict(
    factorized=lambda result: draw_factorized(Table(result)),
    parallel=lambda result: draw_parallel(Table(result)),
    shapes=lambda result: draw_shapes(Table(result)),
    roofline=draw_roofline,
)


def markdown(result, name):
    """The tables of ``result`` as a document beside the result file ``name``.json and the figures."""
    return '\n'.join([
        '# Operators: square, factorized and Inception convolutions', '',
        f'Written by `python tools/benchmark_ops.py --report {name}.json`. What it means: '
        '`docs/factorized_convolutions.md`.', '', summary(result), '## Figures', '',
        *[f'![{figure}]({name}_{figure}.png)' for figure in FIGURES], '', '## Every case', '', case_tables(result)])


def write_report(result, path):
    """Write the tables to ``path`` (.md) and the figures beside it (.png).

    Returns:
        list[pathlib.Path]: What was written.
    """
    path = pathlib.Path(path)
    write_text(path, markdown(result, path.stem))
    written = [path]
    for figure, draw in FIGURES.items():
        image = path.with_name(f'{path.stem}_{figure}.png')
        with replacing(image) as temporary:
            draw(result).savefig(temporary, dpi=100)
        written.append(image)
    return written


# The document


MARKER = re.compile(r'<!-- measured: (?P<what>[^>]+?) -->.*?<!-- /measured -->', re.DOTALL)


def fill(text, result):
    """``text`` with everything between ``<!-- measured: WHAT -->`` and ``<!-- /measured -->`` written anew.

    WHAT is the name of a table in :data:`BLOCKS`, 'environment', or a ratio such as
    ``time sequential:7x7 / square:7x7 depthwise nchw train``: 'time', 'macs', 'bytes' or 'parameters' of two operators
    at the base shape, or at another after ``@``, as in ``@96x56x4:bf16``. A share of channels is written
    ``inception:11x11:1/8``.

    Raises:
        UserError: WHAT is none of these, or was not measured.
    """
    def replacement(match):
        what = match['what']
        if what in BLOCKS:
            value = f'\n{BLOCKS[what](result)}\n'
        elif what == 'environment':
            value = environment_line(result)
        else:
            value = compared(Table(result), what)
        return f'<!-- measured: {what} -->{value}<!-- /measured -->'

    return MARKER.sub(replacement, text)


RATIO = re.compile(r'(time|macs|bytes|parameters) (\S+) / (\S+) (\w+) (\w+) (\w+)(?: @(\d+)x(\d+)x(\d+):(\w+))?')
OPERATOR = re.compile(r'(\w+):(\d+)x(\d+)(?::(\d+/\d+))?')


def compared(table, what):
    """The ratio that :func:`fill` is asked for, as text."""
    match = RATIO.fullmatch(what)
    operators_named = match and [OPERATOR.fullmatch(name) for name in match.group(2, 3)]
    if not match or not all(operators_named):
        raise UserError(f'"measured: {what}" is not known. Wanted: environment, one of {", ".join(BLOCKS)}, or such as '
                        '"time sequential:7x7 / square:7x7 depthwise nchw infer". Next: mend the comment')
    grouping, layout, mode, *shape_named, dtype = match.group(4, 5, 6, 7, 8, 9, 10)
    where = (*map(int, shape_named), dtype) if dtype else table.base(grouping)
    pair = []
    for form, height, width, share in (named.groups() for named in operators_named):
        kernel, ratio = (int(height), int(width)), float(Fraction(share or 1))
        cases = [Case(form, kernel, ratio, grouping, *where, layout, mode, cache) for cache in ('cold', 'hot')
                 ] if where else []
        pair += [case for case in cases if case in table][:1]
    if len(pair) < 2:
        raise UserError(f'"measured: {what}" is not in the result. Next: measure it, or mend the comment')
    return f'{table.ratio(*pair).median:.2f}' if match[1] == 'time' else f'{table.quotient(match[1], *pair):.2f}'
