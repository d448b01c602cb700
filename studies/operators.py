"""Square, factorized and Inception convolutions: what they cost on paper, what they take, and why.

A :class:`Case` names one convolution operator under one set of conditions. :func:`count` says what it must cost,
:func:`measure_cases` what it takes, :func:`reasons` which explanations of the difference the two bear out.
``tools/benchmark_ops.py`` is the command, ``docs/factorized_convolutions.md`` the answer.
"""
import collections
import contextlib
import functools
import itertools
import json
import math
import os
import pathlib
import re
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from typing import NamedTuple

import torch
import torch.nn as nn
from scipy.stats import spearmanr

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.metanext import InceptionDWConv2d

from . import timing as measure
from .timing import DTYPES, MEMORY_FORMATS, InputPool, Interval, interleave, median_interval, ratio

# The forms of an operator with nominal kernel h×w.
FORMS = dict(
    copy='a copy: one pass, no arithmetic',
    square='h×w',
    sequential='h×1 → 1×w',
    sequential_relu='h×1 → ReLU → 1×w',
    one_pass='2×n, which has the MACs and parameters of n×1 → 1×n in one pass',
    column='h×1 alone',
    row='1×w alone',
    inception='3×3 ‖ 1×w ‖ w×1 ‖ identity, in parallel',
    partial='h×w on a share of the channels, the others pass',
)
GROUPINGS = ('dense', 'depthwise')
MODES = dict(
    infer='forward, inference mode',
    forward='forward, recording the graph',
    train='forward and backward',       # gradients of the input and the parameters
)


@dataclass(frozen=True)
class Case:
    """One operator under one set of conditions, on an input (``batch_size``, ``channels``, ``size``, ``size``).

    Attributes:
        form (str): Of :data:`FORMS`.
        kernel (tuple[int, int]): Height and width; the form says what is made of it.
        ratio (float): Share of the channels in each branch, of the forms 'inception' and 'partial'.
        grouping (str): 'dense' or 'depthwise'.
        mode (str): Of :data:`MODES`.
        cache (str): 'cold', inputs and output gradients come from beyond the last-level cache, or 'hot', always the
            same.
    """
    form: str
    kernel: tuple = (7, 7)
    ratio: float = 1.0
    grouping: str = 'depthwise'
    channels: int = 96
    size: int = 56
    batch_size: int = 4
    dtype: str = 'fp32'
    layout: str = 'nchw'
    mode: str = 'infer'
    cache: str = 'cold'

    @property
    def operator(self):
        """What it is, in words, such as ``'7×1 → 1×7'``."""
        height, width = self.kernel
        share = Fraction(self.ratio).limit_denominator(64)
        return dict(
            copy='copy',
            square=f'{height}×{width}',
            sequential=f'{height}×1 → 1×{width}',
            sequential_relu=f'{height}×1 → ReLU → 1×{width}',
            one_pass=f'2×{width}',
            column=f'{height}×1',
            row=f'1×{width}',
            inception=f'3×3 ‖ 1×{width} ‖ {width}×1, {share}',
            partial=f'{height}×{width}, {share}')[self.form]

    @property
    def tensors(self):
        """What decides shape, dtype and layout of the tensors, and the mode; cases that share it are interleaved."""
        return self.channels, self.size, self.batch_size, self.dtype, self.layout, self.mode


# The operators


def convolution(channels, kernel, depthwise):
    """Convolution of ``channels`` to as many, bias included, of the same size; an even side loses one pixel."""
    padding = [(side - 1) // 2 for side in kernel]
    return nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels if depthwise else 1)


class BranchedConv2d(nn.Module):
    """Convolutions in parallel on ``int(channels * ratio)`` channels each, (B, C, H, W) to the same; the others pass.

    Where the channels suffice, the branches take different ones and their outputs are concatenated, as in Inception.
    Where they do not, above a third for three branches, the branches take the same channels and their outputs are
    added, so that at ratio 1 three convolutions see all the channels.
    """

    def __init__(self, channels, kernels, ratio, depthwise):
        super().__init__()
        self.branches = branch_channels(channels, len(kernels), ratio)
        self.convs = nn.ModuleList([convolution(self.branches.channels, kernel, depthwise) for kernel in kernels])

    def forward(self, x):
        if self.branches.whole:
            return sum_of(conv(x) for conv in self.convs)
        taken = len(self.convs) if self.branches.disjoint else 1
        identity, *parts = x.split((self.branches.identity, *[self.branches.channels] * taken), dim=1)
        if self.branches.disjoint:
            return torch.cat((identity, *[conv(part) for conv, part in zip(self.convs, parts, strict=True)]), dim=1)
        return torch.cat((identity, sum_of(conv(parts[0]) for conv in self.convs)), dim=1)


def sum_of(tensors):
    first, *others = tensors
    for tensor in others:
        first = first + tensor
    return first


class Branches(NamedTuple):
    channels: int       # of each branch
    identity: int       # that pass
    disjoint: bool      # each branch has its own channels
    whole: bool         # a branch has all the channels


def branch_channels(channels, branches, ratio):
    branch = int(channels * ratio)
    disjoint = branches * branch <= channels
    return Branches(branch, channels - branch * (branches if disjoint else 1), disjoint, branch == channels)


def branch_kernels(case):
    """The kernels that a form in branches runs in parallel; 3×3 is the paper's square kernel."""
    width = case.kernel[1]
    return dict(inception=[(3, 3), (1, width), (width, 1)], partial=[case.kernel]).get(case.form)


def chain_kernels(case):
    """The kernels that a form without branches runs one after another."""
    height, width = case.kernel
    return dict(
        copy=[],
        square=[case.kernel],
        sequential=[(height, 1), (1, width)],
        sequential_relu=[(height, 1), (1, width)],
        one_pass=[(2, width)],
        column=[(height, 1)],
        row=[(1, width)])[case.form]


class Copy(nn.Module):

    def forward(self, x):
        return x.clone()


def build(case):
    """The module of ``case``, in fp32 on the CPU. Depthwise Inception is the backbone's own where it can be.

    All in torch's own operators: what is compared is the forms, not how well one of them is written.
    """
    depthwise = case.grouping == 'depthwise'
    if kernels := branch_kernels(case):
        if case.form == 'inception' and depthwise and branch_channels(case.channels, 3, case.ratio).disjoint:
            return InceptionDWConv2d(case.channels, 3, case.kernel[1], case.ratio, impl='torch')
        return BranchedConv2d(case.channels, kernels, case.ratio, depthwise)
    layers = [convolution(case.channels, kernel, depthwise) for kernel in chain_kernels(case)]
    if case.form == 'sequential_relu':
        layers.insert(1, nn.ReLU())
    return nn.Sequential(*layers) if layers else Copy()


# What they must cost


class Pass(NamedTuple):
    """One pass over memory. ``needed_macs`` are without the products with zero padding, which a library may skip."""
    macs: int
    needed_macs: int
    bytes: int


class Counts(NamedTuple):
    """What a case costs on paper: parameters, and its passes over memory."""
    parameters: int
    passes: list

    @property
    def macs(self):
        return sum(step.macs for step in self.passes)

    @property
    def needed_macs(self):
        return sum(step.needed_macs for step in self.passes)

    @property
    def bytes(self):
        return sum(step.bytes for step in self.passes)

    def bound(self, macs_per_second, bytes_per_second):
        """Roofline bound in seconds: each pass takes as long as its arithmetic or its memory, whichever is longer."""
        return sum(max(step.needed_macs / macs_per_second, step.bytes / bytes_per_second) for step in self.passes)


def output_side(side, kernel_side):
    """Pixels along one side after a convolution of :func:`convolution`."""
    return side - 1 + kernel_side % 2


def taps_inside(side, kernel_side):
    """Kernel elements that meet the image and not its padding, summed over the outputs along one side."""
    padding = (kernel_side - 1) // 2
    return sum(min(side, start + kernel_side) - max(0, start)
               for start in range(-padding, output_side(side, kernel_side) - padding))


def count(case):
    """Parameters, MACs and least bytes moved of ``case``, pass by pass.

    A pass reads its input and weights once and writes its output once. Each convolution is a pass; in the backward
    direction it is two, for the gradients of its input and of its parameters. ReLU, additions and copies are passes
    too: concatenation and the backward of a split copy everything, and a convolution on some of the channels copies
    those first where they do not lie together, as they do in NCHW with batch size 1 only. MACs include the products
    with the zero padding, as everywhere; the bound does not.
    """
    train = case.mode == 'train'
    element = DTYPES[case.dtype].itemsize
    pixels = case.batch_size * case.size**2
    parameters, passes = 0, []

    def move(elements):
        passes.append(Pass(0, 0, elements * element))

    def convolve(channels, kernel, image):
        nonlocal parameters
        result = tuple(map(output_side, image, kernel))
        weights = channels * (1 if case.grouping == 'depthwise' else channels) * math.prod(kernel)
        parameters += weights + channels
        macs = case.batch_size * math.prod(result) * weights
        needed = case.batch_size * math.prod(map(taps_inside, image, kernel)) * weights // math.prod(kernel)
        moved = case.batch_size * channels * (math.prod(image) + math.prod(result)) + weights
        # The bias is read in the forward pass, and its gradient written with that of the weights.
        directions = (moved + channels, moved, moved + channels) if train else (moved + channels, )
        passes.extend(Pass(macs, needed, elements * element) for elements in directions)
        return result

    image = case.size, case.size
    if kernels := branch_kernels(case):
        branches = branch_channels(case.channels, len(kernels), case.ratio)
        scattered = not branches.whole and (case.batch_size > 1 or case.layout == 'nhwc')
        copies, additions = (len(kernels) if scattered else 0), (0 if branches.disjoint else len(kernels) - 1)
        for kernel in kernels:
            convolve(branches.channels, kernel, image)
        for _ in range(1 + train):
            for _ in range(copies):
                move(2 * branches.channels * pixels)
            for _ in range(additions):
                move(3 * branches.channels * pixels)
            if not branches.whole:
                move(2 * case.channels * pixels)
    elif case.form == 'copy':
        move(2 * case.channels * pixels)
    else:
        for i, kernel in enumerate(chain_kernels(case)):
            if case.form == 'sequential_relu' and i:
                for units in (2, 3)[:1 + train]:
                    move(units * case.batch_size * case.channels * math.prod(image))
            image = convolve(case.channels, kernel, image)
    return Counts(parameters, passes)


# Which cases

KERNELS = ((3, 3), (5, 5), (6, 7), (7, 7), (11, 11))
FACTORIZED = [(form, kernel, 1.0) for kernel in KERNELS for form in (
    'square', 'sequential', 'sequential_relu', 'one_pass', 'column', 'row') if form != 'one_pass' or kernel != (6, 7)]
PARALLEL = [('inception', (11, 11), ratio) for ratio in (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)]
PARTIAL = [('partial', (3, 3), ratio) for ratio in (1 / 2, 3 / 8, 1 / 4, 1 / 8, 1 / 16)]
EVERY = [('copy', (1, 1), 1.0), *FACTORIZED, *PARALLEL, *PARTIAL]
FEW = [
    ('copy', (1, 1), 1.0), ('square', (3, 3), 1.0), ('sequential', (3, 3), 1.0), ('square', (7, 7), 1.0),
    ('sequential', (7, 7), 1.0), ('one_pass', (7, 7), 1.0), ('column', (7, 7), 1.0), ('row', (7, 7), 1.0),
    ('inception', (11, 11), 1 / 8)]
REUSED = [(form, kernel, 1.0) for kernel in ((3, 3), (7, 7), (11, 11)) for form in ('square', 'sequential')]
# Work so small that what is left is the price of the calls. 32 channels have two in a branch of a sixteenth; with one
# image torch would run other kernels than it does on a larger input.
PROBE = dict(channels=32, size=1, batch_size=2, cache='hot')
PRICED = [*[operator for operator in FACTORIZED if operator[0] in ('square', 'sequential')], *PARALLEL,
          ('column', (7, 7), 1.0), ('sequential_relu', (7, 7), 1.0)]

BOTH_LAYOUTS = ('nchw', 'nhwc')
INFER_AND_TRAIN = ('infer', 'train')


def sweep(operators, grouping, shapes, batch_size, dtype=('fp32', ), mode=INFER_AND_TRAIN, cache=('cold', )):
    return dict(operators=operators, grouping=grouping, shapes=shapes, batch_size=batch_size, dtype=dtype,
                layout=BOTH_LAYOUTS, mode=mode, cache=cache)


# The shapes are those of ConvNeXt-T's stages for a 224 × 224 image; a dense convolution does C times the work.
STAGES = ((96, 56), (192, 28), (384, 14), (768, 7))
EVERY_SHAPE = tuple(itertools.product((32, 96, 192, 384, 768), (7, 14, 28, 56, 128)))
SUITES = dict(
    quick=[
        sweep(EVERY, ('depthwise', ), ((96, 56), ), (4, )),
        sweep(REUSED, ('depthwise', ), ((96, 56), ), (4, ), cache=('hot', )),
        sweep(EVERY, ('dense', ), ((96, 28), ), (4, )),
        sweep(REUSED, ('dense', ), ((96, 28), ), (4, ), cache=('hot', )),
        sweep(FEW, ('depthwise', ), ((32, 128), *STAGES), (4, )),
        sweep(FEW, ('dense', ), ((32, 7), (32, 14), *STAGES[1:]), (2, )),
        sweep(FEW, ('depthwise', ), ((96, 56), ), (4, ), dtype=('bf16', )),
        sweep(FEW, ('dense', ), ((96, 28), ), (4, ), dtype=('bf16', )),
        sweep(PRICED, GROUPINGS, ((PROBE['channels'], PROBE['size']), ), (PROBE['batch_size'], ), cache=('hot', )),
    ],
    full=[
        sweep(EVERY, ('depthwise', ), EVERY_SHAPE, (1, 16), dtype=('fp32', 'bf16'), mode=tuple(MODES)),
        sweep(REUSED, ('depthwise', ), EVERY_SHAPE, (1, 16), dtype=('fp32', 'bf16'), mode=tuple(MODES),
              cache=('hot', )),
        sweep(EVERY, ('dense', ), EVERY_SHAPE, (1, ), dtype=('fp32', 'bf16'), mode=tuple(MODES)),
        sweep(REUSED, ('dense', ), EVERY_SHAPE, (1, ), dtype=('fp32', 'bf16'), mode=tuple(MODES), cache=('hot', )),
        sweep(PRICED, GROUPINGS, ((PROBE['channels'], PROBE['size']), ), (PROBE['batch_size'], ),
              dtype=('fp32', 'bf16'), mode=tuple(MODES), cache=('hot', )),
    ])


def select(suite, **wanted):
    """The cases of a suite, without repetition.

    Args:
        suite (str): Of :data:`SUITES`.
        wanted: Lists by attribute of :class:`Case`. ``form``, ``kernel``, ``grouping`` and ``cache`` keep what is in
            them; the others replace the suite's values, so that any size can be had. None or empty leaves it as it is.

    Raises:
        UserError: No case is left.
    """
    wanted = {name: values for name, values in wanted.items() if values}
    cases = {}
    for grid in SUITES[suite]:
        shapes = grid['shapes']
        probe = shapes == ((PROBE['channels'], PROBE['size']), )
        if not probe and ('channels' in wanted or 'size' in wanted):
            channels = wanted.get('channels') or list(dict.fromkeys(c for c, _ in shapes))
            sizes = wanted.get('size') or list(dict.fromkeys(s for _, s in shapes))
            shapes = tuple(itertools.product(channels, sizes))
        replaced = {name: wanted.get(name) or grid[name] for name in ('dtype', 'layout', 'mode')}
        batch_sizes = grid['batch_size'] if probe else wanted.get('batch_size') or grid['batch_size']
        for values in itertools.product(grid['operators'], grid['grouping'], shapes, batch_sizes, *replaced.values(),
                                        grid['cache']):
            (form, kernel, ratio), grouping, (channels, size), batch_size, dtype, layout, mode, cache = values
            case = Case(form, kernel, ratio, grouping, channels, size, batch_size, dtype, layout, mode, cache)
            kept = all(getattr(case, name) in wanted.get(name, [getattr(case, name)])
                       for name in ('form', 'kernel', 'grouping', 'cache'))
            possible = int(channels * ratio) > 0 and min(output_size(case)) > 0 and (
                form != 'copy' or grouping == grid['grouping'][0])
            if kept and possible:
                cases[case] = None
    if not cases:
        raise UserError(f'no case of the suite {suite!r} is left by the filters {wanted}; wanted at least one. '
                        'Next: leave out some of --form, --kernel, --grouping, --cache')
    return list(cases)


# Running them


def prepare(case, inputs, gradients, device):
    """A call without arguments that runs ``case`` on the next of ``inputs``; 'infer' expects inference mode around."""
    module = build(case).to(device, DTYPES[case.dtype], memory_format=MEMORY_FORMATS[case.layout])
    if case.mode != 'train':
        return lambda: module(next(inputs))
    parameters = list(module.parameters())

    def step():
        x = next(inputs)
        return torch.autograd.grad(module(x), (x, *parameters), next(gradients))

    return step


def output_size(case):
    """Height and width of the output."""
    image = case.size, case.size
    for kernel in [] if branch_kernels(case) else chain_kernels(case):
        image = tuple(map(output_side, image, kernel))
    return image


def measure_group(cases, pool, device, peaks, synchronize=None, **options):
    """Measure cases of one shape, dtype, layout and mode, interleaved.

    Args:
        cases (list[Case]): All with the same ``tensors``.
        pool (InputPool): Where inputs and output gradients come from.
        device (torch.device | str): Where to run.
        peaks (dict): From :func:`studies.timing.machine_peaks`, at the cases' dtype.
        synchronize (Callable | None): Waits for the device; by default for ``device``.
        options: Of :func:`studies.timing.interleave`.

    Returns:
        list[dict]: For each case its record in a result file: the case, its counts, bound, kernels and samples.
    """
    @functools.cache
    def rotation(image, cache, requires_grad):
        case = cases[0]
        return pool.rotation((case.batch_size, case.channels, *image), MEMORY_FORMATS[case.layout],
                             hot=cache == 'hot', requires_grad=requires_grad)

    synchronize = synchronize or functools.partial(measure.synchronize, device)
    calls = {}
    for case in cases:
        inputs = rotation((case.size, case.size), case.cache, case.mode != 'infer')
        gradients = rotation(output_size(case), case.cache, False) if case.mode == 'train' else None
        calls[case] = prepare(case, inputs, gradients, device)
    with torch.inference_mode() if cases[0].mode == 'infer' else contextlib.nullcontext():
        kernels = {case: kernels_of(call, device, synchronize) for case, call in calls.items()}
        samples = interleave(calls, synchronize=synchronize, **options)

    records = []
    for case in cases:
        counts = count(case)
        bandwidth = peaks['bytes_per_second' if case.cache == 'cold' else 'cache_bytes_per_second']
        implementations, layout_bytes = kernels[case]
        records.append(dict(
            **asdict(case),
            parameters=counts.parameters,
            macs=counts.macs,
            needed_macs=counts.needed_macs,
            bytes=counts.bytes,
            bound_seconds=counts.bound(peaks['macs_per_second'], bandwidth),
            implementations=implementations,
            layout_bytes=layout_bytes,
            repeats=samples[case].repeats,
            warmup_rounds=samples[case].warmup_rounds,
            settled=samples[case].settled,
            seconds=[round(second, 9) for second in samples[case].seconds]))
    return records


def measure_cases(cases, device, progress=None, **options):
    """Measure the machine's limits and ``cases``, group by group.

    Args:
        cases (list[Case]): From :func:`select`.
        device (torch.device | str): Where to run.
        progress (Callable | None): Called after each group.
        options: ``rounds`` and ``clock`` of :func:`studies.timing.interleave`.

    Returns:
        tuple: (limits by dtype, records as in a result file).
    """
    peaks, records = {}, []
    for dtype in dict.fromkeys(case.dtype for case in cases):
        peaks[dtype] = measure.machine_peaks(device, DTYPES[dtype], **options)
        pool = InputPool(DTYPES[dtype], device)
        for group in groups_of(case for case in cases if case.dtype == dtype):
            records += measure_group(group, pool, device, peaks[dtype], **options)
            if progress:
                progress()
    return peaks, records


def groups_of(cases):
    """Cases that are measured against each other, in the order in which they come."""
    groups = collections.defaultdict(list)
    for case in cases:
        groups[case.tensors].append(case)
    return list(groups.values())


def kernels_of(call, device, synchronize):
    """Which kernels one call runs, and the bytes that the library moves to change a layout and back.

    On a CPU oneDNN's own log tells, and lists nothing for a convolution that ran elsewhere, in ATen. On CUDA torch's
    profiler lists the kernels, and the bytes are not known.

    Returns:
        tuple: (list of names, bytes or None).
    """
    if torch.device(device).type != 'cpu':
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            call()
            synchronize()
        return sorted({event.name for event in profile.events() if event.device_type.name == 'CUDA'}), None
    if not torch.backends.mkldnn.is_available():
        return [], None
    with tempfile.TemporaryFile('w+') as log:
        with standard_output_to(log), torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            call()
        log.seek(0)
        return parse_onednn(log.read())


@contextlib.contextmanager
def standard_output_to(file):
    """Send what the process, C libraries included, writes to its standard output to ``file``."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(file.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


ONEDNN_BYTES = dict(f32=4, bf16=2, f16=2)
ONEDNN_DIRECTIONS = dict(forward_training='forward', forward_inference='forward', backward_data='input gradient',
                         backward_weights='weight gradient')


def parse_onednn(log):
    """Names of the convolution implementations in oneDNN's log, and the bytes read and written by its reorders."""
    implementations, moved = [], 0
    for line in log.splitlines():
        words = line.split(',')
        if not line.startswith('onednn_verbose') or 'exec' not in words:
            continue
        kind, implementation, direction, memory = words[words.index('exec') + 2:][:4]
        if kind == 'convolution':
            implementations.append(f'{ONEDNN_DIRECTIONS[direction]} {implementation}')
        elif kind == 'reorder':
            elements = math.prod(map(int, words[-2].split('x')))
            moved += sum(elements * ONEDNN_BYTES[dtype] for dtype in re.findall(r'(?:src|dst):(\w+):', memory))
    return sorted(set(implementations)), moved


# What the measurements say


def read_result(path):
    """A result file as :func:`write_result` made it.

    Raises:
        UserError: There is no such file, or it is not such a result.
    """
    path = pathlib.Path(path)
    wanted = 'Wanted: a result file of tools/benchmark_ops.py. Next: run it with --out to make one'
    try:
        result = json.loads(path.read_text(encoding='utf-8'))
        table = Table(result)
        origin = result['environment']
        described = ''.join([result['clock'], origin['versions']['torch'], str(origin['threads'] + result['rounds']), *(
            origin[key] for key in ('command', 'date', 'device', 'device_name', 'cpu_capability'))])
        described += ''.join(origin['variables'].values())
        limits = [limit for peaks in result['peaks'].values() for limit in (
            peaks['macs_per_second'], peaks['bytes_per_second'], peaks['cache_bytes_per_second'],
            peaks['matrix_size'], peaks['copy_working_set'], peaks['cache_copy_working_set'])]
        if not described or not all(limit > 0 for limit in limits):
            raise ValueError('a limit is not above 0')
    except OSError as error:
        raise UserError(f'result file {path} cannot be read ({error.strerror}). {wanted}') from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'result file {path} is not a result of operators ({error!r}). {wanted}') from error
    if not table.records:
        raise UserError(f'result file {path} has no records. {wanted}')
    return result


COUNTED = ('parameters', 'macs', 'needed_macs', 'bytes')


class Table:
    """The records of a result by their :class:`Case`, and comparisons among them."""

    def __init__(self, result):
        self.records = {}
        for record in result['records']:
            values = {field.name: record[field.name] for field in fields(Case)}
            case = Case(**dict(values, kernel=tuple(values['kernel'])))
            known = (case.form in FORMS and case.mode in MODES and case.grouping in GROUPINGS
                     and case.layout in MEMORY_FORMATS and case.dtype in DTYPES and case.dtype in result['peaks'])
            counted = all(record[key] >= 0 for key in COUNTED) and record['bound_seconds'] > 0
            told = isinstance(record['settled'], bool) and {type(name) for name in record['implementations']} <= {str}
            if not (known and counted and told and len(record['seconds']) > 1 and min(record['seconds']) > 0):
                raise ValueError(f'unusable record of {case}')
            self.records[case] = record

    def __iter__(self):
        return iter(self.records)

    def __contains__(self, case):
        return case in self.records

    def time(self, case):
        """Median time of a call with its interval, in seconds."""
        return median_interval(self.records[case]['seconds'])

    def ratio(self, a, b):
        """Time of ``a`` over that of ``b``, paired by round; both of one group."""
        return ratio(self.records[a]['seconds'], self.records[b]['seconds'])

    def share(self, case):
        """Roofline bound over the median time: 1 is as fast as the machine's limits allow."""
        record = self.records[case]
        return record['bound_seconds'] / statistics.median(record['seconds'])

    def quotient(self, key, a, b):
        """``key``, such as 'macs', of ``a`` over that of ``b``."""
        return self.records[a][key] / self.records[b][key]

    def base(self, grouping):
        """Channels, size, batch size and dtype under which most operators of ``grouping`` were measured, or None."""
        seen = collections.Counter(
            (case.channels, case.size, case.batch_size, case.dtype) for case in self
            if case.grouping == grouping and case.size > PROBE['size'])
        return max(seen, key=seen.get, default=None)


class Reason(NamedTuple):
    """One of the article's reasons as a claim that pairs of cases can bear out.

    ``forms`` are the left side of the claim, ``change`` makes its right side of them; ``expected`` is what the claim
    says of left against right: 'slower', 'faster' or 'different'. Where ``per_mac``, times are taken per MAC, since 2×n
    computes a row less.
    """
    name: str
    claim: str
    forms: tuple
    change: dict
    expected: str
    per_mac: bool = False


REASONS = (
    Reason('sequential passes', 'per MAC, n×1 → 1×n is slower than 2×n: as many parameters, two passes for one',
           ('sequential', ), dict(form='one_pass'), 'slower', per_mac=True),
    Reason('memory traffic', 'ReLU between n×1 and 1×n, which adds bytes and no MACs, costs time',
           ('sequential_relu', ), dict(form='sequential'), 'slower'),
    Reason('operation count', 'n×1 → 1×n, with fewer MACs, is faster than n×n',
           ('sequential', ), dict(form='square'), 'faster'),
    Reason('caching', 'inputs from beyond the cache cost time against inputs in it',
           ('square', 'sequential'), dict(cache='hot'), 'slower'),
    Reason('kernel tuning', '1×n and n×1, with the same MACs, bytes and parameters, differ',
           ('row', ), dict(form='column'), 'different'),
)
# Of so many pairs a claim must hold, and may hold where it does not.
BORNE_OUT, NOT_BORNE_OUT = 2 / 3, 1 / 3
OVERHEAD_THAT_MATTERS = 0.1


class Finding(NamedTuple):
    """What the pairs say of a claim, for one grouping and mode; ratios are medians over the pairs, left over right."""
    pairs: int
    slower: int
    faster: int
    time: float
    macs: float
    bytes: float
    verdict: str


def verdict(holding, pairs):
    """'borne out' where a claim holds in two thirds of the pairs, 'not borne out' in less than one, or 'in part'."""
    if not pairs:
        return 'not measured'
    share = holding / pairs
    return 'borne out' if share >= BORNE_OUT else 'not borne out' if share < NOT_BORNE_OUT else 'in part'


def examine(table, reason, grouping, mode):
    """The :class:`Finding` on ``reason``. A pair counts as slower or faster where its interval leaves out 1."""
    pairs = []
    for case in table:
        other = replace(case, **reason.change)
        if (case.form in reason.forms and case.grouping == grouping and case.mode == mode and case.size > PROBE['size']
                and other != case and other in table):
            work = table.quotient('macs', case, other) if reason.per_mac else 1.0
            pairs.append((case, other, Interval(*[value / work for value in table.ratio(case, other)])))
    slower = sum(interval.low > 1 for _, _, interval in pairs)
    faster = sum(interval.high < 1 for _, _, interval in pairs)
    holding = dict(slower=slower, faster=faster, different=slower + faster)[reason.expected]

    def median(values):
        values = list(values)
        return statistics.median(values) if values else math.nan

    return Finding(
        len(pairs), slower, faster, median(interval.median for _, _, interval in pairs),
        median(table.quotient('macs', a, b) for a, b, _ in pairs),
        median(table.quotient('bytes', a, b) for a, b, _ in pairs), verdict(holding, len(pairs)))


def cache_penalty(table, grouping, mode):
    """How much more n×1 → 1×n suffers from cold inputs than n×n does: cold over hot of one over cold over hot of other.

    Returns:
        list[Interval]: For each kernel and layout measured both ways.
    """
    intervals = []
    for case in table:
        four = [replace(case, form=form, cache=cache)
                for form in ('sequential', 'square') for cache in ('cold', 'hot')]
        if case == four[0] and (case.grouping, case.mode) == (grouping, mode) and all(c in table for c in four):
            rounds = zip(*(table.records[c]['seconds'] for c in four), strict=True)
            intervals.append(median_interval([(a / b) / (c / d) for a, b, c, d in rounds]))
    return intervals


def overheads(table, grouping, mode):
    """Price of the calls as a share of the time: the same operator on one pixel, over it on the whole image.

    Returns:
        dict[Case, float]: For n×n, n×1 → 1×n and Inception of every size measured with more than one image, for which
        torch may run other kernels.
    """
    shares = {}
    for case in table:
        probe = replace(case, **PROBE)
        if (case.form in ('square', 'sequential', 'inception') and (case.grouping, case.mode) == (grouping, mode)
                and case.cache == 'cold' and case.batch_size > 1 and probe in table):
            shares[case] = table.time(probe).median / table.time(case).median
    return shares


def correlations(table, grouping, mode, layout):
    """Rank correlation (Spearman's) of time with MACs and with bytes, over the operators measured with cold inputs.

    Returns:
        tuple: (number of operators, correlation with MACs, with bytes), of the base shape; None without ten.
    """
    base = table.base(grouping)
    cases = [case for case in table if (case.grouping, case.mode, case.layout, case.cache) == (
        grouping, mode, layout, 'cold') and (case.channels, case.size, case.batch_size, case.dtype) == base]
    if len(cases) < 10:
        return None
    times = [table.time(case).median for case in cases]
    with_macs, with_bytes = (
        float(spearmanr(times, [table.records[case][key] for case in cases]).statistic) for key in ('macs', 'bytes'))
    return len(cases), with_macs, with_bytes


def reasons(table):
    """What the measurements say of each reason, for each grouping and mode that was measured.

    Yields:
        tuple: (name of the reason, claim, grouping, mode, :class:`Finding`).
    """
    measured = sorted({(case.grouping, case.mode) for case in table if case.size > PROBE['size']},
                      key=lambda both: (GROUPINGS.index(both[0]), list(MODES).index(both[1])))
    for reason in REASONS:
        for grouping, mode in measured:
            yield reason.name, reason.claim, grouping, mode, examine(table, reason, grouping, mode)
    for grouping, mode in measured:
        penalties = cache_penalty(table, grouping, mode)
        slower, faster = sum(p.low > 1 for p in penalties), sum(p.high < 1 for p in penalties)
        yield ('caching, of the factorized', 'n×1 → 1×n loses more to cold inputs than n×n', grouping, mode,
               Finding(len(penalties), slower, faster,
                       statistics.median(p.median for p in penalties) if penalties else math.nan,
                       math.nan, math.nan, verdict(slower, len(penalties))))
    for grouping, mode in measured:
        shares = overheads(table, grouping, mode).values()
        above = sum(share > OVERHEAD_THAT_MATTERS for share in shares)
        yield ('launch and synchronization', 'the price of the calls is more than a tenth of the time', grouping, mode,
               Finding(len(shares), above, len(shares) - above, statistics.median(shares) if shares else math.nan,
                       math.nan, math.nan, verdict(above, len(shares))))
