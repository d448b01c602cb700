"""Every command line in a block of the documents is taken by its own parser, or its document says what it needs.

Nothing is run here but the parsers.
"""
import argparse
import importlib.util
import re
import runpy
import shlex
import sys
from pathlib import Path
from unittest import mock

import pytest

from inceptionnext_seg import cli
from inceptionnext_seg.zoo import configs

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md')),
             *sorted((ROOT / 'docs/studies').glob('*.md'))]
# Programs of others, and how a document that uses one says where it comes from.
OTHERS = {'docker': '## Docker', 'labelme': 'pip install labelme', 'mim': 'pip install openmim', 'source': '.venv'}
STANDARD = ('sed', 'tar')
WORDS = {'N': '1', 'HxW': '512x512', 'HxW|dynamic': '512x512'}      # what stands for a value that is not a name


class ParsedError(BaseException):
    """The command line was taken; nothing runs."""


def command_lines(path):
    """(line, command) of the blocks without a language, or of a shell's; comments, ``…`` and continuations resolved."""
    text = re.sub(r'<!-- begin .*?<!-- end', '', path.read_text(), flags=re.S)     # what a run printed
    for _, language, block in re.findall(r'^( *)```(\w*)[^\n]*\n(.*?)^ *```$', text, re.M | re.S):
        if language not in ('', 'sh', 'bash', 'console', 'shell'):
            continue
        for line in block.replace('\\\n', ' ').splitlines():
            words = shlex.split(line.strip().removeprefix('$ '), comments=True)
            while words and re.fullmatch(r'[A-Z_]+=.*', words[0]):
                words.pop(0)
            words = [word for word in words if word not in ('…', '...', '&&')]
            if words and re.match(r'[\w.\-/]+$', words[0]):
                yield line, words


COMMANDS = [(path, line, words) for path in DOCUMENTS for line, words in command_lines(path)]


def parses(main, words):
    """Whether ``main`` comes to the end of its parsing with these arguments."""
    plain = argparse.ArgumentParser.parse_args

    def parse_args(self, *arguments, **settings):
        plain(self, *arguments, **settings)
        raise ParsedError

    with mock.patch.object(argparse.ArgumentParser, 'parse_args', parse_args), \
            mock.patch.object(sys, 'argv', ['tool', *(WORDS.get(word, word) for word in words)]):
        try:
            main()
        except ParsedError:
            return True
        except SystemExit as exit:
            return 'usage, and 0' if exit.code in (0, None) else False
    return False


def script(name):
    """``main`` of a script of the repository, or of a module of studies."""
    path = ROOT / (name if name.endswith('.py') else name.replace('.', '/') + '.py')
    if path.with_suffix('').is_dir():
        name, path = f'{name}.__main__', path.with_suffix('') / '__main__.py'
    assert path.is_file(), f'{path} does not exist'
    if name.endswith('.py'):
        return lambda: runpy.run_path(str(path), run_name='__main__')
    return importlib.import_module(name).main


def is_ours(words):
    """(main, its arguments) of a command of this repository, or None."""
    words = list(words)
    if words[:2] == ['docker', 'run']:      # the command is what the image runs
        image = next(i for i, word in enumerate(words) if re.match(r'inceptionnext-seg:\w+$', word))
        words = [cli.NAME, *words[image + 1:]]
    if words[0] == 'srun':
        words = words[1:]
    if words[0] == 'torchrun' or words[:3] == ['python', '-m', 'torch.distributed.run']:
        words = ['python', *words[next(i for i, word in enumerate(words) if word.endswith('.py')):]]
    if Path(words[0]).name in ('python', 'python3'):
        if words[1] == '-m' and words[2].split('.')[0] == 'studies':
            return script(words[2]), words[3:]
        if words[1:3] == ['-m', 'inceptionnext_seg']:
            words = [cli.NAME, *words[3:]]
        elif words[1].startswith(('tools/', 'studies/', 'tests/')):
            return script(words[1]), words[2:]
    if words[0].startswith('--'):       # options alone, of evaluation or of training
        return script('tools/test.py'), ['CONFIG', 'CHECKPOINT', *words]
    if words[0] == cli.NAME:
        if words[1:] and words[1] in cli.COMMANDS:
            return importlib.import_module(f'inceptionnext_seg.cli.{cli.module_name(words[1])}').main, words[2:]
        return (script(f'tools/{cli.module_name(words[1])}.py'), words[2:]) if words[1:] else None
    return None


@pytest.mark.parametrize(('path', 'line', 'words'), COMMANDS,
                         ids=[f'{path.name}: {" ".join(words)[:60]}' for path, _, words in COMMANDS])
def test_a_command_of_the_documents_is_taken_by_its_parser_or_says_what_it_needs(path, line, words, capsys):
    if found := is_ours(words):
        main, arguments = found
        assert parses(main, arguments), f'{line}\n{capsys.readouterr().err}'
        return
    program = Path(words[0]).name
    if program == 'make':
        targets = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M))
        assert {word for word in words[1:] if '=' not in word} <= targets, line
    elif program == 'pip' or words[:3] == ['python', '-m', 'pip']:
        extras = re.findall(r'(?:inceptionnext-seg|\.|\)")\[([\w,-]+)\]', line)
        project = (ROOT / 'pyproject.toml').read_text()
        assert all(re.search(rf'^{name} = \[', project, re.M) for group in extras for name in group.split(','))
    elif words[:3] == ['python', '-m', 'pytest'] or words[0] == '.venv/bin/python':
        assert all((ROOT / word).exists() for word in words if word.startswith('tests'))
    elif program not in STANDARD:
        assert program in OTHERS, f'{path.name}: {line}'
        assert OTHERS[program] in path.read_text(), f'{path.name} does not say where {program} comes from'


def test_configs_that_commands_name_are_there():
    for path, line, words in COMMANDS:
        for word in words:
            if word.startswith('configs/') and word.endswith('.py'):
                assert (ROOT / word).is_file(), f'{path.name}: {line}'
            if re.fullmatch(r'(upernet|fpn)_\w+_(mini|camvid|ade20k)', word):
                assert word in configs(), f'{path.name}: {line}'


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 30
    assert importlib.util.find_spec('studies')


def test_the_page_of_the_tools_tells_those_of_the_package_from_those_of_a_checkout():
    page = (ROOT / 'docs/tools.md').read_text().split('| command')[0]
    package, found, checkout = page.partition('are in the package')
    assert found and all(f'`{name}`' in package for name in cli.COMMANDS)
    assert all(re.search(rf'`(?:{cli.NAME} )?{name}`', ' '.join(checkout.split())) for name in cli.OF_A_CHECKOUT)
