"""Inception depthwise convolution (arXiv:2303.16900) as one operator, forward and backward in one pass each.

In torch's own operators it is a split, three depthwise convolutions and a concatenation, in which most of the time goes
to moving channels that do not change. The operator here reads every element once and writes it once: a C++ kernel on a
CPU (``csrc/inception_dwconv.cpp``) and a Triton kernel on CUDA (:mod:`inceptionnext_seg.ops.inception_dwconv_triton`).
"""
import functools
import importlib.util

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import register_flop_formula

from . import _native as native
from ._native import INT, POINTER

IMPLS = ('auto', 'torch', 'native', 'triton')
KERNEL_OF_DEVICE = dict(cpu='native', cuda='triton')
# As csrc/inception_dwconv.cpp numbers them.
NATIVE_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}
DTYPES = dict(native=tuple(NATIVE_DTYPES), triton=(torch.float32, torch.bfloat16, torch.float16))


def inception_dwconv2d(x, weight_hw, bias_hw, weight_w, bias_w, weight_h, bias_h, impl='auto'):
    """Identity | square k×k | band 1×k | band k×1 on the channels, in this order: (B, C, H, W) to the same.

    Where autocast is on, it computes and returns in autocast's dtype, as a convolution does.

    Args:
        x (Tensor): (B, C, H, W) in any layout; the kernels return the same, the nearer of the two dense ones.
        weight_hw (Tensor), weight_w (Tensor), weight_h (Tensor): (branch, 1, k, k), (branch, 1, 1, k) and
            (branch, 1, k, 1) with odd k; the last ``3 * branch`` channels are convolved.
        bias_hw (Tensor), bias_w (Tensor), bias_h (Tensor): (branch, ).
        impl (str): 'torch' takes torch's operators, 'native' the C++ kernel, 'triton' the Triton kernel. 'auto' takes
            the kernel that the device and the dtype have, and torch's operators where there is none. On meta tensors,
            and where the model is traced or exported to run elsewhere, every one takes torch's operators.

    Raises:
        ValueError: ``impl`` is no such name, or the shapes do not fit.
        RuntimeError: The implementation cannot be had: it says what is missing.
    """
    parameters = (weight_hw, bias_hw, weight_w, bias_w, weight_h, bias_h)
    check_shapes(x, *parameters)
    if has_kernel(impl, x, weight_hw.dtype):
        return apply_kernel(x, *parameters)
    branch = len(weight_hw)
    identity, square, width, height = x.split((x.shape[1] - 3 * branch, branch, branch, branch), dim=1)
    return torch.cat((
        identity,
        F.conv2d(square, weight_hw, bias_hw, padding='same', groups=branch),
        F.conv2d(width, weight_w, bias_w, padding='same', groups=branch),
        F.conv2d(height, weight_h, bias_h, padding='same', groups=branch)), dim=1)


def check_shapes(x, weight_hw, bias_hw, weight_w, bias_w, weight_h, bias_h):
    branch, square, width, height = len(weight_hw), weight_hw.shape[-1], weight_w.shape[-1], weight_h.shape[-2]
    if x.ndim != 4 or x.shape[1] < 3 * branch:
        raise ValueError(f'the input has shape {tuple(x.shape)}; wanted (B, C, H, W) with C at least {3 * branch}, '
                         f'three branches of {branch} channels')
    for name, parameter, shape in (
            ('weight_hw', weight_hw, (branch, 1, square, square)), ('weight_w', weight_w, (branch, 1, 1, width)),
            ('weight_h', weight_h, (branch, 1, height, 1)),
            ('bias_hw', bias_hw, (branch, )), ('bias_w', bias_w, (branch, )), ('bias_h', bias_h, (branch, ))):
        if parameter.shape != shape:
            raise ValueError(f'{name} has shape {tuple(parameter.shape)}; wanted {shape}')
    if not all(size % 2 for size in (square, width, height)):
        raise ValueError(f'the kernel sizes are {square}, {width} and {height} (square, band along the width and along '
                         'the height); wanted odd ones, with which the output has the size of the input')


# Which implementation


def has_kernel(impl, x, weight_dtype):
    """Whether a kernel takes ``x``; False is torch's operators.

    Raises:
        ValueError: ``impl`` is none of ``IMPLS``.
        RuntimeError: ``impl`` is a kernel and cannot be used.
    """
    if impl not in IMPLS:
        raise ValueError(f'impl is {impl!r}; wanted one of {", ".join(map(repr, IMPLS))}')
    if impl == 'torch' or x.is_meta or native.runs_elsewhere():
        return False
    obstacle = find_obstacle(impl, x, weight_dtype)
    if obstacle and impl != 'auto':
        raise RuntimeError(f'impl={impl!r} of the Inception depthwise convolution cannot be used: {obstacle}. Next: '
                           "impl='auto', which takes what is there, or impl='torch'")
    return not obstacle and x.numel() > 0


def find_obstacle(impl, x, weight_dtype):
    """Why no kernel can be used, or None."""
    device, kernel = x.device.type, KERNEL_OF_DEVICE.get(x.device.type)
    if kernel is None or impl not in ('auto', kernel):
        return f'the input is on {device!r}, for which the kernel is {kernel!r}'
    dtype = computing_dtype(x)
    if dtype not in DTYPES[kernel]:
        return f'the input is computed in {dtype}; wanted one of {", ".join(map(str, DTYPES[kernel]))}'
    # Autocast's casting of weights only loses digits here, for the kernels sum in float32.
    kept = torch.is_autocast_enabled(device) and weight_dtype == torch.float32 and dtype != torch.float64
    if weight_dtype != dtype and not kept:
        return f'the weights are {weight_dtype} and the input is computed in {dtype}; wanted one dtype'
    return kernel_obstacle(kernel)


def computing_dtype(x):
    """The dtype in which a convolution of ``x`` computes here; autocast leaves float64 alone."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)


@torch.compiler.assume_constant_result
def kernel_obstacle(kernel):
    if kernel == 'triton':
        return None if importlib.util.find_spec('triton') else 'the package triton is not installed'
    if native.load('inception_dwconv') is None:
        return ('the C++ kernel was not compiled, since INCEPTIONNEXT_SEG_NATIVE is 0 or for the reason in the log; '
                'wanted: a C++17 compiler with OpenMP, such as g++')
    return None


def apply_kernel(x, weight_hw, bias_hw, weight_w, bias_w, weight_h, bias_h):
    """:func:`inception_dwconv2d` where :func:`has_kernel` says so."""
    return forward(x.to(computing_dtype(x)), weight_hw, bias_hw, weight_w, bias_w, weight_h, bias_h)


# The operator. Weights and biases may be float32 whatever x is.


@torch.library.custom_op('inceptionnext_seg::inception_dwconv2d', mutates_args=(), device_types='cpu')
def forward(x: torch.Tensor, weight_hw: torch.Tensor, bias_hw: torch.Tensor, weight_w: torch.Tensor,
            bias_w: torch.Tensor, weight_h: torch.Tensor, bias_h: torch.Tensor) -> torch.Tensor:
    x = dense(x)
    y = torch.empty_like(x)
    weights = in_sum_dtype(x, weight_hw, weight_w, weight_h)
    biases = in_sum_dtype(x, bias_hw, bias_w, bias_h)
    native_forward()(*kind(x), x, y, *weights, *biases, *sizes(x, weights), native.threads())
    return y


@forward.register_kernel('cuda')
def _(x, weight_hw, bias_hw, weight_w, bias_w, weight_h, bias_h):
    from . import inception_dwconv_triton
    with torch.cuda.device(x.device):
        return inception_dwconv_triton.forward(
            dense(x), (weight_hw, weight_w, weight_h), (bias_hw, bias_w, bias_h))


@forward.register_fake
def _(x, *parameters):
    return torch.empty_like(dense(x))


@torch.library.custom_op('inceptionnext_seg::inception_dwconv2d_backward', mutates_args=(), device_types='cpu')
def backward(grad_y: torch.Tensor, x: torch.Tensor, weight_hw: torch.Tensor, weight_w: torch.Tensor,
             weight_h: torch.Tensor, need_x: bool, need_parameters: bool) -> native.TENSORS:
    """Gradients of x, of the three weights and of the three biases; those not needed are empty."""
    x = dense(x)
    grad_y = grad_y.contiguous(memory_format=layout(x))
    weights = in_sum_dtype(x, weight_hw, weight_w, weight_h)
    grads = new_gradients(x, weights, need_x, need_parameters)
    native_backward()(
        *kind(x), grad_y, x, grads[0] if need_x else None, *weights, *(grads[1:] if need_parameters else [None] * 6),
        *sizes(x, weights), native.threads())
    return [grads[0], *(grad.to(weight_hw.dtype) for grad in grads[1:])]


@backward.register_kernel('cuda')
def _(grad_y, x, weight_hw, weight_w, weight_h, need_x, need_parameters):
    from . import inception_dwconv_triton
    x = dense(x)
    grads = new_gradients(x, (weight_hw, weight_w, weight_h), need_x, need_parameters)
    with torch.cuda.device(x.device):
        inception_dwconv_triton.backward(
            grad_y, x, (weight_hw, weight_w, weight_h), grads[0] if need_x else None,
            grads[1:] if need_parameters else None)
    return grads


@backward.register_fake
def _(grad_y, x, weight_hw, weight_w, weight_h, need_x, need_parameters):
    return new_gradients(dense(x), (weight_hw, weight_w, weight_h), need_x, need_parameters)


def new_gradients(x, weights, need_x, need_parameters):
    grad_x = torch.empty_like(x) if need_x else x.new_empty(0)
    if not need_parameters:
        return [grad_x, *(x.new_empty(0) for _ in range(6))]
    return [grad_x, *map(torch.empty_like, weights), *(weight.new_empty(len(weight)) for weight in weights)]


def save_for_backward(ctx, inputs, output):
    x, weight_hw, _, weight_w, _, weight_h, _ = inputs
    ctx.save_for_backward(x, weight_hw, weight_w, weight_h)


def differentiate(ctx, grad_y):
    need_x, *need_parameter = ctx.needs_input_grad
    need_parameters = any(need_parameter)
    grad_x, *weights_and_biases = backward(grad_y, *ctx.saved_tensors, need_x, need_parameters)
    weights, biases = weights_and_biases[:3], weights_and_biases[3:]
    parameters = [grad for pair in zip(weights, biases, strict=True) for grad in pair]
    return grad_x if need_x else None, *(parameters if need_parameters else [None] * 6)


forward.register_autograd(differentiate, setup_context=save_for_backward)


def layout(x):
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def dense(x):
    """``x`` itself where it is contiguous or channels_last; otherwise a copy in the nearer of the two."""
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous(memory_format=torch.channels_last if x.stride(1) == 1 else torch.contiguous_format)


# The C++ kernel's arguments


@functools.cache
def native_forward():
    return native.function('inception_dwconv', 'inception_dwconv_forward', INT, INT, *[POINTER] * 8, *[INT] * 9)


@functools.cache
def native_backward():
    return native.function('inception_dwconv', 'inception_dwconv_backward', INT, INT, *[POINTER] * 12, *[INT] * 9)


def kind(x):
    return NATIVE_DTYPES[x.dtype], layout(x) == torch.channels_last


def in_sum_dtype(x, *parameters):
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return [parameter if parameter.dtype == dtype and parameter.is_contiguous() else
            parameter.to(dtype).contiguous() for parameter in parameters]


def sizes(x, weights):
    weight_hw, weight_w, weight_h = weights
    return *x.shape, len(weight_hw), weight_hw.shape[2], weight_w.shape[3], weight_h.shape[2]


# MACs, as torch counts those of convolutions


@register_flop_formula(torch.ops.inceptionnext_seg.inception_dwconv2d)
def forward_flops(x, weight_hw, bias_hw, weight_w, bias_w, weight_h, bias_h, *args, **kwargs):
    batch, _, height, width = x
    taps = sum(weight[2] * weight[3] for weight in (weight_hw, weight_w, weight_h))
    return 2 * batch * height * width * weight_hw[0] * taps


@register_flop_formula(torch.ops.inceptionnext_seg.inception_dwconv2d_backward)
def backward_flops(grad_y, x, weight_hw, weight_w, weight_h, need_x, need_parameters, *args, **kwargs):
    return (need_x + need_parameters) * forward_flops(x, weight_hw, None, weight_w, None, weight_h, None)
