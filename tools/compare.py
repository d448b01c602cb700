"""Compare runs and say whether their differences are real, in one report.

    python tools/compare.py NAME=RUN[,RUN...] NAME=RUN[,RUN...] ... --out docs/results/camvid.md
    python tools/compare.py --from docs/results/camvid.json --out docs/results/camvid.md
    python tools/compare.py NAME=RUN[,RUN...] --format latex
    python tools/compare.py NAME=RUN/TRAINED/metrics.json,RUN/TESTED/metrics.json ... --format latex --paper

A RUN is a run's work_dir, of which the newest metrics.json counts, or a metrics.json: give that where one folder has
results with and without --tta. Several RUNs of one NAME are its seeds. Differences are to the first NAME. Beside the
report lie its pictures, and a JSON that rebuilds it. With --format only the tables of totals and classes are written,
to be pasted; one NAME is enough for them. With --paper it is the table of a paper: parameters, MACs, mIoU of the RUNs
without --tta, and of those with it.
"""
import argparse
import re
import sys
from pathlib import Path

import _repository  # noqa: F401

from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import write_text
from studies.comparison.collecting import all_runs, collect, read_collected
from studies.comparison.report import write_report
from studies.comparison.tables import FORMATS, note_on_lengths, paper_rows, paper_table, read_candidates, tables


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('candidates', nargs='*', metavar='NAME=RUN[,RUN...]',
                        help='two candidates or more; with --format, one')
    parser.add_argument('--from', dest='source', type=Path, metavar='REPORT.json',
                        help='rebuild a report from the JSON beside it, without the runs')
    parser.add_argument('--out', type=Path, metavar='FILE',
                        help='the report to write, a name that ends in .md; with --format any (default: the terminal)')
    parser.add_argument('--format', choices=FORMATS,
                        help='write the tables alone: LaTeX for booktabs, CSV with full precision, or Markdown')
    parser.add_argument('--paper', action='store_true',
                        help='with --format: parameters, MACs, mIoU at a single scale and at several')
    parser.add_argument('--title', help="the report's title (default: the candidates' names)")
    parser.add_argument('--benchmark', action='append', default=[], type=Path, metavar='RESULT.json',
                        help='add throughput from a result of tools/benchmark.py; may be repeated')
    parser.add_argument('--html', action='store_true', help='also write REPORT.html, one file with everything in it')
    args = parser.parse_args(argv)
    if bool(args.candidates) == bool(args.source):
        parser.error('give either two candidates or more, NAME=RUN[,RUN...] each, or --from REPORT.json')
    if args.source and args.benchmark:
        parser.error('--benchmark adds to a report that is made from runs; --from rebuilds one as it was')
    if args.paper and (args.source or not args.format):
        parser.error('--paper writes a table from runs: NAME=RUN[,RUN...], with a --format')
    if args.format:
        if args.title or args.benchmark or args.html:
            parser.error('--title, --benchmark and --html are of a report; --format writes the tables alone')
    elif args.out is None or args.out.suffix != '.md':
        parser.error(f'--out is {args.out}; expected a name that ends in .md, or a --format')
    return args


def candidates_of(arguments, least=2):
    """dict name -> list of runs, from NAME=RUN[,RUN...]."""
    candidates = {}
    for argument in arguments:
        name, equals, runs = argument.partition('=')
        if not (equals and re.fullmatch(r'[\w .+()-]+', name) and all(runs.split(','))):
            raise UserError(f'candidate {argument!r} is not NAME=RUN[,RUN...], with a NAME of letters, digits, spaces '
                            'and .+()-_. Next: for example ConvNeXt-A=work_dirs/seed0,work_dirs/seed1')
        if name in candidates:
            raise UserError(f'candidate {name} is given twice; expected one. Next: {name}=RUN,RUN names several runs.')
        candidates[name] = runs.split(',')
    if len(candidates) < least:
        raise UserError(f'one candidate given, {arguments[0]!r}; expected two or more to compare. Next: add NAME=RUN.')
    return candidates


@exit_on_user_error
def main(argv=None):
    args = parse_args(argv)
    if args.format:
        if args.paper:
            rows = paper_rows(candidates_of(args.candidates, least=1))
            text, metrics = paper_table(rows, args.format), [found for row in rows for found in row.metrics]
        else:
            candidates = read_collected(args.source)['candidates'] if args.source else read_candidates(
                candidates_of(args.candidates, least=1))
            text, metrics = tables(candidates, args.format), [run['metrics'] for run in all_runs(candidates)]
        if note := note_on_lengths(metrics):
            print(note, file=sys.stderr)    # the table is on stdout
        if args.out is None:
            print(text, end='')
        else:
            write_text(args.out, text)
            print(f'wrote {args.out}')
        return
    if args.source:
        content = read_collected(args.source)
        content['title'] = args.title or content['title']
    else:
        content = collect(candidates_of(args.candidates), args.title, args.benchmark)
    for path in write_report(content, args.out, args.html):
        print(f'wrote {path}')


if __name__ == '__main__':
    main()
