"""Decodes single records, as from Kafka: a list of values to columns.

JSON values are joined with line feeds and decoded as lines, a piece at a time, which is as fast as reading a file.
This module handles values that are not a line: null, empty, or with line feeds inside.
"""

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.formats.dialects import Dialect
from sessionize.formats.json_lines import JsonLines
from sessionize.formats.lines import LINE_BYTES_MAX, PIECE_BYTES
from sessionize.formats.rejects import Fault, Rejects
from sessionize.formats.validation import Decoded
from sessionize.session.columns import REJECTED_SCHEMA

NULL_VALUE = "null_value"
EMPTY_VALUE = "empty_value"
TOMBSTONE = Fault(NULL_VALUE, "the record has no value")
_EMPTY = Fault(EMPTY_VALUE, "the record's value is empty")
_BLANK = b" \t\r\n"

Values = Sequence[bytes | None]
Ints = npt.NDArray[np.int64]


class RecordDecoder(Protocol):
    """Turns the values of one partition into events and rejected records."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The canonical columns of the events."""

    def decode(self, values: Values, offsets: Ints, *, source: str, latest_ms: int | None) -> Decoded:
        """values: one for each record, None for a null. offsets: int64[n], the line numbers of rejected records.

        source: of rejected records. latest_ms: reject later events, None accepts all. Each record becomes an event or a
        rejected record, both in input order.
        """


class JsonRecords:
    """A RecordDecoder for values that are JSON objects."""

    __slots__ = ("_lines",)

    def __init__(
        self,
        dialect: Dialect,
        *,
        columns: frozenset[str] | None = None,
        extras: bool = False,
        value_bytes_max: int = LINE_BYTES_MAX,
    ) -> None:
        """columns, extras: as in JsonLines. Errors: those of JsonLines."""
        self._lines = JsonLines(
            dialect, columns=columns, extras=extras, line_bytes_max=value_bytes_max, plain_users=True
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The canonical columns of the events."""
        return self._lines.columns

    def decode(self, values: Values, offsets: Ints, *, source: str, latest_ms: int | None) -> Decoded:
        """See RecordDecoder."""
        self._lines.latest_ms = latest_ms
        irregular, start = False, 0
        lengths = _lengths(values)
        # a piece ends where the size passes a multiple of PIECE_BYTES
        for stop in (*_piece_ends(lengths), len(values)):
            if stop > start:
                irregular |= self._add(values[start:stop], lengths[start:stop], source, start)
            start = stop
        decoded = self._lines.take()
        rejected = decoded.rejected
        if irregular or len(decoded.events) + len(rejected) != len(values):
            rejected = _with_invalid_values(rejected, values, source)
        return Decoded(
            decoded.events, _numbered(rejected, offsets), nulled=decoded.nulled, local_times=decoded.local_times
        )

    def _add(self, values: Values, lengths: Ints, source: str, start: int) -> bool:
        """Decode a piece; returns whether it has a value that is not exactly one line."""
        irregular = False
        # With a line feed at the end, because an empty last line would not count.
        try:
            text = b"\n".join([*cast(Sequence[bytes], values), b""])
        except TypeError:  # a null: its line stays empty, and decoding skips it
            text = b"\n".join([*(value or b"" for value in values), b""])
            irregular = True
        if text.count(b"\n") != len(values):
            # JSON treats both as white space and allows neither in a string, so valid values stay valid.
            text = b"\n".join([*((value or b"").replace(b"\n", b"\r") for value in values), b""])
            irregular = True
        ends = np.cumsum(lengths + 1) - 1
        self._lines.add(text, source=source, first_line=start, ends=ends)
        return irregular


def _lengths(values: Values) -> Ints:
    try:
        return np.fromiter(map(len, cast(Sequence[bytes], values)), np.int64, len(values))
    except TypeError:
        return np.fromiter((len(value or b"") for value in values), np.int64, len(values))


def _piece_ends(lengths: Ints) -> list[int]:
    """Where to cut, so that no piece exceeds PIECE_BYTES by more than one value."""
    pieces = np.cumsum(lengths) // PIECE_BYTES
    cuts: list[int] = (np.flatnonzero(pieces[1:] != pieces[:-1]) + 1).tolist()
    return cuts


def _with_invalid_values(rejected: pa.Table, values: Values, source: str) -> pa.Table:
    """The rejected records plus null and empty values, with their original bytes."""
    rows = {row["line_number"]: row for row in rejected.to_pylist()}
    for number, value in enumerate(values):
        if value is None or not value.strip(_BLANK):
            fault = TOMBSTONE if value is None else _EMPTY
            rows[number] = {"raw": value, "reason": fault.reason, "detail": fault.detail}
        elif number in rows and b"\n" in value:
            rows[number]["raw"] = value[: len(rows[number]["raw"])]
    rejects = Rejects()
    for number in sorted(rows):
        row = rows[number]
        rejects.add(row["raw"], source=source, line_number=number, fault=Fault(row["reason"], row["detail"]))
    return rejects.take()


def _numbered(rejected: pa.Table, offsets: Ints) -> pa.Table:
    """The rejected records with offsets as line numbers, in place of list positions."""
    if not len(rejected):
        return rejected
    positions = rejected["line_number"].to_numpy()
    at = REJECTED_SCHEMA.get_field_index("line_number")
    return rejected.set_column(at, REJECTED_SCHEMA.field(at), pa.array(offsets[positions]))
