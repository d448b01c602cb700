"""The models in three lines of Python, without a config, a registry or a runner.

What is here is exported by the package itself, which imports it when it is asked for: importing the package imports
neither mmcv nor mmseg.
"""
from ..segmentation.graphed import cuda_graph
from .create import create_backbone, create_model, list_configs, list_models
from .model import SegmentationModel
from .predictor import Prediction, Predictor, load

__all__ = [
    'Prediction', 'Predictor', 'SegmentationModel', 'create_backbone', 'create_model', 'cuda_graph', 'list_configs',
    'list_models', 'load'
]
