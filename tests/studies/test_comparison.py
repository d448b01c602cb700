"""The comparison of runs, against examples worked by hand and closed-form intervals."""
import importlib.util
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest

from inceptionnext_seg.errors import UserError
from studies.comparison import (
    collect,
    find_metrics,
    paired_bootstrap,
    public_command,
    ran_together,
    read_loss,
    read_metrics,
    report,
    welch,
    write_report,
)

REPOSITORY = Path(__file__).parents[2]
CLASSES = ('sky', 'road', 'car')


def load_tool():
    spec = importlib.util.spec_from_file_location('compare', REPOSITORY / 'tools/compare.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def counts_of(images, share, seed=0, labels=0):
    """Pixel counts of a made-up prediction that finds about ``share`` of each class's pixels and nothing else."""
    label = np.random.default_rng(labels).integers(50, 1000, (images, len(CLASSES)))
    intersect = np.random.default_rng(seed).binomial(label, share)
    return dict(intersect=intersect, union=label, prediction=intersect, label=label)


def write_run(folder, miou=None, seed=0, counts=None, classes=CLASSES, command='python tools/train.py configs/a.py',
              start='2026-01-01T00:00:00+00:00', **changes):
    """A work_dir as tools/train.py leaves it; its figures follow from ``counts`` where they are given."""
    log = folder / '20260101_000000'
    (log / 'vis_data').mkdir(parents=True)
    iou = [miou] * len(classes)
    if counts is not None:
        iou = (100 * counts['intersect'].sum(0) / counts['union'].sum(0)).tolist()
        miou = float(np.mean(iou))
        np.savez_compressed(log / 'per_image.npz', **counts, classes=np.array(classes),
                            image=np.array([f'{i}.png' for i in range(len(counts['label']))]))
    metrics = dict(
        config='configs/a.py', checkpoint='work_dirs/a/iter_300.pth', iteration=300, seed=seed, mIoU=miou, mAcc=60.0,
        aAcc=80.0, per_class={name: dict(IoU=value, Acc=60.0) for name, value in zip(classes, iou, strict=True)},
        train_throughput=dict(images_per_s=4.0 + seed, peak_memory_MiB=1000.0),
        val_throughput=dict(images_per_s=8.0, peak_memory_MiB=1000.0),
        history=[dict(iteration=150, mIoU=miou - 10), dict(iteration=300, mIoU=miou)], seconds=60.0, processes=1,
        environment=dict(command=command, versions=dict(torch='2.4'), device='cpu', device_name='A processor',
                         cpu_cores=2, threads=1, platform='Linux', date=start))
    metrics.update(changes)
    (log / 'metrics.json').write_text(json.dumps(metrics))
    lines = [dict(loss=4 / (1 + step / 100) + 0.1 * seed, step=step, iter=step) for step in range(20, 301, 20)]
    lines.append(dict(mIoU=miou, step=300))
    (log / 'vis_data/scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n{"loss": 1.0, "st')
    return folder


@pytest.fixture
def candidates(tmp_path):
    """Three seeds each of two candidates; the second is better."""
    return {name: [write_run(tmp_path / f'{name}{seed}', seed=seed, counts=counts_of(20, share, seed + offset))
                   for seed in range(3)] for name, share, offset in (('A', 0.5, 0), ('B', 0.6, 10))}


def text_of(content):
    return '\n'.join(str(block) for block in report(content, 'x')[0])


# Statistics


@pytest.mark.filterwarnings('ignore:Precision loss')  # a side without variance is the point
def test_welch_agrees_with_intervals_worked_by_hand():
    # Equal variances 1 and three values a side: se² = 1/3 + 1/3, (2/3)² / ((1/3)² / 2 + (1/3)² / 2) = 4 degrees of
    # freedom, whose 97.5 % quantile is 2.776445 in Student's table.
    half = 2.776445 * math.sqrt(2 / 3)
    assert welch([4, 5, 6], [1, 2, 3]) == pytest.approx((3, 3 - half, 3 + half), abs=1e-5)
    # Variance 0 on one side: se² = 4/3, 2 degrees of freedom (not 4, as with pooled variances), where the quantile has
    # the closed form 0.95 sqrt(2 / (4 · 0.975 · 0.025)).
    half = 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025)) * math.sqrt(4 / 3)
    difference = welch([4, 6, 8], [2, 2, 2])
    assert difference == pytest.approx((4, 4 - half, 4 + half), abs=1e-5)
    assert not difference.shown and difference.low < 0


@pytest.mark.parametrize(('values', 'reference'), [([5.], [4.]), ([5., 6.], [4.]), ([5., 5.], [4., 4.])])
def test_welch_gives_no_interval_where_a_side_has_one_run_or_nothing_varies(values, reference):
    difference = welch(values, reference)
    assert difference.value == pytest.approx(np.mean(values) - np.mean(reference))
    assert difference.low is None and not difference.shown


def test_identical_predictions_differ_by_exactly_zero():
    counts = counts_of(15, 0.5)
    result = paired_bootstrap([counts], [counts], resamples=200)
    assert result['mIoU'] == [0, 0, 0]
    assert result['classes'] == [[0, 0, 0]] * 3


def test_bootstrap_of_a_constant_ratio_has_no_spread():
    # One class of 100 pixels in every image, of which one side finds 50 and the other 30, whatever images are drawn.
    union = np.full((12, 1), 100)
    result = paired_bootstrap([dict(intersect=union // 2, union=union)], [dict(intersect=union * 3 // 10, union=union)],
                              resamples=200)
    assert result['mIoU'] == pytest.approx([20, 20, 20])


def test_bootstrap_agrees_with_the_normal_interval_of_a_mean_of_differences():
    # Every image has as many pixels, so mIoU is a mean over images: its interval is 1.96 standard errors either side.
    random = np.random.default_rng(1)
    union = np.full((400, 1), 1000)
    a, b = random.integers(300, 700, (2, 400, 1))
    difference = 100 * (a - b)[:, 0] / 1000
    half = 1.959964 * difference.std(ddof=1) / math.sqrt(400)
    value, low, high = paired_bootstrap([dict(intersect=a, union=union)], [dict(intersect=b, union=union)])['mIoU']
    assert value == pytest.approx(difference.mean())
    assert (low, high) == pytest.approx((difference.mean() - half, difference.mean() + half), abs=0.06 * half)


def test_bootstrap_covers_the_truth_and_is_narrower_than_an_unpaired_one():
    # Images are hard or easy for both sides alike; the better one finds 5 more of 100 pixels on average.
    random = np.random.default_rng(2)
    union = np.full((200, 1), 10_000)
    hardness = random.uniform(0.1, 0.8, (200, 1))
    a, b = (random.binomial(union, hardness + gain) for gain in (0.05, 0))
    _, low, high = paired_bootstrap([dict(intersect=a, union=union)], [dict(intersect=b, union=union)])['mIoU']
    assert 0 < low < 5 < high
    unpaired = 2 * 1.96 * 100 * math.sqrt((a / union).var() / 200 + (b / union).var() / 200)
    assert high - low < unpaired / 5


def test_iou_is_of_summed_counts_and_the_seeds_of_a_side_are_averaged():
    # Sky: 1 of 2 and 9 of 18 pixels, 50 %. Road: 1 of 1 and 0 of 3, 25 %. mIoU 37.5; the other side has 0 and 100.
    mine = dict(intersect=np.array([[1, 1], [9, 0]]), union=np.array([[2, 1], [18, 3]]))
    none = dict(intersect=np.zeros((2, 2), int), union=np.array([[2, 1], [18, 3]]))
    full = dict(intersect=mine['union'], union=mine['union'])
    result = paired_bootstrap([mine], [none, full], resamples=50)
    assert result['mIoU'][0] == pytest.approx(37.5 - 50)
    assert [entry[0] for entry in result['pairs']] == pytest.approx([37.5])
    assert [entry[0] for entry in result['classes']] == pytest.approx([50 - 50, 25 - 50])


def test_a_class_of_one_image_has_no_interval_and_an_absent_one_no_difference():
    union = np.zeros((10, 3), int)
    union[:, 0], union[4, 1] = 100, 100
    a, b = dict(intersect=union // 2, union=union), dict(intersect=union // 4, union=union)
    common, rare, absent = paired_bootstrap([a], [b], resamples=200)['classes']
    assert common == pytest.approx([25, 25, 25])
    assert rare == [pytest.approx(25), None, None]
    assert absent is None


# Reading runs


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
    ('{"mIoU": null}', 'mIoU is None; wanted a number'), ('{"mIoU": 4, "mAcc": 4, "aAcc": 4}', 'per_class'),
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


# The report


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


def test_runs_that_overlap_in_time_shared_the_machine(tmp_path):
    ends = ('2026-01-01T00:01:00+00:00', '2026-01-01T00:01:30+00:00', '2026-01-01T00:05:00+00:00')
    runs = []
    for i, end in enumerate(ends):
        folder = write_run(tmp_path / str(i), 40., start=end)  # each took 60 s
        runs.append(dict(metrics=read_metrics(find_metrics(folder))))
    assert ran_together(runs) == [True, True, False]


def test_report_is_rebuilt_byte_for_byte_from_its_json_alone(candidates, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', ['tools/compare.py', f'A={tmp_path}/A0'])
    compare = load_tool()
    arguments = [f'{name}={",".join(map(str, runs))}' for name, runs in candidates.items()]
    compare.main([*arguments, '--title', 'Two | <three>', '--out', 'first/two.md', '--html'])
    names = ['two.html', 'two.json', 'two.md', 'two_classes.png', 'two_curves.png', 'two_speed.png']
    assert sorted(path.name for path in Path('first').iterdir()) == names
    for runs in candidates.values():
        for run in runs:
            run.rename(run.with_name(f'{run.name}-gone'))
    compare.main(['--from', 'first/two.json', '--out', 'second/two.md', '--html'])
    for name in names:
        assert Path('second', name).read_bytes() == Path('first', name).read_bytes()
        assert Path('first', name).stat().st_size < 200_000
    page, text = Path('first/two.html').read_text(), Path('first/two.md').read_text()
    assert 'Two | &lt;three&gt;' in page and page.count('src="data:image/png;base64,') == 3
    assert set(re.findall(r'\]\((.+?)\)', text)) == {name for name in names if name.endswith('png')}
    assert str(tmp_path) not in text + page + Path('first/two.json').read_text()


def test_counts_in_the_json_are_those_that_the_intervals_come_from(candidates, tmp_path):
    write_report(collect(candidates), tmp_path / 'two.md')
    content = json.loads((tmp_path / 'two.json').read_text())
    a, b = ([{name: np.array(run['counts'][name]) for name in ('intersect', 'union')} for run in candidate['runs']]
            for candidate in content['candidates'])
    assert paired_bootstrap(b, a) == content['paired'][0]


def test_counts_that_would_make_the_json_large_are_left_out_and_the_report_stays_the_same(candidates, monkeypatch):
    whole = collect(candidates, 'Two')
    monkeypatch.setattr('studies.comparison.LARGEST_JSON', len(json.dumps(whole)) - 1)
    content = collect(candidates, 'Two')
    assert content['images'] is None and all(run['counts'] is None for c in content['candidates'] for run in c['runs'])
    assert report(content, 'x') == report(whole, 'x')


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


# The tool


@pytest.mark.parametrize(('arguments', 'message'), [
    (['A=x'], 'one candidate given'), (['A=x', 'x'], "'x' is not NAME=RUN"), (['A=x', 'B=x,,y'], 'is not NAME=RUN'),
    (['A=x', 'A=y'], 'given twice'), (['A|B=x', 'C=y'], 'is not NAME=RUN'),
])
def test_arguments_that_name_no_runs_are_one_clear_message(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        load_tool().main([*arguments, '--out', str(tmp_path / 'x.md')])
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize('text', [
    '{"format": "another"}', '{"format": "inceptionnext_seg comparison 1", "title": "x"}'])
def test_a_json_of_something_else_is_one_clear_message(tmp_path, capsys, text):
    (tmp_path / 'x.json').write_text(text)
    with pytest.raises(SystemExit):
        load_tool().main(['--from', str(tmp_path / 'x.json'), '--out', str(tmp_path / 'y.md')])
    assert 'tools/compare.py NAME=RUN NAME=RUN' in capsys.readouterr().err
    assert not (tmp_path / 'y.md').exists()
