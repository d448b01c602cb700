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

# Rounds that fill so many seconds a candidate, after a step that does not count; at least and at most so many.
ROUND_SECONDS, LEAST_ROUNDS, MOST_ROUNDS = 2.0, 2, 8
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


class Timed:
    """A candidate that is timed in this process, round by round.

    Attributes:
        seconds (list[float]): Of each round; ``waited`` has the seconds in it that threads of this process were ready
            and did not run, ``others`` the cores that other programs, and the hypervisor, had meanwhile.
        first (float): Seconds of the first step, which allocates and plans.
    """

    def __init__(self, name, setting, layout, repeat=False):
        self.step = build_step(name, setting, layout)
        self.seconds, self.waited, self.others = [], [], []
        measured.read_cache()
        known = len(measured.TABLE.measured)
        self.take()     # allocates and plans; ours measures forms where no process did before
        self.first = self.seconds[0]
        plans = len(measured.TABLE.measured) > known or CANDIDATES[name].compile
        if plans or (repeat and self.first > LONG):
            self.forget()
            self.take()
        self.trial = self.seconds[0]
        if self.trial < LONG:
            self.forget()

    def take(self):
        usage, before, begin = Usage(), seconds_waited(), time.perf_counter()
        self.step()
        self.seconds.append(time.perf_counter() - begin)
        self.waited.append(round(seconds_waited() - before, 4))
        self.others.append(usage.others())

    def forget(self):
        del self.seconds[:], self.waited[:], self.others[:]

    def record(self):
        """What the result file has of it."""
        others = sum(o * s for o, s in zip(self.others, self.seconds, strict=True)) / sum(self.seconds)
        return dict(seconds=self.seconds, waited=self.waited, first=round(self.first, 3), others=round(others, 3))


# The candidates of the cell that this process measures, by key.
READY = {}


def begin(key, name, setting, layout, repeat=False):
    """Build a candidate and take its first step.

    Args:
        repeat (bool): Whether a long first step is followed by another, which counts in its place.

    Returns:
        float: Seconds of a step; where they are at least :data:`LONG`, it was the only one.
    """
    READY[key] = Timed(name, setting, layout, repeat)
    return READY[key].trial


def take(key):
    """One more step of a candidate, which counts."""
    READY[key].take()


def finish():
    """Records by key; the candidates are let go."""
    found = {key: timed.record() for key, timed in READY.items() if timed.seconds}
    READY.clear()
    gc.collect()
    return found


def rounds_of(trials):
    """How many rounds candidates take in turn that need so many seconds for a step each."""
    return int(min(max(ROUND_SECONDS * len(trials) // sum(trials), LEAST_ROUNDS), MOST_ROUNDS)) if trials else 0


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
