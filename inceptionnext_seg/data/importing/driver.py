"""From sources to a data set: read everything, decide what it means, split, write."""
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import UserError, quantity
from ..description import Description
from .classes import Unconfirmed, alike, require_known
from .formats import FORMATS, format_of, require_used
from .options import IGNORE, Options
from .predictions import leave_predictions_out
from .report import Report, class_notes
from .splits import TEST, TRAINING, UNLABELLED, VALIDATION, Labelled, require_both, split
from .surveying import Found, copies, look_alike, look_at_all, survey_of
from .tree import LeftOut, Tree
from .uniting import (
    Part,
    entries_of,
    formats_in_words,
    labels_of,
    note_on_same,
    options_for,
    same_images,
    united,
)
from .writing import Output, names_of, require_empty, source_facts, suffix_for, write


def import_dataset(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    options: Options | None = None,
    command: list[str] | None = None,
    progress: bool = True,
) -> Report:
    """Read the images and labels of a folder, or of several, and write them as a data set that trains.

    Args:
        source (str | Path | Sequence): The folder; or several, whose classes are united by their names. An image that
            several have is taken once, with the labels of the last that has any.
        out (str | Path): The folder to write, which must be missing or empty.
        options (Options | None): How it is read.
        command (list[str] | None): For ``dataset.json``.
        progress (bool): Whether to show bars.

    Raises:
        UserError: It cannot be read, what it means cannot be told, or nothing can be written.
        Unconfirmed: The colours of the masks were learned, and are not confirmed.
    """
    options, out = options or Options(), Path(out)
    require_empty(out)
    trees = [Tree(folder, options.follow_links) for folder in ([source] if isinstance(source, str | Path) else source)]
    for tree in trees:
        if out.resolve().is_relative_to(tree.root):
            raise UserError(f'--out {out} is in the source {tree.root}, where the next import would read it. Next: '
                            'give a folder beside it.')
    labels = labels_of([tree.root for tree in trees])
    notes = [leave_predictions_out(tree, options) for tree in trees]
    names = [format_of(tree, options) for tree in trees]
    require_used(options, names)
    own = [options_for(options, name, tree.root) if len(trees) > 1 else options
           for name, tree in zip(names, trees, strict=True)]
    parts = [read_part(*given, progress) for given in zip(trees, labels, names, notes, own, strict=True)]
    require_known(options, {name for part in parts for name in part.classes.found})
    classes, tables = united([part.classes for part in parts], options)
    return write_parts(parts, classes, tables, out, options, command or [], progress)


def read_part(tree: Tree, label: str, name: str, notes: list[str], options: Options, progress: bool) -> Part:
    """Read one source whole, but for the pixels of its images.

    Raises:
        UserError: See :func:`import_dataset`.
    """
    read = FORMATS[name].read(tree, options)
    left_out = tree.left_out + read.left_out
    notes = notes + read.notes
    samples, found = [], []
    for sample, result in zip(read.samples, look_at_all(read.samples, options, progress), strict=True):
        if isinstance(result, Found):
            samples.append(sample)
            found.append(result)
        else:
            left_out.append(LeftOut(sample.relative, result))
    advice = read.advice()
    if not any(entry.counts is not None for entry in found):
        reasons = ''.join(f'\n  {entry.path} {entry.reason}' for entry in left_out[:10])
        reasons += ''.join(f'\n  {note}' for note in notes)
        ways = ' '.join(advice) or f'Next: another --format ({", ".join(FORMATS)}), or correct the files.'
        raise UserError(f'no labelled image of {tree.root} can be used, read as {FORMATS[name].what}.{reasons}\n'
                        f'Expected: at least two. {ways}')
    try:
        classes = read.classes(survey_of(found))
    except Unconfirmed as error:
        error.left_out = left_out
        raise
    zero = note_on_zero(classes, found, options) if name == 'index' else []
    return Part(tree, label, name, samples, found, left_out, [*notes, *advice, *classes.notes, *zero], classes)


def note_on_zero(classes, found, options):
    zero = classes.table.get(0, IGNORE)
    if not any(0 in (entry.counts or {}) for entry in found):
        return []
    if options.reduce_zero_label:
        return ['masks were numbered anew: 0 to N - 1, and 255 where pixels do not count, so that reduce_zero_label '
                'stays False']
    return [f'0 in the masks is the class {classes.names[zero]!r}. If it means "not labelled": --reduce-zero-label'
            ] if zero != IGNORE else []


def write_parts(parts, classes, tables, out, options, command, progress):
    """Split and write what was read."""
    notes = [f'{part.label}: {note}' if part.label else note for part in parts for note in part.notes]
    left_out = [LeftOut(part.shown(path), reason) for part in parts for path, reason in part.left_out]
    entries = entries_of(parts, tables, len(classes.names))
    empty = [entry.shown for entry in entries if entry.found.counts is not None and not entry.is_labelled]
    if empty:
        notes.append(f'{quantity(len(empty), "image has", "images have")} labels without one pixel that counts, such '
                     f'as {empty[0]}: taken as unlabelled')
    if len(empty) == sum(entry.found.counts is not None for entry in entries):
        raise UserError(f'no image of {", ".join(str(part.tree.root) for part in parts)} has a pixel of a class. Next: '
                        'look at the masks, and at --rename and --reduce-zero-label.')
    sides, how, lines = split([labelled_of(part, entries) for part in parts], options)
    notes += lines
    sides = iter(side for part in sides for side in part)
    splits = [next(sides) if entry.is_labelled else UNLABELLED for entry in entries]
    replaced = same_images(entries)
    same = note_on_same(replaced, entries)
    notes += same
    for i, kept in sorted(replaced.items(), reverse=True):      # it stays on the side where it was first
        if entries[i].is_labelled and not (options.val_list and splits[kept] == VALIDATION):    # which the list names
            splits[kept] = splits[i]
    entries, splits = zip(*(pair for i, pair in enumerate(zip(entries, splits, strict=True)) if i not in replaced),
                          strict=True)
    require_both([splits], [how, *same])
    facts, names = [entry.found.facts for entry in entries], names_of([entry.shown for entry in entries])
    description = Description(
        out, classes.names, [list(color) for color in classes.palette], suffix_for(facts), '.png',
        split_facts(splits, np.array([entry.counts for entry in entries])), splits.count(UNLABELLED),
        median_size(facts, splits),
        source_facts([part.tree.root for part in parts], [part.format for part in parts], command))
    notes += notes_of({entry.shown: entry.found for entry in entries}, splits, description, options)
    report = Report(description, formats_in_words(parts), how, Counter(fact.size for fact in facts), left_out, notes)
    outputs = [Output(entry.shown_sample, entry.found.facts, side, name, entry.table, entry.digest)
               for entry, side, name in zip(entries, splits, names, strict=True)]
    write(out, outputs, description, options, report.whole(), progress)
    return report


def labelled_of(part, entries):
    own = [entry for entry in entries if entry.part is part and entry.is_labelled]
    return Labelled(part.tree, part.label, [entry.sample.relative for entry in own], [entry.digest for entry in own],
                    np.array([entry.counts[:-1] for entry in own]))


def split_facts(splits, counts):
    found = {}
    for side in (TRAINING, VALIDATION, TEST):
        rows = counts[[i for i, own in enumerate(splits) if own == side]]
        if len(rows):
            found[side] = dict(images=len(rows), pixels=rows[:, :-1].sum(0).tolist(),
                                images_with=(rows[:, :-1] > 0).sum(0).tolist(), ignored=int(rows[:, -1].sum()))
    return found


def median_size(facts, splits):
    sizes = [fact.size for fact, split in zip(facts, splits, strict=True) if split != UNLABELLED]
    return tuple(int(np.median(sides)) for sides in zip(*sizes, strict=True))


def notes_of(found, splits, description, options):
    """What a person should know of the images, by name, the classes and the split."""
    lines, facts = [], [entry.facts for entry in found.values()]
    remarks = Counter(remark for fact in facts for remark in fact.remarks())
    changed = dict.fromkeys(remarks, '')
    changed |= {'CMYK': 'converted to RGB', 'an alpha channel': 'dropped',
                '16 bits a channel': f'made 8 bits ({options.sixteen_bit})', 'a palette': 'converted to RGB'}
    for remark, count in remarks.items():
        what = changed[remark] or 'stored turned upright'
        lines.append(f'{quantity(count, "image")} with {remark}: {what}')
    if description.img_suffix == '.jpg' and any(not fact.is_plain for fact in facts):
        lines.append('those are stored as JPEG again, at quality 95; all others are copied byte for byte')
    lines += class_notes(description) + alike(description.classes)
    if len(description.classes) == 1:
        lines.append(f'there is one class, {description.classes[0]!r}, and training needs two or more: pixels of all '
                     'others have to be a class too, such as "background"')
    sides = {side: {name: entry for (name, entry), split in zip(found.items(), splits, strict=True) if split == side}
             for side in (TRAINING, VALIDATION)}
    everywhere = {relative: entry.digest for side in sides.values() for relative, entry in side.items()}
    for group in copies(everywhere):
        apart = len({side for side in sides if any(relative in sides[side] for relative in group)}) > 1
        lines.append(f'{", ".join(group[:4])} are one image{", in training and in validation" if apart else ""}')
    near = look_alike(*({relative: entry.look for relative, entry in side.items()} for side in sides.values()))
    if near:
        first = next(iter(near.items()))
        lines.append(
            f'{len(near)} of {len(sides[VALIDATION])} validation images look almost like one in training, such as '
            f'{first[0]} and {first[1]}: scores will be too good. If they are of one sequence or place: --group'
        )
    return lines
