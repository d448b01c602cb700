"""What limits a backbone: the products that are computed, and what the table says of seconds worked by hand."""
import pytest
import torch
import torch.nn as nn

from studies.backbone_limit import PRODUCTS, Product, forms_of, products_alone, products_of, report, table, words


def test_products_are_the_dense_convolutions_that_a_backbone_calls():
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 32, 1), nn.GELU(),
        nn.Conv2d(32, 8, 1), nn.Conv2d(8, 16, 2, stride=2))
    assert products_of(backbone, torch.zeros(2, 3, 32, 48)) == [
        Product(2 * 8 * 12, 48, 8, True), Product(192, 8, 32, False), Product(192, 32, 8, False),
        Product(2 * 4 * 6, 32, 16, False)]


@pytest.mark.parametrize('rows', [3, 5000])     # in one block, and in several
def test_every_form_of_a_product_computes_it(rows):
    x, w, y = torch.randn(rows, 24), torch.randn(512, 24), torch.empty(rows, 512)
    expected = x.double() @ w.double().T
    with torch.inference_mode():
        for name, run in forms_of('forward', x, w, y, None, None, torch.zeros(512)).items():
            y.zero_()
            found = run() if name == 'onednn' else (run(), y)[1]
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
        for name, right in (('to_input', y.double() @ w.double()), ('to_weight', y.double().T @ x.double())):
            for run in forms_of(name, x, w, y, dx := torch.zeros_like(x), dw := torch.zeros_like(w), None).values():
                dx.zero_(), dw.zero_()
                run()
                torch.testing.assert_close((dx if name == 'to_input' else dw).double(), right, rtol=1e-4, atol=0.1)


@pytest.mark.parametrize(('mode', 'count'), [('infer', 2), ('train', 5)])
def test_a_training_step_has_three_products_each_and_two_of_the_image(mode, count, monkeypatch):
    run = []
    monkeypatch.setattr('studies.backbone_limit.fastest', lambda forms: lambda: run.append(next(iter(forms))))
    products_alone([Product(4, 3, 8, True), Product(4, 8, 2, False)], mode, torch.float32)()
    assert run == ['whole'] * count


def process(load=0.1, **seconds):
    return dict(busy_before=0.01, load_average=load, rows=[
        dict(mode='infer', dtype='fp32', candidate=name, seconds=values) for name, values in seconds.items()])


def result(*processes):
    return dict(environment=dict(command='python x', commit='abc', date='2026-01-02T03:04', device_name='Some CPU',
                                 versions=dict(torch='2.14')), threads=2, size=512, images=dict(infer=1, train=2),
                processes=list(processes))


def test_a_goal_is_out_of_reach_where_products_alone_are_not_as_far_ahead():
    assert PRODUCTS == 'products'
    far = process(convnext=[.3, .3, .3], inceptionnext=[.2, .2, .2], products=[.1, .1, .1])
    line = table(result(far)).splitlines()[2]
    assert line == ('| inference, fp32, 1 × 512×512 | 0.3 | 0.2 | 0.1 | 1.50 | 3.00 | 1.25 | '
                    'not forbidden |')
    near = process(0.7, convnext=[.3, .3, .3], inceptionnext=[.28, .28, .28], products=[.25, .25, .25])
    assert table(result(near)).endswith('| 1.20 | 1.25 | out of reach, by one process |')
    both = result(near, near, far)
    assert '| 1.20 (1.20–3.00) | 1.25 | out of reach, the interval covers the goal |' in table(both)
    assert words(result(near)) == 'One process.' and words(both).startswith('3 processes; ')
    assert words(both) in report(both) and 'load average 0.1 to 0.7' in report(both)
