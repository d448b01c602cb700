"""A page that segments what is dropped on it: inceptionnext-seg demo CONFIG CHECKPOINT [--against CONFIG CHECKPOINT]

Without arguments it shows what `make train` left in work_dirs. The page is served to this machine alone; from another
one, `ssh -L 7860:127.0.0.1:7860 HOST` reaches it. It needs Gradio: pip install "inceptionnext-seg[demo]".
"""
import argparse
import importlib
import tempfile
from pathlib import Path

from ..api import load
from ..demo.segmenting import Model, example_images
from ..errors import UserError, exit_on_user_error

DEFAULT = ('upernet_inceptionnext_a_mini', 'work_dirs/upernet_inceptionnext_a_mini/iter_600.pth')


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='?', help='config file, or the name of a config of the package')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file, or its URL')
    parser.add_argument('--against', nargs=2, metavar=('CONFIG', 'CHECKPOINT'), help='another model, side by side')
    parser.add_argument('--examples', type=Path, metavar='DIR',
                        help="a folder of images to try (default: drawn scenes, and CamVid's where they are)")
    parser.add_argument('--max-megapixels', type=float, default=20, metavar='N',
                        help='refuse larger images (default: %(default)s)')
    parser.add_argument('--device', help='such as cpu or cuda:1 (default: cuda where there is one, or else cpu)')
    parser.add_argument('--port', type=int, help='(default: the first from 7860 that is free)')
    parser.add_argument('--open', action='store_true', help='open a browser')
    return parser.parse_args()


def named(config, checkpoint, device):
    return Model(f'{Path(config).stem}, {Path(checkpoint).name}', load(config, checkpoint, device))


def checkpoints(args):
    """(config, checkpoint) of each model, from the command line or from `make train`."""
    if args.config is None:
        if not Path(DEFAULT[1]).is_file():
            raise UserError(f'no CONFIG and CHECKPOINT are given, and there is no {DEFAULT[1]} of `make train` here. '
                            'Next: give a config and a checkpoint, or `make train` first.')
        first = DEFAULT
    elif args.checkpoint is None:
        raise UserError(f'CONFIG is {args.config}, and no CHECKPOINT is given. Next: inceptionnext-seg demo CONFIG '
                        'CHECKPOINT.')
    else:
        first = args.config, args.checkpoint
    return [first, tuple(args.against)] if args.against else [first]


@exit_on_user_error
def main():
    args = parse_args()
    if not args.max_megapixels > 0:
        raise UserError(f'--max-megapixels is {args.max_megapixels:g}; expected: more than 0, such as 20.')
    given = checkpoints(args)
    try:
        page = importlib.import_module('..demo.page', __package__)
    except ImportError as error:
        raise UserError(f'the page needs Gradio, from version 6, which cannot be imported ({error}). Next: '
                        'pip install "inceptionnext-seg[demo]"') from error
    with tempfile.TemporaryDirectory(prefix='inceptionnext-seg-demo-') as folder:
        examples = example_images(Path(folder), args.examples)
        models = [named(config, checkpoint, args.device) for config, checkpoint in given]
        blocks = page.build(models, examples, Path(folder), round(1e6 * args.max_megapixels))
        print(f'{page.launch(blocks, args.port, args.open)}   (Ctrl-C ends it)', flush=True)
        blocks.block_thread()
