"""What ``accelerate`` gains other people's segmentors: each before and after, in turn, in several processes in turn.

A stock fp32 training step of a UperNet takes many seconds on a CPU, so that rounds are few; what varies from process to
process (where memory lies, what else the machine does) is then the larger part, and intervals are over processes.
"""
import contextlib
import copy
import fnmatch
import importlib
import importlib.metadata
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import mmseg
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from inceptionnext_seg import accelerate
from inceptionnext_seg.engine.allocator import keep_freed_memory
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import markdown_table, read_object, without_html, write_json
from inceptionnext_seg.provenance import commit, environment

from .timing import median_interval

CLASSES, IGNORED = 150, 255     # ADE20K
FORMS = ('before', 'after')
MODES = dict(infer='inference', train='training')
LIBRARIES = ('transformers', 'segmentation_models_pytorch')


@dataclass(frozen=True)
class Setting:
    """What is measured of every segmentor alike, in float32.

    Attributes:
        batch_size (int), size (int): Images of a step, and their height and width in pixels.
        rounds (int): Steps that count, of each form in each mode, in each process.
        threads (int): Of torch.
    """
    batch_size: int = 2
    size: int = 512
    rounds: int = 2
    threads: int = 1


# Segmentors, with random weights


def import_library(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f'{name} is not installed, which this segmentor is of. '
                        f'Next: pip install {name.replace("_", "-")}, or leave it out of --models.') from error


def mmsegmentation(path):
    """The segmentor of a config that MMSegmentation ships, its SyncBN, which needs several processes, made BN."""
    cfg = Config.fromfile(Path(mmseg.__file__).parent / '.mim/configs' / path, import_custom_modules=False)
    init_default_scope('mmseg')
    model = with_batch_norm(cfg.model.to_dict())
    model.update(pretrained=None, test_cfg=dict(mode='whole'))
    model['backbone'].pop('init_cfg', None)
    model['data_preprocessor'].pop('size', None)
    return MODELS.build(ConfigDict(model))


def with_batch_norm(value):
    if isinstance(value, list | tuple):
        return type(value)(map(with_batch_norm, value))
    if isinstance(value, dict):
        return {key: 'BN' if child == 'SyncBN' else with_batch_norm(child) for key, child in value.items()}
    return value


def hugging_face(backbone, **settings):
    """``UperNetForSemanticSegmentation`` with 512 channels, its default."""
    transformers = import_library('transformers')
    config = getattr(transformers, backbone)(out_features=['stage1', 'stage2', 'stage3', 'stage4'], **settings)
    return transformers.UperNetForSemanticSegmentation(transformers.UperNetConfig(
        backbone_config=config, hidden_size=512, num_labels=CLASSES, auxiliary_in_channels=384))


def smp(decoder, encoder, **settings):
    library = import_library('segmentation_models_pytorch')
    return getattr(library, decoder)(encoder, encoder_weights=None, classes=CLASSES, **settings)


class Segmentor(NamedTuple):
    """One row: how to build it, and the channels of its head."""
    build: Callable
    channels: str = '512'


SEGMENTORS = {
    'mmseg UPerHead, ResNet-50': Segmentor(
        lambda: mmsegmentation('upernet/upernet_r50_4xb4-160k_ade20k-512x512.py')),
    'mmseg UPerHead, Swin-T': Segmentor(lambda: mmsegmentation(
        'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py')),
    'Hugging Face UperNet, ConvNeXt-T': Segmentor(lambda: hugging_face(
        'ConvNextConfig', hidden_sizes=[96, 192, 384, 768], depths=[3, 3, 9, 3])),
    'Hugging Face UperNet, Swin-T': Segmentor(lambda: hugging_face(
        'SwinConfig', embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7)),
    'smp UPerNet, ResNet-50': Segmentor(lambda: smp('UPerNet', 'resnet50', decoder_channels=512)),
    'smp UPerNet, ConvNeXt-T': Segmentor(lambda: smp('UPerNet', 'tu-convnext_tiny', decoder_channels=512)),
    'smp FPN, ResNet-50': Segmentor(lambda: smp('FPN', 'resnet50'), '256, 128'),
    'smp FPN, ConvNeXt-T': Segmentor(lambda: smp('FPN', 'tu-convnext_tiny'), '256, 128'),
    'mmseg PSPHead, ResNet-50-D8': Segmentor(
        lambda: mmsegmentation('pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py')),
    'mmseg FCNHead, ResNet-50-D8': Segmentor(
        lambda: mmsegmentation('fcn/fcn_r50-d8_4xb4-160k_ade20k-512x512.py')),
    'mmseg FPNHead, ResNet-50': Segmentor(
        lambda: mmsegmentation('sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py'), '256, 128')}


def select(patterns):
    """Names of segmentors that match a pattern, in the order of the table.

    Raises:
        UserError: A pattern matches none.
    """
    for pattern in patterns or ():
        if not fnmatch.filter(SEGMENTORS, pattern):
            raise UserError(f'--models {pattern!r} matches no segmentor; expected: a pattern for one or more of '
                            f'{", ".join(map(repr, SEGMENTORS))}.')
    return [name for name in SEGMENTORS if not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


# Steps


def samples_of(labels):
    metainfo = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), tuple(labels.shape[1:]))
    return [SegDataSample(gt_sem_seg=PixelData(data=label[None]), metainfo=metainfo) for label in labels]


def loss_of(name, model, images, labels):
    """The library's own loss where it has one, else the cross-entropy."""
    if name.startswith('mmseg'):
        return sum(value for key, value in model.loss(images, samples_of(labels)).items() if 'loss' in key)
    if name.startswith('Hugging Face'):
        return model(pixel_values=images, labels=labels).loss
    return F.cross_entropy(model(images), labels, ignore_index=IGNORED)


def predict(name, model, images, labels):
    """Class indices (B, H, W) at the images' size."""
    if name.startswith('mmseg'):
        return torch.cat([sample.pred_sem_seg.data for sample in model.predict(images, samples_of(labels))])
    outputs = model(images)
    return (outputs.logits if name.startswith('Hugging Face') else outputs).argmax(1)


class Steps:
    """The steps of one model in one form: inference to class indices, and training from forward to AdamW."""

    def __init__(self, name, model, images, labels):
        self.name, self.model, self.batch = name, model, (images, labels)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    @torch.inference_mode()
    def infer(self):
        return predict(self.name, self.model, *self.batch)

    def train(self):
        loss_of(self.name, self.model, *self.batch).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


# Measuring


def measure(name, setting, process, clock=time.perf_counter):
    """Measure one segmentor before and after ``accelerate`` in this process.

    Returns:
        dict: ``seconds`` by mode and form, one number a round; ``agreement``, the part of the pixels for which both
        forms predict the same class; what was swapped and what was left; and the load average before and after.
    """
    torch.set_num_threads(setting.threads)
    keep_freed_memory()     # as in tools/train.py, for both forms
    started = environment('cpu')['load_average']
    torch.manual_seed(0)
    before = SEGMENTORS[name].build()
    after = copy.deepcopy(before)
    report = accelerate(after)
    shape = (setting.batch_size, setting.size, setting.size)
    images, labels = torch.randn(shape[0], 3, *shape[1:]), torch.randint(CLASSES, shape)
    steps = {form: Steps(name, model, images, labels) for form, model in zip(FORMS, (before, after), strict=True)}
    seconds, agreement = {}, None
    for mode in MODES:  # inference first, while both have the same weights
        for form in FORMS:
            steps[form].model.train(mode == 'train')
        warm = [getattr(steps[form], mode)() for form in FORMS]
        agreement = (warm[0] == warm[1]).double().mean().item() if mode == 'infer' else agreement
        seconds[mode] = {form: [] for form in FORMS}
        for i in range(setting.rounds):
            for form in FORMS if (i + process) % 2 == 0 else FORMS[::-1]:
                start = clock()
                getattr(steps[form], mode)()
                seconds[mode][form].append(clock() - start)
    return dict(model=name, process=process, seconds=seconds, agreement=agreement, swapped=report.swapped,
                left=report.left, load_average=[started, environment('cpu')['load_average']], commit=commit(),
                date=environment('cpu')['date'])


def measure_all(names, setting, processes, out, progress=lambda: None):
    """Measure segmentors, each in ``processes`` processes of its own, one after the other, in turn with the others'.

    ``out`` is written after each, and what it has already is not measured again.

    Raises:
        UserError: ``out`` was measured with another setting, or a library is missing.
    """
    described = environment('cpu')
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            described['versions'][name] = importlib.metadata.version(name)
    result = dict(environment=described, setting=asdict(setting), commands=[], measurements=[])
    if Path(out).is_file():
        result = read_object(out, 'a result of tools/accelerate_others.py', 'another --out, or remove it')
        if result['setting'] != asdict(setting):
            raise UserError(f'{out} was measured with {result["setting"]}, not with {asdict(setting)}. '
                            'Next: another --out, or remove it.')
    if described['command'] not in result['commands']:
        result['commands'].append(described['command'])
    done = {(found['model'], found['process']) for found in result['measurements']}
    for process in range(processes):
        for name in names:
            if (name, process) not in done:
                with ProcessPoolExecutor(1, get_context('spawn')) as pool:
                    result['measurements'].append(pool.submit(measure, name, setting, process).result())
                write_json(out, result)
            progress()
    return result


# The report


def speedups(measurements, mode):
    """Of each process, the median over its rounds of the time before over that after."""
    return [statistics.median(b / a for b, a in zip(*(found['seconds'][mode][form] for form in FORMS), strict=True))
            for found in measurements]


def rows(result):
    """A row a segmentor that was measured: by mode, images/s before and after, and times faster as an interval."""
    table = []
    for name, segmentor in SEGMENTORS.items():
        found = [measured for measured in result['measurements'] if measured['model'] == name]
        if not found:
            continue
        row = dict(name=name, channels=segmentor.channels, processes=len(found),
                   agreement=min(measured['agreement'] for measured in found))
        for mode in MODES:
            ratios = speedups(found, mode)
            row[mode] = dict(
                images_per_s={form: result['setting']['batch_size'] / statistics.median(
                    statistics.median(measured['seconds'][mode][form]) for measured in found) for form in FORMS},
                faster=statistics.median(ratios), interval=median_interval(ratios)[1:] if len(ratios) > 1 else None)
        table.append(row)
    return table


def report(result):
    """The result as Markdown."""
    described, setting = result['environment'], result['setting']
    loads = [load for measured in result['measurements'] for load in measured['load_average']]
    commits = sorted({str(measured['commit']) for measured in result['measurements']})
    header = ['segmentor', 'channels of the head', 'processes']
    for mode in ('train', 'infer'):
        header += [f'{MODES[mode]}: images/s before', 'after', 'times faster (over processes)']
    cells = [[row['name'], row['channels'], row['processes'], *mode_cells(row['train']), *mode_cells(row['infer'])]
             for row in rows(result)]
    left = sorted({f'{measured["model"]}: {name or "the model"}: {reason}' for measured in result['measurements']
                   for name, reason in measured['left'].items()})
    size = f'{setting["size"]}×{setting["size"]}'
    lines = [
        f"# Other people's segmentors before and after `accelerate`, on {described['device_name']}",
        '\n'.join(f'`{command}`' for command in result['commands']),
        f'{described["date"]}, commit {", ".join(commits)}, {setting["threads"]} threads, load average '
        f'{min(loads, default=0)}–{max(loads, default=0)}; ' + ', '.join(
            f'{name} {version}' for name, version in described['versions'].items()) + '.',
        f'fp32, {setting["batch_size"]} images of {size}, 150 classes, random weights and images. A training step is '
        'forward, loss, backward and AdamW; inference ends with class indices at the size of the images. Both forms '
        f'took turns in each process, {setting["rounds"]} round(s) after one that does not count, and so did the '
        "segmentors' processes. Speeds are medians; times faster is the median over processes of the ratio taken round "
        'by round, with its 95 % bootstrap interval (of so few processes: the least and the most). Memory once freed '
        'stays with the process, for both forms.',
        markdown_table(header, cells),
        'Pixels for which both forms predict the same class, at least: ' + ', '.join(
            f'{row["name"]} {row["agreement"]:.5f}' for row in rows(result)) + '.',
        'Left as they were:\n\n' + '\n'.join(f'- {line}' for line in left)]
    return without_html('\n\n'.join(lines)) + '\n'


def mode_cells(mode):
    interval = f' ({mode["interval"][0]:.2f}–{mode["interval"][1]:.2f})' if mode['interval'] else ''
    return [*(f'{mode["images_per_s"][form]:.3g}' for form in FORMS), f'{mode["faster"]:.2f}{interval}']
