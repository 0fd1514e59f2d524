"""Converts further fields to their types; a value that has no form in the type becomes null, and its row is named.

    text     strings unchanged; numbers and booleans as JSON writes them
    number   numbers, and strings that hold a finite number
    integer  whole numbers of 64 bits, as numbers or in strings
    boolean  true and false, 1 and 0, also in strings

An empty string is null, but for text. JSON gives Python values and tables give Arrow columns; equal values give
equal results.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.formats.dialects import FieldType
from sessionize.formats.rejects import WRONG_TYPE, Fault, Faults, preview
from sessionize.formats.storable import python_values, storable

FIELD_TYPES: dict[FieldType, pa.DataType] = {
    "text": pa.string(),
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
}
_EXPECTED: dict[FieldType, str] = {
    "text": "a string, a number or a boolean",
    "number": "a finite number",
    "integer": "a whole number of 64 bits",
    "boolean": "true, false, 1 or 0",
}
_WHOLE = r"^[+-]?[0-9]{1,18}$"
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_NONE = type(None)
_INT64 = np.iinfo(np.int64)


class _WrongError(ValueError):
    """The value has no form in the type."""


def field_of_values(values: Sequence[Any], kind: FieldType, field: str) -> tuple[pa.Array, Faults]:
    """Values of JSON. field: its path, for the faults."""
    kinds = set(map(type, values))
    if kinds <= _AS_THEY_ARE[kind]:
        try:
            array = pa.array(values, FIELD_TYPES[kind])
            if kind != "number" or _finite(array):
                return array, {}
        except (pa.ArrowInvalid, OverflowError):
            pass
    convert = _CONVERT[kind]
    faults: Faults = {}
    converted: list[Any] = []
    for row, value in enumerate(values):
        try:
            converted.append(None if value is None else convert(value))
        except (_WrongError, OverflowError):
            converted.append(None)
            shown = preview(value) if isinstance(value, str | int | float) else preview(str(value))
            faults[row] = Fault(WRONG_TYPE, f"{field} = {shown}: {_EXPECTED[kind]} is expected")
    return pa.array(converted, FIELD_TYPES[kind]), faults


def field_of_array(array: pa.Array, kind: FieldType, field: str) -> tuple[pa.Array, Faults]:
    """A column of a table that is not nested."""
    array = storable(array)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), FIELD_TYPES[kind]), {}
    quick = _cast(array, kind)
    if quick is not None:
        return quick, {}
    if not pa.types.is_string(array.type):
        return field_of_values([_plain(value) for value in python_values(array)], kind, field)
    coded = array.dictionary_encode()
    distinct, wrong = field_of_values(coded.dictionary.to_pylist(), kind, field)
    faults: Faults = {}
    if wrong:
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        bad = np.flatnonzero(np.isin(codes, np.fromiter(wrong, np.int64, len(wrong))))
        faults = {int(row): wrong[int(codes[row])] for row in bad}
    return distinct.take(coded.indices), faults


def _cast(array: pa.Array, kind: FieldType) -> pa.Array | None:
    """The column if all of it can be converted at once."""
    wanted, have = FIELD_TYPES[kind], array.type
    if have == wanted and kind != "number":
        return array
    numeric = pa.types.is_integer(have) or pa.types.is_floating(have) or pa.types.is_decimal(have)
    try:
        if kind == "number" and (numeric or pa.types.is_string(have)):
            numbers = array.cast(wanted, safe=False)
            if pa.types.is_floating(have):  # pandas writes NaN for null
                numbers = pc.if_else(pc.is_nan(numbers), None, numbers)
            return numbers if _finite(numbers) else None
        if kind == "integer" and pa.types.is_string(have):
            whole = pc.all(pc.match_substring_regex(array, _WHOLE)).as_py()
            return array.cast(wanted) if whole in (True, None) else None
        if kind == "integer" and pa.types.is_integer(have):
            return array.cast(wanted)
        if kind == "text" and not (pa.types.is_floating(have) or pa.types.is_binary(have)):
            return array.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    return None


def _finite(numbers: pa.Array) -> bool:
    return pc.all(pc.is_finite(numbers)).as_py() in (True, None)


def _plain(value: Any) -> Any:
    """A value as JSON would give it; a NaN is null."""
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value if isinstance(value, str | int | float | _NONE) else str(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    raise _WrongError


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _WrongError
    if isinstance(value, str):
        value = value.strip()
        if not value:
            return None
        if _NUMBER.fullmatch(value) is None:
            raise _WrongError
    number = float(value)
    if not math.isfinite(number):
        raise _WrongError
    return number


def _integer(value: Any) -> int | None:
    if isinstance(value, str):
        value = value.strip()
        if not value:
            return None
        if re.fullmatch(r"[+-]?[0-9]{1,30}", value) is None:
            value = _number(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _WrongError
    if isinstance(value, float) and not value.is_integer():
        raise _WrongError
    number = int(value)
    if not _INT64.min <= number <= _INT64.max:
        raise _WrongError
    return number


def _boolean(value: Any) -> bool | None:
    if isinstance(value, str) and not value.strip():
        return None
    if isinstance(value, bool | str | int | float):
        found = _BOOLEANS.get(str(value).strip().lower().removesuffix(".0"))
        if found is not None:
            return found
    raise _WrongError


_AS_THEY_ARE: dict[FieldType, frozenset[type]] = {
    "text": frozenset({str, _NONE}),
    "number": frozenset({int, float, _NONE}),
    "integer": frozenset({int, _NONE}),
    "boolean": frozenset({bool, _NONE}),
}
_CONVERT: dict[FieldType, Callable[[Any], Any]] = {
    "text": _text,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
}
