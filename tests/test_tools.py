"""tools/train.py and tools/test.py as a user runs them, on six tiny images, and what they say when they cannot run."""
import json
import re
import shutil
from pathlib import Path

import cv2
import mmseg
import mmseg.registry
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from inceptionnext_seg.models.checkpoint import read_file

CONFIG = 'configs/upernet_inceptionnext_a_camvid.py'
BASELINE = 'configs/upernet_convnext_a_camvid.py'
CLASSES = 11


def assert_one_message(result, *parts):
    """The run ended with one message of the tool, on stderr, exit code 2, and no traceback."""
    assert result.returncode == 2, result.stderr[-3000:]
    assert 'Traceback' not in result.stderr + result.stdout
    error = result.stderr[result.stderr.index('error: '):]
    assert error.count('error: ') == 1
    for part in parts:
        assert re.search(part, error), error


def run_folders(work_dir):
    return sorted(path.parent for path in work_dir.glob('*/metrics.json'))


def log_of(folder):
    return (folder / f'{folder.name}.log').read_text()


def scalars_of(folder):
    return [json.loads(line) for line in (folder / 'vis_data/scalars.json').open()]


def metrics_of(folder):
    return json.loads((folder / 'metrics.json').read_text())


def assert_table(text):
    """A line of the per-class table for each class, and mmseg's mean metrics."""
    rows = re.findall(r'^\| +(\w+) +\| +(?:[\d.]+|nan) +\| +(?:[\d.]+|nan) +\|$', text, re.M)
    assert rows[-CLASSES:] == ['sky', 'building', 'pole', 'road', 'sidewalk', 'tree', 'sign', 'fence', 'car',
                               'pedestrian', 'bicyclist']
    assert re.search(r'aAcc: [\d.]+ +mIoU: [\d.]+ +mAcc: [\d.]+', text)


# Training, resuming, testing


@pytest.fixture(scope='module')
def trained(run_command, tiny_options, tmp_path_factory):
    """Four iterations by the command, of a longer schedule; the finished process and its work_dir."""
    work_dir = tmp_path_factory.mktemp('trained')
    result = run_command('tools/train.py', CONFIG, '--work-dir', work_dir, '--seed', 3, '--cfg-options', *tiny_options,
                         'train_cfg.fit_schedules=False')
    assert result.returncode == 0, result.stderr[-3000:]
    return result, work_dir


@pytest.mark.slow
def test_training_logs_throughput_and_memory_in_every_line_after_the_warm_up_and_ends_with_its_summary(trained, root):
    result, work_dir = trained
    folder, = run_folders(work_dir)
    text = log_of(folder)
    lines = [line for line in text.splitlines() if 'Iter(train)' in line]
    shown = [('images_per_s' in line, 'peak_memory_MiB' in line) for line in lines]
    assert shown == [(False, False), (True, True), (True, True), (True, True)]
    assert_table(text)
    assert_table(result.stdout)
    assert 'Summary: mIoU' in text.splitlines()[-1]
    assert Path(root, text.split()[-1]).resolve() == folder / 'metrics.json'


@pytest.mark.slow
def test_a_training_run_leaves_its_figures_in_metrics_json(trained, root):
    folder, = run_folders(trained[1])
    found = metrics_of(folder)
    assert found['config'] == CONFIG
    assert Path(root, found['checkpoint']).resolve() == trained[1] / 'iter_4.pth'
    assert (found['iteration'], found['seed'], found['processes']) == (4, 3, 1)
    assert [entry['iteration'] for entry in found['history']] == [2, 4]
    assert len(found['per_class']) == CLASSES
    for name in ('mIoU', 'mAcc', 'aAcc'):
        assert found['history'][-1][name] == pytest.approx(found[name], abs=0.006)
        assert 0 <= found[name] <= 100
    known = [figures['IoU'] for figures in found['per_class'].values() if figures['IoU'] is not None]
    assert found['mIoU'] == pytest.approx(np.mean(known))
    assert found['train_throughput']['images'] == 3 * 2
    assert found['train_throughput']['images_per_s'] > 0
    assert found['train_throughput']['peak_memory_MiB'] > 100
    assert found['val_throughput']['images'] == 3
    assert found['environment']['command'].startswith(f'python tools/train.py {CONFIG} --work-dir')
    assert {'python', 'torch', 'mmengine', 'mmsegmentation', 'timm'} <= found['environment']['versions'].keys()
    with np.load(folder / 'per_image.npz') as counts:
        assert counts['label'].shape == (4, CLASSES)
        assert counts['label'].sum() == 4 * 92 * 96  # without the void border


@pytest.fixture(scope='module')
def resumed(trained, run_command, tiny_options):
    """Two iterations more in the same work_dir; the new run's folder."""
    _, work_dir = trained
    before = run_folders(work_dir)
    result = run_command('tools/train.py', CONFIG, '--work-dir', work_dir, '--resume', '--cfg-options', *tiny_options,
                         'train_cfg.max_iters=6', 'default_hooks.checkpoint.max_keep_ckpts=3',
                         'train_cfg.fit_schedules=False')
    assert result.returncode == 0, result.stderr[-3000:]
    folder, = set(run_folders(work_dir)) - set(before)
    return folder


@pytest.mark.slow
def test_resuming_goes_on_where_training_stopped(resumed):
    assert [line['step'] for line in scalars_of(resumed) if 'loss' in line] == [5, 6]
    found = metrics_of(resumed)
    assert found['iteration'] == 6
    assert found['train_throughput']['iterations'] == 2
    assert Path(found['checkpoint']).name == 'iter_6.pth'


@pytest.fixture(scope='module')
def tested(resumed, call_tool, tiny_options, tmp_path_factory):
    """tools/test.py on the last checkpoint: without and with --tta --out --show-dir; (result, work_dir) of each."""
    checkpoint = resumed.parent / 'iter_6.pth'
    runs = []
    for name, more in (('plain', []), ('tta', ['--tta', '--out', 'OUT', '--show-dir', 'PICTURES'])):
        work_dir = tmp_path_factory.mktemp(name)
        more = [str(work_dir / part) if part.isupper() else part for part in more]
        result = call_tool('test', CONFIG, checkpoint, '--work-dir', work_dir, *more, '--cfg-options', *tiny_options,
                           'default_hooks.visualization.interval=1', f'visualizer.name={name}')
        assert result.returncode == 0, result.stderr[-3000:]
        runs.append((result, work_dir))
    return runs


@pytest.mark.slow
def test_a_test_gives_the_figures_of_the_validation_of_the_same_checkpoint(tested, resumed):
    folder, = run_folders(tested[0][1])
    found, validated = metrics_of(folder), metrics_of(resumed)
    for name in ('mIoU', 'mAcc', 'aAcc', 'per_class'):
        assert found[name] == validated[name]
    assert Path(found['checkpoint']).name == 'iter_6.pth'
    assert found['seed'] == validated['seed'] == 3  # that of the training
    assert found['test_throughput']['images'] == 3
    assert 'train_throughput' not in found
    assert_table(log_of(folder))
    assert log_of(folder).splitlines()[-1].count('Summary: mIoU') == 1


@pytest.mark.slow
def test_tta_writes_predictions_and_pictures_at_the_images_own_size(tested):
    _, work_dir = tested[1]
    folder, = run_folders(work_dir)
    assert 0 <= metrics_of(folder)['mIoU'] <= 100
    files = sorted((work_dir / 'OUT').iterdir())
    assert [file.name for file in files] == [f'{i}.png' for i in range(4)]
    for file in files:
        classes = np.asarray(Image.open(file))
        assert classes.shape == (96, 96)
        assert classes.max() < CLASSES
    pictures = list((work_dir / 'PICTURES').rglob('*.png'))
    assert len(pictures) == 4
    # Labels beside predictions.
    assert all(Image.open(picture).size == (2 * 96, 96) for picture in pictures)


@pytest.mark.slow
def test_tta_averages_the_probabilities_of_six_scales_and_their_mirror_images(tested, resumed, root, tiny_data):
    """Against plain torch: resize, predict, flip back, softmax, mean, with nothing of mmseg's TTA."""
    cfg = Config.fromfile(root / CONFIG)
    cfg.model.decode_head.channels = cfg.model.auxiliary_head.channels = 16
    init_default_scope('mmseg')
    model = mmseg.registry.MODELS.build(cfg.model).eval()
    model.load_state_dict(read_file(resumed.parent / 'iter_6.pth')['state_dict'])
    image = cv2.imread(str(tiny_data / 'images/validation/0.jpg'))
    total = 0
    for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75):
        side = int(96 * ratio + 0.5)
        for flip in (False, True):
            scaled = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
            scaled = torch.from_numpy(scaled[:, ::-1].copy() if flip else scaled).permute(2, 0, 1).float()
            scaled = (scaled.flip(0) - model.data_preprocessor.mean) / model.data_preprocessor.std
            with torch.no_grad():
                logits = model.decode_head(model.backbone(scaled[None]))
                logits = F.interpolate(logits, (side, side), mode='bilinear', align_corners=False)
            logits = logits.flip(3) if flip else logits
            total = total + F.interpolate(logits, (96, 96), mode='bilinear', align_corners=False).softmax(1)
    found = np.asarray(Image.open(tested[1][1] / 'OUT/0.png'))
    assert (found == total.argmax(1)[0].numpy()).mean() > 0.995


@pytest.mark.slow
def test_amp_on_a_cpu_trains_a_baseline_in_bfloat16(call_tool, tiny_options, tmp_path):
    result = call_tool('train', BASELINE, '--work-dir', tmp_path, '--amp', '--cfg-options', *tiny_options,
                       'train_cfg.max_iters=2', 'visualizer.name=amp', 'train_cfg.micro_batch_size=2')
    assert result.returncode == 0, result.stderr[-3000:]
    folder, = run_folders(tmp_path)
    losses = [line['loss'] for line in scalars_of(folder) if 'loss' in line]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert "type='BFloat16OptimWrapper'" in (folder / 'vis_data/config.py').read_text()


@pytest.mark.slow
def test_a_config_runs_under_mmsegmentations_own_train_tool(run_command, root, tiny_options, tmp_path):
    script = Path(mmseg.__file__).with_name('.mim') / 'tools/train.py'
    if not script.is_file():
        pytest.skip(f'this mmsegmentation has no tools: {script}')
    result = run_command(script, root / CONFIG, '--work-dir', tmp_path, '--cfg-options', *tiny_options,
                         'train_cfg.max_iters=2', cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    folder, = run_folders(tmp_path)
    assert [line['step'] for line in scalars_of(folder) if 'loss' in line] == [1, 2]
    assert 'mIoU' in metrics_of(folder)


# What the tools say when they cannot run


def test_missing_data_is_one_message_with_the_folder_and_three_ways_on(call_tool, tmp_path):
    result = call_tool('train', 'configs/upernet_inceptionnext_t_ade20k.py', '--work-dir', tmp_path / 'work',
                       '--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}/ade')
    assert_one_message(result, rf'folder {tmp_path}/ade/images/training', r'tools/prepare_ade20k\.py --download',
                       r'train_dataloader\.dataset\.data_root=PATH', r'configs/upernet_inceptionnext_a_mini\.py')
    assert not (tmp_path / 'work').exists()


def test_missing_data_of_a_test_is_one_message(call_tool, tmp_path):
    checkpoint = tmp_path / 'any.pth'      # looked for, and read after the data
    checkpoint.touch()
    result = call_tool('test', 'configs/upernet_inceptionnext_t_ade20k.py', checkpoint, '--work-dir', tmp_path,
                       '--cfg-options', f'test_dataloader.dataset.data_root={tmp_path}/ade')
    assert_one_message(result, rf'test_dataloader looked for the folder {tmp_path}/ade/images/validation')


def test_a_command_that_fails_ends_with_one_message_and_exit_code_2(run_command, tmp_path):
    result = run_command('tools/train.py', tmp_path / 'none.py')
    assert_one_message(result, rf'config not found: {tmp_path}/none\.py')


def test_a_misspelled_option_is_one_message(call_tool, tmp_path):
    result = call_tool('train', CONFIG, '--work-dir', tmp_path, '--cfg-options', 'train_cgf.max_iters=2')
    assert_one_message(result, r"--cfg-options train_cgf\.max_iters: no part of a run reads 'train_cgf'")


def test_a_seed_of_the_config_counts_and_one_of_the_command_line_comes_before_it(monkeypatch, call_tool):
    seeds = []

    def stop(cfg):
        seeds.append(cfg.randomness.get('seed'))
        raise KeyboardInterrupt

    monkeypatch.setattr('inceptionnext_seg.engine.launch.build_runner', stop)
    monkeypatch.setattr('inceptionnext_seg.data.checks.check_folders', lambda *_: None)
    option = ['--cfg-options', 'randomness.seed=3']
    for arguments in ([], option, [*option, '--seed', '4']):
        assert call_tool('train', CONFIG, *arguments).returncode == 130
    assert seeds == [None, 3, 4]


@pytest.mark.parametrize(('name', 'content', 'message'), [
    ('missing.pth', None, 'checkpoint not found'),
    ('cut.pth', 'cut', r'cut\.pth \(3000 bytes\) cannot be read, it may be cut short'),
    ('text.pth', b'no checkpoint', 'text.pth'),
    ('other.pth', 'other', r'(?s)does not fit EncoderDecoder.*missing \(\d+\): .*backbone\.')])
def test_a_checkpoint_that_cannot_be_used_is_one_message(call_tool, tiny_options, tmp_path, name, content, message):
    path = tmp_path / name
    if content in ('cut', 'other'):
        torch.save(dict(state_dict={'backbone.stem.0.weight': torch.zeros(40, 3, 4, 4)}), path)
        if content == 'cut':
            path.write_bytes(path.read_bytes().ljust(3000, b'0')[:3000])
            path.write_bytes(path.read_bytes()[:2000] + b'0' * 1000)
    elif content:
        path.write_bytes(content)
    result = call_tool('test', CONFIG, path, '--work-dir', tmp_path / 'work', '--cfg-options', *tiny_options)
    assert_one_message(result, message)


@pytest.mark.slow
def test_a_checkpoint_of_another_architecture_is_one_message_that_lists_what_differs(
        trained, call_tool, tiny_options, tmp_path):
    result = call_tool('test', BASELINE, trained[1] / 'iter_4.pth', '--work-dir', tmp_path, '--cfg-options',
                       *tiny_options)
    assert_one_message(result, r'missing \(\d+\): .*token_mixer\.weight', r'unexpected \(\d+\): .*dwconv_hw', '`arch`')


def test_resuming_from_a_truncated_checkpoint_is_one_message(call_tool, tiny_options, tmp_path):
    path = tmp_path / 'iter_2.pth'
    torch.save(dict(state_dict={'weight': torch.zeros(9000)}, optimizer={}), path)
    path.write_bytes(path.read_bytes()[:20000])
    (tmp_path / 'last_checkpoint').write_text(str(path))
    result = call_tool('train', CONFIG, '--work-dir', tmp_path, '--resume', '--cfg-options', *tiny_options)
    assert_one_message(result, r'iter_2\.pth \(20000 bytes\) cannot be read')


def test_a_mask_value_that_is_no_class_ends_before_the_first_iteration(call_tool, tiny_options, tiny_data, tmp_path):
    shutil.copytree(tiny_data, tmp_path / 'data')
    Image.fromarray(np.full((96, 96), 42, np.uint8)).save(tmp_path / 'data/annotations/training/3.png')
    options = [option.replace(str(tiny_data), str(tmp_path / 'data')) for option in tiny_options]
    result = call_tool('train', CONFIG, '--work-dir', tmp_path / 'work', '--cfg-options', *options)
    assert_one_message(result, r'annotations/training/3\.png.* 42\b.* 0 to 10, or 255')
    assert 'Iter(train)' not in result.stdout


def test_heads_of_another_number_of_classes_end_before_the_first_iteration(call_tool, tiny_options, tmp_path):
    result = call_tool('train', CONFIG, '--work-dir', tmp_path, '--cfg-options', *tiny_options,
                       'model.decode_head.num_classes=12')
    assert_one_message(result, r'model\.decode_head\.num_classes is 12, .* 11 classes')


@pytest.mark.parametrize('checkpoint', [
    'http://127.0.0.1:9/inceptionnext_tiny.pth', 'http://127.0.0.1:9/inceptionnext_tiny.safetensors'])
def test_pretrained_weights_without_a_network_are_one_message_with_what_was_tried_and_both_ways_on(
        call_tool, root, tiny_options, tmp_path, monkeypatch, checkpoint):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = ['{root / CONFIG}']\n"
                      f"model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='{checkpoint}')))\n")
    result = call_tool('train', config, '--work-dir', tmp_path / 'work', '--cfg-options', *tiny_options)
    assert_one_message(result, f'cannot get the weights {checkpoint}', 'model.backbone.init_cfg=None',
                       'model.backbone.init_cfg.checkpoint=PATH')
    assert 'Iter(train)' not in result.stdout
