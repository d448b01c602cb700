"""What averaged weights bring: the recipe's own runs, measured once more with the weights of their last iteration.

mmengine's ``EMAHook`` averages beside the training and does not touch it: a run without it would be the same run, but
for the validations by which the recipe stops early. A checkpoint holds both kinds of weights, so that each run is
compared with itself.
"""
import sys
from pathlib import Path

import torch

from inceptionnext_seg.engine.resuming import find_latest
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import read_object, replacing, write_json

from .sweep import execute, tail_of

ROOT = Path(__file__).resolve().parents[1]
VARIANT, OF_THE_MODEL = 'no_ema', 'module.'


def last_weights(path, checkpoint):
    """The weights of the last iteration, of a checkpoint that ``EMAHook`` saved: a state dict.

    Raises:
        UserError: It has no averaged weights, so that none were left out.
    """
    if 'ema_state_dict' not in checkpoint:
        raise UserError(f'{path} has no averaged weights beside others (ema_state_dict). Expected: a checkpoint of a '
                        'run with EMAHook. Next: delete the run and train it again.')
    # EMAHook saves the averaged weights as state_dict, and has these in their place.
    return {name.removeprefix(OF_THE_MODEL): value for name, value in checkpoint['ema_state_dict'].items()
            if name != 'steps'}


def measure(trained, work_dir, lock):
    """Write ``work_dir``/report.json as a run of the recipe does.

    Args:
        trained (studies.own_recipe.Run): Of the recipe, done.
        work_dir (Path): Of the result.
        lock (file): Held by this process.

    Returns:
        bool: Whether it was measured; if not, the reason was printed.
    """
    whole = trained.result()
    if whole is None:
        print(f'{trained.title} is not done, whose last weights were to be measured', flush=True)
        return False
    weights, log = work_dir / 'last_weights.pth', work_dir / 'test.log'
    with replacing(weights) as temporary:
        torch.save(dict(state_dict=last_weights(*find_latest(trained.work_dir))), temporary)
    config, = trained.work_dir.glob('*.py')
    code = execute([sys.executable, '-u', str(ROOT / 'tools/test.py'), str(config), str(weights), '--work-dir',
                    str(work_dir)], log, lock)
    if code:
        print(f'{trained.title}, last weights: FAILED with exit code {code}, at the end of {log}:\n{tail_of(log)}',
              flush=True)
        return False
    metrics = read_object(max(work_dir.glob('*/metrics.json')), 'metrics', f'delete {work_dir}')
    last = whole['validations'][-1]
    write_json(work_dir / 'report.json', dict(
        finished=True, of_run=trained.variant, iteration=whole['iteration'], seconds=whole['seconds'],
        validations=[dict(last, mIoU=metrics['mIoU'])],
        IoU={name: each['IoU'] for name, each in metrics['per_class'].items()}))
    weights.unlink()
    return True
