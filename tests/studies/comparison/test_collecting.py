import json

import numpy as np
import pytest

from inceptionnext_seg.errors import UserError
from studies.comparison.collecting import collect
from studies.comparison.differences import paired_bootstrap
from studies.comparison.reading import public_command
from studies.comparison.report import report, write_report

from .common import counts_of, write_run


def test_candidates_on_other_classes_are_an_error_that_names_the_classes(tmp_path):
    a, b = write_run(tmp_path / 'a', 40.), write_run(tmp_path / 'b', 41., classes=('sky', 'road', 'tree'))
    with pytest.raises(UserError, match=r"only .*a.* has 'car'; only .*b.* has 'tree'"):
        collect(dict(A=[a], B=[b]))


@pytest.mark.parametrize(('images', 'labels', 'message'), [
    (19, 0, '19 images, .* on 20'), (20, 1, r'other labels .* 0\.png')])
def test_candidates_on_other_images_or_labels_are_an_error(tmp_path, images, labels, message):
    a = write_run(tmp_path / 'a', counts=counts_of(20, 0.5))
    b = write_run(tmp_path / 'b', counts=counts_of(images, 0.5, labels=labels))
    with pytest.raises(UserError, match=message):
        collect(dict(A=[a], B=[b]))


def test_candidates_at_one_scale_and_at_several_are_an_error_that_names_them(tmp_path):
    single = write_run(tmp_path / 'a', miou=40.)
    multi = write_run(tmp_path / 'b', miou=42., command='python tools/test.py configs/a.py a.pth --tta')
    with pytest.raises(UserError, match=r'b/20260101_000000 is of a multi-scale test.*a/20260101_000000 of a single'):
        collect(dict(A=[single], B=[multi]))


def test_counts_of_another_evaluation_than_the_metrics_are_an_error(tmp_path):
    a = write_run(tmp_path / 'a', counts=counts_of(20, 0.5), mIoU=12.)
    with pytest.raises(UserError, match='not of one evaluation'):
        collect(dict(A=[a], B=[a]))
    next(a.rglob('per_image.npz')).write_bytes(b'PK\x03\x04 torn')
    with pytest.raises(UserError, match='cannot be read as pixel counts'):
        collect(dict(A=[a], B=[a]))


def test_the_same_run_twice_is_an_error(tmp_path):
    a = write_run(tmp_path / 'a', 40.)
    with pytest.raises(UserError, match='twice'):
        collect(dict(A=[a, a / '20260101_000000'], B=[a]))


def test_no_path_of_the_machine_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = f'python tools/train.py {tmp_path}/configs/a.py --work-dir=/home/me/runs A=/data/x,/data/y https://host/z'
    assert public_command(command) == 'python tools/train.py configs/a.py --work-dir=runs A=x,y https://host/z'


def test_counts_in_the_json_are_those_that_the_intervals_come_from(candidates, tmp_path):
    write_report(collect(candidates), tmp_path / 'two.md')
    content = json.loads((tmp_path / 'two.json').read_text())
    a, b = ([{name: np.array(run['counts'][name]) for name in ('intersect', 'union')} for run in candidate['runs']]
            for candidate in content['candidates'])
    assert paired_bootstrap(b, a) == content['paired'][0]


def test_counts_that_would_make_the_json_large_are_left_out_and_the_report_stays_the_same(candidates, monkeypatch):
    whole = collect(candidates, 'Two')
    monkeypatch.setattr('studies.comparison.collecting.LARGEST_JSON', len(json.dumps(whole)) - 1)
    content = collect(candidates, 'Two')
    assert content['images'] is None and all(run['counts'] is None for c in content['candidates'] for run in c['runs'])
    assert report(content, 'x') == report(whole, 'x')
