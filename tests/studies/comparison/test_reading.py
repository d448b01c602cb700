import json
import os
import zipfile

import pytest

from inceptionnext_seg.errors import UserError
from studies.comparison.reading import (
    LARGEST_ARRAYS,
    curve_of,
    find_metrics,
    loss_points,
    read_counts,
    read_metrics,
    read_run,
)

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


def test_a_folder_of_several_runs_is_none_of_them(tmp_path):
    seeds = [write_run(tmp_path / f'sweep/seed_{seed}', miou=40., seed=seed) for seed in range(2)]
    with pytest.raises(UserError, match=f'sweep holds 2 runs; .*NAME={seeds[0]},{seeds[1]} '):
        find_metrics(tmp_path / 'sweep')


def test_a_folder_with_results_at_one_scale_and_at_several_is_no_choice(tmp_path):
    write_run(tmp_path / 'run', miou=40.)
    write_run(tmp_path / 'run/tested', miou=42., command='python tools/test.py configs/a.py a.pth --tta')
    single, = tmp_path.glob('run/2*/metrics.json')
    multi, = tmp_path.glob('run/tested/*/metrics.json')
    with pytest.raises(UserError, match=f'multi-scale test .--tta., {multi}, and of a single scale, {single}'):
        find_metrics(tmp_path / 'run')
    assert find_metrics(multi) == multi


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
    path = tmp_path / 'vis_data/scalars.json'
    path.parent.mkdir()
    path.write_text(''.join(f'{{"loss": {step}.0, "step": {step}}}\n' for step in range(1, 401)) + '{"loss": 9')
    curve = curve_of(loss_points(tmp_path))
    assert curve['iteration'] == list(range(2, 401, 2))
    assert curve['loss'][:2] == [1.5, 3.5]


def part_of_run(work_dir, name, steps, validated, loss, **metrics):
    """The log of one start of a run; without metrics it was killed before its first validation."""
    folder = work_dir / name
    (folder / 'vis_data').mkdir(parents=True)
    (folder / 'vis_data/scalars.json').write_text(
        ''.join(json.dumps(dict(loss=loss, step=step)) + '\n' for step in steps))
    if validated:
        whole = json.loads(find_metrics(write_run(work_dir.parent / f'made_up_{name}', miou=40.)).read_text())
        history = [dict(iteration=iteration, mIoU=loss) for iteration in validated]
        (folder / 'metrics.json').write_text(json.dumps(dict(whole, history=history) | metrics))


def test_a_run_that_was_killed_and_resumed_has_its_whole_curves_and_nothing_of_another(tmp_path):
    run = tmp_path / 'run'
    part_of_run(run, '20260101_000000', range(20, 301, 20), [150, 300], 9.)                 # another run
    part_of_run(run, '20260102_000000', range(50, 451, 50), [150, 300, 450], 3.)            # killed at 450
    part_of_run(run, '20260103_000000', [350], [], 2.)                                      # killed again
    part_of_run(run, '20260104_000000', range(350, 601, 50), [450, 600], 1., iteration=600,
                train_throughput=dict(iterations=300, images_per_s=1.))
    found = read_run(run)
    assert found['loss'] == dict(iteration=list(range(50, 601, 50)), loss=[3.] * 6 + [1.] * 6)
    assert [(point['iteration'], point['mIoU']) for point in found['metrics']['history']] == [
        (150, 3.), (300, 3.), (450, 1.), (600, 1.)]


# Hostile files


def metrics_with(folder, **changes):
    path = find_metrics(write_run(folder, miou=40.))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


@pytest.mark.parametrize(('name', 'value'), [
    ('history', 'text'), ('history', [1]), ('history', [{'mIoU': 1.}]), ('seed', 'text'), ('seconds', []),
    ('config', 5), ('checkpoint', ['a']), ('train_throughput', {'images_per_s': 'fast'}), ('val_throughput', [1])])
def test_metrics_of_another_type_are_an_error_that_names_them(tmp_path, name, value):
    with pytest.raises(UserError, match=rf'metrics\.json: {name} is '):
        read_metrics(metrics_with(tmp_path, **{name: value}))


def test_lines_of_a_loss_curve_that_are_no_objects_are_left_out(tmp_path):
    path = tmp_path / 'vis_data/scalars.json'
    path.parent.mkdir()
    path.write_text('[]\n3\n' + '[' * 100_000 + '\n{"loss": 1.0, "step": "x"}\n{"loss": NaN, "step": 1}\n'
                    '{"loss": 2.0, "step": 7}\n')
    assert loss_points(tmp_path) == [(7, 2.)]


def npy(shape, content, dtype='<i8'):
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}".ljust(117) + '\n'
    return b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header.encode() + content


@pytest.mark.parametrize(('content', 'found'), [
    (npy((1 << 40, ), bytes(8)), '8796093022336 bytes'), (npy((-1, ), bytes(8)), 'bytes'),
    (npy((1, ), b'cos\nsystem\n(S"true"\ntR.', '|O'), 'cannot be read'), (b'no array', 'cannot be read'),
    (npy('x', b''), 'cannot be read')])
def test_an_array_that_is_not_what_it_announces_is_an_error_before_memory_is_taken(tmp_path, content, found):
    path = metrics_with(tmp_path)
    with zipfile.ZipFile(path.with_name('per_image.npz'), 'w') as archive:
        for name in ('intersect', 'union', 'label', 'image', 'classes'):
            archive.writestr(f'{name}.npy', content)
    with pytest.raises(UserError, match=rf'per_image\.npz cannot be read.*{found}|per_image\.npz {found}'):
        read_counts(path.with_name('per_image.npz'), read_metrics(path))


def test_arrays_that_inflate_to_gigabytes_are_an_error_by_their_announced_size(tmp_path):
    path = metrics_with(tmp_path)
    with zipfile.ZipFile(path.with_name('per_image.npz'), 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ('intersect', 'union', 'label', 'image', 'classes'):
            archive.writestr(f'{name}.npy', npy((8 << 20, ), bytes(64 << 20)))
    with pytest.raises(UserError, match=f'expected at most {LARGEST_ARRAYS}'):
        read_counts(path.with_name('per_image.npz'), read_metrics(path))
