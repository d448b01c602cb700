"""From the groups of a result file to ratios with intervals over processes and the rounds within them."""
import statistics

import numpy

from ..speed.statistics import RESAMPLES, Estimate, interval, median_of_medians, range_of_quotient, resampled
from .cells import Cell, cells
from .counting import count


def cell_name(subject='depthwise', mode='infer', dtype='fp32', place='inside', threads=1, memory='kept'):
    """The name of the cell of these conditions."""
    return Cell(subject, mode, dtype, place, threads, memory).name


class Sampled:
    """A value, and what resampling processes and rounds makes of it.

    Attributes:
        value (float): Above 0.
        draws (numpy.ndarray | None): (RESAMPLES,); None of one process.
        medians (list[float]): Of the rounds of each process; of a quotient, the ends of its range.
        processes (int): How many there are behind it.
    """

    def __init__(self, value, draws, medians, processes):
        self.value, self.draws, self.medians, self.processes = value, draws, medians, processes

    def over(self, other):
        """The quotient with another :class:`Sampled`, or with a number."""
        if isinstance(other, (int, float)):
            return Sampled(self.value / other, None if self.draws is None else self.draws / other,
                           [median / other for median in self.medians], self.processes)
        both = self.draws is not None and other.draws is not None
        # The same seed draws both; moved against each other, the draws of the two do not go together.
        draws = self.draws / numpy.roll(other.draws, RESAMPLES // 2) if both else None
        ends = range_of_quotient(*((min(side.medians), side.value, max(side.medians)) for side in (self, other)))
        return Sampled(self.value / other.value, draws, list(ends), min(self.processes, other.processes))

    @property
    def estimate(self):
        if self.draws is None:
            return Estimate(self.value, None, None, self.processes)
        return Estimate(self.value, *interval(self.draws, self.medians), self.processes)


def sampled(processes):
    """The median over processes of the medians over rounds, of values by process and round."""
    medians = [statistics.median(process) for process in processes]
    if len(processes) < 2:
        return Sampled(median_of_medians(processes), None, medians, 1)
    generator = numpy.random.default_rng(0)
    drawn = generator.integers(0, len(processes), (RESAMPLES, len(processes)))
    draws = numpy.median(resampled(processes, drawn, generator), axis=1)
    return Sampled(median_of_medians(processes), draws, medians, len(processes))


def sampled_ratio(first, second):
    """Time over time, round by round, in the processes that measured both; None where none did."""
    common = sorted(set(first) & set(second))
    return sampled([[a / b for a, b in zip(first[process], second[process], strict=True)]
                    for process in common]) if common else None


class Result:
    """The groups of a result file, by cell, candidate and layout; every comparison is of best layout with best layout.

    Attributes:
        content (dict): Of the file.
        cells (dict[str, Cell]): Those measured, by name.
    """

    def __init__(self, content):
        self.content, self.seconds, self.batch_size = content, {}, {}
        known = {cell.name: cell for cell in cells()}
        for group in content['groups']:
            self.batch_size[group['cell']] = group['batch_size']
            for candidate, layouts in group['seconds'].items():
                for layout, seconds in layouts.items():
                    key = group['cell'], candidate, layout
                    self.seconds.setdefault(key, {})[group['process']] = seconds
        self.cells = {name: cell for name, cell in known.items() if name in self.batch_size}

    def best(self, cell, candidate):
        """The faster layout of a candidate, over the processes that measured both, and its seconds by process."""
        layouts = {layout: seconds for (name, of, layout), seconds in self.seconds.items()
                   if (name, of) == (cell, candidate)}
        if not layouts:
            return None
        common = set.intersection(*map(set, layouts.values()))
        rank = {layout: median_of_medians([seconds[process] for process in (common or seconds)])
                for layout, seconds in layouts.items()}
        layout = min(rank, key=rank.get)
        return layout, layouts[layout]

    def time(self, cell, candidate):
        """Seconds of a call, as :class:`Sampled`; None where it was not measured."""
        best = self.best(cell, candidate)
        return best and sampled(list(best[1].values()))

    def sampled(self, cell, candidate, baseline):
        """Time of a candidate over that of another of its cell, as :class:`Sampled`; None where not measured."""
        a, b = self.best(cell, candidate), self.best(cell, baseline)
        return sampled_ratio(a[1], b[1]) if a and b else None

    def ratio(self, cell, candidate, baseline):
        """Time of a candidate over that of another of its cell, with its interval; None where not measured."""
        found = self.sampled(cell, candidate, baseline)
        return found and found.estimate

    def counts(self, cell, candidate):
        """:class:`.counting.Counts` of a candidate."""
        layout, _ = self.best(cell, candidate)
        return count(self.cells[cell].cases(layout, self.content['last_level_cache'])[candidate])

    def quotient(self, cell, candidate, baseline, key='macs'):
        """'macs', 'bytes' or 'parameters' of a candidate over those of another."""
        a, b = (getattr(self.counts(cell, name), key) for name in (candidate, baseline))
        return a / b

    def limits(self, dtype, threads):
        """Medians over processes of the machine's limits; None where they were not measured."""
        found = [limit for limit in self.content['limits'] if (limit['dtype'], limit['threads']) == (dtype, threads)]
        keys = ('macs_per_second', 'bytes_per_second', 'cache_bytes_per_second')
        return {key: statistics.median(limit[key] for limit in found) for key in keys} if found else None
