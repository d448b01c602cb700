"""Result files that a study goes on with, on the machine and with the versions that they were begun with."""
from pathlib import Path

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import read_object

SAME = ('cpu', 'cpu_cores', 'device_name', 'versions')


def content_of(path, what, now, new, same=SAME):
    """The content of a result file, or ``new`` where there is none.

    Args:
        what (str): What the file is, such as 'a result of studies.speed'.
        now, same: As in :func:`require_same`.

    Raises:
        UserError: The file is no such result, or of another machine, or of other versions.
    """
    if not Path(path).is_file():
        return new
    result = read_object(path, what, 'another --out')
    require_same(path, result.get('environment', {}), now, same)
    return result


def require_same(path, before, now, same=SAME):
    """Refuse to add to a result file what would not mix with it.

    Args:
        before, now (dict): :func:`inceptionnext_seg.provenance.environment` of the file, and as it is now.
        same (Sequence[str]): What of it has to be as it was.

    Raises:
        UserError: It is not.
    """
    for key in same:
        if before.get(key) != now[key]:
            raise UserError(f'{path} was measured with {key} {before.get(key)!r}, and this is {now[key]!r}. '
                            'Next: another --out, or delete the file.')
