import json

import pytest

from inceptionnext_seg.errors import UserError
from studies.comparison.collecting import collect
from studies.comparison.report import report

from .common import text_of, write_run


def test_report_says_who_wins_over_seeds_and_over_images(candidates):
    content = collect(candidates, 'Two')
    text = text_of(content)
    assert '**B wins over A**' in text and 'B is higher' in text
    assert [len(paired['pairs']) for paired in content['paired']] == [3]


def test_report_of_equal_candidates_shows_no_difference(tmp_path):
    runs = {name: [write_run(tmp_path / f'{name}{i}', value, seed=i) for i, value in enumerate(values)]
            for name, values in (('A', (40., 42., 44.)), ('B', (41., 43., 45.)))}
    text = text_of(collect(runs))
    assert '**No difference shown over seeds**: B minus A is +1.00 points' in text
    assert 'no proof of equality' in text and 'no `per_image.npz`' in text


def test_report_of_one_seed_each_says_that_seeds_are_not_tested(tmp_path):
    runs = dict(A=[write_run(tmp_path / 'a', 40.)], B=[write_run(tmp_path / 'b', 45.)])
    text = text_of(collect(runs))
    assert '**Over seeds nothing is tested**' in text and 'One run says nothing about the spread' in text
    assert 'wins' not in text and '±' not in text.replace('± standard deviation', '')


def test_report_leaves_out_what_has_no_data(tmp_path):
    bare = dict(train_throughput=None, val_throughput=None, history=[])
    runs = dict(A=[write_run(tmp_path / 'a', 40., **bare)], B=[write_run(tmp_path / 'b', 45., **bare)])
    for scalars in tmp_path.rglob('scalars.json'):
        scalars.unlink()
    blocks, pictures = report(collect(runs), 'x')
    headings = [content for kind, content in blocks if kind == 'heading']
    assert headings == ['Accuracy over seeds', 'The same images, paired', 'Classes that differ most',
                        'Where this comes from']
    assert list(pictures) == ['x_classes.png']


def test_report_says_when_runs_are_of_different_length(tmp_path):
    runs = dict(A=[write_run(tmp_path / 'a', 40.)], B=[write_run(tmp_path / 'b', 45., iteration=150)])
    assert 'not evaluated at the same iteration' in text_of(collect(runs))


def test_a_benchmark_adds_its_throughput(tmp_path):
    runs = {name: [write_run(tmp_path / name, 40., config=f'configs/{name}.py')] for name in 'ab'}
    peaks = dict(macs_per_second=1e9, bytes_per_second=1e9)
    results = [dict(name=f'/somewhere/{name}.py', label=name, layout='nhwc', seconds=[seconds] * 8, settled=True,
                    macs=1e8, nbytes=1e6, peak_memory=None) for name, seconds in (('a', 0.5), ('b', 0.25))]
    setting = dict(mode='train', part='segmentor', batch_size=2, size=64, dtype='fp32', compile=False, device='cpu')
    path = tmp_path / 'throughput.json'
    path.write_text(json.dumps(dict(
        environment=dict(command='python tools/benchmark.py a.py b.py', versions={}, device='cpu'),
        runs=[dict(setting=setting, peaks=peaks, results=results)])))
    content = collect(dict(a=runs['a'], b=runs['b']), benchmarks=[path])
    assert "['b', 'segmentor train fp32 nhwc', '2 × 64²', '8 (8–8)', '2.00 (2.00–2.00)', 'yes']" in text_of(content)
    assert '/somewhere' not in json.dumps(content)
    path.write_text('{"runs": [{}]}')
    with pytest.raises(UserError, match=r'no result of tools/benchmark\.py'):
        collect(dict(a=runs['a'], b=runs['b']), benchmarks=[path])
