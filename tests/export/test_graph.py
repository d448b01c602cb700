"""The graph that is exported, against torch's own operators and the model that it was made of."""
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from inceptionnext_seg import create_model
from inceptionnext_seg.errors import SettingError
from inceptionnext_seg.export import FORMS, Graph
from inceptionnext_seg.export.convolutions import ResizeConcatConv2d, WinogradConv2d
from inceptionnext_seg.export.operators import ExactAdaptiveAvgPool2d, tap_matrix

from .models import SMALL, sensitive


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize('size', [1, 2, 5, 6, 7, 16, 23])
@pytest.mark.parametrize('output', [1, 2, 3, 6])
def test_pooling_is_adaptive_pooling_for_any_size(size, output):
    x = draw(2, 3, size, 11)
    assert torch.allclose(ExactAdaptiveAvgPool2d(output)(x), F.adaptive_avg_pool2d(x, output), rtol=0, atol=1e-13)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(('size', 'output'), [(1, 5), (3, 3), (4, 8), (5, 13), (9, 4), (7, 1)])
def test_the_matrix_of_an_axis_is_bilinear_interpolation(size, output, align_corners):
    x = draw(1, 1, size, 6)
    expected = F.interpolate(x, (output, 6), mode='bilinear', align_corners=align_corners)
    matrix = tap_matrix(size, output, align_corners, x).reshape(output, 3, size)[:, 1]      # the tap in the middle
    assert torch.allclose(matrix @ x, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('width', [1, 3, 4, 5, 22])
def test_winograd_along_the_width_is_a_convolution(width):
    x, conv = draw(2, 5, 6, width), nn.Conv2d(5, 7, 3, padding=1, dtype=torch.float64)
    assert torch.allclose(WinogradConv2d(conv.weight, conv.bias)(x), conv(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize('winograd', [False, True])
@pytest.mark.parametrize('align_corners', [False, True])
def test_a_convolution_of_resized_maps_runs_at_their_own_sizes(winograd, align_corners):
    maps = [draw(2, 3, 13, 18), draw(2, 4, 6, 9), draw(2, 2, 1, 4), draw(2, 2, 3, 2)]
    conv = nn.Conv2d(11, 5, 3, padding=1, dtype=torch.float64)
    resized = [F.interpolate(x, (13, 18), mode='bilinear', align_corners=align_corners) for x in maps]
    found = ResizeConcatConv2d(conv, [3, 4, 2, 2], align_corners, winograd)(maps)
    assert torch.allclose(found, conv(torch.cat(resized, 1)), rtol=0, atol=1e-12)


@pytest.fixture(scope='module', params=sorted(SMALL))
def model(request):
    return sensitive(create_model(request.param, **SMALL[request.param]))


@pytest.mark.parametrize('form', FORMS)
def test_a_graph_computes_what_its_model_does_and_leaves_it_as_it_was(model, form):
    images = draw(2, 3, 75, 98).float()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = Graph(model, form)
    assert (graph.note is None) == (form == 'plain' or 'UPer' in type(model.decode_head).__name__)
    with torch.no_grad():
        expected = model(images)
        assert (graph(images) - expected).abs().max() < 2e-5 * expected.abs().max()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_images_go_in_as_decoded_and_classes_with_confidences_come_out(model):
    images = torch.randint(0, 256, (2, 75, 98, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        classes, confidence = Graph(model, 'winograd', preprocess=True, postprocess=True)(images)
        expected = model(images.permute(0, 3, 1, 2)).softmax(1)
    assert classes.dtype == torch.uint8
    assert (classes == expected.argmax(1)).float().mean() > 0.999
    assert torch.allclose(confidence, expected.amax(1), atol=1e-4)


def test_a_wrong_form_is_one_message(model):
    with pytest.raises(SettingError, match="'fast'; expected: one of plain, factorized, winograd"):
        Graph(model, 'fast')
