"""Speed of other people's segmentors: what is measured, what is measured again, and what the table says."""
import itertools
import json
from dataclasses import asdict
from unittest import mock

import pytest
import torch

from inceptionnext_seg.errors import UserError
from studies import other_segmentors
from studies.other_segmentors import SEGMENTORS, Segmentor, Setting, measure, measure_all, report, rows, select

UPERNET, FPN = 'mmseg UPerHead, ResNet-50', 'smp FPN, ResNet-50'
SETTING = Setting(batch_size=2, size=64, rounds=2, threads=1)


def measurement(model, process, before, after):
    seconds = dict(train=dict(before=before, after=after), infer=dict(before=[2., 2.], after=[1., 1.]))
    return dict(model=model, process=process, seconds=seconds, agreement=0.9999, swapped={'decoder': 'FastDecoder'},
                left={'encoder': 'no fast form of Encoder is known'}, load_average=[0.1, 0.2], commit='abc1234',
                date='2026-01-01T00:00:00+00:00')


@pytest.fixture
def result():
    """Two processes in which training becomes 3 and 5 times faster: 4 s and 8 s by the median before, 2 s after."""
    environment = dict(device_name='CPU', date='2026-01-01T00:00:00+00:00', versions=dict(torch='2.0'))
    return dict(environment=environment, setting=asdict(SETTING), commands=['python tools/accelerate_others.py'],
                measurements=[measurement(UPERNET, process, [before] * 2, [2., 2.])
                              for process, before in enumerate((6., 10.))])


def test_a_segmentor_is_measured_before_and_after_in_turn(monkeypatch):
    smp = pytest.importorskip('segmentation_models_pytorch', reason='segmentation_models.pytorch is not installed')
    monkeypatch.setitem(SEGMENTORS, 'smp tiny', Segmentor(lambda: smp.UPerNet(
        'tu-test_resnet', encoder_weights=None, classes=other_segmentors.CLASSES, decoder_channels=16)))
    clock = itertools.count().__next__
    with mock.patch.object(other_segmentors, 'keep_freed_memory'):
        found = measure('smp tiny', SETTING, process=0, clock=clock)
    assert found['swapped'] == {'decoder': 'FastUPerNetDecoder'}
    assert found['seconds'] == {mode: dict(before=[1, 1], after=[1, 1]) for mode in ('infer', 'train')}
    assert found['agreement'] > 0.999
    assert torch.get_num_threads() == 1


def test_times_faster_are_the_median_and_the_interval_over_processes(result):
    row, = rows(result)
    assert row['train']['images_per_s'] == dict(before=2 / 8, after=2 / 2)
    assert row['train']['faster'] == 4 and row['train']['interval'] == (3, 5)
    text = report(result)
    assert f'| {UPERNET} | 512 | 2 | 0.25 | 1 | 4.00 (3.00–5.00) | 1 | 2 | 2.00 (2.00–2.00) |' in text
    assert 'commit abc1234' in text and 'load average 0.1–0.2' in text and 'torch 2.0' in text
    assert f'- {UPERNET}: encoder: no fast form of Encoder is known' in text


def test_what_a_result_file_has_is_not_measured_again(result, tmp_path):
    out = tmp_path / 'result.json'
    out.write_text(json.dumps(result))
    with mock.patch.object(other_segmentors, 'ProcessPoolExecutor', side_effect=AssertionError('measured again')):
        again = measure_all([UPERNET], SETTING, 2, out)
    assert again['measurements'] == result['measurements'] and len(again['commands']) == 2


def test_a_result_file_of_another_setting_is_refused(result, tmp_path):
    out = tmp_path / 'result.json'
    out.write_text(json.dumps(result))
    with pytest.raises(UserError, match='128'):
        measure_all([UPERNET], Setting(size=128), 2, out)


def test_segmentors_are_chosen_by_patterns():
    assert select(None) == list(SEGMENTORS)
    assert select(['smp*ResNet*']) == ['smp UPerNet, ResNet-50', FPN]
    with pytest.raises(UserError, match=r'DeepLab\*'):
        select(['smp*', 'DeepLab*'])


@pytest.mark.parametrize('arguments, said', [
    (['--size', '100'], '100'), (['--batch-size', '1'], 'batch-size'), (['--out', 'result.md'], 'result.md'),
    (['--models', 'DeepLab'], 'DeepLab'), (['--report', '--out', 'absent.json'], 'absent.json')], ids=' '.join)
def test_the_tool_refuses_what_it_cannot_measure_before_it_measures(call_tool, arguments, said):
    result = call_tool('accelerate_others', *arguments)
    assert result.returncode == 2 and said in result.stderr
