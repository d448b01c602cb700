"""Rare classes: which images are shown more often, and what crops hold."""
import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset
from mmseg.datasets.transforms import RandomCrop
from PIL import Image

from inceptionnext_seg.data.balance import CountedSegDataset, RareClassCrop
from inceptionnext_seg.errors import SettingError, UserError


@pytest.fixture
def folder(tmp_path):
    """Ten images of class 0, the last with class 1 too, whose fourth pixel does not count."""
    for kind in ('images', 'annotations'):
        (tmp_path / kind).mkdir()
    for i in range(10):
        mask = np.zeros((8, 8), np.uint8)
        mask[0, :3], mask[0, 3] = int(i == 9), 255
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f'images/{i}.jpg')
        Image.fromarray(mask).save(tmp_path / f'annotations/{i}.png')
    return tmp_path


def dataset(folder, **settings):
    return CountedSegDataset(data_root=str(folder), metainfo=dict(classes=('a', 'b')), data_prefix=dict(
        img_path='images', seg_map_path='annotations'), **settings)


def test_an_image_with_a_class_that_few_have_is_repeated(folder):
    found = dataset(folder)
    assert [found.get_cat_ids(i) for i in range(10)] == [[0]] * 9 + [[0, 1]]
    # b is in a tenth of the images: sqrt(0.4 / 0.1) = 2; 0.1 is no threshold for it.
    assert ClassBalancedDataset(found, oversample_thr=0.4).repeat_indices == [*range(10), 9]
    assert ClassBalancedDataset(found, oversample_thr=0.1).repeat_indices == [*range(10)]


def test_a_class_number_is_the_one_that_training_sees(folder):
    assert dataset(folder, reduce_zero_label=True).get_cat_ids(9) == [0]
    (folder / 'annotations/3.png').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'3\.png'):
        dataset(folder).get_cat_ids(0)


def test_every_class_of_an_image_is_in_as_many_of_the_crops():
    np.random.seed(0)  # noqa: NPY002
    labels = np.zeros((60, 80), np.uint8)
    labels[57:59, 70:72], labels[:3] = 1, 255
    image = np.repeat(labels[..., None], 3, -1)
    results = dict(img=image, gt_seg_map=labels, seg_fields=['gt_seg_map'])
    always, never = (RareClassCrop(16, prob=prob) for prob in (1, 0))
    crops = [always.transform(dict(results)) for _ in range(300)]
    assert {crop['img'].shape for crop in crops} == {(16, 16, 3)}
    assert all((crop['img'][..., 0] == crop['gt_seg_map']).all() for crop in crops)
    assert 0.4 < np.mean([(crop['gt_seg_map'] == 1).any() for crop in crops]) < 0.75
    assert np.mean([(never.transform(dict(results))['gt_seg_map'] == 1).any() for _ in range(300)]) < 0.2


@pytest.mark.parametrize('cat_max_ratio', [0.6, 1.])
def test_without_a_class_to_look_for_the_crops_are_those_of_mmsegmentation(cat_max_ratio):
    labels = np.random.default_rng(0).integers(0, 9, (5, 6)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    labels[labels > 3], labels[labels == 3] = 2, 255
    for seed in range(40):
        boxes = []
        for crop in (RandomCrop((12, 16), cat_max_ratio), RareClassCrop((12, 16), cat_max_ratio, prob=0)):
            np.random.seed(seed)  # noqa: NPY002
            boxes.append(tuple(map(int, crop.crop_bbox(dict(img=labels, gt_seg_map=labels)))))
        assert boxes[0] == boxes[1]


def test_a_crop_that_is_larger_than_the_image_is_the_image():
    labels = np.full((10, 30), 255, np.uint8)
    labels[4, 5] = 3
    results = dict(img=np.zeros((10, 30, 3), np.uint8), gt_seg_map=labels, seg_fields=['gt_seg_map'])
    found = RareClassCrop((16, 16), prob=1).transform(results)
    assert found['gt_seg_map'].shape == (10, 16) and (found['gt_seg_map'] == 3).sum() == 1
    with pytest.raises(SettingError, match='prob'):
        RareClassCrop(16, prob=2)
