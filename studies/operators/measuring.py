"""Cells measured process by process, each added to the file as it comes."""
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import psutil

from inceptionnext_seg.engine.allocator import VARIABLES
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import write_json
from inceptionnext_seg.provenance import commit, environment

from ..going_on import content_of
from ..speed.measuring import CLEARLY_SLOWER, EXPLORED, machine_and_versions, wait_for_quiet
from ..timing import last_level_cache
from . import networks, worker
from .cases import NETWORKS
from .cells import LAYOUTS

WHAT = 'a result of studies.operators'
# The load average over a minute at which a run starts at most, and the seconds that it is waited for.
MOST_LOAD, PATIENCE = 0.5, 240


def wait_for_low_load(progress=print, load=lambda: psutil.getloadavg()[0], clock=time.monotonic, sleep=time.sleep):
    """The load average over the last minute, once it is low; what ran just before needs a minute or two to leave it.

    Raises:
        UserError: It stays above :data:`MOST_LOAD`.
    """
    begin, told = clock(), False
    while (found := load()) > MOST_LOAD:
        if clock() - begin > PATIENCE:
            raise UserError(f'the load average over a minute is {found:.2f}; expected at most {MOST_LOAD}, or times '
                            'would be of other programs, too. Next: stop them, or --any-load, which the result says.')
        if not told:
            progress(f'Load average {found:.2f}: waiting for {MOST_LOAD}, {PATIENCE} s at most.')
            told = True
        sleep(5)
    return found


def layouts_left(groups, cell, process):
    """The layouts in which a process measures each candidate of a cell.

    All at first; after :data:`EXPLORED` processes without one that was clearly slower in each of them.

    Returns:
        dict[str, list[str]]: By candidate.
    """
    first = [group['seconds'] for group in groups if group['cell'] == cell.name and group['process'] < EXPLORED]
    left = {}
    for name in cell.candidates:
        left[name] = list(LAYOUTS)
        if process >= EXPLORED and len(first) == EXPLORED:
            medians = [{layout: statistics.median(seconds[name][layout]) for layout in LAYOUTS} for seconds in first]
            left[name] = [layout for layout in LAYOUTS if any(
                found[layout] <= CLEARLY_SLOWER * min(found.values()) for found in medians)]
    return left


def measure_all(cells, path, processes, minutes=None, device='cpu', any_load=False, progress=print):
    """Measure what the file does not have yet, process after process; stops between two cells after ``minutes``.

    Each of ``processes`` takes all cells in turn, in one process of the system for each number of threads and setting
    of the allocator.

    Raises:
        UserError: Variables set the allocator, or other programs run.

    Returns:
        dict: The result file's content.
    """
    if found := [name for name in VARIABLES if name in os.environ]:
        raise UserError(f'{", ".join(found)} is set; expected not, for the study compares glibc\'s default with kept '
                        f'memory. Next: env {" ".join(f"-u {name}" for name in found)} …')
    load = psutil.getloadavg()[0] if any_load else wait_for_low_load(progress)
    begin = time.monotonic()
    now = dict(machine_and_versions(), device=device)
    result = content_of(path, WHAT, now, dict(environment=now, last_level_cache=last_level_cache(device), runs=[],
                                              limits=[], groups=[]))
    command = result['environment']['command'] = environment(device)['command']
    result['runs'].append(dict(commit=commit(), command=command, any_load=any_load,
                               load_average=round(load, 2), date=environment(device)['date']))
    run = len(result['runs']) - 1

    def in_time():
        return minutes is None or time.monotonic() - begin <= 60 * minutes

    for process in range(processes):
        for condition in dict.fromkeys(cell.condition for cell in cells):
            of_condition = [cell for cell in cells if cell.condition == condition]
            dtypes = limits_left(result['limits'], of_condition, process)
            done = {group['cell'] for group in result['groups'] if group['process'] == process}
            left = [cell for cell in of_condition if cell.name not in done]
            if not (dtypes or left) or not in_time():
                continue
            said = dict(process=process, run=run, busy_before=None if any_load else round(wait_for_quiet(), 3),
                        load_average=round(psutil.getloadavg()[0], 2))
            with ProcessPoolExecutor(1, get_context('spawn'), worker.prepare, condition) as pool:
                for dtype in dtypes:
                    found = pool.submit(worker.limits, dtype, device).result()
                    result['limits'].append(dict(dtype=dtype, threads=condition[0], **said, **found))
                    write_json(path, result)
                for cell in left:
                    if not in_time():
                        return result
                    start, layouts = time.monotonic(), layouts_left(result['groups'], cell, process)
                    if cell.subject in NETWORKS:
                        task = worker.measure_network, cell, layouts, process, device, networks.step
                    else:
                        with_kernels = process == 0 and cell.place == 'inside' and cell.condition == (1, 'kept')
                        task = (worker.measure, cell, layouts, result['last_level_cache'], process, with_kernels,
                                device)
                    found = pool.submit(*task).result()
                    result['groups'].append(dict(cell=cell.name, **said, **found))
                    write_json(path, result)    # what is measured stays, whatever comes next
                    progress(f'process {process + 1} of {processes}: {cell.name}, {time.monotonic() - start:.0f} s')
    return result


def limits_left(limits, cells, process):
    """The dtypes in which the limits of a condition have still to be measured by a process."""
    threads, memory = cells[0].condition
    if memory != 'kept':
        return []
    done = {found['dtype'] for found in limits if (found['threads'], found['process']) == (threads, process)}
    return [dtype for dtype in dict.fromkeys(cell.dtype for cell in cells) if dtype not in done]
