"""Every road to a file of weights, walked with a pickle that leaves a mark when it is unpickled freely."""
import functools
import http.server
import json
import re
import threading
from pathlib import Path

import mmseg.registry
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import checkpoint as mm
from mmseg.apis import init_model
from PIL import Image

from inceptionnext_seg.engine import weights
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.checkpoint import read_file

CONFIG = 'configs/upernet_inceptionnext_a_camvid.py'
PREDICTED, OTHER = 5, 3


class Mark:
    """Unpickling it touches a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path, )


@pytest.fixture
def mark(tmp_path):
    return tmp_path / 'mark'


@pytest.fixture
def hostile(tmp_path, mark):
    """A checkpoint as any other, but for its optimizer's state."""
    path = tmp_path / 'hostile.pth'
    torch.save(dict(state_dict={'head.weight': torch.zeros(1)}, meta=dict(iter=1, epoch=0), message_hub={},
                    optimizer=Mark(mark)), path)
    return path


@pytest.fixture(scope='module')
def segmentor(root):
    cfg = Config.fromfile(root / CONFIG)
    cfg.model.decode_head.channels = cfg.model.auxiliary_head.channels = 16
    init_default_scope('mmseg')
    return mmseg.registry.MODELS.build(cfg.model)


@pytest.fixture(scope='module')
def checkpoint_of(segmentor, tmp_path_factory):
    """``checkpoint_of(index)``: the file of a segmentor that finds this class everywhere."""
    folder = tmp_path_factory.mktemp('weights')

    @functools.cache
    def write(index):
        state = {name: value.clone() for name, value in segmentor.state_dict().items()}
        state['decode_head.conv_seg.weight'].zero_()
        state['decode_head.conv_seg.bias'] = torch.eye(11)[index]
        path = folder / f'class_{index}.pth'
        torch.save(dict(state_dict=state), path)
        return path

    return write


@pytest.fixture
def write_config(root, tmp_path):
    """``write_config(text)``: a config on top of CamVid's."""
    def write(text):
        path = tmp_path / 'config.py'
        path.write_text(f"_base_ = ['{root / CONFIG}']\n{text}\n")
        return path
    return write


@pytest.fixture
def serve(tmp_path):
    """The address of a server of the files in tmp_path."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_address[1]}'
    server.shutdown()
    server.server_close()


def assert_refused(result, mark):
    assert result.returncode == 2, result.stderr[-3000:]
    assert 'Traceback' not in result.stderr
    error, = re.findall(r'^error: .*', result.stderr, re.M)
    assert 'hostile.pth' in error
    assert not mark.exists()


def test_the_pickle_leaves_its_mark_where_it_is_unpickled_freely(hostile, mark):
    torch.load(hostile, weights_only=False)
    assert mark.exists()


PRETRAINED = "dict(type='Pretrained', checkpoint='{path}')"


@pytest.mark.parametrize('text', [
    "load_from = '{path}'",
    "load_from = '{url}'",
    "load_from = '{path}'\nresume = True",
    "load_from = '{path}'\nresume = True\ncustom_hooks = [dict(type='ThroughputHook'), dict(type='EMAHook')]",
    f'model = dict(backbone=dict(init_cfg={PRETRAINED}))',
    f"model = dict(backbone=dict(_delete_=True, type='ResNetV1c', depth=18, init_cfg={PRETRAINED}),"
    ' decode_head=dict(in_channels=[64, 128, 256, 512]), auxiliary_head=dict(in_channels=256))',
    f"model = dict(neck=dict(type='FPN', in_channels=[40, 80, 160, 320], out_channels=8, num_outs=4,"
    f' init_cfg={PRETRAINED}), decode_head=dict(in_channels=[8, 8, 8, 8]), auxiliary_head=dict(in_channels=8))',
    f'model = dict(decode_head=dict(init_cfg={PRETRAINED}))',
    "model = dict(auxiliary_head=dict(init_cfg=dict(type='Pretrained', prefix='head.', checkpoint='{path}')))",
    f'model = dict(init_cfg={PRETRAINED})'],
    ids=['load_from', 'url', 'resume', 'ema', 'backbone', 'resnet', 'neck', 'head', 'prefix', 'segmentor'])
def test_training_unpickles_no_file_of_weights_freely(
        call_tool, write_config, tiny_options, hostile, mark, serve, tmp_path, monkeypatch, text):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    config = write_config(text.format(path=hostile, url=f'{serve}/hostile.pth'))
    result = call_tool('train', config, '--work-dir', tmp_path / 'work', '--cfg-options', *tiny_options,
                       f'visualizer.name={tmp_path.name}')
    assert_refused(result, mark)


@pytest.mark.parametrize('options', [[], ['--tta']])
def test_testing_unpickles_no_checkpoint_freely(call_tool, tiny_options, hostile, mark, tmp_path, options):
    result = call_tool('test', CONFIG, hostile, '--work-dir', tmp_path / 'work', *options, '--cfg-options',
                       *tiny_options, f'visualizer.name={tmp_path.name}')
    assert_refused(result, mark)


def test_predicting_unpickles_no_checkpoint_freely(call_tool, tiny_data, hostile, mark, tmp_path):
    result = call_tool('predict', CONFIG, hostile, tiny_data / 'images/validation/0.jpg', '--out', tmp_path / 'out')
    assert_refused(result, mark)


def test_the_checkpoint_of_the_command_line_is_tested_and_not_load_from_of_the_config(
        call_tool, write_config, tiny_options, checkpoint_of, tmp_path):
    config = write_config(f"load_from = '{checkpoint_of(OTHER)}'")
    result = call_tool('test', config, checkpoint_of(PREDICTED), '--work-dir', tmp_path / 'work', '--cfg-options',
                       *tiny_options, f'visualizer.name={tmp_path.name}')
    assert result.returncode == 0, result.stderr[-3000:]
    path, = tmp_path.glob('work/*/metrics.json')
    found = json.loads(path.read_text())
    assert Path(found['checkpoint']).resolve() == checkpoint_of(PREDICTED)
    accuracies = [figures['Acc'] for figures in found['per_class'].values()]
    assert accuracies[PREDICTED] == 100
    assert accuracies[OTHER] == 0


def test_testing_reads_neither_load_from_nor_init_cfg_of_the_config(
        call_tool, write_config, tiny_options, checkpoint_of, hostile, mark, tmp_path):
    config = write_config(f"load_from = '{hostile}'\nresume = True\nmodel = dict(decode_head=dict(init_cfg="
                          f"dict(type='Pretrained', checkpoint='{hostile}')))")
    result = call_tool('test', config, checkpoint_of(PREDICTED), '--work-dir', tmp_path / 'work', '--tta',
                       '--cfg-options', *tiny_options, f'visualizer.name={tmp_path.name}')
    assert result.returncode == 0, result.stderr[-3000:]
    assert not mark.exists()


def test_predicting_takes_the_checkpoint_of_the_command_line_and_reads_no_other(
        call_tool, write_config, tiny_data, checkpoint_of, hostile, mark, tmp_path):
    config = write_config(f"load_from = '{hostile}'\nmodel = dict(init_cfg=dict(type='Pretrained', "
                          f"checkpoint='{hostile}'))")
    result = call_tool('predict', config, checkpoint_of(PREDICTED), tiny_data / 'images/validation/0.jpg', '--out',
                       tmp_path / 'out', '--cfg-options', 'model.decode_head.channels=16',
                       'model.auxiliary_head.channels=16')
    assert result.returncode == 0, result.stderr[-3000:]
    assert not mark.exists()
    assert (np.asarray(Image.open(tmp_path / 'out/class_numbers/0.png')) == PREDICTED).all()


# mmengine's loading, which other tools call


def test_mmsegmentations_own_loading_refuses_it(root, hostile, mark):
    cfg = Config.fromfile(root / CONFIG)
    with pytest.raises(UserError, match=r'hostile\.pth'):
        init_model(cfg, str(hostile), device='cpu')
    assert not mark.exists()


@pytest.mark.parametrize(('name', 'table'), [
    ('torchvision://resnet', 'get_torchvision_models'), ('modelzoo://resnet', 'get_torchvision_models'),
    ('open-mmlab://resnet', 'get_external_models'), ('openmmlab://resnet', 'get_external_models'),
    ('mmcls://resnet', 'get_mmcls_models')])
def test_names_of_a_zoo_are_read_like_files(monkeypatch, hostile, mark, name, table):
    monkeypatch.setattr(mm, table, lambda: dict(resnet=str(hostile)))
    with pytest.raises(UserError, match=r'hostile\.pth'):
        mm.CheckpointLoader.load_checkpoint(name)
    assert not mark.exists()
    with pytest.raises(UserError, match='resnt'):
        mm.CheckpointLoader.load_checkpoint(name.replace('resnet', 'resnt'))


def test_weights_by_the_name_of_a_classifier_are_those_of_its_backbone(monkeypatch, tmp_path):
    torch.save(dict(state_dict={'backbone.stem': torch.ones(1), 'head.fc': torch.ones(1)}), tmp_path / 'a.pth')
    monkeypatch.setattr(mm, 'get_mmcls_models', lambda: dict(a=str(tmp_path / 'a.pth')))
    assert list(mm.CheckpointLoader.load_checkpoint('mmcls://a')['state_dict']) == ['stem']


@pytest.mark.parametrize('source', ['s3://bucket/a.pth', 'petrel://a.pth', 'cluster:s3://bucket/a.pth', 'pavi://a'])
def test_a_storage_that_is_not_known_is_refused_with_its_address(source):
    with pytest.raises(UserError, match=source):
        mm.CheckpointLoader.load_checkpoint(source)


def test_every_scheme_that_mmengine_knows_is_read_by_this_package():
    assert {loader.__module__ for loader in mm.CheckpointLoader._schemes.values()} == {weights.__name__}


def test_text_in_a_checkpoint_that_resuming_would_run_as_a_config_is_left_out(tmp_path):
    torch.save(dict(state_dict={}, meta=dict(config='import os', cfg='text')), tmp_path / 'a.pth')
    assert mm.CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))['meta'] == dict(cfg='text')


# Weights that are not finite


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('wrap', [
    lambda state: state, lambda state: dict(state_dict=state), lambda state: dict(model=state),
    lambda state: dict(state_dict={}, ema_state_dict=state)])
def test_weights_that_are_not_finite_are_refused_with_their_names(tmp_path, value, wrap):
    state = {f'layer.{i}': torch.ones(3, dtype=torch.float16 if i % 2 else torch.float32) for i in range(9)}
    for i in (2, 3, 5, 6, 7, 8):
        state[f'layer.{i}'][1] = value
    torch.save(wrap(state), tmp_path / 'diverged.pth')
    with pytest.raises(UserError, match=r'diverged\.pth .*: layer\.2, layer\.3, layer\.5, layer\.6, layer\.7 and 1 '):
        read_file(tmp_path / 'diverged.pth')


def test_empty_tensors_counters_and_masks_of_attention_are_no_weights_that_are_not_finite(tmp_path):
    state = dict(empty=torch.zeros(0), count=torch.tensor(3), attn_mask=torch.full((2, 2), -float('inf')))
    torch.save(state, tmp_path / 'a.pth')
    assert read_file(tmp_path / 'a.pth').keys() == state.keys()


def test_testing_weights_that_are_not_finite_is_one_message(call_tool, tiny_options, checkpoint_of, tmp_path):
    checkpoint = torch.load(checkpoint_of(PREDICTED))
    checkpoint['state_dict']['decode_head.conv_seg.bias'][2] = float('nan')
    torch.save(checkpoint, tmp_path / 'diverged.pth')
    result = call_tool('test', CONFIG, tmp_path / 'diverged.pth', '--work-dir', tmp_path / 'work', '--cfg-options',
                       *tiny_options, f'visualizer.name={tmp_path.name}')
    assert result.returncode == 2, result.stderr[-3000:]
    assert re.search(r'diverged\.pth .*decode_head\.conv_seg\.bias', result.stderr)
