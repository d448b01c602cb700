"""The study from measuring to the document, with tiny shapes and in this process."""
import json
from concurrent.futures import Future

import pytest
import torch

from inceptionnext_seg.errors import UserError
from studies.claims.operators import REVERSED as CLAIMED_REVERSED
from studies.operators import blocks as blocks_module
from studies.operators import measuring, worker
from studies.operators.blocks import NOT_MEASURED, break_even_words, document_blocks, said
from studies.operators.cells import SHAPES, Cell, cells
from studies.operators.measuring import layouts_left, measure_all, wait_for_low_load
from studies.operators.reasons import REVERSED, verdict
from studies.operators.report import candidate_square, report
from studies.operators.roofline import BreakEven
from studies.operators.summary import Result, cell_name
from studies.published.files import REPORTS, write_report
from studies.speed.statistics import Estimate

SWEPT = [cell for cell in cells() if cell.name in (cell_name(), cell_name(place='beyond'))]
TINY = [Cell('depthwise', 'infer', 'fp32', 'inside', operators=(('square', (3, 3)), ('sequential', (3, 3)))),
        Cell('depthwise', 'infer', 'fp32', 'beyond', operators=SWEPT[1].operators),
        Cell('depthwise', 'train', 'fp32', 'inside', operators=(('copy', (1, 1)), ('inception', (11, 11)))),
        Cell('convnext_atto', 'infer', 'fp32', 'image', 2)]


class Here:
    """A pool whose process is this one."""

    def __init__(self, workers, context, prepare, condition):
        HERE.append(condition)

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


HERE = []


@pytest.fixture(scope='module')
def content(tmp_path_factory):
    """The result of two processes, made in two runs of which the first was stopped."""
    path = tmp_path_factory.mktemp('machine') / 'operators.json'
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SHAPES['depthwise'], 'inside', (8, 6, 2))
        patch.setitem(SHAPES['depthwise'], 'beyond', (8, 6, None))
        patch.setattr(worker, 'IMAGES', (2, 32))
        patch.setattr(worker, 'machine_peaks', lambda device, dtype: dict(
            macs_per_second=4e9, bytes_per_second=1e9, cache_bytes_per_second=2e9, seconds={}))
        patch.setattr(measuring, 'ProcessPoolExecutor', Here)
        patch.setattr(measuring, 'last_level_cache', lambda device: 2**14)
        patch.setattr(measuring, 'wait_for_quiet', lambda: 0.0)
        for name in measuring.VARIABLES:
            patch.delenv(name, raising=False)
        torch.manual_seed(0)
        first = measure_all(TINY[:2], path, 1, any_load=True, progress=lambda text: None)
        assert len(first['groups']) == 2
        measure_all(TINY, path, 2, any_load=True, progress=lambda text: None)
        content = json.loads(path.read_text())
        write_report(content, path, REPORTS['*/operators.json'])
        yield content, path


def test_a_run_goes_on_where_another_stopped(content):
    content, _ = content
    assert len(content['groups']) == 2 * len(TINY) and len(content['runs']) == 2
    assert [group['run'] for group in content['groups'][:3]] == [0, 0, 1]
    assert len(content['limits']) == 4      # one and two threads, two processes
    assert {group['cell'] for group in content['groups']} == {cell.name for cell in TINY}
    # 8 channels of 6×6 are 1152 bytes: 16 reach 1.1 of 16 KiB.
    assert {group['batch_size'] for group in content['groups'] if 'beyond' in group['cell']} == {16}
    assert all(group['waited'] >= 0 and group['load_average'] >= 0 for group in content['groups'])
    with_kernels = {group['process'] for group in content['groups'] if group['kernels']}
    assert with_kernels <= {0}


def test_report_blocks_and_pictures_are_made_of_the_file(content):
    content, path = content
    result, folder = Result(content), path.parent.parent
    blocks = {name: block() for name, block in document_blocks(result, path, folder).items()}
    assert '| fp32, beyond the cache, 1 thread |' in blocks['break_even']
    assert f'({path.parent.name}/operators_break_even.png)' in blocks['break_even']
    assert 'ConvNeXt-A of n×1 → 1×n' in blocks['networks']
    assert '3×1 → 1×3 over 3×3 | 0.67 |' in blocks['factorized']
    assert '**Measured at any load' in blocks['conditions']
    # Of 7×7, dense convolutions and the mixer nothing was measured.
    assert [name for name, text in blocks.items() if NOT_MEASURED in text] == ['answer', 'inception']
    made = path.with_suffix('.md').read_text()
    assert made == report(content, path)
    assert all(f'### {cell.name[0].upper()}{cell.name[1:]}' in made for cell in TINY)
    for kind in ('break_even', 'networks'):
        assert 0 < path.with_name(f'operators_{kind}.png').stat().st_size < 200_000


def test_blocks_say_that_nothing_was_measured():
    assert {block() for block in document_blocks(None, None, None).values()} == {NOT_MEASURED}


def test_a_layout_that_was_clearly_slower_twice_is_left_out_of_that_candidate():
    cell = TINY[0]
    groups = [dict(cell=cell.name, process=process, seconds={
        '3×3': dict(nchw=[1.0], nhwc=[1.2]), '3×1 → 1×3': dict(nchw=[1.0], nhwc=[1.05 + process])})
        for process in range(2)]
    both = {name: ['nchw', 'nhwc'] for name in cell.candidates}
    assert layouts_left([], cell, 0) == layouts_left(groups[:1], cell, 1) == both
    assert layouts_left(groups, cell, 2) == both | {'3×3': ['nchw']}


def test_a_loaded_machine_is_waited_for_and_then_refused():
    loads = iter([1.9, 0.8, 0.4])
    told = []
    assert wait_for_low_load(told.append, lambda: next(loads), iter(range(9)).__next__, lambda seconds: None) == 0.4
    assert len(told) == 1
    with pytest.raises(UserError, match=r'1\.90.*at most 0\.5.*--any-load'):
        wait_for_low_load(told.append, lambda: 1.9, iter(range(0, 9000, 100)).__next__, lambda seconds: None)


def test_variables_that_set_the_allocator_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv('MALLOC_TRIM_THRESHOLD_', '1')
    with pytest.raises(UserError, match='MALLOC_TRIM_THRESHOLD_'):
        measure_all(TINY, tmp_path / 'a.json', 1, any_load=True)


def test_every_cell_has_a_name_of_its_own_and_every_candidate_a_square_of_it():
    names = [cell.name for cell in cells()]
    assert len(names) == len(set(names))
    for cell in cells():
        for candidate in cell.candidates:
            if cell.subject in SHAPES and candidate != 'copy':
                assert candidate_square(candidate) in cell.candidates


@pytest.mark.parametrize(('low', 'high', 'limit', 'expected'), [
    (1.2, 1.4, 1.1, 'holds'), (1.0, 1.05, 1.1, 'does not hold'), (1.05, 1.2, 1.1, 'open'),
    (0.75, 0.83, 1.1, REVERSED), (0.85, 0.95, 1.1, 'does not hold'),    # 1 / 1.1 is 0.91
    (0.02, 0.05, 0.1, 'does not hold')])                                # a share has no reverse
def test_a_ratio_that_is_as_far_on_the_other_side_is_called_the_reverse(low, high, limit, expected):
    assert verdict(Estimate((low + high) / 2, low, high, 5), limit) == expected
    assert REVERSED == CLAIMED_REVERSED


def test_predictions_are_counted_by_the_intervals_that_hold_them(monkeypatch):
    def row(predicted, of_depthwise, low, high):
        return BreakEven('x', 1, 1, predicted, 1, of_depthwise, Estimate((low + high) / 2, low, high, 5), [3, 5])

    monkeypatch.setattr(blocks_module, 'break_evens', lambda result: [row(7, 5, 5.5, 6.5), row(7, 5, 4, 5.4),
                                                                      row(7, 6, 6.9, 7.5)])
    assert break_even_words(None) == (
        'The prediction from the product is within 1 of 3 intervals, that from the rate of n×n within 1; 1 of the '
        'measured sizes are between the two.')
    assert said('x', dict(a=Estimate(1, .5, 2, 5), b=None)) == '- x: a 1.00 (0.50–2.00)'
    assert said('x', dict(a=None)) == ''
