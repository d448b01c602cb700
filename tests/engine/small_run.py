"""A run of a second with everything that a resumed run could get wrong, for the tests of resuming.

Dropout and BatchNorm; samples that draw from Python, NumPy and torch; averaged weights, early stopping, best
checkpoints, and gradients that are accumulated over iterations.
"""
import copy
import random

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from inceptionnext_seg import engine  # noqa: F401  registers the hook and the loop


class Classifier(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(6 * 36, 3))

    def forward(self, inputs, target, mode='tensor'):
        logits = self.network(torch.stack(inputs))
        if mode == 'loss':
            return dict(loss=F.cross_entropy(logits, torch.stack(target)))
        return list(zip(logits.argmax(1).tolist(), torch.stack(target).tolist(), strict=True))


class Noisy(torch.utils.data.Dataset):
    """Thirteen images, each with noise of three generators."""

    def __len__(self):
        return 13

    def __getitem__(self, i):
        image = torch.full((1, 8, 8), float(i % 3)) + torch.randn(1, 8, 8)
        image *= np.float32(np.random.uniform(0.5, 2))  # noqa: NPY002
        return dict(inputs=image + random.random(), target=torch.tensor(i % 3))


class Accuracy(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [float(found == expected) for found, expected in data_samples]

    def compute_metrics(self, results):
        return dict(accuracy=float(np.mean(results)))


def build(work_dir, max_iters=12, workers=0, seed=0, resume=False, accumulate=1, micro_batch_size=None, keep=2,
          interval=3, hooks=(), sampler='InfiniteSampler', launcher='none', patience=50, cfg=None,
          log_level='ERROR', save_best='accuracy', **settings):
    """A runner of the hook and the loop of this package, as a config would build it."""
    loader = dict(num_workers=workers, persistent_workers=workers > 0, dataset=dict(type=Noisy),
                  collate_fn=dict(type='pseudo_collate'))
    return Runner(
        Classifier(), work_dir=str(work_dir), log_level=log_level, default_scope='mmengine', launcher=launcher,
        experiment_name=f'run_{random.SystemRandom().random()}', resume=resume, randomness=dict(seed=seed),
        train_dataloader=dict(loader, batch_size=4, sampler=dict(type=sampler, shuffle=True)),
        val_dataloader=dict(loader, batch_size=4, sampler=dict(type='DefaultSampler', shuffle=False)),
        train_cfg=dict(type='TotalBatchTrainLoop', total_batch_size=4, micro_batch_size=micro_batch_size,
                       max_iters=max_iters, val_interval=4, fit_schedules=False),
        val_cfg=dict(type='ValLoop'), val_evaluator=dict(type=Accuracy),
        optim_wrapper=dict(type='OptimWrapper', accumulative_counts=accumulate,
                           optimizer=dict(type='AdamW', lr=0.01)),
        param_scheduler=dict(type='PolyLR', power=1., begin=0, end=12, by_epoch=False),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=interval,
                                           max_keep_ckpts=keep, save_best=save_best, rule='greater')),
        custom_hooks=[dict(type=EMAHook, momentum=0.1), dict(
            type='EarlyStoppingHook', monitor='accuracy', rule='greater', patience=patience), *hooks],
        env_cfg=dict(dist_cfg=dict(backend='gloo')), cfg=copy.deepcopy(cfg or {}), **settings)


class Killed(Exception):
    pass


@HOOKS.register_module()
class KillHook(Hook):
    """Ends a run from within, where ``event`` is called for the ``number``-th time."""
    priority = 'LOWEST'

    def __init__(self, event, number):
        self.left = number
        setattr(self, event, self.count)

    def count(self, *args, **settings):
        self.left -= 1
        if self.left == 0:
            raise Killed


def state_of(work_dir, name='iter_12.pth'):
    """Tensors of a checkpoint by their place in it: weights, averaged weights, optimizer."""
    found = torch.load(work_dir / name, weights_only=False)
    tensors = {}

    def walk(value, place):
        if isinstance(value, torch.Tensor):
            tensors[place] = value
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(item, f'{place}.{key}')

    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        walk(found[part], part)
    return tensors


def differing(found, expected):
    """The names of tensors that are not the same bit for bit."""
    assert found.keys() == expected.keys()
    return [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]
