"""Learning-rate decay for MetaNeXt backbones, and AMP in bfloat16. Registered in mmengine's root registries."""
import contextlib
import re

import torch
from mmengine.optim import AmpOptimWrapper, DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

from ..errors import UserError
from .run_state import wrappers_of


def metanext_layer_id(name, decay_type, num_layers):
    """The id of a segmentor's parameter in learning-rate decay, as MMSegmentation counts it for its ConvNeXt.

    'stage_wise': stem and every downsampling 0, stage i (from 0) i + 1, everything else, output norms too,
    ``num_layers + 1``. 'layer_wise': stem 0, stages 0 and 1 are 1 and 2, each three blocks of stage 2 one more from 3,
    stage 3 ``num_layers``, downsampling with the stage it opens, everything else ``num_layers + 1``.
    """
    rest = num_layers + 1
    if not name.startswith('backbone.'):
        return rest
    if name.startswith('backbone.stem.'):
        return 0
    found = re.match(r'backbone\.stages\.(\d+)\.(downsample|blocks\.(\d+))\.', name)
    if not found:
        return rest
    stage, downsample = int(found[1]), found[2] == 'downsample'
    if decay_type == 'stage_wise':
        return 0 if downsample else stage + 1
    if stage == 2:
        return 3 if downsample else 3 + int(found[3]) // 3
    return (1, 2, None, num_layers)[stage]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MetaNeXtDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning-rate decay for MetaNeXt backbones: MMSegmentation's own constructor knows only ConvNeXt's names.

    ``paramwise_cfg`` is spelled as there: ``dict(decay_rate=0.9, decay_type='stage_wise' | 'layer_wise',
    num_layers=6)``. A parameter's rate is ``lr * decay_rate ** (num_layers + 1 - id)``, see :func:`metanext_layer_id`.
    Norms, biases and layer scales (everything with one dimension) get no weight decay.
    """

    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        expected = {'decay_rate', 'decay_type', 'num_layers'}
        decay_type = (paramwise_cfg or {}).get('decay_type')
        if set(paramwise_cfg or {}) != expected or decay_type not in ('stage_wise', 'layer_wise'):
            raise UserError(f'optim_wrapper.paramwise_cfg is {paramwise_cfg}; {type(self).__name__} expects exactly '
                            f"{sorted(expected)}, with decay_type 'stage_wise' or 'layer_wise'.")
        super().__init__(optim_wrapper_cfg, paramwise_cfg)

    def __call__(self, model):
        wrapper = super().__call__(model)
        # Built from a config they are ConfigDicts, which torch.compile cannot trace through an optimizer's step.
        wrapper.optimizer.param_groups[:] = map(dict, wrapper.optimizer.param_groups)
        return wrapper

    def add_params(self, params, module, **kwargs):
        decay_rate, num_layers = self.paramwise_cfg['decay_rate'], self.paramwise_cfg['num_layers']
        groups = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            layer_id = metanext_layer_id(name, self.paramwise_cfg['decay_type'], num_layers)
            decay = parameter.ndim > 1
            lr_scale = decay_rate**(num_layers + 1 - layer_id)
            group = groups.setdefault((layer_id, decay), dict(
                params=[], param_names=[], lr_scale=lr_scale, lr=self.base_lr * lr_scale))
            if not decay:
                group['weight_decay'] = 0.
            group['params'].append(parameter)
            group['param_names'].append(name)
        params.extend(groups[key] for key in sorted(groups))


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """bfloat16 autocast on the model's device, a CPU or a GPU.

    Its range is that of float32, so that losses need no scaling: mmengine's ``AmpOptimWrapper`` scales them, takes a
    gradient that is not finite for the scale's fault, and refuses to run on a CPU.
    """

    @contextlib.contextmanager
    def optim_context(self, model):
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield


def precisions(optim_wrapper):
    """What each optimizer's steps are computed in, in words: 'float32', 'bfloat16', or 'float16'."""
    return [precision(wrapper) for wrapper in wrappers_of(optim_wrapper)]


def precision(wrapper):
    if isinstance(wrapper, BFloat16OptimWrapper):
        return 'bfloat16'
    if isinstance(wrapper, AmpOptimWrapper):    # what CUDA takes where no type is named
        return str(wrapper.cast_dtype or torch.float16).removeprefix('torch.')
    return 'float32'


def check_precision(asked, trained):
    """A run goes on in the precision that it began with, so that its figures are of one.

    Args:
        asked (list[str]): As :func:`precisions` gives them.
        trained (object): Of the checkpoint; other than such a list where it does not say.

    Raises:
        UserError: They differ.
    """
    if not isinstance(trained, list) or trained == asked:
        return
    way = {'float32': '--resume without --amp, and optim_wrapper.type=OptimWrapper where the config has another',
           # Not --amp, which is float16 on a GPU without bfloat16.
           'bfloat16': '--resume with --cfg-options optim_wrapper.type=BFloat16OptimWrapper',
           'float16': '--resume with --cfg-options optim_wrapper.type=AmpOptimWrapper optim_wrapper.loss_scale=dynamic',
           }.get(str(trained[0]) if trained else '', 'the same optim_wrapper')
    raise UserError(f'the checkpoint to resume was trained in {", ".join(map(str, trained))}, and this run would go on '
                    f'in {", ".join(asked)}. Expected: the same. Next: {way}; or a new run from its weights, '
                    'load_from=CHECKPOINT without --resume.')
