import pytest
import torch

from studies.throughput.limits import count_products, limit_seconds


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
