from dataclasses import replace

import pytest
import torch
from timm.models.inception_next import InceptionDWConv2d as TimmInceptionDWConv2d

from studies.operators.cases import Case
from studies.operators.modules import PART, build


@pytest.mark.logits_match
def test_the_inception_form_is_timms():
    timm = TimmInceptionDWConv2d(32, square_kernel_size=3, band_kernel_size=11, branch_ratio=1 / 8)
    ours = build(Case('inception', (11, 11), channels=32))
    ours.load_state_dict(timm.state_dict())
    x = torch.randn(2, 32, 14, 14)
    torch.testing.assert_close(ours(x), timm(x))


def test_a_sequence_is_the_square_convolution_whose_kernel_is_its_outer_product():
    case = Case('sequential', (7, 7), channels=4)
    column, row = build(case)
    square = build(replace(case, form='square'))[0]
    with torch.no_grad():
        column.bias.zero_()
        square.weight.copy_(column.weight * row.weight)
        square.bias.copy_(row.bias)
    x = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(row(column(x)), square(x), atol=1e-5, rtol=1e-4)


def test_forms_of_the_same_convolutions_compute_the_same():
    case = Case('unordered', (5, 5), channels=4)
    unordered, parallel = build(case), build(replace(case, form='parallel'))
    parallel.load_state_dict(unordered.state_dict())
    x = torch.randn(PART + 3, 4, 9, 9)
    torch.testing.assert_close(parallel(x), unordered(x)[0] + unordered(x)[1])
    whole, parts = build(replace(case, form='sequential')), build(replace(case, form='sequential_parts'))
    parts.module.load_state_dict(whole.state_dict())
    assert [len(part) for part in parts(x)] == [PART, 3]
    torch.testing.assert_close(torch.cat(parts(x)), whole(x))
