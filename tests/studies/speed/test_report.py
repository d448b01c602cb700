"""Figures of tables, from records worked by hand."""
import json

import pytest
from PIL import Image

from studies.published.files import REPORTS, stale_pictures, write_report
from studies.speed import report as reporting
from studies.speed.cells import BACKBONE_GMACS, LAYOUTS, cells
from studies.speed.goals import goals_table, verdict
from studies.speed.pictures import in_times_of_stock
from studies.speed.statistics import Estimate
from studies.speed.summary import Result

SPEED = REPORTS['*/speed.json']
FP32, BF16 = ('train fp32 2×512×512', 'train bf16 2×512×512')


def record(cell, candidate, layout, process, *seconds, waited=0.0):
    return dict(cell=cell, process=process, candidate=candidate, layout=layout, seconds=list(seconds),
                first=seconds[0], waited=[waited] * len(seconds), others=0.01, busy_before=0.0, load_average=0.5, run=0,
                date='2026-01-02T03:04:05')


def content(*records):
    return dict(environment=dict(cpu='Some CPU', features=['amx_bf16'], cpu_cores=2, versions=dict(torch='2.14')),
                runs=[dict(commit='abc1234', command='python x')], records=list(records), memory=[])


def test_the_faster_layout_is_that_of_the_processes_which_measured_both():
    result = Result(content(
        record(FP32, 'stock', 'nchw', 0, 10.0), record(FP32, 'stock', 'nchw', 1, 10.0),
        record(FP32, 'stock', 'nhwc', 0, 8.0), record(FP32, 'stock', 'nhwc', 1, 8.0),
        record(FP32, 'stock', 'nhwc', 2, 30.0), record(FP32, 'stock', 'nhwc', 3, 30.0),
        record(FP32, 'stock', 'nhwc', 4, 30.0)))
    layout, seconds = result.best(FP32, 'stock')
    assert layout == 'nhwc' and seconds == {0: [8.0], 1: [8.0], 2: [30.0], 3: [30.0], 4: [30.0]}
    assert result.images_per_second(FP32, 'stock').value == pytest.approx(2 / 30)


def test_a_ratio_at_stocks_faster_dtype_is_of_the_same_work():
    result = Result(content(
        record(FP32, 'stock', 'nchw', 0, 6.0), record(BF16, 'stock', 'nhwc', 0, 9.0),
        record(BF16, 'inceptionnext', 'nhwc', 0, 3.0)))
    assert result.best_dtype_cell(BF16) == result.best_dtype_cell(FP32) == FP32
    assert result.speedup(BF16, 'inceptionnext').value == 3.0
    assert result.speedup(BF16, 'inceptionnext', baseline_cell=FP32).value == 2.0
    assert result.speedup(FP32, 'inceptionnext') is None


def test_rounds_in_which_threads_waited_for_a_core_are_not_used_and_are_counted():
    result = Result(content(
        record(FP32, 'stock', 'nchw', 0, 6.0, 6.0), record(FP32, 'stock', 'nchw', 1, 9.0, waited=2.0)))
    assert result.seconds[FP32, 'stock', 'nchw'] == {0: [6.0, 6.0]}
    assert (result.rounds, result.excluded) == (2, 1)


def test_a_result_of_a_single_candidate_has_a_report(tmp_path):
    write_report(content(record(FP32, 'stock', 'nchw', 0, 8.0)), tmp_path / 'speed.json', SPEED)
    text = (tmp_path / 'speed.md').read_text()
    assert '| MMSegmentation ConvNeXt-T (stock) | NCHW; NHWC has no round that counts | 0.25 | 1 |' in text
    assert 'Some CPU (amx_bf16), 2 threads' in text


def test_parts_growth_and_one_thread_have_tables_and_pictures_of_their_own(tmp_path):
    seconds = {'stock': 8.0, 'inceptionnext-plain': 8.0, 'convnext': 4.0, 'inceptionnext': 2.0}
    records = [record(cell.name, name, layout, process, *[seconds.get(name, 5.0) * cell.batch_size / cell.threads] * 2)
               for cell in cells() if cell.suite != 'backbone' for name in cell.candidates
               for layout in cell.layouts_of(name)[:1] for process in range(2)]
    write_report(content(*records), tmp_path / 'speed.json', SPEED)
    text = (tmp_path / 'speed.md').read_text()
    assert '| training step: fused AdamW | 1.60 (1.60–1.60) | 2.50 (2.50–2.50) |' in text     # 8 / 5 and 5 / 2
    assert '| training step: all | 4.00 (4.00–4.00) | – |' in text
    assert '| inference, fp32, 1 × 768×768 | 0.25 (0.25–0.25) | 0.5 (0.5–0.5) | 1 (1–1) | 4.00 (4.00–4.00) |' in text
    assert '| inference, fp32, 1 × 512×512 | 4.00 (4.00–4.00) | 4.00 (4.00–4.00) | 2.00 (2.00–2.00) |' in text
    compiled = '| inference, fp32, 1 × 512×512 | 0.25 (0.25–0.25) | 0.4 (0.4–0.4) | 1 (1–1) | 0.4 (0.4–0.4) |'
    assert f'{compiled} 1.60 (1.60–1.60) | 0.40 (0.40–0.40) |' in text      # 8 / 5 and 2 / 5
    assert 'parts 2, growth 2, one thread 2, torch.compile 2' in text
    for kind in ('users', 'growth', 'parts'):
        with Image.open(tmp_path / f'speed_{kind}.png') as image:
            assert image.width == 800
        assert (tmp_path / f'speed_{kind}.png').stat().st_size < 200_000
    assert stale_pictures(content(*records), tmp_path / 'speed.json', SPEED)[0] == {}, 'drawn once'


def test_a_goal_is_of_cells_that_are_measured():
    empty = Result(content())
    assert all(found is None for _, _, found in reporting.goals(empty))
    assert goals_table(reporting.goals(empty)).count('| not measured |') == len(reporting.goals(empty))
    assert {cell.suite for cell in cells()} == {'main', 'backbone', 'small', 'parts', 'growth', 'threads', 'compile'}


@pytest.mark.parametrize('value, low, high, said', [
    (4.0, 3.6, 4.2, 'reached'), (3.6, 3.4, 4.2, 'reached, the interval covers the goal'),
    (3.4, 3.3, 3.5, 'missed, the interval covers the goal'), (3.0, 2.9, 3.4, 'missed'),
    (3.0, None, None, 'missed, by one process')])
def test_what_is_said_of_a_goal_says_whether_the_interval_bears_it_out(value, low, high, said):
    assert verdict(3.5, Estimate(value, low, high, 1 if low is None else 5)) == said


def test_a_goal_of_bf16_is_over_the_same_network_in_fp32():
    *_, training, inference, deployed = reporting.goals(Result(content(
        record(FP32, 'inceptionnext', 'nchw', 0, 8.0), record(FP32, 'stock', 'nchw', 0, 99.0),
        record(BF16, 'inceptionnext', 'nhwc', 0, 4.0), record('infer fp32 1×512×512', 'inceptionnext', 'nhwc', 0, 3.0),
        record('infer bf16 1×512×512', 'inceptionnext', 'nhwc', 0, 2.0))))
    assert 'over itself in fp32, training' in training[0] and (training[1], training[2].value) == (1.6, 2.0)
    assert (inference[1], inference[2].value, deployed[2]) == (1.6, 1.5, None)


def test_two_processes_with_a_round_each_have_no_interval_and_it_is_said():
    result = Result(content(*[record('parts train fp32 2×256×256', name, 'nhwc', process, seconds + process)
                              for name, seconds in (('inceptionnext-plain', 8.0), ('only fused AdamW', 5.0))
                              for process in range(2)]))
    assert '| training step: fused AdamW | 1.55 | – |' in reporting.parts_table(result)     # 8 / 5 and 9 / 6
    assert reporting.processes_text(result).count('or of two with one round each.') == 1
    assert verdict(1.5, Estimate(1.55, None, None, 2)) == 'reached, by two values'


def test_the_rate_of_products_stands_beside_that_of_the_backbones(tmp_path):
    cell, path = 'backbone train fp32 2×512×512', tmp_path / 'speed.json'
    result = Result(content(record(FP32, 'convnext', 'nhwc', 0, 4.0), *[
        record(cell, name, 'nhwc', 0, 6 * BACKBONE_GMACS[name] / 80) for name in ('convnext', 'inceptionnext')]))
    assert '(80) | – |' in reporting.limits_table(result, path)
    limits = dict(dtype='fp32', threads=2, macs_per_second=126e9, bytes_per_second=1, cache_bytes_per_second=1)
    (tmp_path / 'operators.json').write_text(json.dumps(dict(groups=[], limits=[limits])))
    assert '(80) | 126 |' in reporting.limits_table(result, path)


def both(cell, candidate, *seconds):
    """Records of a candidate in both layouts, by process."""
    return [record(cell, candidate, layout, process, value) for process, value in enumerate(seconds)
            for layout in LAYOUTS]


def test_a_bar_is_longer_than_stocks_where_the_table_says_faster_though_the_process_was_a_slow_one():
    # Hugging Face's is measured in the slow process alone, and 1.2 times as fast as stock there.
    result = Result(content(*both(FP32, 'stock', 12.0, 12.0, 12.0), *both(BF16, 'stock', 9.0, 6.0, 6.0),
                            *both(BF16, 'hf-convnext', 7.5)))
    _, times = in_times_of_stock(result, 'train')
    assert times['stock', 'fp32'] == (1, 1, 1, 3) and times['stock', 'bf16'].value == 2
    assert result.speedup(BF16, 'hf-convnext').value == 1.2
    assert times['hf-convnext', 'bf16'] == (pytest.approx(2.4), None, None, 1)
    assert result.images_per_second(BF16, 'hf-convnext').value < result.images_per_second(BF16, 'stock').value


def test_a_candidate_of_which_one_layout_alone_counts_has_no_bar_and_the_sentence_names_it():
    waits = record(FP32, 'smp-convnext', 'nhwc', 0, 6.0, waited=3.0)
    records = [*both(FP32, 'stock', 12.0), record(FP32, 'smp-convnext', 'nchw', 0, 6.0)]
    result = Result(content(*records, waits))
    assert ('smp-convnext', 'fp32') not in in_times_of_stock(result, 'train')[1]
    assert result.lacking(FP32, 'smp-convnext') == ['nhwc'] and result.lacking(FP32, 'stock') == []
    said = reporting.layouts_text(result, 'main', ('stock', 'smp-convnext'))
    assert 'but for smp ConvNeXt-T in training step, fp32, 2 × 512×512 (NHWC' in said
    whole = Result(content(*records, dict(waits, waited=[0.0])))
    assert ('smp-convnext', 'fp32') in in_times_of_stock(whole, 'train')[1]
    assert reporting.layouts_text(whole, 'main', ('stock', 'smp-convnext')).endswith('of both memory layouts.')


def test_comparisons_from_before_candidates_took_turns_are_named_where_they_are_shown():
    made = content(record(FP32, 'stock', 'nchw', 0, 8.0), dict(record(BF16, 'stock', 'nchw', 0, 8.0), run=1))
    made['runs'].append(dict(made['runs'][0], order='rounds in turn'))
    said = reporting.turns_text(Result(made), 'main')
    assert 'training step, fp32' in said and 'bf16' not in said
    assert reporting.turns_text(Result(made), 'parts') == ''


def test_what_acceleration_brings_either_backbone_is_said_beside_the_mixers():
    cell = 'backbone train bf16 2×512×512'
    seconds = {'convnext-plain': 6.0, 'inceptionnext-plain': 4.0, 'convnext': 5.0, 'inceptionnext': 2.0}
    result = Result(content(*[made for name, value in seconds.items() for made in both(cell, name, value)]))
    assert ("InceptionNeXt-T's backbone 2.00 times as fast, and ConvNeXt-T's 1.20; InceptionNeXt-T's over ConvNeXt-T's "
            'is 1.50 plain, and 2.50 accelerated.') in reporting.mixers_table(result)
    assert reporting.mixers_words(Result(content())) == ''


def test_the_base_of_the_parts_stands_beside_plain_in_its_faster_layout():
    parts, main = 'parts infer fp32 1×512×512', 'infer fp32 1×512×512'
    result = Result(content(
        record(parts, 'inceptionnext-plain', 'nhwc', 0, 6.0), record(parts, 'inceptionnext', 'nhwc', 0, 2.0),
        record(main, 'inceptionnext-plain', 'nhwc', 0, 6.0), record(main, 'inceptionnext-plain', 'nchw', 0, 5.0),
        record(main, 'inceptionnext', 'nhwc', 0, 2.0)))
    said = reporting.parts_words(result)
    assert '5.00 s in NCHW and 6.00 s in NHWC' in said and said.endswith('are 2.50 times as fast as the faster of '
                                                                         'these; as NHWC here, 3.00.')
    assert reporting.parts_words(Result(content())) == ''


def test_it_is_said_beside_the_tables_that_few_processes_have_ranges():
    said = reporting.processes_text(Result(content(record(FP32, 'stock', 'nchw', 0, 8.0))))
    assert '50 % for two, 75 % for three, 88 % for four and 94 % for five' in said


def test_two_processes_of_one_number_are_not_paired_and_the_candidates_are_named():
    """A later stage, or another run, counts from 0 again."""
    later = [dict(record(FP32, 'hf-convnext', layout, process, 9.0, 9.0), load_average=1.5)
             for layout in LAYOUTS for process in range(2)]
    stock = [record(FP32, 'stock', layout, process, seconds, seconds)
             for layout in LAYOUTS for process, seconds in enumerate((12.0, 9.0, 9.0))]
    beside = [record(FP32, 'convnext', layout, process, seconds, seconds)
              for layout in LAYOUTS for process, seconds in enumerate((4.0, 3.0, 3.0))]
    result = Result(content(*stock, *beside, *later))
    # Stock's slow process 0 was never that of hf-convnext, so that 12 / 9 is of nothing.
    assert result.speedup(FP32, 'hf-convnext').value == 1.0
    assert (result.side_by_side(FP32, 'hf-convnext'), result.side_by_side(FP32, 'convnext')) == (False, True)
    assert result.speedup(FP32, 'convnext')[:3] == (3.0, 3.0, 3.0)
    assert result.side_by_side(FP32, 'smp-convnext') is None
    said = reporting.apart_text(result)
    assert 'Hugging Face ConvNeXt-T' in said and 'our ConvNeXt-T' not in said
    assert reporting.apart_text(Result(content(*stock, *beside))) == ''


def test_all_parts_over_plain_in_other_processes_are_said_to_be():
    parts, main = 'parts infer fp32 1×512×512', 'infer fp32 1×512×512'
    result = Result(content(
        record(parts, 'inceptionnext-plain', 'nhwc', 0, 6.0), record(parts, 'inceptionnext', 'nhwc', 0, 2.0),
        *[dict(record(main, 'inceptionnext-plain', layout, 0, 5.0), load_average=1.5) for layout in LAYOUTS],
        record(main, 'inceptionnext', 'nhwc', 0, 2.0)))
    assert 'the faster of these, by medians of processes that measured one or the other; as' in reporting.parts_words(
        result)


def test_figures_without_brackets_are_not_said_to_be_of_one_process():
    names = 'stock', 'smp-inceptionnext'
    result = Result(content(*both(FP32, 'stock', *[12.0] * 5), *both(FP32, 'smp-inceptionnext', *[12.0] * 4),
                            *both(FP32, 'hf-convnext', 12.0)))
    said = reporting.processes_in_short(result, 'main', names)
    assert said.startswith('Figures are medians of 5 processes, smp InceptionNeXt-T of 4. Brackets are of ratios')
    assert reporting.processes_in_short(result, 'main', ('stock', )).startswith('Figures are medians of 5 processes. ')
