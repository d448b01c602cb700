"""InceptionNeXt for semantic segmentation. Importing this package registers the backbones with every mm framework."""
import importlib
import re

__version__ = '0.1.0'

REQUIREMENTS = dict(torch='2.4', timm='1.0', mmengine='0.10')


def check_requirement(name, wanted):
    """Import ``name`` and compare its version.

    Raises:
        ImportError: It is missing or too old; the message says which, the version found and the version wanted.
    """
    try:
        found = importlib.import_module(name).__version__
    except ImportError as error:
        raise ImportError(f'inceptionnext_seg needs {name} >= {wanted}, found none that can be imported ({error}). '
                          'Next: pip install inceptionnext-seg, or see "Installation" in the README.') from error

    def release(version):
        return [int(number) for number in re.findall(r'\d+', version)[:2]]

    if release(found) < release(wanted):
        raise ImportError(f'inceptionnext_seg needs {name} >= {wanted}, found {found}. '
                          'Next: see "Installation" in the README for the combinations that were tried.')


for _name, _wanted in REQUIREMENTS.items():
    check_requirement(_name, _wanted)

from .metanext import ConvNeXt, InceptionDWConv2d, InceptionNeXt, MetaNeXt  # noqa: E402

__all__ = ['ConvNeXt', 'InceptionDWConv2d', 'InceptionNeXt', 'MetaNeXt']
