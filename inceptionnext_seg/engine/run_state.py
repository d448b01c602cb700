"""What a run needs beside weights, optimizer, schedules and message hub to go on as if it had not been interrupted.

The states of the random generators of every process, gradients that are accumulated over iterations, and what hooks
count. They are in a checkpoint under ``run_state``, as tensors, numbers and text, for a checkpoint is untrusted.
"""
import logging
import random

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import EarlyStoppingHook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict

from ..errors import UserError

FORMAT = 1
# What mmengine's early stopping counts, and does not save.
EARLY_STOPPING = ('wait_count', 'best_score')


def random_state():
    """The states of the generators of Python, NumPy, torch, and torch on this process's GPU."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    state = dict(
        python=[version, torch.tensor(words), gauss],
        numpy=[name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        torch=torch.get_rng_state())
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state):
    """Go on with the random numbers of Python, NumPy and torch from ``state``, of a checkpoint.

    Raises:
        UserError: It is no such state.
    """
    try:
        version, words, gauss = state['python']
        name, keys, position, has_gauss, cached = state['numpy']
        random.setstate((version, tuple(words.tolist()), gauss))
        np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
        torch.set_rng_state(state['torch'])
        if torch.cuda.is_available() and 'cuda' in state:
            torch.cuda.set_rng_state(state['cuda'])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f'the random states of the checkpoint cannot be used: {type(error).__name__}: {error}. Next: '
                        'an earlier checkpoint.') from error


def capture(runner, random=None):
    """The state of a run at the end of an iteration; every process calls it.

    Args:
        random (dict | None): The random state to go on with; the current one where None.
    """
    own = dict(random=random or random_state(), gradients=gradients_in_flight(runner.optim_wrapper))
    every = all_gather_object(own) if get_world_size() > 1 else [own]
    return dict(
        format=FORMAT, processes=get_world_size(), random=[state['random'] for state in every],
        gradients=[state['gradients'] for state in every] if any(state['gradients'] for state in every) else None,
        stopped=getattr(runner._train_loop, 'stop_training', False) and not any(
            has_run_out(hook) for hook in early_stopping(runner)),
        hooks=[[type(hook).__name__, state] for hook, state in states_of_hooks(runner)])


def check(state):
    """``state``, the ``run_state`` of a checkpoint, which is None where that has none.

    Raises:
        UserError: It is not as :func:`capture` makes it.
    """
    if state is None:
        return None
    problem = 'is no dict' if not isinstance(state, dict) else next((what for what, holds in (
        (f'has the format {state.get("format")!r}; expected: {FORMAT}', state.get('format') == FORMAT),
        ('does not have the random states of each process', is_for_each_process(state, state.get('random'))),
        ('does not have the gradients of each process',
         state.get('gradients') is None or is_for_each_process(state, state['gradients'])),
        ('does not have what hooks have counted', isinstance(state.get('hooks'), list | tuple) and all(
            isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[1], dict)
            for entry in state['hooks']))) if not holds), None)
    if problem:
        raise UserError(f'the run_state of the checkpoint {problem}. Next: an earlier checkpoint; or a new run from '
                        'its weights, load_from=CHECKPOINT without --resume.')
    return state


def is_for_each_process(state, values):
    return isinstance(values, list | tuple) and len(values) > 0 and len(values) == state.get('processes')


def restore(runner, state):
    """Go on from a captured state, just before the first iteration. What differs from the run before is logged."""
    processes, rank = state['processes'], get_rank()
    if processes == get_world_size():
        set_random_state(state['random'][rank])
        if state['gradients']:
            set_gradients(runner.optim_wrapper, state['gradients'][rank])
        return
    print_log(
        f'The checkpoint is of a run of {processes} process(es), this one has {get_world_size()}. The same: the images '
        'of each iteration, their augmentation, weights, optimizer and rates. Different: the random numbers of dropout '
        'and stochastic depth, the images that a BatchNorm sees at once'
        f'{", and gradients that were being accumulated are lost" if state["gradients"] else ""}.',
        'current', logging.WARNING)
    set_random_state(state['random'][0])
    if runner._randomness_cfg.get('diff_rank_seed'):
        torch.manual_seed(runner.seed + runner.iter)  # each process has a seed of its own


def restore_hooks(runner, state):
    """Give hooks what they had counted; a hook that is new, or gone, is as it is."""
    saved = [tuple(entry) for entry in state['hooks']]
    for hook, _ in states_of_hooks(runner):
        found = next((entry for entry in saved if entry[0] == type(hook).__name__), None)
        if found is None:
            continue
        saved.remove(found)
        if isinstance(hook, EarlyStoppingHook):
            for name in EARLY_STOPPING:
                setattr(hook, name, found[1][name])
        else:
            hook.load_state_dict(found[1])
    # By what the hooks have counted, so that more patience goes on; where another hook has ended the run, as saved.
    if state.get('stopped') is True or any(map(has_run_out, early_stopping(runner))):
        runner.train_loop.stop_training = True
        print_log('The checkpoint is of a run that early stopping has ended: nothing is left to train. Next: a larger '
                  'patience, or another stopping_threshold, goes on.', 'current', logging.WARNING)


def early_stopping(runner):
    return [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]


def has_run_out(hook):
    """Whether mmengine's early stopping has ended the run, by its patience or its threshold."""
    better, threshold = hook.rule_map[hook.rule], hook.stopping_threshold
    return hook.wait_count >= hook.patience or (threshold is not None and better(hook.best_score, threshold))


def states_of_hooks(runner):
    """The hooks that have a state, each with it: early stopping, and those with ``state_dict`` and its counterpart."""
    pairs = []
    for hook in runner.hooks:
        if isinstance(hook, EarlyStoppingHook):
            pairs.append((hook, {name: float(getattr(hook, name)) for name in EARLY_STOPPING}))
        elif hasattr(hook, 'state_dict') and hasattr(hook, 'load_state_dict'):
            pairs.append((hook, hook.state_dict()))
    return pairs


# Gradients that optim_wrapper.accumulative_counts adds up over iterations


def wrappers_of(optim_wrapper):
    return list(optim_wrapper.values()) if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]


def gradients_in_flight(optim_wrapper):
    """The gradients of each wrapper's parameters in their order; None where each has just made its step."""
    if all(wrapper.should_update() for wrapper in wrappers_of(optim_wrapper)):
        return None
    return [[None if parameter.grad is None else parameter.grad.detach().cpu() for parameter in parameters_of(wrapper)]
            for wrapper in wrappers_of(optim_wrapper)]


def set_gradients(optim_wrapper, gradients):
    for wrapper, saved in zip(wrappers_of(optim_wrapper), gradients or (), strict=False):
        for parameter, gradient in zip(parameters_of(wrapper), saved, strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)


def parameters_of(wrapper):
    return [parameter for group in wrapper.optimizer.param_groups for parameter in group['params']]
