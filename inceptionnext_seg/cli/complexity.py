"""Parameters and MACs of segmentors: inceptionnext-seg complexity CONFIG [CONFIG ...] [--shape 512 2048]

Counted on meta tensors, so in seconds and without memory, whatever the size. --shape 224 gives, in the backbone's row,
what the papers report for ImageNet but for the classifier.
"""
import argparse
from pathlib import Path

from ..engine.launch import load_config
from ..engine.options import OptionsAction
from ..errors import UserError, exit_on_user_error
from ..files import write_json, write_text
from ..provenance import environment
from ..segmentation.complexity import COUNTED, count, from_dict, to_dict, to_markdown


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files, or names of configs of the package')
    parser.add_argument(
        '--shape', nargs='+', type=int, metavar='N',
        help='height and width of the image, or one number for both; by default as in the papers: 512 2048 for UperNet '
        'and 512 512 for the others')
    parser.add_argument('--depth', type=int, default=2, help='parts of a module name, at most (default: 2)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE',
        help='override settings of every config, such as model.backbone.arch=small')
    parser.add_argument('--out', nargs='+', default=[], metavar='FILE', help='write the result to .json and .md files')
    return parser.parse_args()


def check(args):
    """The errors of the command line, before anything is counted."""
    if args.shape is not None and (len(args.shape) > 2 or min(args.shape) < 1):
        raise UserError(f'--shape is {" ".join(map(str, args.shape))}; expected: height and width in pixels, or one '
                        'number for both, such as --shape 512 2048.')
    if args.depth < 1:
        raise UserError(f'--depth is {args.depth}; expected: at least 1, which shows backbone, neck and heads.')
    for path in args.out:
        if Path(path).suffix not in ('.json', '.md'):
            raise UserError(f'--out is {path}; expected: a name that ends in .json or .md.')


def page(command, tables):
    return f'# Parameters and MACs\n\nWritten by `{command}`.\n\n{tables}'


def report(content):
    """The Markdown file that belongs to the content of a .json file."""
    complexities = {name: from_dict(counts) for name, counts in content['configs'].items()}
    return page(content['environment']['command'], to_markdown(complexities, content['depth']))


@exit_on_user_error
def main():
    args = parse_args()
    check(args)
    shape = args.shape * 2 if args.shape and len(args.shape) == 1 else args.shape
    complexities = {}
    for path in args.configs:
        try:
            complexities[path] = count(load_config(path, args.cfg_options), shape)
        except UserError as error:
            raise UserError(f'{path}: {error}') from error
    tables = to_markdown(complexities, args.depth)
    print(tables, end='')

    described = environment('meta')
    for path in args.out:
        if path.endswith('.json'):
            configs = {name: to_dict(complexity, args.depth) for name, complexity in complexities.items()}
            write_json(path, dict(environment=described, counted=COUNTED, depth=args.depth, configs=configs))
        else:
            write_text(path, page(described['command'], tables))
