from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from timm.models.inception_next import InceptionDWConv2d as TimmInceptionDWConv2d

from inceptionnext_seg.models.token_mixers import InceptionDWConv2d
from studies.operators.cases import Case
from studies.operators.modules import BranchedConv2d, branch_kernels, build


@pytest.mark.logits_match
def test_the_parallel_form_is_timms():
    case = Case('inception', (11, 11), 1 / 8, channels=32)
    timm = TimmInceptionDWConv2d(32, square_kernel_size=3, band_kernel_size=11, branch_ratio=1 / 8)
    ours = build(case)
    assert isinstance(ours, InceptionDWConv2d)
    ours.load_state_dict(timm.state_dict())
    branched = BranchedConv2d(32, branch_kernels(case), 1 / 8, depthwise=True)
    branched.load_state_dict(dict(zip(branched.state_dict(), timm.state_dict().values(), strict=True)))
    x = torch.randn(2, 32, 14, 14)
    torch.testing.assert_close(ours(x), timm(x))
    torch.testing.assert_close(branched(x), timm(x))


@pytest.mark.parametrize('ratio', [1.0, 1 / 2])
def test_branches_that_share_channels_are_added(ratio):
    module = BranchedConv2d(8, [(3, 3), (1, 5), (5, 1)], ratio, depthwise=False)
    x = torch.randn(2, 8, 6, 6)
    taken = int(8 * ratio)
    added = sum(F.conv2d(x[:, -taken:], conv.weight, conv.bias, padding='same') for conv in module.convs)
    torch.testing.assert_close(module(x), torch.cat((x[:, :8 - taken], added), dim=1))


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
