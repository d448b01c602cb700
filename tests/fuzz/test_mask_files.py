"""Random images and masks, good and damaged, through the check before training."""
import io
import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from mmseg.datasets import BaseSegDataset
from PIL import Image

from inceptionnext_seg.data import checks
from inceptionnext_seg.errors import UserError

from .running import fuzzed

CLASSES = 5
NUMBERS = itertools.count()
check_samples = getattr(checks, 'check_samples', None) or checks.check_masks


def encoded(pixels, mode, format):
    image = Image.fromarray(pixels)
    if mode == 'P':
        image.putpalette(bytes(range(256)) * 3)
    elif mode == '1':
        image = Image.fromarray(pixels > 0)
    elif mode != 'L':
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, format)
    return out.getvalue()


def flipped(content, number):
    place = number // 8 % len(content)
    return content[:place] + bytes([content[place] ^ 1 << number % 8]) + content[place + 1:]


@pytest.fixture(scope='module')
def new_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('masks')

    def make(image, mask):
        folder = root / str(next(NUMBERS))
        for name, content in (('images/a.png', image), ('masks/a.png', mask)):
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_bytes(content)
        return BaseSegDataset(
            data_root=str(folder), data_prefix=dict(img_path='images', seg_map_path='masks'), img_suffix='.png',
            metainfo=dict(classes=tuple('abcde'), palette=[[0, 0, 0]] * CLASSES), pipeline=[], serialize_data=False)
    return make


def verdict(dataset):
    """The message, or None where the data pass."""
    try:
        check_samples(dataset, progress=False)
    except UserError as error:
        return str(error)
    return None


@fuzzed(short=25, share=0.03, size=st.tuples(st.integers(4, 9), st.integers(4, 9)), grown=st.integers(0, 5),
        values=st.lists(st.sampled_from([0, 1, 4, 255, 5, 77]), min_size=1, max_size=3),
        mode=st.sampled_from(['L', 'L', 'P', '1', 'RGB', 'LA', 'I;16']),
        format=st.sampled_from(['PNG', 'PNG', 'TIFF']), seed=st.integers(0, 99))
def test_a_mask_passes_just_where_it_has_one_channel_its_images_size_and_classes_alone(
        new_folder, size, grown, values, mode, format, seed):
    mask = np.random.default_rng(seed).choice(np.array(values, np.uint8), size)
    image = encoded(np.zeros((size[0] + (grown == 1), size[1]), np.uint8), 'RGB', 'PNG')
    found = verdict(new_folder(image, encoded(mask, mode, format)))
    if mode == '1':
        mask = mask > 0
    good = mode in 'LP1' and grown != 1 and set(np.unique(mask).tolist()) <= {*range(CLASSES), 255}
    assert (found is None) == good, found
    assert good or 'a.png' in found


@fuzzed(short=40, share=0.06, which=st.sampled_from(['image', 'mask']), mode=st.sampled_from(['L', 'P', 'RGB']),
        format=st.sampled_from(['PNG', 'JPEG', 'BMP', 'TIFF', 'GIF', 'WEBP', 'PPM']), cut=st.integers(0, 10**6),
        flips=st.lists(st.integers(0, 10**6), max_size=4))
def test_a_damaged_file_passes_or_is_named(new_folder, which, mode, format, cut, flips):
    good = encoded(np.ones((6, 7), np.uint8), 'RGB' if which == 'mask' else 'L', 'PNG')
    if format in ('JPEG', 'WEBP', 'PPM') and mode == 'P':
        mode = 'L'
    damaged = encoded(np.ones((6, 7), np.uint8), mode, format)
    for number in flips:
        damaged = flipped(damaged, number)
    if not flips or cut % 2:
        damaged = damaged[:cut % len(damaged)]
    found = verdict(new_folder(damaged, good) if which == 'image' else new_folder(good, damaged))
    assert found is None or 'a.png' in found
