"""The figures in a document's prose.

Every figure in ``docs/factorized_convolutions.md`` stands between two comments, ``<!-- measured: WHAT -->`` and
``<!-- /measured -->``, and :func:`fill` writes it there from the result file.
"""
import re
from fractions import Fraction

from inceptionnext_seg.errors import UserError

from .cases import Case
from .report import BLOCKS, environment_line
from .result import Table

MARKER = re.compile(r'<!-- measured: (?P<what>[^>]+?) -->.*?<!-- /measured -->', re.DOTALL)


def fill(text, result):
    """``text`` with everything between ``<!-- measured: WHAT -->`` and ``<!-- /measured -->`` written anew.

    WHAT is the name of a table in :data:`BLOCKS`, 'environment', or a ratio such as
    ``time sequential:7x7 / square:7x7 depthwise nchw train``: 'time', 'macs', 'bytes' or 'parameters' of two operators
    at the base shape, or at another after ``@``, as in ``@96x56x4:bf16``. A share of channels is written
    ``inception:11x11:1/8``.

    Raises:
        UserError: WHAT is none of these, or was not measured.
    """
    def replacement(match):
        what = match['what']
        if what in BLOCKS:
            value = f'\n{BLOCKS[what](result)}\n'
        elif what == 'environment':
            value = environment_line(result)
        else:
            value = compared(Table(result), what)
        return f'<!-- measured: {what} -->{value}<!-- /measured -->'

    return MARKER.sub(replacement, text)


RATIO = re.compile(r'(time|macs|bytes|parameters) (\S+) / (\S+) (\w+) (\w+) (\w+)(?: @(\d+)x(\d+)x(\d+):(\w+))?')
OPERATOR = re.compile(r'(\w+):(\d+)x(\d+)(?::(\d+/\d+))?')


def compared(table, what):
    """The ratio that :func:`fill` is asked for, as text."""
    match = RATIO.fullmatch(what)
    operators_named = match and [OPERATOR.fullmatch(name) for name in match.group(2, 3)]
    if not match or not all(operators_named):
        raise UserError(f'"measured: {what}" is not known. Expected: environment, one of {", ".join(BLOCKS)}, or such '
                        'as "time sequential:7x7 / square:7x7 depthwise nchw infer". Next: fix the comment')
    grouping, layout, mode, *shape_named, dtype = match.group(4, 5, 6, 7, 8, 9, 10)
    where = (*map(int, shape_named), dtype) if dtype else table.base(grouping)
    pair = []
    for form, height, width, share in (named.groups() for named in operators_named):
        kernel, ratio = (int(height), int(width)), float(Fraction(share or 1))
        cases = [Case(form, kernel, ratio, grouping, *where, layout, mode, cache) for cache in ('cold', 'hot')
                 ] if where else []
        pair += [case for case in cases if case in table][:1]
    if len(pair) < 2:
        raise UserError(f'"measured: {what}" is not in the result. Next: measure it, or fix the comment')
    return f'{table.ratio(*pair).median:.2f}' if match[1] == 'time' else f'{table.quotient(match[1], *pair):.2f}'
