"""The configs of the package, found by name from any folder.

They lie in ``.mim/configs`` of the package, where ``mim`` and mmengine's ``package::config`` look for them: in a wheel
as files, in a checkout as a link to ``configs/``.
"""
import difflib
import functools
from pathlib import Path
from typing import Any

from mmengine.config.utils import MODULE2PACKAGE

from .errors import UserError

PREFIX = 'inceptionnext_seg::'
PACKAGE = Path(__file__).resolve().parent
# Folders of configs that other frameworks train with their own tools.
OTHER_FRAMEWORKS = dict(classification='MMPretrain', detection='MMDetection')

# mmengine takes the bases `package::folder/config.py` of a config from the packages in this table, and has no other way
# to name one. It asks for a folder: `_base_ = ['inceptionnext_seg::_base_/upernet.py']`.
MODULE2PACKAGE.setdefault('inceptionnext_seg', 'inceptionnext_seg')


def drop_scope(settings: Any) -> None:
    """Take out of a config, in place, the scope that mmengine adds to what such a base gives: the types in it are those
    of MMSegmentation's scope, and no registry has the name of this package."""
    if isinstance(settings, dict):
        if settings.get('_scope_') == 'inceptionnext_seg':
            del settings['_scope_']
        settings = list(settings.values())
    if isinstance(settings, list | tuple):
        for value in settings:
            drop_scope(value)


def config_folder() -> Path:
    """The folder of the configs. A checkout on a system without symbolic links has them beside the package alone."""
    linked = PACKAGE / '.mim/configs'
    return linked if linked.is_dir() else PACKAGE.parent / 'configs'


@functools.cache
def configs() -> dict[str, Path]:
    """The file of every config that this package trains, by name, sorted; those of ``_base_`` are parts of others."""
    return {name: path for name, path in all_configs().items() if framework_of(path) is None}


@functools.cache
def all_configs() -> dict[str, Path]:
    """As :func:`configs`, with those of :data:`OTHER_FRAMEWORKS`."""
    folder = config_folder()
    # Not rglob: before Python 3.13 it does not say whether it follows links.
    paths = [*folder.glob('*.py'), *folder.glob('[!_]*/*.py')]
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


def framework_of(path: Path) -> str | None:
    """The other framework that a config of the package is for, None where this package trains it."""
    found = all_configs().get(path.stem)
    # A path of a checkout leads beside the link in the package, and may be relative.
    same = found is not None and (path == found or path.resolve() == found.resolve())
    return OTHER_FRAMEWORKS.get(found.parent.name) if same else None


def find_config(name: str | Path) -> Path:
    """The file of a config that is given by path or by name.

    Args:
        name (str | Path): The path of a file, which comes first; or the name of a config of the package, as
            ``upernet_inceptionnext_t_ade20k``, with or without ``inceptionnext_seg::`` before it, its folder, and
            ``.py`` after it.

    Raises:
        UserError: There is neither such a file nor such a config. Names the nearest ones.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    text = str(name).removeprefix(PREFIX)
    # A path that was mistyped is not replaced by a config of the same name, which may be another.
    if str(name).startswith(PREFIX) or not (path.is_absolute() or text.startswith(('.', '~'))):
        *folders, last = Path(text).parts
        found = all_configs().get(last.removesuffix('.py'))
        home = ['configs', *found.relative_to(config_folder()).parts[:-1]] if found else None
        if found and (not folders or home[-len(folders):] == folders):
            return found
    near = difflib.get_close_matches(Path(text).name.removesuffix('.py'), all_configs(), 3)
    raise UserError(f'config not found: {path.absolute()}. Expected: a file, or the name of a config of the package, '
                    f'such as {", ".join(near) or "upernet_inceptionnext_t_ade20k"}. Next: `inceptionnext-seg list` '
                    'lists their names.')
