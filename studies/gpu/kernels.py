"""What the Triton kernels of this package ask of a GPU, launch by launch: instructions, special functions, bytes.

An instruction is one of a warp's, for each of its 32 lanes: a fused multiply-add, a comparison, an address, an exchange
between lanes count one each. They are those of the kernels' inner loops, counted by hand from their code; lanes that no
class has are among them, and pixels that are met twice. Special functions are exponentials and logarithms.
"""
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

from inceptionnext_seg.ops import _triton, inception_dwconv, residual, upsampled_cross_entropy

WARP = 32
# Of a sum or a maximum over the lanes of a warp: five exchanges, each with an addition or a comparison.
EXCHANGES = 10 * WARP
# Of a pixel or a row, once for all its classes, in every lane: label, fraction, addresses, comparisons, stores.
LOSS_OF_A_PIXEL, GRADIENT_OF_A_PIXEL, OF_A_ROW = 25 * WARP, 15 * WARP, 10 * WARP
# Of an element that is loaded or stored: its address in 64 bits, its mask, the access, the conversion.
LOAD, STORE = 6, 5
# Of a patch of the token mixer: where it lies.
PLACE = 60


class Work(NamedTuple):
    """Of one launch.

    Attributes:
        kernel (str): Its name.
        programs (int): Of the grid.
        instructions (int), special (int): Lane by lane, of all programs.
        nbytes (int): Of its tensors, each once, or of what it reads of them.
    """
    kernel: str
    programs: int
    instructions: int
    special: int
    nbytes: int


# The loss


def loss(v, programs):
    """Interpolation of two columns, then of each pixel: the largest logit, exponentials, their sum, the label's logit,
    the first of the largest."""
    pixels, lanes = v['labels'].numel(), v['CA'] + v['CB']
    columns = pixels // v['out_width'] * (v['width'] + v['segments'])
    reductions = 4 * (lanes + EXCHANGES)
    return (pixels * (8 * lanes + reductions + LOSS_OF_A_PIXEL) + columns * (2 * LOAD + 4) * lanes,
            pixels * (lanes + 2 * WARP))


def loss_sums(v, programs):
    return 5 * (LOAD + 2) * v['losses'].numel(), 0


def loss_gradient(v, programs):
    """Every pixel of the output is met by the rows of logits above and below it, and at borders of segments again."""
    pixels, lanes = v['kept_labels'].numel(), v['CA'] + v['CB']
    intervals = max(v['width'] - 1, 1)
    met = 2 * (intervals + v['segments'] - 1)       # times the pixels of an interval
    rows = pixels // v['out_width'] * met
    meetings = pixels * met // intervals
    of_program = (v['COLUMNS'] + 1) * (6 * LOAD + STORE) * lanes
    return (meetings * (9 * lanes + GRADIENT_OF_A_PIXEL) + rows * (4 * lanes + OF_A_ROW) + programs * of_program,
            meetings * lanes)


# The token mixer


def branches(v):
    """Of each convolution: its taps, and what a patch reads of a channel."""
    patch, square = v['PATCH'], v['K_HW']
    for a, b, rows, columns in ((square, square, patch // 2, 2), (v['K_W'], 1, patch, 1), (v['K_H'], 1, patch, 1)):
        yield a * b, (rows + a - 1) * (columns + b - 1)


def convolution(v, programs):
    groups = -(-v['BRANCH'] // v['CB'])
    blocks = programs // (v['copies'] + 3 * groups)
    channels = blocks * groups * v['steps'] * v['P'] * v['CB']      # of patches, in each branch
    patch = sum(v['PATCH'] * (taps + STORE) + LOAD * loads + PLACE for taps, loads in branches(v))
    return channels * patch + blocks * v['copies'] * v['COPY'] * (LOAD + STORE), 0


def products(v, programs):
    groups = -(-v['BRANCH'] // v['CB'])
    rows = programs // (3 * groups)
    channels = rows * groups * v['steps'] * v['P'] * v['CB']
    patch = sum(v['PATCH'] * (taps + 1 + LOAD) + LOAD * loads + PLACE for taps, loads in branches(v))
    sums = sum(taps + 1 for taps, _ in branches(v)) * (v['P'] * v['CB'] + EXCHANGES)
    return channels * patch + rows * groups * sums, 0


# The residual


def residual_sum(v, programs):
    return programs * v['BLOCK'] * (2 * LOAD + STORE + 4), 0


def residual_gradient(v, programs):
    elements = v['P'] * v['CB']
    return programs * (v['steps'] * elements * (2 * LOAD + STORE + 4) + elements + EXCHANGES), 0


def column_sums(v, programs):
    return v['partial'].numel() * (LOAD + 1), 0


LOSS, MIXER, RESIDUAL = 'upsampled_cross_entropy_triton', 'inception_dwconv_triton', 'residual_triton'
COUNTED = {(LOSS, 'loss_kernel'): loss, (LOSS, 'sum_kernel'): loss_sums, (LOSS, 'gradient_kernel'): loss_gradient,
           (MIXER, 'convolution_kernel'): convolution, (MIXER, 'products_kernel'): products,
           (MIXER, 'sum_kernel'): column_sums, (RESIDUAL, 'add_kernel'): residual_sum,
           (RESIDUAL, 'gradient_kernel'): residual_gradient, (RESIDUAL, 'sum_kernel'): column_sums}


def work_of(launch):
    """:class:`Work` of a recorded :class:`~inceptionnext_seg.ops._triton.Launch`."""
    kernel, programs = launch.kernel, launch.grid[0]
    v = dict(zip(kernel.arg_names, launch.args, strict=False)) | launch.constants
    count = COUNTED[kernel.__module__.rpartition('.')[2], kernel.__name__]
    nbytes = sum(x.nbytes for x in {id(x): x for x in launch.args if isinstance(x, torch.Tensor)}.values())
    if count is products:   # of map and gradient it reads the three branches alone
        nbytes -= (v['grad'].nbytes + v['x'].nbytes) * (v['C'] - 3 * v['BRANCH']) // v['C']
    return Work(kernel.__name__, programs, *map(int, count(v, programs)), nbytes)


# Operators that launch


LAUNCHING = {
    'upsampled_loss_triton': upsampled_cross_entropy.triton_sums,
    'upsampled_loss_triton_backward': upsampled_cross_entropy.triton_gradient,
    'inception_dwconv2d': inception_dwconv.inception_dwconv2d_cuda,
    'inception_dwconv2d_backward': inception_dwconv.inception_dwconv2d_backward_cuda,
    'residual': residual.residual_cuda, 'residual_backward': residual.residual_backward_cuda}


def launched(name, args, counting):
    """:class:`Work` of each launch of an operator of :data:`LAUNCHING`.

    Args:
        args (Sequence): Its arguments; of tensors the shapes, dtypes and strides count.
        counting (TorchDispatchMode): Meets torch's operators around the launches, such as a copy to channels_last.
    """
    def hollow(x):
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device='meta') if isinstance(
            x, torch.Tensor) else x

    with _disable_current_modes():
        args = tree_map(hollow, args)
        with _triton.recording():
            LAUNCHING[name](*args)      # makes tables, which a training does in its first step
        with _triton.recording() as launches, counting:
            LAUNCHING[name](*args)
    return list(map(work_of, launches))
