"""Weights that a run starts from or goes on with fit its model, or the run ends; mmengine only logs what differs."""
import re

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from ..errors import UserError
from ..models.checkpoint import Differences, compare, listed, state_dict_of
from ..models.weight_names import to_metanext_names

# The classifiers of heads: they depend on the number of classes and on nothing else.
CLASSIFIERS = r'(decode|auxiliary)_head\.(\d+\.)?(conv_seg|fc_seg)\.'
SHOWN = 6


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """``load_from`` and ``resume`` load every tensor of the model, or end the run with what does not fit.

    ``default_hooks = dict(weights=dict(type='StrictLoadHook'))``. For ``load_from``, the classifiers of the heads may
    have another shape, as for a data set of another number of classes; they then stay as they were initialized, and the
    log says so in one line. OpenMMLab's names of ConvNeXt's layers are translated, as by ``tools/test.py``.

    Args:
        may_differ (str): A pattern of names that may be missing, be more, or have another shape, found at their
            beginning. ``'decode_head|auxiliary_head'`` takes the backbone alone from a segmentor with other heads.
    """

    priority = 'VERY_HIGH'  # before EMAHook, which copies the weights

    def __init__(self, may_differ=CLASSIFIERS):
        self.may_differ = may_differ

    def after_load_checkpoint(self, runner, checkpoint):
        source = runner._load_from or 'the checkpoint'
        state_dict = state_dict_of(checkpoint, source, prefix='')
        if any(name.startswith('backbone.') for name in state_dict):
            to_metanext_names(state_dict, 'backbone.')
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        # A resumed run is the same run, and what is evaluated was trained: nothing differs.
        starts = not runner._resume and not isinstance(runner._train_loop, dict | type(None))
        new = fit(model.state_dict(), state_dict, source, self.may_differ if starts else None)
        for wrapper in ('state_dict', 'model'):
            checkpoint.pop(wrapper, None)
        checkpoint['state_dict'] = state_dict
        if new:
            print_log(f'{source} does not have all of this model: {listed(new, SHOWN)} stay as they were '
                      f'initialized; {len(model.state_dict()) - len(new)} tensors are loaded.', 'current')


def fit(own, state_dict, source, may_differ=None):
    """Compare a model's tensors with those of a checkpoint, and take out of it, in place, those that may differ and do.

    Args:
        own, state_dict (dict[str, Tensor]): Of the model, and of the checkpoint.
        may_differ (str | None): The pattern of names that may.

    Returns:
        list[str]: The tensors of the model that the checkpoint does not give.

    Raises:
        UserError: Others are missing, are more, or have another shape.
    """
    differences = compare(own, state_dict)
    wrong = Differences(*([name for name in names if not (may_differ and re.match(may_differ, name))]
                          for names in differences))
    if any(wrong):
        backbone_alone = wrong.missing and not any(name.startswith('backbone.') for name in state_dict)
        raise UserError(
            f'{source} does not fit the model, and what does not fit would be trained from nothing. Found '
            f'{wrong.describe(own, state_dict, SHOWN)}. Expected: every tensor of the model. Next: ' + (
                'if these are the weights of a backbone, model.backbone.init_cfg="{\'type\': \'Pretrained\', '
                '\'checkpoint\': \'PATH\'}" in place of load_from; ' if backbone_alone else '') +
            'give the config that they were trained with, or say what may differ, --cfg-options '
            "default_hooks.weights.may_differ='decode_head|auxiliary_head'.")
    for name in (*differences.unexpected, *differences.misshapen):
        del state_dict[name]
    return [*differences.missing, *differences.misshapen]
