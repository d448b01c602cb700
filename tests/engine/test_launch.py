"""What tools/train.py and tools/test.py do between the command line and the runner."""
import argparse
import atexit
import errno
import logging
import os
import re
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn as nn
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, Registry, init_default_scope
from mmseg.registry import MODELS as MODELS_OF_MMSEG

from inceptionnext_seg import create_model
from inceptionnext_seg.cli import test as evaluation
from inceptionnext_seg.engine import launch
from inceptionnext_seg.engine.launch import (
    add_common_arguments,
    add_config_arguments,
    announce_scratch,
    be_deterministic,
    build_runner,
    enable_amp,
    enable_compile,
    explain_errors,
    for_tta,
    load_config,
    prepare,
    resume_latest,
    show_predictions,
    stop_on_full_disk,
    unwrap,
    write_predictions,
)
from inceptionnext_seg.engine.lifeline import LEFT, LIFELINE, receive
from inceptionnext_seg.engine.settings import check_options
from inceptionnext_seg.errors import SettingError, UserError


@pytest.fixture
def camvid(root):
    return root / 'configs/upernet_inceptionnext_a_camvid.py'


ADDRESS = dict(RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='29500')


def parse(*options):
    parser = argparse.ArgumentParser()
    add_config_arguments(parser, checkpoint=False)
    add_common_arguments(parser)
    return parser.parse_args(['CONFIG', *options])


# Configs


def test_one_image_alone_is_a_message_with_the_way_on():
    norm = torch.nn.BatchNorm2d(3)
    with pytest.raises(UserError, match=r'total_batch_size of 2 .*micro_batch_size=2'), explain_errors():
        norm(torch.ones(1, 3, 1, 1))


def test_a_missing_config_is_named_with_the_folder_that_was_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(f'{tmp_path}/upernet.py')):
        load_config('upernet.py')


@pytest.mark.parametrize(('text', 'message'), [
    ("_base_ = ['none.py']", r'none\.py'), ('model = dict(', 'SyntaxError'),
    ('model = dict(depth=nine)', "NameError.*'nine'")])
def test_a_broken_config_is_one_message(tmp_path, text, message):
    path = tmp_path / 'config.py'
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_config(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(('key', 'message'), [
    ('model.backbon.arch', "'backbon'.*backbone, .*decode_head"), ('trian_cfg.max_iters', "'trian_cfg'.*train_cfg"),
    ('max_iters', "'max_iters'"), ('data_root', r"'data_root'.*train_dataloader\.dataset\.data_root"),
    ('train_dataloader.dataset.pipeline.99.scale', "'99'"),
    ('optim_wrapper.optimizers.lr', "'optimizers'.*constructor, optimizer"),
    ('train_dataloader.batch_size', r'total_batch_size, which is 8\..*total_batch_size=N.*micro_batch_size=N'),
])
def test_an_option_that_nothing_reads_is_an_error_and_not_a_setting_that_does_nothing(camvid, key, message):
    with pytest.raises(UserError, match=message) as error:
        load_config(camvid, {key: 1})
    assert f'--cfg-options {key}' in str(error.value)


def test_an_option_below_a_number_is_an_error(camvid):
    with pytest.raises(UserError, match=r'--cfg-options train_cfg\.max_iters\.a\.b'):
        load_config(camvid, {'train_cfg.max_iters.a.b': 1})


def test_options_change_add_and_clear_settings_as_in_mmsegmentation(root):
    options = parse('--cfg-options', 'model.backbone.init_cfg=None', 'train_cfg.max_iters=7',
                    'model.backbone.with_cp=True', 'train_dataloader.dataset.pipeline.3.crop_size=(64,32)',
                    'auto_scale_lr.enable=False', 'find_unused_parameters=True').cfg_options
    cfg = load_config(root / 'configs/upernet_inceptionnext_t_ade20k.py', options)
    assert cfg.model.backbone.init_cfg is None
    assert cfg.model.backbone.with_cp is True
    assert cfg.train_cfg.max_iters == 7
    assert tuple(cfg.train_dataloader.dataset.pipeline[3].crop_size) == (64, 32)
    assert cfg.auto_scale_lr.enable is False
    assert cfg.find_unused_parameters is True


def test_clearing_the_pretrained_weights_builds_a_backbone_without_them(root):
    cfg = load_config(root / 'configs/upernet_inceptionnext_t_ade20k.py', {'model.backbone.init_cfg': None})
    with torch.device('meta'):
        backbone = MODELS_OF_MMSEG.build(cfg.model.backbone)
    assert backbone.init_cfg is None
    backbone.to_empty(device='cpu').init_weights()


# Preparation


def test_the_work_dir_is_the_argument_the_configs_or_named_after_the_config(monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')
    args = dict(config='configs/name.py', launcher='none', local_rank=0)
    for work_dir, of_config, expected in ((None, {}, 'work_dirs/name'), (None, dict(work_dir='b'), 'b'),
                                        ('a', dict(work_dir='b'), 'a')):
        cfg = Config(of_config)
        prepare(cfg, SimpleNamespace(work_dir=work_dir, **args))
        assert cfg.work_dir == expected
        assert cfg.launcher == 'none'
    cfg = Config()
    prepare(cfg, SimpleNamespace(work_dir=None, data='data/mine/', **args))     # two data sets have two folders
    assert cfg.work_dir == 'work_dirs/name_mine'


@pytest.mark.parametrize(('launcher', 'message'), [
    ('pytorch', 'torchrun --nproc_per_node'), ('slurm', '--launcher slurm.* GPU'), ('mpi', '--launcher mpi.* GPU')])
def test_a_launcher_that_cannot_work_here_is_told(monkeypatch, launcher, message):
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.delenv('RANK', raising=False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(UserError, match=message):
        prepare(Config(), parse('--launcher', launcher, '--work-dir', 'a'))


@pytest.mark.parametrize(('name', 'value', 'told'), [
    ('MASTER_PORT', '', 'MASTER_PORT is not set in the env'), ('WORLD_SIZE', 'two', 'WORLD_SIZE=two in the env'),
    ('RANK', '2', 'RANK=2 with WORLD_SIZE=2')])
def test_processes_that_are_started_by_hand_are_told_which_variable_is_wrong(monkeypatch, name, value, told):
    for variable, text in {**ADDRESS, 'LOCAL_RANK': '0', 'WORLD_SIZE': '2', name: value}.items():
        monkeypatch.setenv(variable, text)
    with pytest.raises(UserError, match=rf'{told}.*Next: torchrun'):
        prepare(Config(), parse('--launcher', 'pytorch', '--work-dir', 'a'))


def test_processes_of_torchrun_without_a_launcher_are_refused_and_one_alone_is_not(monkeypatch):
    """Each would train all of the batch into one work_dir."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '4')
    with pytest.raises(UserError, match=r'one of 4 processes.*--launcher pytorch'):
        prepare(Config(), parse('--work-dir', 'a'))
    monkeypatch.setenv('WORLD_SIZE', '1')
    prepare(Config(), parse('--work-dir', 'a'))


def test_more_processes_than_gpus_are_refused_before_cuda_is_asked(monkeypatch):
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(UserError, match=r'4 processes.*has 2 GPU.*nproc_per_node=2'):
        prepare(Config(), parse('--launcher', 'pytorch', '--work-dir', 'a'))


def test_a_gpu_that_torch_cannot_use_is_told_unless_it_is_hidden(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(launch, 'GPU_FILE', tmp_path / 'nvidia0')
    for file, visible, told in ((False, None, False), (True, '0', True), (True, '', False)):
        if file:
            launch.GPU_FILE.touch()
        if visible is not None:
            monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
        prepare(Config(), parse('--work-dir', 'a'))
        assert ('has an NVIDIA GPU, but torch' in capsys.readouterr().out) == told


def test_find_unused_parameters_reaches_the_wrapper_that_a_config_names(monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')
    cfg = Config(dict(model_wrapper_cfg=dict(type='AnyDeviceDistributedDataParallel'), find_unused_parameters=True))
    prepare(cfg, parse('--work-dir', 'a'))
    assert cfg.model_wrapper_cfg.find_unused_parameters is True


def test_processes_without_a_gpu_are_joined_by_gloo_and_leave_it_before_they_exit(monkeypatch):
    joined, at_exit = [], []
    monkeypatch.setattr(atexit, 'register', at_exit.append)
    for name, value in dict(ADDRESS, TORCHELASTIC_USE_AGENT_STORE='True').items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.distributed, 'init_process_group', joined.append)
    prepare(Config(), parse('--launcher', 'pytorch', '--work-dir', 'a'))
    assert joined == ['gloo']
    leave, = at_exit
    leave()  # nothing was joined in truth
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'destroy_process_group', lambda: joined.append('left'))
    leave()
    assert joined == ['gloo', 'left']


def test_processes_with_gpus_are_left_to_mmengine(monkeypatch):
    for name, value in dict(ADDRESS, TORCHELASTIC_USE_AGENT_STORE='True').items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda *_: pytest.fail('joined here'))
    for launcher in ('none', 'pytorch', 'slurm', 'mpi'):
        prepare(Config(), parse('--launcher', launcher, '--work-dir', 'a'))


@pytest.mark.parametrize(('capability', 'kind', 'expected'), [
    (None, 'OptimWrapper', dict(type='BFloat16OptimWrapper')),
    (9, 'OptimWrapper', dict(type='BFloat16OptimWrapper')),
    (7, 'OptimWrapper', dict(type='AmpOptimWrapper', loss_scale='dynamic')),
    (9, 'AmpOptimWrapper', dict(type='AmpOptimWrapper')),
    (None, None, dict(type='BFloat16OptimWrapper')),
    (None, 'BFloat16OptimWrapper', dict(type='BFloat16OptimWrapper'))])
def test_amp_is_bfloat16_where_the_device_has_it_and_otherwise_float16(monkeypatch, capability, kind, expected):
    """Before compute capability 8.0 a GPU emulates bfloat16."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: SimpleNamespace(major=capability))
    cfg = Config(dict(optim_wrapper=dict(type=kind) if kind else {}))
    enable_amp(cfg)
    assert cfg.optim_wrapper.to_dict() == expected


def test_amp_with_an_optimizer_wrapper_of_another_kind_is_told():
    with pytest.raises(UserError, match='ApexOptimWrapper'):
        enable_amp(Config(dict(optim_wrapper=dict(type='ApexOptimWrapper'))))


# Deterministic, compiled


def test_a_deterministic_run_sets_cublas_before_cuda_starts(monkeypatch):
    """The runner sets torch's own switch, and the seed stays."""
    cfg = Config(dict(randomness=dict(seed=3)))
    for found, expected in ((None, ':4096:8'), (':16:8', ':16:8')):
        monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
        if found:
            monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', found)
        be_deterministic(cfg)
        assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == expected
        assert cfg.randomness == dict(seed=3, deterministic=True)
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':0:0')
    with pytest.raises(UserError, match=r"CUBLAS_WORKSPACE_CONFIG is ':0:0'.*:4096:8 or :16:8"):
        be_deterministic(cfg)


def test_compiling_keeps_the_settings_of_a_config():
    for found, expected in ((None, True), (False, True), (dict(mode='max-autotune'), dict(mode='max-autotune'))):
        cfg = Config(dict(compile=found))
        enable_compile(cfg)
        assert cfg.compile == expected


# Resuming


def resumable(work_dir):
    return Config(dict(work_dir=str(work_dir), load_from=None, resume=False, model=dict(backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='https://weights.pth')))))


@pytest.mark.parametrize('name', ['missing', '.'])
def test_resuming_without_a_checkpoint_says_so_and_starts_at_the_beginning(tmp_path, capsys, name):
    cfg = resumable(tmp_path / name)
    resume_latest(cfg)
    assert (cfg.resume, cfg.load_from) == (False, None)
    assert cfg.model.backbone.init_cfg.checkpoint == 'https://weights.pth'
    assert str(tmp_path / name) in capsys.readouterr().out


def save_latest(work_dir, content):
    path = work_dir / 'iter_4.pth'
    torch.save(content, path)
    (work_dir / 'last_checkpoint').write_text(str(path))
    return path


def test_resuming_goes_on_from_the_last_checkpoint_and_needs_no_pretrained_weights(tmp_path):
    path = save_latest(tmp_path, dict(state_dict={}, optimizer={}, message_hub={}, meta={}))
    cfg = resumable(tmp_path)
    resume_latest(cfg)
    assert (cfg.resume, cfg.load_from) == (True, str(path))
    assert cfg.model.backbone.init_cfg is None


@pytest.mark.parametrize('content', [dict(state_dict={}), {'weight': torch.zeros(1)}, torch.zeros(1)])
def test_resuming_from_weights_alone_is_an_error(tmp_path, content):
    save_latest(tmp_path, content)
    with pytest.raises(UserError, match=r'iter_4\.pth.*tools/train\.py'):
        resume_latest(resumable(tmp_path))


def test_resuming_from_a_truncated_checkpoint_is_an_error(tmp_path):
    path = save_latest(tmp_path, dict(state_dict={'weight': torch.zeros(1000)}, optimizer={}))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r'iter_4\.pth.*2000 bytes'):
        resume_latest(resumable(tmp_path))


def test_resuming_from_a_checkpoint_that_was_deleted_is_an_error(tmp_path):
    save_latest(tmp_path, {}).unlink()
    with pytest.raises(UserError, match=r'/iter_4\.pth'):
        resume_latest(resumable(tmp_path))


class Code:
    """Unpickling it touches a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path, )


def test_resuming_runs_no_code_of_a_checkpoint(tmp_path):
    written = tmp_path / 'written'
    save_latest(tmp_path, dict(state_dict={}, optimizer=Code(written)))
    with pytest.raises(UserError, match=r'iter_4\.pth'):
        resume_latest(resumable(tmp_path))
    assert not written.exists()


# Building and running


def test_a_log_on_a_full_disk_ends_the_run_with_one_message(tmp_path):
    handler = logging.FileHandler(tmp_path / 'log')
    stop_on_full_disk(handler)
    logger = logging.Logger('test')
    logger.addHandler(handler)
    logger.info('fits')
    handler.stream = open('/dev/full', 'w')  # noqa: SIM115, PTH123
    with pytest.raises(UserError, match=r'No space left.*--resume'), explain_errors():
        logger.info('does not fit' * 10000)


@pytest.mark.parametrize(('asked', 'trained'), [(None, 3), (3, 3), (3, None)])
def test_a_resumed_run_has_the_seed_of_its_checkpoint(tmp_path, asked, trained):
    path = save_latest(tmp_path, dict(state_dict={}, optimizer={}, meta=dict(seed=trained)))
    cfg = resumable(tmp_path)
    cfg.randomness = dict(seed=asked)
    resume_latest(cfg)
    assert cfg.randomness.seed == 3
    cfg.randomness.seed = 4
    if trained:
        with pytest.raises(UserError, match=rf'{path}.*--seed 3'):
            resume_latest(cfg)


def test_a_setting_that_a_class_does_not_know_is_one_message(camvid, tmp_path):
    cfg = load_config(camvid, {'model.backbone.drop_path_rat': 0.1, 'work_dir': str(tmp_path)})
    with pytest.raises(UserError, match=r"'drop_path_rat'.*--cfg-options"), explain_errors():
        build_runner(cfg)


def test_a_class_that_is_not_there_is_one_message(camvid, tmp_path):
    cfg = load_config(camvid, {'model.backbone.type': 'InceptionNext', 'work_dir': str(tmp_path)})
    with pytest.raises(UserError, match=r'InceptionNext .*mmseg::model'), explain_errors():
        build_runner(cfg)


@pytest.mark.parametrize('error', [TypeError('a bug'), KeyError('a bug'), KeyError(), ValueError('a bug')])
def test_errors_of_the_code_keep_their_traceback(error):
    with pytest.raises(type(error)) as found, explain_errors():
        raise error
    assert found.value is error


def test_a_model_that_is_built_in_a_run_leaves_its_watch_over_the_other_processes(monkeypatch):
    ours, others = socket.socketpair()
    with ours, others:
        monkeypatch.setattr(LIFELINE, 'ending', False)
        monkeypatch.setattr(LIFELINE, 'connections', {1: ours})
        with torch.device('meta'):
            create_model('fpn_inceptionnext_a', 3, accelerate=False)
        assert LIFELINE.connections == {1: ours} and not LIFELINE.ending
        with explain_errors():
            pass
        assert LIFELINE.ending and receive(others) == LEFT


def test_a_gpu_that_is_too_small_is_told_with_the_ways_on():
    with pytest.raises(UserError, match='9 GiB') as error, explain_errors():
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 9 GiB.\nmore')
    for way in ('train_cfg.micro_batch_size=4', '--amp', 'model.backbone.with_cp=True'):
        assert way in str(error.value)


@pytest.mark.parametrize(('error', 'told', 'way'), [
    (torch.OutOfMemoryError('9 GiB'), '9 GiB', r'test_dataloader\.batch_size=1.*"(model\.test_cfg=.*)"'),
    (OSError(errno.ENOSPC, 'No space left', 'a.png'), 'a.png', 'make room there, and test again')])
def test_a_test_that_cannot_go_on_is_told_what_a_test_can_do(camvid, tmp_path, monkeypatch, capsys, error, told, way):
    def fails(cfg):
        raise error

    for name, replacement in dict(build_runner=fails, check_folders=lambda *args: None).items():
        monkeypatch.setattr(evaluation, name, replacement)
    (tmp_path / 'a.pth').touch()
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(sys, 'argv', ['test', str(camvid), str(tmp_path / 'a.pth'), '--work-dir', str(tmp_path)])
    with pytest.raises(SystemExit):
        evaluation.main()
    said = capsys.readouterr().err
    assert told in said and not re.search('micro_batch_size|--amp|--resume', said)
    found = re.search(way, said, re.DOTALL)
    if found.groups():
        cfg = load_config(camvid, parse('--cfg-options', found[1]).cfg_options)
        assert cfg.model.test_cfg.mode == 'slide' and cfg.model.test_cfg.stride == (341, 341)


def test_tta_wraps_the_model_and_takes_its_own_pipeline(camvid):
    cfg = load_config(camvid)
    model, pipeline = cfg.model.to_dict(), cfg.tta_pipeline
    cfg = for_tta(cfg)
    assert cfg.model.type == 'SegTTAModel'
    assert cfg.model.module.to_dict() == model
    assert cfg.test_dataloader.dataset.pipeline == pipeline
    assert cfg.val_dataloader.dataset.pipeline != pipeline


@pytest.mark.parametrize('name', ['tta_pipeline', 'tta_model'])
def test_tta_without_its_settings_is_told(camvid, name):
    cfg = load_config(camvid)
    cfg.pop(name)
    with pytest.raises(UserError, match=r'--tta.*tta_pipeline.*tta_model'):
        for_tta(cfg)


def test_predictions_are_shown_where_the_command_line_says(camvid):
    cfg = load_config(camvid)
    show_predictions(cfg, SimpleNamespace(show=False, show_dir='pictures', wait_time=2))
    hook = cfg.default_hooks.visualization
    assert (hook.draw, hook.show, hook.wait_time) == (True, False, 2)
    assert cfg.visualizer.save_dir == 'pictures'


@pytest.mark.parametrize('name', ['default_hooks.visualization', 'visualizer'])
def test_pictures_of_a_config_that_draws_none_are_one_message(camvid, name):
    cfg = load_config(camvid)
    cfg.merge_from_dict({name: None})
    with pytest.raises(UserError, match=r'--show-dir need.*runtime\.py'):
        show_predictions(cfg, SimpleNamespace(show=False, show_dir='pictures', wait_time=2))


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def test_the_segmentor_is_found_inside_its_wrappers():
    model = nn.Linear(1, 1)
    assert unwrap(model) is model
    assert unwrap(nn.DataParallel(Wrapper(model))) is model


def test_every_top_level_setting_of_the_configs_that_a_run_reads_can_be_set(root):
    for path in sorted((root / 'configs').glob('*.py')):
        cfg = load_config(path)
        for name in ('model', 'train_cfg', 'train_dataloader', 'optim_wrapper', 'tta_model', 'auto_scale_lr',
                     'visualizer', 'log_level', 'custom_hooks', 'model_wrapper_cfg'):
            assert name in cfg
            check_options(cfg, ConfigDict({name: None}))


def test_taking_the_pretrained_weights_away_says_which_and_both_ways_on(root, capsys):
    path = str(root / 'configs/upernet_inceptionnext_t_ade20k.py')
    announce_scratch(load_config(path), path)
    assert capsys.readouterr().out == ''
    announce_scratch(load_config(path, {'model.backbone.init_cfg': None}), path)
    said = capsys.readouterr().out
    assert 'inceptionnext_tiny.pth' in said
    assert 'model.backbone.init_cfg.checkpoint=PATH' in said
    announce_scratch(load_config(path, {'model.backbone.init_cfg': None, 'load_from': 'iter_16000.pth'}), path)
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(('name', 'options'), [
    ('upernet_inceptionnext_a_pretrained_own', {}),
    ('upernet_inceptionnext_t_ade20k', {'model.backbone.layer_scale_init_value': 1.0})])
def test_of_layer_scales_nothing_is_said_where_they_are_set(root, capsys, name, options):
    path = str(root / f'configs/{name}.py')
    announce_scratch(load_config(path, {'model.backbone.init_cfg': None}), path)
    assert ('layer scales of 1e-6' in capsys.readouterr().out) == bool(options)
    announce_scratch(load_config(path, {'model.backbone.init_cfg': None, **options}), path)
    assert re.search(r'inceptionnext_\w+\.pth.* fine-tuning: the rate is low', capsys.readouterr().out)


@pytest.mark.parametrize('init_cfg', ["dict(type='TruncNormal', layer='Conv2d')", "[dict(type='Kaiming')]"])
def test_weights_that_are_drawn_are_none_to_leave_out(tmp_path, capsys, init_cfg):
    path = tmp_path / 'mine.py'
    path.write_text(f"model = dict(backbone=dict(type='ResNet', init_cfg={init_cfg}))")
    announce_scratch(Config(dict(model=dict(backbone=dict(type='ResNet', init_cfg=None)))), path)
    assert capsys.readouterr().out == ''


def test_a_config_without_pretrained_weights_has_nothing_to_say_of_them(root, capsys):
    path = str(root / 'configs/upernet_inceptionnext_a_mini.py')
    announce_scratch(load_config(path), path)
    assert capsys.readouterr().out == ''


def test_a_setting_of_the_backbone_can_be_given_where_the_config_has_none(root):
    path = root / 'configs/upernet_inceptionnext_a_mini.py'
    cfg = load_config(path, {'model.backbone.token_mixer.band_kernel_size': 5})
    token_mixer = MODELS.build(cfg.model.backbone).stages[0].blocks[0].token_mixer
    assert token_mixer.dwconv_w.kernel_size == (1, 5)
    assert token_mixer.dwconv_hw.kernel_size == (3, 3)  # the rest is the arch's own
    with pytest.raises(UserError, match=r"'token_mixr'"):
        load_config(path, {'model.backbone.token_mixr.band_kernel_size': 5})


def test_a_value_that_a_class_does_not_take_is_one_message(root):
    cfg = load_config(root / 'configs/upernet_inceptionnext_a_mini.py', {'model.backbone.arch': 'none-such'})
    init_default_scope('mmseg')
    with pytest.raises(UserError, match=r"'none-such'.*--cfg-options"), explain_errors():
        MODELS_OF_MMSEG.build(cfg.model)


@pytest.mark.parametrize('evaluator', [
    lambda iou, other: iou, lambda iou, other: [other, iou], lambda iou, other: dict(type='Evaluator', metrics=iou),
    lambda iou, other: dict(metrics=[iou, other])])
def test_predictions_are_written_by_each_metric_that_can(evaluator):
    iou, other = dict(type='RecordingIoUMetric', iou_metrics=['mIoU']), dict(type='CrossEntropyMetric')
    cfg = Config(dict(test_evaluator=evaluator(iou, other)))
    write_predictions(cfg, 'out')
    expected = Config(dict(test_evaluator=evaluator(dict(iou, output_dir='out'), other)))
    assert cfg.test_evaluator == expected.test_evaluator
    with pytest.raises(UserError, match=r'--out out.*CrossEntropyMetric.*IoUMetric'):
        write_predictions(Config(dict(test_evaluator=[other])), 'out')
    for nothing in ({}, dict(test_evaluator=None)):
        with pytest.raises(UserError, match=r'writes predictions \(it has none\)'):
            write_predictions(Config(nothing), 'out')


# What building raises, by where it is raised

REGISTRY = Registry('test')


class Base:
    def __init__(self, width=1):
        if width < 1:
            raise SettingError(f'width is {width}; expected: at least 1')
        self.columns = list_columns(width)


@REGISTRY.register_module()
class Derived(Base):
    def __init__(self, depth=1, **settings):
        super().__init__(**settings)
        self.name = {1: 'one'}[depth]


@REGISTRY.register_module()
def build_derived(depth):
    return Derived(depth)


def list_columns(width):
    return [0] * width if width < 10 else len(width)  # an int has no len()


@pytest.mark.parametrize(('cfg', 'named'), [
    (dict(type='Derivd'), 'Derivd'), (dict(type='Derived', heigth=1), "'heigth'"), (dict(width=1), "'width': 1"),
    (dict(type='Derived', width=-3), '-3'), (dict(type='build_derived', dept=1), "'dept'"),
    (dict(type='Derived', width='2'), 'str')])
def test_a_config_that_its_class_does_not_take_is_one_message(cfg, named):
    with pytest.raises(UserError, match=named), explain_errors():
        REGISTRY.build(cfg)


@pytest.mark.parametrize(('cfg', 'kind'), [
    (dict(type='Derived', depth=7), KeyError), (dict(type='Derived', width=10), TypeError)])
def test_a_defect_met_while_building_keeps_its_traceback(cfg, kind):
    with pytest.raises(kind) as found, explain_errors():
        REGISTRY.build(cfg)
    assert type(found.value) is kind
