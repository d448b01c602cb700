"""Is the difference real? Runs of several candidates, compared in one report: over seeds, over images, in speed.

A report has two steps. :func:`collect` reads the runs into one dict, which is kept as JSON beside the report;
:func:`report` turns that dict, and nothing else, into text and pictures, so that the JSON rebuilds the report. The
statistics are scipy's. IoU and Acc are in per cent, their differences in percentage points.
"""
import base64
import datetime
import html
import io
import json
import math
import re
import shlex
import statistics
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from scipy.stats import DegenerateDataWarning, bootstrap, ttest_ind

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import markdown_table, replacing, write_json, write_text
from inceptionnext_seg.provenance import environment

from .throughput.summary import summarize
from .timing import describe_ratio

FORMAT = 'inceptionnext_seg comparison 1'
METRICS = ('mIoU', 'mAcc', 'aAcc')
PHASES = dict(train='training', val='validation', test='test')
RESAMPLES = 9999
# The JSON is for a repository: the pixel counts of every image are left out where they would make it larger.
LARGEST_JSON = 200_000
LARGEST_CURVE = 200
SHOWN_CLASSES = 10
# More candidates than colours are compared in tables, and named in the one picture that has room for them.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')  # Okabe and Ito: told apart by everyone


# Reading runs


def find_metrics(run):
    """The ``metrics.json`` meant by a run's path: the file itself, or the newest one below a directory.

    Raises:
        UserError: There is none.
    """
    run = Path(run)
    if run.is_file():
        return run
    found = sorted(run.rglob('metrics.json'), key=lambda path: (path.stat().st_mtime_ns, path))
    if not found:
        state = 'holds no metrics.json' if run.is_dir() else 'does not exist'
        raise UserError(f'run {run} {state}; wanted a metrics.json, or a work_dir with one. '
                        'Next: train it (tools/train.py) or evaluate its checkpoint (tools/test.py), which write one.')
    return found[-1]


def read_object(path, what, next_step):
    """The dict in a JSON file. Raises UserError where it is none."""
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'), parse_constant=reject_constant)
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read as {what}: {error}. Next: {next_step}.') from error
    if not isinstance(content, dict):
        raise UserError(f'{path} holds a {type(content).__name__}; wanted {what}. Next: {next_step}.')
    return content


def reject_constant(name):
    raise ValueError(f'it holds {name}, which is no number of JSON')


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_metrics(path):
    """The content of a ``metrics.json``, checked, without this machine's paths.

    Raises:
        UserError: It is missing, corrupt, or of a run without mIoU.
    """
    again = 'evaluate the run again with tools/test.py, which writes it anew'
    metrics = read_object(path, "a run's metrics.json", again)
    for name in METRICS:
        if not is_number(metrics.get(name)):
            raise UserError(f'{path}: {name} is {metrics.get(name)!r}; wanted a number. The run was not evaluated, '
                            f'or has not got so far. Next: {again}.')
    classes = metrics.get('per_class')
    if not (isinstance(classes, dict) and classes and all(
            isinstance(row, dict) and all(row.get(k) is None or is_number(row[k]) for k in ('IoU', 'Acc'))
            for row in classes.values())):
        raise UserError(f'{path}: per_class is not a table of IoU and Acc. Next: {again}.')
    origin = metrics.get('environment')
    if not (isinstance(origin, dict) and isinstance(origin.get('command'), str)):
        raise UserError(f'{path} does not say what it was made with (environment, command). Next: {again}.')
    return dict(
        metrics, config=public_path(metrics.get('config')), checkpoint=public_path(metrics.get('checkpoint')),
        environment=dict(origin, command=public_command(origin['command'])))


def read_loss(path):
    """Training loss from mmengine's ``scalars.json``, one JSON object a line: dict of ``iteration`` and ``loss``.

    Neighbouring lines are averaged until at most 200 points are left. A line that a run has not finished is left out.
    """
    points = []
    if not path.is_file():
        return dict(iteration=[], loss=[])
    for line in path.read_text(encoding='utf-8').splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if is_number(entry.get('loss')) and 'step' in entry:
            points.append((entry['step'], entry['loss']))
    group = max(math.ceil(len(points) / LARGEST_CURVE), 1)
    groups = [points[i:i + group] for i in range(0, len(points), group)]
    return dict(
        iteration=[members[-1][0] for members in groups],
        loss=[round(statistics.fmean(loss for _, loss in members), 5) for members in groups])


def read_counts(path, metrics):
    """Pixel counts of each image, from ``per_image.npz`` beside a ``metrics.json``; None where there is none.

    Returns:
        dict: ``intersect``, ``union``, ``label`` (images, classes) int64, and ``images``, the file names.

    Raises:
        UserError: It is corrupt, or of another evaluation than ``metrics.json``.
    """
    if not path.is_file():
        return None
    again = 'Next: evaluate the run again with tools/test.py, which writes both files anew.'
    try:
        with np.load(path, allow_pickle=False) as file:
            counts = {name: file[name] for name in ('intersect', 'union', 'label', 'image', 'classes')}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f'{path} cannot be read as pixel counts per image: {error}. {again}') from error
    classes, images = counts.pop('classes').tolist(), counts.pop('image').tolist()
    shape = (len(images), len(classes))
    if any(count.shape != shape or count.dtype != np.int64 for count in counts.values()):
        found = ', '.join(f'{name} {count.dtype} {count.shape}' for name, count in counts.items())
        raise UserError(f'{path} holds {found}; wanted int64 {shape} each. {again}')
    if classes != list(metrics['per_class']) or not math.isclose(
            mean_iou(counts['intersect'].sum(0), counts['union'].sum(0)), metrics['mIoU'], abs_tol=1e-6):
        raise UserError(f'{path} and the metrics.json beside it are not of one evaluation: the classes or the mIoU '
                        f'differ. {again}')
    return dict(counts, images=images)


def read_run(run):
    """One run: dict of ``path``, ``metrics``, ``loss``, and ``counts``."""
    path = find_metrics(run)
    metrics = read_metrics(path)
    return dict(
        path=public_path(path.parent, names=2), metrics=metrics,
        loss=read_loss(path.parent / 'vis_data' / 'scalars.json'),
        counts=read_counts(path.with_name('per_image.npz'), metrics))


def read_benchmark(path):
    """What the report needs of a result file of ``tools/benchmark.py``: ``runs`` with raw samples, ``environment``.

    Raises:
        UserError: It is no such file.
    """
    again = 'make it with tools/benchmark.py'
    content = read_object(path, 'a result of tools/benchmark.py', again)
    try:
        for run in content['runs']:
            summarize(run)
            for result in run['results']:
                result['name'] = public_path(result['name'])
        origin = dict(content['environment'], command=public_command(content['environment']['command']))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f'{path} is no result of tools/benchmark.py: {error!r}. Next: {again}.') from error
    return dict(runs=content['runs'], environment=origin)


def collect(candidates, title=None, benchmarks=()):
    """Read everything that a report needs.

    Args:
        candidates (dict[str, list]): Paths of each candidate's runs, one a seed. The first is the reference.
        benchmarks (Sequence): Result files of ``tools/benchmark.py``.

    Returns:
        dict: What the JSON beside a report holds.

    Raises:
        UserError: A run cannot be read, or the candidates were not evaluated on the same classes, images and labels.
    """
    read = []
    for name, runs in candidates.items():
        files = [find_metrics(run).resolve() for run in runs]
        for run, file in zip(runs, files, strict=True):
            if files.count(file) > 1:
                raise UserError(f'{name} names run {run} twice; wanted each run once, since the number of runs decides '
                                'what can be shown. Next: leave one out.')
        read.append(dict(name=name, runs=[read_run(run) for run in runs]))
    runs = all_runs(read)
    check_same_classes(runs)
    paired, images = None, None
    if all(run['counts'] for run in runs):
        check_same_images(runs)
        images = runs[0]['counts']['images']
        paired = [paired_bootstrap([run['counts'] for run in other['runs']], [run['counts'] for run in read[0]['runs']])
                  for other in read[1:]]
    content = dict(
        format=FORMAT, title=title or ' and '.join(candidates), environment=environment('cpu'), candidates=read,
        paired=paired, images=images, benchmarks=[read_benchmark(path) for path in benchmarks])
    content['environment']['command'] = public_command(content['environment']['command'])
    for run in runs:
        if run['counts']:
            run['counts'] = {name: run['counts'][name].tolist() for name in ('intersect', 'union')}
    if len(json.dumps(content)) > LARGEST_JSON:
        for run in runs:
            run['counts'] = None
        content['images'] = None
    # As it comes back from the file, where for instance a tuple is a list.
    return json.loads(json.dumps(content))


def read_collected(path):
    """What :func:`collect` returned, from the JSON beside a report. Raises UserError where it is another file."""
    again = 'make it with tools/compare.py NAME=RUN NAME=RUN --out REPORT.md'
    content = read_object(path, 'the JSON of a report of tools/compare.py', again)
    if content.get('format') != FORMAT:
        raise UserError(f'{path}: format is {content.get("format")!r}; wanted {FORMAT!r}. Next: {again}.')
    return content


def all_runs(candidates):
    return [run for candidate in candidates for run in candidate['runs']]


def check_same_classes(runs):
    first = runs[0]
    for run in runs[1:]:
        expected, found = list(first['metrics']['per_class']), list(run['metrics']['per_class'])
        if expected != found:
            only = [f'only {side["path"]} has {", ".join(map(repr, names[:5]))}{" and more" * (len(names) > 5)}'
                    for side, names in ((first, [n for n in expected if n not in found]),
                                        (run, [n for n in found if n not in expected])) if names]
            raise UserError(f'{run["path"]} was evaluated on {len(found)} classes, {first["path"]} on {len(expected)}: '
                            f'{"; ".join(only) or "in another order"}. Wanted the same data set for all. '
                            'Next: evaluate the checkpoints on one data set with tools/test.py.')


def check_same_images(runs):
    first = runs[0]
    for run in runs[1:]:
        expected, found = first['counts'], run['counts']
        if expected['images'] != found['images']:
            what = f'{len(found["images"])} images, {first["path"]} on {len(expected["images"])}, not the same ones'
        elif not np.array_equal(expected['label'], found['label']):
            image = found['images'][int(np.flatnonzero((expected['label'] != found['label']).any(1))[0])]
            what = f'other labels than {first["path"]}, in {image} first'
        else:
            continue
        raise UserError(f'{run["path"]} was evaluated on {what}; a paired comparison wants the same images and labels '
                        'in the same order. Next: evaluate the checkpoints on one data set with tools/test.py.')


def public_path(path, names=1):
    """A path as a report may show it: relative to the working directory where it lies below, else its last names."""
    if path is None:
        return None
    path, here = Path(path), Path.cwd()
    if path.is_absolute() and path.is_relative_to(here):
        return str(path.relative_to(here))
    return str(Path(*path.parts[-names:])) if path.is_absolute() or '..' in path.parts else str(path)


def public_command(command):
    """A command without this machine's paths, also where they stand behind '=' or between commas."""

    def public(match):
        return public_path(match[0])

    try:
        arguments = shlex.split(command)
    except ValueError:  # quotes without an end, in a command that was not quoted
        arguments = command.split()
    return shlex.join(re.sub(r'(?<![^=,])/[^=,]+', public, argument) for argument in arguments)


# Statistics


class Difference(NamedTuple):
    """A difference with its 95 % interval, whose bounds are None where the data allow none."""
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def shown(self):
        return self.low is not None and not self.low <= 0 <= self.high


def welch(values, reference):
    """Difference of the means with Welch's 95 % interval, which does not assume equal variances.

    No interval where a side has fewer than two values, or no value of either side differs from the others.
    """
    difference = statistics.fmean(values) - statistics.fmean(reference)
    if min(len(values), len(reference)) < 2 or max(np.ptp(values), np.ptp(reference)) == 0:
        return Difference(difference)
    interval = ttest_ind(values, reference, equal_var=False).confidence_interval(0.95)
    return Difference(difference, float(interval.low), float(interval.high))


def class_iou(intersect, union):
    """IoU in per cent of summed counts (..., classes); NaN for a class in neither labels nor predictions."""
    with np.errstate(invalid='ignore'):
        return 100 * np.asarray(intersect, dtype=np.float64) / union


def mean_iou(intersect, union):
    """mIoU in per cent of summed counts (..., classes): the mean over the classes that occur."""
    return np.nanmean(class_iou(intersect, union), axis=-1)


def paired_bootstrap(runs, reference, resamples=RESAMPLES, seed=0):
    """Differences of two candidates on one validation set, with intervals over its images.

    Images are drawn with replacement, each time the same ones for all runs of both sides; then IoU is computed anew
    from the summed counts, as for the whole set. scipy's percentile interval: BCa has none where a class, or a whole
    prediction, is the same on both sides.

    Args:
        runs, reference (Sequence[dict]): Per run, ``intersect`` and ``union`` (images, classes). The runs of a side
            are its seeds; their mIoU are averaged.

    Returns:
        dict: ``mIoU`` and each of ``classes``, by position, as [difference, low, high] of the sides' means; ``pairs``
        the same of the mIoU of run i and reference i; ``resamples`` and ``seed``. A class that some resample lacks has
        no bounds, and one that occurs nowhere is None.
    """
    sides = [len(runs), len(reference)]
    counts = np.concatenate([np.stack([run['intersect'], run['union']], 1) for run in (*runs, *reference)], 1)
    images, _, classes = counts.shape
    # Double precision holds whole numbers up to 2^53: the sums below are exact, and matrix products are fast.
    table = counts.reshape(images, -1).astype(np.float64)
    pairs = min(sides)

    def differences(drawn, axis=-1):
        drawn = np.atleast_2d(drawn)
        weights = np.stack([np.bincount(row, minlength=images) for row in drawn]).astype(np.float64)
        sums = (weights @ table).reshape(len(drawn), sum(sides), 2, classes)
        iou = class_iou(sums[:, :, 0], sums[:, :, 1])
        miou = np.nanmean(iou, axis=-1)
        result = np.concatenate([
            miou[:, :sides[0]].mean(1, keepdims=True) - miou[:, sides[0]:].mean(1, keepdims=True),
            miou[:, :pairs] - miou[:, sides[0]:sides[0] + pairs],
            iou[:, :sides[0]].mean(1) - iou[:, sides[0]:].mean(1)], axis=1)
        return result.T

    with warnings.catch_warnings():
        # Said of every NaN: of a class that occurs in too few images.
        warnings.simplefilter('ignore', DegenerateDataWarning)
        interval = bootstrap(
            (np.arange(images), ), differences, vectorized=True, n_resamples=resamples, batch=500, method='percentile',
            random_state=np.random.default_rng(seed)).confidence_interval
    value = differences(np.arange(images))[:, 0]

    def entry(i):
        bounds = [interval.low[i], interval.high[i]]
        return [float(value[i]), *(map(float, bounds) if np.isfinite(bounds).all() else (None, None))]

    return dict(
        mIoU=entry(0), pairs=[entry(1 + i) for i in range(pairs)],
        classes=[entry(1 + pairs + i) if np.isfinite(value[1 + pairs + i]) else None for i in range(classes)],
        resamples=resamples, seed=seed)


def ran_together(runs):
    """Which of the runs were at work while another of them was on the same kind of device: a list of bool."""
    spans = []
    for run in runs:
        origin = run['metrics']['environment']
        end = datetime.datetime.fromisoformat(origin['date']).timestamp()
        spans.append((end - run['metrics']['seconds'], end, origin.get('device_name')))
    return [any(i != j and a[0] < b[1] and b[0] < a[1] and a[2] == b[2] for j, b in enumerate(spans))
            for i, a in enumerate(spans)]


# Figures


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


# The report: a list of blocks (kind, content), which Markdown and HTML are written from


def number(value, digits=2):
    return '–' if value is None else f'{value:.{digits}f}'


def signed(value):
    return f'{value:+.2f}'


def interval_text(difference):
    return '–' if difference.low is None else f'{signed(difference.low)} to {signed(difference.high)}'


def verdict(difference, name, reference):
    if difference.low is None:
        return 'not tested'
    if not difference.shown:
        return 'no difference shown'
    if abs(difference.value) < 0.005:  # as zero as the table shows it
        return 'no difference worth showing'
    return f'{name if difference.value > 0 else reference} is higher'


def listing(parts):
    parts = list(parts)
    return parts[0] if len(parts) == 1 else f'{", ".join(parts[:-1])} and {parts[-1]}'


def values_of(candidate, metric):
    return [run['metrics'][metric] for run in candidate['runs']]


def mean_text(values):
    mean = number(statistics.fmean(values))
    return f'{mean} ± {number(statistics.stdev(values))}' if len(values) > 1 else mean


def overview_section(content):
    """One row a candidate: what it costs, reaches and processes, and its differences to the first.

    Parameters and MACs are there where ``content`` has a ``complexity`` of each candidate, as a sweep counts them.
    """
    candidates, complexity = content['candidates'], content.get('complexity')
    reference = candidates[0]
    rows = []
    for i, candidate in enumerate(candidates):
        miou, first = values_of(candidate, 'mIoU'), values_of(reference, 'mIoU')
        row = [candidate['name']]
        if complexity:
            cost = complexity[candidate['name']]
            row += [f'{cost["parameters"] / 1e6:.2f} M', f'{cost["macs"] / 1e9:.2f} G']
        row += [mean_text(miou), len(miou)]
        if i:
            seeds = welch(miou, first)
            images = Difference(*content['paired'][i - 1]['mIoU']) if content['paired'] else Difference(seeds.value)
            row += [signed(seeds.value), interval_text(seeds), interval_text(images),
                    verdict(seeds, candidate['name'], reference['name'])]
        else:
            row += ['–'] * 4
        speeds = [t['images_per_s'] for run in candidate['runs'] if (t := throughput_of(run, 'train'))]
        rows.append([*row, number(statistics.median(speeds) if speeds else None)])
    costs = ['parameters', 'MACs'] if complexity else []
    yield 'heading', 'Overview'
    yield 'table', (['candidate', *costs, 'mIoU (%)', 'n', f'minus {reference["name"]}', '95 % over seeds',
                     '95 % over images', 'result over seeds', 'training images/s'], rows)
    text = ('mIoU is mean ± standard deviation over n runs, each with another seed. Differences have two intervals: '
            'over seeds (Welch) for what other seeds would do, and over images (paired bootstrap) for what other '
            'images would do to these very checkpoints. Each interval is for itself: of twenty candidates without any '
            'difference about one would seem to have one. Images/s are medians of the runs themselves, and only '
            'indicative.')
    if complexity:
        sizes = dict.fromkeys('×'.join(map(str, cost['shape'])) for cost in complexity.values())
        text += f' Parameters include the auxiliary head, MACs do not; MACs of one image of {listing(sizes)} pixels.'
    yield 'text', text
    if content.get('note'):
        yield 'text', content['note']


def accuracy_section(candidates):
    """Over seeds: means, standard deviations, each run, and Welch's intervals of the differences to the first."""
    reference, *others = candidates
    yield 'heading', 'Accuracy over seeds'
    yield 'table', (
        ['candidate', 'n', *(f'{metric} (%)' for metric in METRICS)],
        [[c['name'], len(c['runs']), *(mean_text(values_of(c, metric)) for metric in METRICS)] for c in candidates])
    if any(len(candidate['runs']) > 1 for candidate in candidates):
        yield 'text', 'Mean ± standard deviation over the n runs, which differ in their seed.'
    yield 'table', (
        ['run of', 'seed', 'iteration', *(f'{metric} (%)' for metric in METRICS)],
        [[c['name'], number(run['metrics'].get('seed'), 0), number(run['metrics'].get('iteration'), 0),
          *(number(run['metrics'][metric]) for metric in METRICS)] for c in candidates for run in c['runs']])
    lengths = {run['metrics'].get('iteration') for run in all_runs(candidates)}
    if len(lengths) > 1:
        yield 'text', ('**The runs were not evaluated at the same iteration**, so the differences below are also '
                       'differences in training length.')
    if not others:
        return
    yield 'table', (
        [f'minus {reference["name"]}', 'metric', 'difference', '95 % interval', 'result'],
        [[c['name'], metric, signed(d.value), interval_text(d), verdict(d, c['name'], reference['name'])]
         for c in others for metric in METRICS for d in [welch(values_of(c, metric), values_of(reference, metric))]])
    yield 'text', ("Difference of the means in percentage points, with Welch's interval (`scipy.stats.ttest_ind`, "
                   'variances not assumed equal). It covers what the choice of the seed does, not that of the images.')
    for other in others if has_colours(candidates) else ():
        yield 'text', seeds_limit(other, reference)


def runs_text(n, m):
    return 'one run each' if n == m == 1 else f'{n} runs each' if n == m else f'{n} and {m} runs'


def seeds_limit(other, reference):
    """In words, what so many runs can show."""
    n, m = len(other['runs']), len(reference['runs'])
    names = f'{other["name"]} and {reference["name"]}'
    difference = welch(values_of(other, 'mIoU'), values_of(reference, 'mIoU'))
    if min(n, m) < 2:
        return (f'{names}: {runs_text(n, m)}. One run says nothing about the spread over seeds, so no interval can be '
                'given, and the difference may be chance.')
    if difference.low is None:
        return f'{names}: all runs of a side gave the same mIoU, so no interval can be given. Were the seeds different?'
    half = (difference.high - difference.low) / 2
    return (f'{names}: with {runs_text(n, m)} the interval of mIoU reaches {number(half)} points to either side. '
            + ('The difference is larger than that.' if difference.shown else
               'A smaller true difference cannot be told from none with so few runs, so this is no proof of equality.'))


def images_section(content):
    """Over images: the paired bootstrap of mIoU and of the classes that differ most."""
    reference, *others = content['candidates']
    if not others:
        return
    yield 'heading', 'The same images, paired'
    if not content['paired']:
        missing = [run['path'] for run in all_runs(content['candidates']) if not run['counts']]
        yield 'text', (f'Not done: no `per_image.npz` beside the metrics of {listing(missing)}. '
                       'Evaluating with tools/test.py writes it.')
        return
    first = content['paired'][0]
    text = (
        'A paired bootstrap over the validation images (`scipy.stats.bootstrap`, '
        f'{first["resamples"]} resamples, percentile interval, generator seed {first["seed"]}): images are drawn with '
        'replacement, the same ones for both sides, and mIoU is computed anew from their pixel counts. It covers what '
        'the choice of the images does, for these very checkpoints, not what another seed would do.')
    if len(all_runs(content['candidates'])) > len(content['candidates']):
        text += (' The first row of a candidate compares the mean mIoU of all its runs with that of all runs of '
                 f'{reference["name"]}, on the same drawn images; the rows below it take the runs two by two.')
    yield 'text', text
    rows = []
    for other, paired in zip(others, content['paired'], strict=True):
        single = len(other['runs']) == len(reference['runs']) == 1
        entries = [('the run' if single else 'mean of all runs', paired['mIoU'])]
        if not single:
            entries += [
                (f'seed {a["metrics"].get("seed")} and seed {b["metrics"].get("seed")}', entry)
                for a, b, entry in zip(other['runs'], reference['runs'], paired['pairs'], strict=False)]
        for what, entry in entries:
            d = Difference(*entry)
            rows.append([other['name'], what, signed(d.value), interval_text(d),
                         verdict(d, other['name'], reference['name'])])
    yield 'table', ([f'minus {reference["name"]}', 'runs', 'mIoU difference', '95 % interval', 'result'], rows)


def class_rows(content):
    """(class, [Difference | None of each other candidate], [mean IoU of each candidate]), largest difference first."""
    reference, rows = content['candidates'][0], []
    for i, title in enumerate(reference['runs'][0]['metrics']['per_class']):
        means = []
        for candidate in content['candidates']:
            iou = [run['metrics']['per_class'][title]['IoU'] for run in candidate['runs']]
            means.append(None if None in iou else statistics.fmean(iou))
        if content['paired']:
            entries = [paired['classes'][i] for paired in content['paired']]
            differences = [entry and Difference(*entry) for entry in entries]
        else:
            differences = [None if None in (mean, means[0]) else Difference(mean - means[0]) for mean in means[1:]]
        if any(differences):
            rows.append((title, differences, means))
    return sorted(rows, key=lambda row: -max(abs(d.value) for d in row[1] if d))


def classes_section(content, picture):
    reference, *others = content['candidates']
    rows = class_rows(content)
    yield 'heading', 'Classes that differ most'
    yield 'image', (picture, f'IoU of each class minus that of {reference["name"]}')
    header = ['class', f'{reference["name"]} IoU (%)']
    for other in others:
        header += [f'{other["name"]} IoU (%)', 'difference', '95 % interval', 'result']
    table = []
    for title, differences, means in rows[:SHOWN_CLASSES]:
        row = [title, number(means[0])]
        for other, d, mean in zip(others, differences, means[1:], strict=True):
            row += [number(mean)] + (['–'] * 3 if d is None else [
                signed(d.value), interval_text(d), verdict(d, other['name'], reference['name'])])
        table.append(row)
    yield 'table', (header, table)
    text = f'{len(table)} of {len(rows)} classes; IoU is the mean over the runs.'
    if content['paired']:
        text += (' The intervals are those of the paired bootstrap, each for itself: of twenty classes without any '
                 'difference about one would seem to have one. In the picture, pale bars have intervals that cover 0. '
                 'A class without an interval occurs in too few images.')
    yield 'text', text


def throughput_of(run, phase):
    throughput = run['metrics'].get(f'{phase}_throughput') or {}
    return throughput if throughput.get('images_per_s') else None


def throughput_section(candidates):
    """Images/s and memory of the runs themselves."""
    reference, runs = candidates[0], all_runs(candidates)
    rows = []
    for phase, title in PHASES.items():
        measured = [[t for run in c['runs'] if (t := throughput_of(run, phase))] for c in candidates]
        medians = [statistics.median(t['images_per_s'] for t in ts) if ts else None for ts in measured]
        for candidate, ts, median in zip(candidates, measured, medians, strict=True):
            if ts:
                rows.append([
                    candidate['name'], title, ', '.join(number(t['images_per_s']) for t in ts), number(median),
                    number(median / medians[0] if medians[0] else None),
                    number(max(t['peak_memory_MiB'] for t in ts), 0)])
    if not rows:
        return
    yield 'heading', 'Throughput and memory'
    yield 'table', (['candidate', 'phase', 'images/s of each run', 'median', f'ratio to {reference["name"]}',
                     'peak memory (MiB)'], rows)
    text = ('Images per second of the runs themselves, without their warm-up, and the highest peak memory (of the GPU, '
            'or of the process). **These are figures of training runs, not of a benchmark, and only indicative**: '
            'tools/benchmark.py measures candidates against each other and gives intervals.')
    together = sum(ran_together(runs))
    if together:
        text += (f' {together} of the {len(runs)} runs ran at the same time as another of them, on the same kind of '
                 'machine: they most likely shared it, and their figures are then lower than on an idle one. What else '
                 'the machine did is not recorded.')
    yield 'text', text
    machines = {tuple(run['metrics']['environment'].get(k) for k in ('device', 'device_name', 'threads'))
                for run in runs}
    if len(machines) > 1:
        yield 'text', '**The runs were not made on the same device with the same number of threads**; ratios mislead.'


def benchmarks_section(benchmarks):
    """Images/s from the raw samples of tools/benchmark.py."""
    for benchmark in benchmarks:
        yield 'heading', 'Throughput in a benchmark'
        yield 'text', ('Medians with 95 % bootstrap intervals, from raw samples that the candidates took in turns in '
                       'one process; each in its faster layout. Settled: both halves of the samples agree.')
        yield 'code', [benchmark['environment']['command']]
        yield 'text', f'{machine_text(benchmark["environment"])}; {versions_text(benchmark["environment"])}.'
        rows = []
        for run in benchmark['runs']:
            setting = run['setting']
            for row in summarize(run):
                low, high = row['images_per_s_interval']
                rows.append([
                    row['label'], f'{setting["part"]} {setting["mode"]} {setting["dtype"]} {row["layout"]}',
                    f'{setting["batch_size"]} × {setting["size"]}²',
                    f'{row["images_per_s"]:.3g} ({low:.3g}–{high:.3g})',
                    '1' if row['speedup'] is None else describe_ratio(row['speedup']),
                    'yes' if row['settled'] else '**no**'])
        yield 'table', (['candidate', 'measured', 'batch', 'images/s', 'ratio to the first', 'settled'], rows)


def speed_points(content):
    """Points of the scatter and its axis: from a benchmark of all candidates' configs, else from the runs."""
    candidates = content['candidates']
    configs = [Path(candidate['runs'][0]['metrics']['config'] or '').stem for candidate in candidates]
    for benchmark in content['benchmarks']:
        for run in benchmark['runs']:
            speeds = {row['label']: row['images_per_s'] for row in summarize(run)}
            if run['setting']['part'] == 'segmentor' and all(config in speeds for config in configs):
                points = [(candidate['name'], [(speeds[config], miou) for miou in values_of(candidate, 'mIoU')])
                          for candidate, config in zip(candidates, configs, strict=True)]
                return points, f'images/s in the benchmark ({run["setting"]["mode"]}, {run["setting"]["dtype"]})'
    for phase, title in PHASES.items():
        if all(throughput_of(run, phase) for run in all_runs(candidates)):
            points = [(c['name'], [(throughput_of(run, phase)['images_per_s'], run['metrics']['mIoU'])
                                   for run in c['runs']]) for c in candidates]
            return points, f'images/s in {title}, of the runs themselves'
    return None, None


def provenance_section(content):
    candidates, runs = content['candidates'], all_runs(content['candidates'])
    yield 'heading', 'Where this comes from'
    yield 'text', 'This report:'
    yield 'code', [content['environment']['command']]
    yield 'text', 'Its runs:'
    yield 'code', list(dict.fromkeys(run['metrics']['environment']['command'] for run in runs))
    rows = []
    for candidate in candidates:
        for run in candidate['runs']:
            metrics, origin = run['metrics'], run['metrics']['environment']
            rows.append([
                candidate['name'], number(metrics.get('seed'), 0), f'`{run["path"]}`', f'`{metrics["config"] or "–"}`',
                str(origin.get('date', '–'))[:10], number(metrics.get('seconds'), 0), metrics.get('processes', '–')])
    yield 'table', (['run of', 'seed', 'run', 'config', 'date', 'seconds', 'processes'], rows)
    for title, entries in (('Machine', [machine_text(run['metrics']['environment']) for run in runs]),
                           ('Versions', [versions_text(run['metrics']['environment']) for run in runs])):
        for text in dict.fromkeys(entries):
            who = '' if len(set(entries)) == 1 else f' ({entries.count(text)} of the {len(runs)} runs)'
            yield 'text', f'{title}{who}: {text}.'


def machine_text(origin):
    cores = origin.get('cpu_cores', origin.get('cpu_count', '?'))
    return (f'{origin.get("device_name", "unknown")} ({origin.get("device", "unknown")}), {cores} processor cores, '
            f'{origin.get("threads", "?")} thread(s) used by torch, {origin.get("platform", "unknown")}')


def versions_text(origin):
    return ', '.join(f'{name} {version}' for name, version in origin.get('versions', {}).items())


def summary(content):
    """The report's first lines: who wins, or that it is not shown."""
    reference, *others = content['candidates']
    for i, other in enumerate(others):
        names = (other['name'], reference['name'])
        seeds = welch(values_of(other, 'mIoU'), values_of(reference, 'mIoU'))
        text = (f'mIoU: {names[1]} {mean_text(values_of(reference, "mIoU"))}, {names[0]} '
                f'{mean_text(values_of(other, "mIoU"))} ({runs_text(len(reference["runs"]), len(other["runs"]))}). ')
        if seeds.low is None:
            text += '**Over seeds nothing is tested**: that needs two runs a side that differ.'
        elif seeds.shown:
            winner, loser = names if seeds.value > 0 else names[::-1]
            text += f'**{winner} wins over {loser}**: difference over seeds {signed(seeds.value)} points'
            text += f' (95 % interval {interval_text(seeds)}).'
        else:
            text += (f'**No difference shown over seeds**: {names[0]} minus {names[1]} is {signed(seeds.value)} points'
                     f' (95 % interval {interval_text(seeds)}).')
        if content['paired']:
            images = Difference(*content['paired'][i]['mIoU'])
            text += (f' Over the images, for these checkpoints: {signed(images.value)} points '
                     f'({interval_text(images)}), {verdict(images, *names)}.')
        yield 'text', text


def report(content, stem):
    """Blocks of the report, and its pictures.

    Args:
        content (dict): From :func:`collect`.
        stem (str): What the pictures' names begin with.

    Returns:
        tuple: list of (kind, content), and dict of PNG bytes by file name.
    """
    candidates = content['candidates']
    reference, *others = candidates
    few = has_colours(candidates)
    first = [*(summary(content) if few else ()),
             *(overview_section(content) if 'complexity' in content or not few else ())]
    pictures, blocks = {}, [('title', content['title']), *first, *accuracy_section(candidates),
                            *images_section(content)]
    rows = class_rows(content) if few else []
    if rows:
        picture = f'{stem}_classes.png'
        pictures[picture] = classes_figure(
            [other['name'] for other in others], [row[:2] for row in rows[:2 * SHOWN_CLASSES]], reference['name'])
        blocks += classes_section(content, picture)
    blocks += [*throughput_section(candidates), *benchmarks_section(content['benchmarks'])]
    points, xlabel = speed_points(content)
    if points:
        picture = f'{stem}_speed.png'
        pictures[picture] = speed_figure(points, xlabel)
        blocks += [('heading', 'Speed and accuracy'), ('image', (picture, 'mIoU against images per second'))]
        blocks += [('text', 'Large points are means over the runs, small ones the runs.' if few else
                    'Points are means over the runs; the bars reach from the lowest to the highest run.')]
    curves = curves_figure(candidates) if few else None
    if curves:
        picture = f'{stem}_curves.png'
        pictures[picture] = curves
        blocks += [('heading', 'Training curves'), ('image', (picture, 'Training loss and validation mIoU')),
                   ('text', 'Mean over the runs; the band reaches from the lowest to the highest run.')]
    blocks += provenance_section(content)
    return blocks, pictures


def markdown(blocks):
    """The blocks as Markdown; pictures are referred to by name."""

    def escaped(row):
        return [str(cell).replace('|', '\\|') for cell in row]

    def render(kind, content):
        if kind == 'table':
            header, rows = content
            return markdown_table(escaped(header), map(escaped, rows))
        if kind == 'image':
            return f'![{content[1]}]({content[0]})'
        if kind == 'code':
            return '\n'.join(['```sh', *content, '```'])
        return {'title': '# ', 'heading': '## ', 'text': ''}[kind] + content

    return '\n\n'.join(render(*block) for block in blocks) + '\n'


STYLE = '''body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% }
pre, code { background: #f4f4f4 } pre { padding: .75rem; overflow-x: auto }'''


def html_page(blocks, pictures):
    """The blocks as one HTML file that holds its pictures."""

    def inline(text):
        text = re.sub(r'\*\*(.+?)\*\*', r'<strong>\1</strong>', html.escape(str(text)))
        return re.sub(r'`(.+?)`', r'<code>\1</code>', text)

    def row(cells, tag):
        return '<tr>' + ''.join(f'<{tag}>{inline(cell)}</{tag}>' for cell in cells) + '</tr>'

    def render(kind, content):
        if kind == 'table':
            header, rows = content
            return '\n'.join(['<table>', row(header, 'th'), *(row(cells, 'td') for cells in rows), '</table>'])
        if kind == 'image':
            data = base64.b64encode(pictures[content[0]]).decode()
            return f'<img alt="{html.escape(content[1])}" src="data:image/png;base64,{data}">'
        if kind == 'code':
            return f'<pre>{html.escape(chr(10).join(content))}</pre>'
        tag = {'title': 'h1', 'heading': 'h2', 'text': 'p'}[kind]
        return f'<{tag}>{inline(content)}</{tag}>'

    head = f'<meta charset="utf-8"><title>{html.escape(blocks[0][1])}</title><style>{STYLE}</style>'
    body = '\n'.join(render(*block) for block in blocks)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def write_report(content, out, as_html=False):
    """Write the report, its pictures and its JSON, each whole or not at all.

    Args:
        out (Path): The Markdown file; the others lie beside it, with its stem.
        as_html (bool): Also write one HTML file that holds everything.

    Returns:
        list[Path]: What was written.

    Raises:
        UserError: ``content`` is not whole.
    """
    out = Path(out)
    try:
        blocks, pictures = report(content, out.stem)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f'what the report {out} is made from is not whole: {error!r}. Next: make it from the runs with '
                        'tools/compare.py NAME=RUN NAME=RUN --out REPORT.md.') from error
    written = []
    for name, picture in pictures.items():
        written.append(out.with_name(name))
        with replacing(written[-1]) as temporary:
            temporary.write_bytes(picture)
    written.append(out.with_suffix('.json'))
    write_json(written[-1], content)
    if as_html:
        written.append(out.with_suffix('.html'))
        write_text(written[-1], html_page(blocks, pictures))
    written.append(out)
    write_text(out, markdown(blocks))
    return written
