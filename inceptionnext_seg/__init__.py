"""InceptionNeXt for semantic segmentation. Importing this package registers the backbones with every mm framework."""
import importlib
import re

__version__ = '0.1.0'


def require(**versions):
    """Import each module named and compare its version with the least one wanted: ``require(torch='2.4')``.

    Raises:
        ImportError: One is missing, cannot be imported or is too old; says which, the version found and that wanted.
    """
    for name, wanted in versions.items():
        try:
            found = importlib.import_module(name).__version__
        # AssertionError: upstream mmseg and mmdet assert the version of mmcv when they are imported.
        except (ImportError, AssertionError) as error:
            raise ImportError(f'inceptionnext_seg needs {name} >= {wanted}, found none that can be imported ({error}). '
                              'Next: see "Installation" in the README for the combinations that work.') from error
        if release(found) < release(wanted):
            raise ImportError(f'inceptionnext_seg needs {name} >= {wanted}, found {found}. '
                              'Next: see "Installation" in the README for the combinations that work.')


def release(version):
    """Major and minor number: '2.14.1+cu130' is [2, 14]."""
    return [int(number) for number in re.findall(r'\d+', version)[:2]]


require(torch='2.4', timm='1.0', mmengine='0.10')

from .ablations import PartialInceptionDWConv2d  # noqa: E402
from .deploy import fuse_for_inference  # noqa: E402
from .metanext import ConvNeXt, InceptionDWConv2d, InceptionNeXt, MetaNeXt  # noqa: E402
from .replace import replace_depthwise  # noqa: E402

__all__ = [
    'ConvNeXt', 'InceptionDWConv2d', 'InceptionNeXt', 'MetaNeXt', 'PartialInceptionDWConv2d', 'fuse_for_inference',
    'replace_depthwise'
]
