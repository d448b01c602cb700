"""What is compared, and under which conditions."""
from dataclasses import dataclass

from .cases import NETWORK_FORMS, NETWORKS, Case

LAYOUTS = ('nchw', 'nhwc')
# Sizes n of the n×n that the break-even is looked for among; beyond the cache the largest would take a quarter of the
# time of the whole study.
KERNELS = (3, 5, 7, 9, 11, 13)
KERNELS_BEYOND = KERNELS[:-1]
# By place: channels, size and batch of maps well inside the last-level cache; of maps that are each larger than it, for
# which the batch is as large as it takes; and of one pixel, where nothing is left but the price of the calls.
SHAPES = dict(depthwise=dict(inside=(96, 56, 4), beyond=(96, 56, None), pixel=(32, 1, 2)),
              dense=dict(inside=(96, 28, 4), pixel=(32, 1, 2)))
BEYOND = 1.1    # a map of 'beyond' over the last-level cache
IMAGES = (4, 224)   # batch and size of whole networks
PLACES = dict(inside='in the cache', beyond='beyond the cache', pixel='on one pixel', image='whole network')


@dataclass(frozen=True)
class Cell:
    """Operators, or forms of a network, measured in turn in one process.

    Attributes:
        subject (str): 'depthwise' or 'dense' convolutions, or a network of :data:`.cases.NETWORKS`.
        place (str): Of :data:`PLACES`.
        memory (str): 'kept': freed memory stays with the process, as in tools/train.py; 'default': glibc's own choice.
        operators (tuple): (form, kernel) of :class:`Case`; of a network none, for all its forms are measured.
    """
    subject: str
    mode: str
    dtype: str
    place: str
    threads: int = 1
    memory: str = 'kept'
    operators: tuple = ()

    @property
    def name(self):
        """Such as 'depthwise infer fp32 inside, 1 thread, kept memory'."""
        threads = f'{self.threads} thread{"s" * (self.threads != 1)}'
        return f'{self.subject} {self.mode} {self.dtype} {self.place}, {threads}, {self.memory} memory'

    @property
    def condition(self):
        """What a process is set to before anything runs."""
        return self.threads, self.memory

    @property
    def candidates(self):
        """Names of what is compared, as in the result file."""
        if self.subject in NETWORKS:
            return NETWORK_FORMS
        return tuple(Case(form, kernel).operator for form, kernel in self.operators)

    def cases(self, layout, last_level_cache):
        """The :class:`Case` of each candidate, by name."""
        channels, size, batch = SHAPES[self.subject][self.place]
        if batch is None:
            image = channels * size**2 * (4 if self.dtype == 'fp32' else 2)
            batch = max(8, -(-int(BEYOND * last_level_cache) // image))
        cases = [Case(form, kernel, self.subject, channels, size, batch, self.dtype, layout, self.mode)
                 for form, kernel in self.operators]
        return {case.operator: case for case in cases}


def of(forms, *sides):
    """(form, kernel) of every form at every side n, or (h, w)."""
    return tuple((form, side if isinstance(side, tuple) else (side, side)) for side in sides for form in forms)


PAIR = ('square', 'sequential')
COPY = (('copy', (1, 1)), )
WITH_RELU = (*PAIR, 'sequential_relu')
APART = ('unordered', 'parallel', 'one_pass', 'column', 'row')
CLAIMED = of(WITH_RELU, 3, (6, 7), 7)
INCEPTION = (('inception', (11, 11)), )


def unique(operators):
    return tuple(dict.fromkeys(operators))


def cells():
    """All cells, those of one condition after another."""
    sweep, beyond = (COPY + of(PAIR, *sizes) for sizes in (KERNELS, KERNELS_BEYOND))
    three_and_seven = of(PAIR, 3, 7)
    found = [
        Cell('depthwise', 'infer', 'fp32', 'inside', operators=unique(
            sweep + CLAIMED + of(APART, 3, 7) + INCEPTION)),
        Cell('depthwise', 'infer', 'bf16', 'inside', operators=sweep),
        Cell('depthwise', 'train', 'fp32', 'inside', operators=unique(CLAIMED + of(('parallel', ), 7) + INCEPTION)),
        Cell('dense', 'infer', 'fp32', 'inside', operators=unique(CLAIMED + of(APART, 3, 7))),
        Cell('dense', 'infer', 'bf16', 'inside', operators=three_and_seven),
        Cell('dense', 'train', 'fp32', 'inside', operators=CLAIMED),
        Cell('depthwise', 'infer', 'fp32', 'pixel', operators=three_and_seven),
        Cell('dense', 'infer', 'fp32', 'pixel', operators=three_and_seven),
        Cell('depthwise', 'infer', 'fp32', 'beyond', operators=unique(
            beyond + of(('sequential_relu', 'square_parts', 'sequential_parts'), 3))),
        Cell('depthwise', 'infer', 'fp32', 'inside', 2, operators=sweep),
        Cell('depthwise', 'train', 'fp32', 'inside', 2, operators=three_and_seven),
        Cell('dense', 'infer', 'fp32', 'inside', 2, operators=three_and_seven),
        Cell('depthwise', 'infer', 'fp32', 'beyond', 2, operators=beyond)]
    found += [Cell(network, mode, 'fp32', 'image', 2) for network in NETWORKS for mode in ('infer', 'train')]
    found += [Cell('depthwise', mode, 'fp32', place, 1, 'default', COPY + three_and_seven)
              for mode, place in (('infer', 'inside'), ('train', 'inside'), ('infer', 'beyond'))]
    return found
