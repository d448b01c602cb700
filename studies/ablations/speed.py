"""Cost of the arms: parameters, MACs, and training images/s, each in the same implementation.

The token mixers and norms of all arms run in torch's operators (parts ``token_mixer`` and ``blocks`` of the
acceleration are off), for a fused form of some of them against torch's of the others would measure that; heads and loss
are the same accelerated ones in all. Every arm is measured in both layouts, and its faster one counts.
"""
import sys

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.provenance import environment
from inceptionnext_seg.segmentation.complexity import count

from ..comparison.reading import read_benchmark
from ..speed.statistics import median_of_medians, speed, speedup
from ..trainings import ROOT
from .arms import CONTROL, REFERENCE, TITLES, config_of

PROCESSES = 5
# With channels_last=False the acceleration leaves the layout to the benchmark, which measures both.
OPTIONS = tuple(f'default_hooks.accelerate.{part}=False' for part in ('token_mixer', 'blocks', 'channels_last'))
MEASURED = tuple(arm for arm in TITLES if arm not in CONTROL[1:])    # these are the same network as the first
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
    return [sys.executable, str(ROOT / 'tools/benchmark.py'), *map(config_of, MEASURED), '--mode', 'train',
            '--batch-size', str(BATCH), '--size', str(SIDE), '--layout', 'best', '--no-memory', '--append',
            '--out', str(out), '--cfg-options', *OPTIONS, *options]


def throughput(path):
    """Of each arm in its faster layout: images/s, and how many times as fast as Inception; of every process together.

    Returns:
        dict[str, dict]: By arm, ``layout``, ``images_per_s`` and ``ratio``.
    """
    if not path.is_file():
        return {}
    seconds = {}
    for process, run in enumerate(read_benchmark(path)['runs']):
        for result in run['results']:
            layouts = seconds.setdefault(result['name'], {})
            layouts.setdefault(result['layout'], {})[process] = result['seconds']
    names, found = {config_of(arm): arm for arm in TITLES}, {}
    for name, layouts in seconds.items():
        if name in names:
            layout = min(layouts, key=lambda layout: median_of_medians(list(layouts[layout].values())))
            found[names[name]] = layout, layouts[layout]
    return {arm: dict(layout=layout, images_per_s=speed(list(times.values()), BATCH),
                      ratio=speedup(found[REFERENCE][1], times)) for arm, (layout, times) in found.items()}
