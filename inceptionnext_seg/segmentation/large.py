"""Images too large for the network, or for memory: predicted by windows, each prepared on its own.

Neither the image as floating-point numbers nor its logits exist as a whole: a window is normalized when it is its turn.
"""
from collections.abc import Callable
from typing import Any

import torch
from mmseg.structures import SegDataSample

from .._fast import Fast
from ..errors import UserError
from .heads import upsamples_as_stock
from .windows import Windows, predict_windows

# Pixels of an image, as the network gets it, from which on it is predicted by windows: a segmentor of 512 channels at a
# quarter of the resolution needs about 2 GiB for so many.
LARGE_IMAGE = 2048 * 2048
# Of a config that has no sliding windows: those of the papers on ADE20K.
CROP_SIZE, STRIDE = (512, 512), (341, 341)


def windows_of(model: Any, size: tuple[int, int]) -> Windows:
    """The windows of a large image: those of ``test_cfg``, or of ``CROP_SIZE`` and ``STRIDE`` where it has none."""
    slides = model.test_cfg.get('mode', 'whole') == 'slide'
    return Windows.sliding(size, model.test_cfg.crop_size if slides else CROP_SIZE,
                           model.test_cfg.stride if slides else STRIDE)


@torch.no_grad()
def predict_large(model: Any, image: torch.Tensor, ori_shape: tuple[int, int],
                  progress: Callable[[int], Any] = lambda windows: None) -> torch.Tensor:
    """Class indices (H, W) of one image of any size, uint8, or int16 for more than 256 classes.

    Args:
        model (EncoderDecoder): In eval mode.
        image: (3, h, w), as a data loader hands it to the model's data preprocessor, on any device.
        ori_shape: Height and width of the result.
        progress: Called with the number of windows that were predicted.

    Raises:
        UserError: The head decides by a threshold on logits of full resolution.
    """
    if model.out_channels == 1:
        raise UserError(f'an image of {image.shape[1]}×{image.shape[2]} pixels is predicted by windows, and a head of '
                        'one channel is not. Next: scale the image down (a Resize in test_pipeline).')
    plain = upsamples_as_stock(model.decode_head)
    size = tuple(image.shape[1:])
    windows = windows_of(model, size)
    height, width = windows.window
    device = next(model.parameters()).device
    # False keeps the logits of an image, which a large one never has.
    form = model.form('prediction', 'native', 'triton', 'blocked') if isinstance(model, Fast) else 'auto'

    def prepared(corners):
        crops = [image[:, top:top + height, left:left + width] for top, left in corners]
        data = dict(inputs=crops, data_samples=[SegDataSample() for _ in crops])
        return model.data_preprocessor(data, False)['inputs']

    def logits_of(corners):
        inputs = prepared(corners)
        if plain:
            return model.decode_head.forward(model.extract_feat(inputs))
        shape = inputs.shape[2:]
        return model.encode_decode(inputs, [dict(img_shape=shape, ori_shape=shape, pad_shape=shape)] * len(inputs))

    return predict_windows(
        logits_of, windows, model.test_cfg.get('windows_at_once') or windows.at_once(device),
        tuple(prepared([(0, 0)]).shape[2:]), model.align_corners, ori_shape=None if ori_shape == size else ori_shape,
        dtype=torch.uint8 if model.out_channels <= 256 else torch.int16,
        impl=form or 'auto', progress=progress)
