"""Converts columns of raw times to milliseconds since 1970-01-01 UTC.

Columns of one kind (all integers, all digit strings, all ISO 8601, Arrow timestamps) are converted as a whole; other
values are converted one by one, with the same result. Fractions of a millisecond are floored, also below zero; times
before 1970 are valid. Floats of seconds or milliseconds are first rounded to the microsecond, because 0.1 has no
exact binary form.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.formats.rejects import Fault, Faults
from sessionize.formats.storable import python_values
from sessionize.formats.time.forms import TimeFormat, is_pattern
from sessionize.formats.time.local import in_utc
from sessionize.formats.time.patterns import times_of_pattern
from sessionize.formats.time.single import SCALE, invalid, is_local, missing, out_of_range, time_of
from sessionize.session.limits import TIME_MS_MAX, TIME_MS_MIN
from sessionize.session.time import MS_PER_DAY

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_INT64 = np.iinfo(np.int64)
_NAMED_UTC = r"(?:([+-]\d\d:?\d\d) | ?)(?:UTC|GMT)$"
# The bytes allowed in regular times, as tables bool[256].
_DIGIT_BYTES = np.isin(np.arange(256), list(b"0123456789"))
_ISO_BYTES = np.isin(np.arange(256), list(b"0123456789-:TZ+. "))
_ARROW_KINDS: tuple[tuple[TimeFormat, str | None], ...] = (
    ("us", "UTC"),
    ("us", None),
    ("ns", "UTC"),
    ("ns", None),
)


@dataclass(frozen=True, slots=True)
class ParsedTimes:
    """ms: int64[n], 0 where a row has a fault. faults: by row. local: bool[n], the rows whose time names no zone; None
    for none. Their ms are as if it were UTC.
    """

    ms: Ints
    faults: Faults
    local: Bools | None = None

    def in_zone(self, zone: str | None, *, field: str) -> "ParsedTimes":
        """The local times as times of this zone; None leaves them."""
        if zone in (None, "UTC") or self.local is None:
            return self
        ms, faults = in_utc(self.ms, self.local, zone, field=field)
        return ParsedTimes(ms, {**faults, **self.faults}, self.local)

    @property
    def local_count(self) -> int:
        """How many of the times name no zone."""
        return 0 if self.local is None else int(self.local.sum())


def times_of_values(values: Sequence[object], time_format: TimeFormat, *, field: str) -> ParsedTimes:
    """Times from JSON: integers, floats, strings and None, in any mixture. field: its name, for the faults."""
    kinds = set(map(type, values))
    if len(kinds) == 1:
        return _of_kind(next(iter(kinds)), values, time_format, field)
    ms = np.zeros(len(values), np.int64)
    local = np.zeros(len(values), bool)
    faults: Faults = {}
    for kind in kinds:
        rows = [row for row, value in enumerate(values) if type(value) is kind]
        part = _of_kind(kind, [values[row] for row in rows], time_format, field)
        ms[rows] = part.ms
        if part.local is not None:
            local[rows] = part.local
        faults.update((rows[row], fault) for row, fault in part.faults.items())
    return ParsedTimes(ms, faults, local if local.any() else None)


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
    faults.update((int(row), missing(field)) for row in np.flatnonzero(~present))
    local = None
    if part.local is not None:
        local = np.zeros(len(array), bool)
        local[rows] = part.local
    return ParsedTimes(ms, faults, local)


def scaled_ints(numbers: Ints, time_format: TimeFormat, *, field: str) -> ParsedTimes:
    """Whole numbers of the format's unit (auto: milliseconds)."""
    if time_format == "iso8601":
        return _one_by_one(numbers.tolist(), time_format, field)
    times, divided_by = SCALE[time_format]
    low = max(TIME_MS_MIN * divided_by // times, _INT64.min)
    high = min((TIME_MS_MAX * divided_by + divided_by - 1) // times, _INT64.max)
    if not len(numbers) or (numbers.min() >= low and numbers.max() <= high):
        return ParsedTimes(_scale(numbers, times, divided_by), {})
    bad = (numbers < low) | (numbers > high)
    faults = {int(row): out_of_range(int(numbers[row]), field) for row in np.flatnonzero(bad)}
    return ParsedTimes(_scale(np.where(bad, 0, numbers), times, divided_by), faults)


def _scale(numbers: Ints, times: int, divided_by: int) -> Ints:
    if divided_by > 1:
        return numbers // divided_by
    return numbers * times if times > 1 else numbers


def _of_kind(kind: type, values: Sequence[object], time_format: TimeFormat, field: str) -> ParsedTimes:
    if is_pattern(time_format) and kind is int:  # 20260302 with %Y%m%d
        return _of_strings(pa.array(map(str, values), pa.string()), time_format, field)
    if is_pattern(time_format) and kind is not str:
        return _one_by_one(values, time_format, field)
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
        times = scaled_ints(array.cast(pa.int64()).to_numpy(zero_copy_only=False), kind.unit, field=field)
        return times if kind.tz is not None else _as_local(times)
    if pa.types.is_date32(kind):
        days = array.cast(pa.int32()).to_numpy(zero_copy_only=False)
        return _as_local(scaled_ints(days.astype(np.int64) * MS_PER_DAY, "ms", field=field))
    if pa.types.is_date64(kind):
        return _as_local(scaled_ints(array.cast(pa.int64()).to_numpy(zero_copy_only=False), "ms", field=field))
    if pa.types.is_integer(kind):
        if pa.types.is_uint64(kind) or is_pattern(time_format):
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
    times, divided_by = SCALE[time_format]
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
    if is_pattern(time_format):
        return _of_pattern(array, time_format, field)
    given = array
    if len(array) and str(array[0])[-3:].upper() in ("UTC", "GMT"):
        array = pc.replace_substring_regex(array, f"(?i){_NAMED_UTC}", r"\1Z")
        array = pc.replace_substring_regex(array, r"([+-]\d\d:?\d\d)Z$", r"\1")
    whole = _of_regular(array, time_format)
    if whole is not None:
        return whole
    ms = np.zeros(len(array), np.int64)
    local = np.zeros(len(array), bool)
    rest = np.ones(len(array), bool)
    for alphabet in (_DIGIT_BYTES, _ISO_BYTES):
        rows = np.flatnonzero(rest & _written_in(array, alphabet))
        part = _of_regular(array.take(pa.array(rows)), time_format)
        if part is not None:
            ms[rows] = part.ms
            local[rows] = part.local is not None
            rest[rows] = False
    rows = np.flatnonzero(rest)
    values = given.take(pa.array(rows)).to_pylist()
    local[rows] = [is_local(value, time_format) for value in values]
    patched = _patched(ms, rows, values, time_format, field)
    return ParsedTimes(patched.ms, patched.faults, local if local.any() else None)


def _as_local(times: ParsedTimes) -> ParsedTimes:
    return ParsedTimes(times.ms, times.faults, np.ones(len(times.ms), bool))


def _of_pattern(array: pa.Array, pattern: str, field: str) -> ParsedTimes:
    ms, fits, exists, local = times_of_pattern(array, pattern)
    faults: Faults = {}
    for row in np.flatnonzero(~(fits & exists)):
        text = array[int(row)].as_py()
        why = "there is no such time" if fits[row] else f"not of the form {pattern}"
        faults[int(row)] = invalid(text, field, why) if text.strip() else missing(field)
    return ParsedTimes(ms, faults, np.ones(len(array), bool) if local else None)


def _of_regular(array: pa.Array, time_format: TimeFormat) -> ParsedTimes | None:
    """The times of all strings; None if they are of several kinds or one has a fault.

    The kinds: 1 to 18 digits; ISO 8601 that Arrow can read, all with a zone or all without.
    """
    if not len(array):
        return ParsedTimes(np.zeros(0, np.int64), {})
    if time_format != "iso8601" and _written_in(array, _DIGIT_BYTES).all():
        times = scaled_ints(array.cast(pa.int64()).to_numpy(), time_format, field="")
        return None if times.faults else times
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
        return None if times.faults else times if zone else _as_local(times)
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
