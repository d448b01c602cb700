"""Writing results: whole or not at all."""
import contextlib
import json
import os
import pathlib
import re


@contextlib.contextmanager
def replacing(path):
    """A temporary path beside ``path``, with its suffix, that replaces it when the block ends without an error."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path, text):
    """Write ``text`` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


def write_json(path, result):
    """Write a result file, whole or not at all; a list of numbers, such as raw samples, takes one line."""
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    text = re.sub(r'\[\s+([-+\d.e,\s]+?)\s+\]', lambda m: f'[{" ".join(m.group(1).split())}]', text)
    write_text(path, text + '\n')


def markdown_table(header, rows):
    """A Markdown table; columns of numbers stand to the right."""
    rows = [[str(cell) for cell in row] for row in rows]
    is_number = re.compile(r'[-+–\d*]|$').match
    rule = ['--:' if all(is_number(row[i]) for row in rows) else ':--' for i in range(len(header))]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in (header, rule, *rows))
