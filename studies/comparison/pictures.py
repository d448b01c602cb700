"""The pictures of a report, each as the bytes of a PNG."""
import io

import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from .reading import is_number

# More candidates than colours are compared in tables, and named in the one picture that has room for them.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')  # Okabe and Ito: told apart by everyone


def curves_figure(candidates):
    """Loss and validation mIoU over iterations: the seeds' mean, and a band from the lowest to the highest."""
    panels = dict()
    for candidate in candidates:
        loss = [list(zip(run['loss']['iteration'], run['loss']['loss'], strict=True)) for run in candidate['runs']]
        history = [[(point['iteration'], point['mIoU']) for point in run['metrics'].get('history') or []
                    if is_number(point.get('mIoU'))] for run in candidate['runs']]
        for title, series in (('Training loss', loss), ('Validation mIoU (%)', history)):
            panels.setdefault(title, []).append(common_points(series))
    panels = {title: lines for title, lines in panels.items() if any(iterations for iterations, _ in lines)}
    if not panels:
        return None
    figure, axes = new_figure(len(panels), 4.4 * len(panels), 3.4)
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        for i, (candidate, (iterations, values)) in enumerate(zip(candidates, lines, strict=True)):
            if not iterations:
                continue
            few = len(iterations) <= 30
            ax.plot(iterations, values.mean(0), color=colour_of(i), label=candidate['name'], linewidth=1.6,
                    marker='o' if few else None, markersize=3.5)
            if len(values) > 1:
                ax.fill_between(iterations, values.min(0), values.max(0), color=colour_of(i), alpha=0.2, linewidth=0)
        ax.set(title=title, xlabel='iteration')
    axes[0].legend(frameon=False)
    return png(figure)


def classes_figure(names, rows, reference):
    """Bars of IoU differences. ``rows``: (class, [Difference | None for each name]), the first row drawn on top."""
    figure, (ax, ) = new_figure(1, 7.2, 1.2 + len(rows) * (0.12 + 0.22 * len(names)))
    height = 0.8 / len(names)
    for i, name in enumerate(names):
        for row, (_, differences) in enumerate(rows):
            difference = differences[i]
            if difference is None:
                continue
            # A percentile interval need not hold the value; an error bar must.
            error = None if difference.low is None else [
                [max(difference.value - difference.low, 0)], [max(difference.high - difference.value, 0)]]
            ax.barh(row + (i - (len(names) - 1) / 2) * height, difference.value, height, xerr=error,
                    color=colour_of(i + 1), alpha=1 if difference.shown or difference.low is None else 0.45,
                    error_kw=dict(ecolor='#333333', elinewidth=1, capsize=2))
        ax.barh(0, 0, color=colour_of(i + 1), label=name)
    ax.axvline(0, color='#333333', linewidth=1)
    ax.set_yticks(range(len(rows)), [title for title, _ in rows])
    ax.invert_yaxis()
    ax.grid(False, axis='y')
    what = f'IoU of {names[0]}' if len(names) == 1 else 'IoU'
    ax.set_xlabel(f'{what} minus that of {reference} (percentage points)')
    if len(names) > 1:
        ax.legend(frameon=False)
    return png(figure)


def speed_figure(points, xlabel):
    """Scatter of speed and accuracy. ``points``: per candidate (name, [(images/s, mIoU) of each run])."""
    few = has_colours(points)
    figure, (ax, ) = new_figure(1, *((5.6, 3.8) if few else (7.6, 5.2)))
    means = []
    for i, (name, runs) in enumerate(points):
        x, y = np.array(runs).T
        means.append((x.mean(), y.mean()))
        if len(runs) > 1 and few:
            ax.scatter(x, y, s=22, color=colour_of(i), alpha=0.5, linewidths=0)
        elif len(runs) > 1:
            ax.errorbar(*means[-1], [[y.mean() - y.min()], [y.max() - y.mean()]], [[x.mean() - x.min()],
                        [x.max() - x.mean()]], color=colour_of(0), alpha=0.35, linewidth=1)
        # Among many, the reference alone has another colour.
        ax.scatter(*means[-1], s=90 if few else 36, color=colour_of(i) if few else COLOURS[i == 0],
                   label=name, edgecolors='white', linewidths=1, zorder=3)
    ax.margins(0.2 if few else 0.12)
    ax.set(xlabel=xlabel, ylabel='mIoU (%)')
    if few:
        ax.legend(frameon=False)
    else:
        label_points(ax, means, [name for name, _ in points])
    return png(figure)


def png(figure):
    buffer = io.BytesIO()
    # Without the version of matplotlib, which is metadata that would change the file.
    figure.savefig(buffer, format='png', dpi=110, metadata=dict(Software=None))
    return buffer.getvalue()


def new_figure(columns, width, height):
    figure = Figure(figsize=(width, height), layout='constrained')
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.spines[['top', 'right']].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, axes


def colour_of(i):
    return COLOURS[i % len(COLOURS)]


def has_colours(candidates):
    """Whether there are few enough to be told apart by colour."""
    return len(candidates) <= len(COLOURS)


def common_points(series):
    """Iterations that all series have, and their values there as (series, iterations)."""
    common = sorted(set.intersection(*({iteration for iteration, _ in points} for points in series)))
    values = [dict(points) for points in series]
    return common, np.array([[value[iteration] for iteration in common] for value in values])


def label_points(ax, points, names):
    """Write each name beside its point, at the first place where it covers no other name or point, if there is one."""
    ax.figure.draw_without_rendering()
    pixels = ax.transData.transform(points)
    taken = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in pixels]
    places = [(dx, dy) for distance in (6, 14, 24) for dx, dy in (
        (distance, 0), (-distance, 0), (0, distance), (0, -distance), (distance, distance), (-distance, distance),
        (distance, -distance), (-distance, -distance))]
    for point, name in zip(points, names, strict=True):
        for dx, dy in places:
            text = ax.annotate(name, point, (dx, dy), textcoords='offset points', fontsize=8,
                               ha=('right', 'center', 'left')[np.sign(dx) + 1],
                               va=('top', 'center', 'bottom')[np.sign(dy) + 1])
            text.set_in_layout(False)
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
            if (dx, dy) != places[-1]:
                text.remove()
        taken.append(box)


def minutes_picture(runs):
    """mIoU over the minutes of the runs of studies/own_recipe.py, the recipe's in front."""
    figure = Figure(figsize=(8, 4.5), layout='constrained')
    axes, names = figure.subplots(), list(dict.fromkeys(run['variant'] for run in runs))
    for run in runs:
        first = run is next(other for other in runs if other['variant'] == run['variant'])
        axes.plot([each['minutes'] for each in run['validations']], [each['mIoU'] for each in run['validations']],
                  color='black' if run['variant'] == 'recipe' else f'C{names.index(run["variant"]) % 10}',
                  zorder=3 if run['variant'] == 'recipe' else 2, label=run['variant'] if first else None)
    axes.set(xlabel='minutes', ylabel='mIoU (%)', xlim=(0, None), ylim=(0, None))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, dpi=110, format='png')
    return content.getvalue()
