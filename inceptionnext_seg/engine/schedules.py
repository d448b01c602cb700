"""Schedules that follow the length of training, what to do where ``max_iters`` is not what they were written for, and
whether a checkpoint that is resumed was trained with those of the config, and with its rates."""
import math

from ..errors import UserError

# Lengths in a schedule that are not `begin`, `end` or `T_max`: what becomes of them is for the user to say.
OWN_LENGTHS = ('milestones', 'periods', 'restarts', 'step_size', 'total_steps')

# What a config says of an optimizer, and a resumed checkpoint overwrites.
HYPERPARAMETERS = ('lr', 'weight_decay', 'momentum', 'betas', 'eps', 'alpha', 'dampening', 'nesterov', 'amsgrad')


def is_warm_up(schedule):
    """Whether a schedule begins with training and rises, or holds a rate, for a while."""
    if schedule.get('begin', 0):
        return False
    if schedule['type'] == 'LinearLR':
        return schedule.get('start_factor', 1 / 3) < schedule.get('end_factor', 1.)
    return schedule['type'] in ('ConstantLR', 'QuadraticWarmupLR')


def fit_schedules(schedules, max_iters):
    """Stretch or shorten the schedules of a run to end with it, in place.

    Schedules that count iterations belong together; the longest decay says for how many iterations they were written.
    A warm-up keeps its length where that is at most half of the new one, and takes the same share of it otherwise; one
    of a single iteration would not rise, and is left out.

    Args:
        schedules (list[dict]): Configs of mmengine's schedulers.
        max_iters (int): Iterations of the run.

    Returns:
        list[str]: What was changed, such as ``'PolyLR.end 160000 → 4000'``; empty where everything fits.

    Raises:
        UserError: One has a length of another kind, such as ``milestones``.
    """
    counted = [schedule for schedule in schedules if not schedule.get('by_epoch', True)]
    ends = [schedule['end'] for schedule in counted if 'end' in schedule and not is_warm_up(schedule)]
    written = max(ends, default=max_iters)
    if written == max_iters:
        return []
    for schedule in counted:
        own = [name for name in OWN_LENGTHS if schedule.get(name)]
        if own:
            raise UserError(
                f'train_cfg.max_iters is {max_iters}, and param_scheduler is written for {written} iterations; what '
                f'becomes of {schedule["type"]}.{own[0]} = {schedule[own[0]]} cannot be told. Expected: an end of '
                f'{max_iters}. Next: set param_scheduler too, or train_cfg.fit_schedules=False to keep it as it is.')
    old = max((schedule.get('end', 0) for schedule in counted if is_warm_up(schedule)), default=0)
    old = old if old < written else 0
    new = old if 2 * old <= max_iters else old * max_iters // written
    if new == 1 < old:
        # mmengine's has its first rate there, which the decay goes on from.
        new = 0
    stretch = (max_iters - new) / (written - old)

    def moved(step):
        return math.floor(step * new / old if old and step <= old else new + (step - old) * stretch + 0.5)

    changes = []
    for schedule in counted:
        now = {name: moved(schedule[name]) for name in ('begin', 'end') if name in schedule}
        if schedule.get('T_max'):
            now['T_max'] = max(1, round(schedule['T_max'] * stretch))
        if 'end' in now and now['end'] <= now.get('begin', 0):
            schedules.remove(schedule)
            changes.append(f'{schedule["type"]} left out')
            continue
        changes += [f'{schedule["type"]}.{name} {schedule[name]} → {value}' for name, value in now.items()
                    if value != schedule[name]]
        schedule.update(now)
    return changes


def check_resumed(schedulers, ends, max_iters):
    """Compare built schedulers, after a checkpoint was resumed, with the ends that the config gave them.

    Raises:
        UserError: The checkpoint was trained for another length. Its schedules have run in part: those of the new
            length would make the rate jump, and the old ones do not end with the run.
    """
    for scheduler, end in zip(schedulers, ends, strict=False):
        if end is not None and scheduler.end != end:
            raise UserError(
                f'the checkpoint to resume has a {type(scheduler).__name__} that ends at iteration {scheduler.end}, '
                f'and train_cfg.max_iters is {max_iters}. Expected: the length that it was trained for. Next: '
                f'train_cfg.max_iters={scheduler.end}; or a new run from its weights, load_from=CHECKPOINT without '
                '--resume; or train_cfg.fit_schedules=False, which leaves the schedule of the checkpoint as it is.')


def hyperparameters(param_groups):
    """Rates, weight decay and the like of an optimizer's parameter groups, as they were before schedules changed them.

    Returns:
        list[dict[str, object]]: Numbers, and lists of numbers, for each group.
    """
    found = []
    for group in param_groups:
        values = {name: group.get(f'initial_{name}', group[name]) for name in HYPERPARAMETERS if name in group}
        if 'initial_momentum' in group:
            values.pop('betas', None)  # the first of them is scheduled as the momentum
        found.append({name: plain(value) for name, value in values.items()})
    return found


def plain(value):
    """A number or a list, of a setting that may be a tensor or a tuple."""
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return value.item() if hasattr(value, 'item') else value


def is_near(a, b):
    """Whether two settings are the same, up to the rounding of products."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(is_near, a, b))
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return math.isclose(a, b, rel_tol=1e-6) if numbers else a == b


def check_hyperparameters(built, trained):
    """Compare what the config says of the optimizer with what a checkpoint was trained with, which resuming restores.

    Args:
        built (list[dict]), trained (list[dict]): As :func:`hyperparameters` gives them.

    Raises:
        UserError: They differ: the config's would have no effect.
    """
    for number, (group, before) in enumerate(zip(built, trained, strict=False), 1):
        for name, value in group.items():
            if name in before and not is_near(value, before[name]):
                scaled = ' (auto_scale_lr makes it follow the batch size)' if name == 'lr' else ''
                raise UserError(
                    f'optim_wrapper.optimizer.{name} is {value} in the config{scaled}, and the checkpoint to resume '
                    f'was trained with {before[name]} (parameter group {number} of {len(built)}), which a resumed run '
                    f'goes on with. Expected: the same. Next: the {name} that it was trained with; or a new run from '
                    'its weights, load_from=CHECKPOINT without --resume.')
