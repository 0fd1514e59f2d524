"""Rows of a query as lines of JSON, by the types of their columns: every value as JSON has it, and none loses digits.

Whole numbers of any size and decimals are numbers, written in full; what is no number or no moment (NaN, infinity) is
null. Dates, times, timestamps and intervals are ISO 8601, with a time zone in UTC, with a Z; bytes base64; maps
are objects, and their keys text. A second column of the same name gets _1 at its end.
"""

import base64
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa

_Write = Callable[[Any], str]


def json_lines(rows: pa.Table) -> Iterator[str]:
    """One object for each row, in the order of the columns, without line ends."""
    names = [_text(name) for name in _distinct(rows.column_names)]
    types = [field.type for field in rows.schema]
    writers = [_writer(kind) for kind in types]
    plain = [_counted(rows.column(at), kind) for at, kind in enumerate(types)]
    for batch in pa.table(plain, names=[str(at) for at in range(len(names))]).to_batches():
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            cells = (f"{name}: {write(value)}" for name, write, value in zip(names, writers, row, strict=True))
            yield "{" + ", ".join(cells) + "}"


def _distinct(names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        other, number = name, 0
        while other in found:
            number += 1
            other = f"{name}_{number}"
        found.append(other)
    return found


def _text(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False)


# ---- times as whole numbers: Python's own have no nanoseconds, no year 10000 and no infinity ----


def _counted(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    wanted = _counted_type(kind)
    return column if wanted == kind else column.cast(wanted)


def _counted_type(kind: pa.DataType) -> pa.DataType:
    """The type with every time in it as a number of its units."""
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time64(kind):
        return pa.int64()
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return pa.int32()
    if pa.types.is_date64(kind):
        return pa.int64()
    if isinstance(kind, pa.BaseExtensionType):
        return _counted_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _counted_type(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _counted_type(f.type), f.nullable) for f in kind])
    if pa.types.is_map(kind):
        return pa.map_(_counted_type(kind.key_type), _counted_type(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_counted_type(kind.value_type), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(_counted_type(kind.value_type))
    if pa.types.is_list(kind):
        return pa.list_(_counted_type(kind.value_type))
    return kind


# ---- what writes a value of a type ----


def _writer(kind: pa.DataType) -> _Write:
    return _or_null(_writer_of_values(kind))


def _or_null(write: _Write) -> _Write:
    return lambda value: "null" if value is None else write(value)


def _writer_of_values(kind: pa.DataType) -> _Write:
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _writer(kind.storage_type)
    if types.is_dictionary(kind):
        return _writer(kind.value_type)
    if types.is_boolean(kind):
        return lambda value: "true" if value else "false"
    if types.is_integer(kind):
        return str
    if types.is_decimal(kind):
        return _decimal
    if types.is_floating(kind):
        short = np.float32 if kind.bit_width <= 32 else float  # a float of 32 bits has fewer digits to show
        return lambda value: str(short(value)) if isfinite(value) else "null"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return lambda value: f'"{base64.b64encode(value).decode()}"'
    return _writer_of_times(kind) or _writer_of_nested(kind) or _anything


def _writer_of_times(kind: pa.DataType) -> _Write | None:
    types = pa.types
    if types.is_date(kind):
        unit: Any = "D" if types.is_date32(kind) else "ms"
        return _unless_infinite(kind, lambda value: str(np.datetime64(value, unit).astype("datetime64[D]")))
    if types.is_timestamp(kind):
        zone = "" if kind.tz is None else "Z"
        return _unless_infinite(kind, lambda value: _trimmed(str(np.datetime64(value, kind.unit))) + zone)
    if types.is_time(kind):
        return lambda value: f'"{_trimmed(str(np.datetime64(value, kind.unit))).partition("T")[2]}"'
    if types.is_duration(kind):
        per_s = {"s": 0, "ms": 3, "us": 6, "ns": 9}[kind.unit]
        return lambda value: f'"{_seconds(Decimal(value).scaleb(-per_s))}"'
    if types.is_interval(kind):
        return _interval
    return None


def _unless_infinite(kind: pa.DataType, write: _Write) -> _Write:
    """DuckDB's infinite dates and times are the largest numbers of their type."""
    largest = 2 ** (kind.bit_width - 1) - 1
    return lambda value: "null" if abs(value) == largest else f'"{write(value)}"'


def _writer_of_nested(kind: pa.DataType) -> _Write | None:
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        item = _writer(kind.value_type)
        return lambda value: "[" + ", ".join(map(item, value)) + "]"
    if types.is_struct(kind):
        fields = [(_text(field.name), field.name, _writer(field.type)) for field in kind]
        return lambda value: "{" + ", ".join(f"{shown}: {w(value[name])}" for shown, name, w in fields) + "}"
    if types.is_map(kind):
        key, item = _writer(kind.key_type), _writer(kind.item_type)
        return lambda value: "{" + ", ".join(f"{_key(key(k))}: {item(v)}" for k, v in value) + "}"
    return None


def _key(text: str) -> str:
    """A key of an object, which has to be text."""
    return text if text.startswith('"') else _text(text)


def _decimal(value: Decimal) -> str:
    whole = value.to_integral_value()
    return format(whole if value == whole and value.as_tuple().exponent == 0 else value, "f")


def _trimmed(text: str) -> str:
    """A time without zeros at the end of its fraction."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def _interval(value: Any) -> str:
    months, days, nanoseconds = value
    date = (f"{months}M" if months else "") + (f"{days}D" if days else "")
    time = _seconds(Decimal(nanoseconds).scaleb(-9)).removeprefix("P") if nanoseconds or not date else ""
    return f'"P{date}{time}"'


def _seconds(value: Decimal) -> str:
    return f"PT{_trimmed(format(value, 'f'))}S"


def _anything(value: Any) -> str:
    """Text, and whatever else there may be as the text that it has."""
    if isinstance(value, bool | int):
        return json.dumps(value)
    return f'"{base64.b64encode(value).decode()}"' if isinstance(value, bytes) else _text(value)
