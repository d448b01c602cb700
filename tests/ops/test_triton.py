"""Whether Triton works on a device, what happens where it does not, and compiling for a GPU that is not there."""
import pytest
import torch

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.ops import _triton, dispatch

CUDA = torch.device('cuda', 0)


@pytest.fixture(autouse=True)
def triton():
    pytest.importorskip('triton', reason='triton is not installed')


@pytest.fixture
def nothing_tried(monkeypatch):
    """A machine that seems to have a CUDA device, on which Triton was not tried yet."""
    monkeypatch.setattr(_triton, 'failures', {})
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: False)
    monkeypatch.setattr(_triton, 'on', lambda device: torch.no_grad())


@pytest.fixture
def trial(nothing_tried, monkeypatch):
    """The devices that a trial kernel, which always works, was run on."""
    from inceptionnext_seg.ops import _triton_trial
    calls = []
    monkeypatch.setattr(_triton_trial, 'run', calls.append)
    return calls


def failing(*args, **kwargs):
    raise RuntimeError('\n  ptxas fatal: no such architecture\nmore')


def test_a_device_is_tried_once_and_the_answer_is_kept(trial):
    assert _triton.why_not(CUDA) is None and _triton.why_not(CUDA) is None
    assert trial == [CUDA]
    assert _triton.why_not(torch.device('cuda', 1)) is None and len(trial) == 2


def test_once_a_device_works_nothing_is_looked_for_again(trial, monkeypatch):
    """An operator asks in each of its calls; to look for a package takes as long as to launch a kernel."""
    looked = []
    monkeypatch.setattr(_triton.importlib.util, 'find_spec', lambda name: looked.append(name) or True)
    assert [_triton.why_not(CUDA) for _ in range(3)] == [None] * 3
    assert len(looked) == 1
    monkeypatch.setattr(_triton, 'print_log', lambda line, **options: None)
    _triton.give_up(CUDA, 'a kernel fails')
    assert 'a kernel fails' in _triton.why_not(CUDA)


@pytest.mark.parametrize('broken', [failing, lambda device: [1., 2.]], ids=['raises', 'computes nonsense'])
def test_where_the_trial_fails_the_reason_is_kept_and_logged_once(trial, broken, monkeypatch):
    from inceptionnext_seg.ops import _triton_trial
    monkeypatch.setattr(_triton_trial, 'run', broken)
    lines = []
    monkeypatch.setattr(_triton, 'print_log', lambda line, **options: lines.append(line))
    reason = _triton.why_not(CUDA)
    assert ('ptxas fatal' if broken is failing else '1.0') in reason and 'cuda:0' in reason
    assert _triton.why_not(CUDA) == reason and len(lines) == 1


def test_it_can_be_switched_off_and_is_for_cuda_alone(trial, monkeypatch):
    assert 'cpu' in _triton.why_not(torch.device('cpu'))
    monkeypatch.setenv('INCEPTIONNEXT_SEG_TRITON', '0')
    assert 'INCEPTIONNEXT_SEG_TRITON' in _triton.why_not(CUDA)
    assert not trial


def test_while_a_graph_is_captured_nothing_is_tried(trial, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: True)
    assert _triton.why_not(CUDA) is None and not trial


class Kernel:
    """Stands for a kernel that fails."""

    def __getitem__(self, grid):
        return failing


def test_a_kernel_that_fails_turns_triton_off_and_auto_takes_the_next_form(nothing_tried, monkeypatch):
    lines, x = [], torch.zeros(3)
    monkeypatch.setattr(_triton, 'print_log', lambda line, **options: lines.append(line))

    def by_triton(x):
        _triton.launch(Kernel(), (1, ), x)

    def why_not(x):
        return _triton.failures.get(_triton.key_of(x.device))
    forms = dict(triton=dispatch.Form(by_triton, why_not), torch=dispatch.Form(lambda x: x + 1))
    assert torch.equal(dispatch.run('sum', forms, 'auto', x), x + 1)
    assert len(lines) == 1 and 'ptxas fatal' in lines[0]
    assert torch.equal(dispatch.run('sum', forms, 'auto', x), x + 1) and len(lines) == 1
    with pytest.raises(dispatch.FormError, match='ptxas fatal'):
        dispatch.run('sum', forms, 'triton', x)
    _triton.failures.clear()
    with pytest.raises(UserError, match='ptxas fatal'):   # who asks for it is told
        dispatch.run('sum', forms, 'triton', x)


def test_recorded_launches_do_not_happen_and_compile_for_a_gpu_that_is_not_there():
    from triton_ahead import compile_ahead

    from inceptionnext_seg.ops._triton_trial import SIZE, trial_kernel
    x = torch.empty(SIZE, dtype=torch.float16, device='meta')
    with _triton.recording() as launches:
        _triton.launch(trial_kernel, (3, ), x, SIZE=SIZE)
        _triton.launch(trial_kernel, (0, ), x, SIZE=SIZE)   # of an empty batch there is nothing to launch
    assert [(launch.grid, launch.constants) for launch in launches] == [((3, ), dict(SIZE=SIZE))]
    for capability in (80, 90):
        report = compile_ahead(launches[0], capability)
        assert f'sm_{capability}' in report.ptx and '.entry' in report.ptx
        assert 0 < report.registers < 64 and report.spills == 0
        assert sum(report.loads.values()) == 1 and sum(report.stores.values()) == 1
