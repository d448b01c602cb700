"""Class maps as files that labelling programs open: Labelme's polygons and COCO's run lengths.

Both come back through :mod:`.importing` as the same class map, pixel for pixel, as long as nothing was left out
(``least_area``) or made straight (``tolerance``).
"""
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np

from .importing.shapes import compressed

LABELME_VERSION = '5.5.0'


def regions(classes: np.ndarray, least_area: int = 0, tolerance: float = 0.) -> list[tuple[int, np.ndarray]]:
    """Connected regions of a class map as outlines without holes, the largest first.

    Drawn in this order, each filled to its outline, they are the class map again: what lies in a hole is smaller, and
    drawn later. Two pixels that touch at a corner are not connected, so that nothing lies in a hole that is not closed.

    Args:
        classes (np.ndarray): (H, W), class indices.
        least_area (int): Outlines that enclose fewer pixels are left out, and what is around them covers their place.
        tolerance (float): How far a simplified outline may be from the exact one, in pixels.

    Returns:
        list[tuple[int, np.ndarray]]: Class index, and (N, 2) x and y of the middles of pixels.
    """
    found = []
    for index in np.unique(classes).tolist():
        count, labels, boxes, _ = cv2.connectedComponentsWithStats((classes == index).astype(np.uint8), connectivity=4)
        for i in range(1, count):
            left, top, width, height = boxes[i, :4].tolist()
            part = (labels[top:top + height, left:left + width] == i).astype(np.uint8)
            outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            # Pixels that touch the rest at a corner alone are of another component, so that one outline is left.
            outline = max(outlines, key=len)
            inside = np.zeros_like(part)
            cv2.fillPoly(inside, [outline], 1)
            area = int(inside.sum())
            if area < least_area:
                continue
            if tolerance:
                outline = cv2.approxPolyDP(outline, tolerance, True)
            found.append((area, index, outline[:, 0] + (left, top)))
    found.sort(key=lambda item: -item[0])
    return [(index, outline) for _, index, outline in found]


def labelme_of(classes: np.ndarray, names: tuple[str, ...], image: str, least_area: int = 0,
               tolerance: float = 0.) -> dict[str, Any]:
    """A Labelme file of a class map; a polygon has at least three points, so that a single pixel has one thrice.

    Args:
        image (str): The path of the image as the file gives it, from its own folder.
    """
    height, width = classes.shape
    shapes = []
    for index, outline in regions(classes, least_area, tolerance):
        points = outline.astype(float).tolist()
        points += [points[-1]] * (3 - len(points))
        shapes.append(dict(label=names[index], points=points, group_id=None, description='', shape_type='polygon',
                           flags={}, mask=None))
    return dict(version=LABELME_VERSION, flags={}, shapes=shapes, imagePath=image, imageData=None, imageHeight=height,
                imageWidth=width)


def coco_categories(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [dict(id=i, name=name, supercategory='') for i, name in enumerate(names, 1)]


def coco_of(
    classes: np.ndarray, names: tuple[str, ...], image: str, image_id: int = 1, first_id: int = 1
) -> dict[str, Any]:
    """A COCO file of a class map: for each class in it a mask, as run lengths, which COCO marks with ``iscrowd``."""
    height, width = classes.shape
    annotations = []
    for index in np.unique(classes).tolist():
        mask = classes == index
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        annotations.append(dict(
            id=first_id + len(annotations), image_id=image_id, category_id=index + 1, iscrowd=1, area=int(mask.sum()),
            bbox=[int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)],
            segmentation=dict(size=[height, width], counts=compressed(mask))))
    return dict(images=[dict(id=image_id, file_name=PurePosixPath(image).as_posix(), width=width, height=height)],
                annotations=annotations, categories=coco_categories(names))
