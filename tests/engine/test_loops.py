"""Batches of many processes against one full batch in plain torch."""
import os
import socket

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from inceptionnext_seg.engine import loops
from inceptionnext_seg.engine.ddp import AnyDeviceDistributedDataParallel
from inceptionnext_seg.errors import UserError

LR, MOMENTUM = 0.05, 0.9


class Regression(BaseModel):
    """A float64 network without BatchNorm: its gradient of a batch is the mean of its images' gradients."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).double()

    def forward(self, inputs, target, mode='tensor'):
        return dict(loss=F.mse_loss(self.network(torch.stack(inputs)), torch.stack(target)))


class Points(torch.utils.data.Dataset):
    """24 points, drawn once."""

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(24, 5, generator=generator, dtype=torch.float64)
        self.targets = torch.randn(24, 1, generator=generator, dtype=torch.float64)

    def __len__(self):
        return 24

    def __getitem__(self, i):
        return dict(inputs=self.inputs[i], target=self.targets[i])


class CountingSGD(torch.optim.SGD):
    steps = 0

    def step(self, closure=None):
        self.steps += 1
        return super().step(closure)


class LearningRates(Hook):
    """The learning rate of each iteration, and the iteration numbers that hooks see."""

    def __init__(self):
        self.rates, self.iterations = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.rates += runner.optim_wrapper.get_lr()['lr']
        self.iterations.append((batch_idx, runner.iter))


def build_runner(work_dir, micro_batch_size=None, total_batch_size=8, max_iters=3, shuffle=False, fit_schedules=False,
                 **settings):
    model = Regression()
    hook = LearningRates()
    runner = Runner(
        model, work_dir=str(work_dir), log_level='WARNING', default_scope='mmengine',
        experiment_name=f'{work_dir.name}_{micro_batch_size}_{max_iters}',
        train_dataloader=dict(batch_size=1, num_workers=0, dataset=Points(), collate_fn=dict(type='pseudo_collate'),
                              sampler=dict(type='InfiniteSampler', shuffle=shuffle)),
        train_cfg=dict(type='TotalBatchTrainLoop', total_batch_size=total_batch_size,
                       micro_batch_size=micro_batch_size, max_iters=max_iters, fit_schedules=fit_schedules),
        optim_wrapper=OptimWrapper(CountingSGD(model.parameters(), lr=LR, momentum=MOMENTUM)),
        param_scheduler=dict(type='PolyLR', power=1.0, eta_min=0., begin=0, end=11, by_epoch=False),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3)),
        custom_hooks=[hook], randomness=dict(seed=0), **settings)
    return runner, hook


def train_in_plain_torch(iterations, batch_size, lr=LR):
    """SGD with momentum on full batches in the order of the data, the rate falling linearly to 0 at iteration 10."""
    model, data = Regression().network, Points()
    momenta, rates, losses = [torch.zeros_like(p) for p in model.parameters()], [], []
    for iteration in range(iterations):
        chosen = torch.arange(iteration * batch_size, (iteration + 1) * batch_size) % 24
        loss = (model(data.inputs[chosen]) - data.targets[chosen]).square().mean()
        gradients = torch.autograd.grad(loss, model.parameters())
        rates.append(lr * (1 - iteration / 10))
        losses.append(loss.item())
        with torch.no_grad():
            for parameter, momentum, gradient in zip(model.parameters(), momenta, gradients, strict=True):
                momentum.mul_(MOMENTUM).add_(gradient)
                parameter.sub_(rates[-1] * momentum)
    return model, rates, losses


def assert_same_weights(found, expected, tolerance):
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize('micro_batch_size', [None, 8, 4, 3, 1])
def test_accumulated_gradients_train_as_the_full_batch_does(tmp_path, micro_batch_size):
    runner, hook = build_runner(tmp_path, micro_batch_size)
    runner.train()
    expected, rates, losses = train_in_plain_torch(3, 8)
    assert_same_weights(runner.model.network, expected, 1e-10)
    assert hook.rates == pytest.approx(rates, abs=1e-15)
    assert runner.optim_wrapper.optimizer.steps == 3
    assert hook.iterations == [(0, 0), (1, 1), (2, 2)]
    assert runner.message_hub.get_scalar('train/loss').data[0] == pytest.approx(losses, rel=1e-6)
    # The largest divisor of the share that is not above what was asked for: 3 gives 2.
    assert runner.train_loop.accumulations == {None: 1, 8: 1, 4: 2, 3: 4, 1: 8}[micro_batch_size]


@pytest.mark.parametrize('micro_batch_size', [None, 2])
def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not_been(tmp_path, micro_batch_size):
    whole, _ = build_runner(tmp_path / 'whole', micro_batch_size, max_iters=5, shuffle=True)
    whole.train()
    build_runner(tmp_path / 'parts', micro_batch_size, max_iters=3, shuffle=True)[0].train()
    resumed, hook = build_runner(
        tmp_path / 'parts', micro_batch_size, max_iters=5, shuffle=True, resume=True,
        load_from=str(tmp_path / 'parts/iter_3.pth'))
    resumed.train()
    assert hook.iterations == [(3, 3), (4, 4)]
    assert hook.rates == pytest.approx([LR * 0.7, LR * 0.6])
    assert resumed.optim_wrapper.optimizer.steps == 2
    assert_same_weights(resumed.model.network, whole.model.network, 0)


class Weighted(nn.Module):
    """The settings of mmseg's CrossEntropyLoss and its heads, that a batch in parts depends on."""

    def __init__(self, **settings):
        super().__init__()
        vars(self).update(dict(class_weight=None, avg_non_ignore=False, sampler=None), **settings)


@pytest.mark.parametrize(('settings', 'micro_batch_size', 'named'), [
    (dict(class_weight=[1., 3.]), 4, 'loss_decode.class_weight'), (dict(avg_non_ignore=True), 4, 'avg_non_ignore'),
    (dict(sampler=object()), 4, 'sampler'), (dict(class_weight=[1., 3.]), None, None), ({}, 4, None)])
def test_a_loss_that_depends_on_the_parts_of_a_batch_is_told_once(
        tmp_path, monkeypatch, settings, micro_batch_size, named):
    logged = []
    monkeypatch.setattr(loops, 'print_log', lambda text, *_: logged.append(text))
    runner, _ = build_runner(tmp_path, micro_batch_size)
    runner.model.loss_decode = Weighted(**settings)
    runner.train()
    told = [text for text in logged if 'objective' in text]
    assert len(told) == (named is not None)
    assert not told or (f'{named}' in told[0] and '2 parts' in told[0])


def test_a_run_of_another_length_trains_with_the_rates_of_its_own_and_logs_it(tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(loops, 'print_log', lambda text, *_: logged.append(text))
    runner, hook = build_runner(tmp_path, max_iters=5, fit_schedules=True)
    runner.train()
    assert hook.rates == pytest.approx([LR * (1 - i / 4) for i in range(5)])
    assert Config.fromstring(runner.cfg.pretty_text, '.py').param_scheduler[0].end == 5
    assert [text for text in logged if 'PolyLR.end 11 → 5' in text]


def test_a_checkpoint_of_another_length_is_not_resumed_unless_its_schedule_is_to_stay(tmp_path):
    build_runner(tmp_path, max_iters=3, fit_schedules=True)[0].train()
    again = dict(max_iters=5, resume=True, load_from=str(tmp_path / 'iter_3.pth'))
    with pytest.raises(UserError, match=r'PolyLR.* 3.*max_iters is 5.*max_iters=3.*fit_schedules=False'):
        build_runner(tmp_path, fit_schedules=True, **again)[0].train()
    runner, hook = build_runner(tmp_path, fit_schedules=False, **again)
    runner.train()
    assert hook.iterations == [(3, 3), (4, 4)]


@pytest.mark.parametrize(('processes', 'micro_batch_size', 'share', 'accumulations'), [
    (1, None, 16, 1), (2, None, 8, 1), (4, None, 4, 1), (8, None, 2, 1), (1, 4, 16, 4), (2, 4, 8, 2), (4, 4, 4, 1),
    (8, 4, 2, 1), (2, 3, 8, 4)])
def test_processes_share_the_batch_and_the_learning_rate_stays(
        tmp_path, monkeypatch, processes, micro_batch_size, share, accumulations):
    monkeypatch.setattr(loops, 'get_world_size', lambda: processes)
    runner, _ = build_runner(tmp_path, micro_batch_size, total_batch_size=16,
                             auto_scale_lr=dict(enable=True, base_batch_size=16))
    monkeypatch.setattr(type(runner), 'world_size', processes)
    loop = runner.train_loop
    assert (loop.dataloader.batch_size, loop.accumulations) == (share, accumulations)
    runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
    assert runner.optim_wrapper.get_lr()['lr'] == [LR]


def test_the_learning_rate_follows_another_total_batch_size(tmp_path):
    runner, hook = build_runner(tmp_path, 2, total_batch_size=4, auto_scale_lr=dict(enable=True, base_batch_size=16))
    runner.train()
    expected, rates, _ = train_in_plain_torch(3, 4, LR * 4 / 16)
    assert hook.rates == pytest.approx(rates)
    assert_same_weights(runner.model.network, expected, 1e-10)


def test_a_batch_that_the_processes_cannot_share_is_an_error_that_names_the_next_that_they_can(tmp_path, monkeypatch):
    monkeypatch.setattr(loops, 'get_world_size', lambda: 3)
    runner, _ = build_runner(tmp_path, total_batch_size=16)
    with pytest.raises(UserError, match=r'\b16\b.*\b3\b.*train_cfg\.total_batch_size=18'):
        runner.train_loop  # noqa: B018  a property that builds


def test_a_micro_batch_of_no_image_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r'micro_batch_size is 0'):
        build_runner(tmp_path, 0)[0].train_loop  # noqa: B018  a property that builds


def test_settings_that_the_loop_would_ignore_are_errors(tmp_path):
    runner, _ = build_runner(tmp_path, 2)
    for wrapper in (dict(optimizer=dict(type='SGD', lr=LR), accumulative_counts=4),
                    OptimWrapper(CountingSGD(runner.model.parameters(), lr=LR), accumulative_counts=4)):
        runner.optim_wrapper = wrapper
        with pytest.raises(UserError, match=r'accumulative_counts is 4.*micro_batch_size 2.*total_batch_size=32'):
            runner.build_train_loop(runner._train_loop)
    runner, _ = build_runner(tmp_path / 'forward')
    runner._train_loop['fast_forward_on_resume'] = True
    with pytest.raises(UserError, match=r'fast_forward_on_resume'):
        runner.train()


# Two processes


class Normalizing(Regression):
    """With a SyncBatchNorm, of which only the running statistics are used later, beside the loss."""

    def __init__(self):
        super().__init__()
        self.norm = nn.SyncBatchNorm(5, dtype=torch.float64, momentum=0.5)

    def forward(self, inputs, target, mode='tensor'):
        loss = super().forward(inputs, target)
        return dict(loss, loss_norm=0 * self.norm(torch.stack(inputs)).sum())


def train_in_a_process(rank, folder, processes, port, micro_batch_sizes):
    """Three iterations of 8 points over ``processes``; each writes its weights, statistics and losses."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), MASTER_ADDR='localhost',
                      MASTER_PORT=str(port))
    torch.distributed.init_process_group('gloo')
    for micro_batch_size in micro_batch_sizes:
        runner = build_distributed_runner(folder, micro_batch_size)
        runner.train()
        torch.save(dict(state=runner.model.module.state_dict(), losses=runner.message_hub.get_scalar(
            'train/loss').data[0].tolist()), folder / f'rank{rank}_micro{micro_batch_size}.pth')
    torch.distributed.destroy_process_group()


def build_distributed_runner(folder, micro_batch_size):
    runner = Runner(
        Normalizing(), work_dir=str(folder), log_level='WARNING', default_scope='mmengine',
        experiment_name=f'micro{micro_batch_size}', launcher='pytorch',
        cfg=dict(model_wrapper_cfg=dict(type='AnyDeviceDistributedDataParallel')),
        train_dataloader=dict(batch_size=1, num_workers=0, dataset=Points(), collate_fn=dict(type='pseudo_collate'),
                              sampler=dict(type='InfiniteSampler', shuffle=False)),
        train_cfg=dict(type='TotalBatchTrainLoop', total_batch_size=8, micro_batch_size=micro_batch_size, max_iters=3,
                       fit_schedules=False),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=LR, momentum=MOMENTUM)),
        param_scheduler=dict(type='PolyLR', power=1.0, eta_min=0., begin=0, end=11, by_epoch=False),
        randomness=dict(seed=0))
    assert isinstance(runner.model, AnyDeviceDistributedDataParallel)
    return runner


@pytest.mark.slow
def test_two_cpu_processes_train_as_one_full_batch_and_share_their_statistics(tmp_path):
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(train_in_a_process, (tmp_path, 2, port, (4, 2)), nprocs=2)
    expected, _, losses = train_in_plain_torch(3, 8)
    for micro_batch_size in (4, 2):
        # Images as (iteration × accumulation, image of a process, process); processes take every second image.
        mean = torch.zeros(5, dtype=torch.float64)
        for images in Points().inputs.reshape(-1, micro_batch_size, 2, 5):
            mean = 0.5 * mean + 0.5 * images.mean((0, 1))
        for rank in range(2):
            found = torch.load(tmp_path / f'rank{rank}_micro{micro_batch_size}.pth', weights_only=True)
            for name, value in expected.state_dict().items():
                torch.testing.assert_close(found['state'][f'network.{name}'], value, rtol=0, atol=1e-10)
            torch.testing.assert_close(found['state']['norm.running_mean'], mean, rtol=0, atol=1e-12)
            assert found['losses'] == pytest.approx(losses, rel=1e-6)
