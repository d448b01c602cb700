"""gpu.md, from gpu.json."""
import statistics

from inceptionnext_seg.files import markdown_table, without_html

from ..timing import describe_ratio, ratio


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
    lines += ['## Tests', '', tests_table(result['cells']), '',
              '## Throughput', '',
              'Candidates took turns in random order within one process; medians over rounds, ratios round by round '
              'with 95 % bootstrap intervals over the rounds of that process. cuDNN chooses its algorithms by trial. '
              'Peak memory is what the allocator of torch gave out for weights, optimizer and step.', '']
    for name, cell in result['cells'].items():
        if cell['kind'] == 'speed':
            lines += [f'### {name}', '', speed_table(cell), '']
    lines += ['## Forms of operators', '']
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
    rows, first, batch_size = [], cell['results'][0], cell['setting']['batch_size']
    for row in cell['results']:
        seconds = statistics.median(row['seconds'])
        rows.append([row['label'] + ('' if row['settled'] else ' (did not settle)'), row['layout'],
                     f'{1e3 * seconds:.3g}', f'{batch_size / seconds:.3g}',
                     '1' if row is first else describe_ratio(ratio(first['seconds'], row['seconds'])),
                     f'{row["peak_memory"] / 2**20:.0f}' if row['peak_memory'] else '–'])
    halved = f'\n\nOut of memory halved the batch to {batch_size}.' if cell['halved'] else ''
    return markdown_table(['candidate', 'layout', 'ms a step', 'images/s', 'speed against the first (95 %)',
                           'peak memory, MiB'], rows) + halved


def operators_table(cell):
    if 'error' in cell:
        return f'Did not run: {cell["error"].strip().splitlines()[-1][:300]}'
    rows = [[c['operator'], c['first_map'], c['form'], c['rule'] or '–',
             ', '.join(f'{form} {1e3 * seconds:.3g}' for form, seconds in sorted(
                 c['seconds'].items(), key=lambda item: item[1]))] for c in cell['choices']]
    return markdown_table(['operator', 'first map', 'form that runs', 'rule of thumb', 'each form, ms'], rows)
