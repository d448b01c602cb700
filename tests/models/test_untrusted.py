"""Checkpoints made to harm: pickles written by hand, sizes that are not true, and what is read all the same."""
import collections
import io
import json
import struct
import subprocess
import sys
import tarfile
import time
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.checkpoint import read_file


class Pickle:
    """Bytes of a pickle of protocol 2, written by hand: ``Pickle().call('os.system', 'true').bytes()``."""

    def __init__(self):
        self.parts = [b'\x80\x02']

    def value(self, value):
        if isinstance(value, Pickle):
            self.parts += value.parts[1:]
        elif value is None:
            self.parts.append(b'N')
        elif isinstance(value, bool):
            self.parts.append(b'\x88' if value else b'\x89')
        elif isinstance(value, int):
            raw = value.to_bytes(9, 'little', signed=True)
            self.parts.append(b'\x8a\x09' + raw)
        elif isinstance(value, str):
            self.parts.append(b'X' + struct.pack('<I', len(value.encode())) + value.encode())
        elif isinstance(value, bytes):
            self.call('_codecs.encode', value.decode('latin1'), 'latin1')
        elif isinstance(value, tuple):
            self.parts.append(b'(')
            for item in value:
                self.value(item)
            self.parts.append(b't')
        elif isinstance(value, dict):
            self.parts.append(b'}(')
            for item in value.items():
                self.value(item[0]).value(item[1])
            self.parts.append(b'u')
        return self

    def name(self, path):
        module, _, name = path.rpartition('.')
        self.parts.append(f'c{module}\n{name}\n'.encode())
        return self

    def call(self, function, *arguments):
        self.name(function).value(arguments).parts.append(b'R')
        return self

    def build(self, state):
        self.value(state).parts.append(b'b')
        return self

    def storage(self, kind, key, count):
        self.value(('storage', Pickle().name(f'torch.{kind}'), key, 'cpu', count)).parts.append(b'Q')
        return self

    def tensor(self, count, key='0', size=None, kind='FloatStorage'):
        size = (count, ) if size is None else size
        return self.call('torch._utils._rebuild_tensor_v2', Pickle().storage(kind, key, count), 0, size,
                         (1, ) * len(size), False, Pickle().call('collections.OrderedDict'))

    def bytes(self):
        return b''.join(self.parts) + b'.'


def write_zip(path, pickle, records=(), compression=zipfile.ZIP_STORED):
    """A checkpoint of torch.save's layout with ``pickle`` and storages ``records`` (name, content)."""
    with zipfile.ZipFile(path, 'w', compression) as archive:
        archive.writestr('archive/data.pkl', pickle if isinstance(pickle, bytes) else pickle.bytes())
        archive.writestr('archive/byteorder', b'little')
        for name, content in records:
            archive.writestr(f'archive/data/{name}', content)
        archive.writestr('archive/version', b'3\n')
    return path


def read_and_print(*paths):
    """Read and print checkpoints in another process, which may crash; for each: refused or not, MiB, seconds."""
    script = '''
import resource, sys, time
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.checkpoint import read_file
for path in sys.argv[1:]:
    before, start, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), 0
    try:
        print(read_file(path)['w']['a'], file=sys.stderr)
    except UserError:
        refused = 1
    print(refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10, time.perf_counter() - start)
'''
    run = subprocess.run([sys.executable, '-c', script, *map(str, paths)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, f'exit status {run.returncode}: {run.stderr[-2000:]}'
    return [tuple(map(float, line.split())) for line in run.stdout.splitlines()]


DOUBLE = Pickle().call('numpy.dtype', 'f8', False, True)


def array(dtype, shape, raw):
    return Pickle().call('numpy._core.multiarray._reconstruct', Pickle().name('numpy.ndarray'), (0, ), b'b').build(
        (1, shape, dtype, False, raw))


def array_of_pointers():
    """Object pointers of the file's choosing, in field 'a': a copied dtype takes any state, and ndarray any bytes."""
    fields = {'a': (Pickle().call('numpy.dtype', 'O', False, True), 0)}
    state = (3, '|', None, ('a', ), fields, 8, 8, 0)
    return array(Pickle().call('numpy.dtype', 'f8', False, True).build(state), (1, ), b'A' * 8)


@pytest.mark.parametrize('value', [
    array_of_pointers(),
    Pickle().call('numpy.dtype', 'O', False, True),
    Pickle().call('numpy._core.multiarray.scalar', Pickle().call('numpy.dtype', 'O', False, True), b'A' * 8),
    Pickle().call('numpy._core.multiarray.scalar', DOUBLE, b'A' * 7),
    array(DOUBLE, (1 << 40, ), b'A' * 8),
    array(DOUBLE, (-1, -1), b'A' * 8),
    Pickle().call('numpy.dtype', 'f8', False, True).build((3, '>', None, None, None, -1, -1, 0)),
    Pickle().call('builtins.getattr', Pickle().name('numpy.ndarray'), 'mean'),
    Pickle().name('torch.Tensor'),
], ids=lambda value: '')
def test_of_numpy_nothing_comes_through_but_plain_numbers(tmp_path, value):
    path = write_zip(tmp_path / 'a.pth', Pickle().value({'w': value}))
    with pytest.raises(UserError, match=str(path)):
        read_file(path)


def test_what_is_read_is_tensors_numbers_and_text_alone(tmp_path):
    scheduler = collections.Counter({3: 1})
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.note = 'an attribute'
    content = dict(array=np.arange(6.).reshape(2, 3), number=np.float64(2.5), count=np.int64(3), parameter=parameter,
                   milestones=scheduler, nested=[(1, 2.5, 'text', None, True)],
                   state=collections.OrderedDict(weight=torch.ones(2, dtype=torch.bfloat16)))
    content['state']._metadata = collections.OrderedDict({'': dict(version=1)})
    torch.save(content, tmp_path / 'a.pth')
    found = read_file(tmp_path / 'a.pth')
    assert found['array'] == [[0, 1, 2], [3, 4, 5]] and type(found['number']) is float and type(found['count']) is int
    assert type(found['parameter']) is torch.Tensor and not hasattr(found['parameter'], 'note')
    assert type(found['milestones']) is collections.Counter and found['milestones'] == scheduler
    assert found['nested'] == content['nested'] and found['state']._metadata == content['state']._metadata
    assert torch.equal(found['state']['weight'], content['state']['weight'])


def test_tensors_share_and_view_memory_as_they_did(tmp_path):
    x = torch.arange(12.).view(3, 4)
    torch.save(dict(whole=x, view=x.t()[1:], same=x, expanded=x[0, :1].expand(5)), tmp_path / 'a.pth')
    found = read_file(tmp_path / 'a.pth')
    assert torch.equal(found['view'], x.t()[1:]) and found['view'].stride() == (1, 4) and found['expanded'].numel() == 5
    found['whole'].fill_(7)
    assert (found['view'] == 7).all() and found['same'] is found['whole']


def test_a_tensor_that_was_read_does_not_change_with_its_file(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(w=torch.ones(1000)), path)
    found = read_file(path)['w']
    path.write_bytes(bytes(path.stat().st_size))
    assert (found == 1).all()


def test_a_state_dict_with_an_attribute_for_a_method_is_read_as_the_dict_that_it_is(tmp_path):
    state = Pickle().call('collections.OrderedDict', ).build({'items': 'no method', '_metadata': None})
    path = write_zip(tmp_path / 'a.pth', Pickle().value({'state_dict': state}))
    assert read_file(path) == {'state_dict': {}} and list(read_file(path)['state_dict'].items()) == []


def test_log_buffers_are_new_ones_and_register_nothing(tmp_path):
    buffer = HistoryBuffer([1., 2.], [1, 1], max_length=7)
    torch.save(dict(log=buffer), tmp_path / 'a.pth')
    before = dict(HistoryBuffer._statistics_methods)
    found = read_file(tmp_path / 'a.pth')['log']
    found.update(5.)
    assert found.data[0].tolist() == [1., 2., 5.] and found.max_length == 7 and found.statistics('max') == 5
    assert HistoryBuffer._statistics_methods == before


def test_a_log_buffer_without_values_is_read(tmp_path):
    torch.save(dict(log=HistoryBuffer(), none=b''), tmp_path / 'a.pth')
    found = read_file(tmp_path / 'a.pth')
    assert len(found['log'].data[0]) == 0 and found['none'] == b''


def test_what_others_declared_safe_is_not_safe_here_and_stays_theirs(tmp_path):
    torch.save(dict(buffer=collections.deque([1])), tmp_path / 'a.pth')
    others = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([collections.deque])
    try:
        before = set(torch.serialization.get_safe_globals())
        with pytest.raises(UserError, match='deque'):
            read_file(tmp_path / 'a.pth')
        assert set(torch.serialization.get_safe_globals()) == before
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


# Sizes


GIB = 1 << 30


def bomb(path, kind):
    """Small files that announce gigabytes."""
    pickle = Pickle().value({'w': Pickle().tensor(GIB)}).bytes()
    if kind == 'deflated':
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr('archive/data.pkl', pickle)
            with archive.open('archive/data/0', 'w', force_zip64=True) as file:
                for _ in range(16):
                    file.write(bytes(1 << 24))
            archive.writestr('archive/version', b'3\n')
        # As if it were 4.3 GB: sizes are what the directory says.
        content = path.read_bytes()
        path.write_bytes(content.replace(struct.pack('<Q', 1 << 28), struct.pack('<Q', 4 * GIB)))
    elif kind == 'pickled size':
        write_zip(path, pickle, [('0', bytes(64))])
    elif kind == 'tensor beyond its storage':
        write_zip(path, Pickle().value({'w': Pickle().tensor(16, size=(GIB, ))}), [('0', bytes(64))])
    elif kind == 'overlapping records':
        write_zip(path, Pickle().value({'w': 1}), [('0', bytes(1 << 16)), ('1', bytes(1 << 16))])
        content = bytearray(path.read_bytes())
        first, second = content.rfind(b'archive/data/0'), content.rfind(b'archive/data/1')
        content[first - 46 + 42:first - 46 + 46] = content[second - 46 + 42:second - 46 + 46]
        content[first - 46 + 20:first - 46 + 28] = struct.pack('<II', 4 * GIB - 2, 4 * GIB - 2)
        path.write_bytes(content)
    elif kind == 'legacy':
        torch.save(dict(w=torch.zeros(16)), path, _use_new_zipfile_serialization=False)
        content = path.read_bytes()
        assert content.count(b'K\x10') == 2
        path.write_bytes(content.replace(b'K\x10', b'\x8a\x05' + struct.pack('<Q', GIB)[:5]))
    elif kind == 'safetensors':
        path = path.with_suffix('.safetensors')
        header = json.dumps(dict(w=dict(dtype='F32', shape=[GIB], data_offsets=[0, 4 * GIB]))).encode()
        path.write_bytes(struct.pack('<Q', len(header)) + header + bytes(64))
    elif kind == 'safetensors header':
        path = path.with_suffix('.safetensors')
        path.write_bytes(struct.pack('<Q', 1 << 40) + b'{}')
    return path


@pytest.mark.parametrize('kind', ['deflated', 'pickled size', 'tensor beyond its storage', 'overlapping records',
                                  'legacy', 'safetensors', 'safetensors header'])
def test_a_file_that_announces_more_than_it_holds_is_refused_at_once(tmp_path, kind):
    path = bomb(tmp_path / 'bomb.pth', kind)
    assert path.stat().st_size < 5e6
    start = time.perf_counter()
    with pytest.raises(UserError, match=str(path)):
        read_file(path)
    assert time.perf_counter() - start < 1


def test_pointers_crash_nothing_and_a_bomb_takes_no_memory(tmp_path):
    pointers = write_zip(tmp_path / 'pointers.pth', Pickle().value({'w': array_of_pointers()}))
    for refused, mib, seconds in read_and_print(pointers, bomb(tmp_path / 'bomb.pth', 'deflated')):
        assert refused and mib < 100 and seconds < 1


def test_a_storage_does_not_reach_beyond_its_file(tmp_path):
    """Reading past the end would show the process's own memory."""
    path = write_zip(tmp_path / 'a.pth', Pickle().value({'w': Pickle().tensor(100_000)}), [('0', bytes(64))])
    with pytest.raises(UserError):
        read_file(path)


def test_many_views_of_one_record_are_not_counted_as_more_than_the_file(tmp_path):
    names = {f'w{i}': Pickle().tensor(1000, key=str(i)) for i in range(100)}
    path = write_zip(tmp_path / 'a.pth', Pickle().value(names), [(str(i), bytes(4)) for i in range(100)]
                     + [('rest', bytes(8000))])
    with pytest.raises(UserError, match='larger than the file'):
        read_file(path)


def test_a_view_with_more_elements_than_any_file_is_refused(tmp_path):
    torch.save(dict(w=torch.zeros(1).expand(10**12)), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='larger than the file'):
        read_file(tmp_path / 'a.pth')


def nested(depth):
    return b'\x80\x02' + b']' * depth + b'a' * (depth - 1) + b'.'


@pytest.mark.parametrize('pickle', [
    nested(100_000), b'\x80\x02]q\x00h\x00a.', b'\x80\x02}q\x00(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00u.'],
    ids=['deep', 'list in itself', 'dict in itself'])
def test_objects_nested_without_end_are_refused(tmp_path, pickle):
    path = write_zip(tmp_path / 'a.pth', pickle)
    with pytest.raises(UserError, match=f'{path} holds more than weights .*(nested|itself)'):
        read_file(path)


def test_an_object_named_twice_a_hundred_times_over_is_read_once(tmp_path):
    pickle = b'\x80\x02]q\x00' + b''.join(
        b']' + b'q' + bytes([i + 1]) + b'(h' + bytes([i]) + b'h' + bytes([i]) + b'e' for i in range(50)) + b'.'
    start = time.perf_counter()
    read_file(write_zip(tmp_path / 'a.pth', pickle))
    assert time.perf_counter() - start < 1


# Other formats


def test_a_tar_is_no_checkpoint(tmp_path):
    """torch < 2.6 unpickled it freely in spite of ``weights_only=True``."""
    path = tmp_path / 'a.pth'
    with tarfile.open(path, 'w') as archive:
        for name in ('storages', 'tensors', 'pickle'):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b'N.\n'))
    with pytest.raises(UserError, match='cannot be read'):
        read_file(path)


def test_torchscript_is_a_program_and_no_checkpoint(tmp_path):
    torch.jit.script(torch.nn.ReLU()).save(str(tmp_path / 'a.pth'))
    with pytest.raises(UserError, match='TorchScript'):
        read_file(tmp_path / 'a.pth')
