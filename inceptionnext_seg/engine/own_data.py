"""A config for a folder that ``inceptionnext-seg import`` wrote: what ``tools/train.py --data DIR`` puts into it."""
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from ..data.checks import datasets_of
from ..data.description import NAME, Description, read_description
from ..data.fitting import LONGEST_SIDE, RARE, class_weights, fit_batch, fit_size
from ..errors import UserError, quantity
from .options import LOADERS

# Below it a config has data of its own only when it was told which.
PLACEHOLDER = 'data/own'
SPLITS = dict(train_dataloader='training', val_dataloader='validation', test_dataloader='validation')
CROPS = ('RandomCrop', 'RareClassCrop')
# Settings of a data set's config that stay: those that do not depend on its files.
KEPT = ('pipeline', 'test_mode', 'lazy_init', 'serialize_data', 'max_refetch')


def needs_data(cfg: Config) -> bool:
    """Whether a config takes its classes from the data, and has not been told which."""
    return any(str(part.get('data_root')) == PLACEHOLDER for name in LOADERS for part in innermost(cfg.get(name)))


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
    for split in set(SPLITS.values()):
        if not (data.splits.get(split) or {}).get('images'):
            raise UserError(f'{Path(folder) / NAME}: no image of the split {split} has a mask. Expected: at least one. '
                            'Next: import the data again, with --val 0.2.')
    if len(data.classes) < 2:
        raise UserError(f'{Path(folder) / NAME} has one class, {data.classes[0]}. Expected: two or more. Next: import '
                        'the data again, with --unlabelled background.')
    scale, crop = fit_size(data.median_size)
    images = data.splits['training']['images']
    batch = fit_batch(crop, images)
    weights = class_weights(data.splits['training']['pixels'])
    for name, split in SPLITS.items():
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
    validated = quantity(data.splits['validation']['images'], 'validation image')
    return [
        f'{data.root}: {images} training and {validated}, median size '
        f'{"×".join(map(str, data.median_size))}{f", resized to {scale[0]}×{scale[1]}" if shrinks else ""}, classes '
        f'{", ".join(data.classes)}', f'{batch} crops of {crop}×{crop} an iteration; class weights '
        f'{weights or f"none: no class has less than {100 * RARE:g} % of the pixels"}']


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


def set_minutes(cfg: Config, minutes: float) -> None:
    """Let a run end after so many minutes: ``TimeBudgetHook``, added where the config has none."""
    hooks = cfg.setdefault('custom_hooks', [])
    for hook in hooks:
        if hook.get('type') == 'TimeBudgetHook':
            hook.minutes = minutes
            return
    hooks.append(ConfigDict(type='TimeBudgetHook', minutes=minutes))
