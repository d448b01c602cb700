"""Pictures of a source that no annotation file names: images that nobody labelled yet, or masks, which are none."""
import contextlib
from collections.abc import Container

import numpy as np

from ...errors import UserError, quantity
from .pairing import pair
from .palettes import packed
from .pictures import opened
from .samples import Sample
from .tree import Tree

# As many are looked at, and have so few colours where they are masks: photographs have thousands.
LOOKED_AT, MOST_COLORS, PIXELS = 8, 64, 100_000


def unlabelled_of(tree: Tree, labelled: Container[str], left_out: Container[str]) -> tuple[list[Sample], list[str]]:
    """Samples of the pictures that neither have labels nor are left out, and lines for the report.

    Masks of labelled images are none of them.

    Raises:
        UserError: Masks are among them, and images that these belong to: the source has labels of two kinds.
    """
    pictures = tree.pictures()
    rest = [image for image in pictures if image not in labelled and image not in left_out]
    masks = {}
    if rest:
        pairs = pair(pictures)
        masks = {mask: image for image, mask in pairs.masks.items() if mask and mask not in labelled}
        masks |= {mask: None for mask in pairs.others if mask not in labelled}
    if not masks or not look_like_masks(tree, sorted(masks)):
        return [Sample(tree.path(image), image, None, None) for image in rest], []
    own = {mask: image for mask, image in masks.items() if image in rest}
    if own:
        mask, image = min(own.items())
        raise UserError(
            f'{quantity(len(own), "picture looks like a mask", "pictures look like masks")} of images of {tree.root} '
            f'without shapes, such as {mask} of {image}, and other images have annotation files. Expected: labels of '
            'one kind in a source. Next: move the images with masks, and these, into a folder of their own, and give '
            'both folders: import A B --out DIR; or name what is to be read alone, as in --format index.')
    first = min(masks)
    return [Sample(tree.path(image), image, None, None) for image in rest if image not in masks], [
        f'{quantity(len(masks), "picture looks like a mask", "pictures look like masks")} of images that have shapes, '
        f'such as {first}: not imported']


def look_like_masks(tree: Tree, files: list[str]) -> bool:
    """Whether most of those that are looked at have few colours."""
    found = []
    for file in files[::max(1, len(files) // LOOKED_AT)]:
        with contextlib.suppress(ValueError), opened(tree.path(file)) as picture:
            colors = packed(np.asarray(picture.convert('RGB')))
            step = max(1, int((colors.size / PIXELS)**0.5))
            found.append(len(np.unique(colors[::step, ::step])) <= MOST_COLORS)
    return sum(found) > len(found) / 2
