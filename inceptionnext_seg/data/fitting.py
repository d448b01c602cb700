"""What of a recipe depends on the images: size, crop, batch and the weights of classes.

``tools/train.py --data DIR`` puts them into a config (:mod:`..engine.own_data`), and an import writes them into one.
"""
import math
import statistics

# Images above it are made smaller before they are cropped, and before they are validated.
LONGEST_SIDE = 1024
# 256 pixels are eight of the deepest map's; its pixels for 8 images are the work of an iteration.
LARGEST_CROP, LEAST_CROP, BATCH = 256, 64, 8
BATCHES = (4, 16)
# A class with a smaller share of the labelled pixels has the classes weighted, by at most so much.
RARE, LARGEST_WEIGHT = 0.01, 3.


def fit_size(median_size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """The size to resize to, (width, height), and the side of the crop, for images of a median size.

    The crop is the largest multiple of 32, the stride of the deepest map, that fits into the shorter side, from 64 to
    256: on a CPU twice the side is a quarter of the images/s.
    """
    factor = min(1., LONGEST_SIDE / max(median_size))
    scale = tuple(max(32, round(side * factor)) for side in median_size)
    return scale, max(LEAST_CROP, min(LARGEST_CROP, min(scale) // 32 * 32))


def fit_batch(crop: int, images: int) -> int:
    """Images of an iteration: the pixels of 8 crops of 256, from 4 to 16, and not more than there are, but for 4."""
    return max(BATCHES[0], min(BATCHES[1], BATCH * LARGEST_CROP**2 // crop**2, images))


def class_weights(pixels: list[int]) -> list[float] | None:
    """Weights of the loss from the pixels of each class; None where no class has less than 1 % of them.

    The square root of median frequency balancing (Eigen and Fergus, arXiv:1411.4734, used by SegNet), from 1/3 to 3:
    balancing in full trades the IoU of frequent classes for the recall of rare ones, which have crops of their own
    already. A class without a pixel has 1.
    """
    seen = [count for count in pixels if count]
    if not seen or min(seen) >= RARE * sum(seen):
        return None
    median = statistics.median(seen)
    return [round(min(LARGEST_WEIGHT, max(1 / LARGEST_WEIGHT, math.sqrt(median / count))), 3) if count else 1.
            for count in pixels]
