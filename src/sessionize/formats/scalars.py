"""Converts single values of mixed types to columns of text and of amounts.

JSON gives Python values and CSV gives strings; equal values give equal results.
"""

import math
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.formats.rejects import INVALID_NUMBER, NUMBER_OUT_OF_RANGE, WRONG_TYPE, Fault, Faults, preview
from sessionize.session.limits import VALUE_MAX

Scalar = str | int | float | None

_AMOUNT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def text_column(values: Sequence[Scalar], field: str, *, whole_numbers_only: bool) -> tuple[pa.StringArray, Faults]:
    """Strings unchanged, numbers as text; whole_numbers_only (users, ids) rejects fractions: many spellings."""
    try:
        return pa.array(values, pa.string()), {}
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        pass
    faults: Faults = {}
    texts = [value if isinstance(value, str) or value is None else str(value) for value in values]
    if whole_numbers_only:
        for row, value in enumerate(values):
            if isinstance(value, float):
                faults[row] = Fault(WRONG_TYPE, f"{field} = {preview(value)}: a string or a whole number is expected")
    return pa.array(texts, pa.string()), faults


def value_column(values: Sequence[Scalar], field: str) -> tuple[pa.DoubleArray, Faults]:
    """Numbers, and strings that hold a number; an empty string is null."""
    try:
        array = pa.array(values, pa.float64())
        if within_limit(array):
            return array, {}
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        pass
    faults: Faults = {}
    numbers: list[float | None] = []
    for row, value in enumerate(values):
        number = value_of(value, field)
        if isinstance(number, Fault):
            faults[row] = number
            number = None
        numbers.append(number)
    return pa.array(numbers, pa.float64()), faults


def within_limit(numbers: pa.DoubleArray) -> bool:
    """Whether all of them are valid amounts; null is valid, NaN and infinity are not."""
    return pc.all(pc.less_equal(pc.abs(numbers), VALUE_MAX)).as_py() in (True, None)  # None: all are null


def value_of(value: str | float | None, field: str) -> float | Fault | None:
    """One amount, from a number or from a string that holds one."""
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        if _AMOUNT.fullmatch(text) is None:
            return Fault(INVALID_NUMBER, f"{field} = {preview(value)}: not a number")
        value = text
    if value is None:
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer
        number = math.inf
    if not abs(number) <= VALUE_MAX:  # also NaN
        return Fault(NUMBER_OUT_OF_RANGE, f"{field} = {preview(value)}: not a number within ±{VALUE_MAX:g}")
    return number
