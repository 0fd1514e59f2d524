"""Converts columns of raw times to milliseconds since 1970-01-01 UTC.

Columns of one kind (all integers, all digit strings, all ISO 8601, Arrow timestamps) are converted as a whole; other
values are converted one by one, with the same result. Fractions of a millisecond are floored, also below zero; times
before 1970 are valid. Floats of seconds or milliseconds are first rounded to the microsecond, because 0.1 has no
exact binary form.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.formats.dialects import TimeFormat
from sessionize.formats.rejects import INVALID_TIME, MISSING_TIME, TIME_OUT_OF_RANGE, Fault, Faults, preview
from sessionize.formats.storable import python_values
from sessionize.session.limits import TIME_MS_MAX, TIME_MS_MIN
from sessionize.session.time import EPOCH_DATE, MS_PER_DAY

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_INT64 = np.iinfo(np.int64)
# Factor from the unit to milliseconds: (times, divided by).
_SCALE: dict[str, tuple[int, int]] = {
    "auto": (1, 1),
    "ms": (1, 1),
    "s": (1000, 1),
    "us": (1, 1000),
    "ns": (1, 1_000_000),
}
_UNIT_NAME = {
    "auto": "milliseconds",
    "ms": "milliseconds",
    "s": "seconds",
    "us": "microseconds",
    "ns": "nanoseconds",
}

_DIGITS = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_ISO = re.compile(
    r"(?P<year>\d{4})(?P<dash>-?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
    r"(?:[Tt ](?P<hour>\d\d)(?:(?P<colon>:?)(?P<minute>\d\d)(?:(?P=colon)(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?)?"
    r" ?(?P<zone>[Zz]|(?P<sign>[+-])(?P<zone_hour>\d\d)(?::?(?P<zone_minute>\d\d))?)?)?",
    re.ASCII,
)
# The bytes allowed in regular times, as tables bool[256].
_DIGIT_BYTES = np.isin(np.arange(256), list(b"0123456789"))
_ISO_BYTES = np.isin(np.arange(256), list(b"0123456789-:TZ+. "))
_ARROW_KINDS: tuple[tuple[TimeFormat, str | None], ...] = (
    ("us", "UTC"),
    ("us", None),
    ("ns", "UTC"),
    ("ns", None),
)
_LONGEST_TIME = 64  # characters; nothing longer can be a time of the years 1 to 9999
_EPOCH_DAY = EPOCH_DATE.toordinal()


@dataclass(frozen=True, slots=True)
class ParsedTimes:
    """ms: int64[n], 0 where a row has a fault. faults: by row."""

    ms: Ints
    faults: Faults


def times_of_values(values: Sequence[object], time_format: TimeFormat, *, field: str) -> ParsedTimes:
    """Times from JSON: integers, floats, strings and None, in any mixture. field: its name, for the faults."""
    kinds = set(map(type, values))
    if len(kinds) == 1:
        return _of_kind(next(iter(kinds)), values, time_format, field)
    ms = np.zeros(len(values), np.int64)
    faults: Faults = {}
    for kind in kinds:
        rows = [row for row, value in enumerate(values) if type(value) is kind]
        part = _of_kind(kind, [values[row] for row in rows], time_format, field)
        ms[rows] = part.ms
        faults.update((rows[row], fault) for row, fault in part.faults.items())
    return ParsedTimes(ms, faults)


def times_of_array(array: pa.Array | pa.ChunkedArray, time_format: TimeFormat, *, field: str) -> ParsedTimes:
    """Times in an Arrow column of any type; timestamps and dates have their own unit, the others use time_format."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_binary_view(array.type):
        array = array.cast(pa.binary())
    if array.null_count == 0:
        return _of_array(array, time_format, field)
    present = array.is_valid().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(present)
    part = _of_array(array.filter(pa.array(present)), time_format, field)
    ms = np.zeros(len(array), np.int64)
    ms[rows] = part.ms
    faults = {int(rows[row]): fault for row, fault in part.faults.items()}
    faults.update((int(row), _missing(field)) for row in np.flatnonzero(~present))
    return ParsedTimes(ms, faults)


def scaled_ints(numbers: Ints, time_format: TimeFormat, *, field: str) -> ParsedTimes:
    """Whole numbers of the format's unit (auto: milliseconds)."""
    if time_format == "iso8601":
        return _one_by_one(numbers.tolist(), time_format, field)
    times, divided_by = _SCALE[time_format]
    low = max(TIME_MS_MIN * divided_by // times, _INT64.min)
    high = min((TIME_MS_MAX * divided_by + divided_by - 1) // times, _INT64.max)
    if not len(numbers) or (numbers.min() >= low and numbers.max() <= high):
        return ParsedTimes(_scale(numbers, times, divided_by), {})
    bad = (numbers < low) | (numbers > high)
    faults = {int(row): _out_of_range(int(numbers[row]), field) for row in np.flatnonzero(bad)}
    return ParsedTimes(_scale(np.where(bad, 0, numbers), times, divided_by), faults)


def _scale(numbers: Ints, times: int, divided_by: int) -> Ints:
    if divided_by > 1:
        return numbers // divided_by
    return numbers * times if times > 1 else numbers


def _of_kind(kind: type, values: Sequence[object], time_format: TimeFormat, field: str) -> ParsedTimes:
    if kind is int:
        try:
            return scaled_ints(np.array(values, np.int64), time_format, field=field)
        except OverflowError:
            return _one_by_one(values, time_format, field)
    if kind is float:
        return _of_floats(np.array(values, np.float64), time_format, field)
    if kind is str:
        return _of_strings(pa.array(values, pa.string()), time_format, field)
    return _one_by_one(values, time_format, field)


def _of_array(array: pa.Array, time_format: TimeFormat, field: str) -> ParsedTimes:
    """array: no nulls, not a dictionary."""
    kind = array.type
    if pa.types.is_timestamp(kind):
        numbers = array.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return scaled_ints(numbers, kind.unit, field=field)
    if pa.types.is_date32(kind):
        days = array.cast(pa.int32()).to_numpy(zero_copy_only=False)
        return scaled_ints(days.astype(np.int64) * MS_PER_DAY, "ms", field=field)
    if pa.types.is_date64(kind):
        return scaled_ints(array.cast(pa.int64()).to_numpy(zero_copy_only=False), "ms", field=field)
    if pa.types.is_integer(kind):
        if pa.types.is_uint64(kind):
            return times_of_values(array.to_pylist(), time_format, field=field)
        return scaled_ints(array.cast(pa.int64()).to_numpy(zero_copy_only=False), time_format, field=field)
    if pa.types.is_floating(kind):
        return _of_floats(array.cast(pa.float64()).to_numpy(zero_copy_only=False), time_format, field)
    if pa.types.is_decimal(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        array = array.cast(pa.string())
    if pa.types.is_string(array.type):
        return _of_strings(array, time_format, field)
    return _one_by_one(python_values(array), time_format, field)


def _of_floats(numbers: Floats, time_format: TimeFormat, field: str) -> ParsedTimes:
    if time_format == "iso8601":
        return _one_by_one(numbers.tolist(), time_format, field)
    times, divided_by = _SCALE[time_format]
    # All values not clearly in range are checked one by one, also NaN.
    inside = np.abs(numbers) < min(-TIME_MS_MIN * divided_by // times * 0.99, 9e18)
    safe = np.where(inside, numbers, 0.0)
    if divided_by == 1:
        ms = np.rint(safe * (times * 1000.0)).astype(np.int64) // 1000
    else:
        ms = np.floor(safe).astype(np.int64) // divided_by
    return _patched(ms, np.flatnonzero(~inside), [float(n) for n in numbers[~inside]], time_format, field)


def _of_strings(array: pa.Array, time_format: TimeFormat, field: str) -> ParsedTimes:
    """array: string without nulls. As a whole if possible; else digit strings, likely ISO 8601, and the rest."""
    ms = _of_regular(array, time_format)
    if ms is not None:
        return ParsedTimes(ms, {})
    ms = np.zeros(len(array), np.int64)
    rest = np.ones(len(array), bool)
    for alphabet in (_DIGIT_BYTES, _ISO_BYTES):
        rows = np.flatnonzero(rest & _written_in(array, alphabet))
        part = _of_regular(array.take(pa.array(rows)), time_format)
        if part is not None:
            ms[rows] = part
            rest[rows] = False
    rows = np.flatnonzero(rest)
    return _patched(ms, rows, array.take(pa.array(rows)).to_pylist(), time_format, field)


def _of_regular(array: pa.Array, time_format: TimeFormat) -> Ints | None:
    """ms of all strings; None if they are of several kinds or one has a fault.

    The kinds: 1 to 18 digits; ISO 8601 that Arrow can read, all with a zone or all without.
    """
    if not len(array):
        return np.zeros(0, np.int64)
    if time_format != "iso8601" and _written_in(array, _DIGIT_BYTES).all():
        times = scaled_ints(array.cast(pa.int64()).to_numpy(), time_format, field="")
        return None if times.faults else times.ms
    if time_format not in ("auto", "iso8601"):
        return None
    for unit, zone in _ARROW_KINDS:
        kind = pa.timestamp(unit, tz=zone)
        try:
            array[:1].cast(kind)  # a failing cast is slow, because it describes every value that it cannot read
            numbers = array.cast(kind).cast(pa.int64()).to_numpy()
        except pa.ArrowInvalid:
            continue
        times = scaled_ints(numbers, unit, field="")
        return None if times.faults else times.ms
    return None


def _written_in(array: pa.Array, alphabet: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """bool[n]: which strings have 1 to 35 bytes, all of the alphabet (digits: at most 18, so that they fit int64)."""
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    lengths = np.diff(offsets)
    longest = 18 if alphabet is _DIGIT_BYTES else 35
    text = np.frombuffer(array.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    fits: npt.NDArray[np.bool_] = (lengths > 0) & (lengths <= longest)
    foreign = ~alphabet[text]
    if foreign.any():
        # The running count of other bytes stays constant over a valid string.
        seen = np.concatenate(([0], np.cumsum(foreign)))
        fits &= np.diff(seen[offsets - offsets[0]]) == 0
    return fits


def _patched(
    ms: Ints, rows: npt.NDArray[np.intp], values: Sequence[object], time_format: TimeFormat, field: str
) -> ParsedTimes:
    """Set the rows that were converted one by one in ms."""
    part = _one_by_one(values, time_format, field)
    ms[rows] = part.ms
    return ParsedTimes(ms, {int(rows[row]): fault for row, fault in part.faults.items()})


def _one_by_one(values: Sequence[object], time_format: TimeFormat, field: str) -> ParsedTimes:
    ms = np.zeros(len(values), np.int64)
    faults: Faults = {}
    for row, value in enumerate(values):
        time = time_of(value, time_format, field=field)
        if isinstance(time, Fault):
            faults[row] = time
        else:
            ms[row] = time
    return ParsedTimes(ms, faults)


def time_of(value: object, time_format: TimeFormat, *, field: str) -> int | Fault:
    """One raw time to ms UTC, or its fault. The whole-column paths give the same results."""
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return _missing(field)
        if time_format == "iso8601":
            return _iso_of(text, value, field)
        if _DIGITS.fullmatch(text):
            number: float | int = int(text) if len(text) <= _LONGEST_TIME else float("inf")
        elif _NUMBER.fullmatch(text):
            number = float(text)
        elif time_format == "auto":
            return _iso_of(text, value, field)
        else:
            return _invalid(value, field, f"not a number of {_UNIT_NAME[time_format]}")
        if number in (float("inf"), float("-inf")):
            return _out_of_range(value, field)
        return _number_of(number, value, time_format, field)
    if value is None:
        return _missing(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _invalid(value, field, "not a time")
    if time_format == "iso8601":
        return _invalid(value, field, "a number, not an ISO 8601 time")
    return _number_of(value, value, time_format, field)


def _number_of(number: float | int, value: object, time_format: TimeFormat, field: str) -> int | Fault:
    times, divided_by = _SCALE[time_format]
    if isinstance(number, float) and not number.is_integer():
        if number != number or number in (float("inf"), float("-inf")):
            return _invalid(value, field, "not a finite number")
        in_us = divided_by == 1 and abs(number) < 1e18
        ms = round(number * (times * 1000.0)) // 1000 if in_us else int(number // 1) * times // divided_by
    else:
        ms = int(number) * times // divided_by
    return ms if TIME_MS_MIN <= ms <= TIME_MS_MAX else _out_of_range(value, field)


def _iso_of(text: str, value: object, field: str) -> int | Fault:
    match = _ISO.fullmatch(text) if len(text) <= _LONGEST_TIME else None
    if match is None:
        return _invalid(value, field, "not an ISO 8601 time")
    year, month, day = int(match["year"]), int(match["month"]), int(match["day"])
    hour, minute, second = (int(match[part] or 0) for part in ("hour", "minute", "second"))
    zone_hour, zone_minute = int(match["zone_hour"] or 0), int(match["zone_minute"] or 0)
    if hour > 23 or minute > 59 or second > 59 or zone_hour > 23 or zone_minute > 59:
        return _invalid(value, field, "there is no such time of day")
    if year == 0:
        return _out_of_range(value, field)
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        return _invalid(value, field, "there is no such day")
    ms = days * MS_PER_DAY + hour * 3_600_000 + minute * 60_000 + second * 1_000
    ms += int((match["fraction"] or "")[:3].ljust(3, "0"))
    ms -= (zone_hour * 60 + zone_minute) * 60_000 * (-1 if match["sign"] == "-" else 1)
    return ms if TIME_MS_MIN <= ms <= TIME_MS_MAX else _out_of_range(value, field)


def _missing(field: str) -> Fault:
    return Fault(MISSING_TIME, f"the time ({field}) is missing, null or empty")


def _invalid(value: object, field: str, why: str) -> Fault:
    return Fault(INVALID_TIME, f"{field} = {preview(value)}: {why}")


def _out_of_range(value: object, field: str) -> Fault:
    return Fault(TIME_OUT_OF_RANGE, f"{field} = {preview(value)}: outside the years 0001 to 9999")
