"""Figures of a result."""
import itertools
from dataclasses import replace

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from .cases import GROUPINGS, MODES, Case
from .result import Table, base_case, modes_of
from .suites import KERNELS, PROBE, TOKEN_MIXERS

COLOURS = dict(nchw='tab:blue', nhwc='tab:orange')


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


def legend(ax):
    """One entry for each label on ``ax``, and none where nothing is labelled."""
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    if handles:
        ax.legend(handles.values(), handles.keys(), fontsize=8)


FIGURES = dict(
    factorized=lambda result: draw_factorized(Table(result)),
    parallel=lambda result: draw_parallel(Table(result)),
    shapes=lambda result: draw_shapes(Table(result)),
    roofline=draw_roofline,
)
