"""From a source to a data set: read everything, decide what it means, split, write."""
from collections import Counter
from pathlib import Path

import numpy as np

from ...errors import UserError, quantity
from ..description import Description
from .classes import Unconfirmed, alike
from .formats import FORMATS, format_of
from .options import IGNORE, Options
from .predictions import leave_predictions_out
from .report import Report, class_notes
from .splits import TEST, TRAINING, UNLABELLED, VALIDATION, split
from .surveying import Found, copies, look_alike, look_at_all, survey_of
from .tree import LeftOut, Tree
from .writing import Output, names_of, require_empty, source_facts, suffix_for, write


def import_dataset(
    source: str | Path,
    out: str | Path,
    options: Options | None = None,
    command: list[str] | None = None,
    progress: bool = True,
) -> Report:
    """Read the images and labels of a folder, and write them as a data set that trains.

    Args:
        source (str | Path): The folder.
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
    tree = Tree(source, options.follow_links)
    if out.resolve().is_relative_to(tree.root):
        raise UserError(f'--out {out} is in the source {tree.root}, where the next import would read it. Next: give a '
                        'folder beside it.')
    notes = leave_predictions_out(tree, options)
    name = format_of(tree, options)
    read = FORMATS[name].read(tree, options)
    left_out = tree.left_out + read.left_out
    notes += read.notes
    samples, found = [], []
    for sample, result in zip(read.samples, look_at_all(read.samples, options, progress), strict=True):
        if isinstance(result, Found):
            samples.append(sample)
            found.append(result)
        else:
            left_out.append(LeftOut(sample.relative, result))
    advice = read.advice()
    notes += advice
    if not any(entry.counts is not None for entry in found):
        reasons = ''.join(f'\n  {entry.path} {entry.reason}' for entry in left_out[:10])
        ways = ' '.join(advice) or f'Next: another --format ({", ".join(FORMATS)}), or correct the files.'
        raise UserError(f'no labelled image of {tree.root} can be used, read as {FORMATS[name].what}.{reasons}\n'
                        f'Expected: at least two. {ways}')
    try:
        classes = read.classes(survey_of(found))
    except Unconfirmed as error:
        error.left_out = left_out
        raise
    notes += classes.notes
    counts = np.array([class_counts(entry.counts or {}, classes) for entry in found])
    labelled = [i for i, entry in enumerate(found) if entry.counts is not None and counts[i, :-1].any()]
    empty = [
        samples[i].relative for i, entry in enumerate(found) if entry.counts is not None and not counts[i, :-1].any()
    ]
    if empty:
        notes.append(f'{quantity(len(empty), "image has", "images have")} labels without one pixel that counts, such '
                     f'as {empty[0]}: taken as unlabelled')
    if not labelled:
        raise UserError(f'no image of {tree.root} has a pixel of a class. Next: look at the masks, and at --rename and '
                        '--reduce-zero-label.')
    sides, how = split([samples[i].relative for i in labelled], counts[labelled, :-1], options, tree)
    splits = [UNLABELLED] * len(samples)
    for i, side in zip(labelled, sides, strict=True):
        splits[i] = side
    facts = [entry.facts for entry in found]
    names = names_of([sample.relative for sample in samples])
    description = Description(
        out, classes.names, [list(color) for color in classes.palette], suffix_for(facts), '.png',
        split_facts(splits, counts), splits.count(UNLABELLED), median_size(facts, splits),
        source_facts(tree.root, name, command or []))
    notes += notes_of(samples, found, splits, facts, description, options)
    report = Report(description, FORMATS[name].what, how, Counter(fact.size for fact in facts), left_out, notes)
    outputs = [Output(*parts) for parts in zip(samples, facts, splits, names, strict=True)]
    write(out, outputs, classes, description, options, progress)
    (out / 'report.txt').write_text(report.whole(), encoding='utf-8')
    return report


def class_counts(counts, classes):
    """Pixels by class, and at the end those that do not count."""
    row = [0] * (len(classes.names) + 1)
    for code, pixels in counts.items():
        index = classes.table[code]
        row[-1 if index == IGNORE else index] += pixels
    return row


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


def notes_of(samples, found, splits, facts, description, options):
    """What a person should know of the images, the classes and the split."""
    lines = []
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
    if 0 in {code for entry in found for code in entry.counts or {}} and description.source['format'] == 'index':
        first = description.classes[0]
        lines.append(
            'masks were numbered anew: 0 to N - 1, and 255 where pixels do not count, so that reduce_zero_label '
            'stays False'
            if options.reduce_zero_label
            else f'0 in the masks is the class {first!r}. If it means "not labelled": --reduce-zero-label'
        )
    sides = {side: {samples[i].relative: found[i] for i, split in enumerate(splits) if split == side}
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
