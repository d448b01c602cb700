"""Settings that no part of a run reads: a misspelled one would do nothing, so each is an error with the nearest known.

A config file has variables too, such as ``crop_size``, ``norm_cfg`` or ``train_pipeline``, which its own settings
use. A top-level name that no part of a run reads is taken for a setting only where its value, if a dict or a list, is
nowhere among the settings, and

- the name is close to a setting's, as ``custom_hook`` or ``modle``; or
- the value is a component, that is, has a ``type``, and the file itself gives it and does not use it: what a base file
  gives may have been used there and replaced since.
"""
import ast
import difflib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from mmseg.registry import METRICS
from mmseg.registry import MODELS as MODELS_OF_MMSEG

from ..errors import UserError

# What the runner, the tools and mmengine's loading of a config read of it.
SETTINGS_OF_A_RUN = {
    *inspect.signature(Runner).parameters, 'activation_checkpointing', 'auto_scale_lr', 'compile', 'custom_imports',
    'efficient_conv_bn_eval', 'find_unused_parameters', 'model_wrapper_cfg', 'sync_bn', 'tta_model', 'tta_pipeline'}

# What OpenMMLab's own config files call variables: some give them and use them no more.
VARIABLES = {'norm_cfg', 'train_pipeline', 'val_pipeline', 'test_pipeline'}

# Sections that are read key by key, so that an unknown key would do nothing.
SECTIONS = {
    'env_cfg': {'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit'},
    'env_cfg.mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'auto_scale_lr': {'base_batch_size', 'enable'},
    'randomness': {'deterministic', 'diff_rank_seed', 'seed'},
    # The segmentors read mode, crop_size and stride, the accelerated one keep_logits and windows_at_once, PointHead the
    # others.
    'model.test_cfg': {'crop_size', 'keep_logits', 'mode', 'stride', 'scale_factor', 'subdivision_num_points',
                       'subdivision_steps', 'windows_at_once'},
}
# Packages whose classes read no more than their sections and signatures say.
KNOWN_PACKAGES = ('inceptionnext_seg', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg')


def nearest(name: str, known: Any, cutoff: float = 0.6) -> str | None:
    return next(iter(difflib.get_close_matches(name, sorted(known), 1, cutoff)), None)


def is_component(value: Any) -> bool:
    """Whether a value is a config of something to build, or a list of such."""
    if isinstance(value, dict):
        return 'type' in value
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(is_component, value))


def is_part_of(value: Any, whole: Any) -> bool:
    """Whether ``whole`` has what ``value`` has: the same, or, for dicts, those keys and more."""
    if isinstance(value, dict) and isinstance(whole, dict):
        return all(key in whole and is_part_of(part, whole[key]) for key, part in value.items())
    return value == whole


def nodes(tree: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """``(path, value)`` of everything below a dict or list."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in items:
        below = f'{path}.{key}' if path else str(key)
        yield below, value
        yield from nodes(value, below)


def is_read(name: str, cfg: Config) -> bool:
    """Whether a run reads the top-level ``name`` of a config."""
    # The runner gives it to a model that has none of its own.
    if name == 'data_preprocessor' and (cfg.get('model') or {}).get(name):
        return False
    return name in SETTINGS_OF_A_RUN


def settings_of(cfg: Config) -> dict[str, Any]:
    """What a run reads of a config, without its variables."""
    return {name: value for name, value in cfg.to_dict().items() if is_read(name, cfg)}


def uses(cfg: Config, name: str) -> list[str]:
    """The settings that have the value of the variable ``name``, and those of this name."""
    value = cfg.to_dict().get(name)
    return [path for path, found in nodes(settings_of(cfg)) if path.rpartition('.')[2] == name
            or (isinstance(value, dict | list | tuple) and value and is_part_of(value, found))]


def unused_names(path: str | Path) -> set[str]:
    """The top-level names that a config file gives and does not use itself, without those of its bases."""
    if Path(path).suffix != '.py':
        return set()
    names = [node for node in ast.walk(ast.parse(Path(path).read_text(encoding='utf-8'))) if isinstance(node, ast.Name)]
    return {node.id for node in names if isinstance(node.ctx, ast.Store)} - {
        node.id for node in names if isinstance(node.ctx, ast.Load)}


def check_names(cfg: Config, path: str | Path) -> None:
    """Look at the top-level names of a config file, before options change it.

    Raises:
        UserError: One is neither a setting of a run nor a variable that the file uses.
    """
    unused, settings = unused_names(path), settings_of(cfg)
    for name, value in cfg.to_dict().items():
        if name in settings or name in VARIABLES:
            continue
        container = isinstance(value, dict | list | tuple)
        if name in SETTINGS_OF_A_RUN:  # data_preprocessor beside the model's own
            suspect, close = name in unused, f'model.{name}'
        else:
            close = nearest(name, SETTINGS_OF_A_RUN, 0.75 if container else 0.85)
            suspect = close or (name in unused and is_component(value))
            close = close or nearest(name, SETTINGS_OF_A_RUN)
        if suspect and not (container and any(is_part_of(value, found) for _, found in nodes(settings))):
            raise UserError(f'config {path}: no part of a run reads {name!r}, and no setting has its value. Expected: '
                            f'{close or ", ".join(sorted(settings))}. Next: correct the name, or remove it.')


def check_options(cfg: Config, cfg_options: dict[str, Any]) -> None:
    """A key of ``--cfg-options`` that nothing reads would silently do nothing: its path must exist, its end aside.

    Raises:
        UserError: It does not, or it is a variable of the file, which the settings have copied already, or the batch
            size of one process, which the loop of the run sets.
    """
    for key in cfg_options:
        name, _, rest = key.partition('.')
        if key == 'train_dataloader.batch_size' and (cfg.get('train_cfg') or {}).get('type') == 'TotalBatchTrainLoop':
            total = cfg.train_cfg.get('total_batch_size')
            raise UserError(f'--cfg-options {key} would do nothing: TotalBatchTrainLoop sets it to the share that each '
                            f'process has of train_cfg.total_batch_size, which is {total}. Next: '
                            'train_cfg.total_batch_size=N, the images of an iteration over all processes, which the '
                            'learning rate follows; or, for fewer at once in memory, train_cfg.micro_batch_size=N.')
        if not is_read(name, cfg):
            found = [f'{path}.{rest}'.rstrip('.') for path in uses(cfg, name)[:3]]
            close = nearest(name, SETTINGS_OF_A_RUN & set(cfg))
            expected = f'{close!r}' if close else f'one of {", ".join(sorted(SETTINGS_OF_A_RUN & set(cfg)))}'
            all_at_once = ' (--data-root sets all of them)' if key == 'data_root' else ''
            raise UserError(f'--cfg-options {key}: no part of a run reads {name!r}. ' + (
                f'A variable of the config file is read there alone. Next: set it where it is used: '
                f'{", ".join(found)}{all_at_once}.' if found else f'Expected: {expected}.'))
        node = cfg
        for name in key.split('.')[:-1]:
            if isinstance(node, (list, tuple)) and name.isdigit() and int(name) < len(node):
                node = node[int(name)]
            elif isinstance(node, list) and name == str(len(node)):
                break  # added to the list
            elif isinstance(node, dict | Config) and name in node:
                node = node[name]
            elif node is None or takes_setting(node, name) or (node is cfg and name in SETTINGS_OF_A_RUN):
                break
            else:
                known = (', '.join(sorted(node)) or 'nothing' if isinstance(node, dict | Config) else
                         f'0 to {len(node) - 1}, or {len(node)} to add to them' if isinstance(node, list) else
                         f'no keys ({node!r})')
                raise UserError(f'--cfg-options {key}: the config has no {name!r} there. It has: {known}.')


def takes_setting(node: Any, name: str) -> bool:
    """Whether ``node`` is the config of a backbone of ours, or of an optimizer's wrapper, that has a setting ``name``,
    though it does not give it."""
    if not isinstance(node, dict) or not isinstance(node.get('type'), str):
        return False
    known = MODELS.get(node['type']) or OPTIM_WRAPPERS.get(node['type'])
    return known is not None and name in arguments_of(known)


def check_sections(cfg: Config) -> None:
    """Look at the sections whose unknown keys would do nothing, and at what an evaluator's metrics take.

    Raises:
        UserError: A key is unknown there.
    """
    settings = settings_of(cfg)
    for path, found in nodes(settings):
        if path in SECTIONS and isinstance(found, dict) and not (path.startswith('model.') and has_foreign_head(cfg)):
            refuse_unknown(path, found, SECTIONS[path])
    for name in ('val_evaluator', 'test_evaluator'):
        evaluator = settings.get(name)
        if isinstance(evaluator, dict) and 'metrics' in evaluator:
            name, evaluator = f'{name}.metrics', evaluator['metrics']
        metrics = {name: evaluator} if isinstance(evaluator, dict) else {
            f'{name}.{i}': metric for i, metric in enumerate(evaluator or ())}
        for path, metric in metrics.items():
            cls = METRICS.get(metric['type']) if isinstance(metric, dict) and isinstance(
                metric.get('type'), str) else None
            if cls is not None and not inspect.isclass(cls):    # mmengine imports a module of that name
                raise UserError(f'{path}.type is {metric["type"]!r}; expected: a metric, such as IoUMetric. Next: '
                                f'correct it in the config, or --cfg-options {path}.type=…')
            if cls is not None and cls.__module__.partition('.')[0] in KNOWN_PACKAGES:
                refuse_unknown(path, metric, arguments_of(cls))


def arguments_of(cls: Any) -> set[str]:
    """What the constructors of a class and of its bases, or a function, take by name."""
    if not inspect.isclass(cls):
        return set(inspect.signature(cls).parameters)
    return {name for base in cls.__mro__ if '__init__' in vars(base) and base is not object
            for name in inspect.signature(base.__init__).parameters} - {'self', 'args', 'kwargs'}


def has_foreign_head(cfg: Config) -> bool:
    """Whether a decode head comes from elsewhere: the segmentor hands ``test_cfg`` to it, which may read anything."""
    heads = cfg.model.get('decode_head') or ()
    classes = [MODELS_OF_MMSEG.get(str(head.get('type'))) for head in (heads if isinstance(heads, list) else [heads])]
    return not all(cls is not None and cls.__module__.partition('.')[0] in KNOWN_PACKAGES for cls in classes)


def refuse_unknown(path: str, found: dict[str, Any], known: set[str]) -> None:
    for name in found:
        if name not in known and name not in ('type', '_scope_'):
            close = nearest(name, known)
            expected = f'{path}.{close}' if close else f'one of {", ".join(sorted(known))}'
            raise UserError(f'the config has {path}.{name} = {found[name]!r}, which no part of a run reads. Expected: '
                            f'{expected}. Next: correct the name, or remove it.')
