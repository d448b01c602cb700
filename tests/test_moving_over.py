"""docs/moving_from_*.md: their snippets, run from top to bottom in one namespace, with small models and no network."""
import re
from pathlib import Path
from types import SimpleNamespace

import mmseg
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, init_default_scope
from mmseg.registry import MODELS

from inceptionnext_seg import SegmentationModel
from inceptionnext_seg.acceleration import Acceleration

ROOT = Path(__file__).resolve().parents[1]
SMALLER = {
    "encoder_weights='imagenet'": 'encoder_weights=None',
    "'resnet50'": "'resnet18'",
    'classes=19)': 'classes=19, decoder_channels=16)',
    'inceptionnext_seg_tiny': 'inceptionnext_seg_atto',
    'num_labels=19)': 'num_labels=19, hidden_size=16, auxiliary_channels=16, auxiliary_in_channels=160)',
    "'timm://inception_next_tiny.sail_in1k'": "'atto.pth'",
    "'upernet_inceptionnext_t'": "'upernet_inceptionnext_a_mini'",
    'pretrained=True': "pretrained='atto.pth'",
    '128': '64'}


@pytest.fixture
def in_a_folder_with_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    weights = timm.create_model('inception_next_atto').state_dict()
    torch.save(weights, 'atto.pth')
    return weights


def snippets(page):
    found = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / page).read_text(encoding='utf-8'), flags=re.DOTALL)
    for old, new in SMALLER.items():
        found = [code.replace(old, new) for code in found]
    return found


def run(code, namespace):
    """The code in ``namespace``, and what it printed: the reports of ``accelerate``."""
    printed = []
    namespace['print'] = printed.append
    exec(compile(code, 'snippet', 'exec'), namespace)
    assert all(isinstance(report, Acceleration) for report in printed)
    return printed


def test_the_page_for_users_of_smp(in_a_folder_with_weights):
    pytest.importorskip('segmentation_models_pytorch', reason='segmentation_models.pytorch is not installed')
    first, encoder, training = snippets('moving_from_smp.md')
    here = {}
    report, = run(first, here)
    assert report.swapped == dict(decoder='FastUPerNetDecoder')
    assert list(here['restore'](here['model']).state_dict()) == list(here['smp'].UPerNet(
        'resnet18', encoder_weights=None, classes=19, decoder_channels=16).state_dict())
    unknown = here['accelerate'](here['smp'].Unet('resnet18', encoder_weights=None))
    assert not unknown.swapped and {'encoder', 'decoder'} <= set(unknown.left)

    report, = run(encoder, here)
    assert report.swapped['decoder'] == 'FastUPerNetDecoder'
    assert any(name.startswith('encoder.') and 'InceptionDWConv2d' in fast for name, fast in report.swapped.items())
    timms = here['accelerate'](here['smp'].UPerNet('tu-inception_next_atto', encoder_weights=None))
    assert set(timms.swapped) == {'decoder'}

    run(training, here)
    assert here['loss'] > 0 and here['classes'].shape == (2, 64, 64)


def test_the_page_for_users_of_hugging_face(in_a_folder_with_weights):
    transformers = pytest.importorskip('transformers', reason='transformers is not installed')
    first, backbone, weights, training = snippets('moving_from_huggingface.md')
    convnext = transformers.ConvNextConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, out_features=['stage1', 'stage2', 'stage3', 'stage4'])
    # Of the name that the page has for the hub, so that a folder is what it finds.
    transformers.UperNetForSemanticSegmentation(transformers.UperNetConfig(
        backbone_config=convnext, hidden_size=16, auxiliary_channels=16, auxiliary_in_channels=24)
    ).save_pretrained('openmmlab/upernet-convnext-tiny')
    here = {}
    report, = run(first, here)
    assert report.swapped == dict(decode_head='FastUperNetHead', auxiliary_head='FastUperNetFCNHead')

    report, = run(backbone, here)
    assert report.swapped['decode_head'] == 'FastUperNetHead'
    assert any(name.startswith('backbone.') and 'InceptionDWConv2d' in fast for name, fast in report.swapped.items())
    run(weights, here)
    stem = here['model'].backbone._backbone.stem[0].weight
    assert torch.equal(stem, in_a_folder_with_weights['stem.0.weight'])
    assert here['model'].eval()(torch.rand(1, 3, 64, 64)).logits.shape == (1, 19, 64, 64)
    assert here['UperNetConfig']().auxiliary_loss_weight == 0.4 and here['UperNetConfig']().loss_ignore_index == 255

    run(training, here)
    assert here['loss'] > 0 and here['classes'].shape == (2, 64, 64)
    assert isinstance(here['model'], SegmentationModel)
    assert {'config.json', 'model.safetensors'} <= {path.name for path in Path('my-segmentor').iterdir()}


def test_the_page_for_users_of_mmsegmentation(in_a_folder_with_weights):
    """Its configs, built on one of MMSegmentation's with a ResNet-18, with few channels."""
    configs = Path(mmseg.__file__).with_name('.mim') / 'configs/upernet'
    if not configs.is_dir():
        pytest.skip(f'this mmsegmentation has no configs: {configs}')
    for number, code in enumerate(snippets('moving_from_mmsegmentation.md')):
        code = code.replace("'upernet_r50_", f"'{configs}/upernet_r18_").replace("'tiny'", "'atto'").replace(
            'https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_tiny.pth', 'atto.pth')
        Path('own.py').write_text(code)
        cfg = Config.fromfile('own.py')
        cfg.merge_from_dict({'model.pretrained': None, 'model.decode_head.channels': 16,
                             'model.auxiliary_head.channels': 16, 'model.data_preprocessor.test_cfg': None})
        if number:
            cfg.merge_from_dict({'model.decode_head.in_channels': [40, 80, 160, 320],
                                 'model.auxiliary_head.in_channels': 160})
        init_default_scope('mmseg')
        model = MODELS.build(cfg.model)
        model.init_weights()
        runner = SimpleNamespace(model=model, cfg=cfg, hooks=[])
        hook = HOOKS.build(cfg.default_hooks.accelerate)
        hook.before_run(runner)
        hook.before_train(runner)
        assert type(model.decode_head).__name__ == 'FastUPerHead'
        assert (type(model.backbone).__name__ == 'InceptionNeXt') == bool(number)
        if number:
            assert model.backbone.stem[0].weight.equal(in_a_folder_with_weights['stem.0.weight'])
        assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 150, 16, 16)
