"""Converts single values of mixed types to columns of text and of amounts.

JSON gives Python values and CSV gives strings; equal values give equal results.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.formats.rejects import INVALID_NUMBER, NUMBER_OUT_OF_RANGE, WRONG_TYPE, Fault, Faults, preview
from sessionize.session.limits import VALUE_MAX

Scalar = Any  # mostly str, int, float or None; anything else is a fault

_AMOUNT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def text_column(values: Sequence[Scalar], field: str, *, whole_numbers_only: bool) -> tuple[pa.StringArray, Faults]:
    """Strings unchanged, numbers as text; whole_numbers_only (users, ids) rejects fractions: many spellings."""
    try:
        return pa.array(values, pa.string()), {}
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        pass
    faults: Faults = {}
    texts: list[str | None] = []
    for row, value in enumerate(values):
        text = _text_of(value, whole_numbers_only=whole_numbers_only)
        if text is None and value is not None:
            expected = "a string or a whole number" if whole_numbers_only else "a string, a number or null"
            faults[row] = Fault(WRONG_TYPE, f"{field} = {shown(value)}: {expected} is expected")
        texts.append(text)
    return pa.array(texts, pa.string()), faults


def _text_of(value: Scalar, *, whole_numbers_only: bool) -> str | None:
    """None if the value is no text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if whole_numbers_only and isinstance(value, float):
        return str(int(value)) if value.is_integer() else None  # 7.0 is the user 7
    return str(value)


def shown(value: Any) -> str:
    """A value for people, as JSON has it."""
    if isinstance(value, bool | list | dict):
        value = msgspec.json.encode(value)
    if isinstance(value, bytes):
        return preview(value)[1:-1]
    return preview(value)


def value_column(values: Sequence[Scalar], field: str) -> tuple[pa.DoubleArray, Faults]:
    """Numbers, and strings that hold a number; an empty string is null."""
    try:
        array = pa.array(values, pa.float64())
        if within_limit(array) and bool not in set(map(type, values)):
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


def value_of(value: Scalar, field: str) -> float | Fault | None:
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
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return Fault(WRONG_TYPE, f"{field} = {shown(value)}: a number is expected")
    try:
        number = float(value)
    except OverflowError:  # an integer
        number = math.inf
    if not abs(number) <= VALUE_MAX:  # also NaN
        return Fault(NUMBER_OUT_OF_RANGE, f"{field} = {preview(value)}: not a number within ±{VALUE_MAX:g}")
    return number
