"""Run every operator on random arguments with kernels that are compiled with sanitizers: make sanitize

The package's own loader compiles ``csrc/*.cpp`` with GCC's AddressSanitizer and UndefinedBehaviorSanitizer, and the
operators' tests of tests/fuzz run with them; AddressSanitizer also takes the place of malloc, so that torch's tensors
have guarded ends. First a kernel that is wrong on purpose has to be caught. Takes a few minutes.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ('-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-fno-omit-frame-pointer', '-g')
WRONG = '''#include <cstdint>
extern "C" void scale(const float* x, float* y, int64_t count) { for (int64_t i = 0; i <= count; ++i) y[i] = x[i]; }
'''


def run_child(mode, cases):
    from inceptionnext_seg.ops import _native as native  # after LD_PRELOAD has taken effect
    native.FLAGS = (*(flag for flag in native.FLAGS if flag != '-O3'), '-O1', *FLAGS)
    if mode == 'wrong':
        import torch
        native.SOURCES = Path(os.environ['INCEPTIONNEXT_SEG_CACHE'])
        (native.SOURCES / 'wrong.cpp').write_text(WRONG)
        native.PROTOTYPES['wrong'] = {'scale': (native.POINTER, native.POINTER, native.INT)}
        native.function('wrong', 'scale')(torch.ones(16), torch.zeros(16), 16)
        return 0
    for name in native.PROTOTYPES:
        if native.why_not(name):
            print(native.why_not(name), file=sys.stderr)
            return 1
    import pytest
    os.environ['INCEPTIONNEXT_SEG_FUZZ'] = str(cases)
    return pytest.main(['-q', '-p', 'no:cacheprovider', '-n0', str(ROOT / 'tests/fuzz/test_operators.py')])


def runtime(name):
    found = subprocess.run(['gcc', f'-print-file-name={name}'], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    if not Path(path).is_file():
        sys.exit(f'error: gcc has no {name}. Expected: GCC with its sanitizers. Next: apt-get install gcc.')
    return path


def write_result(path, cases, status):
    """Write what was found, in a process of its own that has neither sanitizers nor torch's threads."""
    compiler = subprocess.run(['g++', '--version'], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    code = ('import json, sys; from inceptionnext_seg.files import write_json; '
            'from inceptionnext_seg.provenance import environment; '
            'made = dict(environment("cpu"), command="make sanitize"); '
            'write_json(sys.argv[1], dict(json.loads(sys.argv[2]), environment=made))')
    result = dict(cases=cases, passed=status == 0, compiler=compiler, flags=FLAGS)
    subprocess.run([sys.executable, '-c', code, str(path), json.dumps(result)], check=True, cwd=ROOT,
                   env=dict(os.environ, PYTHONPATH=str(ROOT)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', type=int, default=1500, help='of all operators together, about')
    parser.add_argument('--out', type=Path, help='result file')
    parser.add_argument('--child', choices=['wrong', 'cases'], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        sys.exit(run_child(args.child, args.cases))
    with tempfile.TemporaryDirectory() as cache:
        environment = dict(
            os.environ, CXX='g++', INCEPTIONNEXT_SEG_CACHE=cache, PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES='',
            INCEPTIONNEXT_SEG_MEASURE='0', PYTHONMALLOC='malloc',
            # libstdc++ as well: AddressSanitizer looks for its __cxa_throw when it starts.
            LD_PRELOAD=f'{runtime("libasan.so")} {runtime("libstdc++.so")}',
            # Python, and torch at its end, leave memory to the system.
            ASAN_OPTIONS='detect_leaks=0:protect_shadow_gap=0', UBSAN_OPTIONS='print_stacktrace=1')

        def run(mode, **settings):
            return subprocess.run([sys.executable, __file__, '--child', mode, '--cases', str(args.cases)],
                                  env=environment, cwd=ROOT, text=True, **settings)

        caught = run('wrong', capture_output=True)
        if caught.returncode == 0 or 'heap-buffer-overflow' not in caught.stderr:
            sys.exit(f'error: a kernel that writes behind its tensor was not seen:\n{caught.stderr[-2000:]}')
        counts = Path(cache) / 'counts.json'
        environment['INCEPTIONNEXT_SEG_FUZZ_COUNTS'] = str(counts)
        status = run('cases').returncode
        if args.out:
            write_result(args.out, sum(json.loads(counts.read_text()).values()) if counts.is_file() else 0, status)
        sys.exit(status)


if __name__ == '__main__':
    main()
