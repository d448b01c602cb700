import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.provenance import environment
from studies import throughput as benchmark
from studies import throughput_report
from studies.throughput import Setting, Step, StepClock, count_products, limit_seconds
from studies.throughput_report import report, write_report

ROOT = Path(__file__).parents[2]
INCEPTIONNEXT = str(ROOT / 'configs/upernet_inceptionnext_a_mini.py')
CONVNEXT = str(ROOT / 'configs/upernet_convnext_a_mini.py')
SMALL = {'model.decode_head.channels': 16, 'model.auxiliary_head.channels': 8, 'model.channels_last': False}
TINY = Setting(batch_size=2, size=64)


def small(name=INCEPTIONNEXT):
    return benchmark.candidate_config(name, SMALL)


class TickingClock:
    """A clock that moves a fixed time at each reading, and notes whether the device was waited for before."""

    def __init__(self, step=1.0, fine=False):
        self.now, self.step, self.fine, self.synchronized, self.readings = 0., step, fine, False, []

    def synchronize(self, *_):
        self.synchronized = True

    def __call__(self):
        self.readings.append(self.synchronized)
        self.synchronized = False
        # The first thousand readings find the clock's resolution, of which a sample must last a thousand.
        self.now += self.step if len(self.readings) > 1000 or not self.fine else 1e-9
        return self.now


@pytest.fixture(scope='module', autouse=True)
def small_cache():
    """The pool of cold images is twice the last-level cache, which can be hundreds of megabytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('studies.timing.last_level_cache', lambda device: 2**20)
        yield


@pytest.fixture(scope='module')
def result():
    run = benchmark.run([INCEPTIONNEXT, CONVNEXT], TINY, ('nchw', 'nhwc'), SMALL, rounds=8, warmup=1, memory=False)
    return dict(environment=environment('cpu'), runs=[run])


def test_a_training_step_changes_every_trainable_parameter_and_an_inference_step_none():
    for mode in ('train', 'infer'):
        step = Step(small(), Setting(mode=mode, batch_size=2, size=64), 'nchw')
        before = {name: p.detach().clone() for name, p in step.model.named_parameters()}
        step()
        same = [name for name, p in step.model.named_parameters() if torch.equal(p, before[name])]
        assert (not same) if mode == 'train' else len(same) == len(before)


@pytest.mark.parametrize('layout', ['nchw', 'nhwc'])
def test_the_layout_reaches_images_and_weights(layout):
    step = Step(small(), TINY, layout)
    images, _ = next(step.batches)
    weight = step.model.backbone.stages[1].downsample[1].weight
    for tensor in (images, weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last) == (layout == 'nhwc')


def test_candidates_share_images_that_do_not_come_twice_before_the_cache_has_lost_them():
    _, steps = benchmark.fit_batch([INCEPTIONNEXT, CONVNEXT], SMALL, Setting('infer', size=64), ('nchw', ), print)
    seen = [next(step.batches)[0].data_ptr() for _ in range(2) for step in steps.values()]
    assert len(set(seen)) == 4


def test_inference_gives_class_numbers_at_the_size_of_the_image():
    step = Step(small(), Setting(mode='infer', batch_size=2, size=64), 'nchw')
    images, samples = next(step.batches)
    with torch.inference_mode():
        labels = step.forward(images, samples)
    assert labels.shape == (2, 64, 64) and labels.max() < 18


def test_products_are_counted_as_by_hand():
    linear = torch.nn.Linear(5, 7, bias=False)
    x = torch.randn(3, 5, requires_grad=True)

    def step():
        linear(x).sum().backward()

    macs, nbytes = count_products(step)
    # Forward, gradient of the input, gradient of the weight: three products of 3·5·7.
    assert macs == 3 * 3 * 5 * 7
    # Each reads or writes the input (3×5), the weight (5×7) and the output (3×7), in fp32.
    assert nbytes == 3 * 4 * (15 + 35 + 21)


def test_a_convolution_moves_its_input_weight_and_output_once():
    convolution = torch.nn.Conv2d(4, 6, 3, padding=1, bias=False)
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        macs, nbytes = count_products(lambda: convolution(x))
    assert macs == 2 * 8 * 8 * 6 * 4 * 9
    assert nbytes == 4 * (2 * 4 * 64 + 6 * 4 * 9 + 2 * 6 * 64)


@pytest.mark.parametrize('groups', [1, 8])
def test_a_backward_convolution_costs_two_forwards_whatever_its_groups(groups):
    convolution = torch.nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=False)
    x = torch.randn(2, 8, 6, 6, requires_grad=True)
    macs, _ = count_products(lambda: convolution(x).sum().backward())
    assert macs == 3 * 2 * 6 * 6 * 8 * (8 // groups) * 9


def test_the_limit_is_the_longer_of_arithmetic_and_traffic():
    peaks = dict(macs_per_second=1e9, bytes_per_second=1e8)
    assert limit_seconds(2e9, 1e7, peaks) == 2.0
    assert limit_seconds(1e8, 1e9, peaks) == 10.0


def test_stock_is_mmsegmentations_own_config_with_the_norm_of_one_process():
    pytest.importorskip('mmpretrain', reason='onedl-mmpretrain is not installed')
    cfg, origin = benchmark.stock_config()
    assert cfg.model.backbone.type == 'mmpretrain.ConvNeXt' and cfg.model.backbone.arch == 'tiny'
    assert cfg.model.decode_head.channels == 512
    assert cfg.model.decode_head.norm_cfg.type == cfg.model.auxiliary_head.norm_cfg.type == 'BN'
    assert origin == "mmpretrain's ConvNeXt"


@pytest.mark.slow
def test_the_stock_backbone_takes_a_step_by_itself():
    pytest.importorskip('mmpretrain', reason='onedl-mmpretrain is not installed')
    Step(benchmark.stock_config()[0], Setting('infer', 'backbone', batch_size=1, size=32), 'nchw')()


def test_without_mmpretrain_stock_is_timms_convnext_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmpretrain', None)
    monkeypatch.delitem(sys.modules, 'mmpretrain.models', raising=False)
    cfg, origin = benchmark.stock_config()
    assert cfg.model.backbone.type == 'TIMMBackbone'
    assert 'timm' in origin and 'mmpretrain is not installed' in origin


def test_out_of_memory_halves_the_batch_of_every_candidate_and_says_so(monkeypatch):
    class Hungry:
        def __init__(self, cfg, setting, layout, images, deployed, gives_back):
            self.setting = setting

        def __call__(self):
            if self.setting.batch_size > 2:
                raise torch.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(benchmark, 'Step', Hungry)
    said = []
    setting, steps = benchmark.fit_batch(
        [INCEPTIONNEXT, CONVNEXT], None, Setting(batch_size=8), ('nchw', ), said.append)
    assert setting.batch_size == 2
    assert {step.setting.batch_size for step in steps.values()} == {2}
    assert len(said) == 2 and 'out of memory at batch 8' in said[0]


def test_out_of_memory_with_one_image_is_a_user_error(monkeypatch):
    def out_of_memory(cfg, setting, layout, images, deployed, gives_back):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(benchmark, 'Step', out_of_memory)
    with pytest.raises(UserError, match='one image'):
        benchmark.fit_batch([INCEPTIONNEXT], None, Setting(batch_size=1), ('nchw', ), print)


def test_one_image_that_batch_norm_cannot_train_on_is_a_user_error():
    setting = Setting('train', batch_size=1, size=32)
    with pytest.raises(UserError, match=r'one image of 32×32 alone cannot train.*--batch-size 2'):
        benchmark.fit_batch([INCEPTIONNEXT], SMALL, setting, ('nhwc', ), print)


def test_candidates_are_sampled_equally_often_in_each_layout(result):
    results = result['runs'][0]['results']
    assert [(r['name'], r['layout']) for r in results] == [
        (name, layout) for name in (INCEPTIONNEXT, CONVNEXT) for layout in ('nchw', 'nhwc')]
    assert {len(r['seconds']) for r in results} == {8}
    assert all(r['macs'] > 0 and r['nbytes'] > 0 for r in results)


def test_speed_is_relative_to_the_first_and_above_one_is_faster():
    def fake(name, seconds):
        return dict(name=name, label=name, layout='nchw', seconds=seconds, settled=True, macs=1e9, nbytes=1,
                    peak_memory=None)

    run = dict(setting=dict(batch_size=4), peaks=dict(macs_per_second=1e9, bytes_per_second=1e9), results=[
        fake('slow', [2.0, 2.2, 1.8, 2.0]), fake('fast', [1.0, 1.1, 0.9, 1.0])])
    first, second = benchmark.summarize(run)
    assert first['speedup'] is None and first['images_per_s'] == 2.0 and first['times_of_limit'] == 2.0
    assert second['speedup'].median == pytest.approx(2.0) and second['images_per_s'] == 4.0


def test_the_better_layout_is_taken_for_each_candidate():
    def fake(name, layout, seconds):
        return dict(name=name, layout=layout, seconds=[seconds] * 3)

    best = benchmark.best_layouts([
        fake('a', 'nchw', 1), fake('a', 'nhwc', 2), fake('b', 'nchw', 3), fake('b', 'nhwc', 1)])
    assert [(r['name'], r['layout']) for r in best] == [('a', 'nchw'), ('b', 'nhwc')]


def test_parts_of_a_step_are_timed_with_the_device_waited_for_before_each_reading(monkeypatch):
    clock = TickingClock()
    monkeypatch.setattr(benchmark, 'synchronize', clock.synchronize)
    step = Step(small(), TINY, 'nchw')
    parts = StepClock(step, clock).measure()
    assert parts == dict.fromkeys((
        'backbone forward', 'head forward', 'loss forward', 'loss backward', 'head backward', 'backbone backward',
        'optimizer'), 1.0)
    assert all(clock.readings)


def test_a_run_waits_for_the_device_before_each_reading_of_the_clock(monkeypatch):
    clock = TickingClock(fine=True)
    monkeypatch.setattr(benchmark, 'synchronize', clock.synchronize)
    monkeypatch.setattr(benchmark, 'machine_peaks', lambda *a, **k: dict(macs_per_second=1., bytes_per_second=1.))
    benchmark.run([INCEPTIONNEXT], Setting(mode='infer', batch_size=1, size=32), ('nchw', ), SMALL, rounds=8, warmup=0,
                  memory=False, clock=clock)
    assert all(clock.readings[1000:])


def test_the_report_of_a_result_file_is_the_same_each_time_and_has_its_pictures(result, tmp_path):
    stored = json.loads(json.dumps(result))
    write_report(stored, tmp_path / 'a.md')
    text = (tmp_path / 'a.md').read_text()
    assert text == report(json.loads(json.dumps(stored)), ['a.png'])
    assert 'upernet_convnext_a_mini' in text and '× of limit' in text and '![a](a.png)' in text
    assert (tmp_path / 'a.png').stat().st_size < 200_000


@pytest.mark.parametrize(('arguments', 'message'), [
    ([], 'nothing to measure'),
    (['configs/none.py'], 'config not found'),
    ([INCEPTIONNEXT, '--rounds', '3'], 'at least 8'),
    ([INCEPTIONNEXT, '--dtype', 'fp16', '--device', 'cpu'], 'fp16 is for CUDA'),
    (['--report', 'none.json'], 'no such file'),
])
def test_a_wrong_command_line_is_one_line_and_no_traceback(arguments, message):
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/benchmark.py', *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert message in done.stderr and 'Traceback' not in done.stderr


# The ablation of speed


def options_off(cfg):
    """Which changes a config is without."""
    heads = [head for head in (cfg.model.decode_head, cfg.model.get('auxiliary_head')) if head]
    return {name for name, off in {
        'fusion and 3×3 convolutions': all(head.get('fusion') == 'torch' for head in heads),
        'loss on low-resolution logits': all(head.get('upsampled_loss') is False for head in heads),
        'token mixer in one pass': cfg.model.backbone.get('token_mixer', {}).get('impl') == 'torch',
        'blocks and patches': cfg.model.backbone.get('impl') == 'torch',
        'class numbers by rows': cfg.model.test_cfg.get('keep_logits') is True,
        'fused AdamW': cfg.optim_wrapper.optimizer.fused is False}.items() if off}


def test_a_variant_has_its_change_alone_and_none_and_all_are_what_they_say():
    everything = set(benchmark.CHANGES)
    for mode in ('train', 'infer'):
        names = benchmark.variants(INCEPTIONNEXT, mode)
        for name in names:
            change = name.partition('::')[2]
            expected = {'none': everything, 'all': set(), 'deploy form': set()}.get(change, everything - {change})
            assert options_off(benchmark.candidate_config(name)) == expected, name
    assert options_off(benchmark.candidate_config(INCEPTIONNEXT)) == set()


def test_every_variant_computes_the_same_loss_and_the_same_classes():
    for mode in ('train', 'infer'):
        found = []
        for name in benchmark.variants(INCEPTIONNEXT, mode):
            step = benchmark.candidate_step(name, SMALL, Setting(mode, batch_size=2, size=64, width=96), 'nhwc')
            images, samples = next(step.batches)
            assert images.shape == (2, 3, 64, 96)
            torch.manual_seed(0)
            with torch.no_grad():
                found.append(step.forward(images, samples))
        for other in found[1:]:
            if mode == 'train':
                assert other.item() == pytest.approx(found[0].item(), rel=1e-5)
            else:
                assert (other == found[0]).float().mean() > 0.999     # rounding decides between equal logits


def test_a_convnext_and_a_segmentor_of_one_head_have_variants_too():
    for name in ('upernet_convnext_a_mini', 'fpn_inceptionnext_a_mini'):
        path = str(ROOT / f'configs/{name}.py')
        step = benchmark.candidate_step(f'{path}::none', None, TINY, 'nhwc')
        step()


def test_ours_runs_in_channels_last_alone_and_a_backbone_in_both_layouts():
    layouts = ('nchw', 'nhwc')
    assert benchmark.layouts_of(benchmark.candidate_config(INCEPTIONNEXT), TINY, layouts) == ('nhwc', )
    assert benchmark.layouts_of(small(), Setting(part='backbone'), layouts) == layouts
    assert benchmark.layouts_of(benchmark.stock_config()[0], TINY, layouts) == layouts


def test_how_cost_grows_is_drawn_from_three_sizes_on(tmp_path):
    def run(size, batch_size, label, seconds):
        return dict(setting=dict(vars(TINY), size=size, batch_size=batch_size), peaks=dict(
            macs_per_second=1e9, bytes_per_second=1e9, matrix_size=1), results=[dict(
                name=label, label=label, layout='nhwc', seconds=[seconds] * 8, settled=True, macs=1, nbytes=1,
                peak_memory=None)])

    runs = [run(1000, 2, 'a', 2.), run(1000, 1, 'a', 1.), run(2000, 1, 'a', 4.), run(1000, 1, 'b', 1.)]
    found = throughput_report.growth(dict(runs=runs))
    assert found == {('train', 'fp32'): dict(a=[(1., pytest.approx(1.)), (2., pytest.approx(2.)),
                                                (4., pytest.approx(4.))])}
    assert not throughput_report.growth(dict(runs=runs[1:]))
    write_report(dict(environment=environment('cpu'), runs=runs), tmp_path / 'x.md')
    assert (tmp_path / 'x_growth.png').is_file() and '![x_growth](x_growth.png)' in (tmp_path / 'x.md').read_text()


def test_the_mixer_is_measured_against_one_copy_and_reported_by_form():
    mixer = benchmark.measure_mixer(TINY, channels=16, size=8, batch_size=1, rounds=8)
    text = report(dict(environment=environment('cpu'), runs=[], mixers=[mixer]))
    assert '| copy | ' in text and 'InceptionDWConv2d, auto: forward and backward' in text


def test_appended_runs_stand_beside_those_measured_before(tmp_path):
    command = [sys.executable, ROOT / 'tools/benchmark.py', '--mixer', '--device', 'cpu', '--out',
               tmp_path / 'speed.json']
    for extra in ([], ['--append', '--dtype', 'bf16']):
        subprocess.run([*command, *extra], check=True, capture_output=True, cwd=ROOT)
    stored = json.loads((tmp_path / 'speed.json').read_text())
    assert [mixer['dtype'] for mixer in stored['mixers']] == ['fp32', 'bf16']


def test_the_peak_memory_of_a_child_is_not_that_of_its_larger_parent():
    ballast = torch.ones(3 * 2**28)     # 3 GiB
    peak, before = benchmark.peak_memory(INCEPTIONNEXT, SMALL, Setting('infer', batch_size=1, size=32), 'nhwc')
    assert 2**26 < before < peak < ballast.nbytes


def test_stock_as_shipped_is_stock_with_memory_given_back(monkeypatch):
    entered = []

    @contextlib.contextmanager
    def giving_back():
        entered.append(True)
        yield

    monkeypatch.setattr(benchmark, 'giving_back', giving_back)
    monkeypatch.setattr(benchmark, 'stock_config', lambda: (small(), 'a backbone'))
    for name in (benchmark.STOCK, benchmark.AS_SHIPPED):
        assert not entered
        benchmark.candidate_step(name, None, TINY, 'nchw')()
    assert entered
    assert benchmark.candidate_label(benchmark.AS_SHIPPED) == f'{benchmark.candidate_label(benchmark.STOCK)} as shipped'


def test_the_memory_of_a_step_is_that_of_weights_gradients_optimizer_and_maps(monkeypatch):
    class Connection:
        def send(self, sent):
            self.sent = sent

    kept, connection = [], Connection()
    monkeypatch.setattr(benchmark, 'keep_freed_memory', lambda: kept.append(True))
    monkeypatch.setattr(benchmark, 'current_memory', lambda device: 2**30)
    monkeypatch.setattr(benchmark, 'highest_memory', lambda device: 2**31)
    setting = Setting('train', batch_size=2, size=32)
    benchmark.measure_memory(connection, INCEPTIONNEXT, SMALL, setting, 'nhwc', torch.get_num_threads())
    model = benchmark.candidate_step(INCEPTIONNEXT, SMALL, setting, 'nhwc').model
    weights = sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
    assert connection.sent == (2**31, 2**30 - weights - 2 * 3 * 32 * 32 * 4) and kept
