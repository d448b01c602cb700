"""Tables and sentences of docs/factorized_convolutions.md and of the report."""
import itertools
import math
from pathlib import Path

import torch

from inceptionnext_seg.files import markdown_table

from ..published.machine import machine_line
from ..speed.statistics import NONE, text
from . import networks
from .cases import NETWORK_FORMS, NETWORKS
from .cells import IMAGES, PLACES
from .pictures import PICTURES, picture_paths
from .reasons import claims, findings
from .roofline import break_evens
from .summary import cell_name

NOT_MEASURED = 'Not measured yet.'
MODES = dict(infer='inference', train='training')
# Of document_blocks, what docs/factorized_convolutions.md shows; the report has all of them.
DOCUMENT = ('answer', 'break_even', 'reasons', 'conditions')


def break_even_text(found, sides):
    """A size of a kernel that was looked for among ``sides``, with its interval."""
    def size_text(value):
        return f'< {sides[0]}' if value == -math.inf else f'> {sides[-1]}' if value == math.inf else f'{value:.1f}'

    if found.low is None:
        return size_text(found.value)
    return f'{size_text(found.value)} ({size_text(found.low)} to {size_text(found.high)})'


def conditions_of(cell):
    return f'{cell.dtype}, {PLACES[cell.place]}, {cell.threads} thread{"s" * (cell.threads != 1)}'


def answer(result):
    """What was found, a line for each kind of convolution and for whole networks."""
    found = claims(result)
    if any(found[f'{subject}-{side}-infer-inside'] is None for subject in ('depthwise', 'dense')
           for side in ('3x3', '7x7')):
        return NOT_MEASURED
    lines = [f'Time of n×1 → 1×n over that of n×n, fp32, one thread of {machine_line(result.content)}; above 1 it is '
             'slower:']
    for side in ('3x3', '6x7', '7x7'):
        lines.append(said(f'depthwise {side.replace("x", "×")}', {
            'inference': found[f'depthwise-{side}-infer-inside'],
            'beyond the cache': found[f'depthwise-{side}-infer-beyond'],
            'with ReLU between': found[f'relu-depthwise-{side}-infer-inside'],
            'training': found[f'depthwise-{side}-train-inside']}))
    for side in ('3x3', '7x7'):
        lines.append(said(f'dense {side.replace("x", "×")}', {
            'inference': found[f'dense-{side}-infer-inside'], 'training': found[f'dense-{side}-train-inside']}))
    own, factorized = NETWORK_FORMS[:2]
    for name, title in NETWORKS.items():
        lines.append(said(f'{title} of {factorized}, two threads', {title: result.ratio(cell_name(
            name, mode, place='image', threads=2), factorized, own) for mode, title in MODES.items()}))
    return '\n'.join([f'{lines[0]}\n', *(line for line in lines[1:] if line)])


def said(what, ratios):
    """A line of a list, of those ratios that were measured; '' without any."""
    ratios = [f'{where} {ratio}' for where, ratio in ratios.items() if ratio is not None]
    return f'- {what}: {", ".join(ratios)}' if ratios else ''


def break_even_words(result):
    """How often either prediction is within the interval of what was measured; '' without intervals."""
    rows = [row for row in break_evens(result) if row.measured.low is not None]
    hits = [sum(row.measured.low <= predicted(row) <= row.measured.high for row in rows)
            for predicted in (lambda row: row.predicted, lambda row: row.predicted_of_depthwise)]
    between = sum(min(row.predicted, row.predicted_of_depthwise) <= row.measured.value <= max(
        row.predicted, row.predicted_of_depthwise) for row in rows)
    return (f'The prediction from the product is within {hits[0]} of {len(rows)} intervals, that from the rate of n×n '
            f'within {hits[1]}; {between} of the measured sizes are between the two.') if rows else ''


def break_even_table(result):
    rows = [[conditions_of(result.cells[row.cell]), f'{row.bandwidth / 1e9:.1f}', f'{row.product / 1e9:.0f}',
             f'{row.product / row.bandwidth:.1f}', f'{row.predicted:.1f}', f'{row.depthwise / 1e9:.1f}',
             f'{row.predicted_of_depthwise:.1f}', f'**{break_even_text(row.measured, row.sides)}**']
            for row in break_evens(result)]
    return markdown_table(
        ['depthwise, inference', 'copy, GB/s', 'product, GMACs/s', 'ridge, MACs/byte', 'n predicted',
         'highest rate of n×n, GMACs/s', 'n predicted from it', 'n measured (95 %)'], rows)


COLUMNS = {'depthwise, inference': ('depthwise', 'infer', 'inside'),
           'the same beyond the cache': ('depthwise', 'infer', 'beyond'),
           'depthwise, training': ('depthwise', 'train', 'inside'),
           'dense, inference': ('dense', 'infer', 'inside'), 'dense, training': ('dense', 'train', 'inside')}


def factorized_table(result):
    """Time of the factorized forms over that of n×n, beside the ratio of MACs."""
    found, rows = claims(result), []
    for side, names in {'3x3': ('3×1 → 1×3', '3×1 → ReLU → 1×3'), '6x7': ('6×1 → 1×7', '6×1 → ReLU → 1×7'),
                        '7x7': ('7×1 → 1×7', '7×1 → ReLU → 1×7')}.items():
        square = side.replace('x', '×')
        for prefix, name in zip(('', 'relu-'), names, strict=True):
            ratios = [found[f'{prefix}{subject}-{side}-{mode}-{place}'] for subject, mode, place in COLUMNS.values()]
            if any(ratios):
                cell = next(cell_name(subject, mode, place=place) for (subject, mode, place), ratio in zip(
                    COLUMNS.values(), ratios, strict=True) if ratio)
                rows.append([f'{name} over {square}', f'{result.quotient(cell, name, square):.2f}', *map(text, ratios)])
    return markdown_table(['time over time', 'MACs', *COLUMNS], rows)


def reasons_table(result):
    """What decides each proposed reason."""
    rows, last = [], None
    for finding in findings(result).values():
        e = finding.experiment
        sign = '≤' if e.at_most else '>'
        rows.append([e.reason if e.reason != last else '', e.claim, f'{sign} {e.limit:g}', text(finding.found),
                     f'**{finding.verdict}**'])
        last = e.reason
    return markdown_table(['reason', 'number', 'true if', 'measured (95 %)', 'the claim'], rows)


def network_counts():
    """MACs of one image and parameters, by network and form."""
    found = {}
    with torch.device('meta'):      # shapes are enough
        for name, form in itertools.product(NETWORKS, NETWORK_FORMS):
            model = networks.build(name, form).eval()
            found[name, form] = networks.macs(model, IMAGES[1]), sum(p.numel() for p in model.parameters())
    return found


def networks_table(result):
    """Time, MACs and parameters of whole networks over those of their own."""
    counts, rows = network_counts(), []
    for name, title in NETWORKS.items():
        cells = [cell_name(name, mode, place='image', threads=2) for mode in ('infer', 'train')]
        own = [result.time(cell, NETWORK_FORMS[0]) for cell in cells]
        for form in NETWORK_FORMS[1:]:
            ratios = [result.ratio(cell, form, NETWORK_FORMS[0]) for cell in cells]
            if any(ratios):
                shares = [a / b for a, b in zip(counts[name, form], counts[name, NETWORK_FORMS[0]], strict=True)]
                rows.append([f'{title} of {form}', *(f'{share:.2f}' for share in shares), *map(text, ratios)])
        if any(own):
            macs, parameters = counts[name, NETWORK_FORMS[0]]
            rows.append([f'{title} itself', f'{macs / 1e9:.2f} G', f'{parameters / 1e6:.1f} M',
                         *(f'{time.value * 1e3:.0f} ms' if time else NONE for time in own)])
    return markdown_table(['over the network itself', 'MACs', 'parameters', 'inference', 'training step'], rows)


def inception_text(result):
    """The mixer of InceptionNeXt as torch operators, and others, over a depthwise 7×7, in sentences."""
    parts = []
    mixer = '3×3 ‖ 1×11 ‖ 11×1, 1/8'
    cells = [cell_name(mode=mode) for mode in ('infer', 'train')]
    for name in (mixer, '7×1 ‖ 1×7', '7×1 → 1×7'):
        ratios = [result.ratio(cell, name, '7×7') for cell in cells]
        if ratios[0]:
            macs, moved = (result.quotient(cells[0], name, '7×7', key) for key in ('macs', 'bytes'))
            parts.append(f'{name}: MACs × {macs:.2f}, least bytes × {moved:.2f}, inference × {text(ratios[0])}, '
                         f'training × {text(ratios[1])}')
    if not parts:
        return NOT_MEASURED
    return (f'Over depthwise 7×7 on 96 channels of 56×56, {"; ".join(parts)}. All are torch operators: the bands are '
            'split off and concatenated, which copies the channels, and are not the fused kernel that acceleration '
            'uses.')


def conditions(result):
    """What a figure depends on, in a sentence or two."""
    content, e = result.content, result.content['environment']
    groups, runs = content['groups'], content['runs']
    processes = [len({group['process'] for group in groups if group['cell'] == name}) for name in result.cells]
    spread = f'{min(processes)}' if min(processes) == max(processes) else f'{min(processes)} to {max(processes)}'
    loads = [group['load_average'] for group in groups]
    busy = [group['busy_before'] for group in groups if group['busy_before'] is not None]
    quiet = f'; other programs kept {max(busy):.2f} cores busy at most before a process' if busy else ''
    disturbed = any(run['any_load'] for run in runs)
    warning = ' **Measured at any load: other programs ran, and the figures are worth little.**' * disturbed
    commits = ', '.join(dict.fromkeys(str(run['commit']) for run in runs))
    return (
        f'{machine_line(content)}, {e["date"][:10]}, commit {commits}; last-level cache '
        f'{content["last_level_cache"] / 2**20:.0f} MiB; processes of each cell, in turn: {spread}; intervals are '
        '95 %, over processes and the rounds in them, and no narrower than the range of the processes. Load average at '
        'the start of a run '
        f'{max(run["load_average"] for run in runs):.2f} at most, later, with the processes before, {max(loads):.2f}'
        f'{quiet}; threads waited for a core for {max(group["waited"] for group in groups):.1%} of the time of a cell '
        f'at most.{warning}')


def picture(result, path, folder, kind):
    """The Markdown of a picture of the result file at ``path``, from a document in ``folder``; nothing without one."""
    paths = picture_paths(result, Path(path))
    return f'![{PICTURES[kind][0]}]({paths[kind].relative_to(folder).as_posix()})' if kind in paths else ''


def report_link(path, folder):
    """Where every cell is, for another document than the report."""
    report = Path(path).with_suffix('.md').relative_to(folder)
    return f' Every cell: [{report.stem}]({report.as_posix()}).' if report.parent.parts else ''


def document_blocks(result, path, folder):
    """Functions by name of a block of the document; ``result`` is None where nothing was measured."""
    def block(*parts):
        return lambda: NOT_MEASURED if result is None else '\n\n'.join(part for part in (
            part() for part in parts) if part)

    return dict(
        answer=block(lambda: answer(result)),
        break_even=block(lambda: break_even_table(result), lambda: break_even_words(result),
                         lambda: picture(result, path, folder, 'break_even')),
        factorized=block(lambda: factorized_table(result)),
        reasons=block(lambda: reasons_table(result)),
        networks=block(lambda: networks_table(result)),
        inception=block(lambda: inception_text(result)),
        conditions=block(lambda: conditions(result) + report_link(path, folder)))
