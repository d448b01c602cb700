"""8-bit convolutions in an exported graph: NNCF's for OpenVINO, those of onnxruntime's static quantizer for ONNX.

Weights have a scale for each output, activations a fixed one for each map, from the calibration images. In 8 bits are
the convolutions that ``fuse_for_inference(dtype='int8')`` has in 8 bits too: those of one group and of enough channels,
but neither the stem nor the classifier. Products with the matrices of resampling stay in float: they are a few per
cent of the arithmetic, and their weights would be rounded twice.
"""
import importlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

LEAST_CHANNELS = 16


def is_quantized(shape: Sequence[int]) -> bool:
    """Whether a convolution of one group, with a weight (O, C, kh, kw), is to be in 8 bits."""
    return min(shape[:2]) >= LEAST_CHANNELS


def quantize_onnx(model, path: Path, images: Sequence[np.ndarray]) -> None:
    """Write an ``onnx.ModelProto`` with 8-bit convolutions to ``path``.

    Args:
        images (Sequence[ndarray]): As the graph takes them.
    """
    quantization = importlib.import_module('onnxruntime.quantization')
    weights = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    *convolutions, _ = [node for node in model.graph.node if node.op_type == 'Conv']    # the last is the classifier
    groups = {node.name: attribute.i for node in convolutions for attribute in node.attribute
              if attribute.name == 'group'}
    chosen = [node.name for node in convolutions
              if groups.get(node.name, 1) == 1 and is_quantized(weights.get(node.input[1], (0, 0)))]
    name = model.graph.input[0].name
    reader = Reader({name: image} for image in tqdm(images, desc='calibrating', unit='image', leave=False))
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)    # it recommends a pass of simplification that the exporter has done
    try:
        quantization.quantize_static(
            model, path, reader, quant_format=quantization.QuantFormat.QDQ, per_channel=True,
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=chosen,
            # Ranges are the mean over the images of each one's extremes, as NNCF's are. The default, the extremes of
            # all images, made the steps in the backbone's MLPs so coarse that rare classes of CamVid gained pixels.
            extra_options=dict(CalibMovingAverage=True))
    finally:
        root.setLevel(level)


class Reader:
    """onnxruntime's ``CalibrationDataReader``: ``get_next()`` is the next one's inputs, or None."""

    def __init__(self, inputs):
        self.inputs = iter(inputs)

    def get_next(self):
        return next(self.inputs, None)


def quantize_openvino(model, images: Sequence[np.ndarray]):
    """An ``openvino.Model`` with 8-bit convolutions, of one that is left as it was."""
    nncf = importlib.import_module('nncf')
    convolutions = [node for node in model.get_ordered_ops() if node.get_type_name() == 'Convolution']
    left = [node.get_friendly_name() for node in convolutions
            if not is_quantized(node.input_value(1).get_shape())]
    left.append(convolutions[-1].get_friendly_name())       # the classifier
    others = {node.get_type_name() for node in model.get_ordered_ops()} - {'Convolution', 'Parameter', 'Result',
                                                                          'Constant', 'Convert'}
    nncf.set_log_level(logging.ERROR)
    return nncf.quantize(
        model, nncf.Dataset(list(images)), subset_size=len(images), target_device=nncf.TargetDevice.CPU,
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=sorted(set(left)), types=sorted(others), validate=False))
