"""Revenue added up: whole millionths, exactly, however many and however large the amounts are.

A sum is two numbers of 64 bits, `high * 2**62 + low` with low in [-2**61, 2**61). `high` is 0 for every session whose
revenue is below 2.3e12, so in nearly every run it takes neither memory nor time. One amount is at most VALUE_MAX, so
no number of events that a machine can hold makes `high` overflow. Source: docs/adr/0005-revenue-in-millionths.md.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

MICROS = 1_000_000
HIGH_BITS = 62
_LOW_MAX = (1 << (HIGH_BITS - 1)) - 1
_PART_BITS = HIGH_BITS // 2
_EXACT_MAX = 1 << 53  # whole numbers up to here are doubles, and dividing two doubles rounds once


def sums(amount: IntArray, first: IntArray, high: IntArray | None) -> tuple[IntArray, IntArray]:
    """The amounts of each session added up: (low, high), int64[sessions] each.

    amount int64[rows], millionths; the rows of a session follow one another. first int64[sessions]: its first row.
    high int64[sessions]: what the row that was carried into the session has beyond its amount; None for nothing.
    """
    none = np.broadcast_to(np.int64(0), (len(first),))
    if high is None:
        most = max(int(amount.max()), -int(amount.min()))
        if most == 0:
            return none, none
        longest = int(np.diff(first, append=len(amount)).max())
        if most * longest <= _LOW_MAX:
            return np.add.reduceat(amount, first), none
    # two halves, each of which has room for 2**32 rows
    upper = np.add.reduceat(amount >> _PART_BITS, first)
    lower = np.add.reduceat(amount & ((1 << _PART_BITS) - 1), first)
    upper += lower >> _PART_BITS
    lower &= (1 << _PART_BITS) - 1
    more = (upper + (1 << (_PART_BITS - 1))) >> _PART_BITS
    return ((upper - (more << _PART_BITS)) << _PART_BITS) + lower, more if high is None else high + more


def revenue(low: IntArray, high: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """float64[n]: the sums as amounts, each the double that is nearest to the exact sum."""
    return quotients(low, high, np.broadcast_to(np.int64(MICROS), (len(low),)))


def quotients(low: IntArray, high: npt.NDArray[Any], divisor: IntArray) -> npt.NDArray[np.float64]:
    """float64[n]: the sums divided, each the double that is nearest to the exact quotient. divisor int64[n] > 0."""
    made: npt.NDArray[np.float64] = low / divisor
    large = (high != 0) | (low > _EXACT_MAX) | (low < -_EXACT_MAX) | (divisor > _EXACT_MAX)
    for at in np.flatnonzero(large).tolist():
        total = (int(high[at]) << HIGH_BITS) + int(low[at])
        made[at] = total / int(divisor[at])  # Python divides whole numbers exactly
    return made
