"""Writing the files, and running the measurements, each in a process of its own."""
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
from tqdm import tqdm

from inceptionnext_seg.acceleration.precision import why_not_bf16
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.export import Graph
from inceptionnext_seg.export.files import write
from inceptionnext_seg.files import write_json

from .cells import PLAN, SIZE, Cell, schedule
from .torch_process import built, noise

RUNTIME_PACKAGES = ('onnxruntime', 'openvino', 'nncf')
ROOT = Path(__file__).resolve().parents[2]


def write_files(folder):
    """Those that are not there."""
    wanted = {cell.path(folder): cell for _, cells in PLAN for cell in cells if cell.runtime != 'torch'}
    for path, cell in tqdm(wanted.items(), unit='file'):
        if not path.exists():
            ranges = [image.numpy() for image in noise(4)] if cell.dtype == 'int8' else ()
            write(Graph(built(cell.family), cell.form), path, cell.runtime, 1, SIZE, cell.dtype, ranges)


def check_files(folder, plan=PLAN):
    """
    Raises:
        UserError: Files of the plan are not in the folder; names the first and the command that writes them.
    """
    paths = {cell.path(folder) for _, cells in plan for cell in cells if cell.runtime != 'torch'}
    missing = sorted(path.name for path in paths if not path.is_file())
    if missing:
        raise UserError(f'--files {folder}: {len(missing)} of {len(paths)} exported files are missing, {missing[0]} '
                        f'first. Next: python -m studies.inference --files {folder} --write --out FILE.json')


def versions():
    """Of the runtimes, by name.

    Raises:
        UserError: One is not installed.
    """
    found = {}
    for name in RUNTIME_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise UserError(f"{name} is not installed; expected: {', '.join(RUNTIME_PACKAGES)}. Next: "
                            "pip install -e '.[export-int8]'") from error
    return found


def measure(cell, folder):
    """Seconds, bytes and equal pixels of one process."""
    what = dict(cell._asdict(), path=str(cell.path(folder)) if cell.runtime != 'torch' else None,
                bf16=cell.dtype != 'fp32' and why_not_bf16() is None,
                reference=str(Path(folder) / f'{cell.family}_classes.npy'))
    # That of a file is run as a script: the packages that it lies in import torch.
    child = ['-m', 'studies.inference.torch_process'] if cell.runtime == 'torch' else [
        str(Path(__file__).with_name('process.py'))]
    command = [sys.executable, '-W', 'ignore', *child, json.dumps(what)]
    environment = dict(os.environ, OMP_NUM_THREADS=str(cell.threads), PYTHONPATH=str(ROOT))
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    found = re.search(r'^RESULT (.*)$', run.stdout, re.M)
    if run.returncode or not found:
        raise UserError(f'{cell} failed: {(run.stderr.strip().splitlines() or ["no message"])[-1]}')
    return json.loads(found[1])


def signature(result):
    """What all processes of a file have in common, by name."""
    described = result.get('environment', {})
    # Writing a file that the repository tracks is enough to make its commit '-dirty'.
    return dict(commit=(result.get('commit') or 'none').removesuffix('-dirty'), cpu=described.get('cpu'),
                **{**described.get('versions', {}), **result.get('versions', {})})


def refuse_to_mix(result, now, out):
    """
    Args:
        result (dict): Of the file ``out``, with processes that have run.
        now (dict): ``environment``, ``commit`` and ``versions`` of those to come.

    Raises:
        UserError: They are of other code, libraries or another processor.
    """
    before, after = signature(result), signature(now)
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            raise UserError(f'{out} was measured with {name} {before.get(name)}, and this is {after.get(name)}: '
                            'processes of both do not mix. Next: --anew, or another --out.')


def measure_all(folder, seconds, out, result, plan=PLAN):
    """Go on with what ``result`` has; begin no process after ``seconds``. Returns how many are still to run."""
    start = time.monotonic()
    todo = schedule(plan, [Cell(*run['cell']) for run in result['runs']])
    for i, cell in enumerate(tqdm(todo, unit='process')):
        if time.monotonic() - start > seconds:
            return len(todo) - i
        before, load = time.monotonic(), round(psutil.getloadavg()[0], 1)
        found = measure(cell, folder)
        result['runs'].append(dict(cell=cell, load=load, wall=round(time.monotonic() - before, 1), **found))
        write_json(out, result)
    return 0
