"""Opens a Labelme file in labelme itself, adds a box, and saves it: python edit_in_labelme.py FILE OUT.json

Run with the Python that INCEPTIONNEXT_SEG_COCO_PYTHON names. OUT.json has what labelme itself makes of the shapes:
class numbers by pixel, 0 where no shape is, and the number of each name.
"""
import json
import sys
from pathlib import Path

import numpy as np
from labelme._label_file import LabelFile
from labelme.utils import shapes_to_label


def main(path, out):
    file, size = LabelFile(path), json.loads(Path(path).read_text(encoding='utf-8'))
    box = dict(label='bike', points=[[1, 1], [4, 3]], shape_type='rectangle', group_id=None, flags={}, description='',
               mask=None, other_data={})
    shapes = [*file.shapes, box]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(shape['label'] for shape in shapes), 1)}
    pixels = shapes_to_label((size['imageHeight'], size['imageWidth']), shapes, numbers)[0]
    # As its window does: masks as their own kind of text, unknown keys of a file kept.
    saved = json.loads(Path(path).read_text(encoding='utf-8'))['shapes'] + [
        {key: value for key, value in box.items() if key not in ('mask', 'other_data')}]
    file.save(path, saved, file.image_path, size['imageHeight'], size['imageWidth'], None, file.other_data, file.flags)
    Path(out).write_text(json.dumps(dict(numbers=numbers, pixels=np.asarray(pixels).tolist())))


if __name__ == '__main__':
    main(*sys.argv[1:])
