"""Acceleration by one line of a config, under any mm framework's own tools."""
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from torch.nn.parallel import DistributedDataParallel

from ..acceleration import PARTS, accelerate, check_form
from ..errors import SettingError


@HOOKS.register_module()
class AccelerateHook(Hook):
    """Calls :func:`inceptionnext_seg.accelerate` on the runner's model as a run begins, and logs what became of it.

    ``default_hooks = dict(accelerate=dict(type='AccelerateHook'))`` in a config; on the command line
    ``--cfg-options default_hooks.accelerate.enabled=False`` leaves the model as it is, and
    ``default_hooks.accelerate.loss=False`` leaves one part.

    Args:
        enabled (bool): False does nothing.
        parts: The arguments of ``accelerate``.
    """

    priority = 'VERY_HIGH'

    def __init__(self, enabled=True, **parts):
        unknown = set(parts) - {*PARTS, 'channels_last'}
        if unknown:
            raise SettingError(f'AccelerateHook has no setting {", ".join(map(repr, sorted(unknown)))}; expected: '
                               f'enabled, channels_last, {", ".join(PARTS)}')
        for part in PARTS:
            check_form(part, parts.get(part, 'auto'))
        self.enabled = enabled
        self.parts = parts
        self.done = not enabled

    def before_run(self, runner):
        self.done = not self.enabled

    def before_train(self, runner):
        """After the weights are initialized: random values fill a parameter in the order of its memory, and with it in
        channels_last the same seed would give another model."""
        if self.done:
            return
        self.done = True
        wrapped, parts = is_model_wrapper(runner.model), dict(self.parts)
        # Its buckets have the layout of the parameters; other wrappers, and a compiled step, stay as they were built.
        wrap_anew = isinstance(runner.model, DistributedDataParallel) and not runner.cfg.get('compile')
        if wrapped and not wrap_anew:
            parts['channels_last'] = False
        model = runner.model.module if wrapped else runner.model
        print_log(str(accelerate(model, **parts)), 'current')
        if wrap_anew and parts.get('channels_last', True):
            runner.model = runner.wrap_model(runner.cfg.get('model_wrapper_cfg'), model)

    before_val = before_test = before_train


def configured_parts(cfg):
    """The arguments of ``accelerate`` that a config's ``AccelerateHook`` has; None where the model is to stay as it is.

    Args:
        cfg (Config): With or without such a hook, among its ``default_hooks`` or its ``custom_hooks``.
    """
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or ())]
    settings = next((dict(hook) for hook in hooks if hook and hook.get('type') == 'AccelerateHook'), None)
    if settings is None or not settings.pop('enabled', True):
        return None
    return {name: value for name, value in settings.items() if name not in ('type', 'priority')}


def accelerate_as_configured(model, cfg):
    """:func:`inceptionnext_seg.accelerate` as a config says, for a model that no runner builds.

    Returns:
        Acceleration | None: What was done.
    """
    parts = configured_parts(cfg)
    return None if parts is None else accelerate(model, **parts)
