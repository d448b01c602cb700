"""Settings that nothing reads are errors, in the file and on the command line; variables of a file are not."""
import re
from pathlib import Path

import mmseg
import pytest
from mmengine.config import Config

from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.engine.settings import check_names, check_sections
from inceptionnext_seg.engine.values import check_values
from inceptionnext_seg.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CAMVID = ROOT / 'configs/upernet_inceptionnext_a_camvid.py'
ADE20K = ROOT / 'configs/upernet_inceptionnext_t_ade20k.py'
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py')
                 if path.parent.name not in ('_base_', 'classification', 'detection'))
MMSEG = Path(mmseg.__file__).with_name('.mim') / 'configs'


@pytest.fixture
def write_config(tmp_path):
    """``write_config(text, base)``: the path of a config on top of another."""
    def write(text, base=CAMVID):
        path = tmp_path / 'config.py'
        path.write_text(f"_base_ = ['{base}']\n{text}\n")
        return path
    return write


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_config_of_the_repository_has_no_setting_that_nothing_reads(path):
    load_config(path)


def test_the_upernets_of_mmsegmentation_have_no_setting_that_nothing_reads_and_no_value_that_is_refused():
    if not MMSEG.is_dir():
        pytest.skip(f'this mmsegmentation has no configs: {MMSEG}')
    paths = sorted(MMSEG.rglob('*upernet*.py'))
    paths = [path for path in paths if '_base_' not in path.parts]
    assert len(paths) > 30
    wrong = []
    for path in paths:
        cfg = Config.fromfile(path, import_custom_modules=False)
        try:
            check_names(cfg, path)
            check_sections(cfg)
            check_values(cfg)
        except UserError as error:
            wrong.append(str(error))
    assert wrong == []


@pytest.mark.parametrize(('text', 'wrong', 'expected'), [
    ("modle = dict(backbone=dict(arch='tiny'))", 'modle', 'model'),
    ("custom_hook = [dict(type='EMAHook')]", 'custom_hook', 'custom_hooks'),
    ("load_form = 'weights.pth'", 'load_form', 'load_from'),
    ("train_dataloder = dict(batch_size=2)", 'train_dataloder', 'train_dataloader'),
    ('resum = True', 'resum', 'resume'),
    ("optimizer = dict(type='SGD', lr=0.1)", 'optimizer', 'optim_wrapper'),
    ("data_preprocessor = dict(size=(64, 64))", 'data_preprocessor', 'model.data_preprocessor'),
    ("env_cfg = dict(cudnn_benchmrk=False)", 'env_cfg.cudnn_benchmrk', 'env_cfg.cudnn_benchmark'),
    ("env_cfg = dict(mp_cfg=dict(start_method='spawn'))", 'env_cfg.mp_cfg.start_method',
     'env_cfg.mp_cfg.mp_start_method'),
    ("auto_scale_lr = dict(enabled=False)", 'auto_scale_lr.enabled', 'auto_scale_lr.enable'),
    ("val_evaluator = dict(iou_metric=['mDice'])", 'val_evaluator.iou_metric', 'val_evaluator.iou_metrics'),
    ("test_evaluator = dict(_delete_=True, metrics=[dict(type='IoUMetric', ignore_indx=3)])",
     'test_evaluator.metrics.0.ignore_indx', 'test_evaluator.metrics.0.ignore_index'),
    ("test_evaluator = [dict(type='IoUMetric', prefx='a')]", 'test_evaluator.0.prefx', 'test_evaluator.0.prefix'),
    ("model = dict(test_cfg=dict(mod='slide'))", 'model.test_cfg.mod', 'model.test_cfg.mode')])
def test_a_misspelled_setting_of_a_file_is_an_error_with_the_nearest_known_one(write_config, text, wrong, expected):
    with pytest.raises(UserError) as error:
        load_config(write_config(text))
    assert wrong in str(error.value)
    assert re.search(rf'Expected: {re.escape(expected)}\.', str(error.value))


@pytest.mark.parametrize('text', [
    'crop_size = (64, 64)', 'learning_rate = 1e-3', "data_root = 'data/camvid'", 'modes = None', 'classes = ["a"]',
    "norm_cfg = dict(type='BN')\nmodel = dict(decode_head=dict(norm_cfg=norm_cfg))",
    "hook = dict(type='EMAHook')\ncustom_hooks = [hook]",
    "train_pipeline = [dict(type='LoadImageFromFile')]\ntrain_dataloader = dict(dataset=dict(pipeline=train_pipeline))",
    "data_preprocessor = dict(type='SegDataPreProcessor')\nmodel = dict(data_preprocessor=data_preprocessor)",
    "val_evaluator = dict(_delete_=True, type='IoUMetric', iou_metrics=['mIoU'], collect_device='cpu', prefix='a')",
    "model = dict(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(32, 32)))",
    "env_cfg = dict(dist_cfg=dict(timeout=60), resource_limit=9)"])
def test_a_variable_of_a_file_and_a_known_setting_are_no_error(write_config, text):
    load_config(write_config(text))


@pytest.mark.parametrize(('base', 'key', 'way'), [
    (ADE20K, 'data_preprocessor.size', 'model.data_preprocessor.size'),
    (ADE20K, 'crop_size', 'train_dataloader.dataset.pipeline.3.crop_size'),
    (ADE20K, 'data_root', 'train_dataloader.dataset.data_root'),
    (ADE20K, 'vis_backends.0.type', 'visualizer.vis_backends.0.type'),
    (ADE20K, 'train_pipeline.3.crop_size', 'train_dataloader.dataset.pipeline.3.crop_size')])
def test_an_option_for_a_variable_that_the_settings_have_copied_is_refused_with_the_path_that_works(base, key, way):
    name = key.partition('.')[0]
    with pytest.raises(UserError, match=rf'--cfg-options {key}: .*{name}.* {re.escape(way)}\b'):
        load_config(base, {key: None})


@pytest.mark.parametrize(('key', 'expected'), [
    ('env_cfg.cudnn_benchmrk', 'env_cfg.cudnn_benchmark'), ('val_evaluator.iou_metric', 'val_evaluator.iou_metrics'),
    ('model.test_cfg.mod', 'model.test_cfg.mode'), ('trian_cfg.max_iters', 'train_cfg')])
def test_a_misspelled_option_is_an_error_with_the_nearest_known_one(key, expected):
    with pytest.raises(UserError, match=rf"{key}.*Expected: '?{expected}\b"):
        load_config(CAMVID, {key: 'slide'})


def test_a_misspelled_option_of_a_backbone_that_a_function_builds_is_one_message():
    with pytest.raises(UserError, match=r"model\.backbone\.modle\.pretrained: the config has no 'modle' there"):
        load_config('upernet_timm_mobilenetv3_small_inception_mini', {'model.backbone.modle.pretrained': True})


def test_a_head_from_elsewhere_may_read_settings_of_its_own(write_config):
    load_config(write_config("model = dict(decode_head=dict(type='HeadOfMine'), test_cfg=dict(threshold=0.5))"))
