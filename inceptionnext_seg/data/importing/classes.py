"""From what labels hold (values, colours, names) to class indices from 0, and 255 for pixels that do not count."""
import difflib
from typing import NamedTuple

import numpy as np

from ...errors import UserError
from .options import BACKGROUND, BACKGROUND_NAMES, IGNORE, IGNORE_NAMES, Options
from .palettes import MOST_CLASSES, Entry, distinct_colors, palette_text, unpacked
from .samples import Classes, Survey

# Colours of a mask that a person chose; more are those of a lossy or smoothed picture.
MOST_COLORS = 64
LEAST_SHARE = 0.001


class Unconfirmed(UserError):
    """Colours were learned from the masks, and nobody has said that they are the classes.

    Attributes:
        text (str): A palette file of them.
    """

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


class Meaning(NamedTuple):
    """One integer of the labels: its class by name, and its colour where one is known."""
    code: int
    name: str
    color: tuple[int, int, int] | None = None


def build(meanings: list[Meaning], options: Options, ignored: tuple[int, ...] = ()) -> Classes:
    """Classes in the order in which their names first occur, after ``options.rename``.

    Raises:
        UserError: None or too many are left; a name to rename does not occur.
    """
    known = {meaning.name for meaning in meanings}
    for old in options.rename:
        if old not in known:
            near = difflib.get_close_matches(old, known, 1)
            raise UserError(
                f'--rename {old}=…: no class has this name{f"; did you mean {near[0]!r}?" if near else ""}. '
                f'Found: {", ".join(sorted(known)[:20])}.'
            )
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
    return Classes(tuple(names), [color if color else next(free) for color in colors], table)


def classes_of_values(survey: Survey, options: Options) -> Classes:
    """Of index masks. 255 does not count, but in masks of 0 and 255 alone, where it is the second class.

    Raises:
        UserError: The values do not fit the names; says both ways on where 0 may mean "not labelled".
    """
    values = sorted(survey.pixels)
    zero = (0, ) if options.reduce_zero_label else ()
    if values == [0, 255] and not zero:
        if options.classes and len(options.classes) != 2:
            raise UserError(
                f'the masks hold 0 and 255, and --classes names {len(options.classes)}. Expected: two names, for 0 and '
                'for 255. Next: --classes background,NAME; --rename background=ignore leaves 0 out.')
        names = options.classes or (BACKGROUND, 'foreground')
        return build([Meaning(0, names[0]), Meaning(255, names[1])], options)
    values = [value for value in values if value != IGNORE and value not in zero]
    if not values:
        raise UserError('no pixel of any mask is labelled: they hold only 0 or 255.')
    if options.classes is None:
        return build([Meaning(value, f'class_{value}') for value in values], options, (IGNORE, *zero))
    names, first = options.classes, int(bool(zero))
    shown = f'{", ".join(map(str, values[:30]))}{" …" if len(values) > 30 else ""}'
    if max(values) < len(names) + first and (first == 0 or min(values) >= 1):
        pass
    elif min(values) >= 1 and max(values) <= len(names):
        first = 1
    elif len(values) == len(names) and max(values) > len(names):
        return build([Meaning(*pair) for pair in zip(values, names, strict=True)], options, (IGNORE, *zero))
    else:
        count = len(names)
        hint = (
            f' Where 0 means "not labelled" and 1 is {names[0]!r}, as in ADE20K: --reduce-zero-label. Where it is a '
            f'class: name it first, --classes background,{names[0]},…'
            if 0 in values and max(values) == count
            else ' Next: give --classes a name for each, in the order of the values; 255 needs none.'
        )
        raise UserError(f'the masks hold the values {shown}, and --classes names {count}: {", ".join(names[:20])}. '
                        f'Expected: 0 to {count - 1}, 1 to {count}, or {count} values.{hint}')
    return build([Meaning(i + first, name) for i, name in enumerate(names)], options, (IGNORE, *zero))


def classes_of_colors(survey: Survey, options: Options, palette: list[Entry] | None) -> Classes:
    """Of colour masks: by a palette, or by the colours that they have, which a person has to confirm.

    Raises:
        Unconfirmed: There is no palette.
        UserError: The masks have colours that are not in it.
    """
    total = sum(survey.pixels.values())
    if palette is None:
        many = len(survey.pixels) > MOST_COLORS
        colors = {code: pixels for code, pixels in survey.pixels.items() if not many or pixels >= LEAST_SHARE * total}
        names = {code: 'color_{:02x}{:02x}{:02x}'.format(*unpacked(code)) for code in colors}
        if options.accept and not many:
            if options.classes and len(options.classes) != len(colors):
                raise UserError(f'the masks have {len(colors)} colours, and --classes names {len(options.classes)}. '
                                'Next: leave out --yes, name the colours in the palette file that is then written, and '
                                'give it as --palette.')
            return build([Meaning(code, name, unpacked(code)) for code, name in sorted(names.items())], options)
        what = (f'the masks have {len(survey.pixels)} colours: they were smoothed, or stored with loss as a JPEG. The '
                f'{len(colors)} that at least {100 * LEAST_SHARE:g} % of the pixels have' if many else
                f'the masks have {len(colors)} colours; these')
        raise Unconfirmed(what, palette_text(colors, survey.images, survey.labelled, names))
    meanings = [Meaning(red << 16 | green << 8 | blue, name, (red, green, blue))
                for name, (red, green, blue) in palette]
    known, exact = np.array([entry.color for entry in palette]), {meaning.code for meaning in meanings}
    unknown, near = {}, {}
    for code, pixels in survey.pixels.items():
        if code in exact:
            continue
        away = np.abs(known - unpacked(code)).max(1)
        if away.min() <= options.tolerance:
            near[code] = meanings[int(away.argmin())].code
        else:
            unknown[code] = pixels
    if unknown:
        first = sorted(unknown.items(), key=lambda item: -item[1])[:8]
        listed = '\n  '.join(f'{" ".join(map(str, unpacked(code)))}  # {100 * pixels / total:.3f} % of the pixels'
                             for code, pixels in first)
        raise UserError(
            f'the masks have {len(unknown)} colours that {options.palette} does not, '
            f'{100 * sum(unknown.values()) / total:.2f} '
            f'% of the pixels:\n  {listed}\nNext: add them to it, with the name of a class or "ignore"; or take the '
            'nearest colour where masks were smoothed or stored as JPEG, --tolerance 40.'
        )
    classes = build(meanings, options)
    for code, other in near.items():
        classes.table[code] = classes.table[other]
    return classes


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
