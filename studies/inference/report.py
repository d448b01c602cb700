"""Tables of a result, and what the README says of it."""
import statistics

from inceptionnext_seg.export.fastest import usual_form
from inceptionnext_seg.export.proof import MOST_OFF
from inceptionnext_seg.files import markdown_table

from ..speed.goals import goals_table
from ..speed.statistics import estimate, median_of_medians, speedup
from .cells import FAMILIES, RUNTIMES, Cell, rank

MIB = 2**20
# Of InceptionNeXt-T with two threads, times as fast as a baseline, (runtime, dtype, baseline's form and dtype, ratio):
# files in the form of --form auto over the plain graph in fp32; this package in fewer bits over itself in fp32.
GOALS = (('openvino', 'fp32', 'plain', 2.2), ('onnx', 'fp32', 'plain', 1.4), ('openvino', 'int8', 'plain', 2.5),
         ('onnx', 'int8', 'plain', 2.5), ('torch', 'bf16', 'accelerated', 1.6), ('torch', 'int8', 'accelerated', 2.0))


def runs_by_cell(result):
    runs = {}
    for run in result['runs']:
        runs.setdefault(Cell(*run['cell']), []).append(run)
    return runs


def times_as_fast(runs, cell, baseline):
    """:class:`Estimate` of the ratio to the baseline, None where one of them was not measured."""
    before, after = ([run['seconds'] for run in runs.get(each, ())] for each in (baseline, cell))
    return speedup(dict(enumerate(before)), dict(enumerate(after)), paired=False) if before and after else None


def summary(result):
    """By cell, in the order of the tables: :class:`Estimate` of seconds and of the ratio to the plain graph in the same
    runtime, the range of times to the first result, the most memory, the least share of equal pixels."""
    runs, found = runs_by_cell(result), {}
    for cell in sorted(runs, key=rank):
        seconds = [run['seconds'] for run in runs[cell]]
        first = sorted(run['first'] for run in runs[cell])
        found[cell] = dict(
            seconds=estimate(seconds, median_of_medians(seconds)),
            faster=times_as_fast(runs, cell, cell.plain),
            first=(first[0], statistics.median(first), first[-1]),
            memory=max(run['memory'] for run in runs[cell]), equal=min(run['equal'] for run in runs[cell]))
    return found


def table(found):
    rows = []
    for cell, row in found.items():
        low, middle, high = row['first']
        rows.append([
            RUNTIMES[cell.runtime], cell.form, cell.dtype, row['seconds'], row['seconds'].processes,
            '–' if row['faster'] is None or cell == cell.plain else row['faster'],
            f'{middle:.1f}' + (f' ({low:.1f}–{high:.1f})' if row['seconds'].processes > 1 else ''),
            f'{row["memory"] / MIB:.0f}', f'{100 * row["equal"]:.3f}'])
    return markdown_table(['runtime', 'graph', 'dtype', 's', 'processes', '× plain fp32 of the runtime',
                           'first result, s', 'memory, MiB', 'same classes, %'], rows)


def goals(result):
    """Rows of what was aimed at, as :func:`..speed.goals.goals_table` takes them."""
    runs, rows = runs_by_cell(result), []
    for runtime, dtype, form, goal in GOALS:
        ours = form if runtime == 'torch' else usual_form(runtime, dtype)
        cell = Cell('inceptionnext', runtime, ours, dtype, 2)
        rows.append((f'{RUNTIMES[runtime]} {ours} {dtype} over {form} fp32', goal,
                     times_as_fast(runs, cell, cell._replace(form=form, dtype='fp32'))))
    return rows


def goals_section(result):
    """The table of :func:`goals`, and whether mIoU in 8 bits stays near torch's in fp32."""
    off = {row['what']: row['file'] - row['model'] for row in result.get('accuracy', dict(rows=()))['rows']
           if row['what'].endswith('int8')}
    if not off:
        said = 'not measured.'
    elif missed := [what for what, difference in off.items() if abs(difference) > MOST_OFF]:
        said = f'missed by {", ".join(missed)}.'
    else:
        said = f'reached, {max(off.values(), key=abs):+.2f} at most.'
    return f'{goals_table(goals(result))}\n\nmIoU in int8 within {MOST_OFF} points of torch in fp32: {said}'


def accuracy_section(found):
    rows = [[row['what'], f'{row["file"]:.2f}',
             f'{row["file"] - row["model"]:+.2f} ({row["low"]:+.2f} to {row["high"]:+.2f})', f'{row["equal"]:.2f}']
            for row in found['rows']]
    first = found['rows'][0]
    made_by = f', commit {found["commit"]}' if found.get('commit') else ''
    return (f'`{found["config"]}`, {found["how"]}{made_by}: mIoU in torch fp32 {first["model"]:.2f} % on the '
            f'{first["images"]} validation images; ranges from {found["calibration"]} training images. Intervals: '
            '95 %, by a bootstrap over blocks of ten successive images.\n\n'
            + markdown_table(['what', 'mIoU, %', 'minus torch fp32', 'same classes, %'], rows))


def report(result):
    where = result['environment']
    versions = {**where['versions'], **result['versions']}
    loads = [run['load'] for run in result['runs']]
    sections = [
        '# Inference on a CPU',
        'UperNet with 512 channels and 150 classes, random weights (their classes are nearer to each other than those '
        'of a trained model), one image of 512×512 a call, normalized floats to logits at its size. `plain` is the '
        'network as it was trained, in torch with stock operators; `compiled` its deploy form by torch.compile with '
        'max-autotune and freezing; `accelerated` the deploy form with the operators of this package; `factorized` and '
        '`winograd` the rewritten graphs of [export](../../export.md).',
        'Each process measures one cell; the cells take turns. Seconds are the median over processes of their medians, '
        'with a 95 % interval over processes and the calls in them; a cell of one process has none, and can be off by '
        'what processes differ elsewhere in its table. First result: from nothing loaded to the first logits, '
        'compiling, choosing forms and calibrating with it, without imports; the median and the range. Later '
        'processes of `compiled` and `accelerated` find kernels and choices in the cache. Memory: the peak less what '
        'the process had after its imports; that of a file is of a process without torch. Same classes: pixels, '
        'against `plain` in torch.',
        f'{where["cpu"]}, {where["cpu_cores"]} cores, {where["cpu_capability"]}; '
        + ', '.join(f'{name} {versions[name]}' for name in ('torch', *result['versions']))
        + f'; commit {result["commit"]}, {where["date"][:10]}. Load average before a process: '
        f'{min(loads)}–{max(loads)}. `{where["command"]}`',
        f'## Goals of {FAMILIES["inceptionnext"]}, 2 threads', goals_section(result)]
    found = summary(result)
    for family, threads in dict.fromkeys((cell.family, cell.threads) for cell in found):
        part = {cell: row for cell, row in found.items() if (cell.family, cell.threads) == (family, threads)}
        sections += [f'## {FAMILIES[family]}, {threads} thread{"s" if threads > 1 else ""}', table(part)]
    if 'accuracy' in result:
        sections += ['## Accuracy', accuracy_section(result['accuracy'])]
    return '\n\n'.join(sections) + '\n'


def is_usual(cell):
    """Whether a file is in the form that ``--form auto`` writes."""
    return cell.runtime != 'torch' and cell.form == usual_form(cell.runtime, cell.dtype)


def fastest(result):
    """A table of InceptionNeXt-T with two threads: of each runtime and dtype the plain graph and the fastest other.

    The form that ``--form auto`` writes is marked.
    """
    found = {cell: row for cell, row in summary(result).items() if (cell.family, cell.threads) == ('inceptionnext', 2)}
    rows = []
    for runtime, dtype in dict.fromkeys((cell.runtime, cell.dtype) for cell in found):
        same = {cell: row for cell, row in found.items() if (cell.runtime, cell.dtype) == (runtime, dtype)}
        others = [cell for cell in same if cell.form != 'plain']
        best = min(others, key=lambda cell: same[cell]['seconds'].value, default=None)
        for cell in same:
            if cell in (cell._replace(form='plain'), cell._replace(form='compiled'), best):
                row = same[cell]
                rows.append([RUNTIMES[runtime], cell.form + ' (`auto`)' * is_usual(cell), dtype, row['seconds'],
                             '–' if row['faster'] is None or cell == cell.plain else row['faster'],
                             row['seconds'].processes])
    return markdown_table(['runtime', 'graph', 'dtype', 's', '× plain fp32 of the runtime', 'processes'], rows)


def words(result):
    """What README says: of each runtime the plain graph's seconds, and how many times as fast the best others are.

    One process shows too little, and is left out; fewer processes than others are named.
    """
    found = {cell: row for cell, row in summary(result).items() if (cell.family, cell.threads) == ('inceptionnext', 2)}
    most = max(row['seconds'].processes for row in found.values())
    found = {cell: row for cell, row in found.items() if row['seconds'].processes > 1 or most == 1}
    lines = []
    for runtime in dict.fromkeys(cell.runtime for cell in found):
        best = {}
        for cell, row in found.items():
            if cell.runtime == runtime and cell != cell.plain and row['faster'] is not None:
                best.setdefault(cell.dtype, []).append((row['faster'].value, cell, row))
        plain = next((row for cell, row in found.items() if cell.runtime == runtime and cell == cell.plain), None)
        if plain is None:
            continue
        others = ', '.join(f'{dtype} {row["faster"]}× ({described(cell, row["seconds"].processes, most)})'
                           for dtype, rows in best.items()
                           for _, cell, row in [max(rows, key=lambda found: found[0])])
        lines.append(f'- {RUNTIMES[runtime]}: plain fp32 {plain["seconds"]} s{"; " * bool(others)}{others}')
    return '\n'.join(lines)


def described(cell, processes, most):
    """A form; that ``--form auto`` would write another, and how many processes, where others have more."""
    other = cell.runtime != 'torch' and not is_usual(cell)
    return (cell.form + (f', while `auto` writes {usual_form(cell.runtime, cell.dtype)}' if other else '')
            + (f', {processes} processes' if processes < most else ''))
