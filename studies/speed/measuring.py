"""Cells measured process by process, each result added to the file as it comes."""
import contextlib
import importlib.metadata
import random
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import psutil

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import read_object, write_json
from inceptionnext_seg.provenance import commit, environment

from . import steps
from .cells import CANDIDATES

# Cores that other programs may keep busy, and seconds that they are waited for.
MOST_BUSY, PATIENCE = 0.5, 60
LIBRARIES = ('onedl-mmpretrain', 'segmentation-models-pytorch', 'transformers')
# A layout that is slower than the other by more than this in each of the first processes is not measured further.
EXPLORED, CLEARLY_SLOWER = 2, 1.1
WHAT = 'a result of studies.speed'


def layouts_left(records, cell, name, process):
    """The layouts of a candidate that a process measures: all at first, then those not clearly slower.

    Args:
        records (list[dict]): Measured so far.
        process (int): From 0.
    """
    layouts = [layout for layout in CANDIDATES[name].layouts if layout in cell.layouts]
    if process < EXPLORED or len(layouts) == 1:
        return layouts
    seconds = {(r['layout'], r['process']): statistics.median(r['seconds']) for r in records
               if (r['cell'], r['candidate']) == (cell.name, name)}

    def clearly_slower(layout):
        pairs = [(seconds.get((layout, p)), min(seconds.get((other, p), float('inf')) for other in layouts))
                 for p in range(EXPLORED)]
        return all(own is not None and own > CLEARLY_SLOWER * least for own, least in pairs)

    return [layout for layout in layouts if not clearly_slower(layout)]


def left_to_do(records, cell, process):
    """(candidate, layout) pairs of a cell that this process has still to measure, in the random order of the process.

    Returns:
        list[tuple[str, str]]: Empty where all is done.
    """
    done = {(r['candidate'], r['layout']) for r in records if (r['cell'], r['process']) == (cell.name, process)}
    pairs = [(name, layout) for name, processes in cell.candidates.items() if process < processes
             for layout in layouts_left(records, cell, name, process)]
    random.Random(f'{cell.name} {process}').shuffle(pairs)
    return [pair for pair in pairs if pair not in done]


def open_result(path, described):
    """The content of the result file, or of a new one.

    Raises:
        UserError: It is of another machine, or of other versions.
    """
    if not Path(path).is_file():
        return dict(environment=described, records=[], memory=[])
    result = read_object(path, WHAT, 'another --out')
    for key in ('cpu', 'cpu_cores', 'device_name', 'versions'):
        if result['environment'][key] != described[key]:
            raise UserError(f'{path} was measured with {key} {result["environment"][key]!r}, and this is '
                            f'{described[key]!r}. Next: another --out.')
    return result


def wait_for_quiet(busy_cores=steps.busy_cores, patience=PATIENCE, clock=time.monotonic):
    """Cores that others keep busy, once they are few enough.

    Raises:
        UserError: They stay busy.
    """
    begin = clock()
    while (busy := busy_cores()) > MOST_BUSY:
        if clock() - begin > patience:
            raise UserError(f'other programs keep {busy:.1f} cores busy; expected at most {MOST_BUSY}, or times would '
                            'be theirs, too. Next: stop them; what is measured is kept.')
    return busy


def machine_and_versions():
    """:func:`environment` with the candidates' libraries, and what the processor multiplies bfloat16 with."""
    described = environment('cpu')
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            described['versions'][name] = importlib.metadata.version(name)
    try:
        flags = Path('/proc/cpuinfo').read_text().split()
    except OSError:     # not Linux
        flags = []
    return dict(described, features=[flag for flag in ('amx_bf16', 'avx512_bf16') if flag in flags])


def measure_all(cells, path, processes, minutes=None, progress=print, wait=wait_for_quiet):
    """Measure what the file does not have yet, process after process; stops between two candidates after ``minutes``.

    Returns:
        dict: The result file's content.
    """
    result, begin = open_result(path, machine_and_versions()), time.monotonic()
    made_by = dict(commit=commit(), command=environment('cpu')['command'])
    if made_by not in result.setdefault('runs', []):
        result['runs'].append(made_by)
    run = result['runs'].index(made_by)
    for process in range(processes):
        for cell in cells:
            if not (pairs := left_to_do(result['records'], cell, process)):
                continue
            busy, load = wait(), psutil.getloadavg()[0]
            with ProcessPoolExecutor(1, get_context('spawn'), steps.prepare, (cell.threads, )) as pool:
                for name, layout in pairs:
                    if minutes is not None and time.monotonic() - begin > 60 * minutes:
                        return result
                    found = pool.submit(steps.measure, name, cell.setting, layout).result()
                    result['records'].append(dict(
                        cell=cell.name, process=process, candidate=name, layout=layout, **found, run=run,
                        busy_before=round(busy, 3), load_average=round(load, 2), date=environment('cpu')['date']))
                    write_json(path, result)    # what is measured stays, whatever comes next
                    progress(f'{cell.name}, process {process + 1}: {name} {layout} '
                             f'{statistics.median(found["seconds"]):.3f} s')
    return result


def measure_memory(cells, path, progress=print):
    """The peak of a process that takes two steps, of the cells' main candidates, where the file does not have it."""
    result = open_result(path, machine_and_versions())
    for cell in cells:
        done = {(r['candidate'], r['layout']) for r in result['memory'] if r['cell'] == cell.name}
        for name, processes in cell.candidates.items():
            for layout in CANDIDATES[name].layouts:
                if processes < max(cell.candidates.values()) or (name, layout) in done:
                    continue
                with ProcessPoolExecutor(1, get_context('spawn')) as pool:
                    peak = pool.submit(steps.peak_memory, name, cell.setting, layout).result()
                result['memory'].append(dict(cell=cell.name, candidate=name, layout=layout, peak=peak,
                                             commit=commit()))
                write_json(path, result)
                progress(f'{cell.name}: {name} {layout} {peak / 2**20:.0f} MiB')
    return result
