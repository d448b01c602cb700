"""One measurement of an exported file, in a process of its own, which has its runtime and numpy but no torch.

python studies/inference/process.py '{"path": …, "runtime": "onnx", "threads": 2, "bf16": false, "reference": …}'
"""
import importlib
import json
import re
import sys
import time
from pathlib import Path

import numpy as np

LEAST_CALLS, LEAST_SECONDS = 3, 1.


def image(size=(512, 512)):
    return np.random.default_rng(2).standard_normal((1, 3, *size), dtype=np.float32)


def memory(field):
    """Bytes: 'VmRSS', what the process has, or 'VmHWM', what it had at most (Linux)."""
    return 1024 * int(re.search(rf'{field}:\s*(\d+) kB', Path('/proc/self/status').read_text())[1])


def measure(load, reference, keep=False):
    """What the parent reads: seconds of the calls, of loading and the first call, bytes, and the share of equal pixels.

    Args:
        load (Callable): Without arguments, to a function from an image to logits, arrays both.
        reference (str): File of the class map to compare with.
        keep (bool): Write that file first.
    """
    picture = image()
    before = memory('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')       # what it has now is the most from here on
    start = time.perf_counter()
    run = load()
    logits = run(picture)
    first, seconds = time.perf_counter() - start, []
    while len(seconds) < LEAST_CALLS or sum(seconds) < LEAST_SECONDS:
        start = time.perf_counter()
        logits = run(picture)
        seconds.append(time.perf_counter() - start)
    most = memory('VmHWM')
    classes = logits.argmax(1)
    if keep:
        np.save(reference, classes)
    equal = float((np.load(reference) == classes).mean())
    print('RESULT ' + json.dumps(dict(seconds=seconds, first=first, memory=most - before, equal=equal)))


def onnx(runtime, path, threads):
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    return lambda picture: session.run(None, {name: picture})[0]


def openvino(runtime, path, threads, bf16):
    compiled = runtime.Core().compile_model(path, 'CPU', {
        'INFERENCE_PRECISION_HINT': 'bf16' if bf16 else 'f32', 'INFERENCE_NUM_THREADS': threads})
    return lambda picture: compiled(picture)[0].copy()


def main():
    found = json.loads(sys.argv[1])
    path, threads = found['path'], found['threads']
    if found['runtime'] == 'onnx':
        runtime = importlib.import_module('onnxruntime')
        measure(lambda: onnx(runtime, path, threads), found['reference'])
    else:
        runtime = importlib.import_module('openvino')
        measure(lambda: openvino(runtime, path, threads, found['bf16']), found['reference'])


if __name__ == '__main__':
    main()
