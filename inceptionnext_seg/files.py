"""Result files: written whole or not at all, read as the untrusted input that they are."""
import contextlib
import json
import math
import os
import pathlib
import re

from .errors import UserError

# The largest of a run or of docs/results have less than one megabyte.
LARGEST_JSON = 64 * 2**20


@contextlib.contextmanager
def replacing(path):
    """A temporary path beside ``path``, with its suffix, that replaces it when the block ends without an error.

    Its bytes are on the disk before its name is, so that a name never stands for a part of a file, even after the
    machine lost its power. A process that is killed leaves it behind; :func:`left_behind` finds it.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')
    try:
        yield temporary
        synchronize(temporary)
        temporary.replace(path)
        if os.name == 'posix':  # elsewhere folders cannot be opened
            synchronize(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def synchronize(path):
    """Return when what was written to a file, or the names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def left_behind(folder, pattern):
    """The temporary files of :func:`replacing` in ``folder`` for names like ``pattern``, such as ``iter_*.pth``."""
    stem, suffix = os.path.splitext(pattern)  # noqa: PTH122  a pattern is no path
    return [path for path in pathlib.Path(folder).glob(f'.{stem}.*{suffix}')
            if re.fullmatch(r'\.\d+', path.with_suffix('').suffix)]


def write_text(path, text, errors='strict'):
    """Write ``text`` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf-8', errors=errors)


def write_json(path, result):
    """Write a result file, atomically; a list of numbers, such as raw samples, takes one line.

    What of a file name is not UTF-8, which Python has as lone surrogates, becomes their escapes in JSON, and is read as
    the same name.
    """
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    text = re.sub(r'\[\n([-+\d.e,\s]+?)\n\s*\]', lambda m: f'[{" ".join(m.group(1).split())}]', text)
    write_text(path, text + '\n', errors='backslashreplace')


def parse_json(text):
    """What a JSON text holds, with finite numbers alone.

    Raises:
        ValueError: It is no JSON, holds NaN or infinity, or is nested too deeply.
    """

    def finite(digits):
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f'it holds {digits}, which is no number of JSON')
        return value

    try:
        return json.loads(text, parse_float=finite, parse_constant=finite)
    except RecursionError:
        raise ValueError('it is nested too deeply') from None


def read_json(path):
    """What a JSON file holds.

    Raises:
        OSError | ValueError: It cannot be read; is too large, no JSON, or nested too deeply; or holds NaN or infinity.
    """
    path = pathlib.Path(path)
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f'it has {size} bytes; expected at most {LARGEST_JSON}')
    return parse_json(path.read_text(encoding='utf-8'))


def read_object(path, what, next_step):
    """The dict in a JSON file.

    Args:
        what (str), next_step (str): What is expected, and what to do where it is something else, for the message.

    Raises:
        UserError: It cannot be read, or holds none.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read as {what}: {error}. Next: {next_step}.') from error
    if not isinstance(content, dict):
        raise UserError(f'{path} holds a {type(content).__name__}; expected {what}. Next: {next_step}.')
    return content


def without_html(text):
    """Markdown in which nothing is a tag: names from files come into reports, and a tag of theirs is not for a reader's
    browser."""
    return re.sub(r'<(?=[A-Za-z/!?])', '&lt;', text)


def markdown_table(header, rows):
    """A Markdown table, without HTML; columns of numbers stand to the right."""
    header, *rows = ([without_html(str(cell)).replace('\n', ' ') for cell in row] for row in (header, *rows))
    is_number = re.compile(r'[-+–\d*]|$').match
    rule = ['--:' if all(is_number(row[i]) for row in rows) else ':--' for i in range(len(header))]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in (header, rule, *rows))
