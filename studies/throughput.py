"""Throughput of segmentors and backbones, side by side: candidates, steps, limits, and where the time goes."""
import contextlib
import copy
import itertools
import math
import multiprocessing
import re
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import mmseg
import psutil
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from inceptionnext_seg.engine.allocator import giving_back, keep_freed_memory
from inceptionnext_seg.engine.launch import ONE_VALUE_A_CHANNEL, load_config
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.fuse import fuse_for_inference
from inceptionnext_seg.models.metanext import DWConv2d, InceptionDWConv2d
from inceptionnext_seg.provenance import synchronize
from inceptionnext_seg.segmentation.segmentor import BlockedEncoderDecoder

from .timing import DTYPES, MEMORY_FORMATS, InputPool, interleave, machine_peaks, median_interval, ratio

STOCK, AS_SHIPPED = 'stock', 'as-shipped'     # the latter without the allocator's setting that all others have


@dataclass(frozen=True)
class Setting:
    """What is measured of every candidate alike.

    Attributes:
        mode (str): 'train' is forward, loss, backward and AdamW step; 'infer' is forward to class numbers.
        part (str): 'segmentor' with its heads, or 'backbone' alone (its loss: the mean of its outputs).
        batch_size (int), size (int), width (int | None): Images of a step, their height, and their width in pixels
            where that is another.
        dtype (str): 'fp32', or 'bf16' / 'fp16' by autocast.
        compile (bool): torch.compile of the forward.
    """
    mode: str = 'train'
    part: str = 'segmentor'
    batch_size: int = 2
    size: int = 512
    dtype: str = 'fp32'
    compile: bool = False
    device: str = 'cpu'
    width: int | None = None

    @property
    def image_size(self):
        return self.size, self.width or self.size


# Candidates


def stock_config():
    """MMSegmentation's own ConvNeXt-T UperNet config, with one process's norm, and its backbone's origin.

    Its backbone is mmpretrain's ConvNeXt; where mmpretrain is not there, timm's through mmseg's ``TIMMBackbone``.
    """
    path = Path(mmseg.__file__).parent / '.mim/configs/convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'
    cfg = Config.fromfile(path, import_custom_modules=False)
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.norm_cfg = dict(type='BN', requires_grad=True)
    cfg.model.backbone.init_cfg = None
    try:
        import mmpretrain.models  # noqa: F401
    except (ImportError, TypeError):  # TypeError: beside transformers 5
        cfg.model.backbone = dict(
            type='TIMMBackbone', model_name='convnext_tiny', features_only=True, pretrained=False, drop_path_rate=0.4)
        return cfg, "timm's ConvNeXt through mmseg's TIMMBackbone; mmpretrain is not installed"
    return cfg, "mmpretrain's ConvNeXt"


# What makes a segmentor of ours fast, each with the options that take it out; the rest is stock's. A candidate's name
# is a path, and behind '::' such a change alone, NONE of them, ALL of them (as the path alone), or DEPLOYED.
CHANGES = {
    'fusion and 3×3 convolutions': {
        'model.decode_head.fusion': 'torch', 'model.auxiliary_head.fusion': 'torch'},
    'loss on low-resolution logits': {
        'model.decode_head.upsampled_loss': False, 'model.auxiliary_head.upsampled_loss': False},
    'token mixer in one pass': {'model.backbone.token_mixer.impl': 'torch'},
    'blocks and patches': {'model.backbone.impl': 'torch'},
    'class numbers by rows': {'model.test_cfg.keep_logits': True},
    'fused AdamW': {'optim_wrapper.optimizer.fused': False}}
IN_MODE = dict(train=set(CHANGES) - {'class numbers by rows'},
               infer=set(CHANGES) - {'loss on low-resolution logits', 'fused AdamW'})
NONE, ALL, DEPLOYED = 'none', 'all', 'deploy form'


def variants(path, mode):
    """Names of the config's ablation of speed: no change, each that has a part in ``mode`` alone, all together."""
    changes = [change for change in CHANGES if change in IN_MODE[mode]]
    return [f'{path}::{change}' for change in (NONE, *changes, ALL, *([DEPLOYED] if mode == 'infer' else []))]


def candidate_config(name, cfg_options=None):
    """The config behind a candidate's name: a path, with a change behind '::' or without, or that of stock."""
    if name in (STOCK, AS_SHIPPED):
        return stock_config()[0]
    path, _, only = name.partition('::')
    cfg = load_config(path, cfg_options)
    if only in ('', ALL, DEPLOYED):
        return cfg
    options = {key: value for change, without in CHANGES.items() if change != only for key, value in without.items()}
    absent = [] if cfg.model.get('auxiliary_head') else ['model.auxiliary_head.']
    if cfg.model.backbone.type != 'InceptionNeXt':
        absent.append('model.backbone.token_mixer.')
    cfg.merge_from_dict({key: value for key, value in options.items() if not key.startswith(tuple(absent))})
    return cfg


def candidate_label(name):
    if name in (STOCK, AS_SHIPPED):
        return 'MMSegmentation stock ConvNeXt-T' + (' as shipped' if name == AS_SHIPPED else '')
    path, _, change = name.partition('::')
    return f'{Path(path).stem}: {change}' if change else Path(path).stem


def layouts_of(cfg, setting, layouts):
    """Layouts that a candidate has: a segmentor that keeps everything in channels_last has no other."""
    keeps = cfg.model.type == 'BlockedEncoderDecoder' and cfg.model.get('channels_last', True)
    return ('nhwc', ) if keeps and setting.part == 'segmentor' else layouts


def build(cfg, setting, layout):
    """The segmentor or its backbone, in the mode, device and layout asked for, with weights from a fixed seed."""
    init_default_scope('mmseg')
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone.init_cfg = None
    cfg.model.data_preprocessor.size = None
    cfg.model.test_cfg.mode = 'whole'
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model = (model if setting.part == 'segmentor' else model.backbone).to(
        setting.device, memory_format=MEMORY_FORMATS[layout])
    model.train(setting.mode == 'train')  # mmpretrain's ConvNeXt returns nothing from it
    return model


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

    def __init__(self, cfg, setting, layout, images=None, deployed=False, gives_back=False):
        self.setting, self.layout = setting, layout
        self.allocator = giving_back if gives_back else contextlib.nullcontext
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
        if isinstance(self.model, BlockedEncoderDecoder):
            return self.model.encode_decode_argmax(images, metas)
        return self.model.encode_decode(images, metas).argmax(1)

    def backbone_infer(self, images, samples):
        return self.model(images)

    def __call__(self):
        images, samples = next(self.batches)
        with self.allocator():
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
                deployed=name.endswith(f'::{DEPLOYED}'), gives_back=name == AS_SHIPPED)


# Limits


class ProductTraffic(TorchDispatchMode):
    """Counts the bytes that convolutions and matrix products must read and write, each operand once an operation."""

    OPERATORS = ('convolution', 'mm', 'addmm', 'bmm', 'baddbmm', 'linear', 'resize_concat_conv2d', 'norm_mlp',
                 'inception_dwconv2d')

    def __init__(self):
        super().__init__()
        self.nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.removeprefix('_').removesuffix('_overrideable')
        if name.removesuffix('_backward') in self.OPERATORS:
            leaves = tree_flatten((args, kwargs, out))[0]
            self.nbytes += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))
        return out


def convolution_backward_flops(grad_shape, image_shape, weight_shape, bias, stride, padding, dilation, transposed,
                               output_padding, groups, output_mask, out_shape=None, **settings):
    """The gradients of input and of weight cost as much as the forward each; torch's own formula forgets ``groups``."""
    positions = grad_shape if not transposed else image_shape
    macs = positions[0] * math.prod(positions[2:]) * math.prod(weight_shape)
    return 2 * macs * sum(map(bool, output_mask[:2]))


def count_products(step):
    """MACs and bytes of one step's convolutions and matrix products, forward and, in training, backward."""
    corrected = {torch.ops.aten.convolution_backward: convolution_backward_flops}
    flops, traffic = FlopCounterMode(display=False, custom_mapping=corrected), ProductTraffic()
    with traffic, flops:
        step()
    return flops.get_total_flops() // 2, traffic.nbytes


def limit_seconds(macs, nbytes, peaks):
    """No step can be faster: the time of its matrix products alone, or of moving their operands, whichever is more."""
    return max(macs / peaks['macs_per_second'], nbytes / peaks['bytes_per_second'])


# Memory


def is_out_of_memory(error):
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def measure_memory(connection, name, cfg_options, setting, layout, threads):
    torch.set_num_threads(threads)
    # One image again and again: the pool that timing takes cold ones from would count as the step's memory.
    image = torch.randn(setting.batch_size, 3, *setting.image_size, device=setting.device).to(
        memory_format=MEMORY_FORMATS[layout])
    step = candidate_step(name, cfg_options, setting, layout, itertools.repeat(image))
    tensors = [image, *step.model.parameters(), *step.model.buffers()]
    before = current_memory(setting.device) - sum(tensor.nbytes for tensor in tensors)
    if torch.device(setting.device).type == 'cpu' and name != AS_SHIPPED:
        keep_freed_memory()     # as when timed; not before, or what building left behind would count as libraries
    step()  # weights' gradients and optimizer state are there from the first step on
    step()
    connection.send((highest_memory(setting.device), before))


def current_memory(device):
    """Bytes this process has now: on an accelerator from torch's allocator, on a CPU its resident set."""
    device = torch.device(device)
    if device.type != 'cpu':
        return torch.get_device_module(device).memory_allocated(device)
    return psutil.Process().memory_info().rss


def highest_memory(device):
    """Bytes this process has had at most: on an accelerator from torch's allocator, on a CPU its resident set."""
    device = torch.device(device)
    if device.type != 'cpu':
        return torch.get_device_module(device).max_memory_allocated(device)
    # Not getrusage on Linux: its figure outlives exec, so a small child of a large process would have the parent's.
    status = Path('/proc/self/status')
    if status.is_file() and (found := re.search(r'VmHWM:\s*(\d+) kB', status.read_text())):
        return int(found[1]) * 1024
    # Kilobytes, but bytes on macOS (getrusage(2)).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def peak_memory(name, cfg_options, setting, layout):
    """Bytes that two steps need at most, in a process of its own, which the other candidates' weights are not in.

    Returns:
        tuple[int, int] | None: The whole process, and what it had before there was a model: the interpreter and its
        libraries, on an accelerator nothing. None where that process had no room beside this one.
    """
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=measure_memory, args=(
        sender, name, cfg_options, setting, layout, torch.get_num_threads()))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return None
    finally:
        child.join()


# The comparison


def fit_batch(names, cfg_options, setting, layouts, report):
    """One trial step of every candidate; out of memory halves the batch of all, so that they stay comparable."""
    while True:
        try:
            keys = [(name, layout) for name in names
                    for layout in layouts_of(candidate_config(name, cfg_options), setting, layouts)]
            images = {layout: cold_images(setting, layout) for _, layout in keys}
            steps = {(name, layout): candidate_step(name, cfg_options, setting, layout, images[layout])
                     for name, layout in keys}
            for step in steps.values():
                step()
            return setting, steps
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if setting.batch_size == 1:
                size = '×'.join(map(str, setting.image_size))
                raise UserError(f'out of memory with one image of {size} on {setting.device}. '
                                'Next: a smaller --size, --dtype bf16, or --part backbone.') from error
            smaller = Setting(**{**vars(setting), 'batch_size': setting.batch_size // 2})
            report(f'out of memory at batch {setting.batch_size}: every candidate goes on with {smaller.batch_size}')
            setting = smaller
        except ValueError as error:
            if not str(error).startswith(ONE_VALUE_A_CHANNEL):
                raise
            raise UserError(
                f"one image of {'×'.join(map(str, setting.image_size))} alone cannot train: a BatchNorm has one value "
                "a channel in the head's 1×1 pooled map. Next: --batch-size 2, or --mode infer.") from error


def run(names, setting, layouts=('nchw', 'nhwc'), cfg_options=None, rounds=10, warmup=2, memory=True,
        clock=time.perf_counter, progress=None, report=print):
    """Measure candidates against each other, interleaved in this process, and against the machine's limits.

    Args:
        names (Sequence[str]): Config paths, 'stock', or 'as-shipped'. Ratios are to the first.
        layouts (Sequence[str]): Each candidate runs in all of them; :func:`best_layouts` picks.

    Returns:
        dict: ``setting``, ``peaks``, and ``results``, a list of dicts with name, layout, raw ``seconds``, ``settled``,
        ``macs``, ``nbytes``, ``peak_memory`` of the process and ``memory_before``, in bytes.

    Raises:
        UserError: One image is too large for the device's memory.
    """
    setting, steps = fit_batch(names, cfg_options, setting, layouts, report)
    dtype = DTYPES[setting.dtype]
    peaks = machine_peaks(setting.device, dtype, clock=clock)
    samples = interleave(
        steps, rounds=rounds, warmup=warmup, synchronize=lambda: synchronize(setting.device), clock=clock,
        progress=progress)
    results = []
    for (name, layout), sample in samples.items():
        macs, nbytes = count_products(steps[name, layout])
        results.append(dict(
            name=name, label=candidate_label(name), layout=layout, seconds=sample.seconds, settled=sample.settled,
            warmup_rounds=sample.warmup_rounds, macs=macs, nbytes=nbytes,
            peak_memory=None, memory_before=0))
    # In the better layout only: a process takes its time.
    for result in best_layouts(results) if memory else ():
        name, layout = result['name'], result['layout']
        result['peak_memory'], result['memory_before'] = peak_memory(name, cfg_options, setting, layout) or (None, 0)
    return dict(setting=vars(setting), peaks=peaks, results=results)


def best_layouts(results):
    """Of each candidate, the result in its faster layout, in the order of the candidates."""
    best = {}
    for result in results:
        kept = best.get(result['name'])
        if kept is None or statistics.median(result['seconds']) < statistics.median(kept['seconds']):
            best[result['name']] = result
    return list(best.values())


def summarize(run_result, layout=None):
    """A row a candidate: images/s with interval, ratio of images/s to the first with its own, × of limit, memory.

    Args:
        layout (str | None): Rows of this layout; None takes each candidate's better one, as the paper does.
    """
    results = [r for r in run_result['results'] if r['layout'] == layout] if layout else best_layouts(
        run_result['results'])
    batch, rows = run_result['setting']['batch_size'], []
    for result in results:
        time_interval = median_interval(result['seconds'])
        rows.append(dict(
            name=result['name'], label=result['label'], layout=result['layout'],
            images_per_s=batch / time_interval.median,
            images_per_s_interval=(batch / time_interval.high, batch / time_interval.low),
            # Speed over speed: the first one's time over this one's, round by round.
            speedup=None if result is results[0] else ratio(results[0]['seconds'], result['seconds']),
            times_of_limit=time_interval.median / limit_seconds(result['macs'], result['nbytes'], run_result['peaks']),
            peak_memory=result['peak_memory'], settled=result['settled'],
            step_memory=result['peak_memory'] and result['peak_memory'] - result.get('memory_before', 0)))
    return rows


# Where the time goes


class StepClock:
    """Seconds of one training step by part: forward of backbone and heads, loss, their backwards, optimizer."""

    def __init__(self, step, clock=time.perf_counter):
        self.step, self.clock = step, clock
        self.parts = {}
        self.device = step.setting.device

    def mark(self, part):
        synchronize(self.device)
        now = self.clock()
        self.parts[part] = self.parts.get(part, 0.) + now - self.last
        self.last = now

    def measure(self):
        """dict part -> seconds, of one step."""
        step, model = self.step, self.step.model
        images, samples = next(step.batches)
        synchronize(self.device)
        self.last = self.clock()
        with step.autocast():
            features = model.backbone(images)
            self.mark('backbone forward')
            logits = [head(features) for head in heads(model)]
            self.mark('head forward')
            loss = sum(
                value for head, output in zip(heads(model), logits, strict=True)
                for name, value in head.loss_by_feat(output, samples).items() if 'loss' in name)
            self.mark('loss forward')
        # A tensor's hook runs when the node that made it is about to, and autograd takes the latest nodes first: where
        # the first of the logits, or of the features, is reached, all of the loss, or of the heads, is done.
        hooks = [
            torch.autograd.graph.register_multi_grad_hook(
                tensors, lambda grad, part=part: self.mark(part), mode='any')
            for tensors, part in ((logits, 'loss backward'), (features, 'head backward'))]
        loss.backward()
        self.mark('backbone backward')
        for hook in hooks:
            hook.remove()
        step.optimizer.step()
        step.optimizer.zero_grad(set_to_none=True)
        self.mark('optimizer')
        return self.parts


def heads(model):
    found = [model.decode_head]
    auxiliary = getattr(model, 'auxiliary_head', None)
    return found + (list(auxiliary) if isinstance(auxiliary, nn.ModuleList) else [auxiliary] if auxiliary else [])


def profile(name, cfg_options, setting, layout, steps=3):
    """Median seconds by part, and seconds by operator of one step, the twelve longest and the rest."""
    step = Step(candidate_config(name, cfg_options), setting, layout)
    step()
    measured = [StepClock(step).measure() for _ in range(steps)]
    by_part = {part: statistics.median(m[part] for m in measured) for part in measured[0]}
    activities = [torch.profiler.ProfilerActivity.CPU]
    on_cuda = torch.device(setting.device).type == 'cuda'
    if on_cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        step()
        synchronize(setting.device)
    attribute = 'self_device_time_total' if on_cuda else 'self_cpu_time_total'
    totals = sorted(((getattr(e, attribute) / 1e6, e.key) for e in profiler.key_averages()), reverse=True)
    by_operator = {key: seconds for seconds, key in totals[:12]}
    by_operator['other'] = sum(seconds for seconds, _ in totals[12:])
    return dict(name=name, label=candidate_label(name), layout=layout, dtype=setting.dtype, by_part=by_part,
                by_operator=by_operator)


# The token mixer


def measure_mixer(setting, channels=96, size=64, batch_size=4, rounds=20, clock=time.perf_counter):
    """``InceptionDWConv2d`` by its forms, a 7×7 depthwise convolution, and one copy of their input, channels_last.

    Returns:
        dict: The sizes, and ``seconds``, lists of samples by name and direction.
    """
    dtype = DTYPES[setting.dtype]
    x, grad = (torch.randn(batch_size, channels, size, size, device=setting.device, dtype=dtype).to(
        memory_format=torch.channels_last) for _ in range(2))
    target = torch.empty_like(x)
    mixers = dict({f'InceptionDWConv2d, {impl}': InceptionDWConv2d(channels, impl=impl) for impl in ('torch', 'auto')},
                  **{'7×7 depthwise convolution': DWConv2d(channels)})
    candidates = dict(copy=lambda: target.copy_(x))
    for name, mixer in mixers.items():
        mixer.to(setting.device, dtype, memory_format=torch.channels_last)

        def forward(mixer=mixer):
            with torch.inference_mode():
                mixer(x)

        def both(mixer=mixer, image=x.clone(memory_format=torch.preserve_format).requires_grad_()):
            torch.autograd.grad(mixer(image), (image, *mixer.parameters()), grad)

        candidates[f'{name}: forward'], candidates[f'{name}: forward and backward'] = forward, both
    samples = interleave(candidates, rounds=rounds, min_sample=5e-3, clock=clock,
                         synchronize=lambda: synchronize(setting.device))
    return dict(dtype=setting.dtype, shape=list(x.shape), threads=torch.get_num_threads(),
                seconds={name: sample.seconds for name, sample in samples.items()})


# Real batches


def measure_loader(cfg, setting, batches=20, clock=time.perf_counter):
    """Images/s of the config's own training loader, with its workers, alone: what it could feed.

    Raises:
        UserError: Its data are not there.
    """
    from inceptionnext_seg.data.datasets import check_folders
    check_folders(cfg, ('train_dataloader', ))
    init_default_scope('mmseg')
    settings = copy.deepcopy(cfg.train_dataloader)
    settings.batch_size = setting.batch_size
    loader = Runner.build_dataloader(settings, seed=0)
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    seconds = []
    for _ in range(batches):
        start = clock()
        next(iterator)
        seconds.append(clock() - start)
    # Not the median: workers deliver in bursts.
    return dict(images_per_s=setting.batch_size * len(seconds) / sum(seconds), seconds=seconds,
                workers=settings.get('num_workers', 0))


