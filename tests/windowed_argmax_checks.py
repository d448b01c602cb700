"""Checks of class indices from windows, for whatever runs them: grids of windows, and mmseg's steps one after another.

:func:`check_triton` is small enough for Triton's interpreter, where ``upsampled_loss_checks.py`` runs it, too.
"""
import torch
import torch.nn.functional as F
from helpers import relative_error

from inceptionnext_seg.ops.windowed_argmax import Taps, windowed_argmax

# rows and columns of windows: their first positions; size of a window, of its logits, upsampled size
GRIDS = [
    (([0], [0]), (9, 14), (3, 5), (9, 14)),
    (([0, 6, 7], [0, 9]), (12, 13), (3, 4), (12, 13)),
    (([0, 4, 8, 12], [0]), (12, 10), (4, 1), (12, 16)),     # three windows at a pixel, logits of one column, padding
    (([0], [0, 5]), (8, 8), (8, 8), (8, 8))]
STEPS = [dict(), dict(ori_shape=(31, 17)), dict(padding=(1, 2, 3, 1), ori_shape=(11, 40)), dict(flip='horizontal'),
         dict(flip='vertical', padding=(0, 1, 2, 0), ori_shape=(7, 9))]
# Of check_triton: grid, steps.
SMALL = [(GRIDS[0], {}), (GRIDS[1], dict(flip='horizontal', ori_shape=(7, 9))), (GRIDS[2], dict(ori_shape=(5, 6)))]


def draw(grid, classes=19, images=2, dtype=torch.float64):
    """Logits of each window (rows, columns, B, C, h, w)."""
    (tops, lefts), _, low, _ = grid
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(tops), len(lefts), images, classes, *low, dtype=dtype, generator=generator)


def side_by_side(logits):
    """(B, rows · h, columns · w, C)."""
    return logits.permute(2, 0, 4, 1, 5, 3).flatten(3, 4).flatten(1, 2)


def taps(grid, align_corners=False, padding=(0, 0, 0, 0), flip=None, ori_shape=None, dtype=torch.float64):
    starts, window, low, upsampled = grid
    left, right, top, bottom = padding
    return [Taps.of_windows(starts[i], window[i], low[i], upsampled[i], align_corners, dtype).then(
        before, after, flip == direction, ori_shape and ori_shape[i], align_corners)
        for i, (before, after, direction) in enumerate([(top, bottom, 'vertical'), (left, right, 'horizontal')])]


def stock(grid, logits, align_corners=False, padding=(0, 0, 0, 0), flip=None, ori_shape=None):
    """Full logits (B, C, H, W) by mmseg's steps."""
    (tops, lefts), (height, width), _, upsampled = grid
    size = tops[-1] + height, lefts[-1] + width
    total, count = logits.new_zeros(*logits.shape[2:4], *size), logits.new_zeros(size)
    for i, y in enumerate(tops):
        for j, x in enumerate(lefts):
            window = F.interpolate(logits[i, j], upsampled, mode='bilinear', align_corners=align_corners)
            total[:, :, y:y + height, x:x + width] += window[:, :, :height, :width]
            count[y:y + height, x:x + width] += 1
    left, right, top, bottom = padding
    x = (total / count)[:, :, top:size[0] - bottom, left:size[1] - right]
    if flip:
        x = x.flip(3 if flip == 'horizontal' else 2)
    return x if ori_shape is None else F.interpolate(x, ori_shape, mode='bilinear', align_corners=align_corners)


def check_triton(device):
    """The Triton kernel against float64: indices but for ties to rounding, and probabilities that are added to sums."""
    for classes, (grid, steps) in zip((19, 150, 40), SMALL, strict=True):
        logits = draw(grid, classes, images=1, dtype=torch.float32)
        arguments = side_by_side(logits).to(device), *taps(grid, dtype=torch.float32, **steps)
        full = stock(grid, logits.double(), **steps)
        assert behind(full, windowed_argmax(*arguments, impl='triton')) < 1e-5
        before = torch.rand(full.permute(0, 2, 3, 1).shape, generator=torch.Generator().manual_seed(1))
        sums = before.to(device, copy=True)
        found, expected = windowed_argmax(*arguments, sums, impl='triton'), full.softmax(1) + before.permute(0, 3, 1, 2)
        assert relative_error(sums.cpu().permute(0, 3, 1, 2), expected) < 1e-5
        assert behind(expected, found) < 1e-5
    unknown = torch.tensor([0., float('nan'), 1.], device=device).expand(1, 9, 14, 3).contiguous()
    grid = ([0], [0]), (9, 14), (9, 14), (9, 14)
    assert (windowed_argmax(unknown, *taps(grid, dtype=torch.float32), impl='triton') == 1).all()


def behind(full, found):
    """How far the scores (B, C, H, W) of the classes that were found are behind the best, at most."""
    return (full.amax(1) - full.gather(1, found.cpu()[:, None])[:, 0]).max().item()
