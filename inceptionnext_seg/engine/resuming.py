"""Which checkpoint a run goes on from: the newest that is whole."""
import os
import zipfile
from pathlib import Path

from mmengine.dist import all_gather_object, get_rank, get_world_size

from ..errors import UserError
from ..files import write_text
from ..models.checkpoint import first_line, read_file
from .joining import is_elastic
from .occupying import occupy

POINTER = 'last_checkpoint'
# Set above 0 by torchrun where it has started the processes again.
RESTARTS = 'TORCHELASTIC_RESTART_COUNT'
WAY_ON = 'Expected: a checkpoint that tools/train.py wrote.'


def point_to(work_dir, path):
    """Let ``last_checkpoint`` name a checkpoint that is whole, relative to ``work_dir``, which may be moved."""
    write_text(Path(work_dir) / POINTER, pointer_to(work_dir, path))


def pointer_to(work_dir, path):
    return str(path) if '://' in str(path) else os.path.relpath(path, work_dir)


def is_pointed_to(work_dir, path):
    """Whether ``last_checkpoint`` names ``path``: the main process has written it."""
    try:
        return (Path(work_dir) / POINTER).read_text(encoding='utf-8').strip() == pointer_to(work_dir, path)
    except (OSError, ValueError):
        return False


def read_pointer(work_dir):
    """The path that ``last_checkpoint`` names; None where there is no such file, or nothing that can be read in it.

    MMEngine writes an absolute path; after the folder was moved it is found by its name.
    """
    try:
        name = (Path(work_dir) / POINTER).read_text(encoding='utf-8').strip()
        path = Path(work_dir) / name
        moved = Path(work_dir) / path.name
        return None if not name else moved if moved.is_file() and not path.is_file() else path
    except (OSError, ValueError):  # not text, or not a path
        return None


def number_of(path):
    """The iteration or epoch in a checkpoint's name, -1 where it has none."""
    digits = path.stem.rpartition('_')[2]
    return int(digits) if digits.isdecimal() and digits.isascii() and len(digits) < 19 else -1


def candidates(work_dir):
    """The checkpoint that ``last_checkpoint`` names, and those before it, from the newest to the oldest."""
    named = read_pointer(work_dir)
    found = [path for path in Path(work_dir).glob('*_*.pth')
             if path.name.startswith(('iter_', 'epoch_')) and path.is_file() and number_of(path) >= 0]
    found.sort(key=lambda path: (path.stat().st_mtime, number_of(path)), reverse=True)
    if named is None:
        return found
    before = [path for path in found if path != named and (number_of(named) < 0 or number_of(path) < number_of(named))]
    return [named, *before]


def read_whole(path):
    """A checkpoint to go on from, every byte of which is as it was written.

    Raises:
        UserError: It cannot be read, is damaged, or holds weights alone.
    """
    checkpoint = read_file(path)
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            damaged = first_line(str(error))
        if damaged:
            raise UserError(f'checkpoint {path} is damaged: the checksum of {damaged} does not fit its bytes.')
    if not isinstance(checkpoint, dict) or 'optimizer' not in checkpoint:
        raise UserError(f'{path} has no optimizer state, so training cannot go on from it. {WAY_ON}')
    if not isinstance(checkpoint.get('meta'), dict):
        raise UserError(f'{path} has no dict "meta", so its iteration and seed are not known. {WAY_ON}')
    return checkpoint


def find_latest(work_dir):
    """The newest checkpoint of a run that is whole, and what it holds.

    Returns:
        tuple[Path, dict] | None: None where the run has written none. A newer one that is damaged is reported.

    Raises:
        UserError: There are checkpoints, and none is whole.
    """
    if not (Path(work_dir) / POINTER).is_file():
        return None
    problems = []
    for path in candidates(work_dir):
        try:
            checkpoint = read_whole(path)
        except UserError as error:
            problems.append(str(error))
            continue
        for problem in problems if get_rank() == 0 else ():
            print(f'{problem} The checkpoint before it is used: {path}.', flush=True)
        return path, checkpoint
    raise UserError(f'--resume: no checkpoint of {work_dir} is whole. {" ".join(problems) or "None is there."} '
                    'Next: training from the start, without --resume.')


def was_restarted():
    """Whether torchrun has started any of the processes again; on several machines it counts on each by itself."""
    here = os.environ.get(RESTARTS, '0') not in ('', '0')
    return any(all_gather_object(here)) if get_world_size() > 1 else here


def forget(work_dir):
    """A run from the start: ``last_checkpoint`` is of another one, from which a later attempt would go on."""
    if get_rank() == 0:
        (Path(work_dir) / POINTER).unlink(missing_ok=True)


def forget_before_restarts(work_dir):
    """:func:`forget` at once, in the first attempt of a run that torchrun may start again."""
    if is_elastic() and not was_restarted():
        occupy(work_dir)    # not that of a training that is not over
        forget(work_dir)


def agree(what, value):
    """Make sure that all processes of the run have the same ``value``, which messages call ``what``.

    Raises:
        UserError: Not all processes have the same ``value``.
    """
    if get_world_size() == 1:
        return
    values = all_gather_object(value)
    if any(other != values[0] for other in values):
        other = next(i for i, found in enumerate(values) if found != values[0])
        raise UserError(f'the processes have another {what}: process 0 has {values[0]}, process {other} has '
                        f'{values[other]}. Expected: the same. Next: a work_dir on a disk that all machines share.')
