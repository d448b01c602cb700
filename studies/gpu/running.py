"""All cells one after another, each in a process of its own, and a result file after each."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import torch
from tqdm import tqdm

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import read_object, write_json, write_text
from inceptionnext_seg.provenance import environment

from .cells import ROOT, cells
from .conditions import conditions, slug
from .report import report

# Of a cell, after which something hangs; and those that what is stopped has to end.
SECONDS, GRACE = 3600, 10


def no_gpu(device):
    """Why ``device`` cannot be measured on, as one message, or None."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        found = f'torch {torch.__version__} finds {torch.cuda.device_count()} CUDA devices'
        return (f'nothing was run: {device} is not there ({str(error).splitlines()[0]}); {found}. Expected: a CUDA GPU '
                'with its driver, and a torch that is built for it. Next: make gpu on such a machine. '
                'python tools/gpu.py --device cpu --quick exercises the command itself.')
    return None


def out_folder(device, name, quick):
    """docs/results/GPU; what exercises the command is no result."""
    published = torch.device(device).type == 'cuda' and not quick
    return Path('docs/results' if published else 'work_dirs/gpu') / slug(name)


def run_all(device, out, quick=False, only=('', ), run=None, again=False):
    """Run the cells that ``out``/gpu.json does not have yet, and write it and gpu.md after each.

    Args:
        only (Sequence[str]): Parts of the names of the cells that run.
        run (Callable | None): Of a cell and a device to what it found; by default a process of its own.
        again (bool): Run those too that were run before.

    Returns:
        dict: The content of gpu.json.
    """
    run = run or in_a_process
    path, origin = Path(out) / 'gpu.json', origin_of(device, quick)
    result = dict(environment=environment(device), conditions=conditions(device), origin=origin, cells={})
    if path.is_file():
        known = read_object(path, 'a result of make gpu', 'another --out').get('cells', {})
        result['cells'] = {name: cell for name, cell in known.items() if cell.get('origin') == origin}
    wanted = [cell for cell in cells(device, quick) if any(part in cell.name for part in only)]
    if not wanted:
        raise UserError(f'--only is {" ".join(map(repr, only))}; expected a part of one of these names: '
                        f'{"; ".join(cell.name for cell in cells(device, quick))}')
    with tqdm(wanted, unit='cell') as bar:
        for cell in bar:
            bar.set_postfix_str(cell.name)
            if again or 'error' in result['cells'].get(cell.name, dict(error='')):
                try:
                    found = run(cell, device)
                except Exception as error:      # what fails is a result, too
                    found = dict(error=f'{type(error).__name__}: {error}'[-4000:])
                result['cells'][cell.name] = dict(found, kind=cell.kind, origin=origin)
                write_json(path, result)
                write_text(path.with_suffix('.md'), report(result))
    return result


def origin_of(device, quick):
    """What a cell of an earlier run has to have been measured with to be kept."""
    found = environment(device)
    try:
        triton = metadata.version('triton')
    except metadata.PackageNotFoundError:
        triton = None
    return dict(commit=found['commit'], versions=found['versions'], device_name=found['device_name'], triton=triton,
                driver=conditions(device).get('driver'), quick=quick)


def in_a_process(cell, device):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'cell.json'
        status, errors = run_with_children([sys.executable, '-m', 'studies.gpu.cell', str(path)], SECONDS,
                                           json.dumps(dict(cell=cell._asdict(), device=device)))
        if status or not path.is_file():
            raise RuntimeError(f'exit status {status}: {errors[-3000:]}')
        return read_object(path, 'what a cell has written', 'report it')


def run_with_children(command, seconds, text):
    """Exit status and standard error of a command that reads ``text``, of whose children none outlives a time-out.

    A test run that went on would take the GPU from the cells that follow.

    Raises:
        TimeoutError: It takes longer than ``seconds``.
    """
    with subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True, stdin=subprocess.PIPE,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            errors = process.communicate(text, timeout=seconds)[1]
            return process.returncode, errors
        except subprocess.TimeoutExpired:
            raise TimeoutError(f'it did not end in {seconds} s, and was stopped') from None
        finally:
            end_session(process)


def end_session(process):
    """End what is left of a process and of its children: politely, so that a launcher ends its own, then for good."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            process.poll()
            os.killpg(process.pid, 0)       # is anyone there?
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):       # the latter on macOS, where all are dead and not yet waited for
        return


def failures(result):
    """Names of the tests that failed and of the cells that did not end."""
    found = [name for name, cell in result['cells'].items() if 'error' in cell]
    return found + [f'{name}: {test["name"]}' for name, cell in result['cells'].items()
                    for test in cell.get('tests', ()) if test['outcome'] == 'failed']


def what_to_send(out, result):
    """The last words of ``make gpu``."""
    failed = failures(result)
    lines = [f'Wrote {out}/gpu.json and {out}/gpu.md: {len(result["cells"])} cells, {len(failed)} failures.']
    lines += [f'  failed: {name}' for name in failed]
    if str(out).startswith('docs/results'):
        lines += ['Please send that folder, failures and all, as a pull request to the repository you cloned:',
                  f'  git switch -c gpu-{Path(out).name}; git add {out}; git commit -m "Measured on {Path(out).name}"',
                  'or attach its two files to an issue there. They name no host, user or path.']
    return '\n'.join(lines)
