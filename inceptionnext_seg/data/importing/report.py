"""What an import found, as text."""
from collections import Counter
from typing import NamedTuple

from ...errors import quantity, shown
from ..description import Description
from .splits import TRAINING, VALIDATION
from .tree import LeftOut

SHOWN = 20


def left_out_lines(left_out: list[LeftOut]) -> list[str]:
    """The first files that were left out, and why."""
    lines = [f'left out: {quantity(len(left_out), "file")}'] if left_out else []
    lines += [f'  {entry.path} {entry.reason}' for entry in left_out[:SHOWN]]
    return lines + ([f'  and {len(left_out) - SHOWN} more'] if len(left_out) > SHOWN else [])


class Report(NamedTuple):
    """What became of a source.

    Attributes:
        description (Description): Of the data set that was written.
        format (str): The format that was read.
        split (str): How training and validation came about.
        sizes (Counter): Images by (width, height).
        left_out (list[LeftOut]): Files that are not in it, and why.
        notes (list[str]): What a person should know.
    """
    description: Description
    format: str
    split: str
    sizes: Counter
    left_out: list[LeftOut]
    notes: list[str]

    def text(self) -> str:
        """What is printed: the report with the first files that were left out. :meth:`whole` names all of them."""
        about = self.description
        lines = [f'{about.root}: {self.format}']
        lines += [f'  {name}: {quantity(split["images"], "image")}' for name, split in about.splits.items()]
        if about.unlabelled:
            lines.append(f'  unlabelled: {quantity(about.unlabelled, "image")} without labels, for predictions alone')
        lines.append(f'  split {self.split}')
        sizes = [f'{width}×{height} ({count})' for (width, height), count in self.sizes.most_common(5)]
        lines.append(
            f'  sizes: {", ".join(sizes)}{f" and {len(self.sizes) - 5} others" if len(self.sizes) > 5 else ""}'
        )
        lines += ['', *self.table(), '']
        lines += [f'note: {note}' for note in self.notes]
        lines += left_out_lines(self.left_out)
        if len(self.left_out) > SHOWN:
            lines.append(f'  all of them are in {about.root}/report.txt')
        return shown('\n'.join(lines).replace('\n\n\n', '\n\n'))

    def table(self):
        """A line a class: its share of the labelled pixels, and the images that have it, on each side."""
        about = self.description
        width = max(5, *map(len, about.classes))
        splits = [name for name in (TRAINING, VALIDATION, 'test') if name in about.splits]
        yield '  '.join(['  #', 'class'.ljust(width), *(f'{name:>10}  {"in images":>9}' for name in splits)])
        for i, name in enumerate(about.classes):
            cells = []
            for split in splits:
                facts = about.splits[split]
                share = facts['pixels'][i] / max(1, sum(facts['pixels']))
                cells.append(f'{100 * share:>8.2f} %  {facts["images_with"][i]:>9}')
            yield '  '.join([f'{i:>3}', name.ljust(width), *cells])
        cells = [f'{100 * facts["ignored"] / max(1, facts["ignored"] + sum(facts["pixels"])):>8.2f} %  {"":>9}'
                 for facts in (about.splits[split] for split in splits)]
        yield '  '.join(['255', 'ignored'.ljust(width), *cells])

    def whole(self) -> str:
        """As :meth:`text`, with every file that was left out."""
        rest = [f'  {entry.path} {entry.reason}' for entry in self.left_out[SHOWN:]]
        return shown('\n'.join([self.text(), *rest])) + '\n'


def class_notes(description: Description) -> list[str]:
    """Lines about classes that one side does not have, or neither."""
    seen = {split: description.splits[split]['pixels'] for split in (TRAINING, VALIDATION)}
    kinds = {'no pixel anywhere': (False, False), 'no pixel in training, and cannot be learned': (False, True),
             'no pixel in validation, and will not be evaluated': (True, False)}
    lines = []
    for what, found in kinds.items():
        names = [repr(name) for i, name in enumerate(description.classes)
                 if (seen[TRAINING][i] > 0, seen[VALIDATION][i] > 0) == found]
        if names:
            lines.append(f'{quantity(len(names), "class has", "classes have")} {what}: {", ".join(names)}')
    return lines
