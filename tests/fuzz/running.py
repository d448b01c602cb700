"""How many random inputs a test gets, and how many it has had.

In ``make test`` a test gets a few, the same ones each time. ``tools/fuzz.py`` (``make fuzz``) sets
``INCEPTIONNEXT_SEG_FUZZ`` to the number of all and ``INCEPTIONNEXT_SEG_FUZZ_COUNTS`` to the file for the counts.
"""
import collections
import functools
import json
import os
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings

COUNTS = collections.Counter()


def fuzzed(short, share, **strategies):
    """Decorate a test that takes one random input by each of ``strategies``.

    Args:
        short (int): Inputs in ``make test``.
        share (float): Of those in ``make fuzz``.
    """
    cases = int(os.environ.get('INCEPTIONNEXT_SEG_FUZZ', 0))

    def decorate(test):
        @functools.wraps(test)
        def counted(*args, **kwargs):
            test(*args, **kwargs)
            COUNTS[test.__name__] += 1

        # Nothing is kept on the disk; one example that fails is shrunk, and not explained line by line.
        profile = settings(
            max_examples=max(1, round(share * cases)) if cases else short, derandomize=not cases, database=None,
            deadline=None, suppress_health_check=list(HealthCheck), print_blob=True,
            phases=(Phase.explicit, Phase.generate, Phase.shrink))
        return profile(given(**strategies)(counted))

    return decorate


def write_counts():
    path = os.environ.get('INCEPTIONNEXT_SEG_FUZZ_COUNTS')
    if path:
        Path(path).write_text(json.dumps(COUNTS))
