"""From the records of a result file to the figures of tables and pictures."""
from .cells import CANDIDATES, cells
from .statistics import median_of_medians, speed, speedup

# A round in which threads of the process waited for a core for more than this part of it is not used.
DISTURBED = 0.1


def undisturbed(record):
    return [seconds for seconds, waited in zip(record['seconds'], record['waited'], strict=True)
            if waited <= DISTURBED * seconds]


def which_process(record):
    """What tells processes apart: each stage and each run counts from 0, so that two processes may have one number.

    Load and busy cores are those before the process began, one reading for all that it measured.
    """
    return (record['process'], record['run'], record.get('began', ''), record['load_average'], record['busy_before'])


class Result:
    """A result file's records, by cell, candidate, layout and process.

    Attributes:
        content (dict): Of the file.
        seconds (dict[tuple, dict[int, list[float]]]): Of the rounds that are used, by cell, candidate and layout, and
            by the number of the process.
        excluded (int): Rounds that are not used, since threads waited for a core.
        rounds (int): Those that are.
    """

    def __init__(self, content):
        self.content, self.seconds, self.rounds, self.excluded = content, {}, 0, 0
        self.process = {}
        for record in content['records']:
            used = undisturbed(record)
            self.rounds += len(used)
            self.excluded += len(record['seconds']) - len(used)
            if used:
                key = record['cell'], record['candidate'], record['layout']
                self.seconds.setdefault(key, {})[record['process']] = used
                self.process[(*key, record['process'])] = which_process(record)
        self.cells = {cell.name: cell for cell in cells()}
        self.peaks = {(r['cell'], r['candidate'], r['layout']): r['peak'] for r in content['memory']}

    def has(self, suite):
        """Whether something of a suite was measured."""
        return any(self.cells[cell].suite == suite for cell, _, _ in self.seconds)

    def layouts(self, cell, candidate):
        """Seconds by layout and process."""
        return {layout: self.seconds[cell, candidate, layout] for layout in CANDIDATES[candidate].layouts
                if (cell, candidate, layout) in self.seconds}

    def lacking(self, cell, candidate):
        """Layouts that a candidate was to be compared in, of which no round counts; none where another cell chose."""
        if self.cells[cell].as_in:
            return []
        found = self.layouts(cell, candidate)
        return [layout for layout in self.cells[cell].layouts_of(candidate) if layout not in found]

    def best(self, cell, candidate):
        """The faster layout of a candidate, over the processes that measured all of them, and its seconds by process.

        None where it was not measured.
        """
        layouts = self.layouts(cell, candidate)
        if not layouts:
            return None
        common = set.intersection(*map(set, layouts.values()))
        rank = {layout: median_of_medians([seconds[p] for p in (common or seconds)])
                for layout, seconds in layouts.items()}
        layout = min(rank, key=rank.get)
        return layout, layouts[layout]

    def images_per_second(self, cell, candidate):
        if (best := self.best(cell, candidate)) is None:
            return None
        return speed(list(best[1].values()), self.cells[cell].batch_size)

    def by_process(self, cell, candidate):
        """Seconds of the faster layout by what tells processes apart; None where it was not measured."""
        if (best := self.best(cell, candidate)) is None:
            return None
        layout, seconds = best
        return {self.process[cell, candidate, layout, number]: found for number, found in seconds.items()}

    def side_by_side(self, cell, candidate, baseline='stock'):
        """Whether some process measured both, each in its faster layout; None where one is not measured."""
        before, after = self.by_process(cell, baseline), self.by_process(cell, candidate)
        return None if before is None or after is None else not before.keys().isdisjoint(after)

    def speedup(self, cell, candidate, baseline='stock', baseline_cell=None):
        """Times as fast as the baseline, both in their faster layout; None where one is not measured.

        It is taken in each process that measured both; where none did, of the medians over processes.
        """
        before, after = self.by_process(baseline_cell or cell, baseline), self.by_process(cell, candidate)
        if before is None or after is None:
            return None
        return speedup(before, after, paired=baseline_cell in (None, cell))

    def best_dtype_cell(self, cell, candidate='stock'):
        """The cell of the same work in the dtype in which a candidate is fastest."""
        work = self.cells[cell]
        same = [other.name for other in self.cells.values()
                if (other.suite, other.mode, other.part, other.batch_size, other.size, other.threads) ==
                (work.suite, work.mode, work.part, work.batch_size, work.size, work.threads)]
        found = {name: self.images_per_second(name, candidate) for name in same}
        return max((name for name in found if found[name]), key=lambda name: found[name].value, default=None)

    def peak(self, cell, candidate):
        """MiB at most of a process that takes two steps in the faster layout."""
        best = self.best(cell, candidate)
        peak = self.peaks.get((cell, candidate, best[0])) if best else None
        return peak and peak / 2**20
