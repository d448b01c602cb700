"""Writing a graph: ONNX, torch.export's archive, OpenVINO's pair of files; and running what was written."""
import contextlib
import importlib
import inspect
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..acceleration.precision import why_not_bf16
from ..errors import UserError
from .graph import Graph
from .quantized import quantize_onnx, quantize_openvino

# The suffix of each format's file, and the packages that write and run it.
FORMATS = {
    'onnx': ('.onnx', ('onnx', 'onnxscript', 'onnxruntime')),
    'torch-export': ('.pt2', ()),
    'openvino': ('.xml', ('onnx', 'onnxscript', 'openvino')),
}
DTYPES = ('fp32', 'bf16', 'int8')
# Below, the smallest map has one pixel on a side, where torch.export cannot tell layouts apart.
SMALLEST, LARGEST = 64, 8192
AXES = ('batch', 'height', 'width')
# Without it an open size is guarded by what the example happens to be.
DEFERRED = 'prefer_deferred_runtime_asserts_over_guards'


def can_export() -> bool:
    """Whether torch.export is one that takes these graphs; torch 2.4's is not."""
    return DEFERRED in inspect.signature(torch.export.export).parameters


def require_packages(kind: str, dtype: str = 'fp32') -> None:
    """Raise a UserError where a file of this format and dtype cannot be, torch is too old, or a package for it cannot
    be imported."""
    if kind == 'torch-export' and dtype != 'fp32':
        raise UserError(f'--dtype {dtype} is for --format openvino or onnx; expected for torch-export: fp32. Next: '
                        f"in torch, inceptionnext_seg.fuse_for_inference(model, dtype='{dtype}').")
    if kind == 'onnx' and dtype == 'bf16':
        raise UserError("--dtype bf16 is for --format openvino: ONNX Runtime does not convolve bfloat16 on a CPU, "
                        'so that the file could not be proved. Expected for onnx: fp32 or int8. Next: --format '
                        'openvino; or fp32, whose precision TensorRT and Core ML lower themselves.')
    if not can_export():
        raise UserError(f'torch is {torch.__version__}, whose torch.export.export does not take {DEFERRED}; expected: '
                        'one that does, such as 2.14, which was tried. Next: export with a newer torch; checkpoints of '
                        'an older one are read as they are.')
    quantizer, extra = (['nncf'], 'export-int8') if (kind, dtype) == ('openvino', 'int8') else ([], 'export')
    for name in (*FORMATS[kind][1], *quantizer):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f'--format {kind} --dtype {dtype} needs {name}, which cannot be imported ({error}). Next: '
                            f'pip install "inceptionnext-seg[{extra}]"') from error


def export(graph: Graph, batch: int, size: tuple[int, int] | None) -> torch.export.ExportedProgram:
    """The graph as a program of torch.export.

    Args:
        batch (int): Images at a time, where the size is fixed.
        size (tuple[int, int] | None): Height and width; None leaves them and the batch open.
    """
    height, width = size or (160, 224)
    first = 1 if graph.preprocess else 2        # the axis of the height
    batch = batch if size else 2                # 1 would be taken for a constant
    shape = (batch, height, width, graph.in_channels) if graph.preprocess else (
        batch, graph.in_channels, height, width)
    example = torch.zeros(shape, dtype=torch.uint8 if graph.preprocess else torch.float32)
    dynamic = None
    if size is None:
        sides = [torch.export.Dim(name, min=SMALLEST, max=LARGEST) for name in AXES[1:]]
        axes = {0: torch.export.Dim('batch', min=1, max=1024), first: sides[0], first + 1: sides[1]}
        dynamic = dict(images=axes)
    with torch.no_grad():
        return torch.export.export(graph.eval(), (example, ), dynamic_shapes=dynamic, strict=False,
                                   prefer_deferred_runtime_asserts_over_guards=True)


def write(graph: Graph, path: Path, kind: str, batch: int, size: tuple[int, int] | None, dtype: str = 'fp32',
          calibration: Sequence[np.ndarray] = ()) -> None:
    """Write the graph to ``path``, and of OpenVINO also its weights beside it, ``.bin``.

    Args:
        batch, size: As of :func:`export`.
        dtype (str): One of ``DTYPES``: 'bf16' and 'int8' as :func:`require_packages` allows them. The weights of a
            bf16 file have 16 bits; what it is computed in is said where it is loaded (:func:`inference_precision`).
        calibration (Sequence[ndarray]): For 'int8', inputs of the graph.
    """
    program = export(graph, batch, size)
    if kind == 'torch-export':
        torch.export.save(program, path)
        return
    onnx_program = torch.onnx.export(
        program, dynamo=True, verbose=False, input_names=['images'], output_names=list(graph.outputs))
    name_axes(onnx_program.model.graph, graph)
    if kind == 'onnx' and dtype == 'int8':
        quantize_onnx(onnx_program.model_proto, path, calibration)
        return
    if kind == 'onnx':
        onnx_program.save(path)
        return
    openvino = importlib.import_module('openvino')
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        onnx_program.save(Path(folder) / 'graph.onnx')
        model = openvino.convert_model(Path(folder) / 'graph.onnx')
        if dtype == 'int8':
            model = quantize_openvino(model, calibration)
        openvino.save_model(model, path, compress_to_fp16=dtype == 'bf16')


def name_axes(ir, graph):
    """The open axes of inputs and outputs as 'batch', 'height' and 'width', for the exporter calls them s34, s90, …"""
    first = 1 if graph.preprocess else 2
    names = {}
    for axis, name in zip((0, first, first + 1), AXES, strict=True):
        dim = ir.inputs[0].shape[axis]
        if not isinstance(dim, int):
            names[str(dim.value)] = name
            ir.inputs[0].shape[axis] = name
    for output in ir.outputs:
        for axis, dim in enumerate(output.shape or ()):
            if not isinstance(dim, int) and str(dim.value) in names:
                output.shape[axis] = names[str(dim.value)]


def inference_precision(dtype: str) -> str:
    """OpenVINO's ``INFERENCE_PRECISION_HINT``, 'f32' or 'bf16', that a file of this dtype is proved with here.

    Without one, processors with bfloat16 tiles compute in bfloat16, whatever the file.
    """
    return 'bf16' if dtype != 'fp32' and why_not_bf16() is None else 'f32'


class Runtime:
    """A written file, loaded where it will be used: ``runtime(images)`` gives its outputs as arrays.

    Args:
        path (Path): As :func:`write` left it.
        threads (int | None): Of the runtime; by default torch's number.
        dtype (str): Of the file. What is not in 8 bits of an int8 file is computed in bfloat16 where the CPU has it.
    """

    def __init__(self, path: Path, kind: str, threads: int | None = None, dtype: str = 'fp32') -> None:
        threads = threads or torch.get_num_threads()
        if kind == 'torch-export':
            self.run: Any = torch.export.load(path).module()
        elif kind == 'onnx':
            runtime = importlib.import_module('onnxruntime')
            options = runtime.SessionOptions()
            options.intra_op_num_threads = threads
            session = runtime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
            self.run = lambda images: session.run(None, {session.get_inputs()[0].name: images})
        else:
            runtime = importlib.import_module('openvino')
            compiled = runtime.Core().compile_model(path, 'CPU', {
                'INFERENCE_PRECISION_HINT': inference_precision(dtype), 'INFERENCE_NUM_THREADS': threads})
            self.run = lambda images: [compiled(images)[i].copy() for i in range(len(compiled.outputs))]
        self.kind = kind

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        if self.kind != 'torch-export':
            return self.run(images)
        with torch.no_grad():
            found = self.run(torch.from_numpy(images))
        return [output.numpy() for output in (found if isinstance(found, tuple) else (found, ))]


@contextlib.contextmanager
def replacing(path: Path):
    """A path in a temporary folder beside ``path``; what was written there, its companions too, replaces what is at
    ``path`` when the block ends without an error.

    Raises:
        UserError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f'.{path.stem}.') as folder:
            temporary = Path(folder) / path.name
            yield temporary
            # The file that names the others comes last.
            for written in sorted(Path(folder).iterdir(), key=lambda file: file == temporary):
                written.replace(path.with_name(written.name))
    except OSError as error:
        raise UserError(f'cannot write {path.absolute()}: {error}. Next: give another --out, or free space.') from error
