"""One training at a time in a work_dir: two would write over each other's checkpoints without a word.

The lock is the kernel's, of a process (POSIX), so that it is gone with the process however that ended, its children do
not have it, and most disks that machines share know it too. Where there is none, nothing is locked.
"""
import errno
import os
import socket
from pathlib import Path

from mmengine.dist import get_rank

from ..errors import UserError

try:
    import fcntl
except ImportError:     # Windows
    fcntl = None

NAME = '.training'
HELD_BY_ANOTHER = (errno.EACCES, errno.EAGAIN)  # fcntl(2)


def occupy(work_dir):
    """Lock a folder for the training of this process, the main one of a run, until the file is closed.

    Returns:
        TextIO | None: The file; None in other processes, and where nothing can be locked.

    Raises:
        UserError: Another process trains there.
    """
    if fcntl is None or get_rank() != 0 or '://' in str(work_dir):
        return None
    path = Path(work_dir) / NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open('a+', encoding='utf-8', errors='replace')
    except OSError:
        return None     # the first file that the run itself writes says it better
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(f'pid {os.getpid()} on {socket.gethostname()}')
        file.flush()
    except OSError as error:
        if error.errno not in HELD_BY_ANOTHER:
            return file
        file.seek(0)
        with file:
            raise UserError(
                f'work_dir {work_dir} has a training that is not over ({file.read(200) or "its process is unknown"}), '
                'and two would write over each other\'s checkpoints. Expected: a folder of its own for each. Next: '
                f'another --work-dir; or end the other; or, if that is gone with its machine, remove {path}.') from None
    return file
