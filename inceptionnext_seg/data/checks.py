"""Checks of a data set before training: its folders, its classes, and every image and mask."""
from . import _mmseg as _mmseg  # isort: skip  (first: an old mmseg is one clear message)
import logging
import os
from multiprocessing.pool import ThreadPool
from pathlib import Path

from mmengine.dist import all_gather_object, broadcast_object_list, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmseg.datasets import BaseSegDataset
from tqdm import tqdm

from ..errors import UserError
from ..models.metanext import MetaNeXt
from .checked import digest_of, path_for, read_checked, write_checked
from .decoding import LEAST_SIDE, Expectation, check_sample, most_pixels, resizing_of
from .draws import plain_dataset
from .importing.tree import PICTURES
from .threads import any_size, threads

EMBEDDED = 'python tools/train.py configs/upernet_inceptionnext_a_mini.py'


def datasets_of(loader):
    """``(path, config)`` of the data sets of a dataloader's config that read files: inside wrappers, each part."""
    dataset = (loader or {}).get('dataset')
    pending = [('dataset', dataset)] if isinstance(dataset, dict) else []
    while pending:
        path, dataset = pending.pop(0)
        if isinstance(dataset.get('dataset'), dict):
            pending.append((f'{path}.dataset', dataset['dataset']))
        elif isinstance(dataset.get('datasets'), list | tuple):
            pending += [(f'{path}.datasets.{i}', part) for i, part in enumerate(dataset['datasets'])
                        if isinstance(part, dict)]
        else:
            yield path, dataset


def check_folders(cfg, loaders):
    """Look for the folders of the data sets that a run needs, before anything is built.

    Args:
        cfg (Config): With mmengine's dataloaders.
        loaders (Sequence[str]): Such as ``('train_dataloader', 'val_dataloader')``.

    Raises:
        UserError: A folder is missing; names it, the command that prepares it, and the embedded config. Or a folder
            holds no image, or files that cannot be reached.
    """
    for loader in loaders:
        parts = dict(datasets_of(cfg.get(loader)))
        for part in parts.values():
            if part.get('type') != 'MiniADE20KDataset':
                check_folders_of(part, loader, [f'{loader}.{key}.data_root=PATH' for key in parts])


def check_folders_of(dataset, loader, options):
    """Look for the folders of one data set; ``options`` are those of the command line that name another place."""
    for kind, folder in (dataset.get('data_prefix') or {}).items():
        path = Path(dataset.get('data_root') or '') / (folder or '')
        problem = why_no_folder(path)
        if problem is None:
            if kind == 'img_path':
                check_images(path, dataset)
            continue
        prepare = ('python tools/prepare_ade20k.py --download' if dataset.get('type') == 'ADE20KDataset' else
                   f'put or link the data there (ln -s /path/to/your/data {dataset.get("data_root")})')
        raise UserError(f'data not found: {loader} looked for the folder {path}{problem} (from {Path.cwd()}).\n'
                        f'  To prepare it:            {prepare}\n'
                        f'  To use another place:     --data-root PATH, or --cfg-options {" ".join(options)}\n'
                        f'  To try without any data:  {EMBEDDED}')


def why_no_folder(path):
    """Why a path is no folder that can be listed, as an insertion into a sentence; None where it is one."""
    try:
        with os.scandir(path):
            return None
    except FileNotFoundError:
        broken = next((part for part in (path, *path.parents) if part.is_symlink() and not part.exists()), None)
        return f', and {broken} is a symbolic link to {broken.readlink()}, which is not there,' if broken else ''
    except OSError as error:
        return f', which cannot be read: {error.strerror},'


def check_images(path, dataset):
    """Look at the names in an image folder: a folder without an image fails in mmengine with a message about arrays,
    and it passes over links to files that are not there."""
    default = '.jpg' if dataset.get('type') in ('BaseSegDataset', 'ADE20KDataset') else ''
    suffix, found, broken = dataset.get('img_suffix', default), False, []
    for entry in entries_below(path):
        if entry.name.endswith(suffix):
            if entry.is_symlink() and not Path(entry).exists():
                broken.append(f'{entry.path} → {Path(entry).readlink()}')
            found = True
    if broken and not dataset.get('ann_file'):
        raise UserError(f'symbolic links in {path} lead to files that are not there ({len(broken)}): '
                        f'{", ".join(broken[:5])}{" …" if len(broken) > 5 else ""}. Expected: files. Next: put them '
                        'there, or remove the links.')
    if not found:
        raise UserError(f'no image with the suffix {suffix!r} in {path}. Expected: at least one. Next: check '
                        'data_root, data_prefix and img_suffix of the data set in the config.')


def entries_below(folder):
    """What is in a folder and in those below it, but for the folders themselves; links to folders are followed.

    Raises:
        UserError: A folder cannot be read.
    """
    pending = [folder]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir():
                        pending.append(entry.path)
                    else:
                        yield entry
        except OSError as error:
            raise UserError(f'the folder {folder} cannot be read: {error.strerror}. Next: check its permissions.'
                            ) from error


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


def expectation_of(dataset, least_side=LEAST_SIDE):
    """The :class:`.decoding.Expectation` of a ``BaseSegDataset``."""
    known = type(dataset).METAINFO.get('classes') or dataset.metainfo.get('classes')
    if not known:
        raise UserError(f'the data set ({type(dataset).__name__}) has no classes. Expected: metainfo=dict(classes=(…)) '
                        'in the config, as in configs/_base_/camvid.py.')
    first, last = (1, len(known)) if dataset.reduce_zero_label else (0, len(known) - 1)
    ignored = sorted({dataset.ignore_index} | ({0} if dataset.reduce_zero_label else set()))
    words = f'{first} to {last}, or {" or ".join(map(str, ignored))} for pixels that do not count'
    resize, is_known = resizing_of(dataset.pipeline)
    return Expectation(bytes(first <= value <= last or value in ignored for value in range(256)), words, resize,
                       least_side if is_known else LEAST_SIDE, most_pixels())


def check_samples(dataset, least_side=LEAST_SIDE, progress=True):
    """Decode every image and mask of a ``BaseSegDataset``: whole, of one size, only classes and ignore in the mask.

    The processes of a run share the work, each in several threads. What was found good in an earlier run, and has
    neither another size nor another time, is not looked at again (:mod:`.checked`).

    Args:
        least_side (int): Pixels that the model needs on each side of an image.

    Raises:
        UserError: Names the bad files (the first ten, and how many more) with the values found and expected; in every
            process the same.
    """
    expected = expectation_of(dataset, least_side)
    samples = [dataset.get_data_info(i) for i in range(len(dataset))]
    name = f'{sorted((dataset.data_prefix or {}).items())} {dataset.ann_file} {Path.cwd()}'
    try:
        path = path_for(name)
    except RuntimeError as error:
        path = None
        print_log(f'which images were checked is not kept: {error}', 'current', logging.WARNING)
    digests = [digest_of(sample, expected) for sample in samples]
    # Of rank 0: files may differ on other machines, and every process has to take its share of the same list.
    checked = [read_checked(path) if path else set()]
    broadcast_object_list(checked)
    todo = [sample for sample, digest in zip(samples, digests, strict=True) if digest not in checked[0]]
    todo = todo[get_rank()::get_world_size()]
    with any_size(), ThreadPool(threads()) as pool:
        found = pool.imap(lambda sample: check_sample(sample, expected), todo)
        found = [(sample['img_path'], problem) for sample, problem in zip(todo, tqdm(
            found, total=len(todo), desc='checking images and masks', unit='image',
            disable=not (progress and todo and get_rank() == 0)), strict=True) if problem]
    found = dict(sorted(pair for part in all_gather_object(found) for pair in part))
    if path and get_rank() == 0 and len(todo):
        good = {digest for sample, digest in zip(samples, digests, strict=True)
                if digest and sample['img_path'] not in found}
        try:
            write_checked(path, good)
        except OSError as error:
            print_log(f'which images were checked is not kept: {error}', 'current', logging.WARNING)
    if found:
        problems = list(found.values())
        more = f'\n  and {len(problems) - 10} more' if len(problems) > 10 else ''
        shown = '\n  '.join(problems[:10])
        raise UserError(f'{len(problems)} of {len(samples)} images with their masks cannot be used:\n  {shown}{more}\n'
                        'Next: replace or remove these files, or correct the `classes` of the config.')


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


def parts_of(dataset):
    """The data sets inside mmengine's wrappers, such as ``ConcatDataset``, that read files as mmseg's do."""
    if isinstance(dataset, BaseSegDataset):
        return [dataset]
    inner = getattr(dataset, 'datasets', None) or filter(None, [getattr(dataset, 'dataset', None)])
    return [part for below in inner for part in parts_of(below)]


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Decodes every image and mask with :func:`check_samples` before the first iteration, and says what is not used.

    ``default_hooks = dict(data=dict(type='DataCheckHook'))``. A second start takes what has not changed as checked.
    Data sets that are not mmseg's, or lie in a store that is not a file system, are left alone.

    Args:
        enabled (bool): False leaves all of it out, for sets so large that even once is too long; a bad file then ends
            the run when it is loaded.
    """

    priority = 'VERY_HIGH'  # before the model is moved, or changed by other hooks

    def __init__(self, enabled=True):
        self.enabled = enabled

    def check(self, loader, least_side=LEAST_SIDE):
        for dataset in parts_of(plain_dataset(loader.dataset)):
            if getattr(dataset, 'backend_args', None) or len(dataset) == 0:
                continue
            problem = [None]
            if get_rank() == 0:
                try:
                    for line in ignored_files(dataset):
                        print_log(line, 'current', logging.WARNING)
                except OSError as error:
                    problem = [f'the data cannot be listed: {error}']
            broadcast_object_list(problem)
            if problem[0]:
                raise UserError(problem[0])
            check_samples(dataset, least_side)

    def before_train(self, runner):
        if self.enabled:
            self.check(runner.train_dataloader)
            if runner.val_loop:
                self.check(runner.val_dataloader, least_side_of(runner.model))

    def before_test(self, runner):
        if self.enabled:
            self.check(runner.test_dataloader, least_side_of(runner.model))


def least_side_of(model):
    """The smallest side of an image that a segmentor takes whole, where its backbone is of this package."""
    while hasattr(model, 'module'):
        model = model.module
    preprocessor, backbone = getattr(model, 'data_preprocessor', None), getattr(model, 'backbone', None)
    if not isinstance(backbone, MetaNeXt) or getattr(preprocessor, 'test_cfg', None):  # which pads
        return LEAST_SIDE
    return 4 * 2**max(backbone.out_indices)
