"""The second reading: images and masks into a new folder that takes its name when it is whole."""
import csv
import os
import shlex
import shutil
from multiprocessing.pool import ThreadPool
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..._version import __version__
from ...errors import UserError, shown
from ...files import synchronize
from ..description import SOURCES, Description
from ..fitting import LONGEST_SIDE, class_weights, fit_batch, fit_size
from ..threads import any_size, threads
from .options import IGNORE, Options
from .pictures import Facts, opened, rgb_of
from .samples import Sample
from .splits import TEST, TRAINING, UNLABELLED, VALIDATION
from .tree import require_utf8

JPEG_QUALITY = 95
LONGEST_NAME, MOST_BYTES = 120, 240     # a file system takes 255 bytes, with a number and the suffix
CONFIG = '''\
# Written by `inceptionnext-seg import`, and yours to change: inceptionnext-seg train {name}
# The recipe is that of upernet_inceptionnext_a_own.py with --data, for 60 minutes; --minutes says for how many.
_base_ = ['inceptionnext_seg::_base_/upernet_a.py', 'inceptionnext_seg::_base_/own.py',
          'inceptionnext_seg::_base_/schedule_own.py']

work_dir = {work_dir!r}
classes = {classes!r}
palette = {palette!r}
data = dict(
    data_root={data_root}, img_suffix={img_suffix!r}, seg_map_suffix={seg_map_suffix!r},
    metainfo=dict(classes=classes, palette=palette), reduce_zero_label=False)   # the masks hold 0 to {last}
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale={scale}, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RareClassCrop', crop_size=({crop}, {crop}), cat_max_ratio=0.75, prob=0.5),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs')
]
test_pipeline = [dict(type='LoadImageFromFile'), {resize}dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
{tta}train_dataloader = dict(batch_size={batch}, dataset=dict(dataset=dict(pipeline=train_pipeline, **data)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **data))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, data_prefix=dict(
    img_path='images/{test}', seg_map_path='annotations/{test}'), **data))
class_weight = {weights}     # of the losses; None: no class is rare
model = dict(
    backbone=dict(type='InceptionNeXt', out_norm_cfg=dict(type='BN')), data_preprocessor=dict(size=({crop}, {crop})),
    decode_head=dict(num_classes={count}, loss_decode=dict(class_weight=class_weight)),
    auxiliary_head=dict(num_classes={count}, loss_decode=dict(class_weight=class_weight)))
train_cfg = dict(total_batch_size={batch})
'''


TTA = '''\
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    {resize}
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale_factor=factor, keep_ratio=True) for factor in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)],
        [dict(type='RandomFlip', prob=0., direction='horizontal'),
         dict(type='RandomFlip', prob=1., direction='horizontal')],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')]])
]
'''


class Output(NamedTuple):
    """A sample on its way out: what was found of it, the split, the name without suffix, what its labels become, and
    the digest of its pixels as they came.
    """
    sample: Sample
    facts: Facts
    split: str
    name: str
    table: dict[int, int]
    digest: str


def names_of(relatives: list[str]) -> list[str]:
    """A name for each image, without folder and suffix: its own where no other has it, in any case, and longer ones."""
    def clean(text):
        text = ''.join(letter if letter.isprintable() and letter not in '<>:"|?*\\/' else '_' for letter in text)
        return text[-LONGEST_NAME:].encode()[-MOST_BYTES:].decode(errors='ignore')

    choices = []
    for relative in relatives:
        path = PurePosixPath(relative)
        long = '_'.join((*path.parts[:-1], path.stem))
        choices.append([clean(text).strip(' .') or 'image' for text in (
            path.stem, long, f'{long}_{path.suffix[1:]}')])
    level = [0] * len(choices)
    while True:
        taken = {}
        for i, own in enumerate(choices):
            taken.setdefault(own[min(level[i], 2)].casefold(), []).append(i)
        clashes = [group for group in taken.values() if len(group) > 1]
        movable = [i for group in clashes for i in group if level[i] < 2]
        if not movable:
            break
        for i in movable:
            level[i] += 1
    names = [own[at] for own, at in zip(choices, level, strict=True)]
    used = set()
    for i, name in enumerate(names):
        number = 2
        while names[i].casefold() in used:
            names[i], number = f'{name}_{number}', number + 1
        used.add(names[i].casefold())
    return names


def require_empty(out: Path) -> None:
    """Raises UserError where something is at the place to write to, or its parent cannot be written to, or has a name
    that is no UTF-8.
    """
    require_utf8(out.absolute())
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise UserError(
            f'{out.absolute()} is there already, and is not written over. Next: give another --out, or remove it.'
        )
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'cannot write to {out.absolute().parent}: {error.strerror}. Next: give another --out.'
        ) from error


def lookup(labels: np.ndarray, table: dict[int, int]) -> np.ndarray:
    """Class indices (H, W), uint8, from the integers of the source."""
    codes = np.array(sorted(table), np.int64)
    indices = np.array([table[code] for code in codes.tolist()], np.uint8)
    if codes[-1] - codes[0] < 1 << 16:
        dense = np.full(codes[-1] - codes[0] + 1, IGNORE, np.uint8)
        dense[codes - codes[0]] = indices
        return dense[labels - codes[0]]
    return indices[np.searchsorted(codes, labels)]


def write_sample(output: Output, root: Path, suffix: str, options: Options) -> str | None:
    """Write image and mask; returns what was wrong, which the first reading did not find: the file has changed
    since.
    """
    sample, facts = output.sample, output.facts
    target = root / 'images' / output.split / f'{output.name}{suffix}'
    try:
        plain = facts.is_plain and facts.format in (('JPEG', 'MPO') if suffix == '.jpg' else ('PNG', ))
        if plain and isinstance(sample.image, Path):
            shutil.copyfile(sample.image, target)
        else:
            with opened(sample.image) as file:
                picture = rgb_of(file, options.sixteen_bit)
            picture.info.clear()
            how = dict(quality=JPEG_QUALITY, subsampling=0) if suffix == '.jpg' else {}
            picture.save(target, **how)
        if output.split != UNLABELLED:
            mask = Image.fromarray(lookup(sample.read(facts), output.table))
            mask.save(root / 'annotations' / output.split / f'{output.name}.png')
    except ValueError as error:
        return f'{sample.relative} {error}'
    return None


def write(out: Path, outputs: list[Output], description: Description, options: Options, report: str,
          progress: bool = True) -> None:
    """Write the data set and its report to ``out``, which must be empty or missing; all of it, or nothing.

    Raises:
        UserError: The disk is full or not writable, or a file of the source changed.
    """
    require_empty(out)
    temporary = out.absolute().with_name(f'.{out.name}.{os.getpid()}.importing')
    suffix = description.img_suffix
    try:
        for split in {output.split for output in outputs} | {TRAINING, VALIDATION}:
            (temporary / 'images' / split).mkdir(parents=True)
            if split != UNLABELLED:
                (temporary / 'annotations' / split).mkdir(parents=True)
        with any_size(), ThreadPool(threads()) as pool:
            found = pool.imap(lambda output: write_sample(output, temporary, suffix, options), outputs)
            problems = [problem for problem in tqdm(found, total=len(outputs), desc='writing', unit='image',
                                                    disable=not progress) if problem]
        if problems:
            raise UserError(f'{len(problems)} files changed while they were read, such as {problems[0]}. Nothing was '
                            'imported. Next: give the same command again.')
        description._replace(root=temporary).write()
        write_sources(temporary / SOURCES, outputs, suffix)
        (temporary / 'config.py').write_text(config_text(out, description), encoding='utf-8')
        (temporary / 'report.txt').write_text(report, encoding='utf-8')
        for folder in (temporary, *(path for path in temporary.rglob('*') if path.is_dir())):
            if os.name == 'posix':
                synchronize(folder)
        if out.exists():
            out.rmdir()
        temporary.rename(out.absolute())
    except OSError as error:
        raise UserError(
            f'cannot write the data set to {out.absolute()}: {error}. Nothing was imported. Next: free space, '
            'or give another --out.'
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_sources(path, outputs, suffix):
    """Which file each image came from, and by what it is known there: stored anew as a JPEG, it has other pixels."""
    with path.open('w', encoding='utf-8', newline='') as file:
        rows = csv.writer(file)
        rows.writerow(('image', 'source', 'labels', 'pixels'))
        rows.writerows(
            (f'images/{output.split}/{output.name}{suffix}', output.sample.relative, output.sample.labels or '',
             output.digest)
            for output in outputs
        )


def config_text(out, description):
    """A config that trains on the data set by the recipe of ``upernet_inceptionnext_a_own.py``, without ``--data``."""
    scale, crop = fit_size(description.median_size)
    training = description.splits[TRAINING]
    resize, tta = '', ''
    if max(description.median_size) > LONGEST_SIDE:
        resize = f"dict(type='Resize', scale={scale}, keep_ratio=True), "
        tta = TTA.format(resize=resize.strip())
    return CONFIG.format(
        name=shlex.quote(without_controls(f'{out.name}/config.py')), data_root=data_root_of(out),
        work_dir=f'work_dirs/{out.resolve().name}', test=TEST if TEST in description.splits else VALIDATION,
        classes=description.classes, palette=[list(color) for color in description.palette],
        img_suffix=description.img_suffix, seg_map_suffix=description.seg_map_suffix, last=len(description.classes) - 1,
        scale=scale, crop=crop, resize=resize, tta=tta, count=len(description.classes),
        batch=fit_batch(crop, training['images']),
        weights=class_weights(training['pixels']))


def data_root_of(out):
    """The expression for the config's own folder, whose name mmengine puts in as it is, but for backslashes.

    A long string takes quotes of either kind, and the dot, cut off again, keeps one at the end apart. Where a name has
    three quotes or, outside of Windows, a backslash, the folder stands there as it is called now.
    """
    path = str(out.absolute())
    if '"""' in path or (os.name == 'posix' and '\\' in path):
        return f'{path!r}'
    return '"""{{ fileDirname }}."""[:-1]'


def without_controls(text):
    return ''.join(letter if letter.isprintable() else '_' for letter in text)


def suffix_for(facts: list[Facts]) -> str:
    """One for all images, since MMSegmentation's data sets have one: '.jpg' where all are JPEG, or else '.png'."""
    return '.jpg' if all(fact.format in ('JPEG', 'MPO') for fact in facts) else '.png'


def source_facts(roots: list[Path], formats: list[str], command: list[str]) -> dict[str, object]:
    """Where a data set came from; of several sources, a list of their folders and of their formats."""
    path, format_name = ([str(roots[0]), formats[0]] if len(roots) == 1 else [[*map(str, roots)], formats])
    return dict(path=path, format=format_name, command=[*map(shown, command)], version=__version__)


