"""Weights under every naming, wrapped in every way, over the network, and broken or hostile."""
import collections
import contextlib
import copy
import http.server
import os
import threading
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.model import BaseModel, BaseModule
from mmengine.model.weight_init import PretrainedInit
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader, Runner
from timm.models.convnext import ConvNeXt as TimmConvNeXt
from timm.models.inception_next import MetaNeXt as TimmMetaNeXt

from inceptionnext_seg import ConvNeXt, InceptionNeXt
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.checkpoint import load_model, load_pretrained, read_checkpoint, read_file

SMALL = dict(depths=(1, 1, 1, 1), dims=(16, 32, 48, 64))


def randomize(model, seed=0):
    """Draw every weight and statistic, at a scale at which each one moves the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.ndim > 1:
                value.normal_(std=value[0].numel()**-0.5, generator=generator)
            elif name.endswith(('gamma', 'weight', 'running_var')):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.is_floating_point():
                value.normal_(std=0.2, generator=generator)
    model.eval()
    return model


def draw_image(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def pretrained(family, checkpoint, **settings):
    """A backbone that was given its weights as a config gives them."""
    settings.setdefault('init_cfg', dict(type='Pretrained', checkpoint=str(checkpoint)))
    model = MODELS.build(dict(type=family, **dict(dict(arch=SMALL), **settings)))
    model.init_weights()
    return model.eval()


def assert_same_features(found, wanted, tolerance=1e-5):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * b.abs().max().item())


@pytest.fixture(scope='module')
def inception_next():
    """timm's InceptionNeXt with its classifier: the names and shapes of the released weights."""
    return randomize(TimmMetaNeXt(**SMALL, num_classes=10))


@pytest.fixture
def assert_loaded(inception_next):
    """Compare a backbone's features with those of :func:`inception_next`."""
    image = draw_image(2, 3, 64, 64)

    def compare(model):
        with torch.no_grad():
            assert_same_features(model.eval()(image), inception_next.forward_intermediates(
                image, intermediates_only=True))

    return compare


@pytest.fixture
def weights(inception_next, tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save(inception_next.state_dict(), path)
    return path


# Files and wrappers


WRAPPERS = {
    'plain': lambda state: state,
    'state_dict': lambda state: dict(state_dict=state, meta=dict(epoch=3)),
    'model': lambda state: dict(model=state, optimizer=dict(state={}), epoch=3),
    'module.': lambda state: {f'module.{name}': value for name, value in state.items()},
    'module. in state_dict': lambda state: dict(
        state_dict={f'module.{name}': value for name, value in state.items()}),
    'backbone.': lambda state: dict(state_dict={
        **{f'backbone.{name}': value for name, value in state.items()}, 'decode_head.conv_seg.weight': torch.ones(2)}),
    'module.backbone.': lambda state: {f'module.backbone.{name}': value for name, value in state.items()},
    'no counters': lambda state: {
        name: value for name, value in state.items() if not name.endswith('num_batches_tracked')},
}


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS.keys())
def test_a_pth_file_loads_however_its_state_dict_is_wrapped(inception_next, assert_loaded, tmp_path, wrap, legacy):
    path = tmp_path / 'weights.pth'
    torch.save(wrap(inception_next.state_dict()), path, _use_new_zipfile_serialization=not legacy)
    assert_loaded(pretrained('InceptionNeXt', path))


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_a_safetensors_file_loads(inception_next, assert_loaded, tmp_path, prefix):
    path = tmp_path / 'weights.safetensors'
    safetensors.torch.save_file({prefix + name: value for name, value in inception_next.state_dict().items()}, path)
    assert_loaded(pretrained('InceptionNeXt', path))


def test_a_prefix_of_ones_own_is_taken_from_init_cfg_and_a_wrong_one_is_an_error(
        inception_next, assert_loaded, tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save({f'encoder.net.{name}': value for name, value in inception_next.state_dict().items()}, path)
    for prefix in ('encoder.net', 'encoder.net.'):
        assert_loaded(pretrained('InceptionNeXt', path, init_cfg=dict(
            type='Pretrained', checkpoint=str(path), prefix=prefix)))
    with pytest.raises(UserError, match=r"no key under 'teacher\.'; its keys begin with \['encoder\.net\.head"):
        load_pretrained(InceptionNeXt(SMALL), path, prefix='teacher')


def test_output_norms_may_be_new_and_stay_as_they_were_drawn(weights, inception_next):
    model = pretrained('InceptionNeXt', weights, out_norm_cfg=dict(type='BN'))
    assert all(torch.equal(getattr(model, f'norm{i}').weight, torch.ones(SMALL['dims'][i])) for i in range(4))
    assert torch.equal(model.stem[0].weight, inception_next.stem[0].weight)


def test_output_norms_are_loaded_where_the_checkpoint_has_them_and_left_out_where_the_model_has_none(tmp_path):
    source = randomize(InceptionNeXt(SMALL, out_norm_cfg=dict(type='BN')))
    torch.save(source.state_dict(), tmp_path / 'weights.pth')
    image = draw_image(1, 3, 64, 64)
    same = pretrained('InceptionNeXt', tmp_path / 'weights.pth', out_norm_cfg=dict(type='BN'))
    assert_same_features(same(image), source(image))
    without = pretrained('InceptionNeXt', tmp_path / 'weights.pth')
    assert torch.equal(without.stages[3].blocks[0].gamma, source.stages[3].blocks[0].gamma)


# ConvNeXt's namings


def name_in_facebook(name):
    """timm's ConvNeXt parameter name in facebookresearch/ConvNeXt (models/convnext.py)."""
    parts = name.split('.')
    if parts[0] == 'stem':
        return f'downsample_layers.0.{parts[1]}.{parts[2]}'
    if parts[0] == 'stages' and parts[2] == 'downsample':
        return f'downsample_layers.{parts[1]}.{parts[3]}.{parts[4]}'
    if parts[0] == 'stages':
        layer = {'conv_dw': 'dwconv', 'norm': 'norm', 'mlp.fc1': 'pwconv1', 'mlp.fc2': 'pwconv2', 'gamma': 'gamma'}
        *middle, last = parts[4:]
        return f'stages.{parts[1]}.{parts[3]}.' + (f'{layer[".".join(middle)]}.{last}' if middle else layer[last])
    return {'head.norm.weight': 'norm.weight', 'head.norm.bias': 'norm.bias',
            'head.fc.weight': 'head.weight', 'head.fc.bias': 'head.bias'}[name]


def name_in_openmmlab(name):
    """timm's ConvNeXt parameter name in an OpenMMLab classifier, whose last norm belongs to the backbone."""
    name = name_in_facebook(name)
    if name.startswith('head.'):
        return f'head.fc.{name[5:]}'
    for theirs, ours in (('norm.', 'norm3.'), ):
        name = ours + name[len(theirs):] if name.startswith(theirs) else name
    return 'backbone.' + name.replace('.dwconv.', '.depthwise_conv.').replace('.pwconv', '.pointwise_conv')


@pytest.mark.logits_match
@pytest.mark.parametrize('naming, wrapper', [
    (name_in_facebook, 'model'), (name_in_openmmlab, 'state_dict'), (str, None)], ids=['facebook', 'openmmlab', 'timm'])
@pytest.mark.parametrize('conv_mlp', [False, True], ids=['linear', 'conv'])
def test_convnext_takes_the_weights_of_every_naming(tmp_path, naming, wrapper, conv_mlp):
    theirs = randomize(TimmConvNeXt(**SMALL, num_classes=10, conv_mlp=conv_mlp))
    state = {naming(name): value for name, value in theirs.state_dict().items()}
    torch.save({wrapper: state} if wrapper else state, tmp_path / 'weights.pth')
    image = draw_image(2, 3, 64, 64)
    wanted = theirs.forward_intermediates(image, intermediates_only=True)
    assert_same_features(pretrained('ConvNeXt', tmp_path / 'weights.pth', out_norm_cfg=None)(image), wanted)
    normed = pretrained('ConvNeXt', tmp_path / 'weights.pth')
    # OpenMMLab alone has the norm of the last stage in the backbone; the norm is new under the other names.
    last = theirs.head.norm.weight if naming is name_in_openmmlab else torch.ones(64)
    assert torch.equal(normed.norm3.weight, last) and torch.equal(normed.norm0.weight, torch.ones(16))


@pytest.mark.logits_match
def test_the_names_of_facebook_and_openmmlab_are_those_of_mmpretrain(tmp_path):
    MMConvNeXt = import_mmpretrain_convnext()
    theirs = randomize(MMConvNeXt(dict(depths=[1, 1, 1, 1], channels=[16, 32, 48, 64])))
    named = {name_in_openmmlab(name) for name in TimmConvNeXt(**SMALL).state_dict() if not name.startswith('head.fc')}
    assert named == {f'backbone.{name}' for name in theirs.state_dict()}


def import_mmpretrain_convnext():
    try:
        from mmpretrain.models.backbones import ConvNeXt as MMConvNeXt
    except (ImportError, TypeError) as error:  # TypeError: transformers 5 beside mmpretrain 1.3
        pytest.skip(f'mmpretrain cannot be imported: {error}')
    return MMConvNeXt


@pytest.mark.logits_match
def test_a_whole_upernet_checkpoint_of_openmmlab_loads_strictly_and_gives_the_same_logits(tmp_path):
    import_mmpretrain_convnext()
    import mmseg

    def build_segmentor(cfg):
        with MODELS.switch_scope_and_registry('mmseg') as registry:
            return registry.build(cfg)

    root = Path(mmseg.__file__).parent / '.mim' / 'configs' / 'convnext'
    cfg = Config.fromfile(root / 'convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py').model
    cfg.backbone.init_cfg = None
    for head, channels in ((cfg.decode_head, 32), (cfg.auxiliary_head, 16)):
        head.update(channels=channels, norm_cfg=dict(type='BN'))
    theirs = randomize(build_segmentor(copy.deepcopy(cfg)))
    meta = dict(dataset_meta=dict(classes=('wall', 'sky')), iter=160000)
    torch.save(dict(meta=meta, state_dict=theirs.state_dict()), tmp_path / 'upernet.pth')

    cfg.backbone = dict(type='ConvNeXt', arch='tiny', drop_path_rate=0.4, layer_scale_init_value=1.0)
    ours = build_segmentor(cfg).eval()
    assert isinstance(ours.backbone, ConvNeXt)
    assert load_model(ours, tmp_path / 'upernet.pth') == meta
    image = draw_image(1, 3, 97, 131)
    with torch.no_grad():
        found, wanted = (model(image, mode='tensor') for model in (ours, theirs))
        assert found.shape == (1, 150, 24, 32)
        assert_same_features([found], [wanted], tolerance=1e-4)
        auxiliary = [model.auxiliary_head(model.extract_feat(image)) for model in (ours, theirs)]
        assert_same_features(auxiliary[:1], auxiliary[1:], tolerance=1e-4)


def test_a_whole_model_that_does_not_fit_is_an_error_that_lists_the_keys(tmp_path):
    def segmentor(classes):
        return nn.ModuleDict(dict(backbone=InceptionNeXt(SMALL), decode_head=nn.Conv2d(64, classes, 1)))

    source = randomize(segmentor(3))
    torch.save({f'module.{name}': value for name, value in source.state_dict().items()}, tmp_path / 'a.pth')
    model = segmentor(3)
    assert load_model(model, tmp_path / 'a.pth') == {}
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(UserError, match=r'of another shape \(2\): decode_head.weight: \(3, 64, 1, 1\) in the '
                                        r'checkpoint, \(2, 64, 1, 1\) in the model, decode_head.bias'):
        load_model(segmentor(2), tmp_path / 'a.pth')


# What does not fit


def test_missing_unexpected_and_misshapen_keys_are_all_listed_and_nothing_is_loaded(inception_next, tmp_path):
    state = inception_next.state_dict()
    del state['stem.0.bias'], state['stages.3.blocks.0.gamma']
    state['stages.4.blocks.0.gamma'] = torch.ones(3)
    state['stages.1.blocks.0.gamma'] = torch.ones(31)
    torch.save(state, tmp_path / 'weights.pth')
    model = InceptionNeXt(SMALL)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError) as error:
        load_pretrained(model, tmp_path / 'weights.pth')
    message = str(error.value)
    assert str(tmp_path / 'weights.pth') in message and 'InceptionNeXt' in message
    assert 'missing (2): stem.0.bias, stages.3.blocks.0.gamma' in message
    assert 'unexpected (1): stages.4.blocks.0.gamma' in message
    assert 'of another shape (1): stages.1.blocks.0.gamma: (31,) in the checkpoint, (32,) in the model' in message
    assert '`arch`' in message
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_of_another_variant_or_family_are_an_error(weights):
    with pytest.raises(UserError, match='of another shape'):
        pretrained('InceptionNeXt', weights, arch=dict(SMALL, dims=(16, 32, 48, 80)))
    with pytest.raises(UserError, match=r'of another shape \(1\): stem.0.weight: \(16, 3, 4, 4\).* `in_channels`'):
        pretrained('InceptionNeXt', weights, in_channels=4)
    with pytest.raises(UserError, match=r'missing .*token_mixer.weight.*unexpected .*token_mixer.dwconv_hw'):
        pretrained('ConvNeXt', weights)
    with pytest.raises(UserError, match=r'missing .*: stages\.1\.blocks\.1\.gamma'):
        pretrained('InceptionNeXt', weights, arch=dict(SMALL, depths=(1, 2, 1, 1)))


def test_stages_that_are_not_output_are_loaded_and_missed_like_the_others(inception_next, tmp_path):
    state = inception_next.state_dict()
    torch.save(state, tmp_path / 'whole.pth')
    model = pretrained('InceptionNeXt', tmp_path / 'whole.pth', out_indices=(0, 1))
    assert torch.equal(model.stages[3].blocks[0].gamma, state['stages.3.blocks.0.gamma'])
    torch.save({k: v for k, v in state.items() if not k.startswith('stages.3')}, tmp_path / 'cut.pth')
    with pytest.raises(UserError, match='missing'):
        pretrained('InceptionNeXt', tmp_path / 'cut.pth', out_indices=(0, 1))


@pytest.mark.parametrize('content, found', [
    (dict(epoch=3, lr=0.1), r"found \['epoch', 'lr'\]"),
    ({1: 'one', 'two': 2, None: 3}, r'found \['),
    ({0: torch.ones(2)}, r'found \['),
    (dict(state_dict=dict(a=[1, 2])), r"found \['a'\]"),
    ([torch.ones(2)], 'found list'),
    (torch.ones(2), 'found Tensor'),
    (None, 'found NoneType'),
])
def test_a_file_without_a_state_dict_is_an_error_that_says_what_it_holds(tmp_path, content, found):
    torch.save(content, tmp_path / 'weights.pth')
    with pytest.raises(UserError, match=f'holds no state dict .{found}'):
        load_pretrained(InceptionNeXt(SMALL), tmp_path / 'weights.pth')


# Broken and hostile files


def test_a_missing_file_is_an_error_with_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf'checkpoint not found: {tmp_path}/nowhere\.pth.*\.pth or \.safetensors'):
        pretrained('InceptionNeXt', 'nowhere.pth')
    with pytest.raises(UserError, match='checkpoint not found'):
        read_file(tmp_path)


@pytest.mark.parametrize('kind', ['zip.pth', 'legacy.pth', '.safetensors'])
def test_a_file_cut_short_anywhere_is_an_error_that_names_it_and_its_size(inception_next, tmp_path, kind):
    whole, cut = tmp_path / f'whole{kind}', tmp_path / f'cut{kind}'
    if kind == '.safetensors':
        safetensors.torch.save_file(inception_next.state_dict(), whole)
    else:
        torch.save(inception_next.state_dict(), whole, _use_new_zipfile_serialization=kind == 'zip.pth')
    content = whole.read_bytes()
    size = len(content)
    for length in (0, 1, 2, 7, 8, 9, 20, 64, 100, 1000, size // 4, size // 2, 3 * size // 4, size - 100, size - 1):
        cut.write_bytes(content[:length])
        with pytest.raises(UserError, match=rf'checkpoint {cut}') as error:
            read_file(cut)
        assert '\n' not in str(error.value) and 'Next' not in str(error.value).split('.')[0]


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_a_damaged_file_loads_or_is_an_error_and_nothing_else(tmp_path):
    path = tmp_path / 'weights.pth'
    buffer = HistoryBuffer([1., 2.], [1, 1])
    torch.save(dict(state_dict=InceptionNeXt(dict(depths=(1, ), dims=(8, )), out_indices=0).state_dict(), log=buffer),
               path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        damaged = bytearray(content)
        for place in torch.randint(len(content[:4000]), (2, ), generator=generator).tolist():
            damaged[place] = int(torch.randint(256, (1, ), generator=generator))
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):
            read_file(path)


class Payload:
    """Pickled, it calls ``function(*arguments)`` when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('wrap', [lambda p: p, lambda p: dict(state_dict=dict(w=p)), lambda p: [torch.ones(2), p]],
                         ids=['alone', 'state_dict', 'list'])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, wrap, legacy):
    marker, path = tmp_path / 'marker', tmp_path / 'weights.pth'
    for asked, payload in {
            r' \(it asks for posix.system\)': Payload(os.system, f'touch {marker}'),
            r' \(it asks for .*eval\)': Payload(eval, f'open({str(marker)!r}, "w")'),
            r' \(it asks for .*Path\)': Payload(getattr, Path, 'touch'),
            r' \(getattr\(.*__init__.*\) is not': Payload(getattr, HistoryBuffer, '__init__'),
            r' \(getattr\(.*update.*\) is not': Payload(getattr, HistoryBuffer, 'update')}.items():
        torch.save(wrap(payload), path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(UserError, match=f'checkpoint {path} holds more than weights{asked}.* was not') as error:
            read_file(path)
        assert 'weights_only' not in str(error.value)    # no advice to load it all the same
        with pytest.raises(UserError):
            pretrained('InceptionNeXt', path)
    assert not marker.exists()


# Training checkpoints of mmengine


class Regression(BaseModel):

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, labels, mode):
        return dict(loss=(self.layer(torch.stack(inputs)) - torch.stack(labels)).square().mean())


def test_a_training_checkpoint_of_mmengine_is_read_with_its_log_buffers_and_optimizer(tmp_path):
    runner = Runner(
        model=Regression(), work_dir=str(tmp_path), experiment_name='checkpoint_test', log_level='WARNING',
        train_dataloader=dict(
            batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False), collate_fn=dict(type='pseudo_collate'),
            dataset=[dict(inputs=torch.ones(2), labels=torch.ones(1))] * 8),
        train_cfg=dict(by_epoch=False, max_iters=3), optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=dict(type='LinearLR', by_epoch=False, end=3),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=3, by_epoch=False)))
    runner.train()
    checkpoint = read_file(tmp_path / 'iter_3.pth')
    losses = checkpoint['message_hub']['log_scalars']['train/loss']
    wanted = runner.message_hub.log_scalars['train/loss']
    assert losses.data[0].tolist() == wanted.data[0].tolist() and len(losses.data[0]) == 3
    assert losses.statistics('mean', 3) == wanted.mean(3) and losses.current() == wanted.current()
    assert torch.equal(checkpoint['state_dict']['layer.weight'], runner.model.layer.weight)
    assert checkpoint['optimizer']['state'] and checkpoint['meta']['iter'] == 3
    model = Regression()
    assert load_model(model, tmp_path / 'iter_3.pth')['iter'] == 3
    assert torch.equal(model.layer.weight, runner.model.layer.weight)


def test_log_buffers_written_under_numpy_1_and_numpy_2_are_read(tmp_path):
    buffer = HistoryBuffer([1., 2.], [1, 1])
    for name in ('numpy.core', 'numpy._core'):
        path = tmp_path / f'{name}.pth'
        torch.save(dict(log=buffer, value=buffer._log_history[0]), path, _use_new_zipfile_serialization=False)
        content = path.read_bytes()
        written = b'numpy._core' if b'numpy._core' in content else b'numpy.core'
        path.write_bytes(content.replace(written, name.encode()))
        checkpoint = read_file(path)
        assert checkpoint['log'].data[0].tolist() == [1., 2.] and checkpoint['value'] == 1.
        assert type(checkpoint['value']) is float


def test_a_checkpoint_is_read_after_mmengine_has_read_one_and_taken_its_safe_globals_away(tmp_path):
    torch.save(dict(log=HistoryBuffer([1., 2.], [1, 1])), tmp_path / 'log.pth')
    CheckpointLoader.load_checkpoint(str(tmp_path / 'log.pth'))
    assert read_file(tmp_path / 'log.pth')['log'].data[0].tolist() == [1., 2.]


# Network


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serve a folder over HTTP on this machine: the URL's root, and the folder. The cache of downloads is new."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch_home'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    root = tmp_path / 'served'
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        requests = []
        keep = None    # bytes after which the connection breaks

        def __init__(self, *args):
            super().__init__(*args, directory=str(root))

        def do_GET(self):
            self.requests.append(self.path)
            super().do_GET()

        def copyfile(self, source, outputfile):
            outputfile.write(source.read(self.keep or -1))

        def end_headers(self):
            # What a Hugging Face hub says of a file.
            self.send_header('ETag', f'"{self.path}"')
            self.send_header('X-Repo-Commit', '0' * 40)
            super().end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01, ), daemon=True).start()
    yield collections.namedtuple('Served', 'url root handler')(
        f'http://127.0.0.1:{server.server_address[1]}', root, Handler)
    server.shutdown()
    server.server_close()


def save(state_dict, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.safetensors':
        safetensors.torch.save_file(state_dict, path)
    else:
        torch.save(state_dict, path)


@pytest.mark.parametrize('name', ['weights.pth', 'weights.safetensors', 'weights.safetensors?download=true'])
def test_a_url_loads_and_is_downloaded_once(serve, inception_next, assert_loaded, name):
    save(inception_next.state_dict(), serve.root / name.partition('?')[0])
    for _ in range(2):
        assert_loaded(pretrained('InceptionNeXt', f'{serve.url}/{name}'))
    assert len(serve.handler.requests) == 1


@pytest.mark.parametrize('name', ['model.safetensors', 'model.pth'])
def test_files_of_the_same_name_under_different_urls_are_not_mixed_up(serve, name):
    # On the Hugging Face hub every model's file has the same name.
    for seed in (1, 2):
        model = randomize(InceptionNeXt(SMALL), seed)
        save(model.state_dict(), serve.root / str(seed) / name)
        loaded = pretrained('InceptionNeXt', f'{serve.url}/{seed}/{name}')
        assert torch.equal(loaded.stem[0].weight, model.stem[0].weight)


@pytest.mark.parametrize('name', ['weights.pth', 'weights.safetensors'])
def test_a_download_that_breaks_off_is_an_error_and_is_not_kept(serve, inception_next, assert_loaded, name):
    save(inception_next.state_dict(), serve.root / name)
    serve.handler.keep = 1000
    with pytest.raises(UserError, match=f'{serve.url}/{name}'):
        read_checkpoint(f'{serve.url}/{name}')
    serve.handler.keep = None
    assert_loaded(pretrained('InceptionNeXt', f'{serve.url}/{name}'))


@pytest.mark.parametrize('url', ['http://127.0.0.1:9/x.pth', 'http://127.0.0.1:9/x.safetensors', 'nothing://x.pth'])
def test_a_url_that_cannot_be_had_is_an_error_with_what_was_tried_and_both_ways_on(url, monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with pytest.raises(UserError) as error:
        pretrained('InceptionNeXt', url)
    message = str(error.value)
    assert message.startswith(f'cannot get the weights {url}: URLError: ')
    assert '--cfg-options model.backbone.init_cfg=None' in message
    assert '--cfg-options model.backbone.init_cfg.checkpoint=PATH' in message


def test_a_url_that_does_not_exist_is_an_error_with_the_answer(serve):
    with pytest.raises(UserError, match=f'cannot get the weights {serve.url}/none.pth: HTTPError: .*404'):
        read_checkpoint(f'{serve.url}/none.pth')


def test_a_url_of_a_hostile_file_is_refused(serve, tmp_path):
    marker = tmp_path / 'marker'
    torch.save(Payload(os.system, f'touch {marker}'), serve.root / 'weights.pth')
    with pytest.raises(UserError, match='holds more than weights'):
        read_checkpoint(f'{serve.url}/weights.pth')
    assert not marker.exists()


def point_the_hub_at(url, cache, monkeypatch):
    for name, value in dict(ENDPOINT=url, HUGGINGFACE_CO_URL_TEMPLATE=url + '/{repo_id}/resolve/{revision}/{filename}',
                            HF_HUB_CACHE=str(cache)).items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)


def test_a_timm_name_loads_from_the_hub(serve, assert_loaded, inception_next, tmp_path, monkeypatch):
    name = 'inception_next_tiny.sail_in1k'
    save(inception_next.state_dict(), serve.root / 'timm' / name / 'resolve' / 'main' / 'model.safetensors')
    point_the_hub_at(serve.url, tmp_path / 'hub', monkeypatch)
    assert_loaded(pretrained('InceptionNeXt', f'timm://{name}'))


def test_a_timm_name_in_the_cache_of_the_hub_loads_without_network(
        serve, assert_loaded, inception_next, tmp_path, monkeypatch):
    name = 'inception_next_tiny.sail_in1k'
    save(inception_next.state_dict(), serve.root / 'timm' / name / 'resolve' / 'main' / 'model.safetensors')
    point_the_hub_at(serve.url, tmp_path / 'hub', monkeypatch)
    huggingface_hub.hf_hub_download(f'timm/{name}', 'model.safetensors')
    point_the_hub_at('http://127.0.0.1:9', tmp_path / 'hub', monkeypatch)
    assert_loaded(pretrained('InceptionNeXt', f'timm://{name}'))


def test_a_timm_name_without_network_is_an_error_with_both_ways_on(tmp_path, monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    point_the_hub_at('http://127.0.0.1:9', tmp_path / 'hub', monkeypatch)
    with pytest.raises(UserError) as error:
        pretrained('InceptionNeXt', 'timm://inception_next_tiny.sail_in1k')
    message = str(error.value)
    assert message.startswith('cannot get the weights timm://inception_next_tiny.sail_in1k (http://127.0.0.1:9/timm/')
    assert 'init_cfg=None' in message and 'init_cfg.checkpoint=PATH' in message


# init_weights


class Segmentor(BaseModule):

    def __init__(self, backbone):
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.head = nn.Conv2d(64, 2, 1)


def test_init_weights_of_a_parent_loads_the_backbone_and_logs_it(weights, assert_loaded, tmp_path):
    MMLogger.get_instance('checkpoint_log_test', log_file=str(tmp_path / 'log.txt'))
    try:
        model = Segmentor(dict(
            type='InceptionNeXt', arch=SMALL, out_norm_cfg=dict(type='BN'),
            init_cfg=dict(type='Pretrained', checkpoint=str(weights))))
        model.init_weights()
    finally:
        for handler in MMLogger._instance_dict.pop('checkpoint_log_test').handlers:
            handler.close()
    log = (tmp_path / 'log.txt').read_text()
    assert f'tensors from {weights}; new: norm0, norm1, norm2, norm3' in log
    assert f'Pretrained weights from {weights}' in log.partition('backbone.stem.0.weight')[2][:200]
    assert 'The value is the same' in log.partition('head.weight')[2][:200]
    for i in range(4):
        setattr(model.backbone, f'norm{i}', nn.Identity())
    assert_loaded(model.backbone)


def test_a_second_init_weights_changes_nothing(weights):
    model = Segmentor(dict(
        type='InceptionNeXt', arch=SMALL, init_cfg=dict(type='Pretrained', checkpoint=str(weights))))
    model.init_weights()
    randomize(model, seed=9)
    before = copy.deepcopy(model.state_dict())
    model.init_weights()
    model.backbone.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.backbone.init_cfg == dict(type='Pretrained', checkpoint=str(weights))


def test_init_weights_that_failed_tries_again(weights, assert_loaded, tmp_path):
    missing = tmp_path / 'later.pth'
    model = InceptionNeXt(SMALL, init_cfg=dict(type='Pretrained', checkpoint=str(missing)))
    with pytest.raises(UserError, match='not found'):
        model.init_weights()
    weights.rename(missing)
    model.init_weights()
    assert_loaded(model)


def test_pretrained_weights_are_laid_over_other_initializers_and_the_class_is_as_good_as_its_name(
        weights, inception_next):
    model = pretrained('InceptionNeXt', weights, out_norm_cfg=dict(type='BN'), init_cfg=[
        dict(type=PretrainedInit, checkpoint=str(weights)), dict(type='Constant', layer='BatchNorm2d', val=3.)])
    assert torch.equal(model.stem[1].weight, inception_next.stem[1].weight)
    assert (model.norm2.weight == 3).all()
    with pytest.raises(UserError, match='of another shape'):
        pretrained('InceptionNeXt', weights, in_channels=1, init_cfg=dict(
            type=PretrainedInit, checkpoint=str(weights)))


def test_released_names_are_those_of_timm():
    with torch.device('meta'):
        ours = InceptionNeXt('tiny').state_dict()
        theirs = timm.create_model('inception_next_tiny').state_dict()
    assert {name for name in theirs if not name.startswith('head.')} == set(ours)
    assert list(ours)[:6] == ['stem.0.weight', 'stem.0.bias', 'stem.1.weight', 'stem.1.bias', 'stem.1.running_mean',
                              'stem.1.running_var']
