"""Decodes tables from CSV and Parquet to the same columns as JSON, a whole column at a time.

A Layout maps the fields. Decoding casts, parses the times and validates; a row that fails is rendered as JSON for
the rejects, unless the reader still has the row's own bytes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.arrow import one_chunk
from sessionize.formats.dialects import JOINTS, Dialect
from sessionize.formats.further_fields import FIELD_TYPES, field_of_array
from sessionize.formats.json_decoder import REQUIRED
from sessionize.formats.paths.in_tables import column_at
from sessionize.formats.paths.language import Steps
from sessionize.formats.rejects import INVALID_UTF8, WRONG_TYPE, Fault, Faults, Rejects, preview, without
from sessionize.formats.scalars import value_column, within_limit
from sessionize.formats.storable import python_value, python_values, storable
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.times import times_of_array
from sessionize.formats.utf8 import ValidText, with_valid_text
from sessionize.formats.validation import DECODED_TYPES, Decoded, validate, without_empty
from sessionize.session.columns import EVENT_ID, EVENT_TIME, PROPERTIES, USER, VALUE

_SCALARS = (str, int, float, type(None))


class Tabular:
    """Decodes tables of one layout."""

    __slots__ = ("_dialect", "_field_types", "_fields", "_latest_ms", "_layout", "_strict")

    def __init__(self, layout: Layout, dialect: Dialect, *, latest_ms: int | None = None) -> None:
        """latest_ms: reject later events; None accepts all."""
        self._field_types = dialect.field_types
        self._strict = dialect.strict
        self._layout = layout
        self._dialect = dialect
        self._latest_ms = latest_ms
        self._fields = {column: dialect.described(column) for column in layout.columns}

    def decode(
        self,
        table: pa.Table,
        *,
        source: str,
        line_number: Callable[[int], int],
        raw: Callable[[int], bytes] | None = None,
        plain_users: bool = False,
        plain: bool = False,
    ) -> Decoded:
        """The events and the rejects of a table with the layout's columns.

        source, line_number (of a row, from 0) and raw (its own bytes; None renders it as JSON) are for the rejects.
        plain_users: plain text users stay plain, for callers that number them. plain: all text does, for callers that
        encode it (encoded) when they have more of it.
        """
        arrays: dict[str, pa.Array] = {}
        # a caller that has each row's bytes has validated them
        valid = ValidText(table, {}) if raw is not None else with_valid_text(table)
        table, faults = valid.table, valid.faults
        # Text formats have no types: 7.0 is the user 7, as in JSON and in a column of floats.
        untyped = raw is not None
        arrays[USER], user_faults = self._column(table, USER, untyped=untyped)
        nulled: dict[str, Faults] = {}
        for column in self._layout.columns:
            if column not in (USER, EVENT_TIME):
                arrays[column], found = self._column(table, column, untyped=untyped)
                if self._strict or column in REQUIRED:
                    faults = found | faults
                elif found:
                    nulled[column] = found
        field = self._fields[EVENT_TIME]
        raw_times = self._raw(table, EVENT_TIME)
        times = times_of_array(raw_times, self._dialect.time_format, field=field)
        local_times = times.local_count if self._dialect.time_zone is None else 0
        times = times.in_zone(self._dialect.time_zone, field=field)
        arrays[EVENT_TIME] = pa.array(times.ms)
        faults |= validate(
            arrays[USER],
            times,
            user_faults=user_faults,
            latest_ms=self._latest_ms,
            user_field=self._fields[USER],
            time_field=field,
        )
        keep = pa.array(without(faults, len(table))) if faults else None
        columns = {column: arrays[column] for column in self._layout.columns} | self._extras(table)
        if keep is not None:
            columns = {column: array.filter(keep) for column, array in columns.items()}
        if plain:
            events = pa.table(
                {n: a.dictionary_decode() if pa.types.is_dictionary(a.type) else a for n, a in columns.items()}
            )
        else:  # encoded only now, so that dictionaries hold no values of rejected rows
            events = encoded(pa.table(columns), plain_users=plain_users)
        rejects = Rejects()
        if faults:
            for row in sorted(faults):
                own = _rendered(table, row, valid.broken.get(row, {})) if raw is None else raw(row)
                rejects.add(own, source=source, line_number=line_number(row), fault=faults[row])
        counts = {column: len(found.keys() - faults.keys()) for column, found in nulled.items()}
        return Decoded(events, rejects.take(), nulled=counts, local_times=local_times)

    def _raw(self, table: pa.Table, column: str) -> pa.Array | None:
        parts = self._layout.joined.get(column)
        if parts is None:
            return _present(table, self._layout.paths[column])
        texts = [_as_text(_present(table, paths), "", whole_numbers_only=True)[0] for paths in parts]
        plain = [t.dictionary_decode() if pa.types.is_dictionary(t.type) else t for t in texts]
        if column == EVENT_TIME:  # a date alone is no time
            return pc.binary_join_element_wise(*map(without_empty, plain), JOINTS[column])
        joined = pc.binary_join_element_wise(*(pc.fill_null(t, "") for t in plain), JOINTS[column])
        return pc.if_else(pc.equal(pc.binary_length(joined), len(JOINTS[column]) * (len(parts) - 1)), None, joined)

    def _column(self, table: pa.Table, column: str, *, untyped: bool) -> tuple[pa.Array, Faults]:
        array = self._raw(table, column)
        kind = self._field_types.get(column)
        if array is None or pa.types.is_null(array.type):
            return pa.nulls(len(table), DECODED_TYPES[column] if kind is None else FIELD_TYPES[kind]), {}
        if kind is not None:
            return field_of_array(array, kind, self._fields[column])
        if column == VALUE:
            return _as_values(array, self._fields[column])
        text, faults = _as_text(array, self._fields[column], whole_numbers_only=column in (USER, EVENT_ID))
        if untyped and column in (USER, EVENT_ID):
            text = _without_point_zero(text)
        if column == EVENT_ID:
            text = without_empty(text.dictionary_decode() if pa.types.is_dictionary(text.type) else text)
        return text, faults

    def _extras(self, table: pa.Table) -> dict[str, pa.Array]:
        columns = {name: storable(one_chunk(table[name])) for name in self._layout.extras}
        if self._layout.rest:
            encode = msgspec.json.Encoder(enc_hook=str).encode
            values = [python_values(table[name]) for name in self._layout.rest]
            records = zip(*values, strict=True)
            names = self._layout.rest
            fields = [{n: v for n, v in zip(names, record, strict=True) if v is not None} for record in records]
            columns[PROPERTIES] = pa.array([encode(f).decode() if f else None for f in fields], pa.string())
        return columns


def encoded(events: pa.Table, *, plain_users: bool = False) -> pa.Table:
    """The events with text as dictionaries where DECODED_TYPES requires it. plain_users: as in Tabular.decode."""
    for at, name in enumerate(events.column_names):
        wanted, column = DECODED_TYPES.get(name), events.column(at)
        if wanted is None or not pa.types.is_dictionary(wanted) or pa.types.is_dictionary(column.type):
            continue
        if not (plain_users and name == USER):
            events = events.set_column(at, name, column.dictionary_encode())
    return events


def _present(table: pa.Table, paths: tuple[Steps, ...]) -> pa.Array | None:
    """The first candidate of each row that is not null and, where there are several, not empty; None without any."""
    arrays = [column_at(table, path) for path in paths]
    if len(arrays) < 2:
        return arrays[0] if arrays else None
    arrays = [a.dictionary_decode() if pa.types.is_dictionary(a.type) else a for a in arrays]
    if len({a.type for a in arrays}) > 1:
        arrays = [a.cast(pa.string()) for a in arrays]
    if pa.types.is_string(arrays[0].type):
        arrays = [*map(without_empty, arrays), *arrays]
    return pc.coalesce(*arrays)


def _as_text(array: pa.Array, field: str, *, whole_numbers_only: bool) -> tuple[pa.Array, Faults]:
    """string, or dictionary<int32, string> if the input is a dictionary."""
    kind = array.type
    if pa.types.is_string(kind):
        return array, {}
    if pa.types.is_dictionary(kind):
        values, of_value = _as_text(array.dictionary, field, whole_numbers_only=whole_numbers_only)
        indices = array.indices.cast(pa.int32())
        faults = _of_rows(indices, of_value) if of_value else {}
        return pa.DictionaryArray.from_arrays(indices, values), faults
    if isinstance(array, pa.ExtensionArray):
        if kind == pa.uuid():
            return pa.array([None if v is None else str(v) for v in array.to_pylist()], pa.string()), {}
        return _as_text(array.storage, field, whole_numbers_only=whole_numbers_only)
    array = storable(array)
    if pa.types.is_floating(kind):
        return _floats_as_text(array.to_pylist(), field, whole_numbers_only=whole_numbers_only)
    try:
        return array.cast(pa.string()), {}
    except pa.ArrowInvalid:
        return _bytes_as_text(array.to_pylist(), field)


def _without_point_zero(text: pa.Array) -> pa.Array:
    """7.0 as 7, with any number of zeros."""
    if pa.types.is_dictionary(text.type):
        return pa.DictionaryArray.from_arrays(text.indices, _without_point_zero(text.dictionary))
    if not pc.any(pc.ends_with(text, ".0")).as_py():
        return text
    return pc.replace_substring_regex(text, r"^([+-]?[0-9]+)\.0+$", r"\1")


def _of_rows(indices: pa.Array, of_value: Faults) -> Faults:
    codes = indices.fill_null(-1).to_numpy(zero_copy_only=False)
    bad = np.isin(codes, np.fromiter(of_value, np.int64, len(of_value)))
    return {int(row): of_value[int(codes[row])] for row in np.flatnonzero(bad)}


def _floats_as_text(numbers: list[float | None], field: str, *, whole_numbers_only: bool) -> tuple[pa.Array, Faults]:
    """pandas writes integers with nulls as floats: 7.0 is the user 7, and NaN is null."""
    faults: Faults = {}
    texts: list[str | None] = []
    for row, number in enumerate(numbers):
        if number is None or number != number:
            texts.append(None)
        elif not whole_numbers_only:
            texts.append(str(number))
        elif number.is_integer():
            texts.append(str(int(number)))
        else:
            texts.append(str(number))
            faults[row] = Fault(WRONG_TYPE, f"{field} = {number!r}: a string or a whole number is expected")
    return pa.array(texts, pa.string()), faults


def _bytes_as_text(values: list[Any], field: str) -> tuple[pa.Array, Faults]:
    faults: Faults = {}
    texts: list[str | None] = []
    for row, value in enumerate(values):
        try:
            texts.append(None if value is None else str(value, "utf-8"))
        except UnicodeDecodeError as error:
            texts.append(None)
            faults[row] = Fault(INVALID_UTF8, f"{field} = {preview(value)}: not UTF-8 at byte {error.start}")
    return pa.array(texts, pa.string()), faults


def _as_values(array: pa.Array, field: str) -> tuple[pa.Array, Faults]:
    array = storable(array)
    try:
        numbers = array.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return value_column([v if isinstance(v, _SCALARS) else str(v) for v in python_values(array)], field)
    if pa.types.is_floating(array.type):
        numbers = pc.if_else(pc.is_nan(numbers), None, numbers)
        array = numbers
    if within_limit(numbers):
        return numbers, {}
    return value_column(array.to_pylist(), field)


def _rendered(table: pa.Table, row: int, broken: Mapping[str, bytes]) -> bytes:
    """A row as JSON. broken: values that are already JSON, but not UTF-8."""
    record: dict[str, Any] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        record[name] = python_value(column[row])
    return msgspec.json.encode(record | {name: msgspec.Raw(value) for name, value in broken.items()}, enc_hook=str)
