import contextlib

import pytest
import torch

from studies.throughput import candidates
from studies.throughput import step as step_module
from studies.throughput.candidates import AS_SHIPPED, STOCK, candidate_label
from studies.throughput.setting import Setting
from studies.throughput.step import Step, candidate_step

from .common import TINY, small


def test_a_training_step_changes_every_trainable_parameter_and_an_inference_step_none():
    for mode in ('train', 'infer'):
        step = Step(small(), Setting(mode=mode, batch_size=2, size=64), 'nchw')
        before = {name: p.detach().clone() for name, p in step.model.named_parameters()}
        step()
        same = [name for name, p in step.model.named_parameters() if torch.equal(p, before[name])]
        assert (not same) if mode == 'train' else len(same) == len(before)


@pytest.mark.parametrize('layout', ['nchw', 'nhwc'])
def test_the_layout_reaches_images_and_weights(layout):
    step = Step(small(), TINY, layout)
    images, _ = next(step.batches)
    weight = step.model.backbone.stages[1].downsample[1].weight
    for tensor in (images, weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last) == (layout == 'nhwc')


def test_inference_gives_class_numbers_at_the_size_of_the_image():
    step = Step(small(), Setting(mode='infer', batch_size=2, size=64), 'nchw')
    images, samples = next(step.batches)
    with torch.inference_mode():
        labels = step.forward(images, samples)
    assert labels.shape == (2, 64, 64) and labels.max() < 18


def test_stock_as_shipped_is_stock_with_memory_given_back(monkeypatch):
    entered = []

    @contextlib.contextmanager
    def giving_back():
        entered.append(True)
        yield

    monkeypatch.setattr(step_module, 'giving_back', giving_back)
    monkeypatch.setattr(candidates, 'stock_config', lambda: (small(), 'a backbone'))
    for name in (STOCK, AS_SHIPPED):
        assert not entered
        candidate_step(name, None, TINY, 'nchw')()
    assert entered
    assert candidate_label(AS_SHIPPED) == f'{candidate_label(STOCK)} as shipped'
