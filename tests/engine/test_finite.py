"""A run that diverges stops where it does, says so, and leaves the checkpoint before it."""
import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn as nn
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from inceptionnext_seg.engine import finite
from inceptionnext_seg.engine.finite import FiniteHook
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.checkpoint import read_file
from inceptionnext_seg.ops import label_check
from inceptionnext_seg.ops.host_copy import HostCopy

CONFIG = 'configs/upernet_inceptionnext_a_camvid.py'
LR = 0.25


class Diverging(BaseModel):
    """Its loss is not finite at one iteration, counted from 1, or a gradient is while its loss is finite."""

    def __init__(self, loss_at=None, gradient_at=None, value=float('nan')):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.loss_at, self.gradient_at, self.value, self.seen = loss_at, gradient_at, value, 0

    def forward(self, inputs, data_samples, mode='tensor'):
        self.seen += 1
        loss = (self.weight * torch.stack(inputs)).square().mean()
        if self.seen == self.gradient_at:
            loss = loss + (self.weight - self.weight.detach()).sum().sqrt()  # 0, of infinite slope
        if self.seen == self.loss_at:
            loss = loss * self.value
        return dict(loss=loss, accuracy=torch.tensor(float('nan')))


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, i):
        return dict(inputs=torch.full((3, ), 1.), data_samples=SimpleNamespace(img_path=f'images/{i}.jpg'))


def build_runner(work_dir, model, max_iters=6, optim_wrapper=OptimWrapper, optimizer=torch.optim.AdamW, **settings):
    return Runner(
        model, work_dir=str(work_dir), log_level='WARNING', default_scope='mmengine', experiment_name=work_dir.name,
        train_dataloader=dict(batch_size=2, num_workers=0, dataset=Images(), collate_fn=dict(type='pseudo_collate'),
                              sampler=dict(type='InfiniteSampler', shuffle=False)),
        train_cfg=dict(by_epoch=False, max_iters=max_iters), optim_wrapper=optim_wrapper(
            optimizer(model.parameters(), lr=LR)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=1),
                           finite=dict(type='FiniteHook')), **settings)


def saved(work_dir):
    return sorted(path.name for path in work_dir.glob('*.pth'))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('iteration', [3, 4, 6])
def test_a_loss_that_is_not_finite_ends_the_run_at_once_with_its_place(tmp_path, value, iteration):
    with pytest.raises(UserError) as error:
        build_runner(tmp_path, Diverging(loss_at=iteration, value=value)).train()
    message = str(error.value)
    assert re.search(rf'iteration {iteration}\b.*loss is {value}', message)
    assert f'lr {LR}' in message
    assert f'images/{2 * iteration - 2}.jpg, images/{2 * iteration - 1}.jpg.' in message
    last = f'iter_{(iteration - 1) // 2 * 2}.pth'
    assert str(tmp_path / last) in message
    # A rate is not changed by resuming; clipping is.
    assert re.search(r'--resume with \S*clip_grad.*lr, in a new run: load_from=\S+ without --resume', message)
    assert saved(tmp_path) == [last]
    assert read_file(tmp_path / last)['state_dict']['weight'].isfinite().all()


@pytest.mark.parametrize('optimizer', [torch.optim.SGD, torch.optim.AdamW, lambda parameters, lr: torch.optim.AdamW(
    parameters, lr=lr, fused=True)])
def test_a_gradient_that_is_not_finite_ends_the_run_before_its_weights_are_saved(tmp_path, optimizer):
    with pytest.raises(UserError, match=r'iteration 4\b.*gradient.*images/6\.jpg, images/7\.jpg'):
        build_runner(tmp_path, Diverging(gradient_at=4), optimizer=optimizer).train()
    assert saved(tmp_path) == ['iter_2.pth']
    assert read_file(tmp_path / 'iter_2.pth')['state_dict']['weight'].isfinite().all()


def test_before_the_first_checkpoint_there_is_none_to_name(tmp_path):
    with pytest.raises(UserError, match=r'iteration 1\b.*checkpoint: none'):
        build_runner(tmp_path, Diverging(loss_at=1)).train()


def test_a_run_of_finite_losses_and_gradients_is_left_alone(tmp_path):
    build_runner(tmp_path, Diverging()).train()  # another output is NaN: a metric may be
    assert saved(tmp_path) == ['iter_6.pth']


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    model = Diverging()
    model.register_buffer('running_var', torch.tensor([1., float('inf')]))
    with pytest.raises(UserError, match='running_var'):
        build_runner(tmp_path, model).train()
    assert saved(tmp_path) == []


class ScaledOptimWrapper(OptimWrapper):
    """Steps as mmengine's AmpOptimWrapper does, which needs CUDA, with a scale that overflows at first."""

    def __init__(self, optimizer):
        super().__init__(optimizer)
        self.scaler = torch.amp.GradScaler('cpu', init_scale=2.**127)

    def backward(self, loss, **settings):
        self.scaler.scale(loss).backward(**settings)
        self._inner_count += 1

    def step(self, **settings):
        self.scaler.step(self.optimizer, **settings)
        self.scaler.update()


@pytest.mark.parametrize('fused', [False, True])
def test_a_step_that_a_gradient_scaler_skips_is_no_error(tmp_path, fused):
    runner = build_runner(
        tmp_path, Diverging(gradient_at=2), optim_wrapper=ScaledOptimWrapper,
        optimizer=lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, fused=fused))
    runner.train()
    assert runner.optim_wrapper.scaler.get_scale() < 2.**127
    assert runner.model.weight.isfinite().all()
    assert saved(tmp_path) == ['iter_6.pth']


def test_a_loss_that_is_not_finite_under_a_gradient_scaler_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r'iteration 3\b.*loss is nan'):
        build_runner(tmp_path, Diverging(loss_at=3), optim_wrapper=ScaledOptimWrapper).train()


class Later:
    """An event of a device that is an iteration behind."""

    def __init__(self):
        self.asked, self.waited = 0, False

    def query(self):
        self.asked += 1
        return self.asked > 1

    def synchronize(self):
        self.waited = True


def test_a_device_is_not_waited_for_and_the_iteration_is_still_the_right_one(tmp_path, monkeypatch):
    seen = []

    def copy_to_host(value):
        seen.append(Later())
        return HostCopy(value, seen[-1])

    monkeypatch.setattr(finite, 'copy_to_host', copy_to_host)
    model = Diverging(gradient_at=3)
    with pytest.raises(UserError, match=r'iteration 3\b.*gradient.*images/4\.jpg, images/5\.jpg'):
        build_runner(tmp_path, model, optimizer=torch.optim.SGD).train()
    assert model.seen == 4
    assert saved(tmp_path) == ['iter_2.pth']


def test_where_a_label_that_is_no_class_made_the_loss_nan_the_error_is_the_one_for_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(label_check, 'pending', [])
    model = Diverging(loss_at=3)
    forward = model.forward

    def with_a_wrong_label(*args, **kwargs):
        loss = forward(*args, **kwargs)
        wrong = 254 if model.seen == 3 else label_check.NONE_WRONG
        label_check.pending.append((HostCopy(torch.tensor(wrong), Later()), 150, 255))
        return loss
    monkeypatch.setattr(model, 'forward', with_a_wrong_label)
    with pytest.raises(UserError, match=r'no class: 254; expected 0 to 149, or 255'):
        build_runner(tmp_path, model).train()
    assert model.seen == 3 and saved(tmp_path) == ['iter_2.pth'] and not label_check.pending


def test_before_a_checkpoint_is_written_it_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(finite, 'copy_to_host', lambda value: HostCopy(value, Later()))
    with pytest.raises(UserError, match=r'iteration 2\b.*gradient'):
        build_runner(tmp_path, Diverging(gradient_at=2)).train()
    assert saved(tmp_path) == []


def test_hooks_of_a_run_that_ended_are_taken_off_its_optimizer(tmp_path):
    runner = build_runner(tmp_path, Diverging())
    runner.train()
    assert not runner.optim_wrapper.optimizer._optimizer_step_pre_hooks


def test_batches_without_names_and_long_lists_of_names_are_said_as_such():
    assert finite.image_names([torch.zeros(1)]) == []
    assert finite.image_names(dict(inputs=[], data_samples=[SimpleNamespace()])) == []
    assert finite.listed([str(i) for i in range(10)]).endswith('7 and 2 more')


def test_the_configs_have_the_hook_and_a_rate_that_is_too_high_is_one_message(
        call_tool, tiny_options, tiny_data, tmp_path):
    result = call_tool('train', CONFIG, '--work-dir', tmp_path, '--seed', 0, '--cfg-options', *tiny_options,
                       f'visualizer.name={tmp_path.name}', 'optim_wrapper.optimizer.lr=1e30',
                       'default_hooks.checkpoint.interval=1')
    assert result.returncode == 2, result.stderr[-3000:]
    assert 'Traceback' not in result.stderr
    error, = re.findall(r'^error: .*', result.stderr, re.M)
    iteration = int(re.search(r'iteration (\d+)', error)[1])
    assert iteration > 1
    assert f'{tiny_data}/images/training/' in error
    assert str(tmp_path / f'iter_{iteration - 1}.pth') in error
    assert saved(tmp_path) == [f'iter_{iteration - 1}.pth']
    assert read_file(tmp_path / f'iter_{iteration - 1}.pth')


def test_the_hook_comes_after_the_losses_are_fetched_and_before_what_keeps_or_changes_weights(tmp_path):
    runner = build_runner(tmp_path, Diverging(), custom_hooks=[dict(type='EMAHook')])
    names = [type(hook).__name__ for hook in runner.hooks]
    place = names.index(FiniteHook.__name__)
    assert names.index('RuntimeInfoHook') < place
    assert all(names.index(name) > place for name in ('EMAHook', 'ParamSchedulerHook', 'CheckpointHook'))
