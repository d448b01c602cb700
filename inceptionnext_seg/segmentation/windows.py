"""Class indices of an image from windows: a row of windows at a time, without logits of the image's size.

The windows are those of MMSegmentation's ``slide_inference``, and the classes those of its mean of the windows' logits,
cropped, flipped and resized as in ``postprocess_result``. Of the windows' low-resolution logits only those rows of
windows are kept that output rows still need, so that memory grows with the width of an image and not with its height.
"""
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ..errors import SettingError
from ..ops.dtypes import compute_dtype
from ..ops.windowed_argmax import Taps, windowed_argmax

# Pixels that go through the network at once: on a CPU more only takes memory, elsewhere small batches leave it idle.
PIXELS_AT_ONCE = dict(cpu=2**18, other=2**21)


class Windows(NamedTuple):
    """A grid of windows of one size that cover an image.

    Attributes:
        image (tuple[int, int]): Height and width of the image.
        window (tuple[int, int]): Those of a window.
        tops (list[int]), lefts (list[int]): First row and first column of each window, ascending.
    """
    image: tuple
    window: tuple
    tops: list
    lefts: list

    @classmethod
    def whole(cls, image):
        """The image itself as its only window."""
        return cls(tuple(image), tuple(image), [0], [0])

    @classmethod
    def sliding(cls, image, crop_size, stride):
        """As in MMSegmentation: the last row and column are moved back so that they end where the image does.

        Raises:
            SettingError: ``crop_size`` or ``stride`` is not two positive numbers, or windows would leave gaps.
        """
        for name, value in (('crop_size', crop_size), ('stride', stride)):
            pair = isinstance(value, tuple | list) and len(value) == 2
            if not pair or any(not isinstance(n, int) or n < 1 for n in value):
                raise SettingError(f'model.test_cfg.{name} of sliding windows is {value!r}; expected: two positive '
                                   'whole numbers, height and width in pixels')
        window = tuple(map(min, crop_size, image))
        starts = []
        for size, crop, step in zip(image, crop_size, stride, strict=True):
            if step > crop and size > crop:
                raise SettingError(f'model.test_cfg.stride is {tuple(stride)} and crop_size {tuple(crop_size)}: pixels '
                                   'between two windows would have no prediction. Next: a stride of at most crop_size.')
            count = max(size - crop + step - 1, 0) // step + 1
            starts.append([max(min(i * step + crop, size) - crop, 0) for i in range(count)])
        return cls(tuple(image), window, *starts)

    def at_once(self, device):
        """Windows that go through the network at once by default, by their number of pixels."""
        pixels = PIXELS_AT_ONCE.get(torch.device(device).type, PIXELS_AT_ONCE['other'])
        return max(1, pixels // (self.window[0] * self.window[1]))


def predict_windows(
        logits_of: Callable[[list[tuple[int, int]]], torch.Tensor], windows: Windows, at_once: int,
        upsampled: tuple[int, int], align_corners: bool = False, padding: Any = (0, 0, 0, 0), flip: str | None = None,
        ori_shape: tuple[int, int] | None = None, sums: torch.Tensor | None = None, dtype: torch.dtype = torch.int64,
        impl: str = 'auto', progress: Callable[[int], Any] = lambda windows: None) -> torch.Tensor:
    """Class indices (H, W) of one image, ``ori_shape`` or what is left of its size.

    Args:
        logits_of: From ``(top, left)`` of some windows to their low-resolution logits (windows, C, h, w).
        windows: Where the windows lie.
        at_once: How many windows ``logits_of`` is asked for.
        upsampled: Height and width that a window's logits are upsampled to; what is more than a window is padding.
        align_corners: As in ``F.interpolate``.
        padding: Pixels of the image to crop: left, right, top, bottom.
        flip: 'horizontal' or 'vertical': flip after cropping.
        ori_shape: Height and width to resize to after that; None leaves it out.
        sums: (H, W, C), sums of probabilities, to which those of this image are added in place; the classes are then
            those of the largest sums.
        dtype: Of the class indices.
        impl: Form of :func:`~inceptionnext_seg.ops.windowed_argmax.windowed_argmax`.
        progress: Called with the number of windows that were predicted.

    Raises:
        ValueError: ``flip`` is something else.
    """
    if flip not in (None, 'horizontal', 'vertical'):
        raise ValueError(f"flip is {flip!r}; expected None, 'horizontal' or 'vertical'")
    plan = strips = result = None
    for row, y in enumerate(windows.tops):
        for begin in range(0, len(windows.lefts), at_once):
            lefts = windows.lefts[begin:begin + at_once]
            logits = logits_of([(y, x) for x in lefts])
            if plan is None:
                low, kind = tuple(logits.shape[2:]), compute_dtype(logits.dtype)
                plan = plan_of(
                    windows.window, tuple(windows.tops), tuple(windows.lefts), low, tuple(map(int, upsampled)),
                    align_corners, tuple(map(int, padding)), flip, ori_shape and tuple(map(int, ori_shape)), kind,
                    logits.device)
                strips = logits.new_empty(plan.kept, low[0], len(windows.lefts), low[1], logits.shape[1], dtype=kind)
                result = torch.empty(plan.size, dtype=dtype, device=logits.device)
            strips[row % plan.kept, :, begin:begin + len(lefts)] = logits.permute(2, 0, 3, 1)
            progress(len(lefts))
        if row in plan.parts:
            begin, end, y_taps = plan.parts[row]
            result[begin:end] = windowed_argmax(
                strips.view(1, plan.kept * low[0], -1, strips.shape[-1]), y_taps, plan.x_taps,
                None if sums is None else sums[None, begin:end], impl=impl)[0]
    return result


class Plan(NamedTuple):
    """What becomes of the windows of an image, as tables on its device.

    Attributes:
        kept (int): Rows of windows whose logits exist at once, the one in row ``i`` at place ``i % kept``.
        size (tuple[int, int]): Height and width of the result.
        parts (dict[int, tuple[int, int, Taps]]): By row of windows those output rows, from and to, for which it is the
            last that they need, and their taps to the rows of logits that are kept.
        x_taps (Taps): To the logits of windows side by side.
    """
    kept: int
    size: tuple
    parts: dict
    x_taps: Taps


@functools.lru_cache(maxsize=16)    # sizes repeat, and a host that sends tables for each image waits for the device
def plan_of(window, tops, lefts, low, upsampled, align_corners, padding, flip, ori_shape, dtype, device):
    """The :class:`Plan` of an image; arguments as of :func:`predict_windows`, and ``low``, the size of a window's
    logits."""
    left, right, top, bottom = padding
    axes = ((tops, top, bottom, flip == 'vertical'), (lefts, left, right, flip == 'horizontal'))
    with torch.inference_mode(False):
        y_taps, x_taps = (
            Taps.of_windows(starts, window[i], low[i], upsampled[i], align_corners, dtype).then(
                before, after, flipped, ori_shape and ori_shape[i], align_corners)
            for i, (starts, before, after, flipped) in enumerate(axes))
        first, last = rows_of_windows(y_taps, low[0])
        kept = 1 + max(i - int(first[last == i].min()) for i in last.unique().tolist())
        parts = {}
        for row in last.unique().tolist():
            ready = (last == row).nonzero().flatten()
            begin, end = int(ready[0]), int(ready[-1]) + 1
            index, weight = y_taps.part(begin, end)
            parts[row] = begin, end, Taps(index // low[0] % kept * low[0] + index % low[0], weight).to(device)
        return Plan(kept, (len(first), len(x_taps.index)), parts, x_taps.to(device))


def rows_of_windows(taps, low):
    """Of each output row the first and the last row of windows that it needs."""
    counts, row = taps.weight != 0, taps.index // low
    return torch.where(counts, row, row.max()).amin(1), torch.where(counts, row, 0).amax(1)
