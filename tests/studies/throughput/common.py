"""A small model and a clock for the tests of this folder."""
from pathlib import Path

from studies.throughput.candidates import candidate_config
from studies.throughput.setting import Setting

ROOT = Path(__file__).parents[3]
INCEPTIONNEXT = str(ROOT / 'configs/upernet_inceptionnext_a_mini.py')
CONVNEXT = str(ROOT / 'configs/upernet_convnext_a_mini.py')
SMALL = {'model.decode_head.channels': 16, 'model.auxiliary_head.channels': 8,
         'default_hooks.accelerate.channels_last': False}
TINY = Setting(batch_size=2, size=64)


def small(name=INCEPTIONNEXT):
    return candidate_config(name, SMALL)


class TickingClock:
    """A clock that moves a fixed time at each reading, and notes whether the device was waited for before."""

    def __init__(self, step=1.0, fine=False):
        self.now, self.step, self.fine, self.synchronized, self.readings = 0., step, fine, False, []

    def synchronize(self, *_):
        self.synchronized = True

    def __call__(self):
        self.readings.append(self.synchronized)
        self.synchronized = False
        # The first thousand readings find the clock's resolution, of which a sample must last a thousand.
        self.now += self.step if len(self.readings) > 1000 or not self.fine else 1e-9
        return self.now
