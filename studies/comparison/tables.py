"""Tables for a paper or a spreadsheet: totals and classes of one candidate or more, as LaTeX, CSV or Markdown.

The mean over the runs of a candidate, in percent, and where there are several the sample standard deviation.
"""
import csv
import io
import statistics

from inceptionnext_seg.files import markdown_table

from .reading import METRICS, read_run

FORMATS = ('latex', 'csv', 'markdown')
SPECIAL = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}',
           **{character: f'\\{character}' for character in '&%$#_{}'}}


def read_candidates(candidates):
    """As ``collect``, without comparing anything: one run is enough, and the classes may differ."""
    return [dict(name=name, runs=[read_run(run) for run in runs]) for name, runs in candidates.items()]


def entry(values):
    """(mean, sample standard deviation or None), or None where a run lacks the value."""
    if not values or None in values:
        return None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def totals(candidates):
    """[(candidate, number of runs, [entry of each of METRICS])]"""
    return [(c['name'], len(c['runs']), [entry([run['metrics'][metric] for run in c['runs']]) for metric in METRICS])
            for c in candidates]


def classes(candidates):
    """[(class, [entry of each candidate's IoU])], in the order of the data set; None where it has no such class."""
    names = dict.fromkeys(name for c in candidates for run in c['runs'] for name in run['metrics']['per_class'])
    return [(name, [entry([run['metrics']['per_class'].get(name, {}).get('IoU') for run in c['runs']])
                    for c in candidates]) for name in names]


def tables(candidates, form):
    """Both tables as text.

    Args:
        candidates (list): Of :func:`read_candidates`, or ``content['candidates']`` of a report.
        form (str): One of ``FORMATS``. CSV is one row a candidate and metric or class, with full precision: ``table``
            is 'total' or 'class'.
    """
    return dict(latex=latex, csv=as_csv, markdown=markdown)[form](totals(candidates), classes(candidates),
                                                                 [c['name'] for c in candidates])


def text_of(cell, plus_minus):
    if cell is None:
        return '–' if plus_minus == ' ± ' else '--'
    mean, deviation = cell
    return f'{mean:.2f}' + ('' if deviation is None else f'{plus_minus}{deviation:.2f}')


def markdown(total_rows, class_rows, names):
    def cells(row):
        return [text_of(cell, ' ± ') for cell in row]

    def escaped(text):
        return text.replace('|', '\\|')

    first = markdown_table(['', 'n', *(f'{metric} (%)' for metric in METRICS)],
                           [[escaped(name), runs, *cells(row)] for name, runs, row in total_rows])
    second = markdown_table(['IoU (%)', *map(escaped, names)],
                            [[escaped(name), *cells(row)] for name, row in class_rows])
    return f'{first}\n\n{second}\n'


def latex(total_rows, class_rows, names):
    def escaped(text):
        return ''.join(SPECIAL.get(character, character) for character in text)

    def tabular(header, rows):
        lines = [rf'\begin{{tabular}}{{l{"r" * (len(header) - 1)}}}', r'\toprule', ' & '.join(header) + r' \\',
                 r'\midrule', *(' & '.join(row) + r' \\' for row in rows), r'\bottomrule', r'\end{tabular}']
        return '\n'.join(lines)

    def cells(row):
        return [text_of(cell, r'\,$\pm$\,') for cell in row]

    first = tabular(['', *(rf'{metric} (\%)' for metric in METRICS)],
                    [[escaped(name), *cells(row)] for name, _, row in total_rows])
    second = tabular([r'IoU (\%)', *map(escaped, names)], [[escaped(name), *cells(row)] for name, row in class_rows])
    return f'% \\usepackage{{booktabs}}\n{first}\n\n{second}\n'


def as_csv(total_rows, class_rows, names):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(['table', 'candidate', 'name', 'runs', 'mean', 'standard deviation'])

    def write(table, candidate, name, runs, cell):
        mean, deviation = cell or (None, None)
        writer.writerow([table, candidate, name, runs, mean, deviation])

    runs_of = {name: runs for name, runs, _ in total_rows}
    for name, runs, row in total_rows:
        for metric, cell in zip(METRICS, row, strict=True):
            write('total', name, metric, runs, cell)
    for class_name, row in class_rows:
        for name, cell in zip(names, row, strict=True):
            write('class', name, class_name, runs_of[name], cell)
    return out.getvalue()
