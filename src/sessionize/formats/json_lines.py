"""NDJSON to columns: whole pieces at a time, and line by line only where a piece has a fault.

The quick path decodes a piece with one call, after a check that every line holds exactly one value. If anything is
irregular, the same decoder reads the lines one by one: a bad line is rejected alone, and both paths give equal results.
"""

from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from sessionize.formats.dialects import Dialect
from sessionize.formats.extra_fields import Extras
from sessionize.formats.further_fields import FIELD_TYPES, field_of_values
from sessionize.formats.json_decoder import REQUIRED, RecordShape, Rows
from sessionize.formats.json_errors import explain, too_large
from sessionize.formats.json_limits import excess, may_exceed
from sessionize.formats.lines import LINE_BYTES_MAX, LineIndex, without_bom
from sessionize.formats.rejects import RAW_BYTES_MAX, TOO_LARGE, Fault, Faults, Rejects, without
from sessionize.formats.scalars import text_column, value_column
from sessionize.formats.times import Ints, ParsedTimes, scaled_ints, times_of_values
from sessionize.formats.validation import DECODED_TYPES, Decoded, validate, without_empty
from sessionize.session.columns import EVENT_ID, EVENT_TIME, USER, VALUE

_BLANK = b" \t\r"
_RETURN, _OPEN, _CLOSE = b"\r{}"
_MISSES_MAX = 2  # after that many failures in a row the quick decoder is tried only
_TRY_EVERY = 16  # once in so many pieces
_UNDECODABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


class JsonLines:
    """Decodes the records of one dialect, piece by piece; `take` returns the events so far."""

    __slots__ = (
        "_extras",
        "_field_types",
        "_fields",
        "_line_bytes_max",
        "_local_times",
        "_nulled",
        "_parts",
        "_pieces",
        "_plain_users",
        "_quick_misses",
        "_rejects",
        "_shape",
        "_strict",
        "_time_field",
        "_time_fields",
        "_time_format",
        "_time_zone",
        "columns",
        "latest_ms",
        "row_count",
    )

    def __init__(
        self,
        dialect: Dialect,
        *,
        columns: frozenset[str] | None = None,
        extras: bool = False,
        latest_ms: int | None = None,
        line_bytes_max: int = LINE_BYTES_MAX,
        plain_users: bool = False,
    ) -> None:
        """columns: the columns to build, None for all that the dialect maps; user and time always.

        extras: keep other fields too (extra_fields.py). latest_ms: reject later events; may be changed between two
        calls. plain_users: no dictionary of users, for callers that number them. Errors: ConfigError if the dialect
        maps a field both as a value and as an object.
        """
        self.columns = dialect.columns_for(columns)
        self.row_count = 0
        self._shape = RecordShape(dialect, self.columns)
        self._field_types = dialect.field_types
        self._strict = dialect.strict
        self._nulled = Counter[str]()
        taken = frozenset({dialect.user_name, *self._field_types})
        self._extras = Extras(self._shape.top_level, taken=taken) if extras else None
        self.latest_ms = latest_ms
        self._line_bytes_max = line_bytes_max
        self._plain_users = plain_users
        self._time_format = dialect.time_format
        self._time_zone = dialect.time_zone
        self._local_times = 0
        self._fields = {column: dialect.described(column) for column in self.columns}
        self._time_field = self._fields[EVENT_TIME]
        self._time_fields = frozenset(dialect.event_time_ms)
        self._pieces = self._quick_misses = 0
        self._rejects = Rejects()
        self._parts: dict[str, list[pa.Array]] = {column: [] for column in self.columns}

    def add(
        self,
        data: memoryview | bytes,
        *,
        source: str,
        first_line: int = 1,
        at_start: bool = False,
        ends: Ints | None = None,
    ) -> int:
        """Decode whole lines; returns their number.

        data: not kept. source, first_line: for rejected lines. at_start: a byte-order mark may come first. ends: the
        ends of the lines if known, as in LineIndex.
        """
        if at_start:
            data = without_bom(data)
        lines = LineIndex(memoryview(data), ends)
        places: Ints | None = None
        faults: Faults = {}
        whole = self._decode_whole(lines)
        if whole is None:
            rows, places, faults = self._decode_each(lines)
            times = None
        else:
            rows, times = whole
        for row, fault in self._gather(lines, rows, places, times).items():
            faults[row if places is None else int(places[row])] = fault
        for line in sorted(faults):
            raw = lines[line]
            if faults[line].reason == TOO_LARGE:
                raw = raw[:RAW_BYTES_MAX]
            self._rejects.add(bytes(raw), source=source, line_number=first_line + line, fault=faults[line])
        return len(lines)

    def flush(self) -> None:
        """Do nothing: a record always ends with its line."""

    def reject(self, raw: bytes | None, *, source: str, line_number: int, fault: Fault) -> None:
        """Reject a record that its reader found invalid."""
        self._rejects.add(raw, source=source, line_number=line_number, fault=fault)

    def reject_long_line(self, head: bytes, size_bytes: int, *, source: str, line_number: int) -> None:
        """Reject a line that is too long to be held in memory."""
        fault = too_large(size_bytes, self._line_bytes_max)
        self._rejects.add(head, source=source, line_number=line_number, fault=fault)

    def take(self) -> Decoded:
        """Everything decoded since the last take; repeated text as dictionaries of distinct values."""
        kinds = {**DECODED_TYPES, **{name: FIELD_TYPES[kind] for name, kind in self._field_types.items()}}
        if self._plain_users:
            kinds[USER] = pa.string()
        arrays = {column: _joined(parts, kinds[column]) for column, parts in self._parts.items()}
        if self._extras is not None:
            arrays |= self._extras.take()
        self._parts = {column: [] for column in self.columns}
        self.row_count = 0
        nulled, self._nulled = self._nulled, Counter()
        local_times, self._local_times = self._local_times, 0
        return Decoded(pa.table(arrays), self._rejects.take(), nulled=nulled, local_times=local_times)

    def _decode_whole(self, lines: LineIndex) -> tuple[Rows, ParsedTimes | None] | None:
        """All lines at once; None if any of them must be decoded alone."""
        if not _regular(lines) or lines.longest > self._line_bytes_max or not lines.is_utf8():
            return None
        if may_exceed(lines):
            return None
        for decoder in (self._quick(), self._shape.general):
            if decoder is None:
                continue
            try:
                rows = decoder.decode_lines(lines.data)
            except _UNDECODABLE:
                continue
            if len(rows) != len(lines):
                return None
            if decoder is self._shape.general:
                return rows, None
            times = self._quick_times(rows)
            if times is not None:
                self._quick_misses = 0
                return rows, times
            self._quick_misses += 1
        return None

    def _quick(self) -> msgspec.json.Decoder[Any] | None:
        """The quick decoder; after recent failures only for one piece in _TRY_EVERY."""
        self._pieces += 1
        worth_it = self._quick_misses < _MISSES_MAX or self._pieces % _TRY_EVERY == 0
        return self._shape.quick if worth_it else None

    def _quick_times(self, rows: Rows) -> ParsedTimes | None:
        try:
            numbers = np.array(self._shape.values(rows, EVENT_TIME), np.int64)
        except OverflowError:
            return None
        times = scaled_ints(numbers, self._time_format, field="")
        return None if times.faults else times

    def _decode_each(self, lines: LineIndex) -> tuple[Rows, Ints, Faults]:
        """The decoded records, the line of each (from 0), and the faults of the others by line."""
        rows: list[Any] = []
        places: list[int] = []
        faults: Faults = {}
        # a few kilobytes of gzip can hold gigabytes of blank lines
        if not bytes(lines.data).strip(_BLANK + b"\n"):
            return rows, np.array(places, np.int64), faults
        all_utf8 = lines.is_utf8()
        for number in range(len(lines)):
            line = lines[number]
            if len(line) > self._line_bytes_max:
                faults[number] = too_large(len(line), self._line_bytes_max)
                continue
            try:
                if not all_utf8:
                    str(line, "utf-8")
                row = self._decode_one(line)
                fault = excess(bytes(line))
                if fault is not None:
                    faults[number] = fault
                    continue
                rows.append(row)
                places.append(number)
            except _UNDECODABLE as error:
                raw = bytes(line)
                if raw.strip(_BLANK):
                    faults[number] = explain(raw, error, self._time_fields)
        return rows, np.array(places, np.int64), faults

    def _decode_one(self, line: memoryview) -> Any:
        try:
            return self._shape.general.decode(line)
        except msgspec.ValidationError:
            if self._strict:
                raise
            return self._shape.decode_leniently(line)

    def _gather(self, lines: LineIndex, rows: Rows, places: Ints | None, times: ParsedTimes | None) -> Faults:
        """Columns of the rows that are events; the faults of the others, by row."""
        if times is None:
            raw_times = self._shape.values(rows, EVENT_TIME)
            times = times_of_values(raw_times, self._time_format, field=self._time_field)
            if self._time_zone is None:
                self._local_times += times.local_count
            times = times.in_zone(self._time_zone, field=self._time_field)
        arrays: dict[str, pa.Array] = {}
        faults: Faults = {}
        user_faults: Faults = {}
        nulled: dict[str, Faults] = {}
        for column in self.columns:
            if column == EVENT_TIME:
                arrays[column] = pa.array(times.ms)
                continue
            array, found = self._column(rows, column)
            arrays[column] = array
            if column == USER:
                user_faults = found
            elif self._strict or column in REQUIRED:
                faults = found | faults
            elif found:
                nulled[column] = found
        faults |= validate(
            arrays[USER],
            times,
            user_faults=user_faults,
            latest_ms=self.latest_ms,
            user_field=self._fields[USER],
            time_field=self._time_field,
        )
        self._nulled.update({column: len(found.keys() - faults.keys()) for column, found in nulled.items()})
        keep = without(faults, len(rows)) if faults else None
        for column, array in arrays.items():
            self._parts[column].append(array if keep is None else array.filter(pa.array(keep)))
        if self._extras is not None:
            kept = places if keep is None else np.flatnonzero(keep) if places is None else places[keep]
            self._extras.add(lines, None if kept is None else kept.tolist())
        self.row_count += len(rows) - len(faults)
        return faults

    def _column(self, rows: Rows, column: str) -> tuple[pa.Array, Faults]:
        values, field = self._shape.values(rows, column), self._fields[column]
        if column in self._field_types:
            return field_of_values(values, self._field_types[column], field)
        if column == VALUE:
            return value_column(values, field)
        text, faults = text_column(values, field, whole_numbers_only=column in (USER, EVENT_ID))
        return (without_empty(text) if column == EVENT_ID else text), faults


def _regular(lines: LineIndex) -> bool:
    """Whether every line begins with { and ends with }.

    Then no value contains a line break: } and { are never adjacent in JSON, and a bare line break in a string is an
    error. So each line holds at least one value, and as many values as lines means exactly one each.
    """
    if not len(lines) or (lines.starts == lines.ends).any():
        return False
    last = lines.text[lines.ends - 1]
    returns = last == _RETURN
    if returns.any():
        last = lines.text[lines.ends - 1 - returns]  # a line that is only a return ends at the line feed before it
    return bool((last == _CLOSE).all() and (lines.text[lines.starts] == _OPEN).all())


def _joined(parts: list[pa.Array], kind: pa.DataType) -> pa.Array:
    if not parts:
        return pa.array([], kind)
    if not pa.types.is_dictionary(kind):
        return pa.concat_arrays(parts)
    return pa.chunked_array(parts).dictionary_encode().combine_chunks()
