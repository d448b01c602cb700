"""A config for a folder of one's own: what is set, and a training from photographs to a report."""
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS
from own_folder import describe
from PIL import Image

from inceptionnext_seg.api import create_model, load
from inceptionnext_seg.cli import export, import_dataset, train
from inceptionnext_seg.cli import test as evaluation
from inceptionnext_seg.data.description import read_description
from inceptionnext_seg.data.fitting import class_weights, fit_batch, fit_size
from inceptionnext_seg.data.importing.writing import config_text
from inceptionnext_seg.engine import own_data
from inceptionnext_seg.engine.launch import load_config, without_training
from inceptionnext_seg.engine.own_data import check_work_dir, needs_data, set_minutes, steps_of, use_data
from inceptionnext_seg.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/upernet_inceptionnext_a_own.py'


def test_crops_batches_and_weights_are_those_worked_by_hand():
    assert fit_size((480, 360)) == ((480, 360), 256)
    assert fit_size((4000, 3000)) == ((1024, 768), 256)
    assert fit_size((200, 150)) == ((200, 150), 128)
    assert fit_size((90, 40)) == ((90, 40), 64)
    assert [fit_batch(crop, 1000) for crop in (256, 192, 128, 64)] == [8, 14, 16, 16]
    assert [fit_batch(256, images) for images in (1, 6, 40)] == [4, 6, 8]
    assert class_weights([50, 50]) is None
    # The median is 900: the root of 900 / 8100 is a third, that of 900 / 50 above 3; a class without a pixel has 1.
    assert class_weights([8100, 900, 50, 0]) == [0.333, 1., 3., 1.]


def test_classes_sizes_and_weights_of_a_folder_come_into_the_config_and_options_count_more(tmp_path):
    folder = describe(tmp_path / 'cows', pixels=(9960, 40), size=(3000, 2000), images=40)
    cfg = load_config(CONFIG, {'train_cfg.total_batch_size': 2}, None, lambda cfg: use_data(cfg, folder))
    inner = cfg.train_dataloader.dataset.dataset
    assert (inner.type, inner.data_root, inner.metainfo.classes) == ('CountedSegDataset', str(folder), ('grass', 'cow'))
    assert cfg.val_dataloader.dataset.data_prefix.img_path == 'images/validation'
    steps = {step.type: step for step in inner.pipeline}
    assert steps['RandomResize'].scale == (1024, 683) and steps['RareClassCrop'].crop_size == (256, 256)
    assert [step.type for step in cfg.val_dataloader.dataset.pipeline][:3] == [
        'LoadImageFromFile', 'Resize', 'LoadAnnotations']
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 2
    assert cfg.model.decode_head.loss_decode.class_weight == [0.709, 3.]
    assert cfg.train_cfg.total_batch_size == 2


@pytest.mark.parametrize(('gpu', 'processes', 'workers'), [(False, '1', 1), (True, '1', 8), (True, '4', 5)])
def test_for_a_gpu_more_processes_load_images(tmp_path, monkeypatch, gpu, processes, workers):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', processes)
    monkeypatch.setattr(own_data, 'threads', lambda: 20 // int(processes))
    folder = describe(tmp_path / 'cows')
    assert load_config(CONFIG, adapt=lambda cfg: use_data(cfg, folder)).train_dataloader.num_workers == workers


@pytest.mark.parametrize(('pixels', 'size', 'images'), [((9960, 40), (3000, 2000), 40), ((50, 50), (200, 150), 6)])
def test_the_config_that_an_import_writes_is_what_the_recipe_makes_of_the_folder(tmp_path, pixels, size, images):
    folder = describe(tmp_path / 'cows', pixels=pixels, size=size, images=images)
    (folder / 'config.py').write_text(config_text(folder, read_description(folder)))
    recipe = load_config(CONFIG, {}, None, lambda cfg: use_data(cfg, folder))
    written = load_config(folder / 'config.py')

    def comparable(loader):
        inner = loader.dataset.get('dataset', {}).get('dataset') or loader.dataset
        return {key: value for key, value in inner.to_dict().items() if key != 'data_root'}, loader.batch_size

    for part in ('train_cfg', 'param_scheduler', 'optim_wrapper', 'custom_hooks', 'tta_pipeline'):
        assert written[part] == recipe[part], part
    for loader in ('train_dataloader', 'val_dataloader'):
        assert comparable(written[loader]) == comparable(recipe[loader])
    for head in ('decode_head', 'auxiliary_head'):
        heads = [dict(cfg.model[head].to_dict()) for cfg in (written, recipe)]
        for own in heads:
            own['loss_decode'].setdefault('class_weight', None)
        assert heads[0] == heads[1]
    assert written.model.data_preprocessor == recipe.model.data_preprocessor
    assert written.model.backbone == recipe.model.backbone


@pytest.mark.parametrize('name', ['upernet_inceptionnext_a_mini', 'upernet_inceptionnext_t_ade20k'])
def test_a_config_of_another_data_set_reads_the_folder_as_it_is_numbered(cows, name):
    """ADE20K's configs shift every class down by one; a folder with a dataset.json does not."""
    cfg = load_config(ROOT / f'configs/{name}.py', {}, None, lambda cfg: use_data(cfg, cows))
    with DefaultScope.overwrite_default_scope('mmseg'):
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            dataset = DATASETS.build(loader.dataset)
            info = dataset.get_data_info(0)
            loaded = Compose([step for step in loader.dataset.pipeline if step.type.startswith('Load')])(info)
            assert np.array_equal(loaded['gt_seg_map'], np.array(Image.open(info['seg_map_path'])))
            assert set(dataset[0]['data_samples'].gt_sem_seg.data.unique().tolist()) <= {0, 1, 255}
    assert not [step for step in steps_of(cfg.tta_pipeline) if step.get('reduce_zero_label')]


def test_a_test_is_of_the_split_for_it_where_that_is_labelled(tmp_path):
    for splits, expected in ((('training', 'validation', 'test'), 'test'), (('training', 'validation'), 'validation')):
        folder = describe(tmp_path / expected, size=(3000, 2000), splits=splits)
        cfg = load_config(CONFIG, {}, None, lambda cfg, folder=folder: use_data(cfg, folder))
        assert cfg.val_dataloader.dataset.data_prefix.img_path == 'images/validation'
        assert cfg.test_dataloader.dataset.data_prefix == dict(
            img_path=f'images/{expected}', seg_map_path=f'annotations/{expected}')
        assert cfg.test_dataloader.dataset.pipeline[1].type == 'Resize'


def test_a_folder_in_the_order_of_mmsegmentation_is_imported_as_divided_and_its_config_tests_what_is_for_testing(
        tmp_path, monkeypatch):
    for number, split in enumerate(('training', 'validation', 'test')):
        for folder in ('images', 'annotations'):
            (tmp_path / f'in/{folder}/{split}').mkdir(parents=True)
        for i in range(2):
            mask = np.zeros((64, 96), np.uint8)
            mask[:9 + number + i], mask[-5:] = 1, 255
            Image.fromarray(np.dstack([mask] * 3)).save(tmp_path / f'in/images/{split}/{number}{i}.jpg')
            Image.fromarray(mask).save(tmp_path / f'in/annotations/{split}/{number}{i}.png')
    monkeypatch.chdir(tmp_path)
    assert import_dataset.main(['in', '--out', 'data/mine', '--classes', 'cat,dog']) == 0
    cfg = load_config('data/mine/config.py')
    assert cfg.work_dir == 'work_dirs/mine' and not needs_data(cfg)
    with DefaultScope.overwrite_default_scope('mmseg'):
        parts = cfg.train_dataloader.dataset.dataset, cfg.val_dataloader.dataset, cfg.test_dataloader.dataset
        for number, dataset in enumerate(map(DATASETS.build, parts)):
            names = [Path(dataset.get_data_info(i)['img_path']).name for i in range(len(dataset))]
            assert names == [f'{number}0.jpg', f'{number}1.jpg'] and dataset.metainfo['classes'] == ('cat', 'dog')


def test_a_config_that_does_not_say_its_classes_and_sizes_segments_nothing(tmp_path, monkeypatch, capsys):
    checkpoint, written = tmp_path / 'best_mIoU_iter_9.pth', tmp_path / CONFIG.name
    (tmp_path / 'analyse.py').write_text('import torch')    # a program of the user's
    with pytest.raises(UserError, match=r'takes its classes and sizes from the data.*give that as CONFIG'):
        load('upernet_inceptionnext_a_own', checkpoint)
    renamed = tmp_path / 'renamed.py'
    load_config(CONFIG, {}, None, lambda cfg: use_data(cfg, describe(tmp_path / 'cows'))).dump(renamed)
    with pytest.raises(UserError, match=f'give {re.escape(str(renamed))} as CONFIG'):
        load('upernet_inceptionnext_a_own', checkpoint)
    written.write_text(f'_base_ = [{str(CONFIG)!r}]')
    with pytest.raises(UserError, match=f'give {re.escape(str(written))} as CONFIG'):
        load('upernet_inceptionnext_a_own', checkpoint)
    monkeypatch.setattr(sys, 'argv', ['test.py', str(CONFIG), str(checkpoint), '--data-root', str(tmp_path)])
    with pytest.raises(SystemExit):
        evaluation.main()
    assert f'give {written} as CONFIG' in capsys.readouterr().err
    monkeypatch.setattr(sys, 'argv', ['export', CONFIG.stem, str(checkpoint), '--format', 'torch-export'])
    monkeypatch.setattr(export, 'require_packages', lambda *_: None)
    with pytest.raises(SystemExit):
        export.main()
    assert f'give {written} as CONFIG' in capsys.readouterr().err
    # The network alone is what it is: its classes are counted in the checkpoint, and have no names.
    assert create_model('upernet_inceptionnext_a_own', 2, accelerate=False).class_names is None


def test_data_root_alone_does_not_train_a_described_folder_as_two_classes(tmp_path, monkeypatch, capsys):
    """Their names, numbering, suffixes and sizes would be those that stand in the config."""
    folder = describe(tmp_path / 'cows')
    monkeypatch.setattr(sys, 'argv', ['train.py', str(CONFIG), '--data-root', str(folder)])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        train.main()
    assert f'Next: --data {folder} in its place' in capsys.readouterr().err


def test_a_folder_that_is_called_as_the_message_of_train_says_is_data_like_any_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['train.py', str(CONFIG)])
    with pytest.raises(SystemExit):
        train.main()
    recommended = re.search(r'--out ([\w/]+)', capsys.readouterr().err)[1]
    (tmp_path / recommended).parent.mkdir(parents=True)
    describe(Path(recommended))
    assert not needs_data(load_config(CONFIG, {}, None, lambda cfg: use_data(cfg, recommended)))


def test_a_work_dir_that_has_a_run_on_other_data_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / 'run'
    run.mkdir()
    cows, sheep = (load_config(CONFIG, {}, None, lambda cfg, name=name: use_data(cfg, describe(Path(name))))
                   for name in ('cows', 'sheep'))
    cows.work_dir = sheep.work_dir = str(run)
    cows.dump(run / CONFIG.name)
    check_work_dir(sheep)      # of a start that left no checkpoint
    (run / 'best_mIoU_iter_9.pth').touch()
    with pytest.raises(UserError, match=r'run on other data.*cows.*sheep.*--work-dir'):
        check_work_dir(sheep)
    check_work_dir(cows)
    (run / CONFIG.name).write_text(cows.pretty_text.replace("'cows'", repr(str(tmp_path / 'cows'))))
    check_work_dir(cows)       # by another path to it
    (run / CONFIG.name).write_text('raise SystemExit')      # nothing in it runs
    check_work_dir(sheep)
    check_work_dir(Config(dict(work_dir=str(run))))


def test_a_run_is_resumed_on_its_own_data_wherever_they_are_now_and_on_no_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    describe(Path('cows'))
    shutil.copytree('cows', 'copy')
    describe(Path('sheep'), classes=('grass', 'sheep'))
    Path('run').mkdir()
    load_config(CONFIG, {}, None, lambda cfg: use_data(cfg, 'cows')).dump(Path('run', CONFIG.name))
    Path('run/iter_9.pth').touch()
    monkeypatch.setattr(sys, 'argv', ['train.py', str(CONFIG), '--data', 'sheep', '--work-dir', 'run', '--resume'])
    with pytest.raises(SystemExit):
        train.main()
    assert re.search(r'trained on cows.*trains on sheep.*give the --data of the run', capsys.readouterr().err)
    for folder in ('cows', 'copy', 'sheep'):
        if folder == 'sheep':
            Path('cows').rename('moved')    # the folder of the run is gone, and nobody can tell
        cfg = load_config(CONFIG, {}, None, lambda cfg, folder=folder: use_data(cfg, folder))
        cfg.work_dir = 'run'
        check_work_dir(cfg, resumes=True)


def test_settings_of_another_data_set_s_files_do_not_stay(tmp_path):
    def choose(cfg):
        cfg.val_dataloader.dataset.update(ann_file='val.txt', indices=3, reduce_zero_label=True)
        use_data(cfg, describe(tmp_path / 'cows'))
    dataset = load_config(CONFIG, {}, None, choose).val_dataloader.dataset
    assert not {'ann_file', 'indices', 'reduce_zero_label'} & {key for key in dataset if dataset[key]}


def test_minutes_are_those_of_the_hook_and_any_config_can_have_it():
    own, other = load_config(CONFIG), load_config(ROOT / 'configs/upernet_inceptionnext_a_mini.py')
    for cfg in (own, other, Config(dict(custom_hooks=None)), Config()):
        set_minutes(cfg, 5)
        assert [hook.minutes for hook in cfg.custom_hooks if hook.type == 'TimeBudgetHook'] == [5]


def test_a_test_needs_neither_the_training_data_nor_a_second_copy_of_the_weights():
    cfg = load_config(CONFIG)
    without_training(cfg)
    assert [hook.type for hook in cfg.custom_hooks] == [
        'ThroughputHook', 'MetricsFileHook', 'TimeBudgetHook', 'ReportHook']


def test_a_folder_that_cannot_be_trained_on_is_refused_with_the_way_on(tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match='one class, cow'):
        use_data(load_config(CONFIG), describe(tmp_path / 'one', pixels=(5,), classes=('cow',)))
    with pytest.raises(UserError, match=r'training|validation'):
        use_data(load_config(CONFIG), describe(tmp_path / 'none', images=0))
    for given, message in (([], '--data DIR'), (['--data', str(tmp_path / 'no')], 'dataset.json'), (
            ['--data', str(tmp_path / 'one'), '--data-root', 'x'], '--data-root x')):
        monkeypatch.setattr(sys, 'argv', ['train.py', str(CONFIG), *given])
        with pytest.raises(SystemExit):
            train.main()
        assert message in capsys.readouterr().err


def test_weights_that_are_not_there_are_missed_before_the_config_is_printed(tmp_path, monkeypatch, capsys):
    weights, given = tmp_path / 'nowhere.pth', ['--work-dir', str(tmp_path), '--cfg-options']
    pretrained = f"model.backbone.init_cfg={{'type': 'Pretrained', 'checkpoint': '{weights}'}}"
    for option, way in ((pretrained, 'init_cfg=None'), (f'load_from={weights}', '')):
        monkeypatch.setattr(sys, 'argv', [
            'train.py', str(CONFIG), '--data', str(describe(tmp_path / 'data')), *given, option])
        with pytest.raises(SystemExit):
            train.main()
        said = capsys.readouterr()
        assert f'checkpoint not found: {weights}' in said.err and way in said.err and len(said.out + said.err) < 2000


@pytest.fixture
def cows(tmp_path):
    """Eight photographs of a meadow, imported: a brown disc on green."""
    source, generator = tmp_path / 'source', np.random.default_rng(0)
    source.mkdir()
    y, x = np.mgrid[:64, :96]
    for i in range(8):
        disc = (y - generator.integers(20, 44))**2 + (x - generator.integers(20, 76))**2 < 200
        image = np.where(disc[..., None], [150, 90, 40], [40, 160, 60]) + generator.normal(0, 12, (64, 96, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(source / f'{i}.jpg')
        Image.fromarray(disc.astype(np.uint8)).save(source / f'{i}_mask.png')
    import_dataset.main([str(source), '--out', str(tmp_path / 'cows'), '--classes', 'grass,cow'])
    return tmp_path / 'cows'


@pytest.mark.slow
def test_photographs_become_a_trained_model_and_its_report_within_the_time(cows, tmp_path):
    command = [sys.executable, 'tools/train.py', CONFIG, '--data', cows, '--minutes', '0.15', '--work-dir',
               tmp_path / 'run', '--seed', '0', '--cfg-options', 'custom_hooks.2.measure_iters=5',
               'custom_hooks.2.skip_iters=1', 'train_dataloader.num_workers=0',
               'train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0',
               'val_dataloader.persistent_workers=False']
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    report = json.loads((tmp_path / 'run/report.json').read_text())
    last = report['validations'][-1]
    assert report['finished'] and report['classes'] == ['grass', 'cow'] and last['iteration'] == report['iteration']
    log = found.stdout + found.stderr
    assert 'Time budget of 0.15 minutes' in log and re.search(r'fitted at iteration [2-6] to', log)
    assert report['seconds'] < 40  # 9, and what a machine with other work takes until it is fitted
    page = (tmp_path / 'run/report.html').read_text()
    assert 'cow' in page and page.count('data:image/jpeg;base64,') == 2
    assert list((tmp_path / 'run').glob('best_mIoU_iter_*.pth'))
    # The config beside it needs no --data any more.
    written = load_config(tmp_path / 'run' / CONFIG.name)
    assert written.model.decode_head.num_classes == 2
    shutil.rmtree(tmp_path / 'run')
