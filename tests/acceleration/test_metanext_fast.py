"""Accelerated backbones against the plain ones: outputs, gradients, statistics, and which operators run."""
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from inceptionnext_seg import ConvNeXt, InceptionNeXt, accelerate
from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import batch_norm_act, norm_mlp

ARCH = dict(depths=(1, 2, 1, 1), dims=(16, 24, 32, 40))
FAMILIES = dict(InceptionNeXt=InceptionNeXt, ConvNeXt=ConvNeXt)
SETTINGS = dict(
    default=dict(), drop_path=dict(drop_path_rate=0.6), with_cp=dict(with_cp=True, drop_path_rate=0.6),
    frozen_stages=dict(frozen_stages=2), norm_eval=dict(norm_eval=True, drop_path_rate=0.6),
    no_layer_scale=dict(layer_scale_init_value=0), out_norm=dict(out_norm_cfg=dict(type='BN')),
    batch_norm=dict(norm_cfg=dict(type='BN')), layer_norm=dict(norm_cfg=dict(type='LN')),
    sync_bn=dict(norm_cfg=dict(type='SyncBN')), frozen_norm=dict(norm_cfg=dict(type='BN', requires_grad=False)),
    relu=dict(act_cfg=dict(type='ReLU')),
    tanh=dict(act_cfg=dict(type='GELU', approximate='tanh')), one_stage=dict(out_indices=(1, )))


@pytest.fixture(autouse=True)
def small_maps_too(monkeypatch):
    monkeypatch.setattr(norm_mlp, 'LEAST_HIDDEN', 0)


def pair(family, dtype=torch.float64, **settings):
    """Accelerated and plain, with the same random weights and statistics, at which every layer matters, training."""
    fast = family(ARCH, **settings).to(dtype)
    plain = family(ARCH, **dict(settings, with_cp=False)).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for name, value in plain.state_dict().items():
        if value.dim() > 1:
            value.normal_(std=value[0].numel()**-0.5, generator=generator)
        elif name.endswith(('gamma', 'weight', 'running_var')):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.is_floating_point():
            value.normal_(std=0.2, generator=generator)
    fast.load_state_dict(plain.state_dict())
    accelerate(fast, channels_last=False)
    return fast.train(), plain.train()


def draw_image(size=(64, 96), dtype=torch.float64, layout=torch.channels_last):
    image = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(1))
    return image.to(dtype).contiguous(memory_format=layout)


def run(model, image, call=None):
    """By name: outputs, gradients, statistics; with one seed for stochastic depth."""
    torch.manual_seed(2)
    model.zero_grad()
    image = image.clone(memory_format=torch.preserve_format).requires_grad_()
    outputs = model(image) if call is None else call(image)
    generator = torch.Generator().manual_seed(3)
    sum((output * torch.randn(output.shape, generator=generator).to(output)).sum() for output in outputs).backward()
    results = {f'output {i}': output.detach() for i, output in enumerate(outputs)}
    results.update({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, image=image.grad)
    return dict(results, **{name: value.clone() for name, value in model.named_buffers()})


def assert_equal(found, wanted, tolerance, floor=1e-3):
    """``floor`` times the largest norm is the least to compare with: before a BatchNorm a bias has no gradient."""
    assert found.keys() == wanted.keys()
    least = floor * max(value.double().norm().item() for value in wanted.values())
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        error = (found[name].double() - value.double()).norm().item() / max(value.double().norm().item(), least)
        assert error <= tolerance, f'{name}: relative error {error:.1e}'


def operators(model, image):
    """Names of the fused operators that a forward calls."""
    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.add(function.name().removesuffix('.default'))
            return function(*args, **(kwargs or {}))

    names = set()
    with Record():
        model(image)
    return {name.removeprefix('inceptionnext_seg::') for name in names if name.startswith('inceptionnext_seg::')}


@pytest.mark.parametrize('settings', SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize('family', FAMILIES.values(), ids=FAMILIES)
def test_features_gradients_and_statistics_are_those_of_the_modules(family, settings):
    fast, plain = pair(family, **settings)
    assert_equal(run(fast, draw_image()), run(plain, draw_image()), 1e-10)


@pytest.mark.parametrize('size', [(32, 32), (33, 63), (97, 131)])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last], ids=['nchw', 'nhwc'])
@pytest.mark.parametrize('family', FAMILIES.values(), ids=FAMILIES)
def test_any_size_and_either_layout_give_the_same(family, size, layout):
    fast, plain = (model.to(memory_format=layout) for model in pair(family, drop_path_rate=0.3))
    image = draw_image(size, layout=layout)
    assert_equal(run(fast, image), run(plain, image), 1e-10)


@pytest.mark.parametrize('family', FAMILIES.values(), ids=FAMILIES)
def test_float32_is_float64_to_rounding(family):
    fast, plain = pair(family, drop_path_rate=0.3)
    wanted = run(plain, draw_image())
    assert_equal(run(fast.float(), draw_image(dtype=torch.float32)), wanted, 1e-5, floor=1e-2)


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('family', FAMILIES.values(), ids=FAMILIES)
def test_without_gradients_the_features_are_the_same(family, training):
    with torch.no_grad():
        fast, plain = (model.train(training)(draw_image()) for model in pair(family))
    assert_equal(dict(enumerate(fast)), dict(enumerate(plain)), 1e-10)


@pytest.mark.parametrize('family', FAMILIES.values(), ids=FAMILIES)
def test_under_autocast_it_is_no_further_from_float64_than_the_modules(family):
    fast, plain = pair(family)
    wanted = run(plain, draw_image())

    def errors(model):
        def call(image):
            with torch.autocast('cpu', dtype=torch.bfloat16):
                return model.float()(image)

        found = run(model.float(), draw_image(dtype=torch.float32), call)
        assert found['stem.0.weight'].dtype == torch.float32
        return {name: ((value - wanted[name]).norm() / wanted[name].norm()).item() for name, value in found.items()
                if name.startswith('output') or name.endswith('mlp.fc1.weight')}

    fast, plain = errors(fast), errors(plain)
    assert all(fast[name] < 1.2 * plain[name] + 0.002 for name in plain)


@pytest.mark.compile
@pytest.mark.parametrize('family', FAMILIES.values(), ids=FAMILIES)
def test_torch_compile_takes_the_whole_graph_with_the_fused_operators(family):
    fast, plain = pair(family)
    compiled = torch.compile(fast, fullgraph=True, backend='aot_eager')
    assert_equal(run(fast, draw_image(), compiled), run(plain, draw_image()), 1e-10)


def test_the_fused_operators_are_those_that_run(monkeypatch):
    if native.why_not('mlp'):
        pytest.skip('no C++ compiler')
    monkeypatch.setattr(batch_norm_act, 'LEAST_VALUES', 0)
    fast, plain = pair(InceptionNeXt)
    assert operators(fast, draw_image()) >= {'norm_mlp', 'moments', 'batch_norm_act'}
    assert not operators(plain, draw_image())
    fast, plain = pair(ConvNeXt)
    assert operators(fast, draw_image()) == {'norm_mlp'} and not operators(plain, draw_image())


def test_state_dicts_are_the_same():
    fast, plain = pair(InceptionNeXt)
    assert list(fast.state_dict()) == list(plain.state_dict())
