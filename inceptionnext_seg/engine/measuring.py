"""Measuring the operators of a runner's model before its first step, at the first batch's shapes.

A copy of the model takes the first batch, forward, while :func:`inceptionnext_seg.measuring` is on. Model, optimizer,
batch and random numbers stay as they are. Every process runs the copy, in case its modules wait for each other; the
first alone measures, and then tells the others.

Processes agree before each step in which they wait for each other: where one of them fails, none goes on, and all train
by rules of thumb. Only within the copy's forward can they not agree. What fails there, fails in the run's first step
too; with several processes it ends the run, rather than leave the others waiting.
"""
import contextlib
import copy
import hashlib
import random

import numpy as np
import torch
from mmengine.dist import all_gather_object, broadcast_object_list, get_world_size, is_main_process
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper

from .._fast import plain_type
from ..ops import measured
from .cuda_graph import captures_losses


def measure_first_batch(runner, data_batch, mode):
    """Measure, unless this model was measured with such a batch before; a log line says what came of it.

    Args:
        runner (Runner): With its model accelerated.
        data_batch (dict): What the model takes at once: the data loader's, or a part of it. Of a multi-scale test, all
            versions, of which the largest is measured.
        mode (str): 'loss' as a training step, 'predict' as an evaluation.
    """
    if not measured.is_enabled() or torch.are_deterministic_algorithms_enabled() or runner.cfg.get('compile'):
        return
    if mode == 'loss' and captures_losses(runner):
        return
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if isinstance(model, BaseTTAModel):
        model, data_batch = model.module, largest_version(data_batch)
    with keeping_random_states():
        try:
            data, signature, known = together(lambda: prepare(runner, model, data_batch, mode))
            if not from_main_process(known):
                measure_copy(runner, model, data, mode, signature)
                del data
                forget_memory(device_of(model))
        except NotMeasuredError as error:
            print_log(f'Operators are not measured: {error}', 'current')
            return
    if get_world_size() > 1:
        measured.load_state(from_main_process(measured.state() if is_main_process() else None))


def largest_version(data_batch):
    """Of the images in several sizes that a multi-scale test has, those that take the most time."""
    versions = [dict(zip(data_batch, parts, strict=True)) for parts in zip(*data_batch.values(), strict=True)]
    return max(versions, key=lambda version: version['inputs'][0].numel())


def measure_copy(runner, model, data, mode, signature):
    """Run a copy of the model, which is gone afterwards, while the main process measures."""
    model = together(lambda: copy.deepcopy(model))
    if is_main_process():
        print_log("Measuring which form of each operator is the fastest, at the first batch's shapes, for "
                  f'{measured.PATIENCE:.0f} s or a little more at most; later runs know it', 'current')
    with measured.measuring() if is_main_process() else contextlib.nullcontext() as found:
        whole = run_copy(runner, model, data, mode)
    if is_main_process():
        if whole and found.is_whole:
            measured.remember_pass(signature)
        print_log(describe(found), 'current')


def forget_memory(device):
    """On a GPU, give back what forms that were tried have needed, and count the peak of memory from here: a run has
    neither the copy nor the slower forms."""
    if device.type == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def device_of(model):
    return next(model.parameters()).device


class NotMeasuredError(Exception):
    """Of every process alike, where one of them fails before any waits for another."""


def together(function):
    """What it returns, once it has returned in every process.

    Measuring is no reason to stop a run: what is wrong with model or batch, its first step says better.

    Raises:
        NotMeasuredError: It has failed in one of them.
    """
    result = failure = None
    try:
        result = function()
    except Exception as error:
        failure = f'{type(error).__name__}: {error}'
    failures = [found for found in all_gather_object(failure) if found is not None]
    if failures:
        raise NotMeasuredError(failures[0])
    return result


def from_main_process(value):
    values = [value]
    broadcast_object_list(values)
    return values[0]


def prepare(runner, model, data_batch, mode):
    """The batch as the model takes it, its signature, and, in the main process, whether that was measured before."""
    data = model.data_preprocessor(copy.deepcopy(data_batch), mode == 'loss')
    signature = signature_of(model, data, mode, runner.optim_wrapper)
    return data, signature, measured.is_known_pass(signature) if is_main_process() else None


def run_copy(runner, model, data, mode):
    """Whether it ran; of several processes, one in which it does not run raises the error."""
    try:
        run_forward(runner, model, data, mode)
    except Exception as error:
        if get_world_size() > 1:
            raise
        print_log(f'Operators are not measured: {type(error).__name__}: {error}', 'current')
        return False
    return True


def run_forward(runner, model, data, mode):
    context = contextlib.nullcontext() if mode == 'predict' else runner.optim_wrapper.optim_context(model)
    with context, torch.set_grad_enabled(mode == 'loss'):
        model._run_forward(data, mode=mode)


@contextlib.contextmanager
def keeping_random_states():
    """Random states of Python, NumPy and torch, on every device, are the same after it."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def signature_of(model, data, mode, optim_wrapper):
    """A text that tells models, batches and settings apart whose operators may take other arguments."""
    modules = [(plain_type(module).__name__, module.extra_repr(), module.training, getattr(module, 'forms', None),
                [(p.shape, p.dtype, p.requires_grad, p.is_contiguous()) for p in module._parameters.values()
                 if p is not None]) for module in model.modules()]
    inputs = data['inputs'] if isinstance(data, dict) else data[0]
    shapes = [x.shape for x in ([inputs] if isinstance(inputs, torch.Tensor) else inputs)]
    settings = (mode, type(optim_wrapper).__name__, getattr(optim_wrapper, 'cast_dtype', None),
                measured.settings_of(device_of(model)), str(device_of(model)))
    return hashlib.sha256(repr((modules, shapes, settings)).encode()).hexdigest()


def describe(found):
    changed = [choice for choice in found.choices if choice.form != choice.rule]
    named = '; '.join(f'{c.operator} {measured.first_map(c)}: {c.form} takes {1e3 * c.seconds[c.form]:.2g} ms, '
                      + (f'{c.rule} {1e3 * c.seconds[c.rule]:.2g} ms' if c.rule in c.seconds else f'{c.rule} fails')
                      for c in changed)
    text = (f'{len(found.choices)} operators measured in {sum(found.seconds):.1f} s; another form than by the rule of '
            f'thumb runs in {len(changed)}{": " if changed else ""}{named}')
    if found.disturbed:
        text += f'. {len(found.disturbed)} could not be measured, since the machine is busy'
    if found.left:
        text += f'. {len(found.left)} were left after {found.patience:.0f} s'
    return text if found.is_whole else f'{text}. The rule of thumb chooses there, and the next run measures again'
