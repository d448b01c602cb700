"""Measuring with a clock and a device that only the test moves; nothing here depends on how long anything takes."""
import itertools
import json
import math
import platform
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from inceptionnext_seg import files as result_files
from inceptionnext_seg import provenance as environment
from studies import timing as measure
from studies.timing import InputPool, Interval, interleave


class FakeDevice:
    """A device that works when it is waited for, and the clock that sees it work."""

    def __init__(self):
        self.now = 0.0
        self.queued = 0.0
        self.log = []

    def clock(self):
        return self.now

    def synchronize(self, device=None):
        self.log.append('synchronize')
        self.now += self.queued
        self.queued = 0.0

    def candidate(self, name, seconds):
        """A call that asks for ``seconds`` of work: a number, or an iterator of them."""
        def call():
            self.log.append(name)
            self.queued += seconds if isinstance(seconds, float) else next(seconds)
        return call

    def interleave(self, candidates, **options):
        return interleave({name: self.candidate(name, seconds) for name, seconds in candidates.items()},
                          clock=self.clock, synchronize=self.synchronize, **options)


@pytest.fixture
def fake():
    return FakeDevice()


def test_a_sample_is_the_time_of_one_call_with_the_device_waited_for(fake):
    samples = fake.interleave(dict(slow=0.004, fast=0.002))
    assert samples['slow'].seconds == pytest.approx([0.004] * 20)
    assert samples['fast'].seconds == pytest.approx([0.002] * 20)
    assert all(s.settled and s.warmup_rounds == 3 for s in samples.values())


def test_a_short_call_is_repeated_until_the_sample_is_long_enough(fake):
    samples = fake.interleave(dict(short=1e-6, long=1.0), min_sample=1e-3)
    assert samples['short'].repeats >= 1000
    assert samples['long'].repeats == 1
    assert samples['short'].seconds == pytest.approx([1e-6] * 20)


def test_a_sample_lasts_a_thousand_steps_of_a_coarse_clock(fake):
    def coarse():
        fake.now += 1e-4
        return fake.now

    sample = interleave(dict(a=fake.candidate('a', 0.01)), clock=coarse, synchronize=fake.synchronize)['a']
    assert measure.clock_resolution(coarse) == pytest.approx(1e-4)
    assert sample.repeats * 0.01 >= 0.1 - 1e-3


def test_each_round_has_every_candidate_once_and_the_order_changes(fake):
    fake.interleave(dict(a=0.01, b=0.01, c=0.01), rounds=8, warmup=0)
    calls = [name for name in fake.log if name != 'synchronize'][-24:]
    rounds = [tuple(calls[i:i + 3]) for i in range(0, 24, 3)]
    assert all(sorted(order) == ['a', 'b', 'c'] for order in rounds)
    assert len(set(rounds)) > 2


def test_the_device_is_waited_for_before_each_reading_of_the_clock(fake):
    fake.interleave(dict(a=0.01), rounds=8, warmup=0)
    assert fake.log[-3 * 8:] == ['synchronize', 'a', 'synchronize'] * 8


def test_warmup_rounds_are_not_among_the_samples(fake):
    slow_start = itertools.chain([9.0] * 5, itertools.repeat(0.01))     # 2 to find the repeats, 3 rounds
    assert fake.interleave(dict(a=slow_start))['a'].seconds == pytest.approx([0.01] * 20)


def test_a_warmup_that_was_too_short_is_extended_for_everybody(fake):
    slow_start = itertools.chain([1.0] * 14, itertools.repeat(0.01))
    samples = fake.interleave(dict(slow_start=slow_start, steady=0.01))
    assert samples['slow_start'].settled
    assert samples['slow_start'].seconds == pytest.approx([0.01] * 20)
    assert samples['steady'].warmup_rounds == samples['slow_start'].warmup_rounds == 13
    assert len(samples['steady'].seconds) == 20


def test_what_never_settles_is_marked(fake):
    ever_slower = (0.01 * 1.1**i for i in itertools.count())
    samples = fake.interleave(dict(ever_slower=ever_slower, steady=0.01))
    assert not samples['ever_slower'].settled
    assert samples['steady'].settled
    assert samples['ever_slower'].warmup_rounds == 3 + 2 * 10


def test_too_few_rounds_are_refused(fake):
    with pytest.raises(ValueError, match='7; expected at least 8'):
        fake.interleave(dict(a=0.01), rounds=7)


def test_progress_is_told_of_every_round(fake):
    rounds = []
    fake.interleave(dict(a=0.01), rounds=8, warmup=3, progress=lambda: rounds.append(1))
    assert len(rounds) == 11


def test_halves_disagree_on_a_shift_and_agree_on_noise():
    noise = np.random.default_rng(0).normal(1, 0.1, 40)
    assert measure.halves_agree(list(noise))
    assert not measure.halves_agree([*noise[:20], *noise[20:] * 1.5])
    assert measure.halves_agree([1.0] * 10 + [1.04] * 10), 'a shift of less than the tolerance'


def test_the_interval_of_a_median_is_that_of_its_order_statistics():
    # Exact, from the binomial distribution of how many values lie below the median: ranks 51 ± 1.96 · √101 / 2.
    interval = measure.median_interval(list(range(1, 102)))
    assert interval.median == 51
    assert interval.low == pytest.approx(41, abs=2)
    assert interval.high == pytest.approx(61, abs=2)


def test_one_value_has_no_interval():
    with pytest.raises(ValueError, match='at least 2'):
        measure.median_interval([1.0])


def test_a_ratio_is_paired_so_a_disturbance_that_meets_both_cancels():
    disturbed = [1.0, 5.0, 1.0, 3.0, 1.0, 1.0, 7.0, 1.0]
    assert measure.ratio([2 * t for t in disturbed], disturbed) == Interval(2.0, 2.0, 2.0)
    samples = measure.Samples(disturbed)
    assert measure.ratio(samples, samples) == Interval(1.0, 1.0, 1.0)


def test_a_ratio_of_different_numbers_of_rounds_is_refused():
    with pytest.raises(ValueError):
        measure.ratio([1.0, 2.0, 3.0], [1.0, 2.0])


def test_a_ratio_whose_interval_covers_one_shows_no_difference():
    assert measure.describe_ratio(Interval(1.52, 1.48, 1.6)) == '1.52 (1.48–1.60)'
    assert measure.describe_ratio(Interval(1.01, 0.98, 1.03)) == '1.01 (0.98–1.03), no difference shown'


# The machine


def test_an_accelerator_is_synchronized_and_a_cpu_need_not_be(fake):
    measure.synchronize('cpu', fake)
    assert fake.log == []
    measure.synchronize('cuda:0', fake)
    assert fake.log == ['synchronize']


def test_the_last_level_cache_of_cuda_is_its_l2():
    backend = SimpleNamespace(get_device_properties=lambda device: SimpleNamespace(L2_cache_size=50 * 2**20))
    assert measure.last_level_cache('cuda', backend) == 50 * 2**20
    assert measure.last_level_cache('cpu') >= 2**20


@pytest.mark.parametrize('layout', ['nchw', 'nhwc'])
def test_cold_inputs_fill_the_block_share_no_memory_and_come_round_again(layout):
    memory_format = measure.MEMORY_FORMATS[layout]
    pool = InputPool(torch.float32, 'cpu', nbytes=10 * 2 * 3 * 4 * 5 * 4)
    rotation = pool.rotation((2, 3, 4, 5), memory_format)
    tensors = [next(rotation) for _ in range(10)]
    assert all(x.shape == (2, 3, 4, 5) and x.is_contiguous(memory_format=memory_format) for x in tensors)
    starts = sorted(x.data_ptr() for x in tensors)
    assert all(b - a == tensors[0].nbytes for a, b in itertools.pairwise(starts))
    assert next(rotation) is tensors[0]


def test_a_hot_input_is_always_the_same():
    rotation = InputPool(torch.bfloat16, 'cpu', nbytes=2**12).rotation((1, 2, 4, 4), hot=True)
    assert next(rotation) is next(rotation)


def test_a_block_too_small_for_two_tensors_grows():
    rotation = InputPool(torch.float32, 'cpu', nbytes=64).rotation((1, 2, 4, 4), requires_grad=True)
    first, second = next(rotation), next(rotation)
    assert first.data_ptr() != second.data_ptr()
    assert first.requires_grad and first.is_leaf


def test_limits_are_work_over_the_fastest_sample_of_a_device(fake):
    # The device 'meta' computes nothing; the fake one takes 2 s whenever it is waited for.
    def work(device=None):
        fake.now += 2.0

    peaks = measure.machine_peaks('meta', torch.float32, cache_bytes=2**26, rounds=8, clock=fake.clock,
                                  backend=SimpleNamespace(synchronize=work))
    assert peaks['macs_per_second'] == 8192**3 / 2
    assert peaks['bytes_per_second'] == 2 * 2**24 / 2
    assert peaks['cache_bytes_per_second'] == 2 * 2**21 / 2
    assert peaks['copy_working_set'] == 2 * 2**26


def test_limits_of_this_machine_are_numbers_and_keep_their_samples():
    peaks = measure.machine_peaks('cpu', torch.float32, matrix_size=16, cache_bytes=2**12, rounds=8, min_sample=1e-5)
    assert all(peaks[key] > 0 for key in ('macs_per_second', 'bytes_per_second', 'cache_bytes_per_second'))
    assert peaks['macs_per_second'] == pytest.approx(16**3 / min(peaks['seconds']['product']))


def test_products_on_cuda_use_tf32_where_convolutions_do_and_only_meanwhile():
    before = torch.get_float32_matmul_precision()
    with measure.convolution_precision('cuda'):
        expected = 'high' if torch.backends.cudnn.allow_tf32 else 'highest'
        assert torch.get_float32_matmul_precision() == expected
    assert torch.get_float32_matmul_precision() == before
    with measure.convolution_precision('cpu'):
        assert torch.get_float32_matmul_precision() == before


# Result files


def test_the_command_keeps_no_path_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [str(tmp_path / 'tools' / 'accelerate_others.py'), '--out', '/elsewhere/of/mine/out.json',
            f'--report={tmp_path}/a/b.json', '--size', '7']
    assert environment.relative_command(argv) == (
        'python tools/accelerate_others.py --out out.json --report=a/b.json --size 7')


def test_a_file_of_a_package_is_named_as_the_module_that_was_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('studies', 'studies/speed'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').touch()
    assert environment.relative_command([str(tmp_path / 'studies/stream.py'), '--out', 'a.json']) == (
        'python -m studies.stream --out a.json')
    assert environment.relative_command([str(tmp_path / 'studies/speed/__main__.py')]) == 'python -m studies.speed'


def test_the_environment_tells_what_decides_a_time_and_not_where(root, monkeypatch):
    monkeypatch.setenv('MALLOC_TRIM_THRESHOLD_', '1000')
    described = environment.environment('cpu')
    assert {'command', 'date', 'versions', 'device', 'device_name', 'cpu', 'threads', 'platform',
            'load_average', 'cpu_capability'} <= set(described)
    assert torch.__version__.startswith(described['versions']['torch'])
    assert described['variables']['MALLOC_TRIM_THRESHOLD_'] == '1000'
    assert described['threads'] == torch.get_num_threads()
    text = json.dumps(described)
    assert str(root) not in text
    assert not platform.node() or platform.node() not in text


def test_a_result_file_reads_back_and_keeps_raw_samples_on_one_line(tmp_path):
    result = dict(name='n×1', seconds=[0.25, 1e-05, 3], nested=[dict(a=[], b=[1, 2])], words=['a', 'b'])
    path = tmp_path / 'new folder' / 'result.json'
    result_files.write_json(path, result)
    text = path.read_text(encoding='utf-8')
    assert json.loads(text) == result
    assert '[0.25, 1e-05, 3]' in text


def test_a_result_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'result.json'
    result_files.write_json(path, dict(good=1))
    with pytest.raises(ValueError):
        result_files.write_json(path, dict(bad=math.nan))
    with pytest.raises(RuntimeError), result_files.replacing(path) as temporary:
        temporary.write_text('half of')
        raise RuntimeError
    assert json.loads(path.read_text()) == dict(good=1)
    assert [file.name for file in tmp_path.iterdir()] == ['result.json']


def test_a_temporary_name_keeps_the_suffix_which_tells_matplotlib_the_format(tmp_path):
    with result_files.replacing(tmp_path / 'figure.png') as temporary:
        assert temporary.suffix == '.png'
        assert temporary.parent == tmp_path
        temporary.write_bytes(b'')


def test_columns_of_numbers_stand_to_the_right():
    assert result_files.markdown_table(['what', 'how much'], [['a', 1.5], ['b', '–']]).splitlines() == [
        '| what | how much |', '| :-- | --: |', '| a | 1.5 |', '| b | – |']
