"""The embedded data set on first use."""
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from PIL import Image

from inceptionnext_seg.data import datasets
from inceptionnext_seg.data.checks import check_samples
from inceptionnext_seg.data.datasets import MiniADE20KDataset
from inceptionnext_seg.data.mini import CLASSES_USED, make_mini_ade20k
from inceptionnext_seg.errors import UserError

PREFIX = dict(img_path='images/training', seg_map_path='annotations/training')


@pytest.fixture(scope='module')
def mini(tmp_path_factory):
    """A data set of three small scenes, made by building it; and how often scenes were drawn for a second one."""
    folder = tmp_path_factory.mktemp('mini') / 'data' / 'mini'
    init_default_scope('mmseg')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, 'make_mini_ade20k',
                      lambda root, *_, seed: make_mini_ade20k(root, num_train=3, num_val=1, size=(48, 64), seed=seed))
        yield [MiniADE20KDataset(data_root=str(folder), data_prefix=PREFIX, pipeline=pipeline) for _ in range(2)]


def test_the_embedded_data_set_is_made_on_first_use_and_kept(mini):
    assert [len(dataset) for dataset in mini] == [3, 3]
    assert mini[0].get_data_info(0)['img_path'] == mini[1].get_data_info(0)['img_path']


def test_scenes_of_another_seed_have_a_folder_of_their_own_and_are_others(mini, tmp_path):
    other = MiniADE20KDataset(data_root=str(tmp_path / 'mini'), data_prefix=PREFIX, seed=1)
    paths = [Path(dataset.get_data_info(0)['img_path']) for dataset in (mini[0], other)]
    assert paths[0].name == paths[1].name and paths[0].read_bytes() != paths[1].read_bytes()
    with pytest.raises(UserError, match='seed 0, expected 2'):
        MiniADE20KDataset(data_root=mini[0].data_root, data_prefix=PREFIX, seed=2)


def test_it_is_trained_on_the_classes_that_occur_numbered_from_zero(mini):
    classes = list(CLASSES_USED)
    assert list(mini[0].metainfo['classes']) == classes
    for i in range(3):
        sample = mini[0][i]
        with Image.open(sample['seg_map_path']) as file:
            numbers = np.asarray(file)
        expected = np.full(numbers.shape, 255)
        for index, name in enumerate(classes):
            expected[numbers == CLASSES_USED[name]] = index
        np.testing.assert_array_equal(sample['gt_seg_map'], expected)
        assert len(np.unique(expected)) > 3


def test_its_masks_hold_numbers_of_ade20k_and_pass_the_check(mini):
    check_samples(mini[0])


def test_only_one_process_makes_it_and_the_others_wait(mini, monkeypatch):
    calls = []
    monkeypatch.setattr(datasets, 'get_rank', lambda: 1)
    monkeypatch.setattr(datasets, 'barrier', lambda: calls.append('wait'))
    monkeypatch.setattr(datasets, 'make_mini_ade20k', lambda root: calls.append('made'))
    MiniADE20KDataset(data_root=mini[0].data_root, data_prefix=PREFIX)
    assert calls == ['wait']
