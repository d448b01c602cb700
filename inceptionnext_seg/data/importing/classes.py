"""From what labels hold (values, colours, names) to class indices from 0, and 255 for pixels that do not count."""
import difflib
from typing import NamedTuple

import numpy as np

from ...errors import UserError, quantity, shown
from .options import BACKGROUND, BACKGROUND_NAMES, IGNORE, IGNORE_NAMES, Options
from .palettes import MOST_CLASSES, Entry, distinct_colors, palette_text, unpacked
from .samples import Classes, Survey
from .tree import is_utf8

# Colours of a mask that a person chose; more are those of a lossy or smoothed picture.
MOST_COLORS = 64
LEAST_SHARE = 0.001
# Less of the pixels of black and white masks are strays: 255 beside few others may as well be a border.
STRAY_SHARE = 0.02
# A note says that 255 is left out of training from this share on; of PASCAL VOC it has 5 %.
LARGE_SHARE = 0.2
# How far the colours of a smoothed or lossy mask are from the one that was meant, in most of its pixels.
SMOOTHED, PEAK = 40, 8


INDICES = ', since the palettes of their files differ (--format index takes the indices, whatever their colours)'


class Unconfirmed(UserError):
    """Colours were learned from the masks, and nobody has said that they are the classes.

    Attributes:
        text (str): A palette file of them.
        tolerance (int): The one that the masks need with it.
        left_out (list): Files that cannot be taken, which the report of an import would name.
    """

    def __init__(self, message: str, text: str, tolerance: int = 0) -> None:
        super().__init__(message)
        self.text, self.tolerance, self.left_out = text, tolerance, []


class Meaning(NamedTuple):
    """One integer of the labels: its class by name, and its colour where one is known."""
    code: int
    name: str
    color: tuple[int, int, int] | None = None


def build(meanings: list[Meaning], options: Options, ignored: tuple[int, ...] = ()) -> Classes:
    """Classes in the order in which their names first occur, after ``options.rename``.

    Raises:
        UserError: None or too many are left, or a name is no text.
    """
    known = frozenset(meaning.name for meaning in meanings)
    for name in known:
        if not is_utf8(name):
            raise UserError(f'the class {shown(name)!r} has a name that is no text. Next: give it another.')
    names, colors, table = [], [], dict.fromkeys(ignored, IGNORE)
    for meaning in meanings:
        name = options.rename.get(meaning.name, meaning.name)
        if name.casefold() in IGNORE_NAMES:
            table[meaning.code] = IGNORE
            continue
        if name not in names:
            names.append(name)
            colors.append(meaning.color)
        table[meaning.code] = names.index(name)
    if not names or len(names) > MOST_CLASSES:
        raise UserError(f'the labels have {len(names)} classes; expected: 1 to {MOST_CLASSES}')
    taken = {color for color in colors if color}
    free = iter(distinct_colors(len(names), taken))
    return Classes(tuple(names), [color if color else next(free) for color in colors], table, (), known)


def require_known(options: Options, known: set[str]) -> None:
    """Raises UserError where a name to rename is that of no class."""
    for old in options.rename:
        if old not in known:
            near = difflib.get_close_matches(old, known, 1)
            raise UserError(
                f'--rename {old}=…: no class has this name{f"; did you mean {near[0]!r}?" if near else "."} '
                f'Found: {", ".join(sorted(known)[:20])}.'
            )


def classes_of_values(survey: Survey, options: Options, lossy: bool = False) -> Classes:
    """Of index masks. 255 does not count, but in masks of 0 and 255 alone, where it is the second class.

    Args:
        lossy (bool): Whether masks are stored with loss, as JPEG files.

    Raises:
        UserError: The values do not fit the names; says both ways on where 0 may mean "not labelled". Or they are those
            of black and white masks that were smoothed, or have a few pixels of other greys; or more than were meant.
    """
    values = sorted(survey.pixels)
    zero = (0, ) if options.reduce_zero_label else ()
    if not zero and len(options.classes or (0, 0)) == 2 and (
            is_smoothed_black_and_white(survey) or has_strays(survey, options)):
        return classes_of_black_and_white(survey, options)
    if values == [0, 255] and not zero:
        if options.classes and len(options.classes) != 2:
            raise UserError(
                f'the masks hold 0 and 255, and --classes names {len(options.classes)}. Expected: two names, for 0 and '
                'for 255. Next: --classes background,NAME.')
        names = options.classes or (BACKGROUND, 'foreground')
        return build([Meaning(0, names[0]), Meaning(255, names[1])], options)
    own, count = {*values} - {IGNORE}, len(options.classes or ())
    fit = max(own, default=0) <= count or len(own) == count
    if (lossy or len(values) > MOST_COLORS) and options.format != 'index' and max(values) < 256 and not fit:
        raise more_values_than_meant(survey, lossy)
    classes = numbered(survey, options, zero)
    return classes._replace(notes=(*classes.notes, *note_on_255(survey, options, zero)))


def more_values_than_meant(survey: Survey, lossy: bool) -> UserError:
    """Of grey masks that were smoothed or stored with loss: their values are classes and the mixtures between them."""
    total = sum(survey.pixels.values())
    peaks = clustered({value * 0x10101: pixels for value, pixels in survey.pixels.items() if value < 256},
                      LEAST_SHARE * total)
    lines = [f'"{" ".join([str(code & 255)] * 3)} NAME"' for code in sorted(peaks)]
    return UserError(
        f'the masks{" are JPEG files, which store values with loss, and" * lossy} hold {len(survey.pixels)} values, '
        f'around {quantity(len(peaks), "grey")}. Expected: a value for each class. Next: where these greys are the '
        f'classes, --tolerance {SMOOTHED} and --palette FILE with the lines {", ".join(lines[:8])}'
        f'{" …" * (len(lines) > 8)}. Where each value is a class: --format index.')


def note_on_255(survey, options, zero):
    """The note on what 255 leaves out of training, where that is much, or values are greys rather than indices."""
    share = survey.pixels.get(IGNORE, 0) / sum(survey.pixels.values())
    values = [value for value in sorted(survey.pixels) if value != IGNORE and value not in zero]
    most = len(values) if options.classes is None else len(options.classes)
    said = share > LARGE_SHARE or (share > 0 and max(values) > most)
    return (f'255 has {100 * share:.1f} % of the pixels, and does not count. If it is a class: --palette FILE with a '
            'line for each value, such as "255 255 255 NAME"', ) * said


def numbered(survey, options, zero):
    """Classes of values that are class indices, in order; 255 does not count."""
    values = [value for value in sorted(survey.pixels) if value != IGNORE and value not in zero]
    if not values:
        raise UserError('no pixel of any mask is labelled: they hold only '
                        f'{" and ".join(map(str, sorted(survey.pixels)))}, which does not count. Next: look at them.')
    if options.classes is None:
        return build([Meaning(value, f'class_{value}') for value in values], options, (IGNORE, *zero))
    names, first, notes = options.classes, int(bool(zero)), ()
    listed = f'{", ".join(map(str, values[:30]))}{" …" if len(values) > 30 else ""}'
    if max(values) < len(names) + first and (first == 0 or min(values) >= 1):
        if first == 0 and min(values) >= 1:
            notes = (f'no mask has 0, which is taken for {names[0]!r}. If 1 is {names[0]!r}: --reduce-zero-label', )
    elif min(values) >= 1 and max(values) <= len(names):
        first = 1
    elif len(values) == len(names) and max(values) > len(names):
        return build([Meaning(*pair) for pair in zip(values, names, strict=True)], options, (IGNORE, *zero))
    else:
        count, white = len(names), IGNORE in survey.pixels
        listed += ', and 255, which does not count' * white
        hint = (
            f' Where 0 means "not labelled" and 1 is {names[0]!r}, as in ADE20K: --reduce-zero-label. Where it is a '
            f'class: name it first, --classes background,{names[0]},…'
            if 0 in values and max(values) == count
            else f' Where 255 is a class: --palette FILE with the lines {greys(values, names)}.'
            if white and len(values) + 1 == count
            else ' Next: give --classes a name for each, in the order of the values; 255 needs none.'
        )
        raise UserError(f'the masks hold the values {listed}, and --classes names {count}: {", ".join(names[:20])}. '
                        f'Expected: 0 to {count - 1}, 1 to {count}, or {count} values.{hint}')
    return build([Meaning(i + first, name) for i, name in enumerate(names)], options, (IGNORE, *zero))._replace(
        notes=notes)


def greys(values, names):
    """Lines of a palette in which 255 is the last class."""
    return ', '.join(f'"{value} {value} {value} {name}"' for value, name in zip((*values, IGNORE), names, strict=True))


def is_smoothed_black_and_white(survey: Survey) -> bool:
    """Whether grey masks were black and white, and then smoothed or stored as JPEG: many greys, near both ends."""
    pixels, total = survey.pixels, sum(survey.pixels.values())
    frequent = sorted(pixels, key=pixels.get)[-2:]
    near = sum(count for value, count in pixels.items() if min(value, 255 - value) < 64)
    return (sorted(frequent) == [0, 255] and len(pixels) > 8 and max(pixels) == 255 and near >= 0.9 * total
            and any(0 < value < 64 for value in pixels) and any(192 <= value < 255 for value in pixels))


def has_strays(survey: Survey, options: Options) -> bool:
    """Whether grey masks are black and white but for a few pixels, which need not be class indices.

    Values from 1 on without a gap may be rare classes beside a border of 255: then fewer pixels are strays.
    ``format='index'`` says that all are indices.
    """
    if options.format == 'index' and not options.tolerance:
        return False
    between = between_black_and_white(survey)
    frequent = sorted(survey.pixels, key=survey.pixels.get)[-2:]
    without_gap = sorted(between) == [*range(1, 1 + len(between))]
    return (bool(between) and sorted(frequent) == [0, 255] and sum(between.values()) < sum(survey.pixels.values()) * (
        LEAST_SHARE if without_gap else STRAY_SHARE))


def between_black_and_white(survey):
    return {value: pixels for value, pixels in survey.pixels.items() if value not in (0, 255)}


def classes_of_black_and_white(survey, options):
    between = between_black_and_white(survey)
    if not options.tolerance:
        smoothed = is_smoothed_black_and_white(survey)
        what = 'black and white masks ' + (
            'that were smoothed, or stored with loss as a JPEG' if smoothed else
            f'with {quantity(sum(between.values()), "pixel")} of {", ".join(map(str, sorted(between)[:8]))}')
        other = ('If each value is a class: --classes with a name for each.' if smoothed else
                 'If they are class indices, and 255 does not count: --format index.')
        raise UserError(
            f'the masks hold {len(survey.pixels)} values, and '
            f'{100 - 100 * sum(between.values()) / sum(survey.pixels.values()):.2f} % of their pixels are 0 or 255: '
            f'{what}. Next: --tolerance 127 takes the nearer of 0 and 255. {other}')
    names = options.classes or (BACKGROUND, 'foreground')
    far = {value: pixels for value, pixels in between.items() if min(value, 255 - value) > options.tolerance}
    classes = build([Meaning(0, names[0]), Meaning(255, names[1])], options, tuple(far))
    for value in between.keys() - far.keys():
        classes.table[value] = classes.table[255 if value > 127 else 0]
    return classes._replace(notes=left_between(far, survey, options))


def left_between(far, survey, options):
    """The note on pixels at borders that a tolerance leaves out."""
    share = 100 * sum(far.values()) / sum(survey.pixels.values())
    return (f'{share:.2f} % of the pixels are more than {options.tolerance} away from every class, as at smoothed '
            'borders: they do not count', ) if far else ()


def clustered(pixels: dict[int, int], least: float) -> dict[int, int]:
    """The colours that smoothed or lossy masks were meant to have, the most frequent first, and the pixels near each.

    Each is a peak: at least ``least`` pixels are at most ``PEAK`` away, which mixtures at borders do not reach, and it
    is not near a more frequent one.
    """
    order = np.array(sorted(pixels, key=lambda code: -pixels[code]))
    counts = np.array([pixels[code] for code in order.tolist()])
    colors = np.stack([order >> 16 & 255, order >> 8 & 255, order & 255], 1)
    nearest, place = np.full(len(order), 256), np.zeros(len(order), int)
    kept = []
    for i in np.flatnonzero(counts >= least / 50).tolist():
        if kept and nearest[i] <= SMOOTHED:
            continue
        away = np.abs(colors - colors[i]).max(1)
        if not kept or counts[away <= PEAK].sum() >= least:
            place[away < nearest] = len(kept)
            nearest = np.minimum(nearest, away)
            kept.append(int(order[i]))
    near = nearest <= SMOOTHED
    return dict(zip(kept, np.bincount(place[near], counts[near], len(kept)).astype(int).tolist(), strict=True))


def classes_of_colors(survey: Survey, options: Options, palette: list[Entry] | None,
                      may_be_indices: bool = False) -> Classes:
    """Of colour masks: by a palette, or by the colours that they have, which a person has to confirm.

    Args:
        may_be_indices (bool): Whether only the masks' palettes, which differ, show that they are colours.

    Raises:
        Unconfirmed: There is no palette.
        UserError: The masks have colours that are not in it, or ``options.classes`` does not fit.
    """
    total = sum(survey.pixels.values())
    if palette is None:
        many = len(survey.pixels) > MOST_COLORS
        colors = clustered(survey.pixels, LEAST_SHARE * total) if many else survey.pixels
        names = {code: 'color_{:02x}{:02x}{:02x}'.format(*unpacked(code)) for code in colors}
        if options.classes is not None:
            return build(of_two_colors(colors, options), options)
        if options.accept and not many:
            return build([Meaning(code, name, unpacked(code)) for code, name in sorted(names.items())], options)
        what = (f'the masks have {len(survey.pixels)} colours: they were smoothed, or stored with loss as a JPEG. The '
                f'{len(colors)} around which they are, at most {SMOOTHED} away,' if many else
                f'the masks have {quantity(len(colors), "colour")}{INDICES if may_be_indices else ""}; these')
        raise Unconfirmed(what, palette_text(colors, survey.images, survey.labelled, names, total),
                          SMOOTHED if many else 0)
    meanings = [Meaning(red << 16 | green << 8 | blue, name, (red, green, blue))
                for name, (red, green, blue) in palette]
    meanings = in_order_of_names(meanings, options)
    known, exact = np.array([meaning.color for meaning in meanings]), {meaning.code for meaning in meanings}
    unknown, near = {}, {}
    for code, pixels in survey.pixels.items():
        if code in exact:
            continue
        away = np.abs(known - unpacked(code)).max(1)
        if away.min() <= options.tolerance:
            near[code] = meanings[int(away.argmin())].code
        else:
            unknown[code] = pixels
    far = {}
    if options.tolerance and is_of_borders(unknown, total):
        far, unknown = unknown, {}
    if unknown:
        first = sorted(unknown.items(), key=lambda item: -item[1])[:8]
        listed = '\n  '.join(f'{" ".join(map(str, unpacked(code)))}  # {100 * pixels / total:.3f} % of the pixels'
                             for code, pixels in first)
        raise UserError(
            f'the masks have {len(unknown)} colours that {options.palette} does not, '
            f'{100 * sum(unknown.values()) / total:.2f} '
            f'% of the pixels:\n  {listed}\nNext: add them to it, with the name of a class or "ignore"; or take the '
            'nearest colour where masks were smoothed or stored as JPEG, --tolerance 40.'
            + (' If these greys are class indices: leave --palette out, and give --classes.'
               if all(len({*unpacked(code)}) == 1 for code in survey.pixels) else '')
        )
    classes = build(meanings, options, tuple(far))
    for code, other in near.items():
        classes.table[code] = classes.table[other]
    return classes._replace(notes=left_between(far, survey, options))


def of_two_colors(colors, options):
    """The classes of black and another colour, where one of two names is the background; other names fit no colour.

    Raises:
        UserError: They are others.
    """
    names = options.classes
    black = [name for name in names if name.casefold() in BACKGROUND_NAMES]
    if len(colors) == len(names) == 2 and len(black) == 1 and 0 in colors:
        other = max(colors)
        codes = [0 if name in black else other for name in names]
        return [Meaning(code, name, unpacked(code)) for code, name in zip(codes, names, strict=True)]
    first = sorted(colors, key=lambda code: -colors[code])[:8]
    listed = ', '.join(' '.join(map(str, unpacked(code))) for code in first)
    raise UserError(
        f'the masks have {quantity(len(colors), "colour")}, {listed}{" …" * (len(colors) > 8)}, and nothing says '
        f'which is which of --classes {", ".join(names[:20])}. Expected: --palette FILE with lines of "R G B name". '
        'Next: give the command without --classes, which writes such a file of these colours, and name them in it.')


def in_order_of_names(meanings, options):
    """The classes of a palette in the order of ``options.classes``, where it is given.

    Raises:
        UserError: It has other names.
    """
    if options.classes is None:
        return meanings
    own = {meaning.code: options.rename.get(meaning.name, meaning.name) for meaning in meanings}
    found = dict.fromkeys(name for name in own.values() if name.casefold() not in IGNORE_NAMES)
    if {*found} != {*options.classes}:
        raise UserError(f'--classes names {", ".join(options.classes[:20])}, and {options.palette} '
                        f'{", ".join([*found][:20])}. Expected: the same names, in an order of yours. Next: leave '
                        '--classes out, or --rename OLD=NEW.')
    order = [*options.classes]
    return sorted(meanings, key=lambda meaning: order.index(own[meaning.code]) if own[meaning.code] in order else -1)


def is_of_borders(pixels, total):
    """Whether colours are mixtures at smoothed borders: few pixels, spread over many colours. A class is neither."""
    return sum(pixels.values()) < 0.1 * total and max(pixels.values(), default=0) < LEAST_SHARE * total


def classes_of_names(survey: Survey, options: Options, names: list[str], colors: dict[str, tuple]) -> Classes:
    """Of shapes: -1 is a pixel under none, others are indices in ``names``. Background is the first class.

    Raises:
        UserError: A name is not among ``--classes``.
    """
    renamed = {name: options.rename.get(name, name) for name in names}
    order = list(names) if options.classes is None else [*options.classes]
    if options.classes is not None:
        unknown = sorted({new for new in renamed.values() if new not in options.classes
                          and new.casefold() not in (*IGNORE_NAMES, *BACKGROUND_NAMES)})
        if unknown:
            near = difflib.get_close_matches(unknown[0], options.classes, 1) or ['ignore']
            raise UserError(f'labels that --classes does not name: {", ".join(map(repr, unknown[:10]))}. Expected: '
                            f'{", ".join(options.classes)}. Next: add them, or --rename "{unknown[0]}={near[0]}".')
    background = next((name for name in order if name.casefold() in BACKGROUND_NAMES), BACKGROUND)
    meanings = []
    wanted = options.unlabelled
    if wanted.casefold() in BACKGROUND_NAMES:
        wanted = background
    if wanted.casefold() not in IGNORE_NAMES and wanted not in order:
        if wanted != background:
            raise UserError(f'--unlabelled {wanted}: no class has this name. Expected: background, ignore, or one of '
                            f'{", ".join(order[:20])}.')
        if -1 in survey.pixels:
            meanings.append(Meaning(-1, BACKGROUND, (0, 0, 0)))
    if options.classes is not None:     # in their order, whether seen or not
        meanings += [Meaning(-2 - i, name, colors.get(name)) for i, name in enumerate(options.classes)]
    found = [Meaning(i, background if name.casefold() in BACKGROUND_NAMES else name, colors.get(name))
             for i, name in enumerate(names)]
    meanings += sorted(found, key=lambda meaning: meaning.name != background)
    if -1 in survey.pixels and not any(meaning.code == -1 for meaning in meanings):
        meanings.append(Meaning(-1, wanted))
    return build(meanings, options)


def alike(names) -> list[str]:
    """Lines about names that differ in case, spaces or underscores alone: most often a slip of the person who
    labelled.
    """
    seen, lines = {}, []
    for name in names:
        key = name.casefold().replace(' ', '').replace('_', '').replace('-', '')
        if key in seen:
            lines.append(f'the classes {seen[key]!r} and {name!r} are told apart. If they are one: '
                         f'--rename "{name}={seen[key]}"')
        seen.setdefault(key, name)
    return lines
