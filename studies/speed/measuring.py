"""Cells measured process by process, each result added to the file as it comes.

A process measures all cells of a stage that have its number of threads. The result file is a dict:

- ``environment``: machine, versions, threads; ``features``: matrix units of the processor for bfloat16.
- ``harness``: :data:`HARNESS`, the way of measuring.
- ``runs``: ``commit`` and ``command`` of each run that added to it, and ``order``: 'rounds in turn'; without, one
  candidate was measured after the other.
- ``records``: one for each candidate in each layout and process, a dict of ``cell``, ``candidate`` and ``layout``
  (names of :mod:`.cells`), ``process`` (from 0), ``seconds`` of each round that counts, ``waited``, seconds that
  threads waited for a core in it, ``first``, seconds of the first step, ``others``, cores that other programs had
  meanwhile, ``busy_before``, ``load_average`` and ``began`` of the process, ``date``, and ``run``, the index of its
  run.
- ``memory``: dicts of ``cell``, ``candidate``, ``layout``, ``peak`` in bytes, ``commit``, ``date``.
- ``failed``: dicts of ``cell``, ``candidate``, ``layout``, ``process``, ``error``, until measured.

:class:`.summary.Result` reads it: ``Result(content).speedup(cell, candidate, baseline)`` is an
:class:`.statistics.Estimate`, both in their faster layout, or None.
"""
import contextlib
import hashlib
import importlib.metadata
import random
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import psutil

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import write_json
from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import measured
from inceptionnext_seg.provenance import commit, environment

from ..going_on import content_of, require_same
from . import steps
from .cells import DEPLOY, OURS, PLAIN, STAGES
from .summary import Result

# The way of measuring: results of another are not added to.
HARNESS = 2
# Cores that other programs may keep busy, and seconds that they are waited for.
MOST_BUSY, PATIENCE = 0.5, 120
LIBRARIES = ('onedl-mmpretrain', 'segmentation-models-pytorch', 'transformers')
# A layout that is slower than the other by more than this in each of the first processes is not measured further.
EXPLORED, SLOWER = 2, 1.03
# The same in the study of single operators, whose rounds are many.
CLEARLY_SLOWER = 1.1
# In the first process it takes a second long step after the first, which shows what the first is worth.
REPEATED = 'stock'
MEMORY_OF = ('stock', 'as-shipped', 'smp-inceptionnext', 'hf-convnext', *PLAIN, *OURS, *DEPLOY)
WHAT = 'a result of studies.speed'


def layouts_left(records, cell, name, process):
    """The layouts of a candidate that a process measures: all at first, then those not clearly slower.

    Args:
        records (list[dict]): Measured so far.
        process (int): From 0.
    """
    layouts = cell.layouts_of(name)
    if cell.as_in:
        there = {layout: [statistics.median(r['seconds']) for r in records if
                          (r['cell'], r['candidate'], r['layout']) == (cell.as_in, name, layout)] for layout in layouts}
        there = {layout: statistics.median(seconds) for layout, seconds in there.items() if seconds}
        return [min(there, key=there.get)] if there else list(layouts)
    if process < EXPLORED or len(layouts) == 1:
        return list(layouts)
    seconds = {(r['layout'], r['process']): statistics.median(r['seconds']) for r in records
               if (r['cell'], r['candidate']) == (cell.name, name)}

    def clearly_slower(layout):
        pairs = [(seconds.get((layout, p)), min(seconds.get((other, p), float('inf')) for other in layouts))
                 for p in range(EXPLORED)]
        return all(own is not None and own > SLOWER * least for own, least in pairs)

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


def open_result(path, described, replace=False):
    """The content of the result file, or of a new one.

    Args:
        replace (bool): Whether the first record replaces a result that was measured in another way.

    Raises:
        UserError: It is of another machine, of other versions, or measured in another way.
    """
    new = dict(environment=described, harness=HARNESS, records=[], memory=[])
    result = content_of(path, WHAT, described, new, same=())
    if result.get('harness', 1) != HARNESS:
        if replace:
            return new
        raise UserError(f'{path} was measured in another way (harness {result.get("harness", 1)}, and this is '
                        f'{HARNESS}), so that its figures and new ones do not mix. Next: --replace, or another --out.')
    require_same(path, result['environment'], described)
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


def measure_all(cells, path, processes, minutes=None, progress=print, wait=wait_for_quiet, stages=STAGES,
                replace=False):
    """Measure what the file does not have yet, stage by stage and process by process.

    Args:
        processes (int): At most, of each candidate.
        minutes (float | None): After them it stops, between two cells.

    Returns:
        dict: The result file's content. What failed is in it, and was said, and the rest is measured.

    Raises:
        UserError: The file is of another machine, other programs run, or stock cannot be imported.
    """
    result, begin = open_result(path, machine_and_versions(), replace), time.monotonic()
    made_by = dict(commit=commit(), command=environment('cpu')['command'], order='rounds in turn')
    if made_by not in result.setdefault('runs', []):
        result['runs'].append(made_by)
    run = result['runs'].index(made_by)
    for process, threads, chosen in turns(cells, stages, processes):
        if not any(left_to_do(result['records'], cell, process) for cell in chosen):
            continue
        busy, load, began = wait(), psutil.getloadavg()[0], environment('cpu')['date']
        with ProcessPoolExecutor(1, get_context('spawn')) as pool:
            # No initializer of the pool: from there its message would not reach the user.
            pool.submit(steps.prepare, threads, forms_file(path)).result()
            for cell in chosen:
                if minutes is not None and time.monotonic() - begin > 60 * minutes:
                    return result
                pairs = left_to_do(result['records'], cell, process)
                found, errors = in_turn(pool.submit, cell, pairs, process)
                failed = [f for f in result.get('failed', ()) if (f['cell'], f['process']) != (cell.name, process)]
                for name, layout in pairs:
                    key = dict(cell=cell.name, process=process, candidate=name, layout=layout)
                    if (error := errors.get((name, layout))) is not None:
                        said = f'{type(error).__name__}: {(str(error).splitlines() or [""])[0]}'
                        failed.append(dict(key, error=said))
                        progress(f'{cell.name}, process {process + 1}: {name} {layout} failed: {said}')
                        continue
                    record = found[name, layout]
                    result['records'].append(dict(
                        key, **record, run=run, busy_before=round(busy, 3), load_average=round(load, 2), began=began,
                        date=environment('cpu')['date']))
                    progress(f'{(time.monotonic() - begin) / 60:4.1f} min  {cell.name}, process {process + 1}: {name} '
                             f'{layout} {statistics.median(record["seconds"]):.3f} s')
                if failed or 'failed' in result:
                    result['failed'] = failed
                if pairs and result['records']:     # without any there is no report, and --replace has not replaced yet
                    write_json(path, result)        # what is measured stays, whatever comes next
                if any(isinstance(error, BrokenProcessPool) for error in errors.values()):
                    break
    return result


def in_turn(submit, cell, pairs, process):
    """Time the candidates of a cell in a process, in turn in every round, in an order of its own.

    A machine that becomes slower or faster on the way does so for all of them.

    Args:
        submit (Callable): Of the process's pool.
        pairs (list[tuple[str, str]]): Candidate and layout.

    Returns:
        tuple[dict, dict]: By pair the record, and the error of those that failed; the rest is measured all the same.
    """
    trials, errors = {}, {}

    def attempt(pair, function, *args):
        try:
            return submit(function, pair, *args).result()
        except Exception as error:
            errors[pair] = error
            return None

    for name, layout in pairs:
        trials[name, layout] = attempt((name, layout), steps.begin, name, cell.setting_of(name), layout,
                                       process == 0 and name == REPEATED)
    short = {pair: seconds for pair, seconds in trials.items() if pair not in errors and seconds < steps.LONG}
    order = random.Random(f'{cell.name} {process} rounds')
    for _ in range(steps.rounds_of(list(short.values()))):
        for pair in order.sample(list(short), len(short)):
            if pair not in errors:
                attempt(pair, steps.take)
    try:
        found = submit(steps.finish).result()
    except BrokenProcessPool as error:      # it took the others with it
        return {}, dict.fromkeys(pairs, error) | errors
    return found, errors


def turns(cells, stages, processes):
    """(process, threads, cells that it measures), in order."""
    for stage in stages:
        chosen = list(stage.cells(cells))
        for process in range(min(stage.processes, processes)):
            for threads in sorted({cell.threads for cell in chosen}, reverse=True):
                yield process, threads, [cell for cell in chosen if cell.threads == threads]


def forms_file(path):
    """Where the processes of a study exchange the forms of operators that they measured, in the cache folder.

    The user's own table is not read: what is in it may have been measured on a busy machine.
    """
    table = measured.cache_file()
    digest = hashlib.sha256(str(Path(path).absolute()).encode()).hexdigest()
    return native.private_folder(native.cache_folder()) / f'study-{digest[:8]}-{table.name}'


def measure_memory(cells, path, minutes=None, progress=print, replace=False):
    """The peak of a process that takes two steps, of the cells' main candidates, where the file does not have it.

    A candidate that was timed has the layout in which it is faster, the one that tables show, and the operators' forms
    are those of the timing: no form is measured here, so that other programs may run meanwhile.

    Returns:
        dict: The result file's content, with nothing changed but ``memory``. What has no room is said, and left out.

    Raises:
        UserError: The file is of another machine.
    """
    result = open_result(path, machine_and_versions(), replace)
    timed = Result(result)
    done = {(r['cell'], r['candidate'], r['layout']) for r in result['memory']}
    pairs, begin = [(cell, name) for cell in cells for name in cell.candidates if name in MEMORY_OF], time.monotonic()
    for cell, name in pairs:
        best = timed.best(cell.name, name)
        for layout in [best[0]] if best else cell.layouts_of(name):
            if (cell.name, name, layout) in done:
                continue
            if minutes is not None and time.monotonic() - begin > 60 * minutes:
                return result
            with ProcessPoolExecutor(1, get_context('spawn')) as pool:
                try:
                    peak = pool.submit(steps.peak_memory, name, cell.setting_of(name), layout, cell.threads,
                                       forms_file(path)).result()
                except BrokenProcessPool:
                    progress(f'{cell.name}: {name} {layout} was killed: it needs more memory than there is')
                    continue
            result['memory'].append(dict(cell=cell.name, candidate=name, layout=layout, peak=peak, commit=commit(),
                                         date=environment('cpu')['date']))
            write_json(path, result)
            progress(f'{cell.name}: {name} {layout} {peak / 2**20:.0f} MiB')
    return result
