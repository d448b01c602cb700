"""Training that ends on time: its length, and that of its schedules, from a number of minutes. For any mm framework."""
import itertools
import logging
import math
import time

import torch
from mmengine.device import get_device
from mmengine.dist import all_gather_object, broadcast_object_list
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim.scheduler import LinearParamScheduler, PolyParamScheduler
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop

from ..errors import SettingError, UserError
from ..provenance import synchronize
from .run_state import random_state, set_random_state, wrappers_of

FORMAT = 1
# A measurement of fewer iterations is none, unless waiting for them would take more than this share of the time.
MEASURED, WAITED = 5, 0.5
# Batches that the first estimate of a validation is made from, and what the metric and the checkpoint add to it.
VALIDATED, EVALUATION = 4, 0.2


def iterations_left(seconds, iteration, validation, interval):
    """How many more iterations fit into ``seconds``, with a validation every ``interval`` of them and one at the end.

    ``n`` iterations take ``n * iteration + n / interval * validation + validation``; at least 1.
    """
    return max(1, math.floor((seconds - validation) / (iteration + validation / interval)))


def first_plan(seconds, iteration, validation, done, most, share):
    """The length of a run and the interval of its validations, from ``seconds`` that are left.

    As many validations, the one at the end included, as take ``share`` of the time, from 1 to ``most``. Where not one
    more iteration fits, the run ends with those that are done.

    Returns:
        tuple[int, int]: ``max_iters``, with the iterations that are done, and ``val_interval``.
    """
    count = min(most, max(1, math.floor(share * seconds / validation)))
    length = max(1, done + max(0, math.floor((seconds - count * validation) / iteration)))
    return length, math.ceil(length / count)


def seconds_to_end(done, length, interval, iteration, validation):
    """How long a run takes from iteration ``done`` to ``length``, validations included."""
    return (length - done) * iteration + (math.ceil(length / interval) - done // interval) * validation


def stretch(scheduler, end, warm_up=None):
    """Let a scheduler of mmengine end at another iteration, from the value that it has on.

    A poly or linear decay goes on from its present value along the curve of its kind: with power ``p``, at iteration
    ``j``, where it was stretched at ``i``, the value is ``value(i) * ((end - j) / (end - i)) ** p``. mmengine computes
    each value from the one before, so that nothing but the number of steps has to change.

    Args:
        scheduler (_ParamScheduler): A LinearLR or PolyLR that counts iterations, before or within its range.
        end (int): The iteration it ends with; it stays above the present one.
        warm_up (int | None): Where it is a decay that has not begun: the iteration to begin at.
    """
    step = scheduler.last_step
    if isinstance(scheduler, LinearParamScheduler) and step >= 0:
        # A line through (step, its factor now) and (total, end_factor), written as one from step 0.
        total = max(end - scheduler.begin - 1, step + 1)
        now = scheduler.start_factor + (scheduler.end_factor - scheduler.start_factor) * min(
            1., step / max(scheduler.total_iters, 1))
        slope = (scheduler.end_factor - now) / (total - step)
        scheduler.start_factor, scheduler.total_iters = now - step * slope, total
    else:
        if warm_up is not None:
            scheduler.begin = warm_up
        scheduler.total_iters = max(end - scheduler.begin - 1, 1)
    scheduler.end = end


def rises(scheduler):
    """Whether a scheduler is a warm-up."""
    return isinstance(scheduler, LinearParamScheduler) and scheduler.begin == 0 and (
        scheduler.start_factor < scheduler.end_factor)


@HOOKS.register_module()
class TimeBudgetHook(Hook):
    """Fits a run to a time: ``minutes`` from its start to the end of its last validation.

    ``custom_hooks = [dict(type='TimeBudgetHook', minutes=60)]``; ``tools/train.py --minutes 60`` puts it there. The
    first iterations are measured; then ``max_iters``, the interval of validations (``val_interval``) and the ends of
    the schedules are set. Every ``interval`` iterations, and after each validation, the end is predicted anew from what
    the last ones took; where it is off by more than ``tolerance`` of the time, the rest is fitted again, and the rate
    goes on from where it is. What was fitted is in the log, in the message hub as ``time_budget``, and in the
    checkpoint, so that a resumed run has the same schedule; the time before it was interrupted counts, that in between
    does not.

    The schedules may be ``LinearLR`` and ``PolyLR`` that count iterations. A warm-up takes at most half of the run.

    Args:
        minutes (float | None): None leaves the run as the config has it.
        skip_iters (int), measure_iters (int): Iterations before the first measurement, and in it; five will do where
            more than ``share`` of the time is gone, and fewer where these would take more than half of it. Where the
            time is over before, the run ends with the iteration, and is validated.
        validations (int): At most so many; fewer, at least one, where they would take more than ``share`` of the time.
        share (float): See above.
        interval (int), tolerance (float): See above.
        clock (Callable): Seconds; for tests.

    Raises:
        UserError: A schedule is of another kind, or the run counts epochs.
    """

    priority = 'NORMAL'  # before ParamSchedulerHook, LoggerHook and CheckpointHook: they see the fitted length

    def __init__(self, minutes=None, skip_iters=5, measure_iters=20, validations=20, share=0.05, interval=50,
                 tolerance=0.02, clock=time.monotonic):
        numbers = dict(skip_iters=skip_iters, measure_iters=measure_iters, validations=validations, share=share,
                       interval=interval, tolerance=tolerance, **({} if minutes is None else dict(minutes=minutes)))
        for name, value in numbers.items():
            least = 0 if name == 'skip_iters' else 1 if name in ('measure_iters', 'validations', 'interval') else 1e-9
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
                raise SettingError(f'TimeBudgetHook.{name} is {value!r}; expected: a number '
                                   f'{"above 0" if least < 1 and least else f"of at least {least}"}.')
        self.budget = None if minutes is None else 60 * minutes
        self.skip_iters, self.measure_iters, self.interval = int(skip_iters), int(measure_iters), int(interval)
        self.validations, self.share, self.tolerance = int(validations), share, tolerance
        self.clock = clock
        self.begun = clock()         # of this process
        self.before = 0.             # seconds of the run in processes before
        self.fitted = None           # iteration, max_iters, val_interval, seconds of an iteration, of a validation
        self.ends = []               # of the schedules, once fitted
        self.validation = None       # seconds of one
        self.window = None           # time and iteration that the present measurement began at
        self.paused = 0.             # seconds of validations since then
        self.val_begun = None
        self.latest = None           # when the last iteration ended, until the first plan
        self.runner = None

    # Time

    def now(self):
        synchronize(get_device())
        return self.clock()

    def elapsed(self, now=None):
        """Seconds of the run so far, those of the processes before an interruption included."""
        return self.before + (self.clock() if now is None else now) - self.begun

    # The run

    def before_run(self, runner):
        self.runner = runner

    def before_train(self, runner):
        if self.budget is None:
            return
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            raise UserError(f'TimeBudgetHook: the run counts epochs ({type(runner.train_loop).__name__}). Expected: a '
                            'loop that counts iterations, such as TotalBatchTrainLoop. Next: minutes=None.')
        for scheduler in self.schedulers(runner):
            known = isinstance(scheduler, LinearParamScheduler | PolyParamScheduler) and not scheduler.by_epoch
            if not known:
                raise UserError(f'TimeBudgetHook: param_scheduler has {type(scheduler).__name__}, by_epoch='
                                f'{scheduler.by_epoch}, whose length cannot be changed within a run. Expected: '
                                'LinearLR and PolyLR with by_epoch=False. Next: those, or minutes=None.')
        if runner.val_loop is None:
            self.validation = 0.
        self.window = None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.budget is None:
            return
        if self.val_begun is not None:
            now = self.now()
            self.validation, self.val_begun = now - self.val_begun, None
            self.paused += self.validation
            if self.latest is not None:
                self.latest += self.validation
            if self.fitted:
                self.refit(runner, runner.iter, now)
        if self.window is None:
            skip = self.skip_iters if self.fitted is None else 1
            self.window = (None, runner.iter + skip)
        if self.window[0] is None and runner.iter >= self.window[1]:
            self.window, self.paused = (self.now(), runner.iter), 0.

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.budget is None or self.window is None:
            return
        done = runner.iter + 1
        if self.fitted is None:
            # The length that the config has says nothing of how long this run takes.
            iteration = self.measured(runner, done)
            if iteration is not None:
                self.fit(runner, done, iteration)
            runner.message_hub.update_info('eta', max(0., self.budget - self.elapsed()))
        elif self.window[0] is not None and done - self.window[1] >= self.checked_every() and done < runner.max_iters:
            self.refit(runner, done, self.now())

    def measured(self, runner, done):
        """Seconds of an iteration, once enough of them were, or so few that they will have to do; before that None."""
        now = self.now()
        latest, self.latest = None if self.latest is None else now - self.latest, now
        begun, first = self.window
        count = 0 if begun is None else done - first
        mean = (now - begun - self.paused) / count if count else latest
        decision = [mean if self.is_measured(count, first + MEASURED - done, latest, self.elapsed(now))
                    or done >= runner.max_iters else None]
        if decision[0] is None and self.elapsed(now) >= self.budget:
            decision[0] = self.elapsed(now) / done
        broadcast_object_list(decision)  # the processes have clocks of their own
        return decision[0]

    def is_measured(self, count, missing, latest, elapsed):
        """Whether ``count`` iterations are a measurement, where the last one took ``latest`` seconds."""
        if count >= self.measure_iters or (count >= MEASURED and elapsed > self.share * self.budget):
            return True
        return latest is not None and missing > 0 and elapsed + missing * latest > WAITED * self.budget

    def before_val(self, runner):
        if self.budget is not None:
            self.val_begun = self.now()

    def checked_every(self):
        """Iterations between two predictions: a run of few looks more often."""
        return min(self.interval, max(10, self.fitted[1] // 20))

    def seconds_of_iteration(self, done, now):
        """The mean since the present measurement began; None where it has too few iterations."""
        begun, first = self.window if self.window else (None, 0)
        if begun is None or done - first < max(1, self.checked_every() // 2):
            return None
        return max((now - begun - self.paused) / (done - first), 1e-6)

    def fit(self, runner, done, iteration):
        """The first plan, from the iterations that were measured and the first images of a validation."""
        iteration, validation = max(iteration, 1e-6), self.validation
        if validation is None:
            validation = max(self.measure_validation(runner), 1e-6)
        left = self.budget - self.elapsed(self.now())
        if self.validation == 0.:
            plan = done + max(0, math.floor(left / iteration)), runner.train_loop.val_interval
        else:
            plan = first_plan(left, iteration, validation, done, self.validations, self.share)
        self.apply(runner, done, *plan, iteration, validation, 'fitted')

    def measure_validation(self, runner):
        """Seconds of a validation by its first images, the very first aside: it begins workers, and more.

        Training goes on as if there had been none. Where there are no others, each takes as long as the first; where
        the time is over, the first is enough. Every process runs as many, for a sharded model answers to all at once.
        """
        loader, model = runner.val_dataloader, runner.model
        count = min(all_gather_object(min(VALIDATED + 1, len(loader))))
        state, training, times = random_state(), model.training, [self.now()]
        model.eval()
        with torch.no_grad():
            for batch in itertools.islice(loader, count):
                model.val_step(batch)
                times.append(self.now())
                over = [self.elapsed(times[-1]) >= (self.budget or math.inf)]
                broadcast_object_list(over)  # the processes have clocks of their own
                if over[0]:
                    break
        model.train(training)
        set_random_state(state)
        times = times[1:] if len(times) > 2 else times
        return (1 + EVALUATION) * len(loader) * (times[-1] - times[0]) / max(len(times) - 1, 1)

    def refit(self, runner, done, now):
        """Predict the end, and plan the rest again where it is off."""
        iteration, (_, length, interval, known, guess) = self.seconds_of_iteration(done, now), self.fitted
        measured = iteration is not None
        iteration = iteration if measured else known
        validation = guess if self.validation is None else self.validation
        left = self.budget - self.elapsed(now)
        if measured and done - self.window[1] >= self.checked_every():
            self.window, self.paused = (now, done), 0.
        late = seconds_to_end(done, length, interval, iteration, validation) - left
        decision = [abs(late) > self.tolerance * self.budget and done < length, iteration, validation, left]
        broadcast_object_list(decision)  # the processes have clocks of their own
        wanted, iteration, validation, left = decision
        if not wanted:
            return
        if validation > 2 * self.share * interval * iteration:
            interval = math.ceil(validation / (self.share * iteration))
        length = done + iterations_left(left, iteration, validation, interval) if validation else (
            done + max(1, math.floor(left / iteration)))
        self.apply(runner, done, length, interval, iteration, validation, 'fitted again')

    def apply(self, runner, done, length, interval, iteration, validation, how):
        """Give loop and schedules the plan of process 0, from iteration ``done`` on, and log ``how`` it came about.

        Args:
            length (int): Iterations of the whole run.
            interval (int): Iterations between validations.
            iteration, validation (float): Seconds that one takes.
        """
        plan = [length, interval, iteration, validation]
        broadcast_object_list(plan)
        length, interval, iteration, validation = plan
        self.fitted = [done, length, interval, iteration, validation]
        loop = runner.train_loop
        warm_up = None
        for scheduler in self.schedulers(runner):
            if rises(scheduler):
                # What has risen already stays; the ends of others are behind it.
                if scheduler.end > done:
                    stretch(scheduler, max(done + 1, min(scheduler.end, math.ceil(length / 2))))
                warm_up = scheduler.end
        for scheduler in self.schedulers(runner):
            if not rises(scheduler) and scheduler.end > done:
                begun = scheduler.last_step >= 0
                stretch(scheduler, max(length, done + 1, scheduler.begin + 1 if begun else (warm_up or 0) + 1),
                        None if begun else warm_up)
        self.ends = [scheduler.end for scheduler in self.schedulers(runner)]
        self.set_length(loop)
        runner.message_hub.update_info('time_budget', dict(
            minutes=self.budget / 60, iteration=done, max_iters=length, val_interval=interval,
            seconds_per_iteration=iteration, seconds_per_validation=validation, elapsed=self.elapsed()))
        print_log(
            f'Time budget of {self.budget / 60:g} minutes, {self.elapsed() / 60:.1f} gone: {how} at iteration {done} '
            f'to {length} iterations of {iteration:.3f} s, a validation of about {validation:.1f} s every {interval}',
            'current')
        if how == 'fitted' and length < 2 * (done + 1):
            print_log('The time is hardly longer than the measurement: the run will not learn much. Next: more '
                      '--minutes, a smaller crop, or a smaller validation set.', 'current', logging.WARNING)

    def set_length(self, loop):
        _, length, interval, *_ = self.fitted
        loop._max_iters = length
        loop.val_interval, loop.dynamic_milestones, loop.dynamic_intervals = interval, [0], [interval]
        for wrapper in wrappers_of(loop.runner.optim_wrapper):
            if getattr(wrapper, '_max_counts', -1) >= 0:  # the last gradients of accumulative_counts may be fewer
                wrapper._max_counts, wrapper._remainder_counts = length, length % wrapper._accumulative_counts
        if getattr(loop, 'ends', None):  # what TotalBatchTrainLoop compares a resumed run with
            loop.ends = self.ends

    @staticmethod
    def schedulers(runner):
        found = runner.param_schedulers or []
        return [each for group in found.values() for each in group] if isinstance(found, dict) else list(found)

    # What a checkpoint keeps

    def state_dict(self):
        return dict(format=FORMAT, elapsed=self.elapsed(), fitted=self.fitted, ends=list(self.ends),
                    validation=self.validation)

    def load_state_dict(self, state):
        try:
            if state['format'] != FORMAT:
                raise ValueError(f'format {state["format"]}')
            self.before, self.fitted, self.ends = float(state['elapsed']), state['fitted'], list(state['ends'])
            self.validation = state['validation']
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f'the time budget of the checkpoint cannot be used: {error}. Next: an earlier checkpoint.'
                            ) from error
        if self.fitted and self.budget is not None and self.runner is not None:
            self.set_length(self.runner.train_loop)
