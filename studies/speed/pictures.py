"""Three pictures, each of one question; a candidate has one colour in all of them."""
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from inceptionnext_seg.files import replacing

from ..published.machine import machine_line
from .cells import CANDIDATES, PARTS
from .statistics import Estimate

COLOURS = {'as-shipped': '#bdbdbd', 'stock': '#6e6e6e', 'hf-convnext': '#8c6bb1', 'smp-convnext': '#c49a6c',
           'smp-inceptionnext': '#e6842a', 'convnext': '#2ca25f', 'inceptionnext': '#1f77b4'}
MODES = dict(train='training step', infer='inference')
WIDTH, DPI = 8, 100
THREADS = '2 threads'     # of all but the cells that say otherwise
HOLLOW = 'hollow: too few processes for an interval'


def in_times_of_stock(result, mode):
    """How many times as fast as stock in fp32, by candidate and dtype, as the tables have it.

    The ratio to stock in the same dtype, within each process that has both, times stock's own bar: a bar is longer than
    stock's of its dtype exactly where the tables say that it is faster. An interval is that of the ratio alone.

    Returns:
        tuple[dict[str, Cell], dict[tuple, Estimate]]: The cells by dtype, and by (candidate, dtype) what was measured
        in every layout that it was to be.
    """
    cells = {cell.dtype: cell for cell in result.cells.values() if (cell.suite, cell.mode) == ('main', mode)}
    found = {}
    for dtype, cell in cells.items():
        own = result.speedup(cell.name, 'stock', baseline_cell=cells['fp32'].name)
        if own is None:
            continue
        if dtype == 'fp32':     # by definition
            own = Estimate(1.0, *((None, None) if own.low is None else (1.0, 1.0)), own.processes)
        found['stock', dtype] = own
        for name in COLOURS:
            if name != 'stock' and not result.lacking(cell.name, name):
                ratio = result.speedup(cell.name, name)
                found[name, dtype] = ratio and ratio.times(own.value)
    return cells, {key: times for key, times in found.items() if times}


def draw_users(result, path):
    """Training and inference of what a user would pick, in times of stock's speed in fp32."""
    figure = Figure(figsize=(WIDTH, 4.4), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    names, shown = list(COLOURS), []
    for axes, (mode, title) in zip(panels, MODES.items(), strict=True):
        cells, times = in_times_of_stock(result, mode)
        if ('stock', 'fp32') not in times:
            continue
        for i, name in enumerate(names):
            for dtype, offset in (('fp32', -0.2), ('bf16', 0.2)):
                if (found := times.get((name, dtype))) is None:
                    if result.best(cells[dtype].name, name) is not None:
                        axes.annotate('one layout measured: left out', (0, i + offset), (3, 0), fontsize=7,
                                      textcoords='offset points', va='center', color='#6e6e6e')
                    continue
                shown.append(found)
                bar(axes, i + offset, found, 0.38, COLOURS[name], 1 if dtype == 'fp32' else 0.55)
                axes.annotate(f'{found.value:.2f} {dtype}', (max(found.value, found.high or 0), i + offset),
                              (3, 0), textcoords='offset points', va='center', fontsize=7.5,
                              bbox=dict(facecolor='white', edgecolor='none', pad=0.6))
        axes.axvline(1, color='black', lw=0.8, ls='--')
        cell = cells['fp32']
        base = result.images_per_second(cell.name, 'stock')
        axes.set_title(f'{title}, {cell.batch_size} × {cell.size}×{cell.size}', fontsize=10)
        axes.set_xlabel(f'× stock fp32 ({base.value:.3g} images/s)', fontsize=8.5)
        axes.set_xlim(0, axes.get_xlim()[1] * 1.2)
    panels[0].set_yticks(range(len(names)), [CANDIDATES[name].label for name in names], fontsize=8.5)
    panels[0].invert_yaxis()
    save(figure, result, path, shown, "lines: of the ratio to stock in the same dtype; stock's own, to fp32")


def bar(axes, position, found, height, colour, alpha=1, left=0):
    """A horizontal bar from ``left`` to a value with its interval; hollow where it has none."""
    hollow = found.low is None
    axes.barh(position, found.value - left, height, left=left, alpha=alpha, facecolor='none' if hollow else colour,
              edgecolor=colour, lw=1 if hollow else 0)
    if not hollow:
        axes.plot([found.low, found.high], [position, position], color='black', lw=1)


def draw_growth(result, path):
    """Seconds a megapixel over the side of an image, and over the images of a step."""
    figure = Figure(figsize=(WIDTH, 3.6), layout='constrained')
    panels, shown = figure.subplots(1, 2), []
    for axes, mode, key, label in ((panels[0], 'infer', 'size', 'side of the image, pixels'),
                                   (panels[1], 'train', 'batch_size', 'images of a step')):
        cells = growth_cells(result, mode)
        for name in ('stock', 'convnext', 'inceptionnext'):
            points = [(getattr(cell, key), 1e6 / cell.size**2, result.images_per_second(cell.name, name))
                      for cell in cells]
            points = [(x, images, found) for x, images, found in points if found]
            if points:
                axes.plot([x for x, _, _ in points], [images / found.value for _, images, found in points],
                          color=COLOURS[name], label=CANDIDATES[name].label)
            for x, images, found in points:
                shown.append(found)
                hollow = found.low is None
                axes.plot(x, images / found.value, marker='o', ms=5, color=COLOURS[name],
                          markerfacecolor='white' if hollow else COLOURS[name])
                if not hollow:
                    axes.plot([x, x], [images / found.low, images / found.high], color='black', lw=1)
        ticks = [getattr(cell, key) for cell in cells]
        axes.set_xscale('log')
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels(ticks)
        axes.set_ylim(0)
        axes.set_xlabel(label)
        axes.set_ylabel('seconds a megapixel, fp32')
        axes.grid(alpha=0.3)
        sizes = {f'{cell.batch_size} image' if mode == 'infer' else f'{cell.size}×{cell.size}' for cell in cells}
        axes.set_title(f'{MODES[mode]}, {", ".join(sorted(sizes))}', fontsize=10)
    if drawn := [axes for axes in panels if axes.lines]:
        drawn[0].legend(fontsize=8)
    save(figure, result, path, shown)


def growth_cells(result, mode):
    """Cells in fp32 of one image by size, or of 256 pixels by batch."""
    found = [cell for cell in result.cells.values()
             if (cell.mode, cell.part, cell.dtype, cell.threads) == (mode, 'segmentor', 'fp32', 2)
             and (cell.suite == 'growth' or (cell.suite == 'main' and mode == 'infer'))]
    return sorted(found, key=lambda cell: (cell.batch_size, cell.size))


def draw_parts(result, path):
    """What each part of the acceleration brings alone, and what leaving it out costs."""
    figure = Figure(figsize=(WIDTH, 3.9), layout='constrained')
    panels = figure.subplots(2, 2, sharex='col', height_ratios=[len(PARTS[mode]) for mode in MODES])
    shown = []
    for row, (mode, title) in zip(panels, MODES.items(), strict=True):
        for axes, figures in zip(row, parts(result, mode), strict=True):
            for i, found in enumerate(figures.values()):
                if found is None:
                    continue
                shown.append(found)
                bar(axes, i, found, 0.6, COLOURS['inceptionnext'], left=1)
                axes.annotate(f'{found.value:.2f}', (max(found.value, found.high or 1, 1), i), (3, 0),
                              textcoords='offset points', va='center', fontsize=8)
            axes.set_yticks(range(len(figures)), list(figures), fontsize=8.5)
            axes.invert_yaxis()
            axes.axvline(1, color='black', lw=0.8)
        row[1].set_yticklabels([])
        cell = parts_cell(result, mode)
        row[0].set_ylabel(f'{title},\n{cell.batch_size} × {cell.size}×{cell.size}', fontsize=8.5)
    for axes, title, label in zip(panels[0], ('this part alone', 'all parts but this one'), (0, 1), strict=True):
        axes.set_title(title, fontsize=10)
        panels[1][label].set_xlim(*(panels[1][label].get_xlim()[0], panels[1][label].get_xlim()[1] * 1.08))
    panels[1][0].set_xlabel('times as fast as plain torch operators, NHWC', fontsize=8.5)
    panels[1][1].set_xlabel('times as slow as with all parts', fontsize=8.5)
    save(figure, result, path, shown)


def parts_cell(result, mode):
    return next(cell for cell in result.cells.values() if (cell.suite, cell.mode) == ('parts', mode))


def parts(result, mode):
    """Two dicts by part: how many times as fast as plain with it alone, and as slow as accelerated without it."""
    cell = parts_cell(result, mode).name
    alone = {part: result.speedup(cell, f'only {part}', 'inceptionnext-plain') for part in PARTS[mode]}
    without = {part: result.speedup(cell, 'inceptionnext', f'without {part}') for part in PARTS[mode]}
    return alone, without


def save(figure, result, path, shown, words=''):
    """Write a picture, under it ``words`` and, where an estimate that it shows has no interval, what hollow means."""
    below = filter(None, [HOLLOW if any(found.low is None for found in shown) else '', words])
    figure.supxlabel('; '.join(below), fontsize=8)
    figure.suptitle(machine_line(result.content, THREADS), fontsize=8.5)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format='png')


# By kind: the suite that it shows, and how it is drawn.
PICTURES = dict(users=('main', draw_users), growth=('growth', draw_growth), parts=('parts', draw_parts))


def picture_paths(result, path):
    """Paths, beside a result file, of the pictures of what was measured, by kind."""
    return {kind: path.with_name(f'{path.stem}_{kind}.png') for kind, (suite, _) in PICTURES.items()
            if result.has(suite)}
