"""What a measured ratio says of what was aimed at."""
from inceptionnext_seg.files import markdown_table

from .statistics import NONE, text


def verdict(goal, found):
    """By the median, and whether the interval says the same.

    Args:
        goal (float): The ratio that was aimed at.
        found (Estimate | None): None where nothing was measured.
    """
    if found is None:
        return 'not measured'
    said = 'reached' if found.value >= goal else 'missed'
    if found.low is None:
        return f'{said}, by one process' if found.processes == 1 else f'{said}, by two values'
    return f'{said}, the interval covers the goal' if found.low < goal <= found.high else said


def goals_table(goals):
    """A row a goal, of (what, goal, Estimate or None)."""
    rows = [[what, f'{goal:.2f}', text(found), found.processes if found else NONE,
             verdict(goal, found)] for what, goal, found in goals]
    return markdown_table(['', 'goal', 'measured (interval)', 'processes', ''], rows)
