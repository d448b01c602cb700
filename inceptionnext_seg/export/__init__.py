"""Files for other runtimes: ONNX, torch.export, OpenVINO; each is run on images after writing, and compared."""
from .graph import FORMS, Graph

__all__ = ['FORMS', 'Graph']
