"""A run starts from weights that fit, or says what does not; mmengine's own loading logs it and goes on."""
from types import SimpleNamespace

import pytest
import torch

from inceptionnext_seg.engine.strict import CLASSIFIERS, StrictLoadHook, fit
from inceptionnext_seg.errors import UserError


class Segmentor(torch.nn.Module):
    """The names of one: backbone, classifier, auxiliary head."""

    def __init__(self, classes=3, width=4):
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Conv2d(3, width, 1), torch.nn.BatchNorm2d(width))
        self.decode_head = torch.nn.ModuleDict(dict(conv_seg=torch.nn.Conv2d(width, classes, 1)))
        self.auxiliary_head = torch.nn.ModuleDict(dict(
            convs=torch.nn.Conv2d(width, width, 1), conv_seg=torch.nn.Conv2d(width, classes, 1)))


def load(model, checkpoint, resume=False, trains=True, **settings):
    """What is left in a checkpoint for ``model`` after the hook."""
    runner = SimpleNamespace(model=model, _load_from='my weights.pth', _resume=resume,
                             _train_loop=object() if trains else {})
    StrictLoadHook(**settings).after_load_checkpoint(runner, checkpoint)
    return checkpoint['state_dict']


@pytest.fixture
def lines(monkeypatch):
    found = []
    monkeypatch.setattr('inceptionnext_seg.engine.strict.print_log', lambda line, *_: found.append(line))
    return found


@pytest.mark.parametrize('wrap', [dict, lambda state: dict(state_dict=state), lambda state: dict(model=state),
                                  lambda state: {f'module.{name}': value for name, value in state.items()}])
def test_weights_that_fit_are_loaded_whole_and_nothing_is_said(lines, wrap):
    state = Segmentor().state_dict()
    assert load(Segmentor(), wrap(state)).keys() == state.keys()
    assert lines == []


def test_classifiers_of_another_number_of_classes_stay_new_and_are_said_in_one_line(lines):
    state = load(Segmentor(5), dict(state_dict=Segmentor(3).state_dict()))
    assert not any('conv_seg' in name for name in state)
    line, = lines
    assert 'my weights.pth' in line and 'decode_head.conv_seg.weight' in line and 'auxiliary_head.conv_seg.bias' in line
    Segmentor(5).load_state_dict(state, strict=False)


@pytest.mark.parametrize('settings', [dict(resume=True), dict(trains=False)])
def test_in_a_resumed_run_and_in_a_test_no_classifier_differs(settings):
    found = r'decode_head.conv_seg.weight: \(3, 4, 1, 1\) in the checkpoint, \(5, 4, 1, 1\) in the model'
    with pytest.raises(UserError, match=rf'my weights.pth does not fit.*{found}'):
        load(Segmentor(5), dict(state_dict=Segmentor(3).state_dict()), **settings)


def test_what_is_missing_is_more_or_has_another_shape_is_named(lines):
    state = Segmentor().state_dict()
    del state['backbone.0.weight']
    with pytest.raises(UserError, match=r'missing \(1\): backbone.0.weight'):
        load(Segmentor(), dict(state_dict=dict(state)))
    with pytest.raises(UserError, match=r'unexpected \(1\): neck.weight'):
        load(Segmentor(), dict(state_dict=dict(Segmentor().state_dict(), **{'neck.weight': torch.zeros(1)})))
    with pytest.raises(UserError, match=r'backbone.0.weight: \(8, 3, 1, 1\) in the checkpoint, \(4, 3, 1, 1\) in'):
        load(Segmentor(), dict(state_dict=Segmentor(width=8).state_dict()))


def test_other_heads_can_be_allowed_and_old_checkpoints_lack_counters(lines):
    state = {name: value for name, value in Segmentor().state_dict().items()
             if not name.startswith('auxiliary_head') and not name.endswith('num_batches_tracked')}
    with pytest.raises(UserError, match=r'auxiliary_head\.convs\.bias.*default_hooks\.weights\.may_differ'):
        load(Segmentor(), dict(state_dict=dict(state)))
    assert load(Segmentor(), dict(state_dict=dict(state)), may_differ='auxiliary_head').keys() == state.keys()
    assert len(lines) == 1


def test_weights_of_a_backbone_are_told_where_they_belong():
    state = {name.removeprefix('backbone.'): value for name, value in Segmentor().state_dict().items()
             if name.startswith('backbone.')}
    with pytest.raises(UserError, match=r'model\.backbone\.init_cfg'):
        load(Segmentor(), dict(state_dict=state))


def test_only_classifiers_may_differ_by_default():
    own = {name: torch.zeros(2) for name in (
        'decode_head.conv_seg.bias', 'decode_head.1.fc_seg.bias', 'decode_head.fpn_bottleneck.bn.bias')}
    other = {name: torch.zeros(3) for name in own}
    with pytest.raises(UserError, match=r'of another shape \(1\): decode_head.fpn_bottleneck.bn.bias'):
        fit(own, other, 'x', CLASSIFIERS)
