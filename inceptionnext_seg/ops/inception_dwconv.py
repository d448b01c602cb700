"""Inception depthwise convolution (arXiv:2303.16900), forward and backward in one pass over memory each.

``y = cat(x₀, conv_k×k(x₁), conv_1×k(x₂), conv_k×1(x₃))`` for ``x = cat(x₀, x₁, x₂, x₃)`` along the channels, all three
convolutions depthwise. In stock operators most of the time goes to moving channels that do not change. This operator
reads every element once and writes it once: a C++ kernel on a CPU (``csrc/inception_dwconv.cpp``) and a Triton
kernel on CUDA (:mod:`inceptionnext_seg.ops.inception_dwconv_triton`).
"""
import torch
import torch.nn.functional as F

from . import _native as native
from . import _triton, dispatch
from .dtypes import CODES, TRITON_DTYPES, autocast_dtype
from .registration import TENSORS, gradients_again, register

# Reference


def inception_dwconv2d_torch(x, weight_hw, bias_hw, weight_w, bias_w, weight_h, bias_h):
    branch, x = len(weight_hw), x.to(autocast_dtype(x))     # the identity as well, or the sum of both were float32
    identity, square, width, height = x.split((x.shape[1] - 3 * branch, branch, branch, branch), dim=1)
    return torch.cat((
        identity,
        F.conv2d(square, weight_hw, bias_hw, padding='same', groups=branch),
        F.conv2d(width, weight_w, bias_w, padding='same', groups=branch),
        F.conv2d(height, weight_h, bias_h, padding='same', groups=branch)), dim=1)


# The kernels. Weights and biases may be float32 whatever x is.


def inception_dwconv2d_kernel(x, *parameters):
    """As the reference, by the kernel of the device; where autocast is on, in its dtype, as a convolution."""
    return inception_dwconv2d_operator(x.to(autocast_dtype(x)), *parameters)


def inception_dwconv2d_cpu(x: torch.Tensor, weight_hw: torch.Tensor, bias_hw: torch.Tensor, weight_w: torch.Tensor,
                           bias_w: torch.Tensor, weight_h: torch.Tensor, bias_h: torch.Tensor) -> torch.Tensor:
    x = dense(x)
    y = torch.empty_like(x)
    if x.numel():
        weights = in_sum_dtype(x, weight_hw, weight_w, weight_h)
        biases = in_sum_dtype(x, bias_hw, bias_w, bias_h)
        native.function('inception_dwconv', 'inception_dwconv_forward')(
            *kind(x), x, y, *weights, *biases, *sizes(x, weights), native.threads())
    return y


def inception_dwconv2d_cuda(x, weight_hw, bias_hw, weight_w, bias_w, weight_h, bias_h):
    # Not at the top: Triton is not everywhere.
    from . import inception_dwconv_triton
    x = dense(x)
    if not x.numel():
        return torch.empty_like(x)
    return inception_dwconv_triton.inception_dwconv2d_triton(
        x, (weight_hw, weight_w, weight_h), (bias_hw, bias_w, bias_h))


def inception_dwconv2d_fake(x, *parameters):
    return torch.empty_like(dense(x))


def inception_dwconv2d_flops(x, weight_hw, bias_hw, weight_w, bias_w, weight_h, bias_h, *args, **kwargs):
    batch, _, height, width = x
    taps = sum(weight[2] * weight[3] for weight in (weight_hw, weight_w, weight_h))
    return 2 * batch * height * width * weight_hw[0] * taps


def layout(x):
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def dense(x):
    """``x`` itself where it is contiguous or channels_last; otherwise a copy in the nearer of the two."""
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous(memory_format=torch.channels_last if x.stride(1) == 1 else torch.contiguous_format)


def kind(x):
    """The C++ kernel's arguments for dtype and layout."""
    return CODES[x.dtype], layout(x) == torch.channels_last


def in_sum_dtype(x, *parameters):
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return [parameter if parameter.dtype == dtype and parameter.is_contiguous() else
            parameter.to(dtype).contiguous() for parameter in parameters]


def sizes(x, weights):
    weight_hw, weight_w, weight_h = weights
    return *x.shape, len(weight_hw), weight_hw.shape[2], weight_w.shape[3], weight_h.shape[2]


# Gradient


def inception_dwconv2d_backward_cpu(grad_y: torch.Tensor, x: torch.Tensor, weight_hw: torch.Tensor,
                                    weight_w: torch.Tensor, weight_h: torch.Tensor, need_x: bool,
                                    need_parameters: bool) -> TENSORS:
    """Gradients of x, of the three weights and of the three biases; those not needed are empty."""
    x = dense(x)
    grad_y = grad_y.contiguous(memory_format=layout(x))
    weights = in_sum_dtype(x, weight_hw, weight_w, weight_h)
    grads = new_gradients(x, weights, need_x, need_parameters)
    if x.numel():
        native.function('inception_dwconv', 'inception_dwconv_backward')(
            *kind(x), grad_y, x, grads[0] if need_x else None, *weights,
            *(grads[1:] if need_parameters else [None] * 6), *sizes(x, weights), native.threads())
    return [grads[0], *(grad.to(weight_hw.dtype) for grad in grads[1:])]


def inception_dwconv2d_backward_cuda(grad_y, x, weight_hw, weight_w, weight_h, need_x, need_parameters):
    from . import inception_dwconv_triton
    x = dense(x)
    grads = new_gradients(x, (weight_hw, weight_w, weight_h), need_x, need_parameters)
    if x.numel():
        try:
            inception_dwconv_triton.inception_dwconv2d_triton_backward(
                grad_y, x, (weight_hw, weight_w, weight_h), grads[0] if need_x else None,
                grads[1:] if need_parameters else None)
        except _triton.LaunchError:     # Triton is off on this device now, as a log line says
            fill_gradients(grads, grad_y, x, (weight_hw, weight_w, weight_h), need_x, need_parameters)
    return grads


def fill_gradients(grads, grad_y, x, weights, need_x, need_parameters):
    """Fill ``grads``, of :func:`new_gradients`, by the backward of torch's convolutions."""
    branch = len(weights[0])
    parts = x.shape[1] - 3 * branch, branch, branch, branch
    identity, *grad_parts = grad_y.split(parts, 1)
    found = [torch.ops.aten.convolution_backward(
        grad, part, weight.to(x.dtype), [branch], [1, 1], [size // 2 for size in weight.shape[2:]], [1, 1], False,
        [0, 0], branch, [need_x, need_parameters, need_parameters])
        for grad, part, weight in zip(grad_parts, x.split(parts, 1)[1:], weights, strict=True)]
    grad_x, *of_parameters = zip(*found, strict=True)
    if need_x:
        grads[0].copy_(torch.cat([identity, *grad_x], 1))
    if need_parameters:
        for empty, value in zip(grads[1:], [*of_parameters[0], *of_parameters[1]], strict=True):
            empty.copy_(value)


def inception_dwconv2d_backward_fake(grad_y, x, weight_hw, weight_w, weight_h, need_x, need_parameters):
    return new_gradients(dense(x), (weight_hw, weight_w, weight_h), need_x, need_parameters)


def inception_dwconv2d_backward_flops(grad_y, x, weight_hw, weight_w, weight_h, need_x, need_parameters, *args,
                                      **kwargs):
    return (need_x + need_parameters) * inception_dwconv2d_flops(x, weight_hw, None, weight_w, None, weight_h, None)


def new_gradients(x, weights, need_x, need_parameters):
    """To be filled by a kernel, which an input without elements does not reach: of it all are zero."""
    grad_x = torch.empty_like(x) if need_x else x.new_empty(0)
    if not need_parameters:
        return [grad_x, *(x.new_empty(0) for _ in range(6))]
    grads = [*map(torch.empty_like, weights), *(weight.new_empty(len(weight)) for weight in weights)]
    return [grad_x, *(grads if x.numel() else map(torch.zero_, grads))]


def save_for_gradient(ctx, inputs, output):
    x, weight_hw, _, weight_w, _, weight_h, _ = inputs
    ctx.save_for_backward(x, weight_hw, weight_w, weight_h)


def inception_dwconv2d_gradient(ctx, grad_y):
    if torch.is_grad_enabled():
        return differentiable_gradient(ctx, grad_y)
    need_x, *need_parameter = ctx.needs_input_grad
    need_parameters = any(need_parameter)
    grad_x, *weights_and_biases = inception_dwconv2d_backward_operator(
        grad_y, *ctx.saved_tensors, need_x, need_parameters)
    weights, biases = weights_and_biases[:3], weights_and_biases[3:]
    parameters = [grad for pair in zip(weights, biases, strict=True) for grad in pair]
    return grad_x if need_x else None, *(parameters if need_parameters else [None] * 6)


def differentiable_gradient(ctx, grad_y):
    x, *weights = ctx.saved_tensors
    # No gradient depends on the biases.
    parameters = [p for weight in weights for p in (weight, weight.new_zeros(len(weight), requires_grad=True))]
    return tuple(gradients_again(
        lambda x, *parameters: inception_dwconv2d_torch(x, *(p.to(x.dtype) for p in parameters)),
        [x, *parameters], ctx.needs_input_grad, grad_y))


inception_dwconv2d_backward_operator = register(
    'inception_dwconv2d_backward', inception_dwconv2d_backward_cpu, cuda=inception_dwconv2d_backward_cuda,
    fake=inception_dwconv2d_backward_fake, flops=inception_dwconv2d_backward_flops)
inception_dwconv2d_operator = register(
    'inception_dwconv2d', inception_dwconv2d_cpu, cuda=inception_dwconv2d_cuda, fake=inception_dwconv2d_fake,
    backward=inception_dwconv2d_gradient, setup_context=save_for_gradient, flops=inception_dwconv2d_flops)


# What the kernels cannot take


def why_not_native(x, weight_hw, *parameters):
    if x.device.type != 'cpu':
        return f'the input is on {x.device}, and the C++ kernel is for a CPU'
    return why_not_dtype(x, weight_hw.dtype, CODES) or native.why_not('inception_dwconv')


def why_not_triton(x, weight_hw, *parameters):
    if x.device.type != 'cuda':
        return f'the input is on {x.device}, and the Triton kernel is for CUDA'
    return why_not_dtype(x, weight_hw.dtype, TRITON_DTYPES) or _triton.why_not(x.device)


def why_not_dtype(x, weight_dtype, dtypes):
    dtype = autocast_dtype(x)
    if dtype not in dtypes:
        return f'the input is computed in {dtype}, and the kernel has {", ".join(map(str, dtypes))}'
    # Autocast's casting of weights only loses digits here, for the kernels sum in float32.
    kept = (torch.is_autocast_enabled(x.device.type) and weight_dtype == torch.float32 and dtype != torch.float64)
    if weight_dtype != dtype and not kept:
        return f'the weights are {weight_dtype} and the input is computed in {dtype}, which must be one dtype'
    return None


def has_elements(x, *parameters):
    return x.numel() > 0


FORMS = dict(
    native=dispatch.Form(inception_dwconv2d_kernel, why_not_native, has_elements),
    triton=dispatch.Form(inception_dwconv2d_kernel, why_not_triton, has_elements),
    torch=dispatch.Form(inception_dwconv2d_torch))


# The operator


def inception_dwconv2d(x, weight_hw, bias_hw, weight_w, bias_w, weight_h, bias_h, impl='auto'):
    """Identity | square k×k | band 1×k | band k×1 on the channels, in this order: (B, C, H, W) to the same.

    Where autocast is on, it computes and returns in autocast's dtype, as a convolution does.

    Args:
        x (Tensor): (B, C, H, W) in any layout; the kernels return the same, the nearer of the two dense ones.
        weight_hw (Tensor), weight_w (Tensor), weight_h (Tensor): (branch, 1, k, k), (branch, 1, 1, k) and
            (branch, 1, k, 1) with odd k; the last ``3 * branch`` channels are convolved.
        bias_hw (Tensor), bias_w (Tensor), bias_h (Tensor): (branch, ).
        impl (str): 'native' is the C++ kernel, 'triton' the Triton kernel, 'torch' split, three convolutions and
            concatenation; 'auto' the kernel of the device where there is one. See :mod:`.dispatch`.

    Raises:
        ValueError: The shapes do not fit.
        FormError: ``impl`` is no form, or one that cannot take this input.
    """
    parameters = weight_hw, bias_hw, weight_w, bias_w, weight_h, bias_h
    check_shapes(x, *parameters)
    return dispatch.run('inception_dwconv2d', FORMS, impl, x, *parameters)


def check_shapes(x, weight_hw, bias_hw, weight_w, bias_w, weight_h, bias_h):
    branch, square, width, height = len(weight_hw), weight_hw.shape[-1], weight_w.shape[-1], weight_h.shape[-2]
    if x.ndim != 4 or x.shape[1] < 3 * branch:
        raise ValueError(f'the input has shape {tuple(x.shape)}; expected (B, C, H, W) with C at least {3 * branch}, '
                         f'three branches of {branch} channels')
    for name, parameter, shape in (
            ('weight_hw', weight_hw, (branch, 1, square, square)), ('weight_w', weight_w, (branch, 1, 1, width)),
            ('weight_h', weight_h, (branch, 1, height, 1)),
            ('bias_hw', bias_hw, (branch, )), ('bias_w', bias_w, (branch, )), ('bias_h', bias_h, (branch, ))):
        if parameter.shape != shape:
            raise ValueError(f'{name} has shape {tuple(parameter.shape)}; expected {shape}')
    if not all(size % 2 for size in (square, width, height)):
        raise ValueError(f'the kernel sizes are {square}, {width} and {height} (square, band along the width and along '
                         'the height); expected odd ones, with which the output has the size of the input')
