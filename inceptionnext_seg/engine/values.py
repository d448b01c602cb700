"""Values that a setting cannot have, told before anything is built: what a run would meet after hours, or never.

Each rule is a path, with ``*`` for one part of it, what values it allows, and these in words. Settings that the config
does not have are not looked at, nor those of classes from elsewhere, where the rule is for a class.
"""
import difflib
import fnmatch
import importlib.util
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict
from mmengine.registry import OPTIMIZERS, VISBACKENDS

from ..data.checks import datasets_of
from ..errors import UserError


class Rule(NamedTuple):
    """What a setting may be."""
    allows: Callable[[Any], bool]
    expected: str


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def whole(least: int, *others: Any) -> Rule:
    """A whole number from ``least``, or one of ``others``."""
    words = ''.join(f', or {other}' for other in others)
    return Rule(lambda value: value in others or (is_whole(value) and value >= least),
                f'a whole number, at least {least}{words}')


def numbers(allows: Callable[[float], bool], expected: str) -> Rule:
    return Rule(lambda value: value is None or (
        isinstance(value, list | tuple) and all(is_number(x) and allows(x) for x in value)), expected)


def one_of(*names: str) -> Rule:
    return Rule(lambda value: value in names, f'one of {", ".join(names)}')


def component(*others: Any) -> Rule:
    """A config; an object that is built already will do."""
    plain = (str, int, float, list, tuple, type(None))
    words = ''.join(f', or {other}' for other in others)
    return Rule(lambda value: value in others or not isinstance(value, plain), f'a dict{words}')


def one_or_several(*others: Any) -> Rule:
    """A config, or a list of them."""
    one = component(*others)
    return Rule(lambda value: one.allows(value) or (
        isinstance(value, list | tuple) and len(value) > 0 and all(map(component().allows, value))),
        f'{one.expected}, or a list of dicts')


def is_class_weight(value: Any) -> bool:
    if isinstance(value, str):  # mmseg would unpickle others
        return Path(value).is_file() and Path(value).suffix in ('.json', '.yaml', '.yml', '.npy')
    return value is None or (isinstance(value, list | tuple) and all(map(is_number, value)))


POSITIVE = Rule(lambda value: is_number(value) and value > 0, 'a number above 0')
NOT_NEGATIVE = Rule(lambda value: is_number(value) and value >= 0, 'a number, 0 or more')
SEED = Rule(lambda value: value is None or (is_whole(value) and 0 <= value < 2**32), 'a whole number from 0 to 2³² - 1')

PARTS = {
    'model': component(), 'train_dataloader': component(None), 'val_dataloader': component(None),
    'test_dataloader': component(None), 'train_cfg': component(None), 'optim_wrapper': component(None),
    'default_hooks': component(None), 'visualizer': component(None), 'val_cfg': component(None),
    'test_cfg': component(None), 'env_cfg': component(None), 'randomness': component(None),
    'auto_scale_lr': component(None)}
RULES = {
    'val_evaluator': one_or_several(None),
    'test_evaluator': one_or_several(None),
    'model.test_cfg': component(None),
    'model.backbone': component(),
    'model.decode_head': one_or_several(),
    'model.auxiliary_head': one_or_several(None),
    'model.data_preprocessor': component(None),
    'optim_wrapper.optimizer': component(None),
    'train_cfg.max_iters': whole(1),
    'train_cfg.max_epochs': whole(1),
    'train_cfg.val_interval': whole(1),
    'train_cfg.val_begin': whole(0),
    'train_cfg.total_batch_size': whole(1),
    'train_cfg.micro_batch_size': whole(1, None),
    '*_dataloader.batch_size': whole(1),
    '*_dataloader.num_workers': whole(0),
    '*_dataloader.prefetch_factor': whole(1, None),
    'optim_wrapper.optimizer.lr': POSITIVE,
    'optim_wrapper.optimizer.weight_decay': NOT_NEGATIVE,
    'optim_wrapper.optimizer.momentum': NOT_NEGATIVE,
    'optim_wrapper.optimizer.betas': numbers(lambda x: 0 <= x < 1, 'two numbers from 0 to 1, without 1'),
    'optim_wrapper.accumulative_counts': whole(1),
    'optim_wrapper.clip_grad.max_norm': POSITIVE,
    'randomness.seed': SEED,
    'auto_scale_lr.base_batch_size': whole(1),
    'param_scheduler.*.begin': whole(0),
    'param_scheduler.*.end': whole(1, math.inf),
    # -1 is mmengine's "never", "all".
    'default_hooks.checkpoint.interval': whole(1, -1),
    'default_hooks.checkpoint.max_keep_ckpts': whole(1, -1),
    'default_hooks.logger.interval': whole(1),
    'default_hooks.visualization.interval': whole(1),
    'log_level': Rule(lambda value: is_whole(value) or is_whole(logging.getLevelName(str(value))),
                      'one of DEBUG, INFO, WARNING, ERROR, CRITICAL'),
    'model.backbone.drop_path_rate': Rule(
        lambda value: is_number(value) and 0 <= value < 1, 'a number from 0 to 1, without 1'),
    # Below 0 is mmseg's "none", in its HRNet configs.
    'model.*_head.dropout_ratio': Rule(lambda value: is_number(value) and value <= 1, 'a number from 0 to 1'),
    'model.*_head.channels': whole(1),
    'model.*_head.num_classes': whole(1),
    'model.*_head.loss_decode.class_weight': Rule(
        is_class_weight, 'a list of numbers, one for each class, a JSON, YAML or .npy file with one, or None'),
    'model.data_preprocessor.std': numbers(lambda x: x > 0, 'numbers above 0, one for each channel'),
    'model.data_preprocessor.mean': numbers(lambda x: True, 'numbers, one for each channel'),
    'model.test_cfg.mode': one_of('whole', 'slide', 'slide_flip'),
}

# Stride of the deepest map of the backbones here.
LEAST_CROP = 32

# Of IoUMetric, mmseg/evaluation/metrics/iou_metric.py.
IOU_METRICS = ('mIoU', 'mDice', 'mFscore')

# Module that a backend imports, and what brings it: mmengine/visualization/vis_backend.py.
BACKEND_PACKAGES = {
    'TensorboardVisBackend': ('tensorboard', 'tensorboard'), 'WandbVisBackend': ('wandb', 'wandb'),
    'MLflowVisBackend': ('mlflow', 'mlflow'), 'ClearMLVisBackend': ('clearml', 'clearml'),
    'NeptuneVisBackend': ('neptune', 'neptune'), 'DVCLiveVisBackend': ('dvclive', 'dvclive'),
    'AimVisBackend': ('aim', 'aim')}


def found_at(tree: Any, pattern: str, path: str = '') -> list[tuple[str, Any]]:
    """``(path, value)`` of every setting below ``tree`` whose path fits ``pattern``."""
    first, _, rest = pattern.partition('.')
    items = tree.items() if isinstance(tree, dict | Config) else enumerate(tree) if isinstance(
        tree, list | tuple) else ()
    found = []
    for key, value in items:
        if fnmatch.fnmatchcase(str(key), first):
            below = f'{path}.{key}' if path else str(key)
            found += found_at(value, rest, below) if rest else [(below, value)]
    return found


def refuse(path: str, value: Any, expected: str, way: str = '') -> None:
    way = way or f'correct it in the config, or --cfg-options {path}=…'
    raise UserError(f'{path} is {value!r}; expected: {expected}. Next: {way}')


def check_parts(cfg: Config) -> None:
    """Raise a UserError where one of the main settings of a config is no config itself."""
    for name, rule in PARTS.items():
        if name in cfg and not rule.allows(cfg[name]):
            refuse(name, cfg[name], rule.expected)


def check_types(tree: Any, path: str = '') -> None:
    """Raise a UserError where a ``type`` is an empty string, which registries do not name in their errors."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in items:
        below = f'{path}.{key}' if path else str(key)
        if key == 'type' and value == '':
            refuse(below, value, 'the name of a class')
        check_types(value, below)


def check_values(cfg: Config) -> list[str]:
    """Look at the values of a config's settings.

    Returns:
        list[str]: Lines about what is odd, and no error.

    Raises:
        UserError: One is of another type or out of range, two of them do not go together, or a package that one needs
            is missing.
    """
    check_parts(cfg)
    check_types(cfg._cfg_dict)
    for pattern, rule in RULES.items():
        for path, value in found_at(cfg, pattern):
            if not rule.allows(value):
                refuse(path, value, rule.expected)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name) or {}
        if loader.get('persistent_workers') and loader.get('num_workers') == 0:
            refuse(f'{name}.persistent_workers', True, 'False where num_workers is 0',
                   f'--cfg-options {name}.persistent_workers=False')
    evaluators = ('*_evaluator', '*_evaluator.*', '*_evaluator.metrics.*')
    for path, metrics in [pair for pattern in evaluators for pair in found_at(cfg, f'{pattern}.iou_metrics')]:
        given = [metrics] if isinstance(metrics, str) else metrics
        if not isinstance(given, list | tuple) or not given or not set(given) <= set(IOU_METRICS):
            refuse(path, metrics, f'a list of {", ".join(IOU_METRICS)}')
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if isinstance(optimizer.get('type'), str) and OPTIMIZERS.get(optimizer['type']) is None:
        close = difflib.get_close_matches(optimizer['type'], OPTIMIZERS.module_dict, 1)
        refuse('optim_wrapper.optimizer.type', optimizer['type'], close[0] if close else 'an optimizer of torch')
    check_sliding(cfg)
    check_backends(cfg)
    return check_crops(cfg)


def check_sliding(cfg: Config) -> None:
    """A sliding window, which the first evaluation would miss after hours of training."""
    model = cfg.get('model') or {}
    settings = model.get('test_cfg') or {}
    if settings.get('mode') != 'slide':
        return
    pairs = {name: settings.get(name) for name in ('crop_size', 'stride')}
    for name, pair in pairs.items():
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(is_whole(x) and x > 0 for x in pair)):
            refuse(f'model.test_cfg.{name}', pair, "height and width of the window in pixels, as mode='slide' needs",
                   f'--cfg-options "model.test_cfg.{name}=(512,512)"')
    if any(step > side for step, side in zip(pairs['stride'], pairs['crop_size'], strict=True)):
        refuse('model.test_cfg.stride', pairs['stride'], f'at most crop_size, {tuple(pairs["crop_size"])}: what lies '
               'between two windows would not be segmented')


def side_pair(size: Any) -> tuple[int, int] | None:
    """Height and width of a size as mmseg's transforms take them: a number or a pair; None for anything else."""
    if is_whole(size):
        size = (size, size)
    if isinstance(size, list | tuple) and len(size) == 2 and all(is_whole(x) and x > 0 for x in size):
        return tuple(size)
    return None


def check_crops(cfg: Config) -> list[str]:
    """Training crops and the size that ``data_preprocessor`` pads them to: lines about what is odd and not wrong."""
    notes = []
    preprocessor = (cfg.get('model') or {}).get('data_preprocessor') or {}
    size = preprocessor.get('size')
    if size is not None and preprocessor.get('size_divisor') is not None:
        refuse('model.data_preprocessor.size_divisor', preprocessor['size_divisor'], 'None beside size',
               '--cfg-options model.data_preprocessor.size=None, or size_divisor=None')
    if size is not None and side_pair(size) is None:
        refuse('model.data_preprocessor.size', size, 'height and width in pixels, such as (512, 512)')
    for path, dataset in datasets_of(cfg.get('train_dataloader')):
        if not isinstance(dataset.get('pipeline') or (), list | tuple):
            refuse(f'train_dataloader.{path}.pipeline', dataset['pipeline'], 'a list of transforms')
        for i, step in enumerate(dataset.get('pipeline') or ()):
            kind, place = isinstance(step, dict) and step.get('type'), f'train_dataloader.{path}.pipeline.{i}'
            for name in ('scale', 'ratio_range', 'scale_factor') if kind in ('Resize', 'RandomResize') else ():
                value = step.get(name)
                given = value if isinstance(value, list | tuple) else [value]
                if any(is_number(part) and part <= 0 for part in given):
                    refuse(f'{place}.{name}', value, 'numbers above 0')
            if kind not in ('RandomCrop', 'RareClassCrop'):
                continue
            key, crop = f'{place}.crop_size', step.get('crop_size')
            pair = side_pair(crop)
            if pair is None:
                refuse(key, crop, 'height and width in pixels, such as (512, 512)')
            both = f'set both, --cfg-options "{key}={pair}" "model.data_preprocessor.size={pair}"'
            if min(pair) < LEAST_CROP:
                refuse(key, crop, f'at least {LEAST_CROP} pixels on each side, one of the deepest map')
            if size is not None and any(side > most for side, most in zip(pair, side_pair(size), strict=True)):
                refuse(key, crop, f'at most model.data_preprocessor.size, {side_pair(size)}, to which the images of a '
                       'batch are padded', both)
            if size is not None and pair != side_pair(size):
                notes.append(f'{key} is {pair}, and model.data_preprocessor.size {side_pair(size)}: the rest of each '
                             f'training image is padding. To train on none, {both}.')
    return notes


def check_backends(cfg: Config) -> None:
    """Where pictures and curves go: kinds that mmengine knows, whose packages are installed."""
    backends = (cfg.get('visualizer') or {}).get('vis_backends')
    if backends is None:
        return
    names = [backend.get('type') if isinstance(backend, dict) else backend for backend in (
        backends if isinstance(backends, list | tuple) else [backends])]
    for i, name in enumerate(names):
        if not isinstance(name, str):
            continue  # a class, or an object that is built
        is_config = isinstance(backends, list | tuple) and isinstance(backends[i], dict)
        if not is_config or VISBACKENDS.get(name) is None:
            close = difflib.get_close_matches(name, VISBACKENDS.module_dict, 1)
            refuse('visualizer.vis_backends', backends, f'a list of dict(type=…) of {", ".join(BACKEND_PACKAGES)} and '
                   'LocalVisBackend', f'--vis-backends {close[0] if close else "TensorboardVisBackend"}')
        refuse_missing_package(name)


def check_seed(seed: int) -> int:
    """The seed of a command line, where it is one."""
    if not SEED.allows(seed):
        raise UserError(f'--seed is {seed}; expected: {SEED.expected}.')
    return seed


def refuse_missing_package(backend: str) -> None:
    module, package = BACKEND_PACKAGES.get(backend, (None, None))
    if module and importlib.util.find_spec(module) is None:
        raise UserError(f'visualizer.vis_backends has {backend}, which needs the package {package}, and that is not '
                        f'installed. Next: pip install {package}, or leave {backend} out.')


def add_backends(cfg: Config, names: list[str], samples: int = 4) -> None:
    """What ``--vis-backends`` does: curves to these places too, and sample predictions at every validation.

    Args:
        names (list[str]): As ``TensorboardVisBackend``, or short, as ``tensorboard``.
        samples (int): Images of each validation that are drawn.

    Raises:
        UserError: mmengine has no such backend, or its package is missing.
    """
    known = {re.sub('visbackend$', '', name.lower()): name for name in VISBACKENDS.module_dict}
    backends = cfg.visualizer.setdefault('vis_backends', [])
    for given in names:
        name = known.get(re.sub('visbackend$', '', given.lower()))
        if name is None:
            raise UserError(f'--vis-backends {given}: there is no such backend. Expected: one of '
                            f'{", ".join(sorted(VISBACKENDS.module_dict))}.')
        refuse_missing_package(name)
        if not any(backend.get('type') == name for backend in backends):
            backends.append(ConfigDict(type=name))
    hook = cfg.default_hooks.get('visualization')
    if hook and hook.get('type') == 'SegVisualizationHook':
        cfg.default_hooks.visualization = dict(hook, type='SampleVisualizationHook', draw=True, samples=samples)
