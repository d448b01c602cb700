"""Class indices by a CUDA graph: for images of one shape, on a GPU that would otherwise wait for Python."""
import threading
from collections.abc import Callable

import torch
import torch.nn as nn

from ..errors import UserError
from ..ops import measured
from ..ops.precision import without_cached_casts
from .segmentor import FastEncoderDecoder

WARM_UP = 3     # predictions before the capture, in which libraries plan and kernels are compiled
DEVICE = 'cuda'


def cuda_graph(model: nn.Module, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that predicts the classes of images of one shape, all kernels of which are queued at once.

    A small batch is a few hundred kernels, which a GPU runs faster than Python queues them. Autocast is as it is where
    this is called. Weights are read where they lie: what changes them in place, as an optimizer or ``load_state_dict``,
    is seen. What replaces them, as ``model.to`` or ``fuse_for_inference``, is not: capture anew. The memory of one
    prediction is kept for as long as the function is.

    Args:
        model: A segmentor of mmseg on a CUDA device, in eval mode, after ``accelerate``.
        images: (B, 3, H, W), normalized, of the shape, dtype and device of those to come.

    Returns:
        A function from images (B, 3, H, W) to class indices (B, H, W), int64. From several threads, one at a time.

    Raises:
        UserError: The model is another, or not on a CUDA device, or cannot be captured; in the function, the images are
            others than those that were captured.
    """
    if not isinstance(model, FastEncoderDecoder) or not model.predicts_by_argmax():
        raise UserError(f'cuda_graph: the model is a {type(model).__name__} whose classes come from logits of the '
                        "image's size; expected: a segmentor of mmseg after inceptionnext_seg.accelerate, without "
                        'keep_logits.')
    if model.training:
        raise UserError('cuda_graph: the model is in training; expected: in evaluation. Next: model.eval().')
    places = {str(images.device), str(next(model.parameters()).device)}
    if images.device.type != DEVICE or len(places) > 1:
        found = ' and '.join(sorted(places))
        raise UserError(f'cuda_graph: images and model are on {found}; expected: one CUDA device.')
    size = tuple(images.shape[2:])
    metas = [dict(img_shape=size, ori_shape=size, pad_shape=size)] * len(images)
    with torch.inference_mode():
        own = images.clone(memory_format=torch.preserve_format)
        try:
            with measured.by_rules(), without_cached_casts(images.device.type):
                graph, classes = capture(lambda: model.encode_decode_argmax(own, metas))
        except UserError:
            raise
        except Exception as error:
            raise UserError(f'cuda_graph: the prediction cannot be captured: {type(error).__name__}: {error}. Next: '
                            'predict without it.') from error
    turn = threading.Lock()

    def predict(images: torch.Tensor) -> torch.Tensor:
        if (images.shape, images.dtype, images.device) != (own.shape, own.dtype, own.device):
            raise UserError(f'images are {tuple(images.shape)}, {images.dtype}, on {images.device}; expected: '
                            f'{tuple(own.shape)}, {own.dtype}, on {own.device}, as captured. Next: cuda_graph(model, '
                            'images) for each shape.')
        with turn, torch.inference_mode():
            own.copy_(images)
            graph.replay()
            return classes.clone()      # the next replay writes over what the graph returns

    return predict


def capture(call):
    """A graph of ``call``, and what it returned, which a replay fills anew."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call()
    return graph, found
