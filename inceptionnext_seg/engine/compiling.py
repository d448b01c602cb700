"""``compile = True`` of a config, and ``--compile``: what of a training step is worth compiling."""
import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS


@HOOKS.register_module()
class CompileHook(Hook):
    """Where a config has ``compile``, compiles the model's losses rather than the whole ``train_step``.

    ``default_hooks = dict(compile=dict(type='CompileHook'))``; without ``compile`` it does nothing. mmengine compiles
    all of ``train_step``. Its backward cannot be traced, batches are collected differently from step to step, and an
    optimizer's rates are constants to the compiler, so that every change of the schedule compiles it anew; hooks of the
    optimizer's step, such as that of :class:`~.finite.FiniteHook`, are not called. From the images to the losses the
    model is one graph, forward and backward.

    ``compile = dict(backend=…, mode=…)`` gives settings of ``torch.compile``.
    """

    priority = 'HIGH'   # after AccelerateHook

    def before_train(self, runner):
        settings = runner.cfg.get('compile')
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not settings or not callable(getattr(model, 'loss', None)):
            return
        vars(runner.model).pop('train_step', None)      # mmengine's
        model.loss = torch.compile(model.loss, **({} if settings is True else settings))
        self.compiled = model
        print_log('torch.compile: the losses are compiled when they are first computed, which takes minutes',
                  'current')

    def after_train(self, runner):
        vars(getattr(self, 'compiled', self)).pop('loss', None)


def compiles_losses(runner):
    """Whether a :class:`CompileHook` takes the place of mmengine's compilation of ``train_step``."""
    return any(isinstance(hook, CompileHook) for hook in runner.hooks)
