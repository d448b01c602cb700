"""The backbones against timm's and mmpretrain's, and every option of MetaNeXt.

Weights are drawn at a scale at which every layer matters: layer scale near 1, where models start at 1e-6 and a wrong
block would pass unseen, and BatchNorm statistics away from 0 and 1.
"""
import copy
import inspect
import logging

import pytest
import timm
import torch
import torch.nn as nn
from mmengine.registry import MODELS
from timm.models.convnext import ConvNeXt as TimmConvNeXt
from timm.models.inception_next import MetaNeXt as TimmMetaNeXt

from inceptionnext_seg import ConvNeXt, InceptionDWConv2d, InceptionNeXt
from inceptionnext_seg.errors import SettingError
from inceptionnext_seg.models.token_mixers import DWConv2d

INCEPTION_NEXT = ('atto', 'tiny', 'small', 'base')
CONVNEXT = ('atto', 'femto', 'pico', 'nano', 'tiny', 'small', 'base')
SMALL = dict(depths=(1, 1, 1, 1), dims=(16, 32, 48, 64))
SIZES = ((224, 224), (97, 131))


def randomize(model, seed=0):
    """Draw weights, biases, layer scales and BatchNorm statistics at which every layer moves the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith('num_batches_tracked'):
                value.fill_(7)
            elif value.ndim > 1:
                value.normal_(std=value[0].numel()**-0.5, generator=generator)
            elif name.endswith(('gamma', 'weight', 'running_var')):
                value.uniform_(0.5, 1.5, generator=generator)
            else:
                value.normal_(std=0.2, generator=generator)
    return model


def draw_image(*shape, dtype=torch.float32, seed=1):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def assert_equal_to(tolerance, found, wanted, floor=0.):
    """Shapes agree, and no element is further away than ``tolerance`` times the tensor's largest element.

    ``floor`` times the largest element of all is the least scale to compare with: behind a BatchNorm in training mode a
    bias has no gradient, and what is computed for it is rounding.
    """
    found, wanted = list(found), list(wanted)
    assert len(found) == len(wanted)
    least = max(floor * max(b.abs().max().item() for b in wanted), 1e-30)
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert a.shape == b.shape, i
        error = (a - b).abs().max().item() / max(b.abs().max().item(), least)
        assert error <= tolerance, f'tensor {i}: relative error {error:.2e}'


def timm_features(model, image):
    return model.forward_intermediates(image, intermediates_only=True)


def without_head(model):
    return {name: value for name, value in model.state_dict().items() if not name.startswith(('head.', 'norm_pre.'))}


def backward(outputs):
    """A loss that no symmetry of the network hides from, then its gradients."""
    sum((output * draw_image(*output.shape, dtype=output.dtype, seed=i)).sum()
        for i, output in enumerate(outputs)).backward()


def gradients(model, outputs, image):
    model.zero_grad()
    image.grad = None
    backward(outputs)
    return dict({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, image=image.grad)


@pytest.fixture(scope='module', params=INCEPTION_NEXT)
def inception_pair(request):
    """Our InceptionNeXt with the random weights of timm's, and timm's."""
    timm_model = randomize(timm.create_model(f'inception_next_{request.param}'))
    return InceptionNeXt(request.param), timm_model


@pytest.fixture(scope='module')
def mmpretrain_convnext():
    """mmpretrain's ConvNeXt class, where mmpretrain can be imported."""
    try:
        from mmpretrain.models.backbones import ConvNeXt as MMConvNeXt
    except (ImportError, TypeError) as error:  # TypeError: transformers 5 beside mmpretrain 1.3
        pytest.skip(f'mmpretrain cannot be imported: {error}')
    return MMConvNeXt


# Against timm: InceptionNeXt


@pytest.mark.logits_match
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_inception_next_features_and_statistics_equal_timm(inception_pair, training, size):
    ours, theirs = inception_pair
    ours.load_state_dict(without_head(theirs))
    ours.train(training), theirs.train(training)
    image = draw_image(1 if size == (224, 224) else 2, 3, *size)
    with torch.no_grad():
        assert_equal_to(1e-5, ours(image), timm_features(theirs, image))
    wanted = without_head(theirs)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-5, msg=name)
    counts = {int(value) for name, value in wanted.items() if name.endswith('num_batches_tracked')}
    assert len(counts) == 1


@pytest.mark.logits_match
def test_inception_next_gradients_equal_timm(inception_pair):
    ours, theirs = inception_pair
    ours.load_state_dict(without_head(theirs))
    ours.train(), theirs.train()
    image = draw_image(2, 3, 65, 97).requires_grad_()
    found = gradients(ours, ours(image), image)
    wanted = gradients(theirs, timm_features(theirs, image), image)
    ours.zero_grad(), theirs.zero_grad()
    assert found.keys() == wanted.keys() and len(found) == len(list(ours.parameters())) + 1
    assert_equal_to(1e-4, found.values(), [wanted[name] for name in found], floor=1e-2)


@pytest.mark.logits_match
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_inception_next_gradients_equal_timm_in_float64(training):
    theirs = randomize(timm.create_model('inception_next_atto').double()).train(training)
    ours = InceptionNeXt('atto').double().train(training)
    ours.load_state_dict(without_head(theirs))
    image = draw_image(2, 3, 97, 131, dtype=torch.float64).requires_grad_()
    found = gradients(ours, ours(image), image)
    wanted = gradients(theirs, timm_features(theirs, image), image)
    assert found.keys() == wanted.keys()
    assert_equal_to(1e-10, found.values(), [wanted[name] for name in found], floor=1e-3)


@pytest.mark.parametrize('arch, millions', [('atto', 4.2), ('tiny', 28), ('small', 49), ('base', 87)])
def test_inception_next_has_the_parameters_of_the_paper(arch, millions):
    with torch.device('meta'):
        ours, theirs = InceptionNeXt(arch), timm.create_model(f'inception_next_{arch}')
    found = sum(p.numel() for p in ours.parameters())
    assert found == sum(p.numel() for name, p in theirs.named_parameters() if not name.startswith('head.'))
    # The classifier: C → 3 C, LayerNorm, 3 C → 1000.
    c = ours.dims[-1]
    with_head = found + (c * 3 * c + 3 * c) + 2 * 3 * c + (3 * c * 1000 + 1000)
    assert with_head == sum(p.numel() for p in theirs.parameters())
    assert round(with_head / 1e6, 1 if millions < 10 else 0) == millions


@pytest.mark.parametrize('size', [(32, 32), (33, 63), (64, 95), (97, 131), (224, 224), (511, 513), (512, 2048)])
def test_any_image_size_gives_the_output_sizes_of_timm(size):
    with torch.device('meta'):
        ours, theirs, image = InceptionNeXt(SMALL), TimmMetaNeXt(**SMALL), torch.empty(2, 3, *size)
        assert [f.shape for f in ours(image)] == [f.shape for f in timm_features(theirs, image)]


@pytest.mark.parametrize('arch', INCEPTION_NEXT)
def test_drop_path_rates_equal_timm_block_by_block(arch):
    with torch.device('meta'):
        models = InceptionNeXt(arch, drop_path_rate=0.4), timm.create_model(f'inception_next_{arch}', drop_path_rate=.4)
    found, wanted = ([getattr(block.drop_path, 'drop_prob', 0.) for stage in model.stages for block in stage.blocks]
                     for model in models)
    assert found == pytest.approx(wanted) and found[0] == 0 and found[-1] == pytest.approx(0.4)


@pytest.mark.logits_match
@pytest.mark.parametrize('ours_class, timm_class', [(InceptionNeXt, TimmMetaNeXt), (ConvNeXt, TimmConvNeXt)])
def test_drop_path_drops_the_same_blocks_as_timm_for_the_same_seed(ours_class, timm_class):
    arch = dict(depths=(2, 2, 2, 2), dims=SMALL['dims'])
    theirs = randomize(timm_class(**arch, drop_path_rate=0.6, num_classes=0).double())
    ours = ours_class(arch, drop_path_rate=0.6, out_norm_cfg=None).double()
    ours.load_state_dict(without_head(theirs))
    image = draw_image(8, 3, 64, 64, dtype=torch.float64).requires_grad_()
    torch.manual_seed(3)
    outputs = ours(image)
    found = gradients(ours, outputs, image)
    torch.manual_seed(3)
    timm_outputs = timm_features(theirs, image)
    # timm counts its rates in float32.
    assert_equal_to(1e-6, outputs, timm_outputs)
    assert_equal_to(1e-6, [found['image']], [gradients(theirs, timm_outputs, image)['image']])
    torch.manual_seed(4)
    assert not torch.allclose(ours(image)[-1], outputs[-1])


def test_inception_depthwise_convolution_passes_five_eighths_and_runs_its_branches_in_parallel():
    mixer = InceptionDWConv2d(16, band_kernel_size=11, branch_ratio=1 / 8)
    for parameter in mixer.parameters():
        nn.init.ones_(parameter) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    image = torch.zeros(1, 16, 21, 21)
    image[:, :, 10, 10] = 1
    output = mixer(image)[0]
    touched = [(int((o.sum(1) > 0).sum()), int((o.sum(0) > 0).sum()), int(o.sum())) for o in output]
    # identity: the point itself; square: 3 high, 3 wide; band along the width: 1 × 11; band along the height: 11 × 1.
    assert touched == [(1, 1, 1)] * 10 + [(3, 3, 9)] * 2 + [(1, 11, 11)] * 2 + [(11, 1, 11)] * 2


# Against timm and mmpretrain: ConvNeXt


def name_in_timm(name):
    """Our ConvNeXt parameter name in timm."""
    return name.replace('.token_mixer.', '.conv_dw.')


def name_in_openmmlab(name):
    """Our ConvNeXt parameter name in mmpretrain, whose stem is its first downsampling layer."""
    parts = name.split('.')
    if parts[0] == 'stem':
        return '.'.join(['downsample_layers.0', *parts[1:]])
    if parts[0] == 'stages' and parts[2] == 'downsample':
        return '.'.join(['downsample_layers', parts[1], *parts[3:]])
    if parts[0] == 'stages':
        layer = '.'.join(parts[4:])
        for ours, theirs in (('token_mixer', 'depthwise_conv'), ('mlp.fc', 'pointwise_conv')):
            layer = layer.replace(ours, theirs)
        return '.'.join(['stages', parts[1], parts[3], layer])
    return name


def assert_same_gradients(tolerance, found, wanted, rename):
    assert {rename(name) for name in found} == wanted.keys()
    assert_equal_to(tolerance, found.values(), [wanted[rename(name)].reshape(g.shape) for name, g in found.items()])


@pytest.mark.logits_match
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('arch', ['atto', 'tiny'])
def test_convnext_features_equal_timm(arch, size):
    theirs = randomize(timm.create_model(f'convnext_{arch}')).eval()
    ours = ConvNeXt(arch, out_norm_cfg=None).eval()
    ours.load_state_dict(without_head(theirs))
    image = draw_image(2, 3, *size)
    with torch.no_grad():
        assert_equal_to(1e-5, ours(image), timm_features(theirs, image))


@pytest.mark.logits_match
@pytest.mark.parametrize('arch', ['atto', 'tiny'])
def test_convnext_gradients_equal_timm_in_float64(arch):
    theirs = randomize(timm.create_model(f'convnext_{arch}', num_classes=0).double())
    ours = ConvNeXt(arch, out_norm_cfg=None).double()
    ours.load_state_dict(without_head(theirs))
    image = draw_image(2, 3, 65, 97, dtype=torch.float64).requires_grad_()
    found = gradients(ours, ours(image), image)
    wanted = gradients(theirs, timm_features(theirs, image), image)
    assert_same_gradients(1e-10, found, wanted, name_in_timm)


@pytest.mark.parametrize('arch', CONVNEXT)
def test_every_convnext_takes_the_weights_of_timm_and_has_its_parameters_and_output_shapes(arch):
    with torch.device('meta'):
        ours, theirs = ConvNeXt(arch, out_norm_cfg=None), timm.create_model(f'convnext_{arch}')
        ours.load_state_dict(without_head(theirs))
        found = sum(p.numel() for p in ours.parameters())
        # The classifier: LayerNorm, C → 1000.
        assert found + 2 * ours.dims[-1] + ours.dims[-1] * 1000 + 1000 == sum(p.numel() for p in theirs.parameters())
        image = torch.empty(2, 3, 97, 131)
        assert [f.shape for f in ours(image)] == [f.shape for f in timm_features(theirs, image)]


@pytest.mark.parametrize('arch', CONVNEXT)
def test_every_convnext_has_the_depths_and_dims_of_mmpretrain(mmpretrain_convnext, arch):
    found, wanted = ConvNeXt.arch_settings[arch], mmpretrain_convnext.arch_settings[arch]
    assert list(found['depths']) == wanted['depths'] and list(found['dims']) == wanted['channels']


@pytest.mark.logits_match
@pytest.mark.parametrize('size', SIZES)
def test_convnext_features_equal_mmpretrain_with_a_norm_on_each_output(mmpretrain_convnext, size):
    theirs = randomize(mmpretrain_convnext('tiny', out_indices=[0, 1, 2, 3], gap_before_final_norm=False))
    ours = ConvNeXt('tiny')
    ours.load_state_dict(theirs.state_dict())
    image = draw_image(2, 3, *size)
    with torch.no_grad():
        assert_equal_to(1e-5, ours(image), theirs(image))


@pytest.mark.logits_match
def test_convnext_gradients_equal_mmpretrain_in_float64(mmpretrain_convnext):
    theirs = randomize(
        mmpretrain_convnext('tiny', out_indices=[0, 1, 2, 3], gap_before_final_norm=False).double())
    ours = ConvNeXt('tiny').double()
    ours.load_state_dict(theirs.state_dict())
    image = draw_image(2, 3, 65, 97, dtype=torch.float64).requires_grad_()
    found = gradients(ours, ours(image), image)
    wanted = gradients(theirs, theirs(image), image)
    assert_same_gradients(1e-10, found, wanted, name_in_openmmlab)


def test_convnext_drop_path_rates_equal_mmpretrain(mmpretrain_convnext):
    theirs = mmpretrain_convnext('atto', drop_path_rate=0.4)
    ours = ConvNeXt('atto', drop_path_rate=0.4)
    found = [getattr(block.drop_path, 'drop_prob', 0.) for stage in ours.stages for block in stage.blocks]
    wanted = [getattr(block.drop_path, 'drop_prob', 0.) for stage in theirs.stages for block in stage]
    assert found == pytest.approx(wanted)


def test_both_families_take_the_same_arguments():
    settings = dict(
        arch=dict(SMALL, mlp_ratios=(4, 4, 2, 2)), in_channels=4, out_indices=(1, 2), drop_path_rate=0.1,
        layer_scale_init_value=1.0, norm_cfg=dict(type='BN'), out_norm_cfg=dict(type='LN2d'),
        act_cfg=dict(type='SiLU'), frozen_stages=1, norm_eval=True, with_cp=True,
        token_mixer=dict(type='DWConv2d', kernel_size=5), init_cfg=None)
    assert settings.keys() == set(inspect.signature(InceptionNeXt).parameters)
    models = [randomize(MODELS.build(dict(settings, type=family))) for family in ('InceptionNeXt', 'ConvNeXt')]
    features = [model.eval()(draw_image(2, 4, 64, 64)) for model in models]
    assert_equal_to(0, *features)
    with pytest.raises(TypeError, match='positional'):
        ConvNeXt('tiny', 4)


# Freezing


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_frozen_stages_have_no_gradients_and_keep_their_statistics_after_train(frozen_stages):
    model = randomize(InceptionNeXt(SMALL, frozen_stages=frozen_stages, out_norm_cfg=dict(type='BN')))
    model.eval().train()
    frozen = {-1: (), 0: ('stem.', ), 2: ('stem.', 'stages.0.', 'stages.1.'), 4: ('stem.', 'stages.')}[frozen_stages]
    before = copy.deepcopy(model.state_dict())
    backward(model(draw_image(2, 3, 64, 64)))
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen), name
        assert (parameter.grad is None) == name.startswith(frozen), name
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training != name.startswith(frozen), name
    for name, value in model.state_dict().items():
        if name.endswith(('running_mean', 'running_var', 'num_batches_tracked')):
            assert torch.equal(value, before[name]) == name.startswith(frozen), name


def test_norm_eval_keeps_every_batch_norm_in_eval_mode_and_its_parameters_trained():
    model = randomize(InceptionNeXt(SMALL, norm_eval=True, drop_path_rate=0.5)).train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 8 and not any(norm.training for norm in norms)
    assert model.stages[3].blocks[0].drop_path.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.norm_eval = False
    assert all(norm.training for norm in norms if model.train())


def test_norm_cfg_without_gradients_freezes_the_affine_parameters_of_sync_bn():
    model = InceptionNeXt(SMALL, norm_cfg=dict(type='SyncBN', requires_grad=False, eps=1e-3, momentum=0.01))
    norms = [module for module in model.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert len(norms) == 8 and {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    of_norms = {parameter for norm in norms for parameter in norm.parameters()}
    assert all(parameter.requires_grad != (parameter in of_norms) for parameter in model.parameters())


def test_sync_bn_equals_batch_norm_on_one_process_and_takes_its_weights():
    models = [randomize(InceptionNeXt(SMALL, norm_cfg=dict(type=name))) for name in ('SyncBN', 'BN')]
    image = draw_image(2, 3, 64, 64)
    models[0].load_state_dict(models[1].state_dict())
    for training in (False, True):
        assert_equal_to(1e-6, *(model.train(training)(image) for model in models))


# Outputs


@pytest.mark.parametrize('out_indices, stages', [
    ((0, 1, 2, 3), (0, 1, 2, 3)), ((3, ), (3, )), ((0, 2), (0, 2)), ([-1], (3, )), ((-3, -1), (1, 3)), (-2, (2, ))])
def test_out_indices_name_stages_and_count_from_the_last_where_negative(out_indices, stages):
    reference = randomize(TimmMetaNeXt(**SMALL, num_classes=0)).eval()
    model = InceptionNeXt(SMALL, out_indices=out_indices).eval()
    model.load_state_dict(without_head(reference))
    image = draw_image(1, 3, 64, 64)
    wanted = timm_features(reference, image)
    assert_equal_to(1e-5, model(image), [wanted[i] for i in stages])
    with_norms = InceptionNeXt(SMALL, out_indices=out_indices, out_norm_cfg=dict(type='BN'))
    assert {name for name, _ in with_norms.named_children() if name.startswith('norm')} == {f'norm{i}' for i in stages}


def test_out_norm_is_laid_on_each_output_and_leaves_the_path_to_the_next_stage_alone():
    plain = randomize(InceptionNeXt(SMALL)).eval()
    normed = randomize(InceptionNeXt(SMALL, out_norm_cfg=dict(type='BN'))).eval()
    normed.load_state_dict(plain.state_dict(), strict=False)
    image = draw_image(2, 3, 64, 64)
    for i, (feature, wanted) in enumerate(zip(normed(image), plain(image), strict=True)):
        norm = getattr(normed, f'norm{i}')
        mean, var, weight, bias = (v.reshape(1, -1, 1, 1) for v in (
            norm.running_mean, norm.running_var, norm.weight, norm.bias))
        assert_equal_to(1e-5, [feature], [(wanted - mean) / (var + norm.eps).sqrt() * weight + bias])


# Gradient checkpointing


@pytest.mark.parametrize('family', [InceptionNeXt, ConvNeXt])
def test_gradient_checkpointing_changes_neither_gradients_nor_batch_norm_statistics(family):
    arch = dict(depths=(2, 1, 1, 2), dims=SMALL['dims'])
    plain = randomize(family(arch, drop_path_rate=0.5).double())
    saving = family(arch, drop_path_rate=0.5, with_cp=True).double()
    saving.load_state_dict(plain.state_dict())
    image = draw_image(4, 3, 64, 64, dtype=torch.float64).requires_grad_()
    found, wanted = [], []
    for model, results in ((saving, found), (plain, wanted)):
        for step in range(2):
            torch.manual_seed(step)
            results.extend(gradients(model, model(image), image).values())
        results.extend(value.double() for _, value in model.named_buffers())
    assert_equal_to(1e-12, found, wanted)


def test_gradient_checkpointing_keeps_less_memory_for_the_backward_pass():
    def saved_bytes(with_cp):
        model = InceptionNeXt(dict(depths=(4, 1, 1, 1), dims=SMALL['dims']), with_cp=with_cp)
        own = {parameter.data_ptr() for parameter in model.parameters()}
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel() * tensor.element_size() * (tensor.data_ptr() not in own)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(draw_image(2, 3, 64, 64))
        return total

    assert saved_bytes(with_cp=True) < saved_bytes(with_cp=False) / 2


@pytest.mark.compile
@pytest.mark.parametrize('drop_path_rate', [0., 0.5])
def test_gradient_checkpointing_of_a_compiled_model_changes_neither_gradients_nor_statistics(drop_path_rate):
    arch = dict(depths=(2, 1), dims=(16, 32))
    found, wanted = [], []
    for with_cp, results in ((True, found), (False, wanted)):
        model = randomize(InceptionNeXt(arch, out_indices=(0, 1), drop_path_rate=drop_path_rate, with_cp=with_cp))
        image = draw_image(4, 3, 64, 64).requires_grad_()
        torch.manual_seed(0)
        outputs = torch.compile(model, fullgraph=True, backend='aot_eager')(image)
        results.extend([*outputs, *gradients(model, outputs, image).values()])
        results.extend(value.double() for _, value in model.named_buffers())
    assert_equal_to(1e-5, found, wanted, floor=1e-2)


# Precision, layout, export


@pytest.mark.parametrize('family', [InceptionNeXt, ConvNeXt])
@pytest.mark.parametrize('channels_last', [False, True], ids=['nchw', 'nhwc'])
def test_bf16_autocast_stays_near_float32_forward_and_backward(family, channels_last):
    model = randomize(family(SMALL, drop_path_rate=0.1)).train()
    image = draw_image(2, 3, 97, 131)
    torch.manual_seed(0)
    wanted = [feature.detach() for feature in model(image)]
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        image = image.contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        features = model(image)
    for feature, reference in zip(features, wanted, strict=True):
        assert ((feature - reference).norm() / reference.norm()).item() < 0.03
    backward(features)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 and p.grad.isfinite().all()
               for p in model.parameters())


@pytest.mark.parametrize('family', [InceptionNeXt, ConvNeXt])
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_channels_last_gives_the_same_features_and_stays_channels_last(family, training):
    plain = randomize(family(SMALL)).train(training)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    image = draw_image(2, 3, 97, 131)
    features = last(image.contiguous(memory_format=torch.channels_last))
    assert_equal_to(1e-5, features, plain(image))
    assert all(feature.is_contiguous(memory_format=torch.channels_last) for feature in features)


@pytest.mark.compile
@pytest.mark.parametrize('family', [InceptionNeXt, ConvNeXt])
def test_torch_compile_takes_the_whole_graph_and_gives_the_same_features_and_gradients(family):
    model = randomize(family(SMALL, drop_path_rate=0.0))
    image = draw_image(2, 3, 64, 64).requires_grad_()
    state = copy.deepcopy(model.state_dict())
    outputs = model(image)
    wanted = gradients(model, outputs, image)
    model.load_state_dict(state)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    compiled_outputs = compiled(image)
    assert_equal_to(1e-5, compiled_outputs, outputs)
    assert_equal_to(1e-4, gradients(model, compiled_outputs, image).values(), wanted.values(), floor=1e-2)


@pytest.mark.compile
@pytest.mark.slow
def test_torch_compile_generates_code_that_gives_the_same_features():
    model = randomize(InceptionNeXt(dict(depths=(1, 1), dims=(16, 32)), out_indices=(0, 1))).eval()
    image = draw_image(2, 3, 64, 64)
    with torch.no_grad():
        assert_equal_to(1e-5, torch.compile(model, fullgraph=True)(image), model(image))


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize('family', [InceptionNeXt, ConvNeXt])
def test_a_traced_model_takes_other_batches_and_sizes(family):
    model = randomize(family(SMALL)).eval()
    traced = torch.jit.trace(model, draw_image(2, 3, 64, 64))
    image = draw_image(3, 3, 97, 131)
    with torch.no_grad():
        assert_equal_to(1e-6, traced(image), model(image))


@pytest.mark.compile
@pytest.mark.skipif(not hasattr(torch.export.Dim, 'AUTO'), reason='this torch.export has no Dim.AUTO (torch >= 2.6)')
@pytest.mark.parametrize('family', [InceptionNeXt, ConvNeXt])
def test_an_exported_model_takes_other_batches_and_sizes(family):
    model = randomize(family(SMALL)).eval()
    sizes = {0: torch.export.Dim('batch', max=64), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    exported = torch.export.export(model, (draw_image(2, 3, 64, 64), ), dynamic_shapes=(sizes, )).module()
    image = draw_image(3, 3, 97, 131)
    with torch.no_grad():
        assert_equal_to(1e-6, exported(image), model(image))


# Construction


def test_a_copy_and_a_state_dict_round_trip_give_the_same_features_and_share_nothing():
    model = randomize(InceptionNeXt(SMALL, drop_path_rate=0.1, out_norm_cfg=dict(type='BN'))).eval()
    image = draw_image(1, 3, 64, 64)
    wanted = model(image)
    clone = copy.deepcopy(model)
    loaded = InceptionNeXt(SMALL, out_norm_cfg=dict(type='BN')).eval()
    loaded.load_state_dict(model.state_dict())
    randomize(model, seed=5)
    assert_equal_to(0, clone(image), wanted)
    assert_equal_to(0, loaded(image), wanted)


def test_construction_on_the_meta_device_takes_no_memory_and_gives_the_shapes():
    with torch.device('meta'):
        model = InceptionNeXt('base', out_norm_cfg=dict(type='BN'))
        features = model(torch.empty(1, 3, 512, 512))
    assert all(value.is_meta for value in model.state_dict().values())
    assert [tuple(f.shape) for f in features] == [
        (1, 128, 128, 128), (1, 256, 64, 64), (1, 512, 32, 32), (1, 1024, 16, 16)]


def test_new_weights_have_a_standard_deviation_of_0_02_no_bias_and_a_layer_scale_of_1e_6():
    torch.manual_seed(0)
    model = InceptionNeXt('atto', out_norm_cfg=dict(type='BN'))
    for name, value in model.state_dict().items():
        if name.endswith('gamma'):
            assert torch.equal(value, torch.full_like(value, 1e-6))
        elif value.ndim > 1:
            assert abs(value.std().item() - 0.02) < 0.004 and value.abs().max() < 2, name
        elif name.endswith(('weight', 'running_var')):
            assert torch.equal(value, torch.ones_like(value)), name
        else:
            assert not value.any(), name


def test_a_layer_scale_of_zero_leaves_layer_scale_out():
    model = randomize(InceptionNeXt(SMALL, layer_scale_init_value=0)).eval()
    assert not any(name.endswith('gamma') for name, _ in model.named_parameters())
    ones = InceptionNeXt(SMALL, layer_scale_init_value=1.0).eval()
    ones.load_state_dict(model.state_dict(), strict=False)
    assert_equal_to(1e-6, model(draw_image(1, 3, 64, 64)), ones(draw_image(1, 3, 64, 64)))


def test_an_arch_dict_sets_depths_dims_mlp_ratios_and_token_mixer():
    arch = dict(depths=(1, 2, 3), dims=(24, 40, 48), mlp_ratios=(2, 3, 1), token_mixer=dict(band_kernel_size=5))
    model = InceptionNeXt(arch, out_indices=(0, 1, 2))
    assert [len(stage.blocks) for stage in model.stages] == [1, 2, 3] and model.dims == (24, 40, 48)
    assert [stage.blocks[0].mlp.fc1.out_channels for stage in model.stages] == [48, 120, 48]
    assert model.stages[0].blocks[0].token_mixer.dwconv_w.kernel_size == (1, 5)
    assert [f.shape[1:] for f in model(draw_image(1, 3, 48, 48))] == [(24, 12, 12), (40, 6, 6), (48, 3, 3)]
    other_type = InceptionNeXt(dict(SMALL, token_mixer=dict(type='DWConv2d', kernel_size=5)))
    assert other_type.stages[0].blocks[0].token_mixer.kernel_size == (5, 5)


def test_a_token_mixer_is_laid_over_the_one_of_the_arch():
    model = InceptionNeXt('atto', token_mixer=dict(square_kernel_size=5))
    mixer = model.stages[1].blocks[0].token_mixer
    # atto's own band of 9 and ratio 1/4 stay.
    assert mixer.dwconv_hw.kernel_size == (5, 5) and mixer.dwconv_h.kernel_size == (9, 1)
    assert mixer.split_sizes == (20, 20, 20, 20)
    same_type = InceptionNeXt('atto', token_mixer=dict(type='InceptionDWConv2d', branch_ratio=1 / 8))
    assert same_type.stages[1].blocks[0].token_mixer.split_sizes == (50, 10, 10, 10)
    assert same_type.stages[1].blocks[0].token_mixer.dwconv_w.kernel_size == (1, 9)
    convnext = ConvNeXt(SMALL, token_mixer=dict(kernel_size=3))
    assert convnext.stages[0].blocks[0].token_mixer.kernel_size == (3, 3)


def test_types_may_be_classes_as_in_configs_of_pure_python():
    model = InceptionNeXt(
        'atto', norm_cfg=dict(type=nn.SyncBatchNorm, requires_grad=False),
        out_norm_cfg=dict(type=nn.GroupNorm, num_groups=2), act_cfg=dict(type=nn.SiLU),
        token_mixer=dict(type=InceptionDWConv2d, band_kernel_size=7))
    block = model.stages[1].blocks[0]
    assert type(block.norm) is nn.SyncBatchNorm and not block.norm.weight.requires_grad
    assert type(model.norm0) is nn.GroupNorm and type(block.mlp.act) is nn.SiLU
    # atto's own ratio of 1/4 stays, as it does under the name of the type, alone or as a path of Python.
    assert block.token_mixer.split_sizes == (20, 20, 20, 20)
    by_path = InceptionNeXt('atto', token_mixer=dict(type='inceptionnext_seg.InceptionDWConv2d', band_kernel_size=7))
    assert by_path.stages[1].blocks[0].token_mixer.split_sizes == (20, 20, 20, 20)


def test_a_list_of_token_mixers_gives_each_stage_its_own():
    mixers = [dict(type='DWConv2d', kernel_size=5), None, dict(band_kernel_size=7), dict(type='DWConv2d')]
    model = InceptionNeXt(SMALL, token_mixer=mixers)
    first, second, third, fourth = (stage.blocks[0].token_mixer for stage in model.stages)
    assert isinstance(first, DWConv2d) and first.kernel_size == (5, 5) and first.groups == 16
    assert second.dwconv_w.kernel_size == (1, 11) and third.dwconv_w.kernel_size == (1, 7)
    assert isinstance(fourth, DWConv2d) and fourth.kernel_size == (7, 7)
    assert mixers[0] == dict(type='DWConv2d', kernel_size=5)


@pytest.mark.parametrize('settings, named', [
    (dict(arch='huge'), ["'huge'", 'atto', 'tiny', 'small', 'base']), (dict(arch=5), ['5', 'tiny']),
    (dict(arch=dict(depths=(1, 1))), ['dims']), (dict(arch={}), ['depths', 'dims']),
    (dict(arch=dict(depths=(1, 1), dims=(16, 32, 48))), ['dims', '3', '2']),
    (dict(arch=dict(SMALL, mlp_ratios=(4, 4))), ['mlp_ratios', '2', '4']),
    (dict(arch=SMALL, token_mixer=[None] * 3), ['token_mixer', '3', '4']),
    (dict(arch=SMALL, out_indices=(0, 4)), ['out_indices', '(0, 4)', '3']),
    (dict(arch=SMALL, out_indices=(-5, )), ['out_indices', '(-5,)', '-4']),
    (dict(arch=SMALL, out_indices=()), ['out_indices', '()']),
    (dict(arch=SMALL, frozen_stages=5), ['frozen_stages', '5', '4']),
    (dict(arch=SMALL, frozen_stages=-2), ['frozen_stages', '-2', '-1']),
    (dict(arch=SMALL, token_mixer=dict(branch_ratio=0.5)), ['branch_ratio', '0.5', '16', '8', '5']),
    (dict(arch=SMALL, token_mixer=dict(branch_ratio=0.01)), ['branch_ratio', '0.01', '16', '0']),
    (dict(arch=SMALL, norm_cfg=dict(type='NoNorm')), ['norm_cfg', "'NoNorm'", 'BN']),
    (dict(arch=SMALL, act_cfg=dict(type='NoAct')), ['act_cfg', "'NoAct'", 'GELU'])])
def test_a_wrong_setting_is_an_error_that_names_it_the_value_and_what_is_expected(settings, named):
    with pytest.raises(SettingError) as raised:
        InceptionNeXt(**settings)
    assert all(part in str(raised.value) for part in named), raised.value


@pytest.mark.parametrize('out_indices, size, named', [
    ((0, 1, 2, 3), (31, 64), ['31×64', '32']), ((0, 1), (64, 7), ['64×7', '8'])])
def test_an_image_smaller_than_the_last_stride_is_an_error_that_names_both(out_indices, size, named):
    model = InceptionNeXt(SMALL, out_indices=out_indices)
    with pytest.raises(SettingError) as raised:
        model(torch.zeros(1, 3, *size))
    assert all(part in str(raised.value) for part in named), raised.value
    stride = 4 * 2**out_indices[-1]
    assert model.eval()(torch.zeros(1, 3, stride, stride))[-1].shape[2:] == (1, 1)


def test_other_initializers_of_mmengine_work_and_are_logged(caplog):
    model = InceptionNeXt(SMALL, init_cfg=dict(type='Constant', layer='Conv2d', val=0.5, bias=0.25))
    with caplog.at_level(logging.INFO):
        model.init_weights()
    assert (model.stem[0].weight == 0.5).all() and (model.stages[0].blocks[0].mlp.fc1.bias == 0.25).all()
    assert (model.stages[0].blocks[0].gamma == 1e-6).all()
