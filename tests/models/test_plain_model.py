"""The backbones as other people's tools see them: counters, hooks, copies, functional calls, adapters."""
import copy
import pickle

import pytest
import timm
import torch
import torch.nn as nn
from helpers import assert_close, draw
from torch.utils.flop_counter import FlopCounterMode

from inceptionnext_seg import ConvNeXt, InceptionNeXt, accelerate
from inceptionnext_seg.models.checkpoint import load_pretrained

SMALL = dict(depths=(1, 1, 2, 1), dims=(16, 24, 32, 40))
FAMILIES = [InceptionNeXt, ConvNeXt]


def build(family, **settings):
    torch.manual_seed(0)
    return family(SMALL, **{'layer_scale_init_value': 0.5, **settings}).eval()


def features(model):
    return list(model(draw(2, 3, 64, 64).float()))


@pytest.mark.parametrize('accelerated', [False, True], ids=['plain', 'accelerated'])
def test_torchs_counter_counts_the_flops_of_timms_model(accelerated, tmp_path):
    reference = timm.create_model('inception_next_atto').eval()
    image = torch.zeros(1, 3, 64, 64)
    torch.save(reference.state_dict(), tmp_path / 'atto.pth')
    model = InceptionNeXt('atto').eval()
    load_pretrained(model, tmp_path / 'atto.pth')
    if accelerated:
        accelerate(model)
    counts = []
    for call in (reference.forward_features, model):
        for context in (torch.no_grad(), torch.enable_grad()):
            with context, FlopCounterMode(display=False) as counter:
                call(image)
            counts.append(counter.get_total_flops())
    assert len(set(counts)) == 1 and counts[0] > 5e7


@pytest.mark.parametrize('family', FAMILIES)
def test_a_hook_on_every_leaf_sees_every_product(family):
    """As thop and other counters count: MACs of each convolution from the shapes that its hook sees."""
    model, macs = build(family), []

    def count(conv, inputs, output):
        macs.append(output.numel() // output.shape[0] * conv.weight[0].numel())

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 64, 64))
    assert sum(macs) * 2 == counter.get_total_flops()


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=['deepcopy', 'pickle'])
@pytest.mark.parametrize('family', FAMILIES)
def test_a_copy_computes_the_same(family, copied):
    model = build(family, drop_path_rate=0.2, out_norm_cfg=dict(type='BN'))
    assert_close(features(copied(model)), features(model), 0)


@pytest.mark.parametrize('accelerated', [False, True], ids=['plain', 'accelerated'])
@pytest.mark.parametrize('family', FAMILIES)
def test_a_functional_call_takes_other_parameters(family, accelerated):
    model, other = build(family), build(family)
    for parameter in other.parameters():
        nn.init.uniform_(parameter, -0.3, 0.3)
    if accelerated:
        accelerate(model)
    found = torch.func.functional_call(model, dict(other.named_parameters()), (draw(2, 3, 64, 64).float(), ))
    assert_close(list(found), features(other), 1e-5)


def test_peft_trains_a_lora_on_fc1():
    peft = pytest.importorskip('peft')
    model = build(InceptionNeXt)
    frozen = {name: value.clone() for name, value in model.state_dict().items() if 'num_batches' not in name}
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=['mlp.fc1'], r=2, init_lora_weights=False))
    optimizer = torch.optim.SGD([p for p in wrapped.parameters() if p.requires_grad], 0.1)
    losses = []
    for _ in range(3):
        loss = sum(y.square().mean() for y in features(wrapped))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    merged = wrapped.unload().state_dict()
    assert all(torch.equal(merged[name], value) for name, value in frozen.items())
