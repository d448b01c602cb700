"""Sample predictions at every validation, for TensorBoard and the like."""
from pathlib import Path

import cv2
import numpy as np
from mmengine.dist import is_main_process
from mmengine.fileio import get
from mmengine.registry import HOOKS
from mmseg.engine.hooks import SegVisualizationHook


@HOOKS.register_module()
class SampleVisualizationHook(SegVisualizationHook):
    """mmseg's ``SegVisualizationHook`` that draws the same few images at every validation, labels beside predictions.

    Stock draws every ``interval``-th of all iterations, training's counted too: other images each time, and none of a
    small data set. Here an image keeps its name, and its step is the training iteration, so that viewers show it over
    the run.

    Args:
        samples (int): Images of each validation, evenly spaced over the data set.
        Others: as ``SegVisualizationHook``.
    """

    def __init__(self, samples=4, **settings):
        super().__init__(**settings)
        self.samples = samples

    def after_val_iter(self, runner, batch_idx, data_batch, outputs):
        if not self.draw or not is_main_process():
            return
        every = max(1, len(runner.val_dataloader) // max(1, self.samples))
        if batch_idx % every or batch_idx // every >= self.samples:
            return
        sample = outputs[0]
        content = np.frombuffer(get(sample.img_path, backend_args=self.backend_args), np.uint8)
        image = cv2.cvtColor(cv2.imdecode(content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        self._visualizer.add_datasample(
            f'val_{Path(sample.img_path).name}', image, data_sample=sample, show=self.show, wait_time=self.wait_time,
            step=runner.iter)
