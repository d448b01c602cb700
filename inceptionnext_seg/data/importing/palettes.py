"""Names and colours of classes: files of them, those learned from masks, and distinct ones where nobody chose."""
import colorsys
import csv
import io
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import UserError
from ...files import parse_json

LARGEST_TEXT = 1 << 20
MOST_CLASSES = 255
NUMBERS = re.compile(r'\s*(\d{1,3})\s*[,;\s]\s*(\d{1,3})\s*[,;\s]\s*(\d{1,3})(?!\d)')
HELP = ('lines of "R G B name"; CVAT\'s labelmap.txt (name:R,G,B::); a CSV with the columns name, r, g, b; or JSON, '
        '{"name": [R, G, B], …}')


class Entry(NamedTuple):
    name: str
    color: tuple[int, int, int]


def read_text(path: Path) -> str:
    """The text of a small file.

    Raises:
        UserError: It cannot be read, or is too large.
    """
    try:
        if Path(path).stat().st_size > LARGEST_TEXT:
            raise UserError(f'{path} has {Path(path).stat().st_size} bytes; expected: at most {LARGEST_TEXT}')
        return Path(path).read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read as text: {error}. Next: check the path.') from error


def read_palette(path: Path) -> list[Entry]:
    """The classes of a palette file, in its order; a name can stand at several colours.

    Raises:
        UserError: It cannot be read, or a line of it is no colour and name.
    """
    text = read_text(path)
    stripped = text.lstrip()
    try:
        if stripped.startswith(('{', '[')):
            entries = from_json(parse_json(text))
        elif re.search(r'^\s*name\s*,', text, re.I | re.M):
            entries = from_csv(text)
        else:
            entries = [from_line(number, line) for number, line in enumerate(text.splitlines(), 1)
                       if line.split('#')[0].strip()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f'{path} is no palette: {error}. Expected: {HELP}.') from error
    colors = [entry.color for entry in entries]
    if not entries or len(set(colors)) < len(colors):
        twice = next((color for color in colors if colors.count(color) > 1), None)
        raise UserError(f'{path}: {f"the colour {twice} has two names" if twice else "no colour is in it"}. Expected: '
                        f'{HELP}, each colour once.')
    return entries


def from_line(number, line):
    line = line.split('#')[0].rstrip()
    color = NUMBERS.match(line)
    if color:
        name = line[color.end():].strip(' \t,;:')
    else:
        name, _, rest = line.partition(':')
        color = NUMBERS.match(rest)
        name = name.strip()
    if not color or not name:
        raise ValueError(f'line {number} is {line[:80]!r}')
    return Entry(name, checked_color(color.groups()))


def from_csv(text):
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    return [Entry(row['name'].strip(), checked_color([row[key] for key in 'rgb'])) for row in (
        {(key or '').strip().casefold(): value for key, value in row.items()} for row in rows)]


def from_json(content):
    if isinstance(content, dict) and isinstance(content.get('classes'), list) and 'palette' in content:
        return [Entry(str(name), checked_color(color)) for name, color in zip(
            content['classes'], content['palette'], strict=True)]
    if isinstance(content, dict):
        return [Entry(str(name), checked_color(color)) for name, color in content.items()]
    return [Entry(str(entry['name']), checked_color(entry['color'])) for entry in content]


def checked_color(color):
    color = tuple(int(channel) for channel in color)
    if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
        raise ValueError(f'{color} is no colour of three numbers from 0 to 255')
    return color


def read_classes(text: str) -> tuple[str, ...]:
    """Names of classes from an option: 'road,car', or the path of a file with one a line.

    Roboflow's ``_classes.csv`` (pixel value, class), Labelme's ``labels.txt`` and JSON lists are such files.

    Raises:
        UserError: There is none, or one twice.
    """
    path = Path(text)
    if path.suffix.lower() in ('.txt', '.csv', '.json', '.names') or is_file(path):
        content = read_text(path)
        if path.suffix.lower() == '.json':
            try:
                content = json.loads(content)
                content = content.get('classes') if isinstance(content, dict) else content
                names = [str(entry['name'] if isinstance(entry, dict) else entry) for entry in content]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UserError(f'{path} is no list of class names: {error}. Expected: ["road", "car"].') from error
        else:
            rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(content)) if any(row)]
            if rows and len(rows[0]) == 2 and rows[0][0].casefold().startswith('pixel'):
                rows = rows[1:]
            names = [row[1] if len(row) == 2 and row[0].isdecimal() else ','.join(row) for row in rows]
    else:
        names = [name.strip() for name in text.split(',')]
    names = [name for name in names if name]
    if not names or len(set(names)) < len(names) or len(names) > MOST_CLASSES:
        raise UserError(f'the classes {text!r} are {", ".join(names[:20]) or "none"}. Expected: 1 to {MOST_CLASSES} '
                        'names, each once, as in --classes road,car or a file with one a line.')
    return tuple(names)


def is_file(path):
    try:
        return path.is_file()
    except OSError:         # names, longer than those of files
        return False


def distinct_colors(count: int, taken=()) -> list[tuple[int, int, int]]:
    """Colours that are told apart, none of ``taken``: hues by the golden ratio, in three levels of brightness."""
    colors, i = [], 0
    while len(colors) < count:
        color = colorsys.hsv_to_rgb(i * 0.618034 % 1, (0.85, 0.55, 0.95)[i % 3], (0.9, 1.0, 0.6)[i // 2 % 3])
        color = tuple(round(255 * channel) for channel in color)
        if color not in colors and color not in taken:
            colors.append(color)
        i += 1
    return colors


def packed(pixels: np.ndarray) -> np.ndarray:
    """Colours (..., 3), uint8, as one int32 each."""
    pixels = pixels.astype(np.int32)
    return pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]


def unpacked(code: int) -> tuple[int, int, int]:
    return code >> 16 & 255, code >> 8 & 255, code & 255


def palette_text(colors: dict[int, int], images: dict[int, int], total_images: int, names: dict[int, str],
                 total: int) -> str:
    """A palette file for a person to edit: the colours found, the most frequent first."""
    lines = [
        '# The colours of the masks: "R G B name" a line. Write the names of your classes; the same name twice puts',
        '# two colours into one class, and the name "ignore" leaves a colour out of training and evaluation.',
    ]
    for code, pixels in sorted(colors.items(), key=lambda item: -item[1]):
        red, green, blue = unpacked(code)
        lines.append(f'{red:3} {green:3} {blue:3}  {names[code]:<20} # {100 * pixels / total:.2f} % of the pixels, in '
                     f'{images[code]} of {total_images} masks')
    return '\n'.join(lines) + '\n'
