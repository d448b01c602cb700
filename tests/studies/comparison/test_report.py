import json
import re

import pytest

from inceptionnext_seg.errors import UserError
from studies.comparison.collecting import collect
from studies.comparison.report import report, write_report

from .common import text_of, write_run


def test_report_says_who_is_higher_over_seeds_and_over_images(candidates):
    content = collect(candidates, 'Two')
    text = text_of(content)
    assert '**B is higher than A**' in text and "'B is higher'" in text
    assert [len(paired['pairs']) for paired in content['paired']] == [3]


def test_without_the_images_there_is_neither_an_interval_over_them_nor_a_verdict(candidates):
    content = collect(candidates, 'Two')
    blocks, pictures = report(content, 'x', images=False)
    text, whole = str(blocks), text_of(content)
    for said in ('**B is higher than A**', 'Over the images', 'paired bootstrap', 'Classes that differ most'):
        assert said in whole and said not in text
    assert 'B minus A over seeds: +' in text and 'x_classes.png' not in pictures and 'x_curves.png' in pictures


def test_report_of_equal_candidates_shows_no_difference(tmp_path):
    runs = {name: [write_run(tmp_path / f'{name}{i}', value, seed=i) for i, value in enumerate(values)]
            for name, values in (('A', (40., 42., 44.)), ('B', (41., 43., 45.)))}
    text = text_of(collect(runs))
    assert '**No difference shown over seeds**: B minus A is +1.00 points' in text
    assert 'no proof of equality' in text and 'no `per_image.npz`' in text


def test_two_seeds_that_show_nothing_are_too_few_and_are_not_ranked_in_a_picture(tmp_path):
    runs = {name: [write_run(tmp_path / f'{name}{i}', value, seed=i, start=f'2026-01-{day + i}T00:00:00+00:00')
                   for i, value in enumerate(values)]
            for name, values, day in (('A', (40., 42.), 10), ('B', (41., 43.), 20))}
    blocks, pictures = report(collect(runs), 'x')
    assert '**Too few seeds to tell**: B minus A is +1.00 points' in str(blocks)
    assert 'no difference shown' not in str(blocks) and 'x_speed.png' not in pictures


def test_images_per_second_of_runs_that_shared_a_machine_are_left_out(candidates, tmp_path):
    alone, pictures = report(collect(candidates), 'x')
    assert 'images/s of each run' in str(alone) and 'x_speed.png' in pictures
    shared = {name: [write_run(tmp_path / f'shared{name}{i}', 40. + i, seed=i) for i in range(3)] for name in 'AB'}
    blocks, pictures = report(collect(shared), 'x')
    assert 'images/s of each run' not in str(blocks) and 'peak memory (MiB)' in str(blocks)
    assert '6 of the 6 runs ran at the same time' in str(blocks) and 'x_speed.png' not in pictures


def test_a_note_beside_the_report_stands_before_every_figure_in_place_of_that_of_the_runs(candidates, tmp_path):
    content = dict(collect(candidates, 'Two'), note='from the sweep')
    assert report(content, 'x')[0][1] == ('text', 'from the sweep')
    (tmp_path / 'two.note.md').write_text('written by hand\n')
    write_report(content, tmp_path / 'two.md')
    text = (tmp_path / 'two.md').read_text()
    assert text.startswith('# Two\n\nwritten by hand\n') and 'from the sweep' not in text
    assert json.loads((tmp_path / 'two.json').read_text())['note'] == 'from the sweep'


def test_report_of_one_seed_each_says_that_seeds_are_not_tested(tmp_path):
    runs = dict(A=[write_run(tmp_path / 'a', 40.)], B=[write_run(tmp_path / 'b', 45.)])
    text = text_of(collect(runs))
    assert '**Over seeds nothing is tested**' in text and 'One run says nothing about the spread' in text
    assert 'is higher than' not in text and '±' not in text.replace('± standard deviation', '')


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
    tested = write_run(tmp_path / 'tested', 45., iteration=None, command='python tools/test.py configs/a.py a.pth')
    assert 'not evaluated at the same iteration' not in text_of(collect(dict(runs, B=[tested])))


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


def test_nothing_that_a_file_says_is_a_tag_in_the_report(tmp_path):
    script = '<script>alert(1)</script>'
    runs = {name: [write_run(tmp_path / f'{name}{i}', miou=40. + i, seed=i, classes=(script, f'`{script}', '**b'),
                             config=f'a`{script}``', command=f'python "```\n{script}"',
                             checkpoint=script, environment=dict(
                                 command=f'python "```\n{script}"', device=script, device_name=script,
                                 platform=script, versions={script: script},
                                 date='2026-01-01T00:00:00+00:00')) for i in range(2)]
            for name in 'AB'}
    content = dict(collect(runs), title=script)
    for path in write_report(content, tmp_path / 'report.md', as_html=True):
        if path.suffix in ('.md', '.html'):
            text = path.read_text()
            if path.suffix == '.md':  # what is in a fence is not read as HTML
                text = re.sub(r'^(`{3,})sh$.*?^\1$', '', text, flags=re.DOTALL | re.MULTILINE)
            assert '<script' not in text and 'alert(1)' in text
