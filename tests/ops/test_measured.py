"""'auto' takes what was measured. The clock of these tests is counted, so that none depends on the machine's time."""
import json
import math
from unittest import mock

import pytest
import torch
import torch.nn as nn
from helpers import draw

import inceptionnext_seg
from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import dispatch, measured, stopwatch
from inceptionnext_seg.ops._triton import LaunchError
from inceptionnext_seg.ops.batch_norm_act import batch_norm_act
from inceptionnext_seg.ops.dispatch import Form
from inceptionnext_seg.ops.upsampled_cross_entropy import ARGMAX_FORMS, LOSS_FORMS


class Clock:
    """Seconds that forms spend by :meth:`takes`, and those that their threads wait for a core."""

    def __init__(self):
        self.now = self.waited = 0.

    def takes(self, seconds, waiting=lambda: 0.):
        def form(x):
            self.now += seconds + waiting()
            self.waited += waiting()
            return x * 1
        return Form(form)

    def time(self, forms, args, device):
        return stopwatch.time_forms(forms, args, device, clock=lambda: self.now, waited=lambda: self.waited)


@pytest.fixture
def clock(tmp_path, monkeypatch):
    """Measuring is on, with a cache of its own, an empty table and this clock."""
    clock = Clock()
    monkeypatch.setenv('INCEPTIONNEXT_SEG_MEASURE', '1')
    monkeypatch.setattr(native, 'cache_folder', lambda: tmp_path)
    monkeypatch.setattr(measured, 'TABLE', measured.Table())
    monkeypatch.setattr(measured, 'time_forms', mock.Mock(wraps=clock.time))
    monkeypatch.setattr(measured, 'clock', lambda: clock.now)
    return clock


def chosen(forms, x):
    return dispatch.choose('double', forms, 'auto', x)


X = torch.ones(1, 2, 3, 4)


def test_the_rule_of_thumb_decides_until_a_faster_form_was_measured(clock):
    forms = dict(native=clock.takes(0.03), torch=clock.takes(0.02))
    assert chosen(forms, X) == 'native'
    with inceptionnext_seg.measuring():
        assert chosen(forms, X) == 'torch'
    assert chosen(forms, X) == 'torch'
    assert chosen(forms, X[:, :1]) == 'native'      # of another shape


def test_a_form_has_to_win_by_five_per_cent(clock):
    for x, seconds, form in ((X, 0.0193, 'native'), (X.double(), 0.0185, 'torch')):
        with inceptionnext_seg.measuring():
            assert chosen(dict(native=clock.takes(0.02), torch=clock.takes(seconds)), x) == form


def test_times_in_which_threads_waited_for_a_core_do_not_count(clock):
    waiting = iter([0.5, 0.5, 0., 0.5] + 50 * [0.])
    seconds = clock.time(dict(native=clock.takes(0.02, lambda: 0.), torch=clock.takes(0.01)), (X, ), X.device)
    assert seconds == pytest.approx(dict(native=0.02, torch=0.01))
    state = {}

    def wait_for_a_while():
        state['now'] = next(waiting) if not state.get('asked') else state['now']
        state['asked'] = not state.get('asked')
        return state['now']

    seconds = clock.time(dict(native=clock.takes(0.02, wait_for_a_while), torch=clock.takes(0.01)), (X, ), X.device)
    assert seconds == pytest.approx(dict(native=0.02, torch=0.01))


def test_on_a_machine_that_is_always_busy_the_rule_of_thumb_stays_and_nothing_is_remembered(clock):
    forms = dict(native=clock.takes(0.02, lambda: 0.02), torch=clock.takes(0.01, lambda: 0.01))
    with inceptionnext_seg.measuring() as found:
        assert chosen(forms, X) == 'native'
    assert found.disturbed == ['double']
    assert not inceptionnext_seg.choices() and measured.TABLE.is_empty


def test_on_a_machine_that_is_always_busy_an_operator_of_long_forms_is_given_up_after_one_run(clock):
    for waiting, longest in ((30., 31.), (0.2, 3.5)):
        clock.now, form = 0., clock.takes(1., lambda waiting=waiting: waiting)
        assert math.inf in clock.time(dict(native=form, triton=form, torch=form), (X, ), X.device).values()
        assert clock.now <= longest


def test_a_busy_machine_ends_measuring_after_some_seconds_and_the_next_run_measures_what_is_left(clock):
    waiting = [1.]
    forms = {name: clock.takes(seconds, lambda: waiting[0]) for name, seconds in (('native', 1.), ('torch', 0.5))}
    calls = [torch.ones(1, 2, 3, width) for width in range(1, 41)]
    with inceptionnext_seg.measuring() as found:
        assert [chosen(forms, x) for x in calls + calls] == 80 * ['native']
    assert clock.now < measured.PATIENCE + 5
    assert len(found.disturbed) + len(found.left) == 40 and len(found.left) > 20 and not found.is_whole
    waiting[0] = 0.
    with inceptionnext_seg.measuring() as found:
        formed = [chosen(forms, x) for x in calls]
    assert formed.count('torch') == len(found.choices) > 5 and len(found.left) == 40 - len(found.choices)
    with inceptionnext_seg.measuring(patience=math.inf) as found:
        assert {chosen(forms, x) for x in calls} == {'torch'} and found.is_whole


def test_a_form_that_takes_many_times_as_long_runs_twice_alone(clock):
    runs = []
    slow = Form(lambda x: runs.append(1) or clock.takes(5.).run(x))
    clock.time(dict(torch=clock.takes(0.02), native=slow), (X, ), X.device)
    assert len(runs) == 1


def test_a_form_that_fails_is_not_chosen(clock):
    def fail(x):
        raise RuntimeError('out of memory')
    with inceptionnext_seg.measuring():
        assert chosen(dict(native=clock.takes(0.02), triton=Form(fail), torch=clock.takes(0.03)), X) == 'native'


@pytest.mark.parametrize('error', [LaunchError('no such architecture'), torch.OutOfMemoryError(), KeyError('x')])
def test_whatever_a_form_fails_with_at_its_first_run_or_later_the_others_are_measured(clock, error, monkeypatch):
    runs, lines = [], []
    monkeypatch.setattr(stopwatch, 'print_log', lambda line, *args: lines.append(line))

    def fail(x):
        runs.append(1)
        if len(runs) == 4:
            raise error
        return clock.takes(0.001).run(x)
    forms = dict(triton=Form(fail), native=clock.takes(0.03), torch=clock.takes(0.02))
    with inceptionnext_seg.measuring():
        assert chosen(forms, X) == 'torch'
    assert len(runs) == 4 and len(lines) == 1 and 'triton' in lines[0] and type(error).__name__ in lines[0]


def test_where_stocks_form_has_no_memory_another_is_chosen_and_remembered(clock):
    def fail(x):
        raise torch.OutOfMemoryError('40 GiB')
    forms = dict(native=clock.takes(0.03), triton=clock.takes(0.02), torch=Form(fail))
    with inceptionnext_seg.measuring() as found:
        assert chosen(forms, X) == 'triton'
    measured.TABLE.clear()
    measured.read_cache()
    assert chosen(forms, X) == 'triton' and not found.disturbed
    (choice, ) = inceptionnext_seg.choices()
    assert choice.gain is None and 'triton' in str(inceptionnext_seg.choices())


def test_a_form_that_is_known_to_be_slow_is_not_even_timed(clock):
    runs = []
    forms = dict(native=clock.takes(0.03), blocked=Form(runs.append, timed=lambda x: False), torch=clock.takes(0.02))
    with inceptionnext_seg.measuring():
        assert chosen(forms, X) == 'torch'
    assert not runs


@pytest.mark.parametrize('forms', [LOSS_FORMS, ARGMAX_FORMS])
def test_beside_the_cpu_rows_in_blocks_are_not_timed(forms):
    assert forms['blocked'].timed(X) and not forms['blocked'].timed(X.to('meta'))


def test_what_a_checkpoint_brought_is_among_the_choices_though_nothing_was_measured(clock):
    """As where the cache was emptied before a run is resumed."""
    forms = dict(native=clock.takes(0.03), torch=clock.takes(0.02))
    measured.pin({measured.as_text('double', measured.describe_call((X, ))): 'torch', 'double of another run': 'torch'})
    assert chosen(forms, X) == 'torch'
    (choice, ) = inceptionnext_seg.choices()
    assert (choice.operator, choice.form, choice.rule, choice.seconds) == ('double', 'torch', None, {})
    assert measured.first_map(choice) == '1×2×3×4' and 'checkpoint' in str(inceptionnext_seg.choices())


def test_a_second_process_measures_nothing(clock):
    forms = dict(native=clock.takes(0.03), torch=clock.takes(0.02))
    with inceptionnext_seg.measuring():
        chosen(forms, X)
    measured.TABLE.clear()          # what another process begins with
    assert chosen(forms, X) == 'native'
    measured.time_forms.reset_mock()
    with inceptionnext_seg.measuring() as found:
        assert chosen(forms, X) == 'torch'
    assert not measured.time_forms.called and not found.choices
    (choice, ) = inceptionnext_seg.choices()
    assert (choice.operator, choice.form, choice.rule) == ('double', 'torch', 'native')
    assert choice.gain == 1 and choice.seconds == pytest.approx(dict(native=0.03, torch=0.02))
    assert '1×2×3×4' in str(inceptionnext_seg.choices())


@pytest.mark.parametrize('enabled', ['1', '0'])
def test_inference_takes_what_earlier_runs_measured_and_measures_nothing(clock, enabled, monkeypatch):
    forms = dict(native=clock.takes(0.03), torch=clock.takes(0.02))
    with inceptionnext_seg.measuring():
        chosen(forms, X)
    measured.TABLE.clear()          # what another process begins with
    measured.time_forms.reset_mock()
    monkeypatch.setenv('INCEPTIONNEXT_SEG_MEASURE', enabled)
    inceptionnext_seg.create_backbone('inceptionnext_a')
    assert chosen(forms, X) == ('torch' if enabled == '1' else 'native') and not measured.time_forms.called


def test_the_backward_that_is_timed_begins_at_every_output():
    reached = []

    def two_maps(x):
        maps = [x * 2, x * 3]
        for i, y in enumerate(maps):
            y.register_hook(lambda grad, i=i: reached.append(i))
        return maps

    stopwatch.prepared(Form(two_maps), (X.clone().requires_grad_(), ))()
    assert sorted(reached) == [0, 1]


def test_a_form_of_seconds_that_is_clearly_slower_runs_once(clock):
    calls = []
    slow = clock.takes(2.0)
    forms = dict(native=clock.takes(1.0), torch=Form(lambda x: calls.append(x) or slow.run(x)))
    with inceptionnext_seg.measuring():
        assert chosen(forms, X) == 'native'
    assert len(calls) == 1


class Queue(Clock):
    """A GPU's clock: each form's first call takes long, and whoever waits for the queue waits a moment longer."""

    def takes(self, seconds, first=0.):
        seconds = iter([first, *[seconds] * 1000])

        def form(x):
            self.now += next(seconds)
            return x * 1
        return Form(form)

    def synchronize(self, device):
        self.now += 50e-6


@pytest.fixture
def queue(clock, monkeypatch):
    queue = Queue()
    monkeypatch.setattr(stopwatch, 'synchronize', queue.synchronize)
    monkeypatch.setattr(measured, 'time_forms', lambda forms, args, device: queue.time(
        forms, args, torch.device('cuda')))
    return queue


def test_on_a_gpu_a_first_call_of_seconds_is_no_time_of_its_form(queue):
    with inceptionnext_seg.measuring() as found:
        assert chosen(dict(native=queue.takes(0.02, first=3.), torch=queue.takes(0.01, first=3.)), X) == 'torch'
    assert found.choices[0].seconds == pytest.approx(dict(native=0.02, torch=0.01), rel=0.1)


def test_on_a_gpu_the_wait_for_the_queue_does_not_hide_that_a_short_form_is_faster(queue):
    with inceptionnext_seg.measuring():
        assert chosen(dict(native=queue.takes(20e-6), torch=queue.takes(18e-6)), X) == 'torch'


@pytest.mark.parametrize('content', [
    b'\xff\xfe', b'[' * 200_000, b'{}', b'{"choices": [["double", "x", "native"]], "passes": []}',
    b'{"choices": [["double", "x", "native", "native", ["native"]]], "passes": []}',
    b'{"choices": [["double", "x", "native", "native", {"native": "1", "torch": 2}]], "passes": []}'])
def test_a_file_that_is_no_table_is_no_table(clock, content):
    path = measured.cache_file()
    path.write_bytes(content)
    path.chmod(0o600)
    with inceptionnext_seg.measuring():
        assert chosen(dict(native=clock.takes(0.03), torch=clock.takes(0.02)), X) == 'torch'
    assert json.loads(path.read_text())['choices'][0][2] == 'torch'


def test_a_look_up_outlives_what_another_thread_adds_meanwhile():
    table = measured.Table()

    class Interrupted(dict):
        def __setitem__(self, key, value):
            super().__setitem__(key, value)
            table.forget()
    table.measured['double x'] = measured.Choice('double', 'x', 'native', 'torch', dict(native=1.))
    table.found = Interrupted()
    assert table.lookup('double', dict(native=None), 'x') == 'native'


def test_a_table_with_a_form_that_does_not_exist_or_cannot_run_leaves_the_rule(clock):
    forms = dict(native=clock.takes(0.03), triton=Form(None, lambda x: 'no GPU'), torch=clock.takes(0.02))
    key = measured.as_text('double', measured.describe_call((X, )))
    for form in ('triton', 'cuda', 'os.system'):
        measured.TABLE.clear()
        measured.pin({key: form})
        assert chosen(forms, X) == 'native'


def test_where_a_form_is_remembered_it_alone_is_asked_whether_it_can_run(clock):
    asked = []

    def form(name):
        return Form(clock.takes(0.02).run, lambda x: asked.append(name), lambda x: asked.append(f'is {name} worth it'))
    measured.pin({measured.as_text('double', measured.describe_call((X, ))): 'native'})
    assert chosen(dict(triton=form('triton'), native=form('native'), torch=form('torch')), X) == 'native'
    assert asked == ['native']


def test_what_a_checkpoint_brought_comes_before_what_is_measured_here(clock):
    forms = dict(native=clock.takes(0.03), torch=clock.takes(0.02))
    with inceptionnext_seg.measuring():
        chosen(forms, X)
    (key, form), = measured.exported().items()
    measured.pin({key: 'native'})
    assert (form, chosen(forms, X)) == ('torch', 'native')


def test_deterministic_runs_and_compiled_graphs_follow_the_rule(clock):
    forms = dict(native=clock.takes(0.03), torch=clock.takes(0.02))
    with inceptionnext_seg.measuring():
        assert chosen(forms, X) == 'torch'
        torch.use_deterministic_algorithms(True)
        try:
            assert chosen(forms, X) == 'native'
        finally:
            torch.use_deterministic_algorithms(False)
        with mock.patch('torch.compiler.is_compiling', return_value=True):
            assert chosen(forms, X) == 'native'


def test_what_a_time_depends_on_tells_calls_apart():
    conv, norm = nn.Conv2d(2, 4, 1), nn.BatchNorm2d(2)
    calls = [(X, conv, norm)]
    calls += [(X.double(), conv, norm), (X.to(memory_format=torch.channels_last).contiguous().mT, conv, norm),
              (X.clone().requires_grad_(), conv, norm), (X, nn.Conv2d(2, 4, 1, stride=2), norm),
              (X, nn.Conv2d(2, 4, 1).requires_grad_(False), norm), (X, conv, nn.BatchNorm2d(2).eval()), ([X, X], conv)]
    keys = [str(measured.describe_call(call)) for call in calls]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        keys.append(str(measured.describe_call(calls[0])))
    with torch.no_grad():
        keys.append(str(measured.describe_call(calls[0])))
    assert len(set(keys)) == len(keys)
    assert str(measured.describe_call((X + 1, nn.Conv2d(2, 4, 1), nn.BatchNorm2d(2)))) == keys[0]


def test_what_a_time_on_a_gpu_depends_on_tells_settings_and_versions_apart(monkeypatch):
    x, files, keys = torch.empty(1, device='meta'), [], []
    for benchmark, version in ((False, '3.1'), (True, '3.2')):
        monkeypatch.setattr(torch.backends.cudnn, 'benchmark', benchmark)
        monkeypatch.setattr(measured._triton, 'version', lambda version=version: version)
        keys.append(str(measured.settings_of(x.device)))
        files.append(measured.cache_file())
    assert len(set(keys)) == len(set(files)) == 2


def test_a_form_is_timed_with_arguments_that_are_named_tuples():
    x = measured.Choice(X, X, 1, None, {})
    assert type(stopwatch.isolated(x)) is measured.Choice and stopwatch.isolated(x).form == 1


def test_measuring_leaves_parameters_gradients_statistics_and_random_numbers_alone(clock):
    norm = nn.BatchNorm2d(24)
    x = draw(2, 24, 9, 8, seed=1, dtype=torch.float32, layout=torch.channels_last).requires_grad_()
    torch.manual_seed(0)
    expected, state = torch.rand(3), {name: value.clone() for name, value in norm.state_dict().items()}
    torch.manual_seed(0)
    with mock.patch.object(measured, 'time_forms', lambda forms, args, device: (
            stopwatch.time_forms(forms, args, device, waited=lambda: 0.))), inceptionnext_seg.measuring() as found:
        plain = nn.BatchNorm2d(24)
        batch_norm_act(norm, None, x)
    assert len(found.choices) == (native.why_not('batch_norm') is None)
    assert all(math.isfinite(s) for choice in found.choices for s in choice.seconds.values())
    plain(x)        # once, however often it was timed
    assert norm.num_batches_tracked == 1
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    assert norm.weight.grad is None and x.grad is None and state['weight'].equal(norm.weight)
    assert torch.rand(3).equal(expected)
