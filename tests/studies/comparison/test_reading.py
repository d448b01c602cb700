import os

import pytest

from inceptionnext_seg.errors import UserError
from studies.comparison.reading import find_metrics, read_loss, read_metrics

from .common import write_run


def test_the_newest_metrics_below_a_directory_are_taken(tmp_path):
    write_run(tmp_path / 'run', miou=40.)
    old = find_metrics(tmp_path / 'run')
    new = tmp_path / 'run' / '20260102_000000' / 'metrics.json'
    new.parent.mkdir()
    new.write_text(old.read_text())
    os.utime(old, (1, 1))
    assert find_metrics(tmp_path / 'run') == new
    assert find_metrics(old) == old


@pytest.mark.parametrize(('text', 'message'), [
    ('{"mIoU": 4', 'cannot be read'), ('[]', 'holds a list'), ('{"mIoU": NaN}', 'holds NaN'),
    ('{"mIoU": null}', 'mIoU is None; expected a number'), ('{"mIoU": 4, "mAcc": 4, "aAcc": 4}', 'per_class'),
])
def test_metrics_that_are_corrupt_or_lack_miou_are_an_error_that_says_so(tmp_path, text, message):
    path = tmp_path / 'metrics.json'
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_metrics(path)
    assert str(path) in str(error.value) and 'tools/test.py' in str(error.value)


def test_a_run_without_metrics_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match='does not exist'):
        find_metrics(tmp_path / 'nowhere')
    with pytest.raises(UserError, match=r'holds no metrics\.json'):
        find_metrics(tmp_path)


def test_long_loss_curves_are_averaged_and_unfinished_lines_left_out(tmp_path):
    path = tmp_path / 'scalars.json'
    path.write_text(''.join(f'{{"loss": {step}.0, "step": {step}}}\n' for step in range(1, 401)) + '{"loss": 9')
    curve = read_loss(path)
    assert curve['iteration'] == list(range(2, 401, 2))
    assert curve['loss'][:2] == [1.5, 3.5]
