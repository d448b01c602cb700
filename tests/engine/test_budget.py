"""Schedules that fit a time: lengths worked by hand, rates against formulas, and a run on a clock of its own."""
import itertools

import pytest
import torch
from engine.small_run import build
from mmengine.hooks import Hook

from inceptionnext_seg.engine import budget as budget_module
from inceptionnext_seg.engine.budget import (
    TimeBudgetHook,
    first_plan,
    iterations_left,
    seconds_to_end,
)
from inceptionnext_seg.errors import SettingError, UserError


def test_iterations_fill_the_time_that_validations_leave():
    # 100 s; an iteration of 1 s, a validation of 5 s every 10 and one at the end: 95 s for 1 + 0.5 s each.
    assert iterations_left(100, 1, 5, 10) == 63
    assert iterations_left(3, 1, 5, 10) == 1


def test_the_first_plan_spends_a_share_on_validations_and_the_rest_on_training():
    # An hour, 0.5 s an iteration, 9 s a validation: 5 % are 20 validations, 180 s; 3420 s are 6840 iterations.
    assert first_plan(3600, 0.5, 9, 25, 20, 0.05) == (6865, 344)
    # A validation of a minute: three of them, 180 s.
    assert first_plan(3600, 0.5, 60, 25, 20, 0.05) == (6865, 2289)
    # One that takes more than its share is made once, at the end.
    assert first_plan(100, 1, 50, 0, 20, 0.05) == (50, 50)
    # Where nothing fits any more, the run ends, validated.
    assert first_plan(1, 10, 50, 7, 20, 0.05) == (7, 7)
    assert first_plan(-9, 10, 50, 0, 20, 0.05) == (1, 1)


def test_the_end_is_predicted_with_the_validations_that_are_left():
    # From 25 to 100 by 2 s, validations of 3 s at 30, 60, 90 and at the end.
    assert seconds_to_end(25, 100, 30, 2, 3) == 75 * 2 + 4 * 3
    assert seconds_to_end(30, 90, 30, 2, 3) == 60 * 2 + 2 * 3
    assert seconds_to_end(90, 90, 30, 2, 3) == 0


class Clock:
    """Seconds that pass as a run goes on, for an iteration and a validation."""

    def __init__(self, iteration=1., validation=2.):
        self.seconds, self.iteration, self.validation, self.slow = 0., iteration, validation, {}

    def __call__(self):
        return self.seconds


class Passing(Hook):
    """Lets a clock run on, and records the rate of each iteration."""

    priority = 'VERY_HIGH'

    def __init__(self, clock):
        self.clock, self.rates, self.validated = clock, [], []

    def after_train_iter(self, runner, **settings):
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][0])
        self.clock.seconds += self.clock.slow.get(runner.iter, self.clock.iteration)

    def after_val_epoch(self, runner, metrics=None):
        self.clock.seconds += self.clock.validation
        self.validated.append(runner.iter)


def run(tmp_path, clock, warm_up=6, power=1., training=None, **settings):
    passing = Passing(clock)
    budget = TimeBudgetHook(**{**dict(minutes=2, skip_iters=2, measure_iters=4, share=0.1, clock=clock), **settings})
    budget.measure_validation = lambda runner: 3.  # the clock stands still while images are looked at
    runner = build(tmp_path, **{**dict(max_iters=5000, hooks=[passing, budget], interval=1000, patience=1000),
                                **(training or {})})
    runner.param_schedulers = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=warm_up),
        dict(type='PolyLR', power=power, eta_min=0., by_epoch=False, begin=warm_up, end=5000)]
    return runner, passing, budget


def test_a_run_ends_on_time_and_its_rate_is_that_of_a_schedule_of_this_length(tmp_path):
    clock = Clock()
    runner, passing, budget = run(tmp_path, clock)
    runner.train()
    length = budget.fitted[1]
    assert runner.iter == length == len(passing.rates) and passing.validated[-1] == length
    assert clock.seconds == pytest.approx(120, abs=0.02 * 120 + 2)
    assert 3 <= len(passing.validated) <= 6
    poly = [0.01 * (1 - i / (length - 7)) for i in range(length - 6)]
    assert passing.rates[6:] == pytest.approx(poly, abs=1e-9)


def test_a_run_on_a_machine_that_becomes_slower_still_ends_on_time_without_a_jump_of_its_rate(tmp_path):
    clock = Clock()
    clock.slow = dict.fromkeys(range(50, 5000), 2.)
    runner, passing, budget = run(tmp_path, clock, minutes=4)
    runner.train()
    assert clock.seconds == pytest.approx(240, abs=0.02 * 240 + 4)
    assert budget.fitted[0] > 6  # it was fitted again
    decay = passing.rates[6:]
    steps = [before - after for before, after in itertools.pairwise(decay)]
    assert min(steps) > 0 and decay[-1] < 0.03 * decay[0]
    # The rest of the way is shared by fewer iterations, each a larger step; none is a jump.
    assert max(steps) < 4 * steps[0]


@pytest.mark.parametrize(('accumulated', 'iterations_of_a_step'), [
    (dict(micro_batch_size=2), 1), (dict(accumulate=4), 4)], ids=str)
def test_a_run_that_accumulates_gradients_may_be_longer_than_the_config_says(
        tmp_path, accumulated, iterations_of_a_step):
    runner, _, budget = run(tmp_path, Clock(), minutes=1, training=dict(max_iters=12, **accumulated))
    runner.train()
    assert runner.iter == budget.fitted[1] > 40
    steps = next(iter(runner.optim_wrapper.optimizer.state.values()))['step']
    assert steps == -(-runner.iter // iterations_of_a_step)


def test_a_warm_up_takes_at_most_half_of_a_short_run(tmp_path):
    clock = Clock()
    runner, passing, _ = run(tmp_path, clock, warm_up=1000, minutes=0.5)
    runner.train()
    top = max(passing.rates)
    assert top == pytest.approx(0.01)
    place = passing.rates.index(top)
    assert place <= len(passing.rates) / 2 and passing.rates[-1] < 0.1 * top
    rising = passing.rates[:place + 1]
    assert rising == sorted(rising) and passing.rates[place:] == sorted(passing.rates[place:], reverse=True)


def test_a_resumed_run_has_the_schedule_of_before_and_the_time_that_is_left(tmp_path):
    clock = Clock()
    runner, whole, budget = run(tmp_path / 'whole', clock)
    runner.train()

    class Stop(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, **settings):
            if runner.iter == 59:
                raise KeyboardInterrupt

    first = Clock()
    runner, _, _ = run(tmp_path / 'run', first)
    next(hook for hook in runner.hooks if type(hook).__name__ == 'CheckpointHook').interval = 60
    runner.register_hook(Stop())
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    second = Clock()
    runner, rest, again = run(tmp_path / 'run', second)
    runner._resume = True
    runner.train()
    assert again.fitted[1] == budget.fitted[1] and len(rest.rates) == len(whole.rates) - 60
    assert rest.rates == pytest.approx(whole.rates[60:], abs=1e-9)
    assert first.seconds + second.seconds == pytest.approx(clock.seconds, abs=0.02 * 120)


def test_slow_iterations_are_measured_no_longer_than_is_needed(tmp_path):
    clock = Clock(iteration=4., validation=1.)
    runner, _, budget = run(tmp_path, clock, minutes=4, skip_iters=1, measure_iters=50)
    fitted = []
    budget.fit = lambda runner, done, now, fit=budget.fit: (fitted.append(done), fit(runner, done, now))
    runner.train()
    assert fitted == [6]  # five are measured, and with the validation at 4 more than a tenth of 240 s is gone
    assert clock.seconds == pytest.approx(240, abs=0.02 * 240 + 5)


@pytest.mark.parametrize(('iteration', 'minutes', 'fitted', 'length'), [
    (43., 1, 2, 2),     # over after the second iteration, and not after the tenth
    (70., 1, 1, 1),
    (8., 2, 2, 13)])    # eight more would take until the 80th second of 120: 104 s are left for eleven, and 3 s each
def test_iterations_that_take_much_of_the_time_are_not_waited_for(tmp_path, iteration, minutes, fitted, length):
    clock = Clock(iteration, 3.)
    runner, passing, budget = run(tmp_path, clock, minutes=minutes, skip_iters=5, measure_iters=20)
    first = []
    budget.fit = lambda runner, done, seconds, fit=budget.fit: (first.append(done), fit(runner, done, seconds))
    runner.train()
    assert first == [fitted] and runner.iter == length == passing.validated[-1]
    assert clock.seconds <= max(60 * minutes, fitted * iteration + 3)


def test_until_a_run_is_fitted_its_log_counts_down_the_time_and_not_the_iterations_of_the_config(tmp_path):
    clock, said = Clock(), []

    class Reader(Hook):
        priority = 'BELOW_NORMAL'    # LoggerHook's

        def after_train_iter(self, runner, **settings):
            said.append(runner.message_hub.get_info('eta'))

    runner, _, budget = run(tmp_path, clock)
    runner.register_hook(Reader())
    runner.train()
    assert budget.fitted[0] >= 6 and said[:6] == [119., 118., 117., 116., 113., 112.]  # validated


def test_a_validation_is_measured_without_a_trace_in_training(tmp_path):
    runner = build(tmp_path)
    runner.train()
    clock, step = Clock(), runner.model.val_step

    def val_step(batch):
        clock.seconds += 9. if clock.seconds == 0 else 2.
        return step(batch)

    runner.model.val_step, before = val_step, torch.get_rng_state()
    runner.model.train()
    # Four batches: 2 s each but for the first, and a fifth for metric and checkpoint.
    assert TimeBudgetHook(clock=clock).measure_validation(runner) == pytest.approx(1.2 * 4 * 2)
    assert torch.equal(torch.get_rng_state(), before) and runner.model.training


def test_every_process_measures_a_validation_by_as_many_images(tmp_path, monkeypatch):
    # A sharded model answers when all processes ask; their clocks differ, and the last one may have fewer images.
    runner = build(tmp_path)
    runner.train()
    batches, step, first_says = [], runner.model.val_step, [False, True]
    runner.model.val_step = lambda batch: (batches.append(batch), step(batch))
    monkeypatch.setattr(budget_module, 'all_gather_object', lambda count: [count, 3])
    TimeBudgetHook(clock=Clock()).measure_validation(runner)
    assert len(batches) == 3
    monkeypatch.setattr(budget_module, 'broadcast_object_list', lambda over: over.__setitem__(0, first_says.pop(0)))
    TimeBudgetHook(clock=Clock()).measure_validation(runner)
    assert len(batches) == 3 + 2 and not first_says


def test_no_minutes_leave_a_run_as_it_is(tmp_path):
    clock = Clock()
    runner = build(tmp_path, hooks=[TimeBudgetHook(clock=clock)])
    runner.train()
    assert runner.iter == 12


def test_schedules_that_cannot_be_stretched_are_refused(tmp_path):
    runner, _, _ = run(tmp_path, Clock())
    runner.param_schedulers = [dict(type='CosineAnnealingLR', T_max=12, by_epoch=False)]
    with pytest.raises(UserError, match='CosineAnnealing'):
        runner.train()
    for wrong in (dict(minutes=0), dict(minutes=float('nan')), dict(validations=0), dict(share=-1)):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            TimeBudgetHook(**wrong)
