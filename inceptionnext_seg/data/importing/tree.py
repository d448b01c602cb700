"""The files below a folder that somebody gave us, and names of them that other files hold.

A name in an annotation file is looked up among the files that were found by walking, and never joined to a path: no
``../../etc/passwd`` leads anywhere.
"""
import os
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...errors import UserError, shown

PICTURES = ('.bmp', '.gif', '.jfif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
UNREAD_PICTURES = ('.arw', '.avif', '.cr2', '.cr3', '.dng', '.heic', '.heif', '.jp2', '.jxl', '.nef', '.orf', '.psd',
                   '.raf', '.raw', '.rw2')
# What archives and file managers leave behind.
LITTER = ('__macosx', 'thumbs.db', 'desktop.ini')
CHECK_PAGE, CHECK_SHEET = 'check.html', 'check.png'     # of `inceptionnext-seg check`
NO_UTF8 = 'has a name that is no UTF-8. Next: rename it (convmv -f latin1 -t utf8 -r --notest FOLDER)'


class LeftOut(NamedTuple):
    """A file that is not imported: its path below the source, and why, as the end of a sentence."""
    path: str
    reason: str


class Tree:
    """What a source folder holds.

    Args:
        root (str | Path): The folder.
        follow_links (bool): Whether symbolic links that lead out of it are followed. They never are to folders.

    Attributes:
        root (Path): The folder, without links.
        files (list[str]): Paths below it, with '/', sorted; none hidden.
        left_out (list[LeftOut]): Files that cannot be taken, and why.

    Raises:
        UserError: It is no folder, has a name that is no UTF-8, or cannot be read.
    """

    def __init__(self, root: str | Path, follow_links: bool = False) -> None:
        if not Path(root).is_dir():
            raise UserError(f'the source {Path(root).absolute()} is no folder. Expected: a folder with images and what '
                            'was labelled in them. Next: check the path; unpack archives first.')
        self.root, self.files, self.left_out = Path(root).resolve(), [], []
        require_utf8(self.root)

        def refuse(error):
            raise UserError(f'the folder {error.filename} cannot be read: {error.strerror}.') from error

        for folder, below, names in os.walk(self.root, onerror=refuse):
            for name in [name for name in below if Path(folder, name).is_symlink()]:
                self.leave_out(
                    Path(folder, name),
                    'is a symbolic link to a folder, which is not followed. Next: import '
                    'that folder, or put it in the place of the link',
                )
            for name in [name for name in below if not is_utf8(name) and not Path(folder, name).is_symlink()]:
                self.leave_out(Path(folder, name), NO_UTF8)
            below[:] = sorted(name for name in below if not is_litter(name) and is_utf8(name)
                              and not Path(folder, name).is_symlink())
            for name in sorted(without_check(names)):
                path = Path(folder, name)
                if is_litter(name):
                    continue
                if not is_utf8(name):
                    self.leave_out(path, NO_UTF8)
                elif path.is_symlink() and not path.exists():
                    self.leave_out(path, f'is a symbolic link to {path.readlink()}, which is not there')
                elif path.is_symlink() and not (follow_links or path.resolve().is_relative_to(self.root)):
                    self.leave_out(path, 'is a symbolic link that leads out of the source. Next: --follow-links if '
                                   'that is meant')
                elif not path.is_file():
                    self.leave_out(path, 'is no plain file')
                elif path.suffix.lower() in UNREAD_PICTURES:
                    self.leave_out(path, f'is a {path.suffix} file, which cannot be read. Next: convert it (mogrify '
                                   f'-format jpg "*{path.suffix}")')
                else:
                    self.files.append(path.relative_to(self.root).as_posix())
        self.by_name = defaultdict(list)
        for file in self.files:
            self.by_name[PurePosixPath(file).name.casefold()].append(file)

    def leave_out(self, path, reason):
        self.left_out.append(LeftOut(shown(Path(path).relative_to(self.root).as_posix()), shown(reason)))

    def drop(self, chosen: Callable[[str], bool]) -> None:
        """Take files out."""
        self.files = [file for file in self.files if not chosen(file)]
        self.by_name = {name: kept for name, files in self.by_name.items()
                        if (kept := [file for file in files if not chosen(file)])}

    def pictures(self) -> list[str]:
        """The files that are pictures by their names."""
        return [file for file in self.files if file.lower().endswith(PICTURES)]

    def with_suffix(self, *suffixes: str) -> list[str]:
        return [file for file in self.files if file.lower().endswith(suffixes)]

    def path(self, file: str) -> Path:
        return self.root / file

    def find(self, name: str, near: str = '') -> str:
        """The file that a name in another file means: the same last part, and as many of the parts before it as agree.

        Names of a list in a file are judged together, by :func:`.naming.settled`.

        Args:
            name (str): As found, untrusted: relative, of another machine, with backslashes, in another case.
            near (str): The file that holds the name, below the root: of several, the one beside it is meant, and then
                the one that is written alike, capitals included.

        Raises:
            LookupError: There is none, or several; says which.
        """
        parts, exact = parts_of(str(name)), parts_of(str(name), str)
        found = self.by_name.get(parts[-1], []) if parts else []

        def agreement(file):
            return (agreeing(PurePosixPath(file.casefold()).parts, parts), shared_folders(file, near),
                    agreeing(PurePosixPath(file).parts, exact))

        if not found:
            raise LookupError(f'names the image {str(name)[:200]!r}, which is not in the source')
        best = max(map(agreement, found))
        chosen = [file for file in found if agreement(file) == best]
        if len(chosen) > 1:
            raise LookupError(f'names the image {str(name)[:200]!r}, which may be any of {", ".join(chosen[:3])}')
        return chosen[0]


def parts_of(name: str, folded=str.casefold) -> list[str]:
    """The folders and the last part of a path of any machine."""
    return [part for part in re.split(r'[/\\]', folded(name)) if part not in ('', '.', '..')]


def agreeing(own, parts) -> int:
    """How many parts two paths share, from the last on."""
    return next((i for i, (a, b) in enumerate(zip(reversed(own), reversed(parts), strict=False)) if a != b),
                min(len(own), len(parts)))


def is_utf8(name: str | Path) -> bool:
    """Whether a path is text, which can be written into other files."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def require_utf8(path: Path) -> None:
    """Raises UserError for a folder whose name is no UTF-8."""
    if not is_utf8(path):
        raise UserError(f'the folder {shown(path)} {NO_UTF8}.')


def is_litter(name):
    return name.startswith('.') or name.casefold() in LITTER


def without_check(names: list[str]) -> list[str]:
    """The names in a folder but for what `check` wrote into it, whose overlays are no image of the data."""
    return [name for name in names if name not in (CHECK_PAGE, CHECK_SHEET)] if CHECK_PAGE in names else names


def shared_folders(file: str, other: str) -> int:
    """How many folders two paths share, from the root on."""
    first, second = PurePosixPath(file).parts[:-1], PurePosixPath(other).parts[:-1]
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
