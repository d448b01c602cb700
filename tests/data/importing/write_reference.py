"""What pycocotools and labelme make of random shapes, written to reference.json: python write_reference.py

Run in an environment with both, and without this package; they are no dependencies of it. `pip install pycocotools
numpy pillow`, `pip install --no-deps labelme`. With a path as argument it writes there (tests do, to compare with what
is
installed: INCEPTIONNEXT_SEG_COCO_PYTHON names the Python of such an environment).
"""
import importlib.metadata
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
from pycocotools import mask as coco


def labelmes_shapes():
    """labelme's ``shape_to_mask`` alone: the package imports its window."""
    for name in ('labelme', 'labelme._label_file'):
        sys.modules[name] = types.ModuleType(name)
    sys.modules['labelme._label_file'].ShapeDict = dict
    path = Path(importlib.metadata.distribution('labelme').locate_file('labelme/utils/shape.py'))
    spec = importlib.util.spec_from_file_location('shape', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def encode(mask):
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=code['size'], counts=code['counts'].decode())


def main(out):
    random = np.random.default_rng(0)
    cases = dict(
        versions=dict(pycocotools=importlib.metadata.version('pycocotools')), polygons=[], masks=[], labelme=[]
    )
    for i in range(60):
        height, width = random.integers(5, 60, 2).tolist()
        count = int(random.integers(3, 9))
        points = random.uniform(-0.3, 1.3, (count, 2)) * (width, height)
        if i % 3 == 0:
            points = points.round()
        if i % 5 == 0:
            points = np.concatenate((points, points[-1:]))      # a point twice
        flat = points.round(2).ravel().tolist()
        code = coco.frPyObjects([flat], height, width)[0]
        cases['polygons'].append(dict(points=flat, size=[height, width], counts=code['counts'].decode()))
    for i in range(30):
        height, width = random.integers(1, 50, 2).tolist()
        mask = random.random((height, width)) < (0, 0.02, 0.5, 0.98, 1)[i % 5]
        if i % 5 == 2:
            mask = np.kron(random.random((height // 9 + 1, width // 7 + 1)) < 0.4, np.ones((9, 7))) > 0     # long runs
        code = encode(mask)
        cases['masks'].append(dict(**code, pixels=np.packbits(mask).tobytes().hex()))
    try:
        shape_to_mask = labelmes_shapes().shape_to_mask
        cases['versions']['labelme'] = importlib.metadata.version('labelme')
    except importlib.metadata.PackageNotFoundError:
        shape_to_mask = None
    kinds = dict(polygon=None, rectangle=2, circle=2, line=2, linestrip=None, point=1, oriented_rectangle=4)
    for i in range(42 if shape_to_mask else 0):
        kind = list(kinds)[i % len(kinds)]
        height, width = random.integers(20, 60, 2).tolist()
        count = kinds[kind] or int(random.integers(3, 8))
        points = (random.uniform(-0.1, 1.1, (count, 2)) * (width, height)).round(2).tolist()
        mask = shape_to_mask((height, width), points, kind)
        cases['labelme'].append(dict(kind=kind, points=points, **encode(mask)))
    Path(out).write_text(json.dumps(cases, separators=(',', ':')))


if __name__ == '__main__':
    main(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name('reference.json'))
