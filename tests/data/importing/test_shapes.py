"""Polygons and run lengths, bit for bit those of pycocotools and labelme (reference.json, of write_reference.py)."""
import json
import os
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from inceptionnext_seg.data.importing import shapes
from inceptionnext_seg.data.importing.labelme import draw
from inceptionnext_seg.data.importing.shapes import coco_rle_mask, compressed, polygon_mask, runs_of

HERE = Path(__file__).parent


@pytest.fixture(scope='module', params=['recorded', 'installed'])
def reference(request, tmp_path_factory):
    if request.param == 'recorded':
        return json.loads((HERE / 'reference.json').read_text())
    python = os.environ.get('INCEPTIONNEXT_SEG_COCO_PYTHON')
    if not python:
        pytest.skip('INCEPTIONNEXT_SEG_COCO_PYTHON names no Python with pycocotools and labelme')
    out = tmp_path_factory.mktemp('reference') / 'now.json'
    subprocess.run([python, HERE / 'write_reference.py', out], check=True, env={})
    return json.loads(out.read_text())


def test_a_polygon_covers_the_pixels_that_pycocotools_says(reference):
    for case in reference['polygons']:
        expected = coco_rle_mask(case['counts'], *case['size'])
        found = polygon_mask(np.reshape(case['points'], (-1, 2)), *case['size'])
        np.testing.assert_array_equal(found, expected, err_msg=str(case))
    assert sum(coco_rle_mask(case['counts'], *case['size']).any() for case in reference['polygons']) > 50


def test_an_outline_is_traced_in_parts_of_bounded_memory(monkeypatch):
    recorded = json.loads((HERE / 'reference.json').read_text())
    monkeypatch.setattr(shapes, 'TRACED_AT_ONCE', 37)
    for case in recorded['polygons'][::5]:
        found = polygon_mask(np.reshape(case['points'], (-1, 2)), *case['size'])
        np.testing.assert_array_equal(found, coco_rle_mask(case['counts'], *case['size']), err_msg=str(case))
    monkeypatch.undo()
    zigzag = [[(-1)**i * 16 * 100, i * 37 % 100] for i in range(100)]
    tracemalloc.start()
    assert polygon_mask(zigzag, 100, 100).any()
    assert tracemalloc.get_traced_memory()[1] < 64e6
    tracemalloc.stop()
    with pytest.raises(ValueError, match='outline of'):
        polygon_mask([[(-1)**i * 16 * 600, i * 37 % 48] for i in range(300)], 600, 800)


def test_run_lengths_are_decoded_and_encoded_as_pycocotools_does(reference):
    for case in reference['masks']:
        height, width = case['size']
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(case['pixels']), np.uint8), count=height * width)
        mask = bits.astype(bool).reshape(height, width)
        np.testing.assert_array_equal(coco_rle_mask(case['counts'], height, width), mask)
        assert compressed(mask) == case['counts']
        assert (coco_rle_mask(runs_of(case['counts'], height * width).tolist(), height, width) == mask).all()


def test_every_shape_of_labelme_covers_the_pixels_that_labelme_says(reference):
    kinds = set()
    for case in reference['labelme']:
        found = np.full(case['size'], -1, np.int32)
        draw(dict(shape_type=case['kind'], points=case['points']), found, 3)
        np.testing.assert_array_equal(found == 3, coco_rle_mask(case['counts'], *case['size']), err_msg=str(case))
        kinds.add(case['kind'])
    assert len(kinds) == 7 or not reference['labelme']


@pytest.mark.parametrize(('code', 'message'), [
    ('', '0 pixels; its image has 12'), ('0', 'of 0 pixels'), ('\x07', 'damaged'), ('oooooooooooo', 'damaged'),
    ('o', 'cut'), ([5, 5], '10 pixels'), ([-1, 13], 'no list of counts'), ([12.0], 'no list'), ('é1', 'damaged'),
    ([2**70], 'no list of counts'), (None, 'no list'), ([10**9], 'no list of counts'), ('PPPP11', 'pixels')])
def test_run_lengths_that_are_damaged_are_refused_before_anything_of_their_size_is_made(code, message):
    with pytest.raises(ValueError, match=message):
        coco_rle_mask(code, 3, 4)


@pytest.mark.parametrize('points', [[[1, 2], [3, 4]], [[1, 2, 3]] * 4, [[0, 0], [1, 1], [float('nan'), 0]], 'abc',
                                    [[0, 0], [1e9, 0], [0, 1e9]], [['x', 'y']] * 3, None,
                                    [[10**400, 0], [1, 1], [0, 1]]])
def test_a_polygon_that_is_none_is_refused(points):
    with pytest.raises(ValueError, match=r'polygon|points'):
        polygon_mask(points, 10, 10)
