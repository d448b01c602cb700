"""What a user can get wrong ends a command with one message, and what looks wrong and is not works."""
import re
import shutil

import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from inceptionnext_seg.engine.launch import check_writable, load_config
from inceptionnext_seg.errors import UserError

CONFIG = 'configs/upernet_inceptionnext_a_camvid.py'


def error_of(result):
    assert result.returncode == 2, result.stderr[-3000:]
    assert 'Traceback' not in result.stderr + result.stdout
    return result.stderr[result.stderr.index('error: '):]


@pytest.fixture
def options(tiny_options):
    """The tiny run without its data."""
    return [option for option in tiny_options if 'data_root' not in option]


@pytest.fixture
def folder(tiny_data, tmp_path):
    return shutil.copytree(tiny_data, tmp_path / 'my dätä, all of it')


# The whole way


def test_training_goes_to_tensorboard_with_sample_predictions_of_data_from_one_place(
        call_tool, options, folder, tmp_path):
    pytest.importorskip('tensorboard', reason='tensorboard is not installed')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    # A process has one visualizer of each name.
    result = call_tool('train', CONFIG, '--work-dir', tmp_path / 'my work', '--data-root', folder, '--vis-backends',
                       'tensorboard', '--cfg-options', *options, f'visualizer.name={tmp_path.name}')
    assert result.returncode == 0, result.stderr[-3000:]
    events, = (tmp_path / 'my work').glob('*/vis_data/events*')
    found = EventAccumulator(str(events), size_guidance=dict(images=0, scalars=0)).Reload()
    assert [event.step for event in found.Scalars('loss')] == [1, 2, 3, 4]
    assert [event.step for event in found.Scalars('mIoU')] == [2, 4]
    assert sorted(found.Tags()['images']) == [f'val_{i}.jpg' for i in range(4)]
    for image in found.Tags()['images']:
        shown = found.Images(image)
        assert [event.step for event in shown] == [2, 4]
        assert (shown[0].width, shown[0].height) == (2 * 96, 96)  # labels beside predictions
    assert list((tmp_path / 'my work').glob('*/vis_data/scalars.json'))


def test_an_image_that_is_cut_short_ends_training_before_its_first_iteration(call_tool, options, folder, tmp_path):
    path = folder / 'images/validation/2.jpg'
    path.write_bytes(path.read_bytes()[:900])
    result = call_tool('train', CONFIG, '--work-dir', tmp_path / 'work', '--data-root', folder,
                       '--cfg-options', *options)
    assert f'{path}: cannot be read' in error_of(result)
    assert not list(tmp_path.glob('work/*.pth'))


def test_a_file_that_breaks_while_a_worker_reads_it_is_one_message(call_tool, options, folder, tmp_path):
    for i in range(6):
        path = folder / f'images/training/{i}.jpg'
        path.write_bytes(path.read_bytes()[:900])
    result = call_tool('train', CONFIG, '--work-dir', tmp_path / 'work', '--data-root', folder,
                       '--cfg-options', *options, 'default_hooks.data.enabled=False', 'train_dataloader.num_workers=1')
    message = error_of(result)
    assert message.startswith(f'error: {folder}/images/training/') and 'the image cannot be loaded' in message


def test_weights_to_start_from_that_do_not_fit_end_the_run_and_other_classes_do_not(
        call_tool, root, tiny_options, tmp_path):
    cfg = load_config(root / CONFIG)
    cfg.model.decode_head.update(channels=16, num_classes=5)
    cfg.model.auxiliary_head.update(channels=16, num_classes=5)
    init_default_scope('mmseg')
    state = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'five classes.pth')
    state['backbone.stem.0.bias'] = torch.zeros(7)
    torch.save(dict(state_dict=state), tmp_path / 'other.pth')

    def train(name):
        return call_tool('train', CONFIG, '--work-dir', tmp_path / 'work', '--cfg-options', *tiny_options,
                         f'load_from={tmp_path / name}', 'train_cfg.max_iters=1')

    message = error_of(train('other.pth'))
    assert 'other.pth does not fit' in message
    assert 'backbone.stem.0.bias: (7,) in the checkpoint, (40,) in the model' in message
    assert 'conv_seg' not in message
    result = train('five classes.pth')
    assert result.returncode == 0, result.stderr[-3000:]
    text = ''.join(path.read_text() for path in (tmp_path / 'work').glob('*/*.log'))
    line, = (line for line in text.splitlines() if 'five classes.pth does not have all' in line)
    assert {'decode_head.conv_seg.weight', 'auxiliary_head.conv_seg.bias'} <= set(re.split('[, ]+', line))


# Configs


@pytest.mark.parametrize(('text', 'kind', 'named'), [
    ("x = 1\nraise RuntimeError('my own words')", 'RuntimeError: my own words', "line 3: raise RuntimeError('my own"),
    ('y = 1 / 0', 'ZeroDivisionError', 'line 2: y = 1 / 0'), ("z = {}['q']", "KeyError: 'q'", 'line 2'),
    ('import nosuchmodule', 'ModuleNotFoundError', 'line 2: import nosuchmodule'), ('a = b', 'NameError', 'line 2: a'),
    ('model = dict(\n', 'SyntaxError', 'line 2: model = dict('), ('import sys; sys.exit(3)', 'SystemExit: 3', 'line 2'),
    ("custom_imports = dict(imports=['nosuch'], allow_failed_imports=False)", 'custom_imports', 'nosuch'),
    ('model = 5', 'model is 5', 'a dict')])
def test_a_config_that_raises_shows_its_own_error_with_file_and_line(root, tmp_path, text, kind, named):
    path = tmp_path / 'my cönfig.py'
    path.write_text(f"_base_ = ['{root / CONFIG}']\n{text}\n")
    with pytest.raises(UserError) as error:
        load_config(path)
    assert kind in str(error.value) and named in str(error.value)
    if 'line' in named:
        assert str(error.value).count(str(path)) == 2


def test_a_base_that_raises_is_the_file_that_is_named(root, tmp_path):
    base, path = tmp_path / 'base.py', tmp_path / 'config.py'
    base.write_text('a = 1\nb = a.c\n')
    path.write_text("_base_ = ['base.py']\n")
    with pytest.raises(UserError, match=rf'config {path} cannot be read: AttributeError: .*\({base}, line 2: b = a'):
        load_config(path)


# Command line


@pytest.mark.parametrize('seed', [-5, 2**32])
def test_a_seed_that_is_none_is_one_message(call_tool, tmp_path, seed):
    assert f'--seed is {seed}' in error_of(call_tool('train', CONFIG, '--work-dir', tmp_path, '--seed', seed))


def test_a_folder_that_cannot_be_written_to_is_one_message(call_tool, tmp_path):
    file = tmp_path / 'a file'
    file.write_text('')
    for work_dir in (file, file / 'below'):
        message = error_of(call_tool('train', CONFIG, '--work-dir', work_dir))
        assert f'work_dir {work_dir}' in message and f'{file} is a file' in message
    with pytest.raises(UserError, match='--out /proc/none cannot be written to'):
        check_writable('/proc/none', '--out', 'give another')
