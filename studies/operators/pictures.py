"""Two pictures, each of one question."""
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from inceptionnext_seg.files import replacing

from ..published.machine import machine_line
from .cases import NETWORK_FORMS, NETWORKS
from .cells import KERNELS, PLACES
from .roofline import BYTES, measured_ratios, predicted_ratio
from .summary import cell_name

WIDTH, DPI = 8, 100
SERIES = {('fp32', 1): '#1f77b4', ('fp32', 2): '#2ca25f', ('bf16', 1): '#e6842a'}
COLOURS = dict(zip(NETWORK_FORMS, ('#6e6e6e', '#1f77b4', '#e6842a'), strict=True))


def draw_break_even(result, path):
    """Time of depthwise n×1 → 1×n over that of n×n, by n; dashed what the roofline predicts."""
    figure = Figure(figsize=(WIDTH, 4.2), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    for axes, place in zip(panels, ('inside', 'beyond'), strict=True):
        for (dtype, threads), colour in SERIES.items():
            name = cell_name(dtype=dtype, place=place, threads=threads)
            if name not in result.cells or not (ratios := measured_ratios(result, name)):
                continue
            found = {side: ratio.estimate for side, ratio in ratios.items()}
            sides = list(found)
            axes.plot(sides, [ratio.value for ratio in found.values()], 'o-', color=colour, markersize=4,
                      label=f'{dtype}, {threads} thread{"s" * (threads != 1)}')
            for side, ratio in found.items():
                if ratio.low is not None:
                    axes.plot([side, side], [ratio.low, ratio.high], color=colour, lw=1)
            if limits := result.limits(dtype, threads):
                bandwidth = limits['cache_bytes_per_second' if place == 'inside' else 'bytes_per_second']
                ridge = limits['macs_per_second'] / bandwidth
                axes.plot(sides, [predicted_ratio(side, ridge, BYTES[dtype]) for side in sides], '--', color=colour,
                          lw=1, alpha=0.7)
        ratio_axis(axes.yaxis, axes)
        axes.axhline(1, color='black', lw=0.8)
        axes.set_xticks(KERNELS)
        axes.set_xlabel('n')
        axes.set_title(PLACES[place], fontsize=10)
        if axes.lines:
            axes.legend(fontsize=8)
    panels[0].set_ylabel('time of n×1 → 1×n over n×n, depthwise inference')
    panels[0].yaxis.label.set_size(9)
    save(figure, result, path, '; dashed: roofline')


def ratio_axis(axis, axes):
    """A logarithmic axis of ratios with ticks that read as numbers."""
    getattr(axes, f'set_{axis.axis_name}scale')('log', base=2)
    axis.set_major_locator(FixedLocator([0.125, 0.25, 0.5, 0.7, 1, 1.4, 2, 3, 4]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axes.grid(axis=axis.axis_name, alpha=0.3)


def draw_networks(result, path):
    """Time of whole networks with other convolutions over their own."""
    figure = Figure(figsize=(WIDTH, 2.9), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    for axes, mode, title in zip(panels, ('infer', 'train'), ('inference', 'training step'), strict=True):
        for i, name in enumerate(NETWORKS):
            cell = cell_name(name, mode, place='image', threads=2)
            for form, offset in zip(NETWORK_FORMS[1:], (-0.2, 0.2), strict=True):
                if (ratio := result.ratio(cell, form, NETWORK_FORMS[0])) is None:
                    continue
                axes.barh(i + offset, ratio.value - 1, 0.38, left=1, color=COLOURS[form], label=form if not i else None)
                if ratio.low is not None:
                    axes.plot([ratio.low, ratio.high], [i + offset] * 2, color='black', lw=1)
                axes.annotate(f'{ratio.value:.2f}', (max(ratio.value, ratio.high or 0, 1), i + offset), (3, 0),
                              textcoords='offset points', va='center', fontsize=8)
        axes.axvline(1, color='black', lw=0.8)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel('time over that of the network itself', fontsize=8.5)
        axes.margins(x=0.15)
    panels[0].set_yticks(range(len(NETWORKS)), NETWORKS.values())
    panels[0].invert_yaxis()
    if handles := panels[0].get_legend_handles_labels()[0]:
        figure.legend(handles, NETWORK_FORMS[1:], fontsize=8, loc='outside lower center', ncols=2)
    save(figure, result, path, ', 2 threads, fp32')


def save(figure, result, path, more):
    figure.suptitle(machine_line(result.content) + more, fontsize=8.5)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format='png')


# By kind: what it shows in words, and how it is drawn.
PICTURES = dict(
    break_even=('Time of n×1 → 1×n over n×n by n, measured and by the roofline', draw_break_even),
    networks=('Time of whole networks with factorized and parallel convolutions over their own', draw_networks))


def picture_paths(result, path):
    """Paths, beside a result file, of the pictures of what was measured, by kind."""
    networks = any(cell.subject in NETWORKS for cell in result.cells.values())
    sizes = any(measured_ratios(result, name) for name, cell in result.cells.items() if cell.subject == 'depthwise')
    shown = dict(break_even=sizes, networks=networks)
    return {kind: path.with_name(f'{path.stem}_{kind}.png') for kind in PICTURES if shown[kind]}
