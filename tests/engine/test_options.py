"""KEY=VALUE of the command line: as mmengine reads it, and what mmengine cannot read."""
import argparse
from pathlib import Path

import pytest
from mmengine.config import Config, DictAction

from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.engine.options import OptionsAction, parse_value, set_data_root
from inceptionnext_seg.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CAMVID = CONFIGS / 'upernet_inceptionnext_a_camvid.py'
CROP = 'train_dataloader.dataset.pipeline.3.crop_size'


@pytest.mark.parametrize('text', [
    '1', '1e-3', 'nan', 'None', 'true', 'a', '[a, b]', '(1,2)', '1,2', 'a,b', '[(1, 2), [a, b]]', '', '/x/y.pth'])
def test_values_are_read_as_mmengine_reads_them(text):
    assert repr(parse_value(text)) == repr(DictAction._parse_iterable(text))


@pytest.mark.parametrize(('text', 'value'), [
    ('/my data/ä b', '/my data/ä b'), ("'/a,b'", '/a,b'), ("[{'type': 'X', 'n': 1}]", [dict(type='X', n=1)]),
    ("{'a': (1, None)}", dict(a=(1, None)))])
def test_spaces_stay_and_pythons_notation_is_read(text, value):
    assert parse_value(text) == value


@pytest.mark.parametrize('text', ['train_cfg', '=5', 'a=[1,2'])
def test_what_is_no_option_is_an_error_of_the_command_line(text, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction)
    with pytest.raises(SystemExit) as error:
        parser.parse_args(['--cfg-options', text])
    assert error.value.code == 2
    assert repr(text) in capsys.readouterr().err


def test_a_pair_without_brackets_takes_the_place_of_a_pair():
    cfg = load_config(CAMVID, {CROP: parse_value('128,128'), 'model.data_preprocessor.size': parse_value('128,128')})
    assert cfg.train_dataloader.dataset.pipeline[3].crop_size == (128, 128)
    assert cfg.model.data_preprocessor.size == (128, 128)


def test_the_place_behind_a_lists_last_adds_to_it_and_no_other():
    cfg = load_config(CAMVID, {'custom_hooks.2.type': 'EMAHook', 'custom_hooks.2.momentum': 0.1})
    assert [hook.type for hook in cfg.custom_hooks] == ['ThroughputHook', 'MetricsFileHook', 'EMAHook']
    assert cfg.custom_hooks[2].momentum == 0.1
    cfg = load_config(CAMVID, {'custom_hooks.2.type': 'EMAHook', 'custom_hooks.3.type': 'EarlyStoppingHook',
                               'custom_hooks.3.monitor': 'mIoU'})
    assert [dict(hook) for hook in cfg.custom_hooks[2:]] == [
        dict(type='EMAHook'), dict(type='EarlyStoppingHook', monitor='mIoU')]
    with pytest.raises(UserError, match=r"no '30' there. It has: 0 to 6"):
        load_config(CAMVID, {'train_dataloader.dataset.pipeline.30.crop_size': (64, 64)})


def test_an_option_that_does_not_fit_into_the_config_is_one_message():
    with pytest.raises(UserError, match=r'model\.backbone\.arch\.depths'):
        load_config(CAMVID, {'model.backbone.arch.depths': [1]})


def test_the_data_of_all_loaders_are_found_below_one_place(tmp_path):
    cfg = load_config(CAMVID, data_root=str(tmp_path))
    assert {cfg[f'{name}_dataloader'].dataset.data_root for name in ('train', 'val', 'test')} == {str(tmp_path)}
    cfg = load_config(CONFIGS / 'upernet_inceptionnext_t_voc12aug.py', data_root='a b')  # ConcatDataset
    assert [part.data_root for part in cfg.train_dataloader.dataset.datasets] == ['a b', 'a b']


def test_loaders_that_read_from_several_places_are_told_one_by_one():
    cfg = Config.fromfile(CAMVID)
    cfg.val_dataloader.dataset.data_root = 'elsewhere'
    with pytest.raises(UserError, match=r"'data/camvid' and 'elsewhere'.*val_dataloader\.dataset.data_root=PATH"):
        set_data_root(cfg, 'a')


def test_the_variable_data_root_is_refused_with_the_flag_that_works():
    with pytest.raises(UserError, match='--data-root'):
        load_config(CAMVID, {'data_root': 'x'})
