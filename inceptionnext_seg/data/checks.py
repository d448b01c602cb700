"""Checks of a data set before training: its folders, its classes, and every mask."""
from . import _mmseg as _mmseg  # isort: skip  (first: an old mmseg is one clear message)
import logging
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from mmengine.dist import broadcast_object_list, get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from PIL import Image
from tqdm import tqdm

from ..errors import UserError
from .draws import plain_dataset
from .exif import why_unfit

EMBEDDED = 'python tools/train.py configs/upernet_inceptionnext_a_mini.py'
PICTURES = {'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'}


def check_folders(cfg, loaders):
    """Look for the folders of the data sets that a run needs, before anything is built.

    Args:
        cfg (Config): With mmengine's dataloaders.
        loaders (Sequence[str]): Such as ``('train_dataloader', 'val_dataloader')``.

    Raises:
        UserError: A folder is missing; names it, the command that prepares it, and the embedded config. Or a folder
            holds no image.
    """
    for loader in loaders:
        dataset = (cfg.get(loader) or {}).get('dataset') or {}
        parts = {f'{loader}.dataset': dataset}
        if 'datasets' in dataset:  # ConcatDataset
            parts = {f'{loader}.dataset.datasets.{i}': part for i, part in enumerate(dataset.datasets)}
        options = ' '.join(f'{key}.data_root=PATH' for key in parts)
        for part in parts.values():
            if part and part.type != 'MiniADE20KDataset':
                check_folders_of(part, loader, options)


def check_folders_of(dataset, loader, options):
    """Look for the folders of one data set; ``options`` are those of the command line that name another place."""
    for kind, folder in dataset.get('data_prefix', {}).items():
        path = Path(dataset.get('data_root') or '') / (folder or '')
        if path.is_dir():
            if kind == 'img_path':
                check_images(path, dataset)
            continue
        prepare = ('python tools/prepare_ade20k.py --download' if dataset.type == 'ADE20KDataset' else
                   f'put or link the data there (ln -s /path/to/your/data {dataset.get("data_root")})')
        raise UserError(f'data not found: {loader} looked for the folder {path} (from {Path.cwd()}).\n'
                        f'  To prepare it:            {prepare}\n'
                        f'  To use another place:     --cfg-options {options}\n'
                        f'  To try without any data:  {EMBEDDED}')


def check_images(path, dataset):
    """An image folder without an image fails in mmengine with a message about arrays."""
    default = '.jpg' if dataset.type in ('BaseSegDataset', 'ADE20KDataset') else ''
    suffix = dataset.get('img_suffix', default)
    if next(path.rglob(f'*{suffix}'), None) is None:
        raise UserError(f'no image with the suffix {suffix!r} in {path}. Expected: at least one. Next: check '
                        'data_root, data_prefix and img_suffix of the data set in the config.')


def check_classes(dataset, model):
    """Compare the classes of the data with those of the heads.

    Raises:
        UserError: A head predicts fewer or more classes than the data set has.
    """
    classes, kind = len(dataset.metainfo['classes']), type(plain_dataset(dataset)).__name__
    for name in ('decode_head', 'auxiliary_head'):
        found = getattr(getattr(model, name, None), 'num_classes', classes)
        if found != classes:
            raise UserError(f'model.{name}.num_classes is {found}, but the data set ({kind}) has '
                            f'{classes} classes. Next: --cfg-options model.{name}.num_classes={classes}.')


def check_masks(dataset, progress=True):
    """Look at every mask of a ``BaseSegDataset``: present, one channel, its image's size, only classes and ignore.

    Raises:
        UserError: Names the bad files (the first ten, and how many more) with the values found and expected.
    """
    known = type(dataset).METAINFO.get('classes') or dataset.metainfo['classes']
    first, last = (1, len(known)) if dataset.reduce_zero_label else (0, len(known) - 1)
    allowed = np.zeros(256, bool)
    allowed[first:last + 1] = True
    ignored = sorted({dataset.ignore_index} | ({0} if dataset.reduce_zero_label else set()))
    allowed[ignored] = True
    expected = f'{first} to {last}, or {" or ".join(map(str, ignored))} for pixels that do not count'
    samples = [dataset.get_data_info(i) for i in range(len(dataset))]
    with ThreadPool(4) as pool:
        found = pool.imap(lambda sample: check_mask(sample, allowed, expected), samples)
        problems = [problem for problem in tqdm(
            found, total=len(samples), desc='checking masks', unit='file', disable=not progress) if problem]
    if problems:
        more = f'\n  and {len(problems) - 10} more' if len(problems) > 10 else ''
        shown = '\n  '.join(problems[:10])
        raise UserError(f'{len(problems)} of {len(samples)} masks cannot be used:\n  {shown}{more}\n'
                        'Next: correct these files, or the `classes` of the config.')


def check_mask(sample, allowed, expected):
    """None, or what is wrong with one sample's mask: a missing file, channels, a size, or a value that is no class."""
    path = Path(sample['seg_map_path'])
    if not path.is_file():
        return f'{path}: no such mask, for the image {sample["img_path"]}'
    try:
        with Image.open(path) as file, Image.open(sample['img_path']) as image:
            mask = np.asarray(file)
            unfit = why_unfit(image, file)
    except OSError as error:
        return f'{path}: cannot be read with its image {sample["img_path"]} ({error})'
    if mask.ndim != 2 or mask.dtype not in (np.uint8, bool):
        return f'{path}: has shape {mask.shape} and type {mask.dtype}; expected: one channel of 8-bit class indices'
    if unfit:
        return f'{path}: {unfit}'
    values = np.flatnonzero(np.bincount(mask.ravel().astype(np.uint8), minlength=256))
    wrong = values[~allowed[values]]
    if len(wrong):
        return f'{path}: has the value{"s" * (len(wrong) > 1)} {", ".join(map(str, wrong))}; expected: {expected}'
    return None


def ignored_files(dataset):
    """Lines about the pictures in the folders of a ``BaseSegDataset`` that it does not use; none where a list of its
    files chooses among them."""
    if dataset.ann_file and Path(dataset.ann_file).is_file():
        return []
    samples = [dataset.get_data_info(i) for i in range(len(dataset))]
    used = {Path(sample[key]).absolute() for sample in samples for key in ('img_path', 'seg_map_path')}

    def unused(kind):
        folder = Path(dataset.data_prefix.get(kind) or '.')
        return sorted(path for path in folder.rglob('*') if path.suffix.lower() in PICTURES and path.absolute() not in
                      used and not any(part.startswith('.') for part in path.relative_to(folder).parts))

    masks = [path for path in unused('seg_map_path') if path.name.endswith(dataset.seg_map_suffix)]
    images = [path for path in unused('img_path') if path not in masks]
    lines = []
    for files, what in ((images, f'images are not used, since their names do not end in {dataset.img_suffix!r}'),
                        (masks, 'masks are not used, since they have no image')):
        if files:
            shown = ', '.join(map(str, files[:5])) + (f' and {len(files) - 5} more' if len(files) > 5 else '')
            lines.append(f'{len(files)} {what}: {shown}. {len(samples)} are used.')
    return lines


@HOOKS.register_module()
class MaskCheckHook(Hook):
    """Checks every mask with :func:`check_masks` before the first iteration, in one process for all, and says what is
    not used."""

    def check(self, *loaders):
        problem = [None]
        if get_rank() == 0:
            try:
                for loader in loaders:
                    dataset = plain_dataset(loader.dataset)
                    for line in ignored_files(dataset):
                        print_log(line, 'current', logging.WARNING)
                    check_masks(dataset)
            except UserError as error:
                problem = [str(error)]
        broadcast_object_list(problem)
        if problem[0]:
            raise UserError(problem[0])

    def before_train(self, runner):
        self.check(runner.train_dataloader, *([runner.val_dataloader] if runner.val_loop else []))

    def before_test(self, runner):
        self.check(runner.test_dataloader)
