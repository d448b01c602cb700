"""Checkpoints with random content, and random damage to it that knows the format."""
import io
import itertools
import json
import pickle
import pickletools
import resource
import struct
import time
import zipfile
from collections import Counter, OrderedDict

import hypothesis.strategies as st
import numpy as np
import pytest
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.checkpoint import read_file

from .running import fuzzed

# A file of a few kilobytes may take no more than this.
SECONDS, BYTES = 5, 256 << 20
PLAIN = (type(None), bool, int, float, str, bytes, torch.Size, torch.dtype, torch.device)

# Contents

tensors = st.builds(
    lambda dtype, shape, view: torch.ones(shape).to(dtype).t() if view and len(shape) == 2 else
    torch.ones(shape).to(dtype),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]),
    st.lists(st.integers(0, 3), max_size=3), st.booleans())
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-2**40, 2**40), st.floats(-1e300, 1e300), st.text(max_size=5),
    st.binary(max_size=5), tensors, st.builds(np.float64, st.floats(-1, 1)),
    st.builds(np.arange, st.floats(0, 3)), st.just(HistoryBuffer([1., 2.], [1, 1], max_length=5)),
    st.just(Counter({3: 1})))
contents = st.dictionaries(st.text(max_size=4), st.recursive(leaves, lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple),
    st.dictionaries(st.one_of(st.integers(0, 9), st.text(max_size=3)), inner, max_size=3),
    st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict)), max_leaves=8), max_size=4)


def same(found, content):
    """Whether what was read is what was written, as plain values."""
    if isinstance(content, torch.Tensor):
        return type(found) is torch.Tensor and found.dtype == content.dtype and torch.equal(found, content)
    if isinstance(content, HistoryBuffer):
        return all(map(np.array_equal, found.data, content.data))
    if isinstance(content, np.ndarray | np.generic):
        return found == content.tolist()
    if isinstance(content, dict):
        return type(found) is type(content) and found.keys() == content.keys() and all(
            same(found[key], value) for key, value in content.items())
    if isinstance(content, list | tuple):
        return type(found) is type(content) and len(found) == len(content) and all(map(same, found, content))
    return type(found) is type(content) and found == content


def assert_plain(value):
    """Nothing but tensors, numbers, text and log buffers, in plain containers."""
    if type(value) in (dict, OrderedDict, Counter):
        for item in value.items():
            assert_plain(item)
    elif type(value) in (list, tuple, set):
        for item in value:
            assert_plain(item)
    elif type(value) is torch.Tensor:
        assert value.layout == torch.strided and value.device.type == 'cpu' and not vars(value)
        value.sum() if value.numel() else None      # every element can be read
    else:
        assert type(value) in (*PLAIN, HistoryBuffer), type(value)


# Damage

NAMES = (
    'os system', 'posix system', 'builtins eval', 'builtins exec', 'builtins getattr', 'builtins setattr',
    'subprocess Popen', 'importlib import_module', 'torch load', 'torch.hub load', 'torch jit', 'torch Tensor',
    'torch.storage UntypedStorage', 'torch FloatStorage', 'torch._utils _rebuild_tensor_v2',
    'torch._utils _rebuild_parameter', 'torch._utils _rebuild_parameter_with_state',
    'torch._utils _rebuild_sparse_tensor', 'torch._utils _rebuild_qtensor',
    'torch._utils _rebuild_meta_tensor_no_storage', 'torch._utils _rebuild_device_tensor_from_numpy',
    'torch._utils _rebuild_nested_tensor', 'torch._utils _rebuild_wrapper_subclass',
    'torch._tensor _rebuild_from_type_v2', 'torch.serialization _get_layout', 'torch.nn.parameter Parameter',
    'collections OrderedDict', 'collections Counter', 'numpy dtype', 'numpy ndarray',
    'numpy._core.multiarray _reconstruct', 'numpy._core.multiarray scalar', 'numpy.core.multiarray _reconstruct',
    '_codecs encode', 'mmengine.logging.history_buffer HistoryBuffer', 'torch bfloat16', 'torch Size')
ARGUMENTS = (b')', b'(t', b'N\x85', b'K\x01\x85', b'X\x02\x00\x00\x00f8\x89\x88\x87', b'}', b'\x8a\x08' + b'\x7f' * 8,
             b'(X\x07\x00\x00\x00storageNNNNt', b'K\x00K\x01\x86', b'X\x06\x00\x00\x00latin1')
CODES = (b'R', b'b', b'0', b'Q', b'2', b'(', b't', b'u', b's', b'e', b'a', b'd', b'l', b'}', b']', b')', b'N', b'\x85',
         b'\x81', b'.', b'h\x00', b'q\x00', b'r\xff\xff\xff\x7f', b'X\xff\xff\xff\xff', b'B\xff\xff\xff\x7f',
         b'\x8a\xff', b'\x8b\xff\xff\xff\x7f', b'J\xff\xff\xff\x7f', b'\x95\xff\xff\xff\xff\xff\xff\xff\x7f', b'P0\n')


def call_of(name, arguments):
    module, name = name.split()
    return f'c{module}\n{name}\n'.encode() + arguments


pieces = st.one_of(
    st.sampled_from(CODES), st.sampled_from(ARGUMENTS), st.binary(min_size=1, max_size=3),
    st.builds(call_of, st.sampled_from(NAMES), st.sampled_from([b'', *(a + b'R' for a in ARGUMENTS)])),
    st.builds(lambda call, state: call + state + b'b', st.builds(call_of, st.sampled_from(NAMES),
              st.sampled_from([a + b'R' for a in ARGUMENTS])), st.sampled_from(ARGUMENTS)),
    st.just(b'MARK'))
edits = st.lists(st.tuples(st.sampled_from(['insert', 'delete', 'replace', 'swap', 'flip']), st.integers(0, 10**6),
                           st.integers(0, 10**6), pieces), min_size=1, max_size=4)


def opcodes(pickled):
    """A pickle as a list of bytes, an opcode with its argument each."""
    places = [place for _, _, place in pickletools.genops(pickled)] + [len(pickled)]
    return [pickled[begin:end] for begin, end in itertools.pairwise(places)]


def edited(parts, changes, mark):
    """The list of opcodes with some of them changed; MARK is a call that makes a file, and leaves nothing else."""
    command = f'touch {mark}'.encode()
    call = b'cposix\nsystem\nX' + struct.pack('<I', len(command)) + command + b'\x85R0'
    for kind, i, j, piece in changes:
        if not parts:
            break
        i, j, piece = i % len(parts), j % len(parts), call if piece == b'MARK' else piece
        if kind == 'insert':
            parts.insert(i, piece)
        elif kind == 'delete':
            del parts[i]
        elif kind == 'replace':
            parts[i] = piece
        elif kind == 'swap':
            parts[i], parts[j] = parts[j], parts[i]
        else:
            parts[i] = flipped(parts[i], j)
    return b''.join(parts)


def flipped(content, number):
    if not content:
        return content
    place = number // 8 % len(content)
    return content[:place] + bytes([content[place] ^ 1 << number % 8]) + content[place + 1:]


def with_pickle(content, change):
    """The bytes of a zip that torch.save wrote, with another pickle in it, and right lengths and checksums."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, 'w') as target:
        for record in source.infolist():
            data = source.read(record)
            target.writestr(record.filename, change(data) if record.filename.endswith('data.pkl') else data)
    return out.getvalue()


def written(content, kind):
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=kind == 'zip')
    return out.getvalue()


def legacy_with_pickle(content, change):
    """As :func:`with_pickle` for the format before torch 1.6: pickles one after another, of which the fourth holds."""
    stream, ends = io.BytesIO(content), [0]
    for _ in range(4):
        for _ in pickletools.genops(stream):
            pass
        ends.append(stream.tell())
    return content[:ends[3]] + change(content[ends[3]:ends[4]]) + content[ends[4]:]


def read_carefully(path, content):
    """What a file is read as, or the UserError; nothing else, and within time and memory."""
    path.write_bytes(content)
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        found = read_file(path)
    except UserError as error:
        assert str(path) in str(error) and len(str(error)) < 2000
        found = error
    else:
        assert_plain(found)
    assert time.process_time() - begin < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < BYTES >> 10
    return found


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('bytes')


@fuzzed(short=20, share=0.02, content=contents, kind=st.sampled_from(['zip', 'legacy']))
def test_what_was_written_is_read_as_plain_values(folder, content, kind):
    assert same(read_carefully(folder / 'a.pth', written(content, kind)), content)


@fuzzed(short=60, share=0.08, content=contents, kind=st.sampled_from(['zip', 'legacy']), changes=edits)
def test_a_changed_pickle_is_refused_or_holds_plain_values_and_runs_nothing(folder, content, kind, changes):
    change = with_pickle if kind == 'zip' else legacy_with_pickle
    content = change(written(content, kind), lambda pickled: edited(opcodes(pickled), changes, folder / 'mark'))
    read_carefully(folder / 'a.pth', content)
    assert not (folder / 'mark').exists()


@fuzzed(short=40, share=0.05, content=contents, kind=st.sampled_from(['zip', 'legacy']), cut=st.integers(0, 10**6),
        flips=st.lists(st.integers(0, 10**6), max_size=4))
def test_a_file_that_is_cut_short_or_has_wrong_bits_is_refused_or_holds_plain_values(folder, content, kind, cut, flips):
    content = written(content, kind)
    for number in flips:
        content = flipped(content, number)
    if not flips or cut % 2:
        content = content[:cut % len(content)]
    read_carefully(folder / 'a.pth', content)


def safe(state):
    return safetensors.torch.save({name: x.contiguous() for name, x in state.items()})


@fuzzed(short=20, share=0.02, state=st.dictionaries(st.text(max_size=3), tensors, max_size=3),
        header=st.lists(st.tuples(st.sampled_from(['dtype', 'shape', 'data_offsets']), st.one_of(
            st.lists(st.integers(-1, 2**62), max_size=3), st.sampled_from(['F64', 'BF16', 7, None]))), max_size=2),
        flips=st.lists(st.integers(0, 10**6), max_size=2))
def test_a_changed_safetensors_file_is_refused_or_holds_tensors(folder, state, header, flips):
    content = safe(state)
    size, = struct.unpack('<Q', content[:8])
    described = json.loads(content[8:8 + size])
    for (key, value), entry in zip(header, described.values(), strict=False):
        entry[key] = value
    text = json.dumps(described).encode()
    content = struct.pack('<Q', len(text)) + text + content[8 + size:]
    for number in flips:
        content = flipped(content, number)
    read_carefully(folder / 'a.safetensors', content)


def test_the_mark_that_these_tests_look_for_is_left_by_a_reader_that_is_not_careful(tmp_path):
    pickled = edited(opcodes(pickle.dumps({'a': 1}, 2)), [('insert', 1, 0, b'MARK')], tmp_path / 'mark')
    assert pickle.loads(pickled) == {'a': 1} and (tmp_path / 'mark').exists()
