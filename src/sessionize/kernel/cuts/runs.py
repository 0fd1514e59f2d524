"""What sorted rows are compared with beyond the row before: the last moment of a run without a silence, and the last
value of a field. See docs/spec/sessions.md, rules 2 and 4.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

_KEY_BITS = 63


def running_maximum(value: IntArray, begins: npt.NDArray[np.bool_]) -> IntArray:
    """The largest value so far within each group.

    value int64[n]; begins bool[n]: whether a row begins a group; the first row does.
    """
    group = np.cumsum(begins) - 1
    low = int(value.min())
    bits = (int(value.max()) - low).bit_length()
    if int(group[-1]).bit_length() + bits <= _KEY_BITS:
        key = np.maximum.accumulate((group << bits) | (value - low))
        key &= (1 << bits) - 1
        key += low
        return key
    distinct, rank = np.unique(value, return_inverse=True)
    largest: IntArray = distinct[np.maximum.accumulate(group * len(distinct) + rank) % len(distinct)]
    return largest


def last_rows_with_value(code: Array, run_first: IntArray) -> IntArray:
    """For each row the last row of its run up to it that has a value, -1 if there is none.

    code: -1 for no value. run_first int64[n]: the first row of each row's run.
    """
    row = np.maximum.accumulate(np.where(code >= 0, np.arange(len(code)), -1))
    row[row < run_first] = -1
    return row


def changes(code: Array, last_row: IntArray, run_first: IntArray) -> npt.NDArray[np.bool_]:
    """Whether each row has a value that differs from the last one of its run before it.

    last_row: last_rows_with_value of the same code and run_first.
    """
    changed = np.zeros(len(code), bool)
    before = last_row[:-1]
    # a row that has a value is its own last row, so what it differs from is the last one of the row in front
    changed[1:] = (code[1:] >= 0) & (before >= run_first[1:]) & (code[1:] != code[before])
    return changed


def first_rows(begins: npt.NDArray[np.bool_]) -> IntArray:
    """For each row the first row of its group. begins: whether a row begins a group; the first row does."""
    at = np.arange(len(begins))
    return np.maximum.accumulate(np.where(begins, at, 0))
