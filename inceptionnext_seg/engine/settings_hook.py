"""The checks of tools/train.py and tools/test.py, for a config of ours under MMSegmentation's tools and any other."""
import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from ..data.checks import check_classes
from .model_checks import check_model
from .settings import check_names, check_sections
from .values import check_values


@HOOKS.register_module()
class SettingsCheckHook(Hook):
    """Refuses settings that nothing reads, values out of range, and parts of the model that do not fit each other.

    ``default_hooks = dict(settings=dict(type='SettingsCheckHook'))``. The tools of this package look at the settings
    before they build anything; this looks at them again, and at the model, when everything is built and nothing has
    run.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner):
        if runner.cfg.get('model'):
            if runner.cfg.filename:
                check_names(runner.cfg, runner.cfg.filename)
            check_sections(runner.cfg)
            for line in check_values(runner.cfg):
                print_log(line, 'current', logging.WARNING)
        model = runner.model
        while is_model_wrapper(model) or hasattr(model, 'module'):
            model = model.module
        check_model(model)
        # mmengine keeps a loop's config in its place until it builds the loop.
        loops = (runner._train_loop, runner._val_loop) if hasattr(runner._train_loop, 'dataloader') else (
            runner._test_loop, )
        for loop in loops:
            if hasattr(loop, 'dataloader') and 'classes' in (getattr(loop.dataloader.dataset, 'metainfo', None) or ()):
                check_classes(loop.dataloader.dataset, model)
