"""Batch normalization and ReLU in as few passes over memory as possible, on a CPU.

``y = relu(a ⊙ x + c)`` with ``a = γ / σ`` and ``c = β − a μ``. Training reads a map twice (moments; then scale, shift
and ReLU at once), its backward reads map and gradient twice, and the ReLU's mask is never stored: ``y > 0`` follows
from the map and the two numbers of its channel. Inference reads a map once. Everything else (other devices, gradients
through running statistics, SyncBatchNorm, other activations) runs as torch's own operators.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

from .._fast import plain_type, run_plain
from . import _native as native
from . import dispatch
from .dtypes import SUFFIXES, compute_dtype, why_no_kernel_dtype
from .registration import TENSORS, gradients_again, register

# Values of a map below which torch's own operators are faster, since they have less overhead: in training, where two
# threads need twice as many as one, and in inference.
LEAST_VALUES, LEAST_VALUES_IN_INFERENCE = 1 << 21, 1 << 18

# Reference


def batch_norm_act_torch(x, norm, activation):
    x = x if norm is None else run_plain(norm, x)
    return x if activation is None else activation(x)


# In C++


def batch_norm_act_native(x, norm, activation):
    relu = plain_type(activation) is nn.ReLU
    x, mean, variance = batch_norm_act_operator(x, norm.weight, norm.bias, norm.eps, relu)
    move_statistics(norm, mean, variance, x.numel() // x.shape[1])
    return x if relu or activation is None else activation(x)


def batch_norm_act_native_inference(x, norm, activation):
    relu = plain_type(activation) is nn.ReLU
    x = batch_norm_act_inference_operator(
        x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps, relu)
    return x if relu or activation is None else activation(x)


@torch.no_grad()
def move_statistics(norm, mean, variance, count):
    """As ``nn.BatchNorm2d`` does in training, from a batch's mean and biased variance over ``count`` pixels."""
    if not norm.track_running_stats:
        return
    momentum = norm.momentum or 0.
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    if norm.running_mean is None:
        return
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), momentum)


def kernel(name, dtype):
    return native.function('batch_norm', f'{name}_{SUFFIXES[dtype]}')


def moments_cpu(x: torch.Tensor) -> TENSORS:
    """Mean and biased variance, float64 (C, ), of a map (B, C, H, W) in channels_last. They have no gradients."""
    mean, variance = (x.new_empty(x.shape[1], dtype=torch.float64) for _ in range(2))
    kernel('statistics', x.dtype)(x, mean, variance, x.numel() // x.shape[1], x.shape[1], native.threads())
    return [mean, variance]


def moments_fake(x):
    return [x.new_empty(x.shape[1], dtype=torch.float64) for _ in range(2)]


moments = register('moments', moments_cpu, fake=moments_fake)


def batch_norm_act_inference_cpu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor,
                                 variance: torch.Tensor, eps: float, relu: bool) -> torch.Tensor:
    """By running statistics. It has no gradient."""
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.empty_like(x)
    scale, shift = affine(weight, bias, mean.double(), variance.double(), eps, compute_dtype(x.dtype))
    kernel('transform', x.dtype)(
        x, scale, shift, y, relu, x.numel() // x.shape[1], x.shape[1], native.threads())
    return y


def batch_norm_act_inference_fake(x, weight, bias, mean, variance, eps, relu):
    return torch.empty_like(x).to(memory_format=torch.channels_last)


batch_norm_act_inference_operator = register(
    'batch_norm_act_inference', batch_norm_act_inference_cpu, fake=batch_norm_act_inference_fake)


def batch_norm_act_cpu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, relu: bool) -> TENSORS:
    """The normalized map, and float64 mean and biased variance (C, ) of ``x``."""
    x = x.contiguous(memory_format=torch.channels_last)
    mean, variance = moments(x)
    scale, shift = affine(weight, bias, mean, variance, eps, compute_dtype(x.dtype))
    y = torch.empty_like(x)
    kernel('transform', x.dtype)(
        x, scale, shift, y, relu, x.numel() // x.shape[1], x.shape[1], native.threads())
    return [y, mean, variance]


def batch_norm_act_fake(x, weight, bias, eps, relu):
    statistics = x.new_empty(x.shape[1], dtype=torch.float64)
    return [torch.empty_like(x).to(memory_format=torch.channels_last), statistics, torch.empty_like(statistics)]


def affine(weight, bias, mean, variance, eps, dtype):
    """The normalization as a scale and a shift of each channel, in the compute dtype."""
    scale = weight.double() / (variance + eps).sqrt()
    return scale.to(dtype), (bias.double() - mean * scale).to(dtype)


# Gradient


def batch_norm_act_backward_cpu(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor,
                                mean: torch.Tensor, variance: torch.Tensor, eps: float, relu: bool) -> TENSORS:
    """Gradients to the map, the weight and the bias."""
    grad, x = (t.contiguous(memory_format=torch.channels_last) for t in (grad, x))
    count, channels, dtype = x.numel() // x.shape[1], x.shape[1], compute_dtype(x.dtype)
    scale, shift = affine(weight, bias, mean, variance, eps, dtype)
    total, product = (torch.empty_like(mean) for _ in range(2))
    kernel('gradient_sums', x.dtype)(
        grad, x, scale, shift, mean.to(dtype), total, product, relu, count, channels, native.threads())
    inverse = 1 / (variance + eps).sqrt()
    slope = -weight.double() * inverse.pow(3) * product / count
    offset = -weight.double() * inverse * total / count - slope * mean
    grad_x = torch.empty_like(x)
    kernel('gradient', x.dtype)(
        grad, x, scale, shift, slope.to(dtype), offset.to(dtype), grad_x, relu, count, channels,
        native.threads())
    return [grad_x, (product * inverse).to(weight.dtype), total.to(bias.dtype)]


def batch_norm_act_backward_fake(grad, x, weight, bias, mean, variance, eps, relu):
    return [torch.empty_like(x).to(memory_format=torch.channels_last), torch.empty_like(weight),
            torch.empty_like(bias)]


def save_for_gradient(ctx, inputs, output):
    ctx.set_materialize_grads(False)    # only the first output has a gradient
    x, weight, bias, ctx.eps, ctx.relu = inputs
    _, mean, variance = output
    ctx.save_for_backward(x, weight, bias, mean, variance)


def batch_norm_act_gradient(ctx, grads):
    if grads[0] is None:
        return (None, ) * 5
    if torch.is_grad_enabled():
        return (*differentiable_gradient(ctx, grads[0]), None, None)
    return (*batch_norm_act_backward_operator(grads[0], *ctx.saved_tensors, ctx.eps, ctx.relu), None, None)


def differentiable_gradient(ctx, grad):
    def reference(x, weight, bias):
        y = F.batch_norm(x, None, None, weight, bias, training=True, eps=ctx.eps)
        return y.relu() if ctx.relu else y

    return gradients_again(reference, ctx.saved_tensors[:3], ctx.needs_input_grad[:3], grad)


batch_norm_act_backward_operator = register(
    'batch_norm_act_backward', batch_norm_act_backward_cpu, fake=batch_norm_act_backward_fake)
batch_norm_act_operator = register(
    'batch_norm_act', batch_norm_act_cpu, fake=batch_norm_act_fake, backward=batch_norm_act_gradient,
    setup_context=save_for_gradient)


# What the kernels cannot take


def why_not_native(x, norm, activation):
    if norm is None:
        return 'there is no norm'
    if not is_batch_norm(norm):
        return f'the norm is a {plain_type(norm).__name__}, and the kernels are of batch normalization'
    if not (norm.training and norm.affine):
        return 'the norm is in evaluation or has no scale and shift, and the kernels are of training with both'
    if x.numel() <= x.shape[1]:
        return f'the map {tuple(x.shape)} has no two values a channel'
    return why_no_kernel_dtype(x) or native.why_not('batch_norm')


def why_not_native_inference(x, norm, activation):
    if norm is None or not is_batch_norm(norm):
        return 'there is no batch normalization'
    if norm.training or not norm.affine or norm.running_mean is None:
        return 'the norm is in training or has no scale, shift and running statistics'
    if x.dim() != 4 or x.shape[1] != norm.num_features:
        return f'the map is {tuple(x.shape)}, and the norm is for (B, {norm.num_features}, H, W)'
    if dispatch.needs_gradient(x, norm):
        return 'there are no gradients through running statistics'
    if not x.numel():
        return 'the map is empty'
    return why_no_kernel_dtype(x) or native.why_not('batch_norm')


def native_is_worth(x, norm, activation):
    return x.numel() >= LEAST_VALUES


def native_inference_is_worth(x, norm, activation):
    """Not without a ReLU: torch's norm alone reads the map once, too."""
    return x.numel() >= LEAST_VALUES_IN_INFERENCE and plain_type(activation) is nn.ReLU


def is_batch_norm(norm):
    """Whether ``norm`` computes as torch's own: mmengine's, in the place of a SyncBatchNorm, has another name alone."""
    batch_norm = nn.modules.batchnorm._BatchNorm
    return isinstance(norm, batch_norm) and plain_type(norm).forward is batch_norm.forward


FORMS = dict(
    native=dispatch.Form(batch_norm_act_native, why_not_native, native_is_worth),
    native_inference=dispatch.Form(
        batch_norm_act_native_inference, why_not_native_inference, native_inference_is_worth),
    torch=dispatch.Form(batch_norm_act_torch))


# The operator


def batch_norm_act(norm, activation, x, impl='auto'):
    """``activation(norm(x))`` for maps (B, C, H, W); the running statistics are updated as ``norm`` updates them.

    Args:
        norm (nn.Module | None), activation (nn.Module | None): None leaves it out.
        impl (str): 'native' is the C++ kernels, for a ``BatchNorm2d`` in training on a CPU, 'native_inference' likewise
            for one in evaluation where no gradients are needed; 'torch' the modules one after another; 'auto' the
            fastest that was measured, and otherwise a kernel where it can run and the map is large. See
            :mod:`.dispatch`.

    Raises:
        FormError: ``impl`` is no form, or one that cannot take this norm or input.
    """
    return dispatch.run('batch_norm_act', FORMS, impl, x, norm, activation)
