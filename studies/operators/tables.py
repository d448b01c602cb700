"""Tables of a result."""
import collections
import itertools
import math
import statistics
from dataclasses import replace

from inceptionnext_seg.files import markdown_table

from . import reasons
from .cases import GROUPINGS, Case
from .kernels import ONEDNN_DIRECTIONS
from .result import Table, base_case, conditions, modes_of
from .suites import KERNELS, PROBE, TOKEN_MIXERS


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
            for name, claim, grouping, mode, f in reasons.reasons(Table(result))]
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
    found = list(reasons.reasons(Table(result)))
    columns = list(dict.fromkeys((grouping, mode) for _, _, grouping, mode, _ in found))
    cells = {(name, grouping, mode): f for name, _, grouping, mode, f in found}
    held = {reason.name: reason.expected for reason in reasons.REASONS}

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
            if found := reasons.correlations(table, grouping, mode, layout):
                rows.append([grouping, layout, mode, found[0], number(found[1]), number(found[2])])
    return markdown_table(['convolutions', 'layout', 'mode', 'operators', 'time with MACs', 'time with bytes'], rows)


def kernels_table(table, grouping):
    """Which kernels of the library run each convolution, and what share of the bound they reach, at the base shape."""
    directions = list(dict.fromkeys(ONEDNN_DIRECTIONS.values()))
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
        for case, share in reasons.overheads(table, grouping, mode).items():
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


# Rows and cells


def ratio_row(table, grouping, operator, reference):
    """Name, ratios of counts, and of time under each layout and mode, at the base shape; no row where unmeasured."""
    pairs = [tuple(base_case(table, grouping, *chosen, layout, mode) for chosen in (operator, reference))
             for layout, mode in conditions(table, grouping)]
    measured = [pair for pair in pairs if all(case in table for case in pair)]
    if not measured:
        return []
    counts = [f'{table.quotient(key, *measured[0]):.2f}' for key in ('parameters', 'macs', 'bytes')]
    return [[measured[0][0].operator, *counts, *[ratio_cell(table, *pair) for pair in pairs]]]


def ratio_cell(table, a, b):
    return factor(table.ratio(a, b)) if a in table and b in table else '–'


def factor(interval):
    """A ratio for a table: ``'1.52 (1.48–1.60)'``, with ``'='`` behind it where the interval covers 1."""
    text = f'{interval.median:.2f} ({interval.low:.2f}–{interval.high:.2f})'
    return f'{text} =' if interval.covers(1) else text


def quantity(value):
    """``12_345_678`` as ``'12.3 M'``; three digits."""
    for scale, unit in ((1e9, ' G'), (1e6, ' M'), (1e3, ' k')):
        if value >= scale:
            return f'{value / scale:.3g}{unit}' if value < 1000 * scale else f'{value / scale:.0f}{unit}'
    return f'{value:.3g}'


def milliseconds(interval):
    return '{:.3g} ({:.3g}–{:.3g})'.format(*[second * 1e3 for second in interval])


def number(value, digits=2):
    return '–' if value is None or math.isnan(value) else f'{value:.{digits}f}'


def shape(case):
    return f'{case.channels} × {case.size}² × {case.batch_size}, {case.dtype}'
