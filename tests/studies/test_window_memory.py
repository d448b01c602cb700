"""Peak memory of sliding windows: what the table says of rows worked by hand."""
import json
from pathlib import Path

import pytest

from inceptionnext_seg.errors import UserError
from studies import window_memory
from studies.published.files import report_of
from studies.window_memory import Picture, large_table, main, measure, picture_of, report, table, words

ROOT, MIB = Path(__file__).parents[2], 2**20


def row(candidate, peak, same=1.0, height=512, width=683, **more):
    return dict(height=height, width=width, images=2, candidate=candidate, same=same, peak=(300 + peak) * MIB,
                before=300 * MIB, **more)


def result(*rows):
    return dict(environment=dict(command='python x', commit='abc', date='2026-01-02T03:04', device_name='Some CPU',
                                 threads=2, versions=dict(torch='2.14')), config='configs/c.py', rows=list(rows))


def test_memory_is_a_share_of_that_of_stock_on_the_same_image():
    found = result(row('stock', 1000), row('fp32', 400, 0.9999), row('stock', 4000, width=2048),
                   row('fp32', 400, width=2048))
    lines = table(found).splitlines()
    assert lines[3] == '| 512×683 | deploy form, fp32 | 700 | 400 | 0.40 | 99.990 |'
    assert '| 0.10 |' in lines[5] and 'Reached by all.' in words(found) and words(found) in report(found)
    assert words(found).endswith('With test-time augmentation nothing was measured.')
    found = result(row('stock', 1000), row('stock', 3000, tta=True), row('accelerated', 900, tta=True))
    assert '| 512×683, TTA | accelerated | 1200 | 900 | 0.30 |' in table(found)
    assert 'scales of 1 and 1.5' in words(found)


def test_what_misses_the_goal_is_named():
    found = result(row('stock', 1000), row('fp32', 510), row('bf16', 500))
    assert 'Missed by deploy form, fp32 at 512×683.' in words(found)


def test_a_large_image_has_a_goal_in_gib_with_the_libraries():
    found = result(row('stock', 1000))
    assert large_table(found) == 'An image of 8000×8000 pixels was not measured.'
    found['large'] = [dict(how=how, config='configs/a.py', channels=64, size=8000, commit='def', peak=peak * MIB,
                           before=900 * MIB) for how, peak in (('command', 4096), ('load', 4097))]
    lines = large_table(found).splitlines()
    assert lines[2].endswith('| 4096 | 3196 | reached |') and lines[3].endswith('| 4097 | 3197 | missed |')
    assert large_table(found) in report(found) and 'commit abc, def,' in report(found)


@pytest.mark.skipif(window_memory.sys.platform != 'linux', reason='the study runs on Linux')
def test_what_the_file_has_is_not_measured_again(tmp_path, monkeypatch):
    path, ran, now = tmp_path / 'a.json', [], dict(result()['environment'], cpu='A', cpu_cores=2)
    monkeypatch.setattr(window_memory, 'environment', lambda device: now)
    monkeypatch.setattr(window_memory.torch, 'set_num_threads', lambda threads: None)
    monkeypatch.setattr(window_memory, 'measure_picture', lambda picture, folder, bar: ran.append(picture) or [
        row('stock', 100, height=picture.height, width=picture.width, tta=picture.tta)])
    monkeypatch.setattr(window_memory, 'write_large', lambda folder: ('weights', 'image'))
    monkeypatch.setattr(window_memory, 'in_a_process', lambda kind, how, *files: ran.append(how) or dict(
        peak=2, before=1))
    measure(path, [Picture(512, 683)], [])
    measure(path, list(window_memory.PICTURES), ['command'])
    measure(path, list(window_memory.PICTURES), ['command', 'load'])
    assert ran == [Picture(512, 683), Picture(1024, 2048), Picture(512, 683, True), 'command', 'load']
    assert [row['how'] for row in json.loads(path.read_text())['large']] == ['command', 'load']
    assert picture_of(json.loads(path.read_text())['rows'][2]).tta
    now = dict(now, cpu='B')
    with pytest.raises(UserError, match=r"cpu 'A'.*'B'"):
        measure(path, [], [])


def test_the_result_goes_where_its_report_is_known(monkeypatch, capsys):
    asked, written = [], []
    monkeypatch.setattr(window_memory.sys, 'argv', ['x', '--only', 'tta', 'load'])
    monkeypatch.setattr(window_memory, 'measure', lambda *arguments: asked.append(arguments) or result(row('stock', 9)))
    monkeypatch.setattr(window_memory, 'write_text', lambda path, text: written.append(path))
    main()
    (out, pictures, hows), = asked
    assert pictures == [Picture(512, 683, True)] and hows == ['load']
    path = ROOT / out
    assert report_of({}, path, ROOT / 'docs/results').text is not None and written == [Path(out).with_suffix('.md')]
    assert 'Memory of sliding windows' in capsys.readouterr().out
