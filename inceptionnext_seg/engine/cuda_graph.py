"""``--cuda-graph``: the losses and their gradients as one CUDA graph, so that a GPU never waits for the host.

A training step of UperNet is more than a thousand kernels. A GPU that runs them faster than Python queues them stands
still in between; a graph queues them all at once. It replays what was captured in the first step: the same operators,
on new images and labels. What is outside of it, the optimizer's step and what hooks do, is as before.
"""
import contextlib
import types

import torch
import torch.nn as nn
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.structures import PixelData

from ..errors import SettingError, UserError
from ..ops import measured
from ..ops.precision import without_cached_casts

WARM_UP = 3     # steps before the capture, in which libraries plan and kernels are compiled


@HOOKS.register_module()
class CudaGraphHook(Hook):
    """Captures the losses of the runner's model, forward and backward, in the first step of training.

    ``custom_hooks = [dict(type='CudaGraphHook')]``, or ``--cuda-graph`` of ``tools/train.py``. Batches of another shape
    than the first are computed as without it. Forms of operators are those of the rules of thumb, which know what a GPU
    takes, rather than those measured, whose times are the host's where it is the slower of the two. Hooks on modules
    inside the model run in the capture alone.

    Raises:
        SettingError: There is no CUDA device, there are several processes, or the config has ``compile``, too.
    """

    priority = 'HIGH'   # after AccelerateHook

    def before_run(self, runner):
        found = None
        if (device := next(runner.model.parameters()).device).type != 'cuda':
            found = f'the model is on {device}; expected: a CUDA device'
        elif get_world_size() > 1:
            found = f'there are {get_world_size()} processes; expected: one'
        elif runner.cfg.get('compile'):
            found = 'the config has compile, too; expected: one of the two'
        if found:
            raise SettingError(f'cannot capture a CUDA graph: {found}. Next: leave out --cuda-graph, or CudaGraphHook '
                               'of custom_hooks.')

    def before_train(self, runner):
        self.model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.model.loss = GraphedLosses(self.model)

    def after_train(self, runner):
        vars(getattr(self, 'model', self)).pop('loss', None)


class GraphedLosses:
    """``model.loss`` by a CUDA graph of the first batch's shapes; gradients flow as from the losses themselves.

    Args:
        model (nn.Module): Of mmseg, on a CUDA device, in training; its ``loss`` takes images and data samples, and may
            not wait for the device.

    Raises:
        UserError: When it is called first: the losses cannot be captured.
    """

    def __init__(self, model):
        self.model, self.loss = model, model.loss
        self.captured = self.key = None

    def __call__(self, inputs, data_samples):
        labels = labels_of(data_samples)
        if labels is None:
            return self.loss(inputs, data_samples)
        key = key_of(self.model, inputs, labels)
        if self.captured is None:
            self.capture(inputs, labels, data_samples)
            self.key = key
        if key != self.key:
            return self.loss(inputs, data_samples)
        with without_cached_casts(inputs.device.type):
            values = self.captured(inputs, labels)
        # The next replay writes over what the graph returns.
        return {name: value.clone() if is_loss else value.detach().clone()
                for (name, is_loss), value in zip(self.names.items(), values, strict=True)}

    def __deepcopy__(self, memo):
        """A copy of the model, by which operators are measured or weights averaged, has no graph."""
        return types.MethodType(self.loss.__func__, memo[id(self.model)])

    def capture(self, inputs, labels, data_samples):
        """Model and random numbers stay as they are: what warms up computes the same batch, and changes nothing."""
        parts = Losses(self.model, self.loss, data_samples)
        print_log('Capturing a CUDA graph of the losses and their gradients', 'current')
        try:
            with keeping_buffers(self.model), torch.random.fork_rng(), measured.by_rules(), \
                    without_cached_casts(inputs.device.type):
                if inputs.device.type == 'cuda':
                    torch.cuda.empty_cache()        # the graph keeps memory of its own
                self.captured = torch.cuda.make_graphed_callables(
                    parts, (inputs.detach().clone(), labels.clone()), num_warmup_iters=WARM_UP,
                    allow_unused_input=True)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f'the losses cannot be captured as a CUDA graph: {type(error).__name__}: {error}. Expected: a model '
                'whose losses never wait for the GPU, as accelerated ones. Next: leave out --cuda-graph, or '
                'CudaGraphHook of custom_hooks.') from error
        self.names = parts.names


class Losses(nn.Module):
    """A model's losses as a function of tensors to tensors, as graphs are captured of."""

    def __init__(self, model, loss, data_samples):
        super().__init__()
        self.model, self.loss = model, loss
        self.data_samples = [sample.clone() for sample in data_samples]
        self.names = {}     # of the losses and of what is reported beside them: whether it has a gradient

    def forward(self, inputs, labels):
        for sample, label in zip(self.data_samples, labels, strict=True):
            sample.gt_sem_seg = PixelData(data=label)
        found = self.loss(inputs, self.data_samples)
        if others := [name for name, value in found.items() if not isinstance(value, torch.Tensor)]:
            raise TypeError(f'{", ".join(others)} is no tensor')
        self.names = {name: value.requires_grad for name, value in found.items()}
        return tuple(found.values())


def labels_of(data_samples):
    """Labels (B, 1, H, W), or None where samples have more to learn from, or are not of one size."""
    labels = [sample.gt_sem_seg.data for sample in data_samples if set(sample.keys()) == {'gt_sem_seg'}]
    if len(labels) < len(data_samples) or len({label.shape for label in labels}) != 1:
        return None
    return torch.stack(labels)


def key_of(model, inputs, labels):
    """What a capture is for."""
    device = inputs.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return (inputs.shape, inputs.dtype, inputs.stride(), labels.shape, labels.dtype, dtype, model.training,
            torch.is_grad_enabled())


@contextlib.contextmanager
def keeping_buffers(model):
    """Statistics of norms are the same after it."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)


def captures_losses(runner):
    """Whether a :class:`CudaGraphHook` is among the runner's hooks."""
    return any(isinstance(hook, CudaGraphHook) for hook in runner.hooks)
