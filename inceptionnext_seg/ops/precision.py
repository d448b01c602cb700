"""Matrix products that stand for convolutions, in the precision that the user chose for convolutions.

On CUDA torch has one setting for the two: convolutions in float32 may use TF32 by default, matrix products may not. A
product in the place of a convolution follows the convolution's, whether faster or more exact.
"""
import contextlib

import torch

from ..provenance import convolutions_take_tf32, products_take_tf32


@contextlib.contextmanager
def products_as_convolutions(x):
    """Products in the block compute in the dtype that they are given, and in a convolution's precision.

    Neither autocast nor the precision of matrix products, which is as before afterwards, changes them. For the inside
    of registered operators: nothing of it is traced.

    Args:
        x (Tensor): Of the dtype and on the device of the products.
    """
    with contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
        if not has_tf32(x) or (tf32 := convolutions_take_tf32()) == products_take_tf32():
            yield
            return
        choose = keep_precision_of_products()
        try:
            choose(tf32)
            yield
        finally:
            choose(None)


def keep_precision_of_products():
    """A function that lets products take TF32 or not, and at None gives them the precision that they have now.

    Torch refuses to mix its newer settings with the older flag: a user's choice is kept in the form that it has.
    """
    matmul = torch.backends.cuda.matmul
    try:
        flag = torch.get_float32_matmul_precision()
    except RuntimeError:
        setting = matmul.fp32_precision
        return lambda tf32: setattr(
            matmul, 'fp32_precision', setting if tf32 is None else 'tf32' if tf32 else 'ieee')

    def choose(tf32):
        if tf32 is None and flag == 'medium':
            torch.set_float32_matmul_precision(flag)
        else:
            matmul.allow_tf32 = flag == 'high' if tf32 is None else tf32

    return choose


def has_tf32(x):
    return x.device.type == 'cuda' and x.dtype == torch.float32


def without_cached_casts(device):
    """Autocast as it is, but that it keeps no casts of weights, which a CUDA graph would not make anew.

    Args:
        device (str): Its type.
    """
    enabled = torch.is_autocast_enabled(device)
    return torch.autocast(device, torch.get_autocast_dtype(device), enabled=enabled, cache_enabled=False)
