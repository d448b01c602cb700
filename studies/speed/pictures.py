"""Three pictures, each of one question; a candidate has one colour in all of them."""
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from inceptionnext_seg.files import replacing

from ..published.machine import machine_line
from .cells import CANDIDATES, PARTS

COLOURS = {'as-shipped': '#bdbdbd', 'stock': '#6e6e6e', 'hf-convnext': '#8c6bb1', 'smp-convnext': '#c49a6c',
           'smp-inceptionnext': '#e6842a', 'convnext': '#2ca25f', 'inceptionnext': '#1f77b4'}
MODES = dict(train='training step', infer='inference')
WIDTH, DPI = 8, 100
THREADS = '2 threads'     # of all but the cells that say otherwise


def draw_users(result, path):
    """Training and inference of what a user would pick, in times of stock's speed in fp32."""
    figure = Figure(figsize=(WIDTH, 4.2), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    names = list(COLOURS)
    for axes, (mode, title) in zip(panels, MODES.items(), strict=True):
        cells = {dtype: name for name, cell in result.cells.items() for dtype in ('fp32', 'bf16')
                 if (cell.suite, cell.mode, cell.dtype) == ('main', mode, dtype)}
        if (base := result.images_per_second(cells['fp32'], 'stock')) is None:
            continue
        for i, name in enumerate(names):
            for dtype, offset in (('fp32', -0.2), ('bf16', 0.2)):
                found = result.images_per_second(cells[dtype], name)
                if found is None:
                    continue
                value = found.value / base.value
                axes.barh(i + offset, value, 0.38, color=COLOURS[name], alpha=1 if dtype == 'fp32' else 0.55)
                if found.low is not None:
                    axes.plot([found.low / base.value, found.high / base.value], [i + offset] * 2, color='black', lw=1)
                axes.annotate(f'{value:.2f} {dtype}', (max(value, (found.high or 0) / base.value), i + offset),
                              (3, 0), textcoords='offset points', va='center', fontsize=7.5,
                              bbox=dict(facecolor='white', edgecolor='none', pad=0.6))
        axes.axvline(1, color='black', lw=0.8, ls='--')
        cell = result.cells[cells['fp32']]
        axes.set_title(f'{title}, {cell.batch_size} × {cell.size}×{cell.size}', fontsize=10)
        axes.set_xlabel(f'× stock fp32 ({base.value:.3g} images/s)', fontsize=8.5)
        axes.set_xlim(0, axes.get_xlim()[1] * 1.2)
    panels[0].set_yticks(range(len(names)), [CANDIDATES[name].label for name in names], fontsize=8.5)
    panels[0].invert_yaxis()
    save(figure, result, path)


def draw_growth(result, path):
    """Seconds a megapixel over the side of an image, and over the images of a step."""
    figure = Figure(figsize=(WIDTH, 3.6), layout='constrained')
    panels = figure.subplots(1, 2)
    for axes, mode, key, label in ((panels[0], 'infer', 'size', 'side of the image, pixels'),
                                   (panels[1], 'train', 'batch_size', 'images of a step')):
        cells = growth_cells(result, mode)
        for name in ('stock', 'convnext', 'inceptionnext'):
            points = [(getattr(cell, key), 1e6 / cell.size**2, result.images_per_second(cell.name, name))
                      for cell in cells]
            points = [(x, images, found) for x, images, found in points if found]
            if points:
                axes.plot([x for x, _, _ in points], [images / found.value for _, images, found in points],
                          marker='o', ms=5, color=COLOURS[name], label=CANDIDATES[name].label)
            for x, images, found in points:
                if found.low is not None:
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
    save(figure, result, path)


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
    for row, (mode, title) in zip(panels, MODES.items(), strict=True):
        for axes, figures in zip(row, parts(result, mode), strict=True):
            for i, found in enumerate(figures.values()):
                if found is None:
                    continue
                axes.barh(i, found.value - 1, 0.6, left=1, color=COLOURS['inceptionnext'])
                if found.low is not None:
                    axes.plot([found.low, found.high], [i, i], color='black', lw=1)
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
    save(figure, result, path)


def parts_cell(result, mode):
    return next(cell for cell in result.cells.values() if (cell.suite, cell.mode) == ('parts', mode))


def parts(result, mode):
    """Two dicts by part: how many times as fast as plain with it alone, and as slow as accelerated without it."""
    cell = parts_cell(result, mode).name
    alone = {part: result.speedup(cell, f'only {part}', 'inceptionnext-plain') for part in PARTS[mode]}
    without = {part: result.speedup(cell, 'inceptionnext', f'without {part}') for part in PARTS[mode]}
    return alone, without


def save(figure, result, path):
    figure.suptitle(machine_line(result.content, THREADS), fontsize=8.5)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format='png')


# By kind: the suite that it shows, and how it is drawn.
PICTURES = dict(users=('main', draw_users), growth=('growth', draw_growth), parts=('parts', draw_parts))


def picture_paths(result, path):
    """Paths, beside a result file, of the pictures of what was measured, by kind."""
    return {kind: path.with_name(f'{path.stem}_{kind}.png') for kind, (suite, _) in PICTURES.items()
            if result.has(suite)}


def draw_pictures(result, paths):
    for kind, path in paths.items():
        PICTURES[kind][1](result, path)
