"""Whole segmentors on a device, plain and accelerated, and a training step of them."""
import contextlib
import copy
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from inceptionnext_seg import accelerate

ROOT = Path(__file__).parents[2]


class Size(NamedTuple):
    config: str
    batch_size: int
    side: int
    settings: dict


LARGE = Size('configs/upernet_inceptionnext_t_ade20k.py', 4, 512, {})
SMALL = Size('configs/upernet_inceptionnext_a_mini.py', 2, 64, {
    'model.backbone.arch': dict(_delete_=True, depths=(1, 1, 2, 1), dims=(16, 16, 24, 32)),
    'model.decode_head.channels': 16,
    'model.decode_head.in_channels': [16, 16, 24, 32], 'model.auxiliary_head.in_channels': 24,
    'model.auxiliary_head.channels': 8})


def build(size, device, fast=True, random=False, **parts):
    """The segmentor in training; without ``random`` a step draws nothing: no stochastic depth, no dropout."""
    cfg = Config.fromfile(ROOT / size.config)
    cfg.merge_from_dict(copy.deepcopy(size.settings))   # which takes _delete_ out
    model = cfg.model
    model.backbone.init_cfg = model.data_preprocessor.size = None
    for head in (model.decode_head, model.auxiliary_head):
        head.norm_cfg = dict(type='BN')
    if not random:
        model.backbone.drop_path_rate = model.decode_head.dropout_ratio = model.auxiliary_head.dropout_ratio = 0.
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(model).to(device).train()
    if fast:
        accelerate(model, **parts)
    return model


def batch(size, device, seed=0, dtype=torch.float32):
    """Images and samples, on the device."""
    generator = torch.Generator().manual_seed(seed)
    sides = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (size.side, size.side))
    images = torch.randn(size.batch_size, 3, size.side, size.side, generator=generator)
    labels = torch.randint(18, (size.batch_size, 1, size.side, size.side), generator=generator).to(device)
    return images.to(device, dtype), [SegDataSample(
        metainfo=dict(sides, padding_size=[0] * 4), gt_sem_seg=PixelData(data=label)) for label in labels]


def loss_of(model, images, samples, dtype=torch.float32):
    with torch.autocast(images.device.type, dtype=dtype, enabled=dtype in (torch.bfloat16, torch.float16)):
        losses = model.loss(images, samples)
    return sum(value for name, value in losses.items() if 'loss' in name)


class Training:
    """Steps of AdamW; with fp16 the loss is scaled."""

    def __init__(self, model, dtype=torch.float32, **settings):
        device = next(model.parameters()).device
        self.model, self.dtype = model, dtype
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True, **settings)

    def step(self, images, samples):
        loss = loss_of(self.model, images, samples, self.dtype)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


@contextlib.contextmanager
def refusing_to_wait(device):
    """On CUDA an operator that waits for the device raises an error."""
    if device.type != 'cuda':
        yield
        return
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode('default')
