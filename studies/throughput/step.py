"""One training or inference step of a candidate, on random images that no cache holds."""
import contextlib
import functools
import itertools
import math

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from inceptionnext_seg.engine.allocator import giving_back
from inceptionnext_seg.engine.cuda_graph import GraphedLosses
from inceptionnext_seg.models.fuse import fuse_for_inference
from inceptionnext_seg.ops.measured import measuring
from inceptionnext_seg.segmentation.graphed import cuda_graph
from inceptionnext_seg.segmentation.segmentor import FastEncoderDecoder

from ..timing import DTYPES, MEMORY_FORMATS, InputPool
from .candidates import AS_SHIPPED, DEPLOYED, GRAPH, build, candidate_config


def cold_images(setting, layout):
    """Endless random images (B, 3, S, S) that the last-level cache does not hold.

    Candidates of one comparison share it: the second would find in the cache what the first has read.
    """
    shape = (setting.batch_size, 3, *setting.image_size)
    return InputPool(torch.float32, setting.device).rotation(shape, MEMORY_FORMATS[layout])


def random_labels(classes, setting, count=4):
    """Endless lists of B samples with labels (1, H, W), uniform over the classes; ``count`` lists take turns."""
    generator = torch.Generator().manual_seed(0)
    sides = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), setting.image_size)
    labels = torch.randint(0, classes, (count, setting.batch_size, 1, *setting.image_size), generator=generator)
    return itertools.cycle([
        [SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(sides, padding_size=[0, 0, 0, 0]))
         for label in batch] for batch in labels.to(setting.device)])


class Step:
    """One training or inference step of one candidate; calling it takes the next of ``images``."""

    def __init__(self, cfg, setting, layout, images=None, deployed=False, gives_back=False, graph=False):
        self.setting, self.layout = setting, layout
        self.allocator = giving_back if gives_back else contextlib.nullcontext
        self.measure = functools.partial(measuring, patience=math.inf)  # in the first step, which is a trial
        self.model = build(cfg, setting, layout)
        if deployed:
            fuse_for_inference(self.model, inplace=True)
        self.batches = zip(
            images or cold_images(setting, layout), random_labels(cfg.model.decode_head.num_classes, setting),
            strict=False)
        self.forward = getattr(self, f'{setting.part}_{setting.mode}')
        if setting.mode == 'train':
            fp16 = setting.dtype == 'fp16'
            self.scaler = torch.amp.GradScaler(setting.device, enabled=fp16)
            fused = cfg.optim_wrapper.optimizer.get('fused', False)
            self.optimizer = torch.optim.AdamW(
                (p for p in self.model.parameters() if p.requires_grad), lr=1e-4, weight_decay=0.05, fused=fused)
        if graph and setting.mode == 'train':
            self.model.loss = GraphedLosses(self.model)
        elif graph:
            self.captured, self.forward = None, self.graphed_infer
        if setting.compile:
            self.forward = torch.compile(self.forward)

    def autocast(self):
        dtype = DTYPES[self.setting.dtype]
        return torch.autocast(torch.device(self.setting.device).type, dtype=dtype, enabled=dtype != torch.float32)

    def segmentor_train(self, images, samples):
        losses = self.model.loss(images, samples)
        return sum(value for name, value in losses.items() if 'loss' in name)

    def backbone_train(self, images, samples):
        return sum(output.float().mean() for output in self.model(images))

    def segmentor_infer(self, images, samples):
        # Whole images, whatever the config's test mode: a sliding window would measure the window.
        metas = [sample.metainfo for sample in samples]
        if isinstance(self.model, FastEncoderDecoder):
            return self.model.encode_decode_argmax(images, metas)
        return self.model.encode_decode(images, metas).argmax(1)

    def graphed_infer(self, images, samples):
        self.captured = self.captured or cuda_graph(self.model, images)
        return self.captured(images)

    def backbone_infer(self, images, samples):
        return self.model(images)

    def __call__(self):
        images, samples = next(self.batches)
        measure, self.measure = self.measure, contextlib.nullcontext
        with self.allocator(), measure():
            self.step(images, samples)

    def step(self, images, samples):
        if self.setting.mode == 'infer':
            with torch.inference_mode(), self.autocast():
                self.forward(images, samples)
            return
        with self.autocast():
            loss = self.forward(images, samples)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)


def candidate_step(name, cfg_options, setting, layout, images=None):
    return Step(candidate_config(name, cfg_options), setting, layout, images,
                deployed=name.endswith(f'::{DEPLOYED}'), gives_back=name == AS_SHIPPED,
                graph=name.endswith(f'::{GRAPH}'))
