"""Tables for a paper or a spreadsheet: totals and classes of one candidate or more, as LaTeX, CSV or Markdown.

The mean over the runs of a candidate, in percent, and where there are several the sample standard deviation. A paper's
table has the columns that papers on backbones have for UperNet: parameters, MACs, and mIoU at a single scale and at
several.
"""
import csv
import io
import statistics
from pathlib import Path
from typing import NamedTuple

from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.files import markdown_table
from inceptionnext_seg.segmentation.complexity import count

from .collecting import check_each_once, check_same_scales, check_seeds
from .reading import METRICS, differ_in_length, find_metrics, is_multi_scale, read_metrics, read_run

FORMATS = ('latex', 'csv', 'markdown')
SPECIAL = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}',
           **{character: f'\\{character}' for character in '&%$#_{}'}}


def read_candidates(candidates):
    """As ``collect``, without comparing anything: one run is enough, and the classes may differ.

    Where some were evaluated at several scales and others were not, their names say so.

    Raises:
        UserError: A run cannot be read, or two of a candidate are one, have one seed, or differ in their scales.
    """
    for name, runs in candidates.items():
        check_each_once(name, runs)
    read = [dict(name=name, runs=[read_run(run) for run in runs]) for name, runs in candidates.items()]
    for candidate in read:
        check_same_scales(candidate['runs'])
        check_seeds(candidate['name'], candidates[candidate['name']], [run['metrics'] for run in candidate['runs']])
    scales = [is_multi_scale(candidate['runs'][0]['metrics']) for candidate in read]
    if len(set(scales)) > 1:
        for candidate, several in zip(read, scales, strict=True):
            candidate['name'] += ', multi-scale' if several else ', single scale'
    return read


def entry(values):
    """(mean, sample standard deviation or None), or None where a run lacks the value."""
    if not values or None in values:
        return None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


class Row(NamedTuple):
    """A candidate in a paper's table.

    Attributes:
        name (str): Of the candidate.
        parameters (int): With the auxiliary head, as in the papers.
        macs (int): Multiply-accumulates of one image, without the auxiliary head.
        shape (tuple[int, int]): Height and width of that image.
        single, multi (tuple | None): mIoU as :func:`entry` gives it, of the runs without and with ``--tta``.
        metrics (list[dict]): Of its runs.
    """
    name: str
    parameters: int
    macs: int
    shape: tuple
    single: tuple | None
    multi: tuple | None
    metrics: list


def paper_rows(candidates):
    """The rows of a paper's table. Runs of a candidate with ``--tta`` and without stand side by side.

    Args:
        candidates (dict[str, list]): Paths of each candidate's runs.

    Returns:
        list[Row]

    Raises:
        UserError: A run cannot be read, two of a candidate are one or have one seed, or a config is not found.
    """
    rows = []
    for name, paths in candidates.items():
        check_each_once(name, paths)
        files = [find_metrics(path) for path in paths]
        metrics = [read_metrics(file) for file in files]
        check_seeds(name, paths, metrics)
        cost = count(segmentors_config(files[0], metrics[0]['config']))
        of_kind = [[m['mIoU'] for m in metrics if is_multi_scale(m) is several] for several in (False, True)]
        rows.append(Row(name, cost.parameters, cost.macs, cost.shape, *map(entry, of_kind), metrics))
    return rows


def segmentors_config(metrics, named):
    """The config of a run: as mmengine dumped it beside ``metrics.json``, with every option of the command line, or
    where it is gone the one that ``metrics.json`` names."""
    dumped = Path(metrics).parent / 'vis_data/config.py'
    cfg = load_config(dumped if dumped.is_file() else named)
    if cfg.model.type == 'SegTTAModel':
        cfg.model = cfg.model.module
    return cfg


def note_on_lengths(metrics):
    """A line where runs were evaluated at different iterations, as where one is not over; None where they were not."""
    if not differ_in_length(metrics):
        return None
    lengths = ', '.join(f'{found.get("checkpoint") or found.get("config")}: {found["iteration"]}' for found in metrics
                        if found.get('iteration') is not None)
    return f'The runs were not evaluated at the same iteration ({lengths}): is one not over?'


def paper_table(rows, form):
    """The rows as text in one of ``FORMATS``."""
    size = ' or '.join(sorted({'×'.join(map(str, row.shape)) for row in rows}))
    header = ['', 'parameters (M)', f'MACs (G) at {size}', 'mIoU (%), single scale', 'mIoU (%), multi-scale']
    if form == 'csv':
        out = io.StringIO()
        writer = csv.writer(out, lineterminator='\n')
        writer.writerow(['candidate', 'parameters', 'MACs', 'size', *(
            f'mIoU {scale} {what}' for scale in ('single', 'multi') for what in ('mean', 'standard deviation'))])
        writer.writerows([row.name, row.parameters, row.macs, '×'.join(map(str, row.shape)),
                          *(row.single or (None, None)), *(row.multi or (None, None))] for row in rows)
        return out.getvalue()
    plus_minus = dict(latex=r'\,$\pm$\,', markdown=' ± ')[form]
    cells = [[row.name, f'{row.parameters / 1e6:.1f}', f'{row.macs / 1e9:.0f}', text_of(row.single, plus_minus),
              text_of(row.multi, plus_minus)] for row in rows]
    if form == 'markdown':
        return markdown_table(header, [[cell.replace('|', '\\|') for cell in row] for row in cells]) + '\n'
    header = [text.replace('×', r'$\times$').replace('%', r'\%') for text in header]
    return f'% \\usepackage{{booktabs}}\n{tabular(header, [[in_latex(row[0]), *row[1:]] for row in cells])}\n'


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


def in_latex(text):
    return ''.join(SPECIAL.get(character, character) for character in text)


def tabular(header, rows):
    lines = [rf'\begin{{tabular}}{{l{"r" * (len(header) - 1)}}}', r'\toprule', ' & '.join(header) + r' \\',
             r'\midrule', *(' & '.join(row) + r' \\' for row in rows), r'\bottomrule', r'\end{tabular}']
    return '\n'.join(lines)


def latex(total_rows, class_rows, names):
    def cells(row):
        return [text_of(cell, r'\,$\pm$\,') for cell in row]

    first = tabular(['', *(rf'{metric} (\%)' for metric in METRICS)],
                    [[in_latex(name), *cells(row)] for name, _, row in total_rows])
    second = tabular([r'IoU (\%)', *map(in_latex, names)], [[in_latex(name), *cells(row)] for name, row in class_rows])
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
