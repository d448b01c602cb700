from studies.throughput import profile
from studies.throughput.profile import StepClock
from studies.throughput.step import Step

from .common import TINY, TickingClock, small


def test_parts_of_a_step_are_timed_with_the_device_waited_for_before_each_reading(monkeypatch):
    clock = TickingClock()
    monkeypatch.setattr(profile, 'synchronize', clock.synchronize)
    step = Step(small(), TINY, 'nchw')
    parts = StepClock(step, clock).measure()
    assert parts == dict.fromkeys((
        'backbone forward', 'head forward', 'loss forward', 'loss backward', 'head backward', 'backbone backward',
        'optimizer'), 1.0)
    assert all(clock.readings)
