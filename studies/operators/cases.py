"""A case: one convolution operator on one input."""
from dataclasses import dataclass
from fractions import Fraction

# The forms of an operator with nominal kernel h×w.
FORMS = dict(
    copy='a copy: one pass, no arithmetic',
    square='h×w',
    sequential='h×1 → 1×w',
    sequential_relu='h×1 → ReLU → 1×w',
    unordered='h×1 and 1×w of the same input, neither waiting for the other, two outputs',
    parallel='h×1 ‖ 1×w, outputs added',
    one_pass='2×n, which has the MACs and parameters of n×1 → 1×n in one pass',
    column='h×1 alone',
    row='1×w alone',
    square_parts='h×w on a few images at a time',
    sequential_parts='h×1 → 1×w on a few images at a time, whose map between the passes stays in the cache',
    inception='3×3 ‖ 1×w ‖ w×1 ‖ identity, each on its own channels',
)
# Networks, by timm's names; 'convnext_atto' is ConvNeXt-A. And what their n×n convolutions are replaced by.
NETWORKS = dict(resnet18='ResNet-18', convnext_atto='ConvNeXt-A')
NETWORK_FORMS = ('n×n', 'n×1 → 1×n', 'n×1 ‖ 1×n')
MODES = dict(infer='forward, inference mode', train='forward and backward')     # of the input and the parameters


@dataclass(frozen=True)
class Case:
    """One operator on an input (``batch_size``, ``channels``, ``size``, ``size``).

    Attributes:
        form (str): Of :data:`FORMS`.
        kernel (tuple[int, int]): Height and width; the form says what is made of it.
        grouping (str): 'dense' or 'depthwise'.
        mode (str): Of :data:`MODES`.
        ratio (float): Share of the channels in each branch of 'inception'.
    """
    form: str
    kernel: tuple = (7, 7)
    grouping: str = 'depthwise'
    channels: int = 96
    size: int = 56
    batch_size: int = 4
    dtype: str = 'fp32'
    layout: str = 'nchw'
    mode: str = 'infer'
    ratio: float = 1 / 8

    @property
    def operator(self):
        """What it is, in words, such as ``'7×1 → 1×7'``."""
        height, width = self.kernel
        return dict(
            copy='copy',
            square=f'{height}×{width}',
            sequential=f'{height}×1 → 1×{width}',
            sequential_relu=f'{height}×1 → ReLU → 1×{width}',
            unordered=f'{height}×1, 1×{width}',
            parallel=f'{height}×1 ‖ 1×{width}',
            one_pass=f'2×{width}',
            column=f'{height}×1',
            row=f'1×{width}',
            square_parts=f'{height}×{width} by parts',
            sequential_parts=f'{height}×1 → 1×{width} by parts',
            inception=f'3×3 ‖ 1×{width} ‖ {width}×1, {Fraction(self.ratio).limit_denominator(64)}')[self.form]
