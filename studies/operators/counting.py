"""What a case must cost on paper: parameters, MACs and least bytes moved, pass by pass."""
import math
from typing import NamedTuple

from ..timing import DTYPES
from .modules import kernels_of_form

ON_THE_INPUT = ('unordered', 'parallel', 'inception')


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


def output_size(case):
    """Height and width of the output."""
    image = case.size, case.size
    for kernel in [] if case.form in ON_THE_INPUT else kernels_of_form(case):
        image = tuple(map(output_side, image, kernel))
    return image


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
    if case.form == 'inception':
        branch = int(case.channels * case.ratio)
        kernels = kernels_of_form(case)
        for kernel in kernels:
            convolve(branch, kernel, image)
        for _ in range(1 + train):
            if case.batch_size > 1 or case.layout == 'nhwc':
                for _ in kernels:
                    move(2 * branch * pixels)
            move(2 * case.channels * pixels)
    elif case.form == 'copy':
        move(2 * case.channels * pixels)
    elif case.form in ON_THE_INPUT:
        for kernel in kernels_of_form(case):
            convolve(case.channels, kernel, image)
        if case.form == 'parallel' or train:    # an addition of the outputs, and of the gradients of the input
            move(3 * case.channels * pixels * ((case.form == 'parallel') + train))
    else:
        for i, kernel in enumerate(kernels_of_form(case)):
            if case.form == 'sequential_relu' and i:
                for units in (2, 3)[:1 + train]:
                    move(units * case.batch_size * case.channels * math.prod(image))
            image = convolve(case.channels, kernel, image)
    return Counts(parameters, passes)
