"""An estimate, not a measurement, of a training step on GPUs that are not here: python -m studies.gpu.estimate

Operators of one step are counted on fake tensors, as the package would run them on CUDA: arithmetic of products, bytes
of all others, and of this package's own kernels, launch by launch, instructions and bytes (:mod:`.kernels`). A roofline
with a low and a high efficiency gives a low and a high time.
"""
import contextlib
from collections import defaultdict
from typing import NamedTuple
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from inceptionnext_seg.files import markdown_table
from inceptionnext_seg.ops import _triton, adaptive_pooling, dispatch, resize_concat_conv, resize_concat_conv_factorized
from inceptionnext_seg.provenance import environment

from .. import one_result
from ..throughput.candidates import NONE, build, candidate_config, candidate_label
from ..throughput.limits import convolution_backward_flops
from ..throughput.setting import Setting
from ..throughput.step import random_labels
from . import kernels
from .cells import CONVNEXT, INCEPTIONNEXT


class GPU(NamedTuple):
    """Figures of the maker's data sheets (SXM, 80 GB, dense): operations a second, two for a MAC; bytes a second.

    Lanes are multiply-adds in float32 a clock of one of the multiprocessors, of which the others follow: CUDA C++
    Programming Guide, throughput of native arithmetic instructions, for compute capabilities 8.0 and 9.0.
    """
    name: str
    half: float
    tf32: float
    memory: float
    fp32: float
    lanes: int
    processors: int

    @property
    def instructions(self):
        """Of a lane, a second: a multiprocessor issues those of four warps a clock, whatever they are."""
        return 4 * 32 * self.clocks

    @property
    def special(self):
        """Exponentials and the like a second."""
        return 16 * self.clocks

    @property
    def clocks(self):
        """A second, of all multiprocessors: at which the figure of the data sheet is reached."""
        return self.fp32 / (2 * self.lanes)


GPUS = (GPU('A100', 312e12, 156e12, 2.039e12, 19.5e12, 64, 108), GPU('H100', 989e12, 495e12, 3.35e12, 67e12, 128, 132))


class Assumptions(NamedTuple):
    """Shares of a GPU's figures that are reached, and the least seconds of an operator."""
    products: float
    memory: float
    depthwise: float
    kernels: float
    launch: float


SLOW = Assumptions(products=0.35, memory=0.65, depthwise=0.2, kernels=0.3, launch=10e-6)
FAST = Assumptions(products=0.7, memory=0.9, depthwise=0.6, kernels=0.6, launch=3e-6)
KERNELS = "this package's kernels"
ADAMW = 28      # bytes of a parameter: weight, gradient and two moments are read, three of them written, in float32
CASTS = 6       # bytes of a parameter that autocast reads in float32 and writes in half precision

# What costs nothing on a device: views, memory, questions.
VIEWS = {'device', 'view', 't', 'transpose', 'permute', 'expand', 'slice', 'select', 'unsqueeze', 'squeeze',
         'as_strided', 'detach', 'alias', '_unsafe_view', 'unbind', 'lift_fresh', '_reshape_alias', 'view_as', 'split',
         'split_with_sizes', 'empty', 'new_empty', 'empty_like', 'empty_strided', 'new_empty_strided'}
# Operators of this package that are several of torch's.
INSIDE = {
    'resize_concat_conv2d_factorized': resize_concat_conv.factorized_forward,
    'resize_concat_conv2d_factorized_backward': resize_concat_conv.factorized_backward,
    'adaptive_avg_pools2d': adaptive_pooling.pools, 'adaptive_avg_pools2d_backward': adaptive_pooling.pools_backward}


CONSTANTS = {resize_concat_conv_factorized: ('across_matrix', 'down_matrix', 'resize_matrix'),
             adaptive_pooling: ('averaging_matrix', )}


class Operator(NamedTuple):
    """What one call costs.

    Attributes:
        kind (str): 'products', 'depthwise', 'others', or :data:`KERNELS`, of which each launch is one.
        operations (int), nbytes (int), half (bool): Of products; of all; whether in half precision.
        instructions (int), special (int), programs (int): Of a kernel's launch, as in :class:`.kernels.Work`.
    """
    name: str
    kind: str
    operations: int
    nbytes: int
    half: bool
    instructions: int = 0
    special: int = 0
    programs: int = 0


class Count(TorchDispatchMode):
    """:class:`Operator` of each call on a device; the bytes of every tensor of a call count once."""

    def __init__(self):
        super().__init__()
        self.operators = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in INSIDE:
            with self:
                return INSIDE[name](*args, **kwargs)
        if func.namespace == 'aten' and torch._C._dispatch_has_kernel_for_dispatch_key(
                func.name(), 'CompositeImplicitAutograd'):
            with self:  # several others, which are counted
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        if name in kernels.LAUNCHING:
            self.operators += [
                Operator(work.kernel, KERNELS, 0, work.nbytes, False, work.instructions, work.special, work.programs)
                for work in kernels.launched(name, args, self)]
        elif name not in VIEWS:
            tensors = {id(x): x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)}.values()
            self.operators.append(self.operator(func, name, args, kwargs, out, tensors))
        return out

    @staticmethod
    def operator(func, name, args, kwargs, out, tensors):
        kind, operations = 'others', 0
        if 'convolution' in name and args[-2 if name == 'convolution_backward' else 8] != 1:
            kind = 'depthwise'
        elif name == 'convolution_backward':
            kind, operations = 'products', convolution_backward_flops(
                *(x.shape if isinstance(x, torch.Tensor) else x for x in args))
        elif func.overloadpacket in flop_registry:
            kind, operations = 'products', flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
        return Operator(name, kind, int(operations), sum(x.nbytes for x in tensors),
                        any(x.dtype in (torch.bfloat16, torch.float16) for x in tensors))


def on_cuda(operator, forms, impl, *args):
    """The form that runs on CUDA by the rule of thumb, with Triton."""
    if 'triton' in forms:
        return 'triton'
    return next((name for name in ('factorized', 'product') if name in forms and operator != 'patch_conv2d'
                 and forms[name].worth(*args)), 'torch')


def with_values(function):
    """``function``, whose result is a constant of the training, outside of the count and of fake tensors."""
    def call(*args):
        with _disable_current_modes(), torch.autocast('cpu', enabled=False):
            return function(*args)

    return call


def constants():
    """Patches of the functions that make such constants."""
    stack = contextlib.ExitStack()
    for module, names in CONSTANTS.items():
        for name in names:
            stack.enter_context(mock.patch.object(module, name, with_values(getattr(module, name))))
    return stack


def accuracy(pred, target, *args, **kwargs):
    """In the place of mmseg's, which waits for the device to learn how many pixels count."""
    return (pred.argmax(1) == target).sum()


def count_step(name, setting):
    """Operators of a training step of a candidate, without the optimizer, and its number of parameters."""
    cfg = candidate_config(name)
    model = build(cfg, setting, 'nhwc')     # with values, which no module could exchange for others later
    with FakeTensorMode(allow_non_fake_inputs=True), constants(), mock.patch.object(dispatch, 'choose', on_cuda), \
            mock.patch.object(_triton, 'why_not', lambda device: None), \
            mock.patch('mmseg.models.decode_heads.decode_head.accuracy', accuracy):
        images = torch.empty(setting.batch_size, 3, *setting.image_size).contiguous(memory_format=torch.channels_last)
        samples = next(random_labels(cfg.model.decode_head.num_classes, setting))
        with Count() as count:
            with torch.autocast('cpu', dtype=torch.bfloat16, enabled=setting.dtype != 'fp32'):
                losses = model.loss(images, samples)
            sum(value for key, value in losses.items() if 'loss' in key).backward()
        return count.operators, sum(p.numel() for p in model.parameters())


def seconds(operators, parameters, gpu, assumed, amp):
    """Seconds of a step by kind of operator."""
    found, memory = defaultdict(float), gpu.memory * assumed.memory
    for operator in operators:
        if operator.kind == KERNELS:
            found[KERNELS] += kernel_seconds(operator, gpu, assumed)
            continue
        share = gpu.memory * assumed.depthwise if operator.kind == 'depthwise' else memory
        rate = (gpu.half if operator.half else gpu.tf32) * assumed.products
        found[operator.kind] += max(operator.operations / rate, operator.nbytes / share, assumed.launch)
    found['optimizer, casts of weights'] = parameters * (ADAMW + CASTS * amp) / memory
    return dict(found)


def kernel_seconds(operator, gpu, assumed):
    """Of a launch; one with fewer programs than multiprocessors has only as many of these."""
    share = min(1, operator.programs / gpu.processors)
    arithmetic = (operator.instructions / gpu.instructions + operator.special / gpu.special) / assumed.kernels
    return max(arithmetic / share, operator.nbytes / (gpu.memory * assumed.memory * share), assumed.launch)


def estimate(batch_size=16, size=512):
    """Rows: candidate, dtype, GPU, operators, and low and high seconds by kind."""
    rows = []
    for dtype in ('bf16', 'fp32'):
        setting = Setting(batch_size=batch_size, size=size, dtype=dtype)
        for name in (f'{CONVNEXT}::{NONE}', f'{INCEPTIONNEXT}::{NONE}', CONVNEXT, INCEPTIONNEXT):
            operators, parameters = count_step(name, setting)
            for gpu in GPUS:
                low, high = (seconds(operators, parameters, gpu, a, dtype != 'fp32') for a in (FAST, SLOW))
                rows.append(dict(
                    candidate=candidate_label(name), dtype=dtype, gpu=gpu.name, operators=len(operators),
                    operations=sum(o.operations for o in operators), nbytes=sum(o.nbytes for o in operators),
                    low=low, high=high))
    return dict(environment=environment('cpu'), batch_size=batch_size, size=size, rows=rows,
                assumptions=dict(low=FAST._asdict(), high=SLOW._asdict(), gpus=[gpu._asdict() for gpu in GPUS]))


def table(result):
    """Markdown; every row says that it is an estimate."""
    rows, first = [], {}
    for row in result['rows']:
        low, high = (sum(row[key].values()) for key in ('low', 'high'))
        before = first.setdefault((row['dtype'], row['gpu']), (low, high))
        ratios = sorted((before[0] / low, before[1] / high))
        kinds = ', '.join(f'{kind} {1e3 * row["low"].get(kind, 0):.0f}–{1e3 * row["high"].get(kind, 0):.0f}'
                          for kind in row['high'])
        rows.append([f'estimate, {row["gpu"]}', row['dtype'], row['candidate'], str(row['operators']),
                     f'{row["operations"] / 2e12:.1f}', f'{row["nbytes"] / 1e9:.0f}',
                     f'{1e3 * low:.0f}–{1e3 * high:.0f}', f'{ratios[0]:.2f}–{ratios[1]:.2f}', kinds])
    return markdown_table(['', 'dtype', 'candidate', 'operators', 'TMACs', 'GB', 'ms a step, low–high',
                           'speed against the first, same assumptions', 'of it, ms'], rows)


def report(result):
    low, high = (result['assumptions'][key] for key in ('low', 'high'))
    return '\n'.join([
        '# Estimate of a training step on GPUs', '', '**Nothing here was measured.** '
        f'`{result["environment"]["command"]}`, commit {result["environment"]["commit"]}.', '',
        f'{result["batch_size"]} images of {result["size"]}×{result["size"]}, forward, losses, backward and a fused '
        'AdamW, counted on fake tensors as CUDA would run it by the rules of thumb. The time of an operator is the '
        'longest of its arithmetic, its bytes (each of its tensors once) and its launch. Low and high assume '
        f'{low["products"]:.0%} and {high["products"]:.0%} of the arithmetic of the data sheet for convolutions and '
        f'matrix products, {low["memory"]:.0%} and {high["memory"]:.0%} of the bandwidth for the rest, '
        f'{low["depthwise"]:.0%} and {high["depthwise"]:.0%} for torch\'s depthwise convolutions, and '
        f'{1e6 * low["launch"]:.0f} and {1e6 * high["launch"]:.0f} µs for a launch at least. Of all other operators of '
        'torch only the bytes count. The kernels of this package (loss, token mixer, residual) are counted by launch: '
        'the instructions of their inner loops, from their code (studies/gpu/kernels.py), with padded lanes and pixels '
        'that are met again, and after them the exponentials and logarithms. A multiprocessor issues instructions of '
        'four warps a clock and has 16 special functions; its clock is that at which float32 reaches the data sheet '
        f'({"; ".join(described(gpu) for gpu in result["assumptions"]["gpus"])}). {low["kernels"]:.0%} and '
        f'{high["kernels"]:.0%} of that is assumed, and a launch of fewer programs than multiprocessors has no more of '
        "these. Casts are those of autocast on a CPU, which differ a little from CUDA's. float32 takes TF32 in "
        'convolutions and products. Time in which the GPU waits for the host is not in it, nor is data loading.', '',
        table(result), ''])


def described(gpu):
    return f'{gpu["name"]}: {gpu["fp32"] / 1e12:g} TFLOP/s, {gpu["processors"]} multiprocessors'


if __name__ == '__main__':
    one_result.run(__doc__, 'docs/results/gpu_estimate.json', estimate, report)
