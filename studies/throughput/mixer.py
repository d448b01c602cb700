"""The token mixer by itself, against one copy of its input."""
import time

import torch

from inceptionnext_seg import accelerate
from inceptionnext_seg.models.token_mixers import DWConv2d, InceptionDWConv2d
from inceptionnext_seg.provenance import synchronize

from ..timing import DTYPES, interleave


def measure_mixer(setting, channels=96, size=64, batch_size=4, rounds=20, clock=time.perf_counter):
    """``InceptionDWConv2d`` by its forms, a 7×7 depthwise convolution, and one copy of their input, channels_last.

    Returns:
        dict: The sizes, and ``seconds``, lists of samples by name and direction.
    """
    dtype = DTYPES[setting.dtype]
    x, grad = (torch.randn(batch_size, channels, size, size, device=setting.device, dtype=dtype).to(
        memory_format=torch.channels_last) for _ in range(2))
    target = torch.empty_like(x)
    mixers = {'InceptionDWConv2d, torch': InceptionDWConv2d(channels),
              'InceptionDWConv2d, auto': InceptionDWConv2d(channels), '7×7 depthwise convolution': DWConv2d(channels)}
    accelerate(mixers['InceptionDWConv2d, auto'])
    candidates = dict(copy=lambda: target.copy_(x))
    for name, mixer in mixers.items():
        mixer.to(setting.device, dtype, memory_format=torch.channels_last)

        def forward(mixer=mixer):
            with torch.inference_mode():
                mixer(x)

        def both(mixer=mixer, image=x.clone(memory_format=torch.preserve_format).requires_grad_()):
            torch.autograd.grad(mixer(image), (image, *mixer.parameters()), grad)

        candidates[f'{name}: forward'], candidates[f'{name}: forward and backward'] = forward, both
    samples = interleave(candidates, rounds=rounds, min_sample=5e-3, clock=clock,
                         synchronize=lambda: synchronize(setting.device))
    return dict(dtype=setting.dtype, shape=list(x.shape), threads=torch.get_num_threads(),
                seconds={name: sample.seconds for name, sample in samples.items()})
