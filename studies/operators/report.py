"""The report of tools/benchmark_ops.py: tables and figures of a result file."""
import pathlib

from inceptionnext_seg.files import replacing, write_text

from .cases import GROUPINGS, groups_of
from .pictures import FIGURES
from .result import Table
from .tables import (
    correlations_table,
    factorized_table,
    group_table,
    kernels_table,
    limits_table,
    overheads_table,
    parallel_table,
    prices_table,
    reasons_table,
    shape,
    shapes_table,
    verdicts_table,
)

BLOCKS = {
    'limits': limits_table,
    'factorized dense': lambda result: factorized_table(Table(result), 'dense'),
    'factorized depthwise': lambda result: factorized_table(Table(result), 'depthwise'),
    'parallel': lambda result: parallel_table(Table(result)),
    'shapes': lambda result: shapes_table(Table(result)),
    'reasons': reasons_table,
    'verdicts': verdicts_table,
    'correlations': lambda result: correlations_table(Table(result)),
    'kernels dense': lambda result: kernels_table(Table(result), 'dense'),
    'kernels depthwise': lambda result: kernels_table(Table(result), 'depthwise'),
    'overheads': lambda result: overheads_table(Table(result)),
    'prices': lambda result: prices_table(Table(result)),
}


def write_report(result, path):
    """Write the tables to ``path`` (.md) and the figures beside it (.png).

    Returns:
        list[pathlib.Path]: What was written.
    """
    path = pathlib.Path(path)
    write_text(path, markdown(result, path.stem))
    written = [path]
    for figure, draw in FIGURES.items():
        image = path.with_name(f'{path.stem}_{figure}.png')
        with replacing(image) as temporary:
            draw(result).savefig(temporary, dpi=100)
        written.append(image)
    return written


def markdown(result, name):
    """The tables of ``result`` as a document beside the result file ``name``.json and the figures."""
    return '\n'.join([
        '# Operators: square, factorized and Inception convolutions', '',
        f'Written by `python tools/benchmark_ops.py --report {name}.json`. What it means: '
        '`docs/factorized_convolutions.md`.', '', summary(result), '## Figures', '',
        *[f'![{figure}]({name}_{figure}.png)' for figure in FIGURES], '', '## Every case', '', case_tables(result)])


def summary(result):
    """The tables that answer the question, with their titles, as Markdown."""
    table = Table(result)
    unsettled = sum(not record['settled'] for record in table.records.values())
    lines = [f'Command: `{result["environment"]["command"]}`', '', environment_line(result) + '.', '',
             f'{len(table.records)} cases, {unsettled} of them not settled: their two halves disagree after the '
             'warm-up was extended. In brackets: 95 % bootstrap interval of the median, over rounds of one process; '
             'processes were not repeated. "=": no difference shown, the interval covers 1. A share of the bound may '
             'exceed 1 where outputs stay in the cache. "Cold" is the input of an operator only: its output, and the '
             'map between two passes, stay in the cache where it is larger than they are, so that the verdicts on '
             'caching do not cover a second pass that reads from memory.', '']
    titles = {
        'limits': "The machine's limits", 'factorized dense': 'Factorized, dense',
        'factorized depthwise': 'Factorized, depthwise', 'parallel': 'Parallel and partial, depthwise',
        'shapes': 'By shape', 'correlations': 'What time goes with: rank correlation',
        'kernels dense': 'Kernels, dense', 'kernels depthwise': 'Kernels, depthwise', 'prices': 'The price of a call',
        'overheads': 'The price of the calls, of the time', 'reasons': 'Which reasons the numbers bear out'}
    for name, title in titles.items():
        block = BLOCKS[name](result)
        if block.count('\n') > 1:
            lines += [f'## {title}', '', block, '']
    return '\n'.join(lines)


def case_tables(result):
    """A table of each group of cases measured together, as Markdown."""
    table = Table(result)
    lines = []
    for group in groups_of(table):
        for grouping in GROUPINGS:
            cases = [case for case in group if case.grouping == grouping]
            if cases:
                lines += [f'### {grouping}, {shape(cases[0])}, {cases[0].layout}, {cases[0].mode}', '',
                          group_table(table, cases), '']
    return '\n'.join(lines)


def environment_line(result):
    """One sentence on where and when the result was measured."""
    e = result['environment']
    clock = dict(wall='wall clock', cpu='processor time of the one thread, so that time taken by other programs does '
                 'not count')[result['clock']]
    variables = ''.join(f'; {name}={value}' for name, value in e['variables'].items())
    load = f'; load average {e["load_average"]:.1f} on {e["cpu_cores"]} cores' if 'load_average' in e else ''
    return (f'{e["device_name"]} ({e["cpu_capability"]}), {e["threads"]} thread{"s" * (e["threads"] != 1)}, torch '
            f'{e["versions"]["torch"]}, {e["date"][:10]}{load}; {clock}; {result["rounds"]} rounds{variables}')
