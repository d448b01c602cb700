"""Cost of the arms: parameters, MACs, and training images/s, each in the same implementation.

The token mixers and norms of all arms run in torch's operators (parts ``token_mixer`` and ``blocks`` of the
acceleration are off), for a fused form of some of them against torch's of the others would measure that; heads and loss
are the same accelerated ones in all.
"""
import sys

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.provenance import environment
from inceptionnext_seg.segmentation.complexity import count

from ..comparison.reading import read_benchmark
from ..speed.statistics import speed, speedup
from ..trainings import ROOT
from .arms import REFERENCE, TITLES, config_of

PROCESSES = 5
OPTIONS = ('default_hooks.accelerate.token_mixer=False', 'default_hooks.accelerate.blocks=False')
BATCH, SIDE = 8, 160


def costs(arms):
    """Parameters and MACs of one image, in a crop's size."""
    found = {}
    for arm in arms:
        complexity = count(arm.cfg, tuple(arm.cfg.model.data_preprocessor.size))
        found[arm.name] = dict(parameters=complexity.parameters, macs=complexity.macs)
    return found


def speed_file(out):
    return out.with_name(f'{out.stem}_speed.json')


def measured(path):
    """How many processes the result file has."""
    return len(read_benchmark(path)['runs']) if path.is_file() else 0


def check_conditions(path):
    """Whether another process may be added to a result file.

    Raises:
        UserError: It was measured on another machine, with other versions, or at another commit.
    """
    if not path.is_file():
        return
    before, now = read_benchmark(path)['environment'], environment('cpu')
    for key in ('cpu', 'cpu_cores', 'versions', 'commit'):
        if before.get(key) != now[key]:
            raise UserError(f'{path} was measured with {key} {before.get(key)!r}, and this is {now[key]!r}. Next: '
                            'another --out, or delete it.')


def measuring_command(out, options=()):
    return [sys.executable, str(ROOT / 'tools/benchmark.py'), *map(config_of, TITLES), '--mode', 'train',
            '--batch-size', str(BATCH), '--size', str(SIDE), '--layout', 'nhwc', '--no-memory', '--append',
            '--out', str(out), '--cfg-options', *OPTIONS, *options]


def throughput(path):
    """Of each arm: images/s, and how many times as fast as Inception; of every process together."""
    if not path.is_file():
        return {}
    seconds = {}
    for process, run in enumerate(read_benchmark(path)['runs']):
        for result in run['results']:
            seconds.setdefault(result['name'], {})[process] = result['seconds']
    names = {config_of(arm): arm for arm in TITLES}
    found = {names[path]: times for path, times in seconds.items() if path in names}
    return {arm: dict(images_per_s=speed(list(times.values()), BATCH), ratio=speedup(found[REFERENCE], times))
            for arm, times in found.items()}
