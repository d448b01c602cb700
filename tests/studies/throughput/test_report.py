import json

import pytest

from inceptionnext_seg.provenance import environment
from studies.throughput.mixer import measure_mixer
from studies.throughput.report import report, write_report
from studies.throughput.summary import best_layouts, growth, summarize

from .common import TINY


def test_speed_is_relative_to_the_first_and_above_one_is_faster():
    def fake(name, seconds):
        return dict(name=name, label=name, layout='nchw', seconds=seconds, settled=True, macs=1e9, nbytes=1,
                    peak_memory=None)

    run = dict(setting=dict(batch_size=4), peaks=dict(macs_per_second=1e9, bytes_per_second=1e9), results=[
        fake('slow', [2.0, 2.2, 1.8, 2.0]), fake('fast', [1.0, 1.1, 0.9, 1.0])])
    first, second = summarize(run)
    assert first['speedup'] is None and first['images_per_s'] == 2.0 and first['times_of_limit'] == 2.0
    assert second['speedup'].median == pytest.approx(2.0) and second['images_per_s'] == 4.0


def test_the_better_layout_is_taken_for_each_candidate():
    def fake(name, layout, seconds):
        return dict(name=name, layout=layout, seconds=[seconds] * 3)

    best = best_layouts([
        fake('a', 'nchw', 1), fake('a', 'nhwc', 2), fake('b', 'nchw', 3), fake('b', 'nhwc', 1)])
    assert [(r['name'], r['layout']) for r in best] == [('a', 'nchw'), ('b', 'nhwc')]


def test_the_report_of_a_result_file_is_the_same_each_time(result, tmp_path):
    stored = json.loads(json.dumps(result))
    write_report(stored, tmp_path / 'a.md')
    text = (tmp_path / 'a.md').read_text()
    assert text == report(json.loads(json.dumps(stored)), [picture.name for picture in tmp_path.glob('*.png')])
    assert 'upernet_convnext_a_mini' in text and '× of limit' in text


def test_the_report_has_the_peak_of_the_process_and_the_command_of_each_run():
    result = dict(name='a', label='a', layout='nhwc', seconds=[1.] * 8, settled=True, macs=1, nbytes=1,
                  peak_memory=300 * 2**20, memory_before=100 * 2**20)
    run = dict(setting=vars(TINY), peaks=dict(macs_per_second=1e9, bytes_per_second=1e9, matrix_size=1),
               results=[result], command='python tools/benchmark.py a.py --rounds 8')
    text = report(dict(environment=environment('cpu'), runs=[run]))
    assert '| 300 |' in text and '200 |' not in text
    assert '`python tools/benchmark.py a.py --rounds 8`' in text


def test_how_cost_grows_is_drawn_from_three_sizes_on(tmp_path):
    def run(size, batch_size, label, seconds):
        return dict(setting=dict(vars(TINY), size=size, batch_size=batch_size), peaks=dict(
            macs_per_second=1e9, bytes_per_second=1e9, matrix_size=1), results=[dict(
                name=label, label=label, layout='nhwc', seconds=[seconds] * 8, settled=True, macs=1, nbytes=1,
                peak_memory=None)])

    runs = [run(1000, 2, 'a', 2.), run(1000, 1, 'a', 1.), run(2000, 1, 'a', 4.), run(1000, 1, 'b', 1.)]
    found = growth(dict(runs=runs))
    assert found == {('train', 'fp32'): dict(a=[(1., pytest.approx(1.)), (2., pytest.approx(2.)),
                                                (4., pytest.approx(4.))])}
    assert not growth(dict(runs=runs[1:]))
    write_report(dict(environment=environment('cpu'), runs=runs), tmp_path / 'x.md')
    assert (tmp_path / 'x_growth.png').is_file() and '![x_growth](x_growth.png)' in (tmp_path / 'x.md').read_text()


def test_the_mixer_is_measured_against_one_copy_and_reported_by_form():
    mixer = measure_mixer(TINY, channels=16, size=8, batch_size=1, rounds=8)
    named = dict(mixer, command='python tools/benchmark.py --mixer')
    text = report(dict(environment=environment('cpu'), runs=[], mixers=[named]))
    assert '| copy | ' in text and 'InceptionDWConv2d, auto: forward and backward' in text
    assert '| copy | ' not in report(dict(environment=environment('cpu'), runs=[], mixers=[mixer]))
