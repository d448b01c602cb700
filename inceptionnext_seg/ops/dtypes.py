"""Dtypes: those that the C++ kernels take, and those that operators compute in."""
import torch

# Dtypes of maps that C++ kernels read and write, and their suffixes in the names of C symbols.
SUFFIXES = {torch.float32: 'f32', torch.bfloat16: 'bf16', torch.float64: 'f64'}
# As csrc/inception_dwconv.cpp numbers them, and as csrc/upsampled_loss.cpp, which has no bfloat16, names them.
CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}
C_TYPES = {torch.float32: 'float', torch.float64: 'double'}
# Dtypes of maps that Triton kernels take; they sum in float32.
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def compute_dtype(dtype):
    """The dtype that maps of ``dtype`` are multiplied and summed in: float64 for float64, otherwise float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def label_dtype(classes):
    """The smallest dtype that has the numbers of all classes and one more."""
    return torch.uint8 if classes < 256 else torch.int16 if classes < 2**15 else torch.int32


def autocast_dtype(x):
    """The dtype in which a convolution of ``x`` computes here: autocast's where it is on, but float64 stays."""
    if x.dtype == torch.float64 or x.is_meta or not torch.is_autocast_enabled(x.device.type):
        return x.dtype
    return torch.get_autocast_dtype(x.device.type)


def why_no_kernel_dtype(x):
    """Why C++ kernels cannot take ``x``, or None: they take the dtypes of :data:`SUFFIXES`, on a CPU."""
    if x.device.type != 'cpu':
        return f'the input is on {x.device}, and the C++ kernels are for a CPU'
    if x.dtype not in SUFFIXES:
        return f'the input is {x.dtype}, and the C++ kernels take {", ".join(map(str, SUFFIXES))}'
    return None
