"""Two CPU processes against one: the same gradients, the same loss curve, and one model where BatchNorm trains.

Without random augmentation, dropout and drop path, and with BatchNorm in eval mode, since CPU processes do not share
its statistics, two processes must compute what one computes with the same total batch. Sums are in another order, so
that float32 agrees to rounding: gradients to 1e-4 of a tensor's largest, losses to 1e-5.
"""
import itertools
import json

import numpy as np
import pytest
import torch

from inceptionnext_seg.models.checkpoint import read_file

CONFIG = 'configs/upernet_inceptionnext_a_camvid.py'
TWO = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2')
GRADIENT_TOLERANCE, LOSS_TOLERANCE = 1e-4, 1e-5
ITERATIONS = 3

# SGD of rate 1 without momentum or decay: the first step is the gradient.
DETERMINISTIC = """
_base_ = [{config!r}]
norm_cfg = dict(type='GN', num_groups=4)
heads = dict(norm_cfg=norm_cfg, dropout_ratio=0.)
model = dict(backbone=dict(norm_eval=True, drop_path_rate=0.), decode_head=heads, auxiliary_head=heads)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=1.0, momentum=0., weight_decay=0.))
param_scheduler = dict(_delete_=True, type='ConstantLR', factor=1.0, begin=0, end=1, by_epoch=False)
train_cfg = dict(max_iters={iterations}, val_interval={iterations})
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='Resize', scale=(64, 64)),
    dict(type='PackSegInputs')]
train_dataloader = dict(sampler=dict(shuffle=False), dataset=dict(pipeline=pipeline))
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=-1))
"""


def run_folder(work_dir):
    folder, = (path.parent for path in work_dir.glob('*/metrics.json'))
    return folder


def loss_curve(work_dir):
    lines = (run_folder(work_dir) / 'vis_data/scalars.json').read_text().splitlines()
    return {line['step']: line['loss'] for line in map(json.loads, lines) if 'loss' in line}


def weights(path):
    return read_file(path)['state_dict']


# The same training


@pytest.fixture(scope='module')
def one_and_two(root, run_command, call_tool, tiny_options, tmp_path_factory):
    """work_dirs of the same training by one process and by two, from the same weights."""
    folder = tmp_path_factory.mktemp('deterministic')
    config = folder / 'config.py'
    config.write_text(DETERMINISTIC.format(config=str(root / CONFIG), iterations=ITERATIONS))
    skipped = ('train_dataloader.dataset.pipeline', 'train_cfg.max_iters', 'train_cfg.val_', 'default_hooks.checkpoint')
    options = [option for option in tiny_options if not option.startswith(skipped)]
    options += ['train_cfg.total_batch_size=4', 'auto_scale_lr.base_batch_size=4']
    arguments = [config, '--seed', 0, '--cfg-options', *options]
    two = run_command('tools/train.py', *arguments, '--work-dir', folder / 'two', '--launcher', 'pytorch', launcher=TWO)
    assert two.returncode == 0, two.stderr[-3000:]
    one = call_tool('train', *arguments, 'visualizer.name=one', '--work-dir', folder / 'one')
    assert one.returncode == 0, one.stderr[-3000:]
    return folder / 'one', folder / 'two'


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(one_and_two):
    """Read from the weights after each step: the difference of two is the gradient, as the rate is 1."""
    one, two = ([weights(work_dir / f'iter_{i}.pth') for i in range(1, ITERATIONS + 1)] for work_dir in one_and_two)
    for (before, after), (before_two, after_two) in zip(itertools.pairwise(one), itertools.pairwise(two), strict=True):
        gradients = {name: before[name] - after[name] for name in after if after[name].is_floating_point()}
        assert max(gradient.abs().max() for gradient in gradients.values()) > 0.01
        for name, gradient in gradients.items():
            # What float32 leaves of a difference of two weights, which both runs round on their own.
            resolution = 4 * torch.finfo(torch.float32).eps * before[name].abs().max().item()
            error = (before_two[name] - after_two[name] - gradient).abs().max().item()
            assert error <= GRADIENT_TOLERANCE * gradient.abs().max().item() + resolution, name


@pytest.mark.slow
def test_two_processes_have_the_weights_of_one_after_the_first_step(one_and_two):
    one, two = (weights(work_dir / 'iter_1.pth') for work_dir in one_and_two)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_of_one(one_and_two):
    one, two = map(loss_curve, one_and_two)
    assert list(one) == list(two) == list(range(1, ITERATIONS + 1))
    assert list(two.values()) == pytest.approx(list(one.values()), rel=LOSS_TOLERANCE)
    assert abs(one[1] - one[ITERATIONS]) > 0.004  # it moves, beyond the tolerance


@pytest.mark.slow
def test_two_processes_see_as_many_images_and_say_how_many_they_are(one_and_two):
    one, two = (json.loads((run_folder(work_dir) / 'metrics.json').read_text()) for work_dir in one_and_two)
    assert (one['processes'], two['processes']) == (1, 2)
    assert one['train_throughput']['images'] == two['train_throughput']['images'] == 4 * (ITERATIONS - 1)
    assert two['mIoU'] == pytest.approx(one['mIoU'], abs=0.2)


# BatchNorm in training mode


@pytest.fixture(scope='module')
def batch_norm_run(run_command, tiny_options, tmp_path_factory):
    """The CamVid config as it is, random augmentation, BatchNorm and all, by two processes of two images."""
    work_dir = tmp_path_factory.mktemp('batch_norm')
    result = run_command('tools/train.py', CONFIG, '--work-dir', work_dir, '--launcher', 'pytorch', '--cfg-options',
                         *tiny_options, 'train_cfg.total_batch_size=4', launcher=TWO)
    assert result.returncode == 0, result.stderr[-3000:]
    return work_dir


@pytest.mark.slow
def test_both_processes_evaluate_the_model_that_the_checkpoint_holds(batch_norm_run, call_tool, tiny_options, tmp_path):
    """Each process evaluates half of the images; a test by one process must count the same pixels of all of them."""
    result = call_tool('test', CONFIG, batch_norm_run / 'iter_4.pth', '--work-dir', tmp_path, '--cfg-options',
                       *tiny_options, 'visualizer.name=alone')
    assert result.returncode == 0, result.stderr[-3000:]
    together, alone = run_folder(batch_norm_run), run_folder(tmp_path)
    with np.load(together / 'per_image.npz') as a, np.load(alone / 'per_image.npz') as b:
        assert list(a['image']) == list(b['image']) == [f'{i}.jpg' for i in range(4)]
        for name in ('intersect', 'union', 'prediction', 'label'):
            np.testing.assert_array_equal(a[name], b[name])
    a, b = (json.loads((folder / 'metrics.json').read_text()) for folder in (together, alone))
    assert a['mIoU'] == b['mIoU']
    assert a['val_throughput']['images'] == 2  # of two iterations of two processes, the first being the warm-up


@pytest.mark.slow
def test_batch_norm_statistics_of_the_checkpoint_have_moved_and_are_finite(batch_norm_run):
    state = weights(batch_norm_run / 'iter_4.pth')
    means = [value for name, value in state.items() if name.endswith('running_mean')]
    assert len(means) > 20
    assert all(mean.abs().max() > 0 and mean.isfinite().all() for mean in means)
    assert {value.item() for name, value in state.items() if name.endswith('num_batches_tracked')} == {4}
