"""The report of a result file: the document's tables, every cell, and how it was measured."""
from pathlib import Path

from inceptionnext_seg.files import markdown_table, without_html

from ..published.machine import machine_line
from ..speed.measuring import CLEARLY_SLOWER, EXPLORED
from ..speed.statistics import NONE, RESAMPLES, median_of_medians, text
from .blocks import document_blocks, picture
from .cases import NETWORKS
from .cells import BEYOND, IMAGES, SHAPES
from .measuring import MOST_LOAD
from .modules import PART
from .summary import Result
from .worker import LONG, SHORT


def cell_table(result, name):
    """All that is known of the candidates of a cell."""
    cell, rows = result.cells[name], []
    network = cell.subject in NETWORKS
    for candidate in cell.candidates:
        if (best := result.best(name, candidate)) is None:
            continue
        time = result.time(name, candidate).estimate
        others = [f'{layout.upper()} {median_of_medians(list(seconds.values())) * 1e3:.3g}'
                  for (of, who, layout), seconds in result.seconds.items()
                  if (of, who) == (name, candidate) and layout != best[0]]
        square = 'n×n' if network else candidate_square(candidate)
        ratio = result.ratio(name, candidate, square) if square != candidate else None
        counts = None if network else result.counts(name, candidate)
        rows.append([
            candidate, *([] if network else [f'{counts.macs / 1e6:.4g}', f'{counts.bytes / 2**20:.4g}']),
            best[0].upper() + (f'; {", ".join(others)}' if others else ''), milliseconds(time), time.processes,
            text(ratio)])
    return markdown_table(['candidate', *([] if network else ['MMACs', 'least MiB']), 'faster layout; the other, ms',
                           'ms (95 %)', 'processes', 'over n×n'], rows)


def candidate_square(candidate):
    """The n×n that a candidate is compared with: of its larger side, 7×7 for Inception, none for a copy."""
    if candidate == 'copy' or '1/8' in candidate:
        return '7×7'
    words = candidate.replace(' by parts', '').replace(',', ' ').split()
    sides = [word.split('×') for word in words if '×' in word]
    height, width = (max(int(side[i]) for side in sides) for i in (0, 1))
    if (len(sides) == 1 and '1' in sides[0]) or height == 2:
        height = width = max(height, width)
    return f'{height}×{width}'


def milliseconds(found):
    if found.low is None:
        return f'{found.value * 1e3:.3g}'
    return f'{found.value * 1e3:.3g} ({found.low * 1e3:.3g}–{found.high * 1e3:.3g})'


def kernels_table(result, name):
    """Which kernels of the library ran, where it was asked."""
    rows = []
    for group in result.content['groups']:
        if group['cell'] == name:
            for candidate, layouts in group['kernels'].items():
                for layout, (names, moved) in layouts.items():
                    rows.append([candidate, layout.upper(), '; '.join(names) or 'not told',
                                 NONE if moved is None else f'{moved / 2**20:.1f}'])
    return markdown_table(['candidate', 'layout', 'kernels', 'layout changes, MiB'], rows) if rows else ''


def how(result):
    runs = '\n'.join(f'- `{run["command"]}`, commit {run["commit"]}, {run["date"]}, load average {run["load_average"]}'
                     f'{", at any load" * run["any_load"]}' for run in result.content['runs'])
    channels, size, batch = SHAPES['depthwise']['inside']
    dense = SHAPES['dense']['inside']
    batches = sorted({result.batch_size[name] for name, cell in result.cells.items() if cell.place == 'beyond'})
    return [
        'Every cell is measured in processes in turn, its candidates and both layouts against each other in each, in '
        f'random order in each round: {SHORT["rounds"]} rounds after {SHORT["warmup"]} that do not count, of calls '
        f'repeated to a millisecond, and {LONG["rounds"]} rounds beyond the cache and of networks; two calls before '
        f'all rounds do not count either. A layout more than {CLEARLY_SLOWER - 1:.0%} slower in each of the first '
        f'{EXPLORED} processes is left out of the rest, of that candidate. A ratio is of the faster layout of either, '
        f'round by round. Intervals are 95 % of {RESAMPLES} resamples of processes and of the rounds in them, or the '
        'range of the processes where that is wider; of quotients, the ranges of both sides are combined as '
        'independent. Of one process none is given.',
        f'In the cache: {channels} channels, {size}², batch {batch} (dense: {dense[0]} channels, {dense[1]}², batch '
        f'{dense[2]}), always the same input. Beyond the cache: batch '
        f'{", ".join(map(str, batches)) or NONE}, so that each map is {BEYOND} times the last-level cache. By parts: '
        f'{PART} images at a time. Networks: {IMAGES[0]} images of {IMAGES[1]}², random weights; every n×n that '
        'overlaps is replaced, and the smaller number of channels stands between the passes; training is forward, '
        'cross-entropy and backward, without the optimizer; whether they are as accurate was not asked. Kept '
        'memory: `inceptionnext_seg/engine/allocator.py`, in every process but those '
        f"of glibc's default. A run starts at a load average of {MOST_LOAD} at most. All rounds are used.",
        'Runs:\n\n' + runs]


def report(content, path):
    """Markdown of the content of the result file ``path``, which the pictures stand beside."""
    result, path = Result(content), Path(path)
    blocks = document_blocks(result, path, path.parent)
    parts = [f'# Operators on {machine_line(content)}', blocks['conditions'](),
             '## Break-even', blocks['break_even'](), '## Factorized over n×n', blocks['factorized'](),
             '## Reasons', blocks['reasons'](), '## Whole networks', blocks['networks'](),
             picture(result, path, path.parent, 'networks'), '## The mixer of InceptionNeXt', blocks['inception'](),
             '## How it was measured', *how(result), '## Every cell']
    for name in result.cells:
        parts += [f'### {name[0].upper()}{name[1:]}', cell_table(result, name)]
        if kernels := kernels_table(result, name):
            parts += ['Kernels, by oneDNN\'s own log:', kernels]
    return without_html('\n\n'.join(part for part in parts if part)) + '\n'
