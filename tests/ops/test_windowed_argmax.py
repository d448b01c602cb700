"""Class indices from windows' low-resolution logits, against interpolation, placing and averaging one after another."""
import pytest
import torch
from windowed_argmax_checks import GRIDS, STEPS, draw, side_by_side, stock, taps

from inceptionnext_seg import measuring
from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import _triton, dispatch, measured
from inceptionnext_seg.ops import windowed_argmax as module
from inceptionnext_seg.ops.dispatch import FormError
from inceptionnext_seg.ops.windowed_argmax import windowed_argmax


@pytest.fixture(params=['native', 'blocked', 'torch'])
def impl(request):
    if request.param == 'native' and native.why_not('windowed_argmax'):
        pytest.skip('no C++ compiler')
    return request.param


@pytest.mark.logits_match
@pytest.mark.parametrize('steps', STEPS)
@pytest.mark.parametrize('grid', GRIDS)
def test_class_indices_are_those_of_the_mean_of_the_windows(grid, steps, impl):
    for align_corners in (False, True):
        logits = draw(grid)
        found = windowed_argmax(side_by_side(logits), *taps(grid, align_corners, **steps), impl=impl)
        assert found.dtype == torch.int64
        assert torch.equal(found, stock(grid, logits, align_corners, **steps).argmax(1))


def test_probabilities_of_several_versions_are_summed(impl):
    """Of other windows, another resolution, and flipped."""
    sums = torch.zeros(2, 31, 17, 19, dtype=torch.float64)
    expected = 0
    for grid, flip in zip(GRIDS, (None, 'horizontal', 'vertical', None), strict=True):
        logits = 3 * draw(grid)
        steps = dict(flip=flip, ori_shape=(31, 17))
        found = windowed_argmax(side_by_side(logits), *taps(grid, **steps), sums, impl=impl)
        expected = expected + stock(grid, logits, **steps).softmax(1)
        torch.testing.assert_close(sums.permute(0, 3, 1, 2), expected, rtol=1e-12, atol=1e-12)
        assert torch.equal(found, expected.argmax(1))


def test_sums_are_added_to_once_while_forms_are_timed():
    logits, tables = side_by_side(draw(GRIDS[0])), taps(GRIDS[0])
    sums = torch.zeros(2, 9, 14, 19, dtype=torch.float64)
    with measuring():
        windowed_argmax(logits, *tables, sums)
    torch.testing.assert_close(sums.sum(-1), torch.ones(2, 9, 14, dtype=torch.float64))


@pytest.mark.parametrize('summed', [False, True])
def test_on_cuda_the_forms_are_timed_stocks_too_unless_probabilities_are_summed(summed, monkeypatch, tmp_path):
    timed = []
    monkeypatch.setenv('INCEPTIONNEXT_SEG_MEASURE', '1')
    monkeypatch.setattr(native, 'cache_folder', lambda: tmp_path)
    monkeypatch.setattr(measured, 'TABLE', measured.Table())
    monkeypatch.setattr(measured, 'time_forms', lambda forms, args, device: (
        timed.append(set(forms)) or dict.fromkeys(forms, 1.)))
    monkeypatch.setattr(module, 'is_on_cuda', lambda *args: True)
    logits, tables = side_by_side(draw(GRIDS[0])), taps(GRIDS[0])
    with measuring():
        windowed_argmax(logits, *tables, torch.zeros(2, 9, 14, 19, dtype=torch.float64) if summed else None)
    assert not timed if summed else timed[0] >= {'blocked', 'torch'}


@pytest.mark.slow
@pytest.mark.parametrize('summed', [False, True])
def test_the_triton_kernel_compiles_without_spills_in_few_registers_for_gpus_that_are_not_here(summed, monkeypatch):
    pytest.importorskip('triton', reason='triton is not installed')
    from triton_ahead import compile_ahead
    monkeypatch.setattr(dispatch, 'is_hollow', lambda x: False)
    monkeypatch.setattr(_triton, 'why_not', lambda device: None)
    grid = ([0, 341], [0, 341]), (512, 512), (128, 128), (512, 512)
    logits = torch.empty(1, 256, 256, 150, device='meta')
    sums = torch.empty(1, 853, 853, 150, device='meta') if summed else None
    with _triton.recording() as launches:
        windowed_argmax(logits, *taps(grid, dtype=torch.float32), sums, impl='triton')
    report = compile_ahead(launches[0], 90 if summed else 80)
    assert len(launches) == 1 and report.spills == 0 and report.registers <= 128, report
    assert report.barriers == 0 and report.loads[64] >= 2, report


def test_in_float32_few_pixels_differ_and_those_are_ties(impl):
    grid, steps = GRIDS[1], dict(ori_shape=(64, 61))
    logits = draw(grid, classes=150, dtype=torch.float32)
    found = windowed_argmax(side_by_side(logits), *taps(grid, dtype=torch.float32, **steps), impl=impl)
    full = stock(grid, logits.double(), **steps)
    best = full.amax(1)
    chosen = full.gather(1, found[:, None])[:, 0]
    assert (best - chosen).max() < 1e-6
    sums = torch.zeros(2, 64, 61, 150)
    windowed_argmax(side_by_side(logits), *taps(grid, dtype=torch.float32, **steps), sums, impl=impl)
    torch.testing.assert_close(sums.permute(0, 3, 1, 2).double(), full.softmax(1), rtol=1e-5, atol=1e-8)


def test_of_equal_logits_the_first_class_is_the_prediction(impl):
    grid = GRIDS[1]
    logits = torch.zeros(3, 2, 1, 5, 3, 4)
    logits[:, :, :, 2] = logits[:, :, :, 4] = 1
    assert (windowed_argmax(side_by_side(logits), *taps(grid, dtype=torch.float32), impl=impl) == 2).all()


@pytest.mark.parametrize('classes', [2, 16, 33])
def test_rows_in_blocks_and_threads_change_nothing(classes, impl, monkeypatch):
    logits = side_by_side(draw(GRIDS[1], classes=classes))
    tables = taps(GRIDS[1], ori_shape=(20, 21))
    expected = windowed_argmax(logits, *tables, impl=impl)
    monkeypatch.setattr(module, 'BLOCK_BYTES', 3 * 2 * 8 * 2 * 21 * classes)
    try:
        torch.set_num_threads(2)
        assert torch.equal(windowed_argmax(logits, *tables, impl=impl), expected)
    finally:
        torch.set_num_threads(1)


def test_a_table_has_one_tap_for_each_input_and_as_few_as_it_can():
    y_taps, x_taps = taps(GRIDS[0], ori_shape=(3, 5))
    assert y_taps.index.shape[1] <= 3 and x_taps.index.shape[1] <= 3     # of four, for two steps of two
    for table in taps(GRIDS[1], ori_shape=(40, 40)):
        torch.testing.assert_close(table.weight.sum(1), torch.ones(40, dtype=torch.float64))
        for index, weight in zip(*table, strict=True):
            assert len(index[weight != 0].unique()) == (weight != 0).sum()


def test_what_does_not_fit_is_told():
    logits = side_by_side(draw(GRIDS[0]))
    y_taps, x_taps = taps(GRIDS[0])
    with pytest.raises(ValueError, match=r'y_taps .* 0 to 4.*3'):
        windowed_argmax(logits, x_taps, y_taps)
    with pytest.raises(ValueError, match=r'\(2, 9, 14, 7\).*\(2, 9, 14, 19\)'):
        windowed_argmax(logits, y_taps, x_taps, torch.zeros(2, 9, 14, 7, dtype=torch.float64))
    with pytest.raises(FormError, match=r'native.*float16'):
        windowed_argmax(logits.half(), y_taps, x_taps, impl='native')
    with pytest.raises(FormError, match=r'triton.*float64'):
        windowed_argmax(logits, y_taps, x_taps, impl='triton')
