"""Files of weights that may be hostile: what is checked before they are read, and all that comes out of them.

torch's ``weights_only=True`` is not enough. It trusts sizes that a file announces, and of the classes that a log buffer
of mmengine needs, ``numpy.dtype`` makes arrays of pointers of the file's choosing. So stand-ins take the place of numpy
and of mmengine while a file is unpickled, tensors are copied from the file's own bytes, and :class:`Plain` rebuilds the
rest from numbers and text.
"""
import contextlib
import math
import threading
import zipfile
from collections import Counter, OrderedDict
from pickle import UnpicklingError

import numpy as np
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer

# The first bytes of what torch.save writes: of a zip, and of the magic number in the format before torch 1.6.
ZIP_MAGIC = b'PK\x03\x04'
LEGACY_MAGIC = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
# Of lists and dicts in one another. A training checkpoint of mmengine has about ten.
DEEPEST = 64
# All tensors together are at most so many times the file: tied weights are two views of one storage. A view with
# strides of zero can have any number of elements, all of which somebody will read.
MOST_VIEWS = 8
# What the numbers of log buffers are, by numpy's name for it.
NUMBERS = dict(f8='<f8', f4='<f4', i8='<i8')


class Refused(UnpicklingError):
    """The file holds something else than weights; the message says what."""


# Stand-ins: what a pickle asks for by the names of numpy and mmengine


def known_as(path):
    """Decorate a stand-in: torch 2.4 finds what is safe by its ``__module__`` and ``__name__`` alone."""

    def rename(entry):
        entry.__module__, _, entry.__name__ = path.rpartition('.')
        entry.__qualname__ = entry.__name__
        return entry

    return rename


@known_as('numpy.dtype')
class Dtype:
    """One of :data:`NUMBERS`, in this machine's byte order."""

    def __init__(self, name, *_):
        if name not in NUMBERS:
            raise Refused(f'an array of {name!r}; expected one of {", ".join(NUMBERS)}')
        self.name = name

    def __setstate__(self, state):
        if state[1] != '<':
            raise Refused(f'an array of byte order {state[1]!r}; expected "<"')

    def numbers(self, shape, raw):
        if type(raw) is not bytes or not all(type(size) is int and size >= 0 for size in shape) \
                or len(raw) != math.prod(shape) * int(self.name[1]):
            raise Refused('an array whose size is not that of its bytes')
        return np.frombuffer(raw, NUMBERS[self.name]).reshape(shape).tolist()


@known_as('numpy.ndarray')
class Array:
    """Numbers as nested lists."""
    numbers = ()

    def __setstate__(self, state):
        _, shape, dtype, _, raw = state
        if type(dtype) is not Dtype:
            raise Refused('an array without a dtype')
        self.numbers = dtype.numbers(shape, raw)


@known_as('mmengine.logging.history_buffer.HistoryBuffer')
class LogBuffer:
    """The values of a log buffer of mmengine, and their counts."""

    def __setstate__(self, state):
        self.state = {name: state[name] for name in ('_log_history', '_count_history', 'max_length')}

    def rebuilt(self):
        values, counts, length = self.state.values()
        if not (type(values) is type(counts) is Array and type(length) is int and length > 0
                and len(values.numbers) == len(counts.numbers)):
            raise Refused('a log buffer that is no pair of equally long arrays')
        return HistoryBuffer(values.numbers, counts.numbers, length)


@known_as('builtins.getattr')
def statistic(owner, name):
    """Log buffers name their statistics, which every new buffer has by itself."""
    if owner is not LogBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise Refused(f'getattr({owner!r}, {name!r}) is not part of an mmengine log buffer')


@known_as('_codecs.encode')
def encode(text, encoding):
    """How protocol 2 writes bytes."""
    if encoding != 'latin1':
        raise Refused(f'text encoded as {encoding!r}; expected latin1')
    return text.encode('latin1')


@known_as('builtins.bytes')
def no_bytes():
    """How protocol 2 writes none, such as those of an array without numbers."""
    return b''


def new_array(*_):
    return Array()


def scalar(dtype, raw):
    if type(dtype) is not Dtype:
        raise Refused('a number without a dtype')
    return dtype.numbers((), raw)


def under_both_names(name, function):
    """A function of numpy as numpy 1 and numpy 2 name it."""
    return [known_as(f'{module}.multiarray.{name}')(lambda *args: function(*args))
            for module in ('numpy.core', 'numpy._core')]


STAND_INS = [Dtype, Array, LogBuffer, statistic, encode, no_bytes,
             *under_both_names('_reconstruct', new_array), *under_both_names('scalar', scalar)]
ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def stand_ins():
    """While a file is unpickled: nothing that others have declared safe in this process, and the stand-ins instead."""
    with ONE_AT_A_TIME:
        before = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(STAND_INS)
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)


# Before: is it what torch.save or safetensors writes, and no larger than it is?


def check_zip(path, size):
    """Refuse a zip that is not laid out as torch.save writes it: stored, not compressed, holding what it announces.

    Raises:
        Refused: It is not.
    """
    with zipfile.ZipFile(path) as archive:
        records, comment = archive.infolist(), archive.comment
    # Another reader of zips could find another table of contents, or the same bytes in several records.
    if comment or not records or min(record.header_offset for record in records) != 0:
        raise Refused('a zip that torch.save did not write')
    if any(record.filename.endswith('/constants.pkl') for record in records):
        raise Refused('TorchScript, which is a program')
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        announced = sum(record.file_size for record in records)
        raise Refused(f'compressed records that announce {announced} bytes in a file of {size}; torch.save '
                              'does not compress')
    if sum(record.file_size for record in records) > size:
        raise Refused('records that overlap')


def read_untrusted(path):
    """The content of a ``.pth`` or ``.safetensors`` file: tensors on the CPU, numbers, text, log buffers.

    Raises:
        Refused: It holds something else, or more than its size allows.
        Exception: It is damaged; what is raised depends on where.
    """
    size = path.stat().st_size
    if path.suffix == '.safetensors':
        return Plain(size)(safetensors.torch.load_file(path))
    with path.open('rb') as file:
        start = file.read(len(LEGACY_MAGIC))
    is_zip = start.startswith(ZIP_MAGIC)
    if is_zip:
        check_zip(path, size)
    # Other formats that torch.load knows, a tar for one, are not safe under weights_only before torch 2.6.
    elif start[2:] != LEGACY_MAGIC[2:]:
        raise ValueError(f'it begins with {start[:4]!r}, as nothing that torch.save writes')
    with stand_ins():
        # From mapped memory a storage cannot reach beyond the file, whatever size the pickle gives it.
        content = torch.load(str(path), map_location='cpu', weights_only=True, mmap=is_zip)
    return Plain(size)(content)


# After: nothing but tensors, numbers and text


class Plain:
    """Rebuilds a value from tensors, numbers and text, whatever object of the file claimed to be one.

    Args:
        size (int): Of the file in bytes: its tensors hold no more.
    """
    LEAVES = (type(None), bool, int, float, str, bytes, torch.Size, torch.dtype, torch.device)

    def __init__(self, size):
        self.bytes_left, self.viewed_left = size, MOST_VIEWS * size
        self.storages, self.done = {}, {}

    def __call__(self, value, depth=0):
        """``value`` built anew: containers of tensors, numbers and text, shared parts built once.

        Raises:
            Refused: It holds anything else, itself, or is nested too deeply.
        """
        kind = type(value)
        if kind in self.LEAVES:
            return value
        if depth > DEEPEST:
            raise Refused(f'objects nested more than {DEEPEST} deep')
        if id(value) not in self.done:
            self.done[id(value)] = None
            self.done[id(value)] = self.rebuilt(value, kind, depth + 1)
        elif self.done[id(value)] is None:
            raise Refused('an object that holds itself')
        return self.done[id(value)]

    def rebuilt(self, value, kind, depth):
        if kind in (torch.Tensor, torch.nn.Parameter):
            return self.tensor(value)
        if kind in (list, tuple, set):
            return kind(self(item, depth) for item in value)
        if kind in (dict, OrderedDict, Counter):
            # By the class: an object of the file may have an `items` of its own.
            new = kind((self(key, depth), self(item, depth)) for key, item in dict.items(value)) \
                if kind is not Counter else Counter(dict(self(item, depth) for item in dict.items(value)))
            metadata = vars(value).get('_metadata') if kind is OrderedDict else None
            if metadata is not None:
                new._metadata = self(metadata, depth)  # the versions of a state dict's modules
            return new
        if kind is Array:
            return value.numbers
        if kind is LogBuffer:
            return value.rebuilt()
        raise Refused(f'an object of type {kind.__name__}')

    def tensor(self, value):
        """A tensor without attributes, over a copy of its storage in memory of its own."""
        value = torch.Tensor.detach(value)
        if type(value) is not torch.Tensor or value.layout != torch.strided or value.device.type != 'cpu' \
                or value.is_quantized or value.is_neg() or value.is_conj():
            raise Refused('a tensor that is not dense, or on another device')
        self.viewed_left -= value.numel() * value.element_size()
        storage = value.untyped_storage()
        place = storage.data_ptr(), storage.nbytes()
        self.bytes_left -= 0 if place in self.storages else storage.nbytes()
        if self.bytes_left < 0 or self.viewed_left < 0:
            raise Refused('tensors that are larger than the file')
        if place not in self.storages:
            self.storages[place] = storage.clone()
        return torch.empty(0, dtype=value.dtype).set_(
            self.storages[place], value.storage_offset(), value.shape, value.stride())
