"""Acceleration by one line of a config, under any mm framework's own tools."""
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from torch.nn.parallel import DistributedDataParallel

from ..acceleration import PARTS, accelerate, check_form
from ..errors import SettingError, UserError
from ..ops import measured
from .compiling import compiles_losses
from .measuring import measure_first_batch


@HOOKS.register_module()
class AccelerateHook(Hook):
    """Calls :func:`inceptionnext_seg.accelerate` on the runner's model as a run begins, and logs what became of it.

    ``default_hooks = dict(accelerate=dict(type='AccelerateHook'))`` in a config; on the command line
    ``--cfg-options default_hooks.accelerate.enabled=False`` leaves the model as it is, and
    ``default_hooks.accelerate.loss=False`` leaves one part.

    Before the first step of training, and of an evaluation in one process, it measures which form of each operator is
    the fastest at the first batch's shapes (:mod:`inceptionnext_seg.ops.measured`), unless the cache has it from an
    earlier run. An evaluation by several processes measures nothing: each takes what earlier runs measured on its
    machine. What was chosen goes into checkpoints, and a resumed run takes it.

    Args:
        enabled (bool): False does nothing.
        measure (bool): False leaves the choice of forms to rules of thumb.
        parts: The arguments of ``accelerate``.
    """

    priority = 'VERY_HIGH'

    def __init__(self, enabled=True, measure=True, **parts):
        unknown = set(parts) - {*PARTS, 'channels_last'}
        if unknown:
            raise SettingError(f'AccelerateHook has no setting {", ".join(map(repr, sorted(unknown)))}; expected: '
                               f'enabled, measure, channels_last, {", ".join(PARTS)}')
        for part in PARTS:
            check_form(part, parts.get(part, 'auto'))
        self.enabled = enabled
        self.measure = measure and enabled
        self.parts = parts
        self.done = not enabled
        self.to_measure = {'loss', 'predict'}

    def before_run(self, runner):
        self.done = not self.enabled
        self.to_measure = {'loss', 'predict'} if self.measure else set()
        measured.TABLE.clear()      # another run of this process may have brought its own

    def before_train(self, runner):
        """After the weights are initialized: random values fill a parameter in the order of its memory, and with it in
        channels_last the same seed would give another model."""
        if self.done:
            return
        self.done = True
        wrapped, parts = is_model_wrapper(runner.model), dict(self.parts)
        # Its buckets have the layout of the parameters; other wrappers, and a compiled step, stay as they were built.
        wrap_anew = isinstance(runner.model, DistributedDataParallel) and (
            not runner.cfg.get('compile') or compiles_losses(runner))
        if wrapped and not wrap_anew:
            parts['channels_last'] = False
        model = runner.model.module if wrapped else runner.model
        print_log(str(accelerate(model, **parts)), 'current')
        if wrap_anew and parts.get('channels_last', True):
            runner.model = runner.wrap_model(runner.cfg.get('model_wrapper_cfg'), model)

    before_val = before_test = before_train

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if 'loss' in self.to_measure:
            self.to_measure.remove('loss')
            # The model takes no more than a part at once where gradients are accumulated within an iteration.
            split = getattr(runner.train_loop, 'split', None)
            measure_first_batch(runner, split(data_batch)[0] if split else data_batch, 'loss')

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if 'predict' not in self.to_measure:
            return
        self.to_measure.remove('predict')
        if get_world_size() == 1:
            measure_first_batch(runner, data_batch, 'predict')
        elif measured.TABLE.is_empty:   # a training has told all processes what its first one knows
            # They have images of different sizes, and in the end not even as many: none may wait for another.
            measured.recall()

    before_test_iter = before_val_iter

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint['operator_choices'] = measured.exported()

    def after_load_checkpoint(self, runner, checkpoint):
        forms = checkpoint.get('operator_choices')
        if not runner._resume or not self.measure or forms is None:
            return
        if not (isinstance(forms, dict) and all(isinstance(x, str) for pair in forms.items() for x in pair)):
            raise UserError(f"the checkpoint's operator_choices are {str(forms)[:100]!r}; expected the form of each "
                            'operator, by text. Next: resume from another checkpoint.')
        measured.pin(forms)


def configured_parts(cfg):
    """The arguments of ``accelerate`` that a config's ``AccelerateHook`` has; None where the model is to stay as it is.

    Args:
        cfg (Config): With or without such a hook, among its ``default_hooks`` or its ``custom_hooks``.
    """
    return configured(cfg)[0]


def configured(cfg):
    """As :func:`configured_parts`, and whether the hook measures."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or ())]
    settings = next((dict(hook) for hook in hooks if hook and hook.get('type') == 'AccelerateHook'), None)
    if settings is None or not settings.pop('enabled', True):
        return None, False
    measures = settings.pop('measure', True)
    return {name: value for name, value in settings.items() if name not in ('type', 'priority')}, measures


def accelerate_as_configured(model, cfg):
    """:func:`inceptionnext_seg.accelerate` as a config says, for a model that no runner builds.

    Forms are those that earlier runs measured for such inputs, unless the hook's ``measure`` is False.

    Returns:
        Acceleration | None: What was done.
    """
    parts, measures = configured(cfg)
    if parts is None:
        return None
    if measures:
        measured.recall()
    return accelerate(model, **parts)
