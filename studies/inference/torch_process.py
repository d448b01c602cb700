"""One measurement in torch, in a process of its own; see :mod:`.process`.

python -m studies.inference.torch_process '{"family": …, "form": "compiled", "dtype": "fp32", "threads": 2, …}'
"""
import json
import math
import sys

import torch
import torch._inductor.config as inductor

from inceptionnext_seg import create_model, fuse_for_inference, measuring
from inceptionnext_seg.engine.allocator import keep_freed_memory

from .cells import CLASSES, SIZE
from .process import measure


def built(family, accelerate=False):
    """UperNet of the T backbone with weights from a fixed seed."""
    torch.manual_seed(0)
    return create_model(f'upernet_{family}_t', num_classes=CLASSES, accelerate=accelerate).eval()


def noise(count):
    """Images that ranges in 8 bits are taken from."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 3, *SIZE, generator=generator) for _ in range(count)]


def as_runtime(model):
    """From an image to logits, as arrays."""
    def run(image):
        with torch.no_grad():
            return model(torch.from_numpy(image)).numpy()
    return run


def load(family, form, dtype):
    """'plain': as it was trained, in stock operators; 'compiled': its deploy form by torch.compile; 'accelerated'."""
    model = built(family, form == 'accelerated')
    if form == 'plain':
        return as_runtime(model)
    model = fuse_for_inference(model, inplace=True, dtype=dtype, calibration=noise(4) if dtype == 'int8' else None)
    if form == 'compiled':
        inductor.freezing = inductor.max_autotune = True
        return as_runtime(torch.compile(model))
    run, measured = as_runtime(model), []

    def first_measured(image):
        if not measured:        # which form of each operator is fastest; the table of them is kept for the next process
            measured.append(True)
            with measuring(patience=math.inf):
                run(image)
        return run(image)
    return first_measured


def main():
    found = json.loads(sys.argv[1])
    torch.set_num_threads(found['threads'])
    keep_freed_memory()
    cell = found['family'], found['form'], found['dtype']
    measure(lambda: load(*cell), found['reference'], keep=found['form'] == 'plain')


if __name__ == '__main__':
    main()
