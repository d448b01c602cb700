"""What replacing depthwise convolutions changes in timm's models, as tables.

python -m studies.replacement_report MODEL [MODEL ...] [--shape 224 224] [--out FILE.md FILE.json]
"""
import argparse
import sys
from pathlib import Path

import timm

from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import markdown_table, write_json, write_text
from inceptionnext_seg.models.replace_depthwise import Cost, Replacement, Report, changes, replace_depthwise
from inceptionnext_seg.provenance import environment


def parse_args():
    parser = argparse.ArgumentParser(
        prog='python -m studies.replacement_report',
        description="Replace the depthwise convolutions of timm's models by Inception ones and report the change")
    parser.add_argument('models', nargs='+', metavar='MODEL', help='names of timm models, such as convnext_atto')
    parser.add_argument(
        '--shape', nargs=2, type=int, default=[224, 224], metavar='N',
        help='height and width of the image that MACs are for (default: 224 224)')
    parser.add_argument('--out', nargs='+', default=[], metavar='FILE', help='write the result to .json and .md files')
    return parser.parse_args()


def replace_in(name, shape):
    """``replace_depthwise``'s report on a timm model without weights, with the default settings.

    Raises:
        UserError: timm has no model of this name, or it cannot be replaced or run.
    """
    try:
        model = timm.create_model(name, pretrained=False)
    except RuntimeError as error:
        raise UserError(f'timm cannot build {name!r}: {error}. Expected: one of timm.list_models().') from error
    try:
        return replace_depthwise(model, (3, *shape))
    except UserError as error:
        raise UserError(f'{name}: {error}') from error


def to_markdown(reports):
    """The models side by side, then each convolution of each. ``reports``: Report by model name."""
    rows = [[f'`{name}`', len(report.replaced), *changes(report.before, report.after)]
            for name, report in reports.items()]
    header = ['model', 'depthwise convolutions replaced', 'parameters before', 'after', 'MACs before', 'after']
    return '\n\n'.join([markdown_table(header, rows), *(
        f'## `{name}`\n\n{report}' for name, report in reports.items())]) + '\n'


def from_dict(content):
    """The ``Report`` that :func:`to_dict` made ``content`` of."""
    replaced = [Replacement(**{**r, 'before': Cost(**r['before']), 'after': Cost(**r['after'])})
                for r in content['replaced']]
    return Report(**{**content, 'replaced': replaced, 'before': Cost(**content['before']),
                     'after': Cost(**content['after'])})


def totals_table(content):
    """The models of a result file side by side."""
    return to_markdown({name: from_dict(found) for name, found in content['models'].items()}).split('\n\n')[0]


def page(command, shape, tables):
    return (f'# Depthwise convolutions replaced by Inception ones\n\nWritten by `{command}`. MACs are of one image of '
            f'{"×".join(map(str, shape))} pixels.\n\n{tables}')


def report(content):
    """The Markdown file that belongs to the content of a .json file."""
    reports = {name: from_dict(found) for name, found in content['models'].items()}
    return page(content['environment']['command'], next(iter(reports.values())).input_size[1:], to_markdown(reports))


def to_dict(report):
    """``report`` as it goes into a JSON file."""
    replaced = [dict(r._asdict(), before=r.before._asdict(), after=r.after._asdict()) for r in report.replaced]
    return dict(report._asdict(), replaced=replaced, before=report.before._asdict(), after=report.after._asdict())


@exit_on_user_error
def main():
    args = parse_args()
    for path in args.out:
        if Path(path).suffix not in ('.json', '.md'):
            raise UserError(f'--out is {path}; expected: a name that ends in .json or .md.')
    reports = {name: replace_in(name, args.shape) for name in args.models}
    tables = to_markdown(reports)
    print(tables, end='')

    # sys.argv has the module's file, which cannot be run as a script.
    command = ' '.join(['python -m studies.replacement_report', *sys.argv[1:]])
    for path in args.out:
        if path.endswith('.json'):
            models = {name: to_dict(report) for name, report in reports.items()}
            write_json(path, dict(environment=dict(environment('meta'), command=command), models=models))
        else:
            write_text(path, page(command, args.shape, tables))


if __name__ == '__main__':
    main()
