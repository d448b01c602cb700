"""gpu.md, from gpu.json."""
import statistics

from inceptionnext_seg.files import markdown_table, without_html

from ..throughput.candidates import GRAPH, NONE, STOCK
from ..timing import describe_ratio, ratio
from .cells import CONVNEXT, INCEPTIONNEXT

MODES = dict(train='training step', infer='inference')
NOT_RUN = 'Not run.'


def report(result):
    """Markdown."""
    e, c = result['environment'], result['conditions']
    versions = ', '.join(f'{name} {version}' for name, version in e['versions'].items())
    lines = [f'# {e["device_name"]}', '', f'`{e["command"]}`, commit {e["commit"]}, {e["date"]}; {versions}, triton '
             f'{result["origin"]["triton"]}, CUDA {e.get("cuda")}, cuDNN {e.get("cudnn")}.', '',
             'Conditions as nvidia-smi says: ' + (', '.join(f'{k} {v}' for k, v in c.items()) or 'nothing') + '. Each '
             'cell has its own, before and after it, in gpu.json.', '']
    if result['origin']['quick']:
        lines += ['**`--quick`: a small model, to exercise the command. No figure here means anything.**', '']
    kinds = [cell['kind'] for cell in result['cells'].values()]
    lines += ['## Tests', '', tests_table(result['cells']) if 'tests' in kinds else NOT_RUN, '', '## Throughput', '']
    if 'speed' in kinds:
        lines += ['Candidates took turns in random order within one process; medians over rounds, ratios round by '
                  'round with 95 % bootstrap intervals over the rounds of that process. Where MMSegmentation\'s own '
                  'network is among them, they are to it in the layout that is the faster by its median. cuDNN chooses '
                  'its algorithms by trial. Peak memory is what the allocator of torch gave out for weights, optimizer '
                  'and step; it does not count what a CUDA graph keeps.', '']
    for name, cell in result['cells'].items():
        if cell['kind'] == 'speed':
            lines += [f'### {name}', '', speed_table(cell), '']
    lines += ['## Forms of operators', '', *([] if 'operators' in kinds else [NOT_RUN, ''])]
    for name, cell in result['cells'].items():
        if cell['kind'] == 'operators':
            lines += [f'### {name}', '', operators_table(cell), '']
    return without_html('\n'.join(lines))


def tests_table(cells):
    rows, failed = [], []
    for name, cell in cells.items():
        if cell['kind'] != 'tests':
            continue
        outcomes = [test['outcome'] for test in cell.get('tests', ())]
        rows.append([name, *(str(outcomes.count(outcome)) for outcome in ('passed', 'failed', 'skipped')),
                     'did not end' if 'error' in cell else ''])
        failed += [f'- {test["outcome"]}: {test["name"]}: {(test["reason"].strip().splitlines() or [""])[-1][:200]}'
                   for test in cell.get('tests', ()) if test['outcome'] != 'passed']
    return '\n'.join([markdown_table(['', 'passed', 'failed', 'skipped', ''], rows), '', *failed])


def speed_table(cell):
    if 'error' in cell:
        return f'Did not run: {cell["error"].strip().splitlines()[-1][:300]}'
    first, rows = reference(cell), []
    for row in cell['results']:
        seconds, images = statistics.median(row['seconds']), cell['setting']['batch_size']
        rows.append([row['label'] + ('' if row['settled'] else ' (did not settle)'), row['layout'],
                     f'{1e3 * seconds:.3g}', f'{images / seconds:.3g}', speed_of(row, first), peak_memory(row)])
    halved = f'\n\nOut of memory halved the batch to {cell["setting"]["batch_size"]}.' if cell['halved'] else ''
    against = 'stock in its faster layout' if first['name'] == STOCK else 'the first'
    return markdown_table(['candidate', 'layout', 'ms a step', 'images/s', f'speed against {against} (95 %)',
                           'peak memory, MiB'], rows) + halved


def reference(cell):
    """What ratios are to: stock in its faster layout, or where stock is not among the candidates, the first."""
    stock = [row for row in cell['results'] if row['name'] == STOCK]
    return min(stock or cell['results'][:1], key=lambda row: statistics.median(row['seconds']))


def speed_of(row, first):
    return '1' if row is first else describe_ratio(ratio(first['seconds'], row['seconds']))


def peak_memory(row):
    """The allocator of torch does not count what a CUDA graph keeps."""
    known = row['peak_memory'] and not row['name'].endswith(f'::{GRAPH}')
    return f'{row["peak_memory"] / 2**20:.0f}' if known else '–'


# In the documentation


def segmentors(result):
    """Cells of whole segmentors that ran, by what they are called."""
    found = {}
    for name, cell in result['cells'].items():
        if name.startswith('segmentors') and 'error' not in cell:
            s = cell['setting']
            found[f'{MODES[s["mode"]]}, {s["dtype"]}, {s["batch_size"]} × {s["size"]}×{s["size"]}'] = cell
    return found


def segmentors_table(result):
    """Speed of every candidate against stock in its faster layout, and ms a step, a column a cell."""
    found = segmentors(result)
    rows = {(row['label'], row['layout']): [] for cell in found.values() for row in cell['results']}
    for label, layout in rows:
        for cell in found.values():
            row = next((row for row in cell['results'] if (row['label'], row['layout']) == (label, layout)), None)
            rows[label, layout] += [f'{1e3 * statistics.median(row["seconds"]):.3g}', speed_of(row, reference(cell))
                                    ] if row else ['–', '–']
    return markdown_table(
        ['', 'layout', *(head for name in found for head in (f'{name}: ms', '× stock'))],
        [[*name, *cells] for name, cells in rows.items()])


def words(result):
    """Accelerated InceptionNeXt-T against stock in its faster layout, cell by cell."""
    said = []
    for name, cell in segmentors(result).items():
        speeds = []
        for candidate, how in ((INCEPTIONNEXT, ''), (f'{INCEPTIONNEXT}::{GRAPH}', ' as a CUDA graph')):
            for row in cell['results']:
                if row['name'] == candidate:
                    found = ratio(reference(cell)['seconds'], row['seconds'])
                    text = f'{found.median:.2f} ({found.low:.2f}–{found.high:.2f})×{how}'
                    speeds.append(f'**{text}, slower than stock**' if found.high < 1 else text)
        said.append(f'{name}: {", ".join(speeds)}')
    return '; '.join(said)


def families(cell):
    """How many times as fast InceptionNeXt-T is as ConvNeXt-T, by how both are treated; None where one is missing."""
    seconds, found = {row['name']: row['seconds'] for row in cell['results']}, {}
    for how, change in (('plain', f'::{NONE}'), ('accelerated', ''), (GRAPH, f'::{GRAPH}')):
        ours, theirs = f'{INCEPTIONNEXT}{change}', f'{CONVNEXT}{change}'
        both = {ours, theirs} <= seconds.keys()
        found[how] = ratio(seconds[theirs], seconds[ours]) if both else None
    return found


def families_table(result):
    """InceptionNeXt-T over ConvNeXt-T, both treated alike."""
    rows = [[name, *(describe_ratio(found) if found else '–' for found in families(cell).values())]
            for name, cell in segmentors(result).items()]
    return markdown_table(['InceptionNeXt-T over ConvNeXt-T', 'plain', 'accelerated', 'and as a CUDA graph'], rows)


def compared_table(estimate, result):
    """What studies.gpu.estimate said of this GPU, beside what was measured."""
    measured = {(cell['setting']['dtype'], row['label']): row['seconds'] for cell in segmentors(result).values()
                for row in cell['results'] if (cell['setting']['mode'], cell['setting']['batch_size'], cell['setting'][
                    'size']) == ('train', estimate['batch_size'], estimate['size'])}
    rows = []
    for row in estimate['rows']:
        if row['gpu'] not in result['environment']['device_name']:
            continue
        for label in (row['candidate'], f'{row["candidate"]}: {GRAPH}'):
            if seconds := measured.get((row['dtype'], label)):
                low, high = (1e3 * sum(row[key].values()) for key in ('low', 'high'))
                rows.append([row['dtype'], label, f'{low:.0f}–{high:.0f}', f'{1e3 * statistics.median(seconds):.3g}'])
    return markdown_table(['dtype', 'candidate', 'ms a step, estimated', 'measured'], rows)


def operators_table(cell):
    if 'error' in cell:
        return f'Did not run: {cell["error"].strip().splitlines()[-1][:300]}'
    rows = [[c['operator'], c['first_map'], c['form'], c['rule'] or '–',
             ', '.join(f'{form} {1e3 * seconds:.3g}' for form, seconds in sorted(
                 c['seconds'].items(), key=lambda item: item[1]))] for c in cell['choices']]
    return markdown_table(['operator', 'first map', 'form that runs', 'rule of thumb', 'each form, ms'], rows)
