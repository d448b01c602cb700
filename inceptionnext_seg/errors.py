"""Errors that a user can cause and fix: one message, no traceback."""
import functools
import re
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P, R = ParamSpec('P'), TypeVar('R')


class UserError(RuntimeError):
    """Something the user can fix. The message names the thing, the value found, the value expected, the next step."""


class SettingError(UserError, ValueError):
    """A setting of a model has a value that it does not take: raised where the model is built."""


def quantity(count: int, noun: str, plural: str | None = None) -> str:
    """``1 image``, ``2 images``: a number and its noun, for messages."""
    return f'{count} {noun if count == 1 else plural or noun + "s"}'


def shown(path: object) -> str:
    """A path, or other text, that can be printed and written: bytes of a name that are no UTF-8 as ``\\xdf``."""
    text = re.sub('[\udc80-\udcff]', lambda byte: f'\\x{ord(byte[0]) - 0xdc00:x}', str(path))
    return text.encode('utf-8', 'backslashreplace').decode()


def exit_on_user_error(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate a tool's ``main``: a :class:`UserError` becomes ``error: message`` on stderr and exit code 2.

    Ctrl-C becomes one line and exit code 130, as from a shell.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f'error: {error}', file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print('interrupted', file=sys.stderr)
            sys.exit(130)

    return wrapped
