"""Products that stand for convolutions follow the convolutions' setting of TF32."""
import contextlib

import pytest
import torch
from helpers import draw
from torch._subclasses.fake_tensor import FakeTensorMode

from inceptionnext_seg import provenance
from inceptionnext_seg.ops import measured, precision
from inceptionnext_seg.ops.resize_concat_conv import resize_concat_conv2d


def takes_tf32():
    """As cuBLAS is told: by the setting where there is one, which the older flag has to agree with."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    assert not provenance.HAS_SETTINGS or (torch.backends.cuda.matmul.fp32_precision == 'tf32') == allowed
    return allowed


@pytest.fixture
def products(monkeypatch):
    """What each ``torch.bmm`` found; a CPU's float32 is taken for a GPU's."""
    found, bmm = [], torch.bmm

    def looking(*args, **kwargs):
        found.append(takes_tf32())
        return bmm(*args, **kwargs)

    monkeypatch.setattr(torch, 'bmm', looking)
    monkeypatch.setattr(precision, 'has_tf32', lambda x: x.dtype == torch.float32)
    return found


@pytest.fixture
def flags():
    """torch's flags, which pytest's monkeypatch cannot set back."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    yield torch.backends
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])


def train(compiled=False):
    maps = [draw(1, 3, 8, 8, dtype=torch.float32), draw(1, 2, 4, 4, dtype=torch.float32).requires_grad_()]
    weight = draw(4, 5, 3, 3, dtype=torch.float32).requires_grad_()

    def operator(maps, weight):
        return resize_concat_conv2d(maps, weight, impl='factorized')

    if compiled:
        operator = torch.compile(operator, backend='aot_eager', fullgraph=True)
    operator(maps, weight).sum().backward()


@pytest.mark.parametrize('compiled', [False, pytest.param(True, marks=pytest.mark.compile)])
@pytest.mark.parametrize('allowed', [True, False])
def test_the_convolutions_setting_is_the_products_own_while_they_run_forward_and_backward(
        flags, products, allowed, compiled):
    flags.cudnn.allow_tf32, flags.cuda.matmul.allow_tf32 = allowed, not allowed
    train(compiled)
    assert products == [allowed] * 5
    assert takes_tf32() is not allowed


def test_the_precision_medium_is_medium_again(flags, products):
    flags.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision('medium')
    train()
    assert products == [False] * 5
    assert torch.get_float32_matmul_precision() == 'medium'


@pytest.mark.skipif(not provenance.HAS_SETTINGS, reason='torch before 2.9 has flags alone')
def test_the_settings_of_newer_torch_are_followed_and_as_they_were_afterwards(flags, products):
    convolutions, matmul = flags.cudnn.conv, flags.cuda.matmul
    for wanted, own in (('tf32', 'ieee'), ('ieee', 'tf32'), ('tf32', 'tf32'), ('ieee', 'ieee')):
        convolutions.fp32_precision, matmul.fp32_precision = wanted, own
        with precision.products_as_convolutions(torch.zeros(1)):
            assert matmul.fp32_precision == wanted
        assert (convolutions.fp32_precision, matmul.fp32_precision) == (wanted, own)


@pytest.mark.skipif(not provenance.HAS_SETTINGS, reason='torch before 2.9 has flags alone')
def test_where_the_older_flags_cannot_be_read_results_and_choices_say_the_precision_all_the_same(flags, monkeypatch):
    monkeypatch.setattr(measured, 'accelerator', lambda device: 'a GPU')
    monkeypatch.setattr(provenance, 'device_name', lambda device: 'a GPU')
    settings = flags, flags.cudnn.conv, flags.cuda.matmul
    before, found = [owner.fp32_precision for owner in settings], []
    try:
        for precision_of_all in ('ieee', 'tf32'):
            flags.fp32_precision = flags.cudnn.conv.fp32_precision = precision_of_all
            with pytest.raises(RuntimeError) if precision_of_all == 'ieee' else contextlib.nullcontext():
                flags.cudnn.allow_tf32      # noqa: B018
            with FakeTensorMode():
                found.append(str(measured.describe_call((torch.empty(1, device='cuda'), ))))
            assert provenance.environment('cuda')['convolutions_use_tf32'] == (precision_of_all == 'tf32')
    finally:
        for owner, own in zip(settings, before, strict=True):
            owner.fp32_precision = own
    assert found[0] != found[1]
