"""What is measured: each cell, and in how many processes."""
from pathlib import Path
from typing import NamedTuple

from inceptionnext_seg.export.files import FORMATS

SIZE, CLASSES = (512, 512), 150
FAMILIES = dict(inceptionnext='InceptionNeXt-T', convnext='ConvNeXt-T')
RUNTIMES = dict(torch='torch', onnx='ONNX Runtime', openvino='OpenVINO')


class Cell(NamedTuple):
    """``family``, ``runtime``, and the graph's form and dtype, or torch's way of running it; ``threads``."""
    family: str
    runtime: str
    form: str
    dtype: str
    threads: int

    @property
    def name(self):
        return f'{self.form} {self.dtype}'

    @property
    def plain(self):
        """The cell that it is compared with: the graph as it was trained, in float32, in the same runtime."""
        return self._replace(form='plain', dtype='fp32')

    def path(self, folder):
        return Path(folder) / f'{self.family}_{self.form}_{self.dtype}{FORMATS[self.runtime][0]}'


def cells(family, threads, **names):
    return [Cell(family, runtime, *name.split(), threads) for runtime, of_runtime in names.items()
            for name in of_runtime]


# Five processes for what the documents say first, fewer for the rest: (processes, cells), torch's plain one first, for
# with its class maps the others are compared.
PLAN = (
    (5, cells('inceptionnext', 2,
              torch=('plain fp32', 'accelerated fp32', 'accelerated bf16', 'accelerated int8'),
              onnx=('plain fp32', 'winograd fp32', 'factorized int8'),
              openvino=('plain fp32', 'winograd fp32', 'plain bf16', 'factorized int8'))),
    (2, cells('inceptionnext', 2,
              torch=('compiled fp32', ), onnx=('factorized fp32', ),
              openvino=('factorized fp32', 'winograd bf16'))),
    (1, cells('inceptionnext', 2, onnx=('plain int8', ), openvino=('plain int8', ))),
    (1, cells('inceptionnext', 1,
              torch=('plain fp32', 'accelerated fp32', 'accelerated int8'), onnx=('plain fp32', 'winograd fp32'),
              openvino=('plain fp32', 'winograd fp32', 'factorized int8'))),
    (1, cells('convnext', 2,
              torch=('plain fp32', 'compiled fp32', 'accelerated fp32', 'accelerated bf16', 'accelerated int8'),
              onnx=('plain fp32', 'winograd fp32', 'factorized int8'),
              openvino=('plain fp32', 'winograd fp32', 'plain bf16', 'factorized int8'))))
ORDER = ('plain', 'compiled', 'accelerated', 'factorized', 'winograd')
DTYPES = ('fp32', 'bf16', 'int8')


def rank(cell):
    """Where a cell stands in a table."""
    return (list(FAMILIES).index(cell.family), -cell.threads, list(RUNTIMES).index(cell.runtime),
            DTYPES.index(cell.dtype), ORDER.index(cell.form))


def schedule(plan, done):
    """The cells whose process is still to run, in turns: one of each, then the second of those that have one, …

    Args:
        plan (Sequence): As ``PLAN``.
        done (list[Cell]): Of the processes that have run.
    """
    turns = max(processes for processes, _ in plan)
    return [cell for turn in range(turns) for processes, of_plan in plan for cell in of_plan
            if done.count(cell) <= turn < processes]
