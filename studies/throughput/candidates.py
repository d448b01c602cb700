"""Candidates: MMSegmentation's own ConvNeXt-T UperNet, configs of ours, and configs without what makes them fast."""
import copy
import importlib
import sys
from pathlib import Path

import mmseg
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from inceptionnext_seg import accelerate
from inceptionnext_seg.engine.accelerate_hook import configured_parts
from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.errors import UserError

from ..timing import MEMORY_FORMATS

STOCK, AS_SHIPPED = 'stock', 'as-shipped'     # the latter without the allocator's setting that all others have


def import_mmpretrain():
    """Register mmpretrain's ConvNeXt, stock's backbone; its multimodal models, not needed, fail beside transformers 5.

    Raises:
        UserError: It is not installed, or cannot be imported.
    """
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition('.')[0] == 'transformers'}
    sys.modules['transformers'] = None      # as if it were not installed
    try:
        importlib.import_module('mmpretrain.models')
    except (ImportError, TypeError) as error:
        raise UserError(f'stock has the backbone of mmpretrain, which cannot be imported: {error}. '
                        'Next: pip install onedl-mmpretrain.') from error
    finally:
        del sys.modules['transformers']
        sys.modules.update(hidden)


def stock_config():
    """MMSegmentation's own ConvNeXt-T UperNet config, with one process's norm, and its backbone's origin.

    Raises:
        UserError: mmpretrain, whose ConvNeXt the config names, cannot be imported: another backbone is not stock.
    """
    path = Path(mmseg.__file__).parent / '.mim/configs/convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'
    cfg = Config.fromfile(path, import_custom_modules=False)
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.norm_cfg = dict(type='BN', requires_grad=True)
    cfg.model.backbone.init_cfg = None
    import_mmpretrain()
    return cfg, "mmpretrain's ConvNeXt"


# What makes a segmentor of ours fast, each with the options that take it out; the rest is stock's. A candidate's name
# is a path, and behind '::' such a change alone, NONE of them, ALL of them (as the path alone), DEPLOYED, or all of
# them and the losses as a CUDA GRAPH.
CHANGES = {
    'fusion and 3×3 convolutions': {'default_hooks.accelerate.convolutions': False},
    'loss on low-resolution logits': {'default_hooks.accelerate.loss': False},
    'token mixer in one pass': {'default_hooks.accelerate.token_mixer': False},
    'blocks and patches': {'default_hooks.accelerate.blocks': False},
    'class indices by rows': {'default_hooks.accelerate.prediction': False},
    'fused AdamW': {'optim_wrapper.optimizer.fused': False}}
IN_MODE = dict(train=set(CHANGES) - {'class indices by rows'},
               infer=set(CHANGES) - {'loss on low-resolution logits', 'fused AdamW'})
NONE, ALL, DEPLOYED, GRAPH = 'none', 'all', 'deploy form', 'CUDA graph'


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
    if only in ('', ALL, DEPLOYED, GRAPH):
        return cfg
    options = {key: value for change, without in CHANGES.items() if change != only for key, value in without.items()}
    cfg.merge_from_dict(options)
    return cfg


def candidate_label(name):
    if name in (STOCK, AS_SHIPPED):
        return 'MMSegmentation stock ConvNeXt-T' + (' as shipped' if name == AS_SHIPPED else '')
    path, _, change = name.partition('::')
    return f'{Path(path).stem}: {change}' if change else Path(path).stem


def layouts_of(cfg, setting, layouts):
    """Layouts that a candidate has: a segmentor whose acceleration lays it out in channels_last has no other."""
    parts = configured_parts(cfg)
    keeps = parts is not None and parts.get('channels_last', True)
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
    parts = configured_parts(cfg)
    if parts is not None:
        accelerate(model, **dict(parts, channels_last=layout == 'nhwc'))
    model.train(setting.mode == 'train')  # mmpretrain's ConvNeXt returns nothing from it
    return model
