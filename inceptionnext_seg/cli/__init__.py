"""The console command ``inceptionnext-seg COMMAND …``: the same code as ``tools/COMMAND.py`` of a checkout.

A command is a module of this package with a ``main()`` that reads ``sys.argv``, in ``COMMANDS``. What measures and
reports is in ``studies/``, which no wheel has: those commands, in ``OF_A_CHECKOUT``, run ``tools/NAME.py`` where the
package is in a checkout, and say so elsewhere.
"""
import difflib
import importlib
import runpy
import sys
from pathlib import Path

from .._version import __version__
from ..errors import UserError, exit_on_user_error

NAME = 'inceptionnext-seg'
COMMANDS = {
    'train': 'train a segmentor',
    'test': 'evaluate a checkpoint',
    'predict': 'segment an image, a folder of images, or a video',
    'active': 'rank images by what a model does not know: which to label next',
    'import': 'make a data set of your images and labels: masks, Labelme, COCO, CVAT',
    'check': 'look at every image and mask of a data set',
    'export': 'write ONNX, torch.export or OpenVINO files, proved against torch',
    'demo': 'a page that segments what is dropped on it',
    'prepare-ade20k': 'download, unpack and check ADE20K',
    'complexity': 'parameters and MACs of configs',
    'list': 'names of the configs; `list PATTERN` those that match, as in list "*convnext_t*"',
}
OF_A_CHECKOUT = {
    'benchmark': 'throughput, side by side',
    'compare': 'finished runs against each other',
    'sweep': 'configs, variants and seeds',
    'reliability': 'training that is killed, against training that is not',
    'fuzz': 'random inputs for operators, settings, masks and checkpoints',
    'long-run': 'memory, open files, processes and speed of a long training',
    'accelerate-others': "other people's segmentors before and after accelerate",
}
# `import` is no name of a Python module.
MODULES = {'import': 'import_dataset', 'check': 'check_dataset'}
CHECKOUT = Path(__file__).resolve().parents[2]


def usage() -> str:
    width = max(map(len, (*COMMANDS, *OF_A_CHECKOUT))) + 2

    def table(commands):
        return '\n'.join(f'  {name:{width}}{what}' for name, what in commands.items())

    return (f'usage: {NAME} COMMAND …      ({NAME} COMMAND --help for its arguments)\n\n{table(COMMANDS)}\n\n'
            f'in a checkout of the repository:\n{table(OF_A_CHECKOUT)}')


def module_name(command: str) -> str:
    return MODULES.get(command, command.replace('-', '_'))


def run(command: str, arguments: list[str]):
    """Run one command as if ``sys.argv`` were its own; what its ``main()`` returns is the exit code."""
    sys.argv = [f'{NAME} {command}', *arguments]
    if command in COMMANDS:
        return importlib.import_module(f'{__name__}.{module_name(command)}').main()
    if command in OF_A_CHECKOUT:
        script = CHECKOUT / f'tools/{module_name(command)}.py'
        if not (CHECKOUT / 'studies').is_dir() or not script.is_file():
            raise UserError(f'{NAME} {command} is a study of the repository, and no part of the installed package '
                            f'(looked for {script}). Next: clone the repository, `pip install -e ".[studies]"` in it, '
                            'and give the same command.')
        sys.path.insert(0, str(script.parent))
        runpy.run_path(str(script), run_name='__main__')
        return 0
    near = difflib.get_close_matches(command, (*COMMANDS, *OF_A_CHECKOUT), 1)
    raise UserError(f'{NAME} has no command {command!r}; expected: {near[0] if near else ", ".join(COMMANDS)}. '
                    f'Next: {NAME} --help lists them.')


@exit_on_user_error
def main() -> None:
    """What the command line calls."""
    command, *arguments = sys.argv[1:] or ['--help']
    if command in ('-h', '--help'):
        print(usage())
    elif command in ('-V', '--version'):
        print(__version__)
    else:
        sys.exit(run(command, arguments))
