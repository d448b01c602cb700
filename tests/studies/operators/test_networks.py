"""Networks with other convolutions: shapes, and MACs worked out by hand."""
import pytest
import torch
import torch.nn as nn

from studies.operators.networks import build, factorized, macs, overlaps, parallel, replace_convolutions


@pytest.mark.parametrize(('name', 'own', 'sequential', 'side_by_side'), [
    # ResNet-18 at 224×224. Its 3×3 convolutions, by output side: 4 of 64 → 64 at 56 with 56² · 64² · 9 MACs each, and
    # at 28, 14 and 7 one that doubles the channels, with half of that, and three with as many; the stem has
    # 112² · 3 · 64 · 49 MACs, three 1×1 convolutions 28² · 64 · 128 each.
    # n×1 → 1×n: 6 for 9, but where the stride is 2 the first of two passes, n×1 on the narrow side, has twice the
    # columns: 28 · 56 · 64 · 64 · 3 + 28² · 64 · 128 · 3, the same. The stem has 112 · 224 · 3 · 3 · 7 and
    # 112² · 3 · 64 · 7. n×1 ‖ 1×n: 6 for 9, in the stem 14 for 49.
    ('resnet18',
     112**2 * 192 * 49 + 56**2 * 64**2 * 9 * (4 + 3 * 3.5) + 3 * 28**2 * 64 * 128,
     112 * 224 * 63 + 112**2 * 192 * 7 + 56**2 * 64**2 * 6 * (4 + 3 * 3.5) + 3 * 28**2 * 64 * 128,
     112**2 * 192 * 14 + 56**2 * 64**2 * 6 * (4 + 3 * 3.5) + 3 * 28**2 * 64 * 128),
    # ConvNeXt-A has (2, 2, 6, 2) blocks of 40, 80, 160, 320 channels at 56, 28, 14, 7. A block of width C has
    # 49 C + 8 C² MACs a pixel, patches 16 · 3 · 40 at 56, and 4 · C · 2C where it doubles. Only the 49 become 14.
    *[('convnext_atto', *(
        56**2 * 48 * 40 + sum(4 * c * 2 * c * side**2 for c, side in ((40, 28), (80, 14), (160, 7)))
        + sum(n * side**2 * (taps * c + 8 * c * c) for n, c, side in (
            (2, 40, 56), (2, 80, 28), (6, 160, 14), (2, 320, 7))) for taps in (49, 14, 14)))],
])
def test_the_macs_of_a_network_are_those_worked_out_by_hand(name, own, sequential, side_by_side):
    head = dict(resnet18=512, convnext_atto=320)
    with torch.device('meta'):
        for form, expected in (('n×n', own), ('n×1 → 1×n', sequential), ('n×1 ‖ 1×n', side_by_side)):
            model = build(name, form).eval()
            assert macs(model, 224) == expected
            assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
            assert model.get_classifier().in_features == head[name]


def test_a_replaced_convolution_has_the_shape_stride_and_bias_of_its_own():
    conv = nn.Conv2d(6, 12, 5, stride=2, padding=2, groups=3)
    x = torch.randn(2, 6, 15, 11)
    for made in (factorized(conv), parallel(conv)):
        assert made(x).shape == conv(x).shape
    with torch.no_grad():     # of a kernel that is an outer product it is the same function
        single = nn.Conv2d(1, 1, 5, stride=2, padding=2)
        column, row = factorized(single)
        single.weight.copy_(column.weight * row.weight)
        single.bias.copy_(row.bias)
    x = torch.randn(2, 1, 15, 11)
    torch.testing.assert_close(row(column(x)), single(x))


def test_patches_and_1x1_convolutions_stay():
    stays = [nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, (1, 3))]
    assert not any(map(overlaps, stays))
    model = nn.Sequential(*stays, nn.Conv2d(8, 8, 3, padding=1))
    replaced = replace_convolutions(model, 'n×1 → 1×n')
    assert list(replaced)[:3] == stays and [c.kernel_size for c in replaced[3]] == [(3, 1), (1, 3)]
    with pytest.raises(ValueError, match='3x3'):
        replace_convolutions(model, '3x3')
