"""Measuring before the first step of a run: what it leaves alone, what it tells other processes and checkpoints."""
import copy
import gc
import json
import multiprocessing
import os
import random
import shutil
import weakref
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.optim import OptimWrapper

from inceptionnext_seg.engine import accelerate_hook, measuring
from inceptionnext_seg.engine.accelerate_hook import AccelerateHook, accelerate_as_configured
from inceptionnext_seg.engine.measuring import measure_first_batch
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.checkpoint import read_file
from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import measured
from inceptionnext_seg.ops.batch_norm_act import batch_norm_act

TWO = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2')


class Model(BaseModel):
    """A batch norm in this package's operator, dropout, and a count in Python."""

    def __init__(self):
        super().__init__()
        self.norm, self.dropout, self.calls = nn.BatchNorm2d(3), nn.Dropout(), 0

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.calls += 1
        return dict(loss=self.dropout(batch_norm_act(self.norm, None, torch.stack(inputs))).sum())


@pytest.fixture
def measuring_is_on(tmp_path, monkeypatch):
    monkeypatch.setenv('INCEPTIONNEXT_SEG_MEASURE', '1')
    monkeypatch.setattr(native, 'cache_folder', lambda: tmp_path)
    monkeypatch.setattr(measured, 'TABLE', measured.Table())
    # torch is twice as fast, on every machine.
    monkeypatch.setattr(measured, 'time_forms', mock.Mock(
        side_effect=lambda forms, args, device: dict(dict.fromkeys(forms, 0.02), torch=0.01)))


@pytest.fixture
def runner():
    model = Model()
    optim_wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.))
    return SimpleNamespace(model=model, optim_wrapper=optim_wrapper, cfg=Config(), _resume=False, hooks=[])


BATCH = dict(inputs=[torch.randn(3, 8, 8) for _ in range(2)], data_samples=[None, None])


def random_numbers():
    return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002


def seed():
    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002


def test_a_run_is_the_same_with_and_without_measuring_before_it(measuring_is_on, runner):
    before, batch = copy.deepcopy(runner.model.state_dict()), copy.deepcopy(BATCH)
    seed()
    expected = random_numbers()
    seed()
    measure_first_batch(runner, BATCH, 'loss')
    assert measured.time_forms.called == (native.why_not('batch_norm') is None)
    assert random_numbers() == expected
    assert all(value.equal(before[name]) for name, value in runner.model.state_dict().items())
    assert runner.model.calls == 0 and all(p.grad is None for p in runner.model.parameters())
    assert all(map(torch.equal, BATCH['inputs'], batch['inputs']))


def test_on_a_gpu_peak_memory_counts_from_after_measuring_without_the_copy(measuring_is_on, runner, monkeypatch):
    copies, calls, device = weakref.WeakSet(), [], torch.device('cuda', 1)
    forward = Model.forward
    monkeypatch.setattr(Model, 'forward', lambda self, *args, **kwargs: (
        copies.add(self) or forward(self, *args, **kwargs)))
    monkeypatch.setattr(measuring, 'device_of', lambda model: device)
    monkeypatch.setattr(measured, 'accelerator', str)
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: calls.append((len(copies), gc.collect())[0]))
    monkeypatch.setattr(torch.cuda, 'reset_peak_memory_stats', calls.append)
    measure_first_batch(runner, BATCH, 'loss')
    assert calls == [0, device]
    measure_first_batch(runner, BATCH, 'loss')      # nothing is measured
    assert calls == [0, device]


def test_the_second_run_does_not_even_run_the_model(measuring_is_on, runner):
    measure_first_batch(runner, BATCH, 'loss')
    measured.TABLE.clear()
    with mock.patch.object(Model, 'forward') as forward:
        measure_first_batch(runner, BATCH, 'loss')
        assert not forward.called
        measure_first_batch(runner, dict(BATCH, inputs=[torch.randn(3, 9, 8)] * 2), 'loss')
        assert forward.called


class Parts:
    """The part of a training loop that accumulates gradients over two halves of a batch."""

    @staticmethod
    def split(data_batch):
        return [{key: value[i:i + 1] for key, value in data_batch.items()} for i in range(2)]


def test_of_a_batch_that_the_model_takes_in_parts_one_part_is_measured(measuring_is_on, runner, monkeypatch):
    """The whole one may need more memory than there is."""
    sizes, forward = [], Model.forward
    monkeypatch.setattr(Model, 'forward', lambda self, inputs, *args, **kwargs: (
        sizes.append(len(inputs)) or forward(self, inputs, *args, **kwargs)))
    runner.train_loop, hook = Parts(), AccelerateHook()
    hook.before_run(runner)
    hook.before_train_iter(runner, 0, BATCH)
    assert sizes == [1]


class InSeveralSizes(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list


def test_of_a_multi_scale_test_the_largest_version_is_measured(measuring_is_on, runner, monkeypatch):
    shapes, forward = [], Model.forward
    monkeypatch.setattr(Model, 'forward', lambda self, inputs, *args, **kwargs: (
        shapes.append(inputs[0].shape) or forward(self, inputs, *args, **kwargs)))
    runner.model = InSeveralSizes(runner.model)
    measure_first_batch(runner, dict(
        inputs=[(torch.randn(3, side, 8), ) for side in (8, 16, 4)], data_samples=[(None, )] * 3), 'predict')
    assert shapes == [(3, 16, 8)]


def test_deterministic_and_compiled_runs_are_not_measured(measuring_is_on, runner):
    with mock.patch('torch.are_deterministic_algorithms_enabled', return_value=True):
        measure_first_batch(runner, BATCH, 'loss')
    runner.cfg = Config(dict(compile=True))
    measure_first_batch(runner, BATCH, 'loss')
    assert not measured.time_forms.called


def test_a_model_that_cannot_be_copied_or_run_trains_unmeasured(measuring_is_on, runner):
    with mock.patch.object(Model, 'forward', side_effect=KeyError('boom')):
        measure_first_batch(runner, BATCH, 'loss')
    with mock.patch.object(Model, '__deepcopy__', side_effect=TypeError, create=True):
        measure_first_batch(runner, BATCH, 'loss')
    assert not measured.time_forms.called
    measure_first_batch(runner, BATCH, 'loss')      # nothing was remembered of what failed
    assert measured.time_forms.called == (native.why_not('batch_norm') is None)


def rank_measures(rank, folder, broken, runner):
    """In a process of its own: a rank that is ``broken`` cannot copy the model, or run it."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    if broken and broken[0] == rank:
        setattr(Model, broken[1], mock.Mock(side_effect=TypeError('boom')))
    lines = []
    measuring.print_log = lambda line, *args: lines.append(line)
    try:
        measure_first_batch(runner, BATCH, 'loss')
    except Exception as error:      # the other's is that nobody answers
        lines.append(f'ended: {error}')
    else:
        torch.distributed.barrier()     # nobody waits for anything else
    (folder / f'{rank}.json').write_text(json.dumps([lines, list(measured.TABLE.measured)]))
    # Not through what the tests' process does when it ends.
    os._exit(0)


def two_ranks(folder, broken, runner):
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=rank_measures, args=(rank, folder, broken, runner)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        process.kill()
    return [json.loads((folder / f'{rank}.json').read_text()) for rank in range(2)]


@pytest.mark.parametrize('broken', [None, (0, '__deepcopy__'), (1, '__deepcopy__'), (0, 'forward')], ids=str)
def test_where_one_of_two_processes_fails_none_waits_for_it(measuring_is_on, runner, tmp_path, broken):
    native.why_not('batch_norm')
    (lines, known), (others_lines, others_known) = two_ranks(tmp_path, broken, runner)
    assert known == others_known
    if broken is None:
        assert len(known) == (native.why_not('batch_norm') is None)
    elif broken[1] == 'forward':    # as its first step would
        assert lines[-1] == 'ended: boom' and 'ended' in others_lines[0] and not known
    else:
        assert 'boom' in lines[0] and 'boom' in others_lines[0] and not known


def test_a_resumed_run_takes_the_forms_of_its_checkpoint_and_another_run_does_not(runner):
    hook, forms = AccelerateHook(), {'batch_norm_act x': 'torch'}
    hook.before_run(runner)
    hook.after_load_checkpoint(runner, dict(operator_choices=forms))
    assert not measured.TABLE.pinned
    runner._resume = True
    hook.after_load_checkpoint(runner, dict(operator_choices=forms))
    assert forms == measured.TABLE.pinned
    hook.before_run(runner)
    assert not measured.TABLE.pinned
    with pytest.raises(UserError, match='operator_choices'):
        hook.after_load_checkpoint(runner, dict(operator_choices=['torch']))
    AccelerateHook(measure=False).after_load_checkpoint(runner, dict(operator_choices=forms))
    assert not measured.TABLE.pinned


def test_an_evaluation_by_several_processes_measures_nothing_and_takes_what_is_known(
        measuring_is_on, runner, monkeypatch):
    norm, x = nn.BatchNorm2d(3), torch.randn(2, 3, 8, 8)
    with measured.measuring():
        batch_norm_act(norm, None, x)
    known = set(measured.TABLE.measured)
    measured.time_forms.reset_mock()
    monkeypatch.setattr(accelerate_hook, 'get_world_size', lambda: 2)
    hook = AccelerateHook()
    hook.before_run(runner)
    assert measured.TABLE.is_empty
    hook.before_test_iter(runner, 0, BATCH)
    assert set(measured.TABLE.measured) == known and not measured.time_forms.called
    hook.before_run(runner)
    measured.pin({'batch_norm_act x': 'torch'})     # as of a run that goes on
    hook.before_val_iter(runner, 0, BATCH)
    assert not measured.TABLE.measured


def test_what_is_left_unmeasured_is_told_and_the_model_is_measured_again(measuring_is_on, runner, monkeypatch):
    if native.why_not('batch_norm'):
        pytest.skip('no C++ compiler')
    lines, ticks = [], iter(range(0, 10**6, 100))
    monkeypatch.setattr(measuring, 'print_log', lambda line, *args: lines.append(line))
    monkeypatch.setattr(measured, 'clock', lambda: next(ticks))
    runner.model.norm = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    monkeypatch.setattr(Model, 'forward', lambda self, inputs, *args, **kwargs: dict(loss=sum(
        batch_norm_act(norm, None, torch.stack(inputs)[..., i:]).sum() for i, norm in enumerate(self.norm))))
    measure_first_batch(runner, BATCH, 'loss')
    assert f'{measured.PATIENCE:.0f} s' in lines[0] and '1 were left' in lines[-1] and '1 operators' in lines[-1]
    measure_first_batch(runner, BATCH, 'loss')
    assert '1 operators' in lines[-1] and 'left' not in lines[-1]


@pytest.mark.slow
def test_two_processes_take_the_forms_that_the_first_has_measured(run_command, root, tiny_options, tmp_path,
                                                                  monkeypatch):
    """As each writes them into a checkpoint: the first one's, with what is in use."""
    monkeypatch.setenv('INCEPTIONNEXT_SEG_MEASURE', '1')
    # A table of its own, beside the libraries that are compiled already.
    if native.why_not('batch_norm') is None:
        compiled = native.private_folder(native.cache_folder())
        shutil.copytree(compiled, tmp_path / 'cache' / compiled.name, ignore=shutil.ignore_patterns('choices*'))
        (tmp_path / 'cache').chmod(0o700)
    monkeypatch.setenv('INCEPTIONNEXT_SEG_CACHE', str(tmp_path / 'cache'))
    script = tmp_path / 'train.py'
    script.write_text(f'''
import os, sys, runpy, json
from inceptionnext_seg.ops import measured
if os.environ['RANK'] == '0':
    measured.time_forms = lambda forms, args, device: dict(dict.fromkeys(forms, 0.02), torch=0.01)
else:
    measured.time_forms = None
sys.path.insert(0, {str(root / "tools")!r})
runpy.run_path({str(root / "tools/train.py")!r}, run_name='__main__')
json.dump(measured.exported(), open({str(tmp_path)!r} + '/' + os.environ['RANK'] + '.json', 'w'))
''')
    done = run_command(script, root / 'configs/upernet_inceptionnext_a_camvid.py', '--launcher', 'pytorch',
                       '--work-dir', tmp_path / 'run', '--cfg-options', *tiny_options, 'train_cfg.total_batch_size=4',
                       'auto_scale_lr.base_batch_size=4', launcher=TWO)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = ((tmp_path / f'{rank}.json').read_text() for rank in range(2))
    assert first == second and len(first) > 100
    assert 'operators measured in' in done.stdout + done.stderr
    saved = read_file(tmp_path / 'run/iter_4.pth')['operator_choices']
    assert set(saved.values()) == {'torch'}
    metrics, = (tmp_path / 'run').glob('*/metrics.json')
    assert {choice['form'] for choice in json.loads(metrics.read_text())['operator_choices']} == {'torch'}


@pytest.mark.parametrize('measure', [True, False])
def test_a_model_without_a_runner_takes_the_forms_of_earlier_runs_unless_its_config_measures_nothing(
        measuring_is_on, measure):
    norm, x = nn.BatchNorm2d(3), torch.randn(2, 3, 8, 8)
    with measured.measuring():
        batch_norm_act(norm, None, x)
    measured.TABLE.clear()          # what another process begins with
    hook = dict(type='AccelerateHook', measure=measure)
    accelerate_as_configured(nn.Conv2d(3, 3, 1), Config(dict(default_hooks=dict(accelerate=hook))))
    assert measured.TABLE.is_empty != measure
