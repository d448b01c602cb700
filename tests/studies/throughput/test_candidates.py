import importlib.util
import subprocess
import sys

import pytest
import torch

from inceptionnext_seg.engine.accelerate_hook import configured_parts
from inceptionnext_seg.errors import UserError
from studies.throughput.candidates import (
    AS_SHIPPED,
    CHANGES,
    STOCK,
    candidate_config,
    layouts_of,
    stock_config,
    variants,
)
from studies.throughput.setting import Setting
from studies.throughput.step import Step, candidate_step

from .common import INCEPTIONNEXT, ROOT, SMALL, TINY, small


def test_stock_is_mmsegmentations_own_config_with_the_norm_of_one_process():
    pytest.importorskip('mmpretrain', reason='onedl-mmpretrain is not installed')
    cfg, origin = stock_config()
    assert cfg.model.backbone.type == 'mmpretrain.ConvNeXt' and cfg.model.backbone.arch == 'tiny'
    assert cfg.model.decode_head.channels == 512
    assert cfg.model.decode_head.norm_cfg.type == cfg.model.auxiliary_head.norm_cfg.type == 'BN'
    assert origin == "mmpretrain's ConvNeXt"


@pytest.mark.slow
def test_the_stock_backbone_takes_a_step_by_itself():
    pytest.importorskip('mmpretrain', reason='onedl-mmpretrain is not installed')
    Step(stock_config()[0], Setting('infer', 'backbone', batch_size=1, size=32), 'nchw')()


@pytest.mark.parametrize('name', [STOCK, AS_SHIPPED])
def test_without_mmpretrain_there_is_no_stock_and_nothing_takes_its_place(name, monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmpretrain', None)
    monkeypatch.delitem(sys.modules, 'mmpretrain.models', raising=False)
    with pytest.raises(UserError, match=r'mmpretrain.*pip install onedl-mmpretrain'):
        candidate_config(name)


@pytest.mark.skipif(importlib.util.find_spec('mmpretrain') is None, reason='onedl-mmpretrain is not installed')
def test_stock_is_there_beside_a_transformers_that_mmpretrain_cannot_use_and_leaves_it_imported(root):
    code = '''import sys
from types import ModuleType

from studies.throughput.candidates import stock_config

theirs = sys.modules['transformers'] = ModuleType('transformers')
assert 'mmpretrain.models' not in sys.modules
assert stock_config()[0].model.backbone.type == 'mmpretrain.ConvNeXt'
assert sys.modules['transformers'] is theirs
'''
    # A process of its own: here an earlier test may have imported mmpretrain.
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# The ablation of speed


def options_off(cfg):
    """The changes that a config leaves out."""
    off = {'class indices by rows': 'prediction', 'fusion and 3×3 convolutions': 'convolutions',
           'loss on low-resolution logits': 'loss', 'token mixer in one pass': 'token_mixer',
           'blocks and patches': 'blocks'}
    parts = configured_parts(cfg)
    found = {change for change, part in off.items() if parts.get(part) is False}
    return found | (set() if cfg.optim_wrapper.optimizer.fused else {'fused AdamW'})


def test_a_variant_has_its_change_alone_and_none_and_all_are_what_they_say():
    everything = set(CHANGES)
    for mode in ('train', 'infer'):
        names = variants(INCEPTIONNEXT, mode)
        for name in names:
            change = name.partition('::')[2]
            expected = {'none': everything, 'all': set(), 'deploy form': set()}.get(change, everything - {change})
            assert options_off(candidate_config(name)) == expected, name
    assert options_off(candidate_config(INCEPTIONNEXT)) == set()


def test_every_variant_computes_the_same_loss_and_the_same_classes():
    for mode in ('train', 'infer'):
        found = []
        for name in variants(INCEPTIONNEXT, mode):
            step = candidate_step(name, SMALL, Setting(mode, batch_size=2, size=64, width=96), 'nhwc')
            images, samples = next(step.batches)
            assert images.shape == (2, 3, 64, 96)
            torch.manual_seed(0)
            with torch.no_grad():
                found.append(step.forward(images, samples))
        for other in found[1:]:
            if mode == 'train':
                assert other.item() == pytest.approx(found[0].item(), rel=1e-5)
            else:
                assert (other == found[0]).float().mean() > 0.999     # rounding decides between equal logits


def test_a_convnext_and_a_segmentor_of_one_head_have_variants_too():
    for name in ('upernet_convnext_a_mini', 'fpn_inceptionnext_a_mini'):
        path = str(ROOT / f'configs/{name}.py')
        step = candidate_step(f'{path}::none', None, TINY, 'nhwc')
        step()


def test_ours_runs_in_channels_last_alone_and_a_backbone_in_both_layouts():
    layouts = ('nchw', 'nhwc')
    assert layouts_of(candidate_config(INCEPTIONNEXT), TINY, layouts) == ('nhwc', )
    assert layouts_of(small(), Setting(part='backbone'), layouts) == layouts
    assert layouts_of(stock_config()[0], TINY, layouts) == layouts
