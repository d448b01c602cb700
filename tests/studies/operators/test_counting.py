"""Counts against hand-worked ones and torch's counter."""
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from studies.operators.cases import FORMS, Case
from studies.operators.counting import Counts, Pass, count, output_side, output_size, taps_inside
from studies.operators.modules import build
from studies.timing import DTYPES

SMALL = Case('square', (3, 3), channels=4, size=5, batch_size=2)


@pytest.mark.parametrize(('changes', 'parameters', 'macs', 'elements'), [
    # Elements are input + weights + bias + output of each pass; 2 × 4 × 5 × 5 = 200 in an image.
    (dict(), 4 * 9 + 4, 200 * 9, 200 + 40 + 200),
    (dict(grouping='dense'), 16 * 9 + 4, 200 * 4 * 9, 200 + 148 + 200),
    (dict(form='sequential'), 2 * (4 * 3 + 4), 2 * 200 * 3, 2 * (200 + 16 + 200)),
    (dict(form='sequential_parts'), 2 * (4 * 3 + 4), 2 * 200 * 3, 2 * (200 + 16 + 200)),
    (dict(form='sequential_relu'), 2 * (4 * 3 + 4), 2 * 200 * 3, 2 * (200 + 16 + 200) + 400),
    (dict(form='unordered'), 2 * (4 * 3 + 4), 2 * 200 * 3, 2 * (200 + 16 + 200)),
    (dict(form='parallel'), 2 * (4 * 3 + 4), 2 * 200 * 3, 2 * (200 + 16 + 200) + 600),
    # 2×3 loses a row: 2 × 4 × 4 × 5 = 160 outputs.
    (dict(form='one_pass'), 4 * 6 + 4, 160 * 6, 200 + 28 + 160),
    (dict(form='sequential', kernel=(6, 7)), 4 * 13 + 8, 160 * 6 + 160 * 7, (200 + 28 + 160) + (160 + 32 + 160)),
    (dict(form='copy'), 0, 0, 400),
    # Backward: gradients of input (no bias) and of parameters, as many MACs each.
    (dict(mode='train'), 4 * 9 + 4, 3 * 200 * 9, 3 * (200 + 36 + 200) + 2 * 4),
    (dict(form='sequential_relu', mode='train'), 2 * (4 * 3 + 4), 6 * 200 * 3,
     2 * (3 * (200 + 12 + 200) + 2 * 4) + 400 + 600),
    # Three branches of one channel, 50 elements: 9 + 5 + 5 products; each is copied together, then all concatenated.
    (dict(form='inception', kernel=(5, 5), ratio=1 / 4), 9 + 5 + 5 + 3, 50 * 19,
     3 * 100 + (3 * 100 + 19 + 3) + 400),
])
def test_counts_are_those_worked_out_by_hand(changes, parameters, macs, elements):
    for dtype in ('fp32', 'bf16'):
        counts = count(replace(SMALL, dtype=dtype, **changes))
        assert (counts.parameters, counts.macs) == (parameters, macs)
        assert counts.bytes == elements * DTYPES[dtype].itemsize


@pytest.mark.parametrize('form', FORMS)
def test_parameters_macs_and_shape_are_those_of_the_module(form):
    case = Case(form, (7, 7), channels=16, size=13, batch_size=2)
    module = build(case)
    assert count(case).parameters == sum(parameter.numel() for parameter in module.parameters())
    with FlopCounterMode(display=False) as counter:
        y = module(torch.randn(2, 16, 13, 13))
    if form in ('unordered', 'square_parts', 'sequential_parts'):
        y = y[0]
    assert y.shape == (2, 16, *output_size(case))
    assert counter.get_total_flops() == 2 * count(case).macs


@pytest.mark.parametrize(('side', 'kernel_side'), [(5, 3), (5, 2), (7, 6), (3, 7), (1, 11), (56, 11)])
def test_products_inside_the_image_are_what_a_convolution_of_ones_adds_up(side, kernel_side):
    ones = F.conv1d(torch.ones(1, 1, side), torch.ones(1, 1, kernel_side), padding=(kernel_side - 1) // 2)
    assert taps_inside(side, kernel_side) == int(ones.sum())
    assert output_side(side, kernel_side) == ones.shape[-1]


def test_the_bound_adds_the_longer_of_arithmetic_and_memory_of_each_pass():
    counts = Counts(0, [Pass(100, 80, 10), Pass(100, 10, 90)])
    assert counts.bound(macs_per_second=10, bytes_per_second=30) == 80 / 10 + 90 / 30


def test_the_bound_leaves_out_products_with_padding():
    # A 3×3 kernel on one pixel meets it with its centre only.
    assert count(replace(SMALL, size=1)).passes[0][:2] == (8 * 9, 8)
