"""The second stage of a sum over all pixels in Triton: over the rows that the programs of a first kernel wrote.

Two stages give the same result each time, which atomic additions would not.
"""
import triton
import triton.language as tl


@triton.jit
def column_sums(partial, rows, column, ALL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums, (COLUMNS, ), of some columns of a contiguous float32 matrix (rows, ALL)."""
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, rows, ROWS):
        row = first + tl.arange(0, ROWS)
        total += tl.load(partial + row.to(tl.int64)[:, None] * ALL + column[None, :],
                         (row < rows)[:, None] & (column < ALL)[None, :], 0.)
    return tl.sum(total, 0)
