"""Real batches: how many images/s the training loader of a config could feed."""
import copy
import time

from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from inceptionnext_seg.data.checks import check_folders


def measure_loader(cfg, setting, batches=20, clock=time.perf_counter):
    """Images/s of the config's own training loader, with its workers, alone: what it could feed.

    Raises:
        UserError: Its data are not there.
    """
    check_folders(cfg, ('train_dataloader', ))
    init_default_scope('mmseg')
    settings = copy.deepcopy(cfg.train_dataloader)
    settings.batch_size = setting.batch_size
    loader = Runner.build_dataloader(settings, seed=0)
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    seconds = []
    for _ in range(batches):
        start = clock()
        next(iterator)
        seconds.append(clock() - start)
    # Not the median: workers deliver in bursts.
    return dict(images_per_s=setting.batch_size * len(seconds) / sum(seconds), seconds=seconds,
                workers=settings.get('num_workers', 0))
