"""Steps of candidates of all kinds, and what a process is like in which they are timed."""
import contextlib
import gc
import itertools
import os
import time

import psutil
import torch

from inceptionnext_seg.engine.allocator import keep_freed_memory
from inceptionnext_seg.ops import measured
from inceptionnext_seg.ops.stopwatch import seconds_waited

from ..other_segmentors import CLASSES, loss_of, predict
from ..throughput.candidates import AS_SHIPPED, import_mmpretrain
from ..throughput.memory import highest_memory
from ..throughput.step import Step, candidate_step
from ..timing import MEMORY_FORMATS
from .cells import CANDIDATES, LIBRARIES

# Rounds that fill this many seconds after one that does not count; at least one and at most this many.
ROUND_SECONDS, MOST_ROUNDS = 2.0, 8
# A first step of this many seconds counts: what it plans is less than what such steps differ by.
LONG = 5.0


class LibraryStep(Step):
    """A step of another library's segmentor, with its own loss where it has one, else cross-entropy, and AdamW."""

    def __init__(self, name, setting, layout, images):
        self.setting, self.layout, self.name = setting, layout, name
        self.allocator = self.measure = contextlib.nullcontext
        torch.manual_seed(0)
        self.model = LIBRARIES[name]().to(memory_format=MEMORY_FORMATS[layout]).train(setting.mode == 'train')
        labels = torch.randint(CLASSES, (4, setting.batch_size, *setting.image_size),
                               generator=torch.Generator().manual_seed(0))
        self.batches = zip(images, itertools.cycle(labels), strict=False)
        self.forward = getattr(self, setting.mode)
        if setting.mode == 'train':
            self.scaler = torch.amp.GradScaler(enabled=False)
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.05)

    @property
    def library(self):
        return CANDIDATES[self.name].label

    def train(self, images, labels):
        return loss_of(self.library, self.model, images, labels)

    def infer(self, images, labels):
        return predict(self.library, self.model, images, labels)


def build_step(name, setting, layout):
    """The step of a candidate, on a few random images: a step reads so much that no cache keeps them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, setting.batch_size, 3, *setting.image_size, generator=generator)
    images = itertools.cycle([image.contiguous(memory_format=MEMORY_FORMATS[layout]) for image in images])
    if name in LIBRARIES:
        return LibraryStep(name, setting, layout, images)
    return candidate_step(CANDIDATES[name].source, CANDIDATES[name].options, setting, layout, images)


def prepare(threads, forms=None, keeps_memory=True):
    """What a process does first: freed memory stays, as in tools/train.py.

    Args:
        forms (Path | None): Table of measured forms of operators, in the place of the user's.

    Raises:
        UserError: mmpretrain, whose ConvNeXt stock has, cannot be imported.
    """
    torch.set_num_threads(threads)
    import_mmpretrain()
    if keeps_memory:
        keep_freed_memory()
    if forms:
        measured.cache_file = lambda: forms


def measure(name, setting, layout, repeat=False):
    """Time the steps of one candidate in this process.

    Args:
        repeat (bool): Whether a long first step is followed by another, which counts in its place.

    Returns:
        dict: ``seconds`` of each round and ``waited``, the seconds that threads of this process were ready and did not
        run in it; ``first``, seconds of the first step; ``others``, cores that other programs, and the hypervisor, had
        meanwhile.
    """
    gc.collect()        # the candidate before this one
    step, usage = build_step(name, setting, layout), Usage()
    seconds, waited = [], []

    def take():
        before, begin = seconds_waited(), time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
        waited.append(round(seconds_waited() - before, 4))

    measured.read_cache()
    known = len(measured.TABLE.measured)
    take()      # allocates and plans; ours measures forms where no process did before
    first = seconds[0]
    plans = len(measured.TABLE.measured) > known or CANDIDATES[name].compile
    if plans or (repeat and first > LONG):
        del seconds[:], waited[:]
        take()
    if (trial := seconds[0]) < LONG:
        del seconds[:], waited[:]
        for _ in range(int(min(max(ROUND_SECONDS // trial, 1), MOST_ROUNDS))):
            take()
    return dict(seconds=seconds, waited=waited, first=round(first, 3), others=round(usage.others(), 3))


def peak_memory(name, setting, layout, threads, forms):
    """Bytes that this process has at most in two steps, libraries included, which it had not loaded before.

    Args:
        threads (int): Of the step; each has buffers of its own.
        forms (Path): Table of measured forms of operators; where it has none, the rule of thumb decides.
    """
    prepare(threads, forms, keeps_memory=CANDIDATES[name].source != AS_SHIPPED)
    measured.read_cache()
    step = build_step(name, setting, layout)
    step.measure = contextlib.nullcontext   # forms that are tried would be part of the peak
    for _ in range(2):
        step.step(*next(step.batches)) if CANDIDATES[name].source == AS_SHIPPED else step()
    return highest_memory('cpu')


class Usage:
    """How many cores are busy with other programs than this process from its making on."""

    def __init__(self):
        self.begin = self.reading()

    @staticmethod
    def reading():
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, 'iowait', 0.)
        return time.perf_counter(), time.process_time(), idle

    def others(self):
        wall, own, idle = (now - then for now, then in zip(self.reading(), self.begin, strict=True))
        return max(os.cpu_count() - (own + idle) / wall, 0.)


def busy_cores(seconds=1.0):
    """Cores that other programs keep busy while this process sleeps."""
    usage = Usage()
    time.sleep(seconds)
    return usage.others()
