"""The command line's ``KEY=VALUE``, read as MMSegmentation's tools read it, and what they cannot read too."""
import ast
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction

from ..data.checks import datasets_of
from ..errors import UserError

OPENING = tuple('[({\'"')


class OptionsAction(DictAction):
    """mmengine's ``DictAction``: the same values from the same text, but for three things.

    - Spaces in a text stay, as in ``load_from='my run/iter_9.pth'``; mmengine takes them out.
    - Python's own notation is read as such: ``visualizer.vis_backends="[{'type': 'TensorboardVisBackend'}]"``, and
      a text in quotes is one text, though it has commas.
    - What is no ``KEY=VALUE`` or has brackets that do not match is an error of the command line.
    """

    def __call__(self, parser: ArgumentParser | None, namespace: Namespace, values: Sequence[str],
                 option_string: str | None = None) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for text in values:
            key, found, value = text.partition('=')
            if not key or not found:
                raise ArgumentError(self, f'{text!r} is not KEY=VALUE, such as train_cfg.max_iters=100')
            try:
                options[key] = parse_value(value)
            except AssertionError as error:
                raise ArgumentError(self, f'{text!r} has brackets that do not match') from error
        setattr(namespace, self.dest, options)


def parse_value(text: str) -> Any:
    """The value that stands for ``text`` on the command line."""
    if text.strip().startswith(OPENING):
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass  # such as [a, b], which mmengine reads as two texts
    elif ',' not in text:
        return DictAction._parse_int_float_bool(text.strip())
    return DictAction._parse_iterable(text)


def merge_options(cfg: Config, cfg_options: dict[str, Any]) -> None:
    """Override settings of a config, in place, as ``Config.merge_from_dict`` does.

    The place just behind a list's last adds to it: ``visualizer.vis_backends.1.type=TensorboardVisBackend``. Values
    without brackets, ``crop_size=128,128``, are a tuple where the config has one.

    Raises:
        UserError: A value cannot stand in the place of the one that is there.
    """
    for key, value in cfg_options.items():
        node, (*path, last) = cfg, key.split('.')
        for i, name in enumerate([*path, last]):
            if isinstance(node, list) and name.isdigit() and int(name) == len(node):
                node.append(ConfigDict() if i < len(path) else value)
            following = child(node, name)
            if i == len(path) and isinstance(following, tuple) and isinstance(value, list):
                value = tuple(value)
            node = following
        try:
            cfg.merge_from_dict({key: value})
        except (TypeError, KeyError, AttributeError) as error:
            reason = str(error.args[0] if error.args else error).split(' because ')[-1].split('. You may')[0]
            raise UserError(f'--cfg-options {key}={value!r} does not fit the config: {reason}.') from error


def child(node: Any, name: str) -> Any:
    """What a dict or a list has under a name or an index; None where it has nothing."""
    if isinstance(node, list | tuple):
        return node[int(name)] if name.isdigit() and int(name) < len(node) else None
    return node.get(name) if isinstance(node, dict | Config) else None


LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def set_data_root(cfg: Config, data_root: str) -> None:
    """Let every loader of a config read its files below ``data_root``: what ``--data-root`` does.

    Raises:
        UserError: The loaders read from several places, or none has a ``data_root``.
    """
    parts = {f'{name}.{path}': part for name in LOADERS for path, part in datasets_of(cfg.get(name))}
    roots = {str(part.get('data_root') or '').rstrip('/') for part in parts.values()}
    if len(roots) != 1:
        raise UserError(f'--data-root {data_root}: the loaders of this config read from '
                        f'{" and ".join(map(repr, sorted(roots))) or "nowhere"}; expected: one place for all. Next: '
                        f'--cfg-options {" ".join(f"{key}.data_root=PATH" for key in parts) or "train_dataloader=…"}')
    for part in parts.values():
        part.data_root = data_root
