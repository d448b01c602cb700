"""Errors that a user can cause and mend: one message, no traceback."""
import functools
import sys


class UserError(RuntimeError):
    """Something the user can mend. The message names the thing, the value found, the value wanted and the next step."""


def exit_on_user_error(main):
    """Decorate a tool's ``main``: a :class:`UserError` becomes ``error: message`` on stderr and exit code 2.

    Ctrl-C becomes one line and exit code 130, as from a shell.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f'error: {error}', file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print('interrupted', file=sys.stderr)
            sys.exit(130)

    return wrapped
