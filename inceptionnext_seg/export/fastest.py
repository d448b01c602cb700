"""The form of a graph that a runtime runs fastest, found by writing and running each."""
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

# What was fastest where it was measured, docs/results/xeon-amx-2cores/inference.md; of torch's archive nothing was.
USUAL_FORMS = {('onnx', 'fp32'): 'winograd', ('openvino', 'fp32'): 'winograd', ('openvino', 'bf16'): 'winograd'}
# A rewritten graph must win by this much: it takes more memory than the one before it.
MARGIN = 1.05
ROUNDS = 5


def usual_form(kind: str, dtype: str) -> str:
    """The form of ``--form auto`` in a format: what was fastest on one machine, and not for every other."""
    return USUAL_FORMS.get((kind, dtype), 'factorized')


def seconds_a_call(runs: dict[str, Callable], inputs: np.ndarray, rounds: int = ROUNDS,
                   clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Median seconds a call of each, after one untimed. All take turns, so that a slow spell is everyone's.

    Args:
        runs (dict[str, Callable]): By name, from the input of a file to its outputs.
        inputs (ndarray): Of the files.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(inputs)
    for _ in range(rounds):
        for name, run in runs.items():
            start = clock()
            run(inputs)
            taken[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def choose(seconds: dict[str, float]) -> str:
    """The fastest of names in the order of their memory; of two within 5 % the first."""
    names = iter(seconds)
    best = next(names)
    for name in names:
        if seconds[name] * MARGIN < seconds[best]:
            best = name
    return best


def write_fastest(forms: Sequence[str], save: Callable[[str, Path], None], load: Callable[[Path], Callable], path: Path,
                  inputs: np.ndarray) -> tuple[str, dict[str, float]]:
    """Write each form, time the files, and leave the fastest at ``path`` with what belongs to it.

    Args:
        forms (Sequence[str]): The simplest first.
        save (Callable): ``save(form, path)`` writes one.
        load (Callable): From the path of one to what runs it.
        inputs (ndarray): What they are run on.

    Returns:
        The form, and median seconds a call of each.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        runs = {}
        for form in tqdm(forms, desc='forms', unit='file', leave=False):
            file = Path(folder) / form / path.name
            file.parent.mkdir()
            save(form, file)
            runs[form] = load(file)
        seconds = seconds_a_call(runs, inputs)
        runs.clear()
        form = choose(seconds)
        for file in (Path(folder) / form).iterdir():
            file.replace(path.with_name(file.name))
    return form, seconds
