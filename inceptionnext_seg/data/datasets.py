"""The embedded data set. Importing this module registers it, the hook that checks images and masks, and their loading,
for configs to name.

Folders of images and masks, such as CamVid's, need no class: a config names mmseg's ``BaseSegDataset``.
"""
from . import _mmseg as _mmseg  # isort: skip  (first: an old mmseg is one clear message)
from mmengine.dist import barrier, get_rank
from mmseg.datasets import ADE20KDataset
from mmseg.registry import DATASETS

from .balance import CountedSegDataset, RareClassCrop
from .checks import DataCheckHook
from .loading import LoadAnnotations, LoadImageFromFile
from .mini import CLASSES_USED, make_mini_ade20k

__all__ = [
    'CountedSegDataset', 'DataCheckHook', 'LoadAnnotations', 'LoadImageFromFile', 'MiniADE20KDataset', 'RareClassCrop'
]


@DATASETS.register_module()
class MiniADE20KDataset(ADE20KDataset):
    """The embedded data set: drawn scenes in ADE20K's layout and class numbering, made on first use.

    Files hold ADE20K's numbers (0 unlabelled, 1 to 150); training sees the classes that occur, 0 to ``N - 1``.

    Args:
        data_root (str): Where the scenes are, or are drawn.
        num_train, num_val (int): Scenes of both splits; the same for all data sets in one folder.
        seed (int): Sets of different seeds have no scene in common; the same for all data sets in one folder.
    """

    def __init__(self, data_root, num_train=320, num_val=64, seed=0, **settings):
        if get_rank() == 0:
            make_mini_ade20k(data_root, num_train, num_val, seed=seed)
        barrier()
        settings.setdefault('metainfo', dict(classes=tuple(CLASSES_USED)))
        super().__init__(data_root=data_root, img_suffix='.png', **settings)
