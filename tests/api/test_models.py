"""One tester for every model and every way of using it; the models themselves against stock MMSegmentation and timm."""
import copy
import io
import json
import os
import pickle

import mmseg.registry
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DefaultScope
from safetensors.torch import load_file, save_file

import inceptionnext_seg
from inceptionnext_seg import SegmentationModel, create_backbone, create_model, list_configs, list_models
from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.errors import SettingError, UserError
from inceptionnext_seg.zoo import find_config

CLASSES = 7
MEAN = dict(mean=[104., 117., 124.], std=[57., 58., 59.])
SHALLOW = dict(backbone=dict(arch=dict(depths=[1, 1, 2, 1], dims=[40, 80, 160, 320])))
SMALL = {f'{head}_{family}_a': dict(SHALLOW, **settings) for family in ('inceptionnext', 'convnext')
         for head, settings in (('upernet', dict(decode_head=dict(channels=16))), ('fpn', {}))}


def random_images(count=2, size=(70, 97), seed=0):
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope='module', params=sorted(SMALL))
def model(request):
    """A small model of each kind, accelerated, whose output depends on every part; in eval mode."""
    torch.manual_seed(0)
    model = create_model(request.param, CLASSES, auxiliary_head='upernet' in request.param, **SMALL[request.param])
    for name, tensor in model.state_dict().items():
        if name.endswith('gamma'):
            tensor.uniform_(0.2, 0.5)
        elif name.endswith('running_var'):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith('conv_seg.weight'):
            tensor.normal_()
    return model.eval()


@pytest.fixture(scope='module')
def logits(model):
    with torch.no_grad():
        return model(random_images())


def assert_same(model, logits):
    with torch.no_grad():
        assert torch.equal(model(random_images()), logits)


# What every model does


# The larger variants differ in depth and width alone.
@pytest.mark.parametrize('name', list_models('*next_[at]*'))
def test_a_model_of_the_list_gives_logits_of_its_classes_at_the_images_own_size(name):
    with torch.device('meta'):
        model = create_model(name, 19, accelerate=False)
        assert model(torch.zeros(2, 3, 65, 98)).shape == (2, 19, 65, 98)


def test_a_model_computes_what_mmsegmentation_computes_from_the_same_weights(model, logits):
    settings = dict(type='EncoderDecoder', test_cfg=dict(mode='whole'), data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True))
    with DefaultScope.overwrite_default_scope('mmseg'):
        stock = mmseg.registry.MODELS.build(dict(settings, **copy.deepcopy(model._hub_mixin_config['architecture'])))
    stock.load_state_dict(model.state_dict())
    stock.eval()
    inputs = stock.data_preprocessor(dict(inputs=list(random_images().flip(1))))['inputs']
    with torch.no_grad():
        expected = stock.encode_decode(inputs, [dict(img_shape=inputs.shape[2:])] * 2)
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()


def test_normalized_floats_give_the_logits_of_their_8_bit_images(model, logits):
    mean, std = (torch.tensor(values)[:, None, None] for values in (
        timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD))
    with torch.no_grad():
        found = model((random_images() / 255 - mean) / std)
    assert (found - logits).abs().max() < 1e-4 * logits.abs().max()


def test_a_copy_and_a_model_that_was_saved_whole_give_the_same(model, logits):
    assert_same(copy.deepcopy(model), logits)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert_same(torch.load(file, weights_only=False), logits)


def test_what_was_saved_for_the_hub_is_safetensors_a_description_and_a_card_and_gives_the_same(
        model, logits, tmp_path):
    model.save_pretrained(tmp_path, model_card_kwargs=dict(dataset='drawn scenes', metrics='mIoU 12.3'))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['README.md', 'config.json', 'model.safetensors']
    assert load_file(tmp_path / 'model.safetensors').keys() == model.state_dict().keys()
    card = (tmp_path / 'README.md').read_text()
    assert all(text in card for text in ('drawn scenes', 'mIoU 12.3', 'image-segmentation', '2303.16900'))
    found = SegmentationModel.from_pretrained(tmp_path)
    assert not found.training
    assert_same(found, logits)


def test_the_loss_is_the_cross_entropy_of_the_logits_and_the_auxiliary_ones(model):
    labels = torch.randint(0, CLASSES, (2, 70, 97), generator=torch.Generator().manual_seed(1))
    labels[:, :5] = 255
    features = model.extract_features(random_images())
    expected = 0
    for head, weight in ((model.decode_head, 1.0), (model.auxiliary_head, 0.4)):
        if head is not None:
            resized = F.interpolate(head(features), (70, 97), mode='bilinear', align_corners=False)
            expected += weight * F.cross_entropy(resized, labels, ignore_index=255, reduction='sum') / labels.numel()
    assert model.loss(random_images(), labels).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_plain_loop_trains_every_parameter(model):
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-4)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    labels = random_images(seed=2)[:, 0] % CLASSES
    losses = []
    torch.manual_seed(0)
    for _ in range(4):
        optimizer.zero_grad()
        loss = model.loss(random_images(), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[1:]) < losses[0]      # dropout makes each step another
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.compile
def test_a_compiled_model_gives_the_same():
    model = create_model('upernet_inceptionnext_a', CLASSES, **SMALL['upernet_inceptionnext_a']).eval()
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    with torch.no_grad():
        expected = model(random_images())
        assert (compiled(random_images()) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.slow
def test_a_model_trains_in_lightning():
    lightning = pytest.importorskip('lightning')

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = create_model('upernet_inceptionnext_a', CLASSES, decode_head=dict(channels=16))

        def training_step(self, batch, index):
            return self.model.loss(*batch)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-3)

    module = Module()
    before = copy.deepcopy(module.state_dict())
    images = random_images(4, (64, 64))
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, images[:, 0] % CLASSES), batch_size=2)
    trainer = lightning.Trainer(
        accelerator='cpu', max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False)
    trainer.fit(module, data)
    assert trainer.global_step == 2
    assert not torch.equal(module.state_dict()['model.backbone.stem.0.weight'], before['model.backbone.stem.0.weight'])


# By name


def test_names_of_configs_are_those_of_the_files_and_models_are_configs_without_a_data_set(root):
    files = {path.stem for path in (root / 'configs').rglob('*.py')
             if path.parent.name not in ('_base_', 'classification', 'detection', 'powered')}
    assert set(list_configs()) == files
    assert {'upernet_inceptionnext_t', 'upernet_convnext_b', 'fpn_inceptionnext_s', 'fpn_convnext_a'} <= {
        *list_models()}
    assert all(any(config.startswith(f'{name}_') for config in files) for name in list_models())
    assert list_models('*recipe*') == []
    assert list_configs('*_camvid') == ['upernet_convnext_a_camvid', 'upernet_inceptionnext_a_camvid']


def test_creating_a_model_leaves_mmengines_scope_as_it_was():
    with DefaultScope.overwrite_default_scope('mmengine'):
        create_model('fpn_inceptionnext_a', 3)
        create_model('upernet_inceptionnext_a_camvid', accelerate=False)
        assert DefaultScope.get_current_instance().scope_name == 'mmengine'


def test_a_checkpoint_says_how_many_classes_there_are_and_fits_with_and_without_its_auxiliary_head(model, tmp_path):
    if model.auxiliary_head is None:
        return
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'weights.pth')
    name = f'upernet_{type(model.backbone).__name__.lower()}_a'
    found = create_model(name, checkpoint=tmp_path / 'weights.pth', **SMALL[name])
    assert found.num_classes == CLASSES
    assert found.auxiliary_head is None
    with torch.no_grad():
        assert torch.equal(found.eval()(random_images()), model(random_images()))
    with pytest.raises(UserError, match=r'of another shape .*conv_seg'):
        create_model(name, 5, checkpoint=tmp_path / 'weights.pth', **SMALL[name])


def test_names_and_colours_are_those_of_the_data_set_where_the_classes_are():
    camvid = create_model('upernet_inceptionnext_a_camvid')
    assert camvid.class_names[0] == 'sky' and len(camvid.palette) == camvid.num_classes == 11
    assert create_model('upernet_inceptionnext_a_camvid', 3).class_names is None


def test_one_logit_a_pixel_is_one_output_whatever_the_classes_are_called():
    cfg = Config.fromfile(find_config('fpn_inceptionnext_a_mini'))
    cfg.test_dataloader.dataset = dict(
        type='BaseSegDataset', metainfo=dict(classes=('ground', 'road'), palette=[[0, 0, 0], [128, 64, 128]]),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackSegInputs')])
    cfg.model.decode_head.update(num_classes=2, out_channels=1, threshold=0.3, loss_decode=dict(
        type='CrossEntropyLoss', use_sigmoid=True))
    model = create_model(cfg, accelerate=False, **SHALLOW)
    assert model.num_classes == 1 and model.class_names is None
    assert model(random_images()).shape == (2, 1, 70, 97)
    with pytest.raises(SettingError, match='class_names has 2 entries; expected: 1'):
        create_model(cfg, accelerate=False, class_names=['ground', 'road'], **SHALLOW)


def test_pretrained_is_imagenet_weights_of_the_backbone(tmp_path):
    source = timm.create_model('inception_next_atto')
    torch.save(source.state_dict(), tmp_path / 'atto.pth')
    model = create_model('upernet_inceptionnext_a', 2, pretrained=tmp_path / 'atto.pth')
    assert torch.equal(model.backbone.stages[2].blocks[1].mlp.fc1.weight, source.stages[2].blocks[1].mlp.fc1.weight)
    backbone = create_backbone('inceptionnext_a', pretrained=tmp_path / 'atto.pth').eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = source.eval().forward_features(image)
        assert (backbone(image)[-1] - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(name='upernet_inceptionext_t'), r'upernet_inceptionnext_t\b'),
    (dict(name='upernet_inceptionnext_a', pretrained='a.pth', checkpoint='b.pth'), 'both pretrained and checkpoint'),
    (dict(name='fpn_inceptionnext_a', auxiliary_head=True), 'has none'),
    (dict(name='fpn_inceptionnext_a', class_names=['a', 'b']), 'class_names has 2 entries; expected: 18'),
    (dict(name='fpn_inceptionnext_a', backbone=dict(drop_path=0.1)), 'drop_path'),
    (dict(name='fpn_inceptionnext_a', num_classes=0), 'num_classes is 0; expected: at least 1'),
    (dict(name='fpn_inceptionnext_a', checkpoint='none.pth'), 'none.pth')])
def test_a_wrong_argument_is_one_message(arguments, message):
    with pytest.raises(UserError, match=message):
        create_model(**arguments)


@pytest.mark.parametrize(('images', 'message'), [
    (torch.zeros(3, 64, 64), r'\(3, 64, 64\)'), (torch.zeros(1, 4, 64, 64), r'\(1, 4, 64, 64\).*\(B, 3, H, W\)'),
    (torch.zeros(1, 3, 64, 64, dtype=torch.int64), 'int64'), (torch.zeros(1, 3, 31, 64), '31×64')])
def test_images_that_are_none_are_one_message(model, images, message):
    with pytest.raises(SettingError, match=message):
        model(images)


def test_images_of_other_channels_are_floats():
    model = create_model('fpn_inceptionnext_a', 3, in_channels=5).eval()
    assert model(torch.randn(1, 5, 64, 64)).shape == (1, 3, 64, 64)
    with pytest.raises(SettingError, match='cannot normalize'):
        model(torch.zeros(1, 5, 64, 64, dtype=torch.uint8))


@pytest.mark.parametrize(('name', 'settings'), [
    ('upernet_timm_mobilenetv3_small_mini', {}),
    ('upernet_timm_mobilenetv3_small_inception_mini', dict(in_channels=5))])
def test_a_config_with_a_backbone_of_another_library_is_a_model_too(name, settings):
    channels = settings.get('in_channels', 3)
    with torch.device('meta'):
        model = create_model(name, 4, accelerate=False, **settings)
        assert model(torch.zeros(2, channels, 64, 64)).shape == (2, 4, 64, 64)
        with pytest.raises(SettingError, match=rf'\(2, 1, 64, 64\); expected: \(B, {channels}, H, W\)'):
            model(torch.zeros(2, 1, 64, 64))


def test_channels_are_those_of_the_config_where_none_are_given():
    cfg = Config.fromfile(find_config('fpn_inceptionnext_a_mini'))
    cfg.model.backbone.in_channels = 4
    with torch.device('meta'):
        assert create_model(cfg, accelerate=False).in_channels == 4
        assert create_model(cfg, in_channels=3, accelerate=False).in_channels == 3


@pytest.mark.parametrize('settings', [
    dict(MEAN, bgr_to_rgb=True), dict(MEAN, rgb_to_bgr=True), dict(bgr_to_rgb=True), dict(mean=None, std=None),
    dict(mean=[120.], std=[60.], bgr_to_rgb=True), MEAN])
def test_8_bit_images_are_normalized_as_by_the_preprocessor_of_ones_own_config_or_not_at_all(settings):
    """Files are read as BGR: where they stay it, the mean is that of BGR, and the model takes RGB."""
    cfg = Config.fromfile(find_config('fpn_inceptionnext_a_mini'))
    cfg.model.data_preprocessor = dict(type='SegDataPreProcessor', **settings)
    model = create_model(cfg, accelerate=False, **SHALLOW)
    if not {'bgr_to_rgb', 'rgb_to_bgr'} & settings.keys():
        with pytest.raises(SettingError, match='cannot normalize'):
            model(random_images())
        return
    stock = mmseg.registry.MODELS.build(cfg.model.data_preprocessor)
    expected = stock(dict(inputs=list(random_images().flip(1))))['inputs']
    assert torch.allclose(model.normalize(random_images()), expected)


# What a stranger's files may not do


@pytest.mark.parametrize('part', ['backbone', 'decode_head'])
def test_a_description_that_names_anything_else_is_refused(tmp_path, part):
    model = create_model('fpn_inceptionnext_a', 3)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text())
    config['architecture'][part]['norm_cfg'] = dict(type='pathlib.Path.touch', self=str(tmp_path / 'touched'))
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(SettingError, match=r'pathlib\.Path\.touch'):
        SegmentationModel.from_pretrained(tmp_path)
    assert not (tmp_path / 'touched').exists()


class Touching:
    """Unpickled, it leaves a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path, )


@pytest.mark.parametrize(('where', 'key', 'value', 'message'), [
    ('loss_decode', 'class_weight', 'weights.pkl', r"class_weight .*weights\.pkl'.*a list of numbers"),
    (None, '_scope_', 'strangers', "scope 'strangers'.*mmseg"), (None, 'type', ['FPNHead'], r"names \['FPNHead'\]")])
def test_a_description_that_would_load_or_import_anything_is_refused(
        tmp_path, monkeypatch, where, key, value, message):
    """mmseg loads class weights from a path or URL, pickles too; mmengine imports the package of a scope."""
    create_model('fpn_inceptionnext_a', 3, **SHALLOW).save_pretrained(tmp_path)
    (tmp_path / 'weights.pkl').write_bytes(pickle.dumps(Touching(tmp_path / 'touched')))
    (tmp_path / 'strangers.py').write_text(f'import os; os.mkdir({str(tmp_path / "touched")!r})\n')
    monkeypatch.syspath_prepend(tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text())
    head = config['architecture']['decode_head']
    (head[where] if where else head)[key] = str(tmp_path / value) if where else value
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(SettingError, match=message):
        SegmentationModel.from_pretrained(tmp_path)
    assert not (tmp_path / 'touched').exists()


def test_a_model_whose_config_has_a_base_of_mmseg_is_saved_and_loaded(tmp_path):
    cfg = Config.fromfile(find_config('fpn_inceptionnext_a_mini'))
    cfg.model.decode_head['_scope_'] = 'mmseg'
    create_model(cfg, **SHALLOW).save_pretrained(tmp_path)
    assert SegmentationModel.from_pretrained(tmp_path).num_classes == 18


@pytest.mark.parametrize('config', [None, '{}', '{"architecture": ["FPNHead"]}'])
def test_weights_without_a_description_are_one_message(tmp_path, config):
    create_model('fpn_inceptionnext_a', 3, **SHALLOW).save_pretrained(tmp_path)
    (tmp_path / 'config.json').unlink()
    if config:
        (tmp_path / 'config.json').write_text(config)
    with pytest.raises(SettingError, match=r'config\.json of .* describes no architecture.*create_model'):
        SegmentationModel.from_pretrained(tmp_path)


def test_a_folder_that_is_not_there_is_one_message(tmp_path):
    with pytest.raises(UserError, match=r'none is no folder, and no name on the hub\. Expected: .*save_pretrained'):
        SegmentationModel.from_pretrained(tmp_path / 'none')


def test_weights_that_lack_a_tensor_are_refused(tmp_path):
    create_model('fpn_inceptionnext_a', 3).save_pretrained(tmp_path)
    weights = load_file(tmp_path / 'model.safetensors')
    del weights['backbone.stem.0.weight']
    save_file(weights, tmp_path / 'model.safetensors')
    with pytest.raises(UserError, match=r'missing \(1\): backbone\.stem\.0\.weight'):
        SegmentationModel.from_pretrained(tmp_path)


# In timm


def test_timm_makes_the_backbone_with_the_maps_of_its_own_model():
    torch.manual_seed(0)
    theirs = timm.create_model('inception_next_atto', features_only=True).eval()
    ours = timm.create_model('inceptionnext_seg_atto', features_only=True, out_indices=(1, 3)).eval()
    weights = {key.replace('stages_', 'stages.'): value for key, value in theirs.state_dict().items()}
    ours.load_state_dict({key.replace('stem_', 'stem.'): value for key, value in weights.items()}, strict=True)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = theirs(image), ours(image)
    assert ours.feature_info.channels() == [80, 320] == theirs.feature_info.channels()[1::2]
    assert ours.feature_info.reduction() == [8, 32]
    for a, b in zip(found, expected[1::2], strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())
    assert len(timm.list_models('inceptionnext_seg_*')) == 4


def test_a_timm_entry_is_an_encoder_of_segmentation_models_pytorch():
    model = smp.UPerNet('tu-inceptionnext_seg_atto', encoder_weights=None, classes=5).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(image)
        assert 'InceptionDWConv2d' in str(inceptionnext_seg.accelerate(model))
        found = model(image)
    assert found.shape == (1, 5, 64, 64)
    assert np.allclose(found, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-4)


@pytest.mark.parametrize('settings', [
    lambda path: dict(pretrained_cfg_overlay=dict(file=str(path), mean=(0.5, 0.5, 0.5))),
    lambda path: dict(pretrained_cfg=dict(file=path)),
    lambda path: dict(pretrained_cfg_overlay=dict(state_dict=load_file(path))),
    lambda path: dict(pretrained_cfg_overlay=dict(hf_hub_id=None, url=path.as_uri()), cache_dir=path.parent / 'cache')])
def test_weights_of_a_timm_entry_are_those_that_timms_own_arguments_name(settings, tmp_path):
    theirs = timm.create_model('inception_next_atto').state_dict()
    save_file(theirs, tmp_path / 'mine.safetensors')
    settings = settings(tmp_path / 'mine.safetensors')
    ours = timm.create_model('inceptionnext_seg_atto', pretrained=True, features_only=True, **settings)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())
    assert len([*tmp_path.glob('cache/*')]) == ('cache_dir' in settings)
    mean = settings.get('pretrained_cfg_overlay', {}).get('mean', timm.data.IMAGENET_DEFAULT_MEAN)
    assert timm.data.resolve_model_data_config(ours)['mean'] == mean


def test_weights_of_a_timm_entry_are_by_default_those_of_its_tag(monkeypatch):
    asked = []
    monkeypatch.setattr('inceptionnext_seg.models.timm_models.load_pretrained',
                        lambda model, source, cache_dir=None: asked.append(source))
    for name in ('atto', 'base.sail_in1k_384'):
        with torch.device('meta'):
            timm.create_model(f'inceptionnext_seg_{name}', pretrained=True, features_only=True)
    assert asked == ['hf-hub://timm/inception_next_atto.sail_in1k', 'hf-hub://timm/inception_next_base.sail_in1k_384']


@pytest.mark.parametrize(('settings', 'message'), [
    (dict(pretrained_cfg='none_such'), 'none_such'), (dict(pretrained_cfg_overlay=dict(fiel='a.pth')), 'fiel'),
    (dict(pretrained_cfg_overlay=dict(hf_hub_filename='b.bin')), r"hf_hub_filename.*'b\.bin'.*dict\(file=PATH\)"),
    (dict(pretrained_cfg=dict(num_classes=3)), 'names no weights')])
def test_an_argument_of_timm_that_leads_to_no_weights_is_one_message(settings, message):
    with torch.device('meta'), pytest.raises(SettingError, match=message):
        timm.create_model('inceptionnext_seg_atto', pretrained=True, features_only=True, **settings)


def test_a_timm_entry_without_features_only_points_to_the_classifier():
    with pytest.raises(SettingError, match=r'features_only=True.*inception_next_tiny'):
        timm.create_model('inceptionnext_seg_tiny')


def test_a_config_is_found_by_name_in_every_spelling_and_a_file_comes_first(tmp_path, monkeypatch):
    expected = find_config('upernet_inceptionnext_a_mini')
    monkeypatch.chdir(tmp_path)
    for name in ('inceptionnext_seg::upernet_inceptionnext_a_mini', 'upernet_inceptionnext_a_mini.py',
                 'configs/upernet_inceptionnext_a_mini.py'):
        assert find_config(name) == expected
    assert find_config('ablations/upernet_inceptionnext_a_dw3x3_mini').parent.name == 'ablations'
    assert find_config('inceptionnext_t_imagenet').parent.name == 'classification'
    (tmp_path / 'upernet_inceptionnext_a_mini.py').touch()
    assert not find_config('upernet_inceptionnext_a_mini.py').is_absolute()
    for name in ('ablations/upernet_inceptionnext_a_mini.py', './upernet_inceptionnext_b_mini.py'):
        with pytest.raises(UserError, match='config not found'):
            find_config(name)


@pytest.mark.parametrize('folder', ['classification', 'detection'])
def test_a_config_of_another_framework_is_refused_by_its_path_too(root, folder, monkeypatch):
    monkeypatch.chdir(root)
    path = next(path for path in sorted((root / 'configs' / folder).glob('*.py')))
    for spelling in (path.stem, path, path.relative_to(root)):
        with pytest.raises(UserError, match=r'is one of MM(Pretrain|Detection); .*other_frameworks\.md'):
            load_config(spelling)


def test_a_config_of_ones_own_takes_its_bases_from_the_package(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("_base_ = ['inceptionnext_seg::_base_/../upernet_inceptionnext_a_mini.py']\n"
                    'model = dict(decode_head=dict(channels=8))\n')
    model = create_model(path)
    assert model.decode_head.channels == 8
    assert model.num_classes == 18
