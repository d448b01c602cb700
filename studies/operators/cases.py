"""A case: one convolution operator under one set of conditions."""
import collections
from dataclasses import dataclass
from fractions import Fraction

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


def groups_of(cases):
    """Cases that are measured against each other, in the order in which they come."""
    groups = collections.defaultdict(list)
    for case in cases:
        groups[case.tensors].append(case)
    return list(groups.values())
