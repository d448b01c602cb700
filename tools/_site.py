"""Hooks of MkDocs (mkdocs.yml): one source for GitHub and for the site.

The site's front page is README.md, its last pages are CONTRIBUTING.md and CHANGELOG.md, its quick start is the notebook
docs/quickstart.ipynb; what a page links to outside docs/, such as a config or a test, becomes a page with its source.
Links are written for GitHub, and rewritten here. A link to nothing ends a strict build.
"""
import base64
import json
import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
# Pages that lie outside docs/, and their names in the site.
OUTSIDE = {'README.md': 'index.md', 'CONTRIBUTING.md': 'contributing.md', 'CHANGELOG.md': 'changelog.md',
           'SECURITY.md': 'security.md', 'LICENSE': 'license.md'}
NOTEBOOK = 'docs/quickstart.ipynb'
LANGUAGES = {'.py': 'python', '.yml': 'yaml', '.json': 'json', '.js': 'js', '.css': 'css', '.cpp': 'cpp', '.h': 'cpp'}
# A link's or picture's target, and not the text of a fenced block.
LINK = re.compile(r'(?P<fence>^ *(`{3,})[^\n]*\n.*?^ *\2 *$)|(?P<open>\]\()(?P<target>[^)\s]+)(?=\))',
                  re.DOTALL | re.MULTILINE)


def site_path(path):
    """Where the repository's file or folder ``path`` (posix, relative) is in the site's sources."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    if path == NOTEBOOK:
        return 'quickstart.md'
    if path == 'docs' or path.startswith('docs/'):
        return path.removeprefix('docs').lstrip('/') or 'index.md'
    return f'repository/{path}' + ('/index.md' if (ROOT / path).is_dir() else '.md')


def rewritten(text, source, found):
    """``text`` of the repository's ``source`` with links that work in the site; adds to ``found`` what they need."""
    def replace(match):
        if match['fence'] or re.match(r'[a-z]+:|#', match['target']):
            return match[0]
        path, hash, anchor = match['target'].partition('#')
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if target.startswith('..') or not (ROOT / target).exists():
            return match[0]     # nothing: the strict build says so
        found.add(target)
        start = posixpath.dirname(site_path(source)) or '.'
        return f'{match["open"]}{posixpath.relpath(site_path(target), start)}{hash}{anchor}'

    return LINK.sub(replace, text)


def listing(path):
    """A page of a file's source, or of a folder's files."""
    if (ROOT / path).is_dir():
        files = sorted(child for child in (ROOT / path).iterdir() if not child.name.startswith(('.', '__pycache__')))
        lines = [f'- [{child.name}{"/" if child.is_dir() else ""}]({child.name})' for child in files]
        return f'# {path}\n\n' + '\n'.join(lines) + '\n'
    text = (ROOT / path).read_text(encoding='utf-8')
    fence = '`' * max(3, 1 + max(map(len, re.findall('`+', text)), default=0))
    return f'# {path}\n\n{fence}{LANGUAGES.get(Path(path).suffix, "text")}\n{text}\n{fence}\n'


def notebook(text):
    """(Markdown, pictures by file name) of a notebook, with the outputs that it was committed with."""
    blocks, pictures = [], {}
    for cell in json.loads(text)['cells']:
        content = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            blocks.append(content)
            continue
        blocks.append(f'```python\n{content}\n```')
        for output in cell.get('outputs', ()):
            data = output.get('data', {})
            if kind := next((kind for kind in ('image/png', 'image/jpeg') if kind in data), None):
                name = f'quickstart_{len(pictures)}.{kind[6:]}'
                pictures[name] = base64.b64decode(''.join(data[kind]))
                blocks.append(f'![output]({name})')
            elif printed := ''.join(output.get('text', data.get('text/plain', ''))).rstrip():
                blocks.append(f'```text\n{printed}\n```')
    return '\n\n'.join(blocks) + '\n', pictures


def on_config(config):
    """Pages of docs/ that ``nav`` does not place are listed at its end."""
    placed = set(re.findall(r"'([\w/]+\.md)'", repr(config['nav'])))
    if others := sorted({path.name for path in (ROOT / 'docs').glob('*.md')} - placed):
        config['nav'].append({'More': others})
    return config


def on_files(files, config):
    """Every page with rewritten links, and a page for all that they link to."""
    pages = {path: (ROOT / path).read_text(encoding='utf-8') for path in OUTSIDE if path != 'LICENSE'}
    pages.update({f'docs/{file.src_uri}': file.content_string for file in files.documentation_pages()})
    if (ROOT / NOTEBOOK).is_file():
        pages[NOTEBOOK], pictures = notebook((ROOT / NOTEBOOK).read_text(encoding='utf-8'))
        for name, picture in pictures.items():
            files.append(File.generated(config, name, content=picture))
    made, found = {}, set()
    for path, text in pages.items():
        made[site_path(path)] = rewritten(text, path, found)
    while waiting := sorted(path for path in found if site_path(path) not in made and not (
            path.startswith('docs/') and files.get_file_from_path(site_path(path)))):
        for path in waiting:
            text = listing(path)
            is_folder = (ROOT / path).is_dir()
            made[site_path(path)] = rewritten(text, f'{path}/index.md', found) if is_folder else text
    for name, text in made.items():
        if old := files.get_file_from_path(name):
            files.remove(old)
        files.append(File.generated(config, name, content=text))
    return files


class Docstrings(griffe.Extension):
    """Sphinx roles of the docstrings, ``:func:`~.create.create_model```, as plain code."""

    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = re.sub(r':\w+:`[~.]*([^`<]+?)`', lambda m: f'`{m[1]}`', obj.docstring.value)
