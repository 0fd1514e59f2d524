"""The reasons for rejecting a record, and the table of rejected records.

A reason is a short, stable code; the detail is for people and names the field and the value.
A fault refers to its row by index until the row's bytes and line number are known.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.session.columns import REJECTED_SCHEMA

INVALID_UTF8 = "invalid_utf8"
INVALID_JSON = "invalid_json"
INVALID_CSV = "invalid_csv"
NOT_AN_OBJECT = "not_an_object"
TOO_DEEP = "too_deep"
TOO_MANY_FIELDS = "too_many_fields"
TOO_LARGE = "too_large"
WRONG_TYPE = "wrong_type"
WRONG_COLUMN_COUNT = "wrong_column_count"
NUMBER_OUT_OF_RANGE = "number_out_of_range"
INVALID_NUMBER = "invalid_number"
MISSING_USER = "missing_user"
EMPTY_USER = "empty_user"
USER_TOO_LONG = "user_too_long"
MISSING_TIME = "missing_time"
INVALID_TIME = "invalid_time"
TIME_OUT_OF_RANGE = "time_out_of_range"
FUTURE_TIMESTAMP = "future_timestamp"
TRUNCATED_GZIP = "truncated_gzip"
CORRUPT_GZIP = "corrupt_gzip"
TRUNCATED_COMPRESSION = "truncated_compression"
CORRUPT_COMPRESSION = "corrupt_compression"
CORRUPT_PARQUET = "corrupt_parquet"
CORRUPT_ORC = "corrupt_orc"
CORRUPT_AVRO = "corrupt_avro"
NO_MATCH = "no_match"

RAW_BYTES_MAX = 65_536  # so much of an overlong line is kept
_SHOWN_CHARACTERS = 80


class Fault(NamedTuple):
    """What is wrong with one record."""

    reason: str
    detail: str


Faults = dict[int, Fault]  # by row number within the current piece


def preview(value: object) -> str:
    """A value for people: strings quoted, long ones cut, with their full length."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}... ({len(text)} characters)"


def without(faults: Faults, row_count: int) -> npt.NDArray[np.bool_]:
    """bool[row_count]: which rows have no fault."""
    keep = np.ones(row_count, bool)
    if faults:
        keep[np.fromiter(faults, np.int64, len(faults))] = False
    return keep


class Rejects:
    """Collects rejected records into a table of REJECTED_SCHEMA."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: list[tuple[bytes | None, str, int, str, str]] = []

    def __len__(self) -> int:
        return len(self._records)

    def add(self, raw: bytes | None, *, source: str, line_number: int, fault: Fault) -> None:
        """raw: the record's bytes without a line feed; None if they cannot be read."""
        self._records.append((raw, _unicode(source), line_number, fault.reason, _unicode(fault.detail)))

    def take(self) -> pa.Table:
        """Everything collected since the last take."""
        columns = zip(*self._records, strict=True) if self._records else [()] * len(REJECTED_SCHEMA)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, REJECTED_SCHEMA, strict=True)]
        self._records = []
        return pa.Table.from_arrays(arrays, schema=REJECTED_SCHEMA)


def _unicode(text: str) -> str:
    """A file's name with � for each byte that is not UTF-8: tables accept no other names."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
