"""``accelerate`` and ``restore``: what changes, what does not, and what stays as it is and why."""
import copy
import pickle

import pytest
import torch
import torch.nn as nn
from helpers import assert_close, draw
from mmengine.registry import init_default_scope
from mmseg.models import UPerHead
from mmseg.registry import MODELS

from inceptionnext_seg import ConvNeXt, InceptionDWConv2d, InceptionNeXt, accelerate, restore
from inceptionnext_seg._fast import Fast, plain_type
from inceptionnext_seg.acceleration import PARTS
from inceptionnext_seg.errors import SettingError

ARCH = dict(depths=(1, 1, 2, 1), dims=(16, 24, 32, 40))


@MODELS.register_module()
class ReversedUPerHead(UPerHead):
    """A head with a forward that ``accelerate`` cannot know."""

    def forward(self, inputs):
        return super().forward(inputs).flip(1)


def backbone(family=InceptionNeXt, **settings):
    torch.manual_seed(0)
    model = family(ARCH, **{'layer_scale_init_value': 0.5, **settings})
    return model.double().eval()


def segmentor(head='UPerHead', **settings):
    init_default_scope('mmseg')
    torch.manual_seed(0)
    common = dict(num_classes=5, norm_cfg=dict(type='BN'), align_corners=False, dropout_ratio=0.)
    return MODELS.build(dict(
        type='EncoderDecoder', backbone=dict(type='InceptionNeXt', arch=ARCH, out_norm_cfg=dict(type='BN')),
        decode_head=dict(common, type=head, in_channels=ARCH['dims'], in_index=[0, 1, 2, 3], channels=16,
                         loss_decode=dict(type='CrossEntropyLoss')),
        auxiliary_head=dict(common, type='FCNHead', in_channels=32, in_index=2, channels=8, num_convs=1,
                            concat_input=False, loss_decode=dict(type='CrossEntropyLoss')),
        test_cfg=dict(mode='whole'), **settings)).double().eval()


def features(model, image=None):
    with torch.no_grad():
        return list(model(draw(2, 3, 64, 64) if image is None else image))


# What changes and what does not


def test_parameters_buffers_modules_and_keys_stay_the_very_same_objects():
    model = segmentor()
    before = [dict(model.named_parameters()), dict(model.named_buffers()), dict(model.named_modules())]
    keys = list(model.state_dict())
    accelerate(model)
    after = [dict(model.named_parameters()), dict(model.named_buffers()), dict(model.named_modules())]
    for old, new in zip(before, after, strict=True):
        assert list(old) == list(new) and all(old[name] is new[name] for name in old)
    assert keys == list(model.state_dict())
    assert isinstance(model, Fast) and plain_type(model).__name__ == 'EncoderDecoder'


def test_restore_gives_the_same_bits_classes_and_layout_as_before():
    model = segmentor()
    plain = {name: type(module) for name, module in model.named_modules()}
    strides = [p.stride() for p in model.parameters()]
    expected = model.encode_decode(draw(1, 3, 64, 64), [dict(img_shape=(64, 64), ori_shape=(64, 64))])
    accelerate(model)
    assert {name for name, module in model.named_modules() if type(module) is not plain[name]}
    assert restore(model) is model
    assert {name: type(module) for name, module in model.named_modules()} == plain
    assert [p.stride() for p in model.parameters()] == strides
    assert not any('forms' in vars(module) or '_was_contiguous' in vars(module) for module in model.modules())
    found = model.encode_decode(draw(1, 3, 64, 64), [dict(img_shape=(64, 64), ori_shape=(64, 64))])
    assert torch.equal(found, expected)


def test_a_model_in_channels_last_stays_so_when_it_is_restored():
    model = backbone().to(memory_format=torch.channels_last)
    accelerate(model)
    restore(model)
    assert model.stem[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_accelerating_twice_is_accelerating_once_with_the_last_settings():
    model = backbone()
    accelerate(model, blocks='torch')
    report = accelerate(model, token_mixer=False)
    assert not any('InceptionDWConv2d' in fast for fast in report.swapped.values())
    assert model.stages[0].blocks[0].form('blocks') == 'auto'
    assert type(model.stages[0].blocks[0].token_mixer) is InceptionDWConv2d


@pytest.mark.parametrize(
    'copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=['copy', 'pickle'])
def test_a_copy_of_an_accelerated_model_is_accelerated_and_can_be_restored(copied):
    model = backbone(out_norm_cfg=dict(type='BN'))
    expected = features(model)
    accelerate(model)
    other = copied(model)
    assert_close(features(other), expected, 1e-10)
    assert isinstance(other.stages[0].blocks[0], Fast)
    assert_close(features(restore(other)), expected, 0)
    assert isinstance(model.stages[0].blocks[0], Fast)


@pytest.mark.parametrize('fused', [False, True], ids=['plain', 'fused'])
def test_an_optimizer_that_was_built_before_goes_on_with_its_state(fused):
    """A fused one pairs a parameter and its state in the order of memory, which acceleration changes."""
    curves = []
    for accelerated in (False, True):
        model = backbone(drop_path_rate=0.2).train()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=fused)
        curve = []
        for i in range(6):
            if accelerated and i == 3:
                accelerate(model)
            torch.manual_seed(i)
            loss = sum(y.square().mean() for y in model(draw(2, 3, 64, 64, seed=i)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.detach())
        curves.append(torch.stack(curve))
    torch.testing.assert_close(*curves, rtol=1e-8, atol=0)


def test_a_fused_optimizer_goes_on_from_a_checkpoint_of_a_model_in_the_other_layout():
    def steps(model, optimizer, first):
        for i in range(first, first + 3):
            loss = sum(y.square().mean() for y in model(draw(2, 3, 64, 64, seed=i)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.detach()

    plain = backbone().train()
    optimizer = torch.optim.AdamW(plain.parameters(), 1e-2, fused=True)
    steps(plain, optimizer, 0)
    saved = copy.deepcopy(dict(model=plain.state_dict(), optimizer=optimizer.state_dict()))
    expected = steps(plain, optimizer, 3)
    fast = backbone().train()
    accelerate(fast)
    resumed = torch.optim.AdamW(fast.parameters(), 1e-2, fused=True)
    steps(fast, resumed, 0)
    fast.load_state_dict(saved['model'])
    resumed.load_state_dict(saved['optimizer'])
    torch.testing.assert_close(steps(fast, resumed, 3), expected, rtol=1e-8, atol=0)


def test_a_checkpoint_of_either_form_loads_into_the_other():
    plain, fast = backbone(), InceptionNeXt(ARCH).double().eval()
    accelerate(fast)
    fast.load_state_dict(plain.state_dict(), strict=True)
    assert_close(features(fast), features(plain), 1e-10)
    other = InceptionNeXt(ARCH).double().eval()
    other.load_state_dict(fast.state_dict(), strict=True)
    assert_close(features(other), features(plain), 0)


def test_a_module_converted_later_stays_accelerated():
    model = backbone()
    accelerate(model)
    expected = features(backbone().float(), draw(2, 3, 64, 64).float())
    assert_close(features(model.float(), draw(2, 3, 64, 64).float()), expected, 1e-5)
    assert isinstance(model.stages[0].blocks[0], Fast)


# Parts and forms


@pytest.mark.parametrize('part', PARTS)
def test_each_part_can_be_left_alone_by_itself(part):
    model = segmentor().train()
    report = accelerate(model, **{part: False})
    everything = accelerate(segmentor()).swapped
    names = dict(token_mixer='FastInceptionDWConv2d', blocks='FastMetaNeXtBlock', prediction='FastEncoderDecoder')
    if part in names:
        assert names[part] in everything.values() and names[part] not in report.swapped.values()
    else:
        assert model.decode_head.form(part) is False
    losses = []
    for other in (model, restore(copy.deepcopy(model))):
        image, labels = draw(2, 3, 64, 64), torch.arange(2 * 64 * 64).view(2, 64, 64) % 5
        logits = other.decode_head(other.extract_feat(image))
        losses.append(nn.functional.cross_entropy(nn.functional.interpolate(logits, (64, 64), mode='bilinear'), labels))
    torch.testing.assert_close(*losses, rtol=1e-10, atol=0)


def test_with_every_part_left_alone_nothing_is_swapped():
    model = segmentor()
    report = accelerate(model, **dict.fromkeys(PARTS, False), channels_last=False)
    assert not report.swapped and not any(isinstance(module, Fast) for module in model.modules())


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_a_forms_name_is_for_the_main_operator_of_a_part_and_the_others_fall_back_by_themselves(training):
    """In eval mode there is no native batch normalization, and a stem of stride 4 is no native product."""
    model, plain = segmentor().train(training), segmentor().train(training)
    accelerate(model, blocks='native', convolutions='native', token_mixer='native')
    image = draw(2, 3, 64, 64)
    assert_close([model.decode_head(model.extract_feat(image))], [plain.decode_head(plain.extract_feat(image))], 1e-10)


@pytest.mark.parametrize('part', PARTS)
def test_a_form_that_a_part_does_not_have_is_an_error_that_names_the_part_the_value_and_those_there_are(part):
    model = backbone()
    with pytest.raises(SettingError) as raised:
        accelerate(model, **{part: 'quick'})
    assert all(word in str(raised.value) for word in (part, "'quick'", "'auto'", "'torch'", *map(repr, PARTS[part])))
    assert not any(isinstance(module, Fast) for module in model.modules())


# What is left


def test_the_report_names_what_was_swapped_and_what_was_left_with_the_reason():
    report = accelerate(segmentor('ReversedUPerHead'))
    assert report.swapped['backbone.stages.0.blocks.0'] == 'FastMetaNeXtBlock'
    assert 'ReversedUPerHead' in report.left['decode_head'] and report.swapped['auxiliary_head'] == 'FastFCNHead'
    assert 'decode_head' in str(report) and 'ReversedUPerHead' in str(report) and '5 MetaNeXtBlock' in str(report)


def test_a_model_of_which_nothing_is_known_stays_as_it_is_and_the_report_says_so():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    expected = model(draw(1, 3, 8, 8).float())
    report = accelerate(model, channels_last=False)
    assert not report.swapped and 'Conv2d' in report.left['0'] and '1' not in report.left
    assert torch.equal(model(draw(1, 3, 8, 8).float()), expected)


def test_a_module_whose_forward_was_replaced_is_left_and_the_report_says_so():
    model = backbone()
    block = model.stages[0].blocks[0]
    block.forward = lambda x: 2 * x
    report = accelerate(model)
    assert 'forward' in report.left['stages.0.blocks.0'] and not isinstance(block, Fast)


@pytest.mark.parametrize('part', ['mlp.fc1', 'mlp.act', 'mlp', 'drop_path', 'token_mixer.dwconv_w'])
def test_a_hook_inside_a_block_is_called_as_in_the_plain_block(part):
    plain, fast = (backbone(drop_path_rate=0.5) for _ in range(2))
    accelerate(fast)
    calls = []
    for model in (plain, fast):
        model.stages[2].blocks[1].get_submodule(part).register_forward_hook(lambda *_, m=model: calls.append(m))
    assert_close(features(fast), features(plain), 1e-10)
    assert len(calls) == 2


@pytest.mark.parametrize('part', ['mlp.fc1', 'mlp.fc2', 'token_mixer.dwconv_hw'])
def test_a_parametrized_convolution_is_run_as_it_is(part):
    plain, fast = backbone(), backbone()
    accelerate(fast)
    for model in (plain, fast):
        torch.nn.utils.parametrizations.weight_norm(model.stages[1].blocks[0].get_submodule(part))
    assert_close(features(fast), features(plain), 1e-10)


def test_loras_of_peft_train_in_an_accelerated_model():
    peft = pytest.importorskip('peft')
    plain, fast = (backbone().float() for _ in range(2))
    accelerate(fast)
    grads = []
    for model in (plain, fast):
        torch.manual_seed(0)
        wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=['mlp.fc1'], init_lora_weights=False))
        sum(y.sum() for y in wrapped(draw(2, 3, 64, 64).float())).backward()
        grads.append({name: p.grad for name, p in wrapped.named_parameters() if p.grad is not None})
    assert grads[0] and grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-3, atol=1e-5 * float(grad.abs().max()), msg=name)


def test_convnext_is_accelerated_too():
    model = backbone(ConvNeXt)
    expected = features(model)
    assert 'FastMetaNeXtBlock' in accelerate(model).swapped.values()
    assert_close(features(model), expected, 1e-10)


def test_under_distributed_data_parallel_the_layout_stays_and_the_report_says_so(tmp_path):
    torch.distributed.init_process_group('gloo', f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(backbone())
        report = accelerate(model)
        assert not report.channels_last and 'DistributedDataParallel' in report.left['layout']
        assert model.module.stem[0].weight.is_contiguous()
        expected = features(backbone())
        assert_close(features(model), expected, 1e-10)
    finally:
        torch.distributed.destroy_process_group()
