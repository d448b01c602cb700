"""The minimum versions of what the package needs, compared with what is installed."""
import importlib
import re

NEXT = 'Next: see docs/installation.md for the combinations that work.'


def require(extra: str | None = None, **versions: str) -> None:
    """Import each module named and compare its version with the minimum: ``require(torch='2.4')``.

    Args:
        extra: The extra of pyproject.toml that installs them, where they are not dependencies of the package.
        versions: Major and minor version by the name to import.

    Raises:
        ImportError: One is missing, cannot be imported or is too old; says which, the version found and that expected.
    """
    next_step = f"Next: pip install -e '.[{extra}]' in the repository." if extra else NEXT
    for name, expected in versions.items():
        try:
            found = importlib.import_module(name).__version__
        # AssertionError: upstream mmseg and mmdet assert the version of mmcv when they are imported.
        except (ImportError, AssertionError) as error:
            raise ImportError(f'inceptionnext_seg needs {name} >= {expected}, found none that can be imported '
                              f'({error}). {next_step}') from error
        if release(found) < release(expected):
            raise ImportError(f'inceptionnext_seg needs {name} >= {expected}, found {found}. {next_step}')


def release(version: str) -> list[int]:
    """Major and minor number: '2.14.1+cu130' is [2, 14]."""
    return [int(number) for number in re.findall(r'\d+', version)[:2]]


require(torch='2.4', timm='1.0', mmengine='0.10')
