"""The report of a result file: goals, tables by question, and how it was measured."""
import statistics
from pathlib import Path

from inceptionnext_seg.files import markdown_table, read_object, without_html

from ..published.machine import machine_line
from .cells import BACKBONE_GMACS, CANDIDATES, COMPILED, PARTS
from .goals import goals_table
from .measuring import EXPLORED, MOST_BUSY, REPEATED, SLOWER
from .pictures import MODES, THREADS, growth_cells, parts, parts_cell, picture_paths
from .statistics import NONE, RESAMPLES, coverage, median_of_medians, text
from .steps import LEAST_ROUNDS, LONG, MOST_ROUNDS, ROUND_SECONDS
from .summary import DISTURBED, Result


def number(value):
    return NONE if value is None else f'{value:.3g}'


def speed_text(found):
    """images/s with the interval over processes."""
    if found is None:
        return NONE
    return number(found.value) if found.low is None else f'{found.value:.3g} ({found.low:.3g}–{found.high:.3g})'


def what(cell):
    part = ', backbone alone' if cell.part == 'backbone' else ''
    threads = '' if cell.threads == 2 else f', {cell.threads} thread'
    return f'{MODES[cell.mode]}{part}, {cell.dtype}, {cell.batch_size} × {cell.size}×{cell.size}{threads}'


def best_layout_text(result, cell, name):
    """The faster layout, and images/s of the other."""
    layout, _ = result.best(cell, name)
    images = result.cells[cell].batch_size
    others = [f'{other.upper()} {images / median_of_medians(list(seconds.values())):.3g}'
              for other, seconds in result.layouts(cell, name).items() if other != layout]
    others += [f'{other.upper()} has no round that counts' for other in result.lacking(cell, name)]
    return layout.upper() + (f'; {", ".join(others)}' if others else '')


def cell_table(result, cell):
    """A row a candidate of one cell: speed, layouts, ratios to stock, memory."""
    rows = []
    best = result.best_dtype_cell(cell.name)
    for name in cell.candidates:
        if (found := result.images_per_second(cell.name, name)) is None:
            continue
        same = result.speedup(cell.name, name) if name != 'stock' else None
        fastest = result.speedup(cell.name, name, baseline_cell=best) if best not in (None, cell.name) else None
        peak = result.peak(cell.name, name)
        rows.append([CANDIDATES[name].label, best_layout_text(result, cell.name, name), speed_text(found),
                     found.processes, text(same), text(fastest), f'{peak:.0f}' if peak else NONE])
    header = ['candidate', 'faster layout; the other', 'images/s (interval)', 'processes', '× stock', '× stock in its '
              'faster dtype', 'peak memory, MiB']
    keep = [i for i, title in enumerate(header) if title != header[5] or any(row[5] != NONE for row in rows)]
    keep = [i for i in keep if i != 6 or any(row[6] != NONE for row in rows)]
    return markdown_table([header[i] for i in keep], [[row[i] for i in keep] for row in rows])


# Goals and questions


def cell_of(result, suite, mode, dtype):
    return next(c.name for c in result.cells.values() if (c.suite, c.mode, c.dtype) == (suite, mode, dtype))


def goals(result):
    """Rows of what was aimed at: label, goal, the ratio measured."""
    train, infer = ({dtype: cell_of(result, 'main', mode, dtype) for dtype in ('fp32', 'bf16')} for mode in MODES)
    backbone = {mode: cell_of(result, 'backbone', mode, 'fp32') for mode in MODES}
    small = cell_of(result, 'small', 'train', 'fp32')
    rows = [('InceptionNeXt-T UperNet over stock, training, fp32', 3.5, (train['fp32'], 'inceptionnext', 'stock')),
            ('the same, bf16', 3.2, (train['bf16'], 'inceptionnext', 'stock')),
            ('over smp InceptionNeXt-T, training, bf16', 2.2, (train['bf16'], 'inceptionnext', 'smp-inceptionnext')),
            ('the same, fp32', 3.5, (train['fp32'], 'inceptionnext', 'smp-inceptionnext')),
            ('InceptionNeXt-A UperNet over its own torch form, training, fp32', 1.5, (small, 'small', 'small-plain')),
            ('InceptionNeXt-T over our ConvNeXt-T, both accelerated: backbone, inference, fp32', 1.25,
             (backbone['infer'], 'inceptionnext', 'convnext')),
            ('the same, backbone, training, fp32', 1.4, (backbone['train'], 'inceptionnext', 'convnext')),
            ('the same, whole training step, fp32', 1.15, (train['fp32'], 'inceptionnext', 'convnext')),
            ('InceptionNeXt-T UperNet in bf16 over itself in fp32, training', 1.6,
             (train['bf16'], 'inceptionnext', 'inceptionnext', train['fp32'])),
            ('the same, inference', 1.6, (infer['bf16'], 'inceptionnext', 'inceptionnext', infer['fp32'])),
            ('the same, inference in its deploy form', 1.6,
             (infer['bf16'], *['inceptionnext-deployed'] * 2, infer['fp32']))]
    return [(label, goal, result.speedup(*cell)) for label, goal, cell in rows]


def mixers_table(result):
    """InceptionNeXt-T over ConvNeXt-T with the same head, and what acceleration has of either."""
    rows = []
    for suite in ('main', 'backbone'):
        for mode in MODES:
            row = [f'{"whole network" if suite == "main" else "backbone"}, {MODES[mode]}']
            for treatment in ('-plain', ''):
                for dtype in ('fp32', 'bf16'):
                    cell = cell_of(result, suite, mode, dtype)
                    row.append(text(result.speedup(cell, f'inceptionnext{treatment}', f'convnext{treatment}')))
            rows.append(row)
    table = markdown_table(['InceptionNeXt-T over ConvNeXt-T', 'plain, fp32', 'plain, bf16', 'accelerated, fp32',
                            'accelerated, bf16'], rows)
    return with_words(table, mixers_words(result))


def seconds_of(result, suite, mode, dtype, name):
    cell = cell_of(result, suite, mode, dtype)
    found = result.images_per_second(cell, name)
    return found and result.cells[cell].batch_size / found.value


def product_rates(path):
    """GMACs/s of products of square matrices in two threads by dtype, of the study of operators on the same machine.

    Args:
        path (Path): Of the result of the study of speed; that of operators lies beside it, or there is none.
    """
    path = Path(path).with_name('operators.json')
    if not path.is_file():
        return {}
    found = {}
    for limit in read_object(path, 'a result of studies.operators', 'take it away')['limits']:
        if limit['threads'] == 2:
            found.setdefault(limit['dtype'], []).append(limit['macs_per_second'] / 1e9)
    return {dtype: statistics.median(rates) for dtype, rates in found.items()}


def limits_table(result, path):
    """What of our ConvNeXt-T's time the backbone is, and what its being faster can bring the whole network."""
    rows, products = [], product_rates(path)
    for mode, title in MODES.items():
        for dtype in ('fp32', 'bf16'):
            whole, backbone = (seconds_of(result, suite, mode, dtype, 'convnext') for suite in ('main', 'backbone'))
            other = seconds_of(result, 'backbone', mode, dtype, 'inceptionnext')
            if not (whole and backbone and other):
                continue
            goal = dict(train=1.4, infer=1.25)[mode]
            # Images, and in training forward and two products backward.
            passes = result.cells[cell_of(result, 'main', mode, dtype)].batch_size * dict(train=3, infer=1)[mode]
            rates = [f'{passes * BACKBONE_GMACS[name] / seconds:.0f}' for name, seconds in (
                ('convnext', backbone), ('inceptionnext', other))]
            rows.append([f'{title}, {dtype}', f'{whole:.2f}', f'{backbone:.2f} ({rates[0]})',
                         f'{other:.2f} ({rates[1]})', f'{products[dtype]:.0f}' if dtype in products else NONE,
                         f'{backbone / whole:.0%}',
                         f'{whole / (whole - backbone + other):.2f}',
                         f'{whole / (whole - backbone * (1 - 1 / goal)):.2f}'])
    return markdown_table(
        ['', 'ConvNeXt-T UperNet, s', 'its backbone (GMACs/s)', "InceptionNeXt-T's", 'matrix products, GMACs/s',
         'share of the backbone', 'whole network, with the other backbone', 'with one as fast as the goal'], rows)


def parts_table(result):
    rows = []
    for mode, title in MODES.items():
        alone, without = parts(result, mode)
        rows += [[f'{title}: {part}', text(alone[part]), text(without[part])] for part in PARTS[mode]]
        found = result.speedup(parts_cell(result, mode).name, 'inceptionnext', 'inceptionnext-plain')
        rows.append([f'{title}: all', text(found), NONE])
    settings = ', '.join(what(parts_cell(result, mode)).partition(', fp32, ')[2] for mode in MODES)
    table = markdown_table([f'InceptionNeXt-T UperNet, fp32, {settings} pixels', 'alone: times as fast as plain',
                            'left out: times as slow as with all'], rows)
    return with_words(table, parts_words(result))


def growth_table(result):
    rows = []
    for mode in MODES:
        for cell in growth_cells(result, mode):
            if not any(result.best(cell.name, name) for name in cell.candidates):
                continue
            rows.append([what(cell), *(speed_text(result.images_per_second(cell.name, name))
                                       for name in ('stock', 'convnext', 'inceptionnext')),
                         text(result.speedup(cell.name, 'inceptionnext'))])
    return markdown_table(['', 'stock, images/s', 'our ConvNeXt-T', 'our InceptionNeXt-T', 'InceptionNeXt-T × stock'],
                          rows)


def threads_table(result):
    """How many times as fast as stock with one thread and with two, at the same setting."""
    rows = []
    for cell in result.cells.values():
        if cell.suite != 'threads' or result.best(cell.name, 'inceptionnext') is None:
            continue
        both = next((other for other in result.cells.values() if other.suite in ('main', 'growth') and (
            other.mode, other.dtype, other.batch_size, other.size, other.threads) == (
            cell.mode, cell.dtype, cell.batch_size, cell.size, 2)), None)
        rows.append([what(both) if both else what(cell), *(text(c and result.speedup(c.name, 'inceptionnext', baseline))
                    for baseline in ('stock', 'convnext') for c in (cell, both))])
    return markdown_table(['our InceptionNeXt-T', '× stock, one thread', 'two threads',
                           '× our ConvNeXt-T, one thread', 'two threads'], rows)


def compiled_table(result):
    """Images/s of stock and of our network, each as it is and after torch.compile."""
    rows = []
    for cell in result.cells.values():
        found = {name: result.images_per_second(cell.name, name) for name in COMPILED}
        if cell.suite == 'compile' and any(found.values()):
            rows.append([what(cell), *(speed_text(found[name]) for name in COMPILED), *(
                text(result.speedup(cell.name, f'{name}-compiled', name)) for name in ('stock', 'inceptionnext'))])
    return markdown_table(['images/s', 'stock', 'stock, compiled', 'our InceptionNeXt-T', 'ours, compiled',
                           'what it brings stock', 'what it brings ours'], rows)


def processes_text(result):
    """A sentence: of how many processes the figures are, by suite."""
    counts = {}
    for (cell, _, _), seconds in result.seconds.items():
        counts.setdefault(result.cells[cell].suite, []).append(len(seconds))
    return 'Processes of each figure: ' + ', '.join(
        f'{SUITES[suite]} {min(found)}' + (f'–{max(found)}' if max(found) > min(found) else '')
        for suite, found in counts.items()) + (
            f'. A ratio without brackets is of one process, or of two with one round each. {intervals_text()}')


def processes_in_short(result, suite, names):
    """The same of some candidates of one suite, for readers who go no further."""
    counts = {}
    for cell in result.cells.values():
        for name in names:
            if cell.suite == suite and (best := result.best(cell.name, name)):
                counts.setdefault(len(best[1]), set()).add(CANDIDATES[name].label)
    *fewer, most = sorted(counts)
    said = ''.join(f', {" and ".join(sorted(counts[count]))} of {count}' for count in reversed(fewer))
    return (f'Figures are medians of {most} process{"es" * (most > 1)}{said}. Brackets are of ratios alone: those of '
            'five processes are 95 % intervals, those of fewer little more than ranges ([what intervals are]'
            '(docs/speed.md#what-is-not-known)).')


SUITES = dict(main='whole networks', backbone='backbones', small='the small network', parts='parts', growth='growth',
              threads='one thread', compile='torch.compile')


# What has to be said beside the tables


def with_words(table, words):
    return f'{table}\n\n{words}' if words else table


def intervals_text():
    """What brackets are, and how little those of few processes cover."""
    *shares, last = (f'{100 * coverage(n):.0f} % for {word}'
                     for n, word in enumerate(('two', 'three', 'four', 'five'), 2))
    return ('Brackets are 95 % of a bootstrap over processes and their rounds, or the range of the processes where '
            f'that is wider, which covers the median behind it with {", ".join(shares)} and {last} of them: brackets '
            'of fewer than five processes are ranges, not 95 % intervals.')


def before_turns(result, suite=None):
    """The cells, in words, whose candidates did not take turns in every round."""
    runs, cells = result.content['runs'], result.cells
    return list(dict.fromkeys(
        what(cells[r['cell']]) for r in result.content['records']
        if 'order' not in runs[r['run']] and suite in (None, cells[r['cell']].suite)))


def turns_text(result, suite):
    """A sentence on the comparisons of a suite that were measured before candidates took turns; '' without any."""
    found = before_turns(result, suite)
    return ('Measured before candidates took turns, so that a change of the machine on the way may be in the ratio: '
            f'{"; ".join(found)}.') if found else ''


def layouts_text(result, suite, names):
    """Whether candidates ran in both memory layouts, of which the faster counts, and where they did not."""
    lacking = [f'{CANDIDATES[name].label} in {what(cell)} ({", ".join(map(str.upper, missing))} has no round that '
               'counts)' for cell in result.cells.values() if cell.suite == suite for name in names
               if result.best(cell.name, name) and (missing := result.lacking(cell.name, name))]
    return (f'{" and ".join(CANDIDATES[name].label for name in names)} run in the faster of both memory layouts'
            + (f', but for {"; ".join(lacking)}.' if lacking else '.'))


def mixers_words(result):
    """What acceleration brings either backbone in bf16 training, since it has a kernel for one of the mixers alone."""
    cell = cell_of(result, 'backbone', 'train', 'bf16')
    ours, theirs = (result.speedup(cell, name, f'{name}-plain') for name in ('inceptionnext', 'convnext'))
    plain, fast = (result.speedup(cell, f'inceptionnext{form}', f'convnext{form}') for form in ('-plain', ''))
    if None in (ours, theirs, plain, fast):
        return ''
    return ('Accelerated, it is not the mixers alone: there are kernels for the Inception mixer and its BatchNorm, and '
            f"none for 7×7 and LayerNorm. In bf16 training acceleration makes InceptionNeXt-T's backbone {ours} times "
            f"as fast, and ConvNeXt-T's {theirs}; InceptionNeXt-T's over ConvNeXt-T's is {plain} plain, and {fast} "
            'accelerated.')


def parts_words(result):
    """That the base of the parts is plain in NHWC alone, and what all parts bring over its faster layout."""
    parts, main = (cell_of(result, suite, 'infer', 'fp32') for suite in ('parts', 'main'))
    here, there = (result.speedup(cell, 'inceptionnext', 'inceptionnext-plain') for cell in (parts, main))
    plain = {layout: median_of_medians(list(seconds.values()))
             for layout, seconds in result.layouts(main, 'inceptionnext-plain').items()}
    if here is None or there is None or len(plain) < 2:
        return ''
    together = result.side_by_side(main, 'inceptionnext', 'inceptionnext-plain')
    apart = '' if together else ', by medians of processes that measured one or the other'
    return ('The base is plain in NHWC alone, the layout that acceleration has. Where plain is measured in both, in '
            f'inference of whole networks, it takes {plain["nchw"]:.2f} s in NCHW and {plain["nhwc"]:.2f} s in NHWC, '
            f'and all parts are {there} times as fast as the faster of these{apart}; as NHWC here, {here}.')


# The document


def repeated(records):
    """How a long first step and the one after it compare, where a process took both; '' without any."""
    pairs = [(r['first'], r['seconds'][0]) for r in records if r['candidate'] == REPEATED
             and r['seconds'][0] > LONG and abs(r['first'] - r['seconds'][0]) > 1e-3]
    if not pairs:
        return ''
    ratios = sorted(first / second for first, second in pairs)
    return (f'Of stock the first process took two: the first took {ratios[0]:.2f}'
            + (f'–{ratios[-1]:.2f}' if len(ratios) > 1 else '') + f' times as long as the second ({len(pairs)} times).')


def memory_conditions(memory):
    """How peaks were measured, in a list, which is empty without any."""
    if not memory:
        return []
    commits = sorted({record['commit'] for record in memory})
    return ['- Peak memory is that of one process that takes two such steps and has done nothing else, libraries '
            "included, in the layout that is faster and with the timing's forms of operators. It was measured apart "
            f'from the times, beside other programs (`--memory`, commit {", ".join(commits)}).']


def failures(content):
    failed = sorted({f'{f["cell"]}, {f["candidate"]} ({f["error"]})' for f in content.get('failed', ())})
    return [f'- Failed, and not measured: {"; ".join(failed)}.'] if failed else []


def one_after_the_other(result):
    """A point that names the comparisons of earlier runs, in which candidates did not take turns."""
    cells = before_turns(result)
    return [f'- Measured before candidates took turns, each with its rounds after the one before, at least one and '
            f'{ROUND_SECONDS:.0f} seconds of them, so that a machine which became slower on the way did so for a few: '
            f'{"; ".join(cells)}.'] if cells else []


def apart_text(result):
    """A sentence that names the candidates that no process measured beside stock; '' without any."""
    found = dict.fromkeys(CANDIDATES[name].label for cell in result.cells.values() for name in cell.candidates
                          if name != 'stock' and result.side_by_side(cell.name, name) is False)
    return ('So are those of candidates that no process measured beside stock, and what the machine changed between '
            f'the processes is in them, as in ratios of these to the others: {"; ".join(found)}. ') if found else ''


def conditions(result):
    content = result.content
    records, e = content['records'], content['environment']
    loads, busy, others = ([r[key] for r in records] for key in ('load_average', 'busy_before', 'others'))
    runs = '\n'.join(f'- commit {run["commit"]}: `{run["command"]}`' for run in content['runs'])
    dates = sorted(r['date'] for r in records)
    return [
        f'{machine_line(content, THREADS)}; {e["cpu_cores"]} cores; ' + ', '.join(
            f'{name} {version}' for name, version in e['versions'].items() if name != 'torch') + '. '
        f'{dates[0][:16]} to {dates[-1][:16]} UTC, in pieces.',
        '- A process measures one comparison after the other. Each candidate takes a step, uncounted; then all '
        f'take turns, in a random order, for as many rounds as take {ROUND_SECONDS:.0f} seconds a candidate, at least '
        f'{LEAST_ROUNDS} and at most {MOST_ROUNDS}. A first step of more than {LONG:.0f} seconds counts, and is the '
        f'only one, but never that in which forms of operators are measured. {repeated(records)}',
        *one_after_the_other(result),
        '- Speed is the median over processes of the median over rounds. A ratio is taken within each process, and '
        f'the median over processes is shown; ratios between dtypes are of medians. {apart_text(result)}The bootstrap '
        f'has {RESAMPLES} '
        f'resamples; between medians the ranges of two sides are combined as independent. {processes_text(result)}',
        f'- Candidates run in NCHW and in NHWC in the first {EXPLORED} processes; a layout that is more than '
        f'{SLOWER - 1:.0%} slower in each is left out of the rest. A ratio takes the faster layout of either. '
        'Ours run in NHWC alone, in which acceleration lays a network out, in inference and bf16 of whole networks, '
        'and in parts; growth and one thread are measured in the layout that is faster at 512×512.',
        f'- Before each process other programs kept {max(busy):.2f} cores busy at most (limit {MOST_BUSY}); while '
        f'measuring, {max(others):.2f} at most, with the hypervisor and compilers that the process started. The load '
        f'average was {min(loads)}–{max(loads)}: it counts the process before. {result.excluded} of '
        f'{result.excluded + result.rounds} rounds are left out, since threads waited for a core for more than '
        f'{DISTURBED:.0%} of them; nothing else is.',
        '- A training step is forward, loss, backward and AdamW on random images and labels of 150 classes; inference '
        'ends with class indices at the size of the image. bf16 is autocast. Freed memory stays with the process for '
        'all candidates but "as shipped" (`inceptionnext_seg/engine/allocator.py`). Forms of operators are those that '
        'the first process measured.',
        *memory_conditions(content['memory']),
        "- Stock is MMSegmentation's own ConvNeXt-T config with mmpretrain's backbone, its SyncBN made BN. smp is "
        "segmentation_models.pytorch's `UPerNet` with `tu-inception_next_tiny` or `tu-convnext_tiny` and 512 channels; "
        "it has no auxiliary head, which makes its training step cheaper than the others'. Hugging Face is "
        '`UperNetForSemanticSegmentation`. "Plain" is this package without acceleration.',
        *failures(content),
        'Runs:\n\n' + runs]


def report(content, path):
    """Markdown of the content of the result file ``path``, which the pictures stand beside."""
    result = Result(content)
    pictures = picture_paths(result, path)

    def picture(kind, alt):
        return [f'![{alt}]({pictures[kind].name})'] if kind in pictures else []

    blocks = [f'# Speed on {machine_line(content, THREADS)}', '## Goals', goals_table(goals(result)),
              '## What a user would pick',
              *picture('users', 'Images per second of training and inference in times of stock fp32')]
    for suite in ('main', 'backbone', 'small', 'threads'):
        if suite == 'backbone':
            blocks += ['## InceptionNeXt or ConvNeXt', mixers_table(result), limits_table(result, path)]
        for cell in result.cells.values():
            if cell.suite == suite and any(key[0] == cell.name for key in result.seconds):
                blocks += [f'### {what(cell)[0].upper()}{what(cell)[1:]}', cell_table(result, cell)]
    if result.has('parts'):
        blocks += ['## Parts', *picture('parts', 'What each part brings alone, and what leaving it out costs'),
                   parts_table(result)]
    if result.has('growth'):
        blocks += ['## Growth', *picture('growth', 'Seconds a megapixel by side and by batch'), growth_table(result)]
    if result.has('threads'):
        blocks += ['## One thread and two', threads_table(result)]
    if result.has('compile'):
        blocks += ['## torch.compile', compiled_table(result)]
    missing = sorted({cell.suite for cell in result.cells.values() if not result.has(cell.suite)})
    if missing:
        blocks += [f'Not measured yet: {", ".join(missing)}.']
    blocks += ['## How it was measured', *conditions(result)]
    return without_html('\n\n'.join(blocks)) + '\n'
