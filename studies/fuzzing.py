"""Runs the tests of tests/fuzz with many random inputs, each test in a process of its own, and counts the inputs."""
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from inceptionnext_seg.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def pytest_run(arguments, **environment):
    return subprocess.run(
        [sys.executable, '-m', 'pytest', '-n0', '-p', 'no:cacheprovider', *arguments], cwd=ROOT, text=True,
        capture_output=True, env=dict(os.environ, PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES='', **environment))


def tests(only):
    """Ids of the tests with random inputs whose names hold ``only``."""
    run = pytest_run(['--collect-only', '-m', 'not slow', 'tests/fuzz'])
    found = [line for line in run.stdout.splitlines() if '::' in line and only in line]
    if not found:
        raise UserError(f'no test of tests/fuzz has {only!r} in its name.\n{run.stdout[-2000:]}')
    return found


def run_pieces(cases, seed, only=''):
    """
    Args:
        cases (int): Of all tests together, about.
        seed (int): Of the inputs.
        only (str): A part of the names of the tests that run.

    Yields:
        dict: Of each test when it has ended: test, seed, cases, seconds, passed; the end of its output if it failed.
    """
    for test in tqdm(tests(only), unit='test'):
        with tempfile.TemporaryDirectory() as folder:
            counts, begin = Path(folder) / 'counts.json', time.monotonic()
            run = pytest_run([f'--hypothesis-seed={seed}', test], INCEPTIONNEXT_SEG_FUZZ=str(cases),
                             INCEPTIONNEXT_SEG_FUZZ_COUNTS=str(counts))
            found = sum(json.loads(counts.read_text()).values()) if counts.is_file() else 0
        piece = dict(test=test, seed=seed, cases=found, seconds=round(time.monotonic() - begin, 1),
                     passed=run.returncode == 0)
        if not piece['passed']:     # of a crash there are no counts, and the output is all
            piece['output'] = (run.stdout + run.stderr)[-6000:]
        yield piece


def words(result):
    """A result file in a sentence."""
    pieces, made = result['pieces'], result['environment']
    kinds = {}
    for piece in pieces:
        kind = Path(piece['test'].partition('::')[0]).stem.removeprefix('test_').replace('_', ' ')
        kinds[kind] = kinds.get(kind, 0) + piece['cases']
    failed = [piece['test'].rpartition('::')[2] for piece in pieces if not piece['passed']]
    return (f'{made["date"][:10]}, {made["device_name"]}, torch {made["versions"]["torch"]}: '
            f'{sum(kinds.values())} random inputs ({", ".join(f"{kind} {count}" for kind, count in kinds.items())}), '
            f'{", ".join(failed) + " failed" if failed else "no failure"}.')
