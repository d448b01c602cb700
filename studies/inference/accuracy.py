"""mIoU of a trained model in torch and in exported files, with the interval of the difference over images."""
import copy
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from inceptionnext_seg import accelerate, create_model, fuse_for_inference
from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.export import Graph
from inceptionnext_seg.export.files import FORMATS, Runtime, write
from inceptionnext_seg.export.proof import calibration_images, counted, labelled_images, miou
from inceptionnext_seg.provenance import commit

from .cells import RUNTIMES
from .torch_process import as_runtime

WHAT = (('torch', 'accelerated', 'bf16'), ('torch', 'accelerated', 'int8'), ('onnx', 'winograd', 'fp32'),
        ('onnx', 'factorized', 'int8'), ('openvino', 'winograd', 'fp32'), ('openvino', 'winograd', 'bf16'),
        ('openvino', 'factorized', 'int8'))
# Images that lie beside each other are frames of one film: they are drawn together.
BLOCK, RESAMPLES = 10, 2000


def interval(counts):
    """95 % interval of the difference in mIoU, in points, by a bootstrap over blocks of successive images.

    Args:
        counts (ndarray): (images, 2, classes, classes), of the model and of what is compared with it.
    """
    blocks = [block.sum(0) for block in np.array_split(counts, max(len(counts) // BLOCK, 2))]
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(blocks), (RESAMPLES, len(blocks)))
    sums = [np.sum([blocks[i] for i in row], 0) for row in drawn]
    low, high = np.percentile([miou(file) - miou(model) for model, file in sums], (2.5, 97.5))
    return float(low), float(high)


def measure_accuracy(config, checkpoint, data, how, folder):
    """mIoU of a checkpoint on the validation images below ``data``, in torch and in files in ``folder``.

    Returns:
        dict: ``config``, ``how``, ``commit``, ``calibration``, the number of images that ranges are from, and ``rows``,
        dicts of ``what``, ``images``, ``model`` and ``file``, mIoU in %, ``low`` and ``high``, the interval of the
        difference in points, and ``equal``, % of pixels.
    """
    folders = [Path(data) / kind / 'validation' for kind in ('images', 'annotations')]
    model = create_model(load_config(config), checkpoint=checkpoint, accelerate=False).eval()
    size = next(labelled_images(*folders, None, 0))[0].shape[:2]
    ranges = [model.normalize(torch.from_numpy(image).permute(0, 3, 1, 2))
              for image in calibration_images(Path(data) / 'images/training', size, 1)]
    found = dict(config=config, calibration=len(ranges), how=how, commit=commit(), rows=[])
    fast = copy.deepcopy(model)
    fast.acceleration = accelerate(fast)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for runtime, form, dtype in WHAT:
        if runtime == 'torch':
            lowered = as_runtime(fuse_for_inference(fast, dtype=dtype, calibration=ranges if dtype == 'int8' else None))
            run = lambda image, lowered=lowered: [lowered(image)]      # noqa: E731
        else:
            path = Path(folder) / f'accuracy_{dtype}{FORMATS[runtime][0]}'
            write(Graph(model, form), path, runtime, 1, size, dtype,
                  [image.numpy() for image in ranges] if dtype == 'int8' else ())
            run = Runtime(path, runtime, dtype=dtype)
        seen = list(tqdm(counted(model, run, labelled_images(*folders, size, 0), False, False), leave=False))
        counts = np.stack([of_image for of_image, _ in seen])
        low, high = interval(counts)
        found['rows'].append(dict(
            what=f'{RUNTIMES[runtime]} {form} {dtype}', images=len(seen), model=miou(counts[:, 0].sum(0)),
            file=miou(counts[:, 1].sum(0)), low=low, high=high, equal=100 * float(np.mean([same for _, same in seen]))))
    return found
