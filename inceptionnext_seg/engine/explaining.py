"""Failures of building and running, told by where they were raised, as one message with the way on."""
import contextlib
import errno
import re
import traceback
from collections.abc import Iterator
from types import FrameType

import torch
from mmengine.registry import build_from_cfg

from ..errors import SettingError, UserError

# Of a disk: full, over the quota, over the limit of one file, turned read-only.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# Of torch.nn.functional.batch_norm, which has no exception type for it.
ONE_VALUE_A_CHANNEL = 'Expected more than 1 value per channel when training'
CONSTRUCTORS = {'__init__', '__new__', '__call__', 'get_instance'}
# What torch puts around an error of a dataloader's worker: a traceback as text.
IN_A_WORKER = re.compile(r'Caught \w+ in DataLoader worker process')

# What needs less memory on a GPU.
LESS_MEMORY = dict(
    training='--cfg-options train_cfg.micro_batch_size=4 (or 2: gradients are accumulated, and a step has as many '
             'images; a BatchNorm sees fewer, and a loss with class weights is another), --amp, or '
             'model.backbone.with_cp=True.',
    testing='no --tta, or --cfg-options test_dataloader.batch_size=1, or windows of an image, "model.test_cfg='
            '{\'mode\': \'slide\', \'crop_size\': (512, 512), \'stride\': (341, 341)}".')


@contextlib.contextmanager
def explained(trains: bool = True) -> Iterator[None]:
    """Turn the failures of building and running that a user can fix into the way on.

    Args:
        trains (bool): Whether it is training that goes on; a test has other options.

    Raises:
        UserError: The GPU has too little memory, the disk is full, a setting of the config has a name or a value that
            its class does not know, a BatchNorm was to train on a single value a channel, or a worker met a file that
            it cannot load.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f'the GPU has too little memory: {str(error).splitlines()[0]}\nNext: '
            f'{LESS_MEMORY["training" if trains else "testing"]}') from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(f'{error.filename or "a file of the run"} cannot be written: {error.strerror}. Next: make room '
                        f'there, and {"go on with --resume, from the last checkpoint" if trains else "test again"}.'
                        ) from error
    except UserError as error:
        if IN_A_WORKER.match(str(error)):
            # The last line that begins with a name of an exception, and what follows it.
            raise UserError(re.split(r'^[\w.]*Error: ', str(error), flags=re.M)[-1].strip()) from error
        below = built_from(error)
        if not isinstance(error, SettingError) or below is None:
            raise
        raise UserError(f'the config cannot be built: {str(error).rstrip(".")}. Next: correct it in the config or in '
                        '--cfg-options.') from error
    except (TypeError, KeyError, ValueError, AssertionError) as error:
        message = str(error.args[0]) if error.args else ''
        if message.startswith(ONE_VALUE_A_CHANNEL):
            raise UserError(
                "a BatchNorm cannot train on one value a channel, which is what a head's 1×1 pooled map of one image "
                'has. Next: two images or more at a time in each process: train_cfg.total_batch_size of 2 or more for '
                'each, and train_cfg.micro_batch_size=2 where that is set; with a loop that has neither, '
                'train_dataloader.batch_size=2.') from error
        if not is_refused_by_its_class(error):
            raise
        message = ' '.join(message.split(". More details")[0].split()).rstrip('.') or failed_line(error)
        raise UserError(f'the config cannot be built: {message}{settings_in(error)}. Next: check the spelling and the '
                        'values in the config and in --cfg-options.') from error


def built_from(error: Exception) -> list[FrameType] | None:
    """The frames below the innermost building from a config that ended with ``error``, innermost last; None where none
    did."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    places = [i for i, frame in enumerate(frames) if frame.f_code is build_from_cfg.__code__]
    return frames[places[-1]:] if places else None


def failed_line(error: Exception) -> str:
    """The line of code that raised ``error``, of an assertion without a message."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f'{frame.line} in {frame.name}' if frame.line else type(error).__name__


def settings_in(error: Exception) -> str:
    """`` (RandomCrop with crop_size=0)``: what was being built when ``error`` was raised, in words."""
    frames = built_from(error)
    cfg = dict(frames[0].f_locals.get('cfg') or {}) if len(frames) > 1 else {}
    given = ', '.join(f'{name}={value!r}' for name, value in cfg.items()
                      if name not in ('type', '_scope_') and isinstance(value, str | int | float | list | tuple))
    kind = cfg.get('type')
    return f' ({getattr(kind, "__name__", kind)} with {given})' if kind and given and len(given) < 400 else ''


def is_refused_by_its_class(error: Exception) -> bool:
    """Whether building from a config ended with ``error`` for a type that no registry has, a setting that its class
    does not take, or a value that its constructor refuses.

    Told by where it was raised: a KeyError in mmengine's ``build_from_cfg`` itself, others there or in a constructor
    below it, which may hand its settings on to that of its base class. Assertions may be deeper: they are how mmcv and
    mmseg refuse settings.
    """
    frames = built_from(error)
    if frames is None:
        return False
    below = frames[1:]
    return not below or isinstance(error, AssertionError) or (not isinstance(error, KeyError) and all(
        frame.f_code.co_name in CONSTRUCTORS for frame in below))
