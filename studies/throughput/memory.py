"""Peak memory of a step, in a process of its own."""
import itertools
import multiprocessing
import re
import resource
import sys
from pathlib import Path

import psutil
import torch

from inceptionnext_seg.engine.allocator import keep_freed_memory

from ..timing import MEMORY_FORMATS
from .candidates import AS_SHIPPED
from .step import candidate_step


def is_out_of_memory(error):
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def peak_memory(name, cfg_options, setting, layout):
    """Bytes that two steps need at most, in a process of its own, which the other candidates' weights are not in.

    Returns:
        tuple[int, int] | None: The whole process, and what it had before there was a model: the interpreter and its
        libraries, on an accelerator nothing. None where that process had no room beside this one.
    """
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=measure_memory, args=(
        sender, name, cfg_options, setting, layout, torch.get_num_threads()))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return None
    finally:
        child.join()


def measure_memory(connection, name, cfg_options, setting, layout, threads):
    torch.set_num_threads(threads)
    # One image again and again: the pool that timing takes cold ones from would count as the step's memory.
    image = torch.randn(setting.batch_size, 3, *setting.image_size, device=setting.device).to(
        memory_format=MEMORY_FORMATS[layout])
    step = candidate_step(name, cfg_options, setting, layout, itertools.repeat(image))
    tensors = [image, *step.model.parameters(), *step.model.buffers()]
    before = current_memory(setting.device) - sum(tensor.nbytes for tensor in tensors)
    if torch.device(setting.device).type == 'cpu' and name != AS_SHIPPED:
        keep_freed_memory()     # as when timed; not before, or what building left behind would count as libraries
    step()  # weights' gradients and optimizer state are there from the first step on
    step()
    connection.send((highest_memory(setting.device), before))


def current_memory(device):
    """Bytes this process has now: on an accelerator from torch's allocator, on a CPU its resident set."""
    device = torch.device(device)
    if device.type != 'cpu':
        return torch.get_device_module(device).memory_allocated(device)
    return psutil.Process().memory_info().rss


def highest_memory(device):
    """Bytes this process has had at most: on an accelerator from torch's allocator, on a CPU its resident set."""
    device = torch.device(device)
    if device.type != 'cpu':
        return torch.get_device_module(device).max_memory_allocated(device)
    # Not getrusage on Linux: its figure outlives exec, so a small child of a large process would have the parent's.
    status = Path('/proc/self/status')
    if status.is_file() and (found := re.search(r'VmHWM:\s*(\d+) kB', status.read_text())):
        return int(found[1]) * 1024
    # Kilobytes, but bytes on macOS (getrusage(2)).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)
