"""Reading runs: metrics, training loss and pixel counts of each image, checked and without this machine's paths."""
import math
import re
import shlex
import statistics
import zipfile
import zlib
from pathlib import Path

import numpy as np

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import parse_json, read_object

from ..throughput.summary import summarize
from .differences import mean_iou

METRICS = ('mIoU', 'mAcc', 'aAcc')
LARGEST_CURVE = 200
# Eight times those of 5,000 images and 171 classes, COCO-Stuff 164k.
LARGEST_ARRAYS = 256 * 2**20


def read_run(run):
    """One run: dict of ``path``, ``metrics``, ``loss``, and ``counts``. One that was resumed has its whole curves."""
    path = find_metrics(run)
    metrics = read_metrics(path)
    points, history = loss_points(path.parent), [(point['iteration'], point) for point in metrics.get('history') or []]
    begun = iteration_of_start(metrics)
    for folder in folders_before(path.parent) if begun else ():
        if len(points) > 1 and points[0][0] <= points[1][0] - points[0][0]:
            break   # the run's own start: what is older is another run's
        # What a run that was killed had done after its last checkpoint is not part of it.
        points = joined([point for point in loss_points(folder) if point[0] <= begun], points)
        history = joined([point for point in history_in(folder) if point[0] <= begun], history)
    return dict(
        path=public_path(path.parent, names=2), metrics=dict(metrics, history=[point for _, point in history]),
        loss=curve_of(points),
        counts=read_counts(path.with_name('per_image.npz'), metrics))


def iteration_of_start(metrics):
    """The iteration after which the process began that wrote a training's metrics: above 0 where it was resumed."""
    done = (metrics.get('train_throughput') or {}).get('iterations')
    return 0 if done is None or metrics.get('iteration') is None else max(0, metrics['iteration'] - done)


def folders_before(folder):
    """The log folders of a work_dir before one of them, the newest first. Their names are the times of their starts."""
    return sorted((other for other in folder.parent.iterdir() if (other / 'vis_data').is_dir()
                   and other.name < folder.name), reverse=True)


def joined(earlier, later):
    """Points (iteration, value) of two parts of a run, of which the later one counts where both have an iteration."""
    return [point for point in earlier if not later or point[0] < later[0][0]] + later


def history_in(folder):
    """Iterations and validations in the ``metrics.json`` of an earlier part of a run; none where there is none."""
    try:
        return [(point['iteration'], point) for point in read_metrics(folder / 'metrics.json').get('history') or []]
    except UserError:
        return []


def find_metrics(run):
    """The ``metrics.json`` meant by a run's path: the file itself, or the newest one below a directory.

    Raises:
        UserError: There is none; or the directory holds those of several runs; or one is of a multi-scale test and
            another is not: tools/test.py writes both beside those of training, and which is the newer one is no choice.
    """
    run = Path(run)
    if run.is_file():
        return run
    found = sorted(run.rglob('metrics.json'), key=lambda path: (path.stat().st_mtime_ns, path))
    if not found:
        state = 'holds no metrics.json' if run.is_dir() else 'does not exist'
        raise UserError(f'run {run} {state}; expected a metrics.json, or a work_dir with one. '
                        'Next: train it (tools/train.py) or evaluate its checkpoint (tools/test.py), which write one.')
    folders = sorted({path.parent.parent for path in found})
    if len(folders) > 1 and run not in folders:
        raise UserError(f'run {run} holds {len(folders)} runs; expected: one. Next: name each, as '
                        f'NAME={",".join(map(str, folders))} for the seeds of one candidate.')
    newest = found[-1]
    of_newest = is_multi_scale_file(newest)
    other = next((path for path in reversed(found) if is_multi_scale_file(path) not in (None, of_newest)), None)
    if other and of_newest is not None:
        single, multi = (other, newest) if of_newest else (newest, other)
        raise UserError(f'run {run} has results of a multi-scale test (--tta), {multi}, and of a single scale, '
                        f'{single}; expected: results of one kind. Next: give the metrics.json that you mean in place '
                        'of the folder.')
    return newest


def differ_in_length(metrics):
    """Whether evaluations were made at different iterations of their trainings; those of tools/test.py name none."""
    return len({found['iteration'] for found in metrics if found.get('iteration') is not None}) > 1


def is_multi_scale(metrics):
    """Whether metrics are of a test with ``--tta``."""
    return '--tta' in metrics['environment']['command'].split()


def is_multi_scale_file(path):
    """:func:`is_multi_scale` of a file; None where it does not say."""
    try:
        return is_multi_scale(read_object(path, "a run's metrics.json", f'delete {path}'))
    except (UserError, KeyError, TypeError, AttributeError):
        return None


def read_metrics(path):
    """The content of a ``metrics.json``, checked, without this machine's paths.

    Raises:
        UserError: It is missing, corrupt, or of a run without mIoU.
    """
    again = 'evaluate the run again with tools/test.py, which writes it anew'
    metrics = read_object(path, "a run's metrics.json", again)
    for name in METRICS:
        if not is_number(metrics.get(name)):
            raise UserError(f'{path}: {name} is {metrics.get(name)!r}; expected a number. The run was not evaluated, '
                            f'or has not got so far. Next: {again}.')
    classes = metrics.get('per_class')
    if not (isinstance(classes, dict) and classes and all(
            isinstance(row, dict) and all(row.get(k) is None or is_number(row[k]) for k in ('IoU', 'Acc'))
            for row in classes.values())):
        raise UserError(f'{path}: per_class is not a table of IoU and Acc. Next: {again}.')
    check_types(path, metrics, again)
    origin = metrics.get('environment')
    if not (isinstance(origin, dict) and isinstance(origin.get('command'), str)):
        raise UserError(f'{path} does not say what it was made with (environment, command). Next: {again}.')
    return dict(
        metrics, config=public_path(metrics.get('config')), checkpoint=public_path(metrics.get('checkpoint')),
        environment=dict(origin, command=public_command(origin['command'])))


def check_types(path, metrics, again):
    """Whether what a report shows of ``metrics`` beside the figures is what it takes it for."""
    history = metrics.get('history') or []
    for name, kind, right in [
            *((name, 'text', lambda value: isinstance(value, str)) for name in ('config', 'checkpoint')),
            *((name, 'a number', is_number) for name in ('seed', 'seconds', 'processes', 'iteration')),
            *((f'{phase}_throughput', 'a table', lambda value: isinstance(value, dict) and all(
                item is None or is_number(item) for item in value.values())) for phase in ('train', 'val', 'test')),
            ('history', 'a list of metrics by iteration', lambda value: isinstance(value, list) and all(
                isinstance(point, dict) and is_number(point.get('iteration')) for point in history))]:
        if metrics.get(name) is not None and not right(metrics[name]):
            raise UserError(f'{path}: {name} is {str(metrics[name])[:100]!r}; expected {kind}. Next: {again}.')


def loss_points(folder):
    """Iterations and training losses in the log of a run: mmengine's ``scalars.json``, one JSON object a line.

    A line that a run has not finished is left out.
    """
    path, points = folder / 'vis_data' / 'scalars.json', []
    if not path.is_file():
        return points
    for line in path.read_text(encoding='utf-8').splitlines():
        try:
            entry = parse_json(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and is_number(entry.get('loss')) and is_number(entry.get('step')):
            points.append((entry['step'], entry['loss']))
    return points


def curve_of(points):
    """Dict of ``iteration`` and ``loss``; neighbouring points are averaged until at most 200 are left."""
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
        counts = load_arrays(path, ('intersect', 'union', 'label', 'image', 'classes'))
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f'{path} cannot be read as pixel counts per image: {error}. {again}') from error
    classes, images = counts.pop('classes').tolist(), counts.pop('image').tolist()
    shape = (len(images), len(classes))
    if any(count.shape != shape or count.dtype != np.int64 for count in counts.values()):
        found = ', '.join(f'{name} {count.dtype} {count.shape}' for name, count in counts.items())
        raise UserError(f'{path} holds {found}; expected int64 {shape} each. {again}')
    if classes != list(metrics['per_class']) or not math.isclose(
            mean_iou(counts['intersect'].sum(0), counts['union'].sum(0)), metrics['mIoU'], abs_tol=1e-6):
        raise UserError(f'{path} and the metrics.json beside it are not of one evaluation: the classes or the mIoU '
                        f'differ. {again}')
    return dict(counts, images=images)


def load_arrays(path, names):
    """The named arrays of an ``.npz``, whose headers are compared with their sizes before memory is taken for them.

    Raises:
        OSError | ValueError | KeyError | EOFError | zipfile.BadZipFile: It is cut short or no npz, lacks one, or one
            has Python objects, or is not of the size that it announces, or they are larger than ``LARGEST_ARRAYS``.
    """
    with zipfile.ZipFile(path) as archive:
        members = [archive.getinfo(f'{name}.npy') for name in names]
        total = sum(member.file_size for member in members)
        if total > LARGEST_ARRAYS:
            raise ValueError(f'its arrays have {total} bytes; expected at most {LARGEST_ARRAYS}')
        for member in members:
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = read_header[version](file)
                announced = file.tell() + math.prod(shape) * dtype.itemsize
            if announced != member.file_size:
                raise ValueError(f'{member.filename} announces {announced} bytes and has {member.file_size}')
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in names}


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


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


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
