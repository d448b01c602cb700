"""``inceptionnext_seg.cuda_graph``: what it takes and gives back. The capture itself needs a GPU: tests/gpu."""
import pytest
import torch
from gpu.models import SMALL, batch, build

import inceptionnext_seg
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.ops import measured
from inceptionnext_seg.segmentation import graphed

CPU = torch.device('cpu')


@pytest.fixture
def model():
    return build(SMALL, CPU).eval()


@pytest.fixture
def on_cpu(monkeypatch):
    """As if a CPU had graphs: a replay calls the function again."""
    class Graph:
        def __init__(self, call):
            assert not measured.applies() and torch.is_inference_mode_enabled()
            self.call, self.found = call, call()

        def replay(self):
            self.found.copy_(self.call())

    def capture(call):
        graph = Graph(call)
        return graph, graph.found

    monkeypatch.setattr(graphed, 'capture', capture)
    monkeypatch.setattr(graphed, 'DEVICE', 'cpu')


def test_classes_are_those_without_it_and_stay_after_the_next_call(model, on_cpu):
    first, second = (batch(SMALL, CPU, seed)[0] for seed in range(2))
    metas = [dict(img_shape=first.shape[2:])] * len(first)
    predict = inceptionnext_seg.cuda_graph(model, first)
    with torch.inference_mode():
        expected = [model.encode_decode_argmax(images, metas) for images in (second, first)]
    found = [predict(images) for images in (second, first)]
    assert all(map(torch.equal, found, expected))
    with torch.no_grad():
        model.decode_head.conv_seg.bias[3] += 1e3
    assert (predict(first) == 3).all()


def test_images_of_another_shape_are_one_message(model, on_cpu):
    predict = inceptionnext_seg.cuda_graph(model, batch(SMALL, CPU)[0])
    with pytest.raises(UserError, match=r'images are \(2, 3, 32, 64\), .* expected: \(2, 3, 64, 64\), .* as captured'):
        predict(torch.zeros(2, 3, 32, 64))


def test_what_cannot_be_captured_is_one_message(model):
    images, _ = batch(SMALL, CPU)
    with pytest.raises(UserError, match='images and model are on cpu; expected: one CUDA device'):
        inceptionnext_seg.cuda_graph(model, images)
    with pytest.raises(UserError, match=r'the model is in training; .* Next: model\.eval\(\)'):
        inceptionnext_seg.cuda_graph(model.train(), images)
    with pytest.raises(UserError, match=r'the model is a InceptionNeXt .* after inceptionnext_seg\.accelerate'):
        inceptionnext_seg.cuda_graph(model.backbone, images)


def test_a_capture_that_fails_is_one_message(model, on_cpu, monkeypatch):
    def fail(call):
        raise RuntimeError('operation not permitted when stream is capturing')

    monkeypatch.setattr(graphed, 'capture', fail)
    with pytest.raises(UserError, match='the prediction cannot be captured: RuntimeError: operation not permitted'):
        inceptionnext_seg.cuda_graph(model, batch(SMALL, CPU)[0])
