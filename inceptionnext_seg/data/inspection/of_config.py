"""The data sets of a config, for the check: whatever MMSegmentation can build."""
from .. import _mmseg as _mmseg  # isort: skip  (first: an old mmseg is one clear message)
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from ...errors import UserError
from ..checks import check_folders, expectation_of, parts_of
from .listing import Item, Listing, padded

LOADERS = dict(train_dataloader='training', val_dataloader='validation', test_dataloader='test')


def list_config(cfg: Config, name: str) -> Listing:
    """The images of a config's data sets; a test set that is the validation set is taken once.

    Raises:
        UserError: There is none, its folders are missing, or it has no classes.
    """
    loaders = [loader for loader in LOADERS if cfg.get(loader)]
    check_folders(cfg, loaders)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    items, seen, first = [], set(), None
    for loader in loaders:
        for dataset in parts_of(DATASETS.build(cfg[loader].dataset)):
            first = first or dataset
            for i in range(len(dataset)):
                sample = dataset.get_data_info(i)
                image, mask = sample['img_path'], sample.get('seg_map_path')
                split = LOADERS[loader]
                if split == 'test' and image in seen:
                    continue
                seen.add(image)
                items.append(Item(Path(image), Path(mask) if mask else None, split))
    if first is None or not items:
        raise UserError(f'{name} has no data set with images. Expected: train_dataloader.dataset, as in '
                        'configs/_base_/camvid.py.')
    expected = expectation_of(first)
    about = first.metainfo
    return Listing(
        name,
        items,
        tuple(about['classes']),
        padded(about.get('palette') or []),
        int(first.reduce_zero_label),
        expected,
        [],
    )
