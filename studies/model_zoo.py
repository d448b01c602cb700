"""The catalogue of the configs: docs/model_zoo.md, and configs/metafile.yml with model-index.yml in OpenMMLab's format.

What it says comes from the configs, from counting their models, from :mod:`studies.paper` and from the result
files in docs/results.
"""
import json
import statistics
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mmengine
from mmengine.config import Config
from tqdm import tqdm

from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import markdown_table, write_text
from inceptionnext_seg.segmentation.complexity import Complexity, billions, count, millions, size

from .comparison.collecting import check_seeds
from .comparison.reading import is_multi_scale, read_metrics
from .paper import IMAGENET_TOP1, MMSEGMENTATION_CONVNEXT, SEMANTIC_FPN, UPERNET

COMMAND = 'python tools/model_zoo.py'
# By the last word of a config's name, in the order of the catalogue.
DATA_SETS = dict(ade20k='ADE20K', cityscapes='Cityscapes', voc12aug='Pascal VOC 2012 aug',
                 cocostuff164k='COCO-Stuff 164k', camvid='CamVid', mini='Embedded mini set')
METHODS = ('UperNet', 'Semantic FPN')
ARCHS = ('atto', 'tiny', 'small', 'base')
PAPERS = dict(
    InceptionNeXt=dict(Title='InceptionNeXt: When Inception Meets ConvNeXt', URL='https://arxiv.org/abs/2303.16900'),
    ConvNeXt=dict(Title='A ConvNet for the 2020s', URL='https://arxiv.org/abs/2201.03545'))

# tests/studies/test_model_zoo.py applies the options that stand here.
PREFACE = f'''# Model zoo

Written by `{COMMAND}` from the [configs](../configs), from counting their models, and from the tables of the papers.
`python tools/train.py CONFIG` trains a row, `python tools/test.py CONFIG CHECKPOINT` evaluates it. Nothing of the
papers' tables has been trained here unless its row has a figure in the column "here".

## Recipes

**UperNet**: [one recipe](../configs/_base_/schedule_160k.py) for every backbone, MMSegmentation's for ConvNeXt. Drop
path is MMSegmentation's for ConvNeXt (T 0.4, S 0.3, B 0.4) and its paper's for InceptionNeXt (T 0.2, S 0.3, B 0.4).
Other data sets have the same recipe in fewer iterations. The paper trained under Swin's recipe instead
(arXiv:2303.16900, section 4.2 and appendix A.2), a rate of 6e-5 for all layers alike and weight decay 0.01: the configs
named `swin_recipe`, which are the others [but for the optimizer](../configs/_base_/schedule_160k_swin.py).

The ConvNeXt baselines start from MMSegmentation's own weights, those of ImageNet-1k without EMA, whose top-1 is not
reported with them. One setting is not MMSegmentation's: training is in fp32 unless `--amp` is given, where
MMSegmentation's is in mixed precision. The [ablations of T on ADE20K](../configs/ablations) train from scratch, by a
recipe for that: layer scale 1, a rate of 1e-3 for all stages alike. What any of this is worth was not measured.

**Semantic FPN**: [the recipe of PVT and PoolFormer](../configs/_base_/schedule_fpn_40k.py), which the paper follows:
40k iterations of 32 images at 2e-4. Its other form is 80k iterations of 16 images at 1e-4; the rate follows the
images:

```
--cfg-options train_cfg.total_batch_size=16 train_cfg.max_iters=80000 train_cfg.val_interval=8000 \\
  param_scheduler.0.end=80000 default_hooks.checkpoint.interval=8000
```

**Embedded mini set, CamVid**: from scratch, with heads of 64 channels, to try a variant on a CPU.

[Classification](../configs/classification) with MMPretrain and [detection](../configs/detection) with MMDetection have
[a page of their own](other_frameworks.md).

## Test-time settings

Behind `python tools/test.py CONFIG CHECKPOINT`. Whole images, single scale, the default of Semantic FPN and of
UperNet on every data set but ADE20K:

```
--cfg-options model.test_cfg.mode=whole
```

Sliding window, single scale, the default of UperNet on ADE20K, as in MMSegmentation's ConvNeXt configs:

```
--cfg-options model.test_cfg.mode=slide 'model.test_cfg.crop_size=(512,512)' 'model.test_cfg.stride=(341,341)'
```

Multi-scale and flip, as the paper's UperNet figures: each image at 0.5, 0.75, 1, 1.25, 1.5 and 1.75 of its size, and
each of those flipped too, whole or in windows as above:

```
--tta
```

## Figures

Parameters include the auxiliary head; MACs do not, and are those of one image of the size that the table names ([how
they are counted](results/complexity.md)). "Top-1" is that of the ImageNet-1k weights that training starts from, as
reported with them. "Paper" and "MMSegmentation" are the mIoU that those report, in per cent: the paper's of UperNet
with multi-scale and flip, MMSegmentation's single scale / multi-scale with flip. MMSegmentation's checkpoints
evaluate in their rows as they are. "Here" is what was trained here, single scale / multi-scale with flip, mean ±
standard deviation where there are several seeds. The two rows of CamVid differ in their norms too, BatchNorm in
InceptionNeXt-A and LayerNorm in ConvNeXt-A, which can explain their difference ([report](results/camvid.md)). To add a
figure, put the `metrics.json` of tools/test.py, with and without `--tta`, into docs/results/reproduced under any name,
and run `{COMMAND}`.
'''


@dataclass(frozen=True)
class Entry:
    """A config, what its model costs, and what is reported of it.

    Attributes:
        mious (dict[bool, list[float]]): Of the runs here, in per cent: single scale (False) and ``--tta`` (True).
    """
    name: str
    cfg: Config
    complexity: Complexity
    mious: dict

    @property
    def config(self):
        return f'configs/{self.name}.py'

    @property
    def data_set(self):
        return self.name.rpartition('_')[2]

    @property
    def method(self):
        return 'Semantic FPN' if self.cfg.model.get('neck') else 'UperNet'

    @property
    def family(self):
        return self.cfg.model.backbone.type

    @property
    def arch(self):
        return self.cfg.model.backbone.arch

    @cached_property
    def backbone(self):
        """Such as ``ConvNeXt-T`` or ``ConvNeXt-T (kernel_size 5)``."""
        settings = ', '.join(str(value) if key == 'type' else f'{key} {value}'
                             for key, value in self.cfg.model.backbone.get('token_mixer', {}).items())
        return f'{self.family}-{self.arch[0].upper()}' + (f' ({settings})' if settings else '')

    @property
    def crop(self):
        return tuple(self.cfg.model.data_preprocessor.size)

    @property
    def pretrained(self):
        """Address of the ImageNet weights, None where the config trains from scratch."""
        init_cfg = self.cfg.model.backbone.get('init_cfg')
        checkpoint = init_cfg.checkpoint if init_cfg else None
        return checkpoint and checkpoint.replace('timm://', 'https://huggingface.co/timm/')

    @property
    def top1(self):
        return IMAGENET_TOP1[Path(self.pretrained).stem] if self.pretrained else None

    @property
    def is_of_a_table(self):
        """Whether it can be a row of the papers': ADE20K in crops of 512, the backbone as it is."""
        return self.data_set == 'ade20k' and self.crop == (512, 512) and 'token_mixer' not in self.cfg.model.backbone

    @property
    def paper(self):
        """Its row in InceptionNeXt's paper, or None."""
        table = UPERNET if self.method == 'UperNet' else SEMANTIC_FPN
        rows = [row for row in table if (row.family, row.arch) == (self.family, self.arch) and self.is_of_a_table]
        return rows[0] if rows else None

    @property
    def released(self):
        """MMSegmentation's model of the same config, or None."""
        if self.family != 'ConvNeXt' or self.method != 'UperNet' or not self.is_of_a_table:
            return None
        return MMSEGMENTATION_CONVNEXT.get(self.arch)

    @property
    def order(self):
        return (list(DATA_SETS).index(self.data_set), METHODS.index(self.method), ARCHS.index(self.arch), self.family,
                len(self.name), self.name)


def measured(root):
    """mIoU in per cent of the runs whose results are in docs/results, by config name and whether with ``--tta``.

    Raises:
        UserError: A result cannot be read, or two of a config at the same scales have one seed.
    """
    results = Path(root) / 'docs/results'
    runs = [(path, read_metrics(path)) for path in sorted((results / 'reproduced').glob('*.json'))]
    comparison = results / 'camvid.json'
    if comparison.is_file():
        runs += [(run['path'], run['metrics']) for candidate in json.loads(comparison.read_text())['candidates']
                 for run in candidate['runs']]
    by_config = defaultdict(list)
    for path, run in runs:
        by_config[Path(run['config'] or '').stem].append((path, run))
    mious = defaultdict(lambda: {False: [], True: []})
    for name, found in by_config.items():
        check_seeds(name, *zip(*found, strict=True))
        for _, run in found:
            mious[name][is_multi_scale(run)].append(run['mIoU'])
    return mious


def entries(root):
    """An :class:`Entry` for each config in ``root/configs``, not below it, in the order of the catalogue.

    Raises:
        UserError: A config's name does not end in a data set, or its model cannot be counted.
    """
    mious = measured(root)
    found = []
    for path in tqdm(sorted((Path(root) / 'configs').glob('*.py')), desc='counting', unit='config', leave=False):
        data_set = path.stem.rpartition('_')[2]
        if data_set == 'own':
            continue  # its classes, sizes and length are the user's
        if data_set not in DATA_SETS:
            raise UserError(f'{path}: the name ends in {data_set!r}; expected: a data set, {", ".join(DATA_SETS)}. '
                            'Next: rename it, or put it into a folder below configs, which the catalogue leaves out.')
        cfg = load_config(path)
        # The papers' size for what they report, the size of the crops for the rest.
        shape = None if data_set == 'ade20k' else tuple(cfg.model.data_preprocessor.size)
        found.append(Entry(path.stem, cfg, count(cfg, shape), mious[path.stem]))
    return sorted(found, key=lambda entry: entry.order)


# docs/model_zoo.md


def to_markdown(found):
    """docs/model_zoo.md: the preface, and a table for each data set and method."""
    tables = defaultdict(list)
    for entry in found:
        tables[entry.data_set, entry.method].append(entry)
    sections = [PREFACE.rstrip()]
    for (data_set, method), rows in tables.items():
        header = ['config', 'backbone', 'iterations × images', 'parameters', f'MACs, {size(rows[0].complexity)}',
                  'top-1', 'paper', 'MMSegmentation', 'here', 'weights']
        table = [[f'[{entry.name}](../{entry.config})', entry.backbone, schedule(entry),
                  millions(entry.complexity.parameters), billions(entry.complexity.macs), entry.top1 or '–',
                  entry.paper.miou if entry.paper else '–',
                  f'{entry.released.single_scale} / {entry.released.multi_scale}' if entry.released else '–',
                  ' / '.join(filter(None, map(mean, entry.mious.values()))), weights(entry)] for entry in rows]
        sections += [f'## {DATA_SETS[data_set]}, {method}', markdown_table(header, table)]
    return '\n\n'.join(sections) + '\n'


def schedule(entry):
    iterations, images = entry.cfg.train_cfg.max_iters, entry.cfg.train_cfg.total_batch_size
    return f'{iterations // 1000}k × {images}' if iterations % 1000 == 0 else f'{iterations} × {images}'


def mean(mious):
    """Mean and standard deviation over seeds; '' where there is no run."""
    if len(mious) < 2:
        return ''.join(f'{miou:.2f}' for miou in mious)
    return f'{statistics.mean(mious):.2f} ± {statistics.stdev(mious):.2f} ({len(mious)} seeds)'


def weights(entry):
    links = [f'[ImageNet-1k]({entry.pretrained})'] if entry.pretrained else ['from scratch']
    if entry.released:
        links.append(f"[MMSegmentation's segmentor]({entry.released.weights})")
    return ', '.join(links)


# OpenMMLab's format


def to_metafile(found):
    """configs/metafile.yml: results are those of here alone; what others report stands under the reporter's name."""
    collections = [
        dict(Name=family, License='Apache License 2.0',
             Metadata={'Training Data': sorted({DATA_SETS[e.data_set] for e in found if e.family == family})},
             Paper=PAPERS[family], README='docs/model_zoo.md', Frameworks=['PyTorch']) for family in PAPERS]
    return to_yaml(dict(Collections=collections, Models=[model_of(entry) for entry in found]))


def model_of(entry):
    reported = []
    if entry.paper:
        metric = 'mIoU(ms+flip)' if entry.method == 'UperNet' else 'mIoU'
        reported.append(dict(Source=PAPERS['InceptionNeXt']['URL'], Metrics={metric: entry.paper.miou}))
    if entry.released:
        reported.append(dict(Source='MMSegmentation', Weights=entry.released.weights, Metrics={
            'mIoU': entry.released.single_scale, 'mIoU(ms+flip)': entry.released.multi_scale}))
    here = {metric: round(statistics.mean(mious), 2) for metric, mious in zip(
        ('mIoU', 'mIoU(ms+flip)'), entry.mious.values(), strict=True) if mious}
    model = {
        'Name': entry.name,
        'In Collection': entry.family,
        'Config': entry.config,
        'Results': here and dict(
            Task='Semantic Segmentation', Dataset=DATA_SETS[entry.data_set], Metrics=here),
        'Metadata': {
            'Training Data': DATA_SETS[entry.data_set],
            'Batch Size': entry.cfg.train_cfg.total_batch_size,
            'Iterations': entry.cfg.train_cfg.max_iters,
            'Crop Size': str(tuple(entry.crop)),   # a list of numbers is an AttributeError in mim
            'Architecture': [entry.backbone, entry.method],
            'Parameters': entry.complexity.parameters,
            'MACs': entry.complexity.macs,
            'MACs Input Size': str(tuple(entry.complexity.shape)),
            'Pretrained Weights': entry.pretrained,
            'Reported Results': reported},
        'Paper': PAPERS[entry.family],
        'Framework': 'PyTorch'}
    model['Metadata'] = {key: value for key, value in model['Metadata'].items() if value}
    return {key: value for key, value in model.items() if value}


def to_yaml(content):
    # Copied, since YAML writes an object's second occurrence as a reference to the first.
    content = json.loads(json.dumps(content))
    text = mmengine.dump(content, file_format='yaml', sort_keys=False, allow_unicode=True, width=120)
    return f'# Written by {COMMAND}\n{text}'


def catalogue(found):
    """The text of each file of the catalogue, by its path below the root of the repository."""
    return {
        'docs/model_zoo.md': to_markdown(found),
        'configs/metafile.yml': to_metafile(found),
        'model-index.yml': to_yaml(dict(Import=['configs/metafile.yml']))}


def write_catalogue(root):
    """Write the catalogue of ``root/configs`` below ``root``."""
    for path, text in catalogue(entries(root)).items():
        write_text(Path(root) / path, text)
