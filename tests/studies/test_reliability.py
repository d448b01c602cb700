"""The parts of tools/reliability.py that need no run: `make reliability` kills real ones."""
import pytest
import torch

from inceptionnext_seg.errors import UserError
from studies.reliability import killing
from studies.reliability.cases import table


def save(folder, **changed):
    folder.mkdir()
    state = dict(weight=torch.ones(3), bias=torch.zeros(2), **changed)
    torch.save(dict(state_dict=state, ema_state_dict=dict(state), optimizer=dict(state={0: dict(step=torch.ones(1))})),
               folder / f'iter_{killing.ITERATIONS}.pth')
    return folder


def test_runs_are_compared_bit_for_bit(tmp_path):
    whole, same = save(tmp_path / 'whole'), save(tmp_path / 'same')
    assert killing.differing(same, whole) == dict(differing=0, tensors=5)
    other = save(tmp_path / 'other')
    checkpoint = torch.load(other / f'iter_{killing.ITERATIONS}.pth', weights_only=True)
    checkpoint['ema_state_dict']['weight'] = torch.tensor([1, 1 + 2e-7, 1])
    torch.save(checkpoint, other / f'iter_{killing.ITERATIONS}.pth')
    assert killing.differing(other, whole) == dict(differing=1, tensors=5)
    with pytest.raises(UserError, match='same tensors'):
        killing.differing(save(tmp_path / 'more', scale=torch.ones(1)), whole)


def test_the_table_says_what_was_done_and_what_differs():
    text = table(dict(cases={
        'kill-2-deterministic': dict(kills=20, differing=0, tensors=7, while_writing=5, seconds_to_the_end_of_all=2.5,
                                     before_meeting=2),
        'sigterm': dict(status=143, lines=1, differing=3, tensors=7)}))
    first, second = text.splitlines()[2:]
    assert '20 × SIGKILL, 2 processes, `--deterministic`' in first and '0 of 7' in first
    assert '2.5 s, but for 2 ' in first
    assert '3 of 7' in second and '143' in second
