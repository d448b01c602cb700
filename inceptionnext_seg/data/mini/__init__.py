"""Mini-ADE20K: procedurally drawn street, landscape and room scenes in ADE20K's layout and class numbering.

The set needs no download, and every pixel is the same on every machine: the drawing is integer arithmetic only (no
``sin``, no rasterizer of a drawing library), and the randomness is PCG64's raw 64-bit words, whose stream NumPy
guarantees (NEP 19), while the streams of ``Generator`` methods may change from one NumPy version to the next.

The scenes are made so that colour alone does not tell the class: road, sidewalk, facades, walls, ceilings and
mountains share their greys, trees and grass their greens, and water mirrors the sky. A perspective camera makes a near
person a hundred times larger in area than a far one. World coordinates are millimetres: ``x`` to the right of the
street's middle, ``z`` ahead of the camera, heights above the ground.

In reading order: ``classes``, ``random`` and ``camera``; ``surroundings``, ``buildings`` and ``objects``, which are
drawn with them; the ``scenes`` that are put together from these; and the ``dataset`` on disk.
"""
from .classes import CLASSES_USED
from .dataset import make_mini_ade20k, read_manifest
from .scenes import draw_scene

__all__ = ['CLASSES_USED', 'draw_scene', 'make_mini_ade20k', 'read_manifest']
