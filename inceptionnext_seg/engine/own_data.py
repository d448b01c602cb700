"""A config for a folder that ``inceptionnext-seg import`` wrote: what ``tools/train.py --data DIR`` puts into it."""
import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from ..data.checks import datasets_of
from ..data.description import NAME, Description, read_description
from ..data.fitting import LONGEST_SIDE, RARE, class_weights, fit_batch, fit_size
from ..data.threads import threads
from ..errors import UserError, quantity
from .options import LOADERS

# data_root of configs/_base_/own.py, which no folder is called: a config with it has not been told which data it has.
PLACEHOLDER = 'DIR of --data'
# Of the splits, the first that has images with masks.
SPLITS = dict(train_dataloader=('training', ), val_dataloader=('validation', ), test_dataloader=('test', 'validation'))
MOST_WORKERS = 8    # that load images for a GPU
CROPS = ('RandomCrop', 'RareClassCrop')
# Settings of a data set's config that stay: those that do not depend on its files.
KEPT = ('pipeline', 'test_mode', 'lazy_init', 'serialize_data', 'max_refetch')


def needs_data(cfg: Config) -> bool:
    """Whether a config takes its classes from the data, and has not been told which."""
    return any(str(part.get('data_root')) == PLACEHOLDER for name in LOADERS for part in innermost(cfg.get(name)))


def require_data(cfg: Config, checkpoint: str | Path) -> None:
    """Refuse a config that needs data for a model that has been trained: on what, and at which size, it does not say.

    Raises:
        UserError: It is one; names the config that training wrote beside the checkpoint, where it is there.
    """
    if not needs_data(cfg):
        return
    own, folder = Path(cfg.filename or 'config.py'), Path(checkpoint).parent
    written = next((path for path in (folder / own.name, *sorted(folder.glob('*.py')))
                    if path.is_file() and path.resolve() != own.resolve()
                    and (path.name == own.name or trained_on(path) - {PLACEHOLDER})), None)
    raise UserError(
        f'config {own.stem} takes its classes and sizes from the data, and names none: with it, {checkpoint} would '
        'segment images at another size than it was trained for. Expected: the config that training wrote beside the '
        f'checkpoint. Next: give {written or "that"} as CONFIG.')


def innermost(loader: Any) -> list[ConfigDict]:
    """The configs of the data sets that read files, inside wrappers."""
    return [part for _, part in datasets_of(loader)]


def use_data(cfg: Config, folder: str | Path) -> list[str]:
    """Let a config train on the data of a folder with a ``dataset.json``, in place.

    Set are: of every loader the folder, suffixes, classes and palette; of the pipelines scale and crop; of the model
    the classes of its heads, the size that batches are padded to, and, where classes are rare, the weights of its
    cross-entropies; the images of an iteration. Options of the command line come later, and count.

    Returns:
        list[str]: What was set, a line each.

    Raises:
        UserError: The folder has no such file, no masks for training or validation, or a single class; or the config
            reads no folders.
    """
    data = read_description(folder)
    for split in ('training', 'validation'):
        if not labelled(data, split):
            raise UserError(f'{Path(folder) / NAME}: no image of the split {split} has a mask. Expected: at least one. '
                            'Next: import the data again, with --val 0.2.')
    if len(data.classes) < 2:
        raise UserError(f'{Path(folder) / NAME} has one class, {data.classes[0]}. Expected: two or more. Next: import '
                        'the data again, with --unlabelled background.')
    scale, crop = fit_size(data.median_size)
    images = data.splits['training']['images']
    batch = fit_batch(crop, images)
    weights = class_weights(data.splits['training']['pixels'])
    for name, splits in SPLITS.items():
        split = next(split for split in splits if labelled(data, split))
        parts = innermost(cfg.get(name))
        if not parts and name == 'train_dataloader':
            raise UserError('--data: the config has no train_dataloader with a data set. Expected: one as in '
                            'configs/_base_/own.py.')
        for part in parts:
            use_folder(part, data, split, scale, crop)
    read_as_numbered(cfg.get('tta_pipeline'))
    shrinks = max(data.median_size) > LONGEST_SIDE
    if shrinks and cfg.get('tta_pipeline'):
        cfg.tta_pipeline = smaller_first(cfg.tta_pipeline, scale)
    use_model(cfg.model, len(data.classes), crop, weights)
    if 'total_batch_size' in cfg.train_cfg:
        cfg.train_cfg.total_batch_size = batch
    cfg.train_dataloader.batch_size = batch
    if torch.cuda.is_available():       # faster than one process can load for; which images come when stays the same
        cfg.train_dataloader.num_workers = min(MOST_WORKERS, threads())
    validated = quantity(data.splits['validation']['images'], 'validation image')
    return [
        f'{data.root}: {images} training and {validated}, median size '
        f'{"×".join(map(str, data.median_size))}{f", resized to {scale[0]}×{scale[1]}" if shrinks else ""}, classes '
        f'{", ".join(data.classes)}', f'{batch} crops of {crop}×{crop} an iteration; class weights '
        f'{weights or f"none: no class has less than {100 * RARE:g} % of the pixels"}']


def labelled(data: Description, split: str) -> int:
    """How many images of a split have masks."""
    return (data.splits.get(split) or {}).get('images') or 0


def use_folder(part: ConfigDict, data: Description, split: str, scale: tuple[int, int], crop: int) -> None:
    own = data.dataset(split)
    if part.get('type') == 'CountedSegDataset':
        own['type'] = 'CountedSegDataset'
    # Lists of files, suffixes and numberings of another data set would choose or read these images wrongly.
    kept = {key: part[key] for key in KEPT if key in part}
    part.clear()
    part.update(own, **kept)
    read_as_numbered(part.get('pipeline'))
    for step in steps_of(part.get('pipeline')):
        if step.get('type') == 'RandomResize':
            step.scale = scale
        if step.get('type') in CROPS:
            step.crop_size = (crop, crop)
    if split != 'training' and max(data.median_size) > LONGEST_SIDE:
        part.pipeline = smaller_first(part.pipeline, scale)


def steps_of(pipeline: Any) -> Iterator[ConfigDict]:
    """The transforms of a pipeline, those inside others (TestTimeAug, RandomApply) too."""
    for step in pipeline or ():
        if isinstance(step, list | tuple):
            yield from steps_of(step)
        elif isinstance(step, dict):
            yield step
            yield from steps_of(step.get('transforms'))


def read_as_numbered(pipeline: Any) -> None:
    """Leave it to the data set whether 0 in a mask is a class."""
    for step in steps_of(pipeline):
        if step.get('type') == 'LoadAnnotations':
            step.pop('reduce_zero_label', None)


def smaller_first(pipeline: list[ConfigDict], scale: tuple[int, int]) -> list[ConfigDict]:
    """A pipeline that makes images smaller when they are loaded; masks keep their size, and predictions get it."""
    if any(step.get('type') == 'Resize' for step in pipeline):
        return pipeline
    at = next((i for i, step in enumerate(pipeline) if step.get('type') == 'LoadImageFromFile'), -1) + 1
    return [*pipeline[:at], ConfigDict(type='Resize', scale=scale, keep_ratio=True), *pipeline[at:]]


def use_model(model: ConfigDict, classes: int, crop: int, weights: list[float] | None) -> None:
    if (model.get('data_preprocessor') or {}).get('size') is not None:
        model.data_preprocessor.size = (crop, crop)
    for name in ('decode_head', 'auxiliary_head'):
        heads = model.get(name) or []
        for head in heads if isinstance(heads, list) else [heads]:
            head.num_classes = classes
            losses = head.get('loss_decode') or []
            for loss in losses if isinstance(losses, list) else [losses]:
                if loss.get('type') == 'CrossEntropyLoss' and weights and loss.get('class_weight') is None:
                    loss.class_weight = weights


def check_work_dir(cfg: Config, resumes: bool = False) -> None:
    """Whether a run on a folder with a ``dataset.json`` may have ``cfg.work_dir``.

    Args:
        resumes (bool): Whether the run goes on from a checkpoint there. The data may have been moved or copied since.

    Raises:
        UserError: It has checkpoints of a run on another folder. Those of this run would be beside its best one, its
            config and report would be written over, or its training would go on with other images.
    """
    work_dir = Path(cfg.work_dir)
    roots = {str(part.get('data_root')) for part in innermost(cfg.get('train_dataloader'))}
    if not any(Path(root, NAME).is_file() for root in roots) or not any(work_dir.glob('*.pth')):
        return
    for path in sorted(work_dir.glob('*.py')):
        before = trained_on(path)
        if before and before != roots and set(map(resolved, before)) != set(map(resolved, roots)) and not (
                resumes and set(map(described, before)) <= {None, *map(described, roots)}):
            way = 'the --data of the run to resume, or another --work-dir' if resumes else (
                f'another --work-dir, or remove {work_dir}')
            raise UserError(
                f'work_dir {work_dir} has a run on other data: {path.name} trained on {", ".join(sorted(before))}, and '
                f'this run trains on {", ".join(sorted(roots))}. Expected: a folder of its own for each. Next: give '
                f'{way}.')


def trained_on(path: Path) -> set[str]:
    """Every ``data_root`` in the ``train_dataloader`` of a config that a run wrote; it is read, and does not run."""
    try:
        statements = ast.parse(path.read_text(encoding='utf-8')).body
    except (OSError, ValueError, SyntaxError, MemoryError, RecursionError):
        return set()
    return {node.value.value for statement in statements if isinstance(statement, ast.Assign)
            and [getattr(target, 'id', None) for target in statement.targets] == ['train_dataloader']
            for node in ast.walk(statement) if isinstance(node, ast.keyword) and node.arg == 'data_root'
            and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)}


def resolved(folder: str) -> Path:
    return Path(folder).resolve()


def described(folder: str) -> bytes | None:
    """The ``dataset.json`` of a folder; None where it has none any more."""
    try:
        return Path(folder, NAME).read_bytes()
    except OSError:
        return None


def set_minutes(cfg: Config, minutes: float) -> None:
    """Let a run end after so many minutes: ``TimeBudgetHook``, added where the config has none."""
    hooks = list(cfg.get('custom_hooks') or ())
    for hook in hooks:
        if hook.get('type') == 'TimeBudgetHook':
            hook.minutes = minutes
            return
    cfg.custom_hooks = [*hooks, ConfigDict(type='TimeBudgetHook', minutes=minutes)]
