"""Converts columns to types that every output supports; values that some cannot hold become text.

Examples: a time in the year 20000, an unknown time zone, a UUID. Arrow holds them; Python, Iceberg or JSON do not.
Ordinary columns stay unchanged.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.session.limits import TIME_MS_MAX, TIME_MS_MIN

_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_INT64 = np.iinfo(np.int64)
_DAY_S = 86_400
_FIRST_S, _LAST_S = TIME_MS_MIN // 1_000, TIME_MS_MAX // 1_000
_FIRST_DAY, _LAST_DAY = _FIRST_S // _DAY_S, _LAST_S // _DAY_S
_LONGEST_S = 999_999_999 * _DAY_S  # of Python's timedelta


def storable(array: pa.Array) -> pa.Array:
    """The values of a column that is not nested, in types that every output supports."""
    kind = array.type
    if isinstance(array, pa.DictionaryArray):
        return storable(array.dictionary_decode())
    if isinstance(array, pa.ExtensionArray):
        if kind == pa.uuid():
            return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())
        return storable(array.storage)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind):
        return array.cast(pa.binary())
    if pa.types.is_timestamp(kind):
        return _in_known_zone(_in_range(array, _FIRST_S * _PER_S[kind.unit], (_LAST_S + 1) * _PER_S[kind.unit] - 1))
    if pa.types.is_date64(kind):
        array = _in_range(array, _FIRST_DAY * _DAY_S * 1_000, _LAST_DAY * _DAY_S * 1_000)
        return array.cast(pa.date32()) if pa.types.is_date64(array.type) else array
    if pa.types.is_date32(kind):
        return _in_range(array, _FIRST_DAY, _LAST_DAY)
    if pa.types.is_time(kind):
        return _in_range(array, 0, _DAY_S * _PER_S[kind.unit] - 1)
    if pa.types.is_duration(kind):
        return _in_range(array, -_LONGEST_S * _PER_S[kind.unit], _LONGEST_S * _PER_S[kind.unit])
    if pa.types.is_decimal(kind) and kind.scale < 0:
        return array.cast(pa.string())
    if pa.types.is_interval(kind):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())
    return array


def python_values(array: pa.Array | pa.ChunkedArray) -> list[Any]:
    """As to_pylist, but a time that Python cannot hold becomes its bare number."""
    try:
        return list(array.to_pylist())
    except (ValueError, OverflowError):  # ArrowInvalid is a ValueError
        return [python_value(value) for value in array]


def python_value(value: pa.Scalar) -> Any:
    """As as_py, but a time that Python cannot hold becomes its bare number."""
    if not value.is_valid:
        return None
    if pa.types.is_dictionary(value.type):
        return python_value(value.value)
    if pa.types.is_struct(value.type):
        return {name: python_value(inner) for name, inner in value.items()}
    if pa.types.is_map(value.type):
        return [(python_value(pair["key"]), python_value(pair["value"])) for pair in value.values]
    if pa.types.is_nested(value.type):
        return [python_value(inner) for inner in value.values]
    try:
        return value.as_py()
    except (ValueError, OverflowError):
        return _number(value)


def _number(value: pa.Scalar) -> Any:
    try:
        return value.cast(pa.int32() if pa.types.is_date32(value.type) else pa.int64()).as_py()
    except pa.ArrowException:
        return str(value)


def _in_range(array: pa.Array, first: int, last: int) -> pa.Array:
    """The times unchanged; if one is out of range, all as text, and that one as a bare number."""
    first, last = max(first, _INT64.min), min(last, _INT64.max)
    short = pa.types.is_date32(array.type) or pa.types.is_time32(array.type)
    numbers = array.cast(pa.int32() if short else pa.int64())
    filled = pc.fill_null(numbers, first).to_numpy(zero_copy_only=False)
    far = (filled < first) | (filled > last)
    if not far.any():
        return array
    plain = array.cast(pa.timestamp(array.type.unit)) if pa.types.is_timestamp(array.type) else array
    kept = pa.array(np.where(far, first, filled), numbers.type, mask=array.is_null().to_numpy(zero_copy_only=False))
    return pc.if_else(pa.array(far), numbers.cast(pa.string()), kept.cast(plain.type).cast(pa.string()))


def _in_known_zone(times: pa.Array) -> pa.Array:
    """The times, in UTC if their zone is unknown; the instants are the same."""
    if not pa.types.is_timestamp(times.type) or times.type.tz is None:
        return times
    try:
        pa.array([0], times.type).cast(pa.string())
        pa.scalar(0, times.type).as_py()
    except (pa.ArrowException, ValueError):
        return times.cast(pa.timestamp(times.type.unit, "UTC"))
    return times
