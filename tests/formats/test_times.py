"""Raw times of every unit and kind to milliseconds, and what is refused."""

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.formats.time.single import time_of
from sessionize.formats.times import times_of_array, times_of_values
from sessionize.session.limits import TIME_MS_MAX, TIME_MS_MIN

DAY = 86_400_000
GOOD = [
    # value, format, ms
    (1790875556200, "auto", 1790875556200),
    ("1790875556200", "auto", 1790875556200),
    (0, "auto", 0),
    ("0", "auto", 0),
    (-1, "auto", -1),
    ("-1", "ms", -1),
    ("+1", "ms", 1),
    ("007", "ms", 7),
    (" 7 ", "ms", 7),
    (1790875556, "s", 1790875556000),
    ("1790875556", "s", 1790875556000),
    (-1, "s", -1000),
    ("1790875556.2", "s", 1790875556200),
    (1790875556.2, "s", 1790875556200),
    (1790875556.123, "s", 1790875556123),
    (0.0019, "s", 1),
    (-0.0001, "s", -1),
    (-0.001, "s", -1),
    (1.7e9, "s", 1_700_000_000_000),
    ("1.7e9", "s", 1_700_000_000_000),
    (1.999, "ms", 1),
    (-1.001, "ms", -2),
    (1790875556200999, "us", 1790875556200),
    ("1790875556200999", "us", 1790875556200),
    (-1, "us", -1),
    (-1000, "us", -1),
    (-1001, "us", -2),
    (999, "us", 0),
    (1999.9, "us", 1),
    (1790875556200999999, "ns", 1790875556200),
    ("1790875556200999999", "ns", 1790875556200),
    (-1, "ns", -1),
    (-1_000_000, "ns", -1),
    (-1_000_001, "ns", -2),
    ("-1000001", "ns", -2),
    (99_999_999_999_999_999_999, "ns", 99_999_999_999_999),
    ("99999999999999999999", "ns", 99_999_999_999_999),
    (TIME_MS_MIN, "ms", TIME_MS_MIN),
    (TIME_MS_MAX, "ms", TIME_MS_MAX),
    (str(TIME_MS_MAX), "ms", TIME_MS_MAX),
    (TIME_MS_MIN // 1000, "s", TIME_MS_MIN),
    (TIME_MS_MAX // 1000, "s", TIME_MS_MAX - 999),
    (TIME_MS_MAX * 1000 + 999, "us", TIME_MS_MAX),
    (TIME_MS_MIN * 1_000_000, "ns", TIME_MS_MIN),
    (TIME_MS_MAX * 1_000_000 + 999_999, "ns", TIME_MS_MAX),
    ("1970-01-01", "auto", 0),
    ("19700102", "iso8601", DAY),
    ("1970-01-02", "iso8601", DAY),
    ("1970-01-01T01:00", "auto", 3_600_000),
    ("1970-01-01T01", "auto", 3_600_000),
    ("1970-01-01 01:00:00", "auto", 3_600_000),
    ("1970-01-01t01:00:00z", "auto", 3_600_000),
    ("1970-01-01T01:00:00Z", "auto", 3_600_000),
    ("1970-01-01T01:00:00 Z", "auto", 3_600_000),
    (" 1970-01-01T01:00:00Z\n", "auto", 3_600_000),
    ("19700101T010000Z", "auto", 3_600_000),
    ("1970-01-01T00:00:00.1Z", "auto", 100),
    ("1970-01-01T00:00:00,25Z", "auto", 250),
    ("1970-01-01T00:00:00.123456Z", "auto", 123),
    ("1970-01-01T00:00:00.123999999Z", "auto", 123),
    ("1969-12-31T23:59:59.9999Z", "auto", -1),
    ("1969-12-31T23:59:59.999999999", "auto", -1),
    ("1970-01-01T00:00:00.123456789012Z", "auto", 123),
    ("1970-01-01T02:00:00+02:00", "auto", 0),
    ("1970-01-01T02:00:00+0200", "auto", 0),
    ("1970-01-01T02:00:00+02", "auto", 0),
    ("1969-12-31T18:30:00-05:30", "auto", 0),
    ("2024-02-29T00:00:00Z", "auto", 1709164800000),
    ("0001-01-01T00:00:00Z", "auto", TIME_MS_MIN),
    ("9999-12-31T23:59:59.999Z", "auto", TIME_MS_MAX),
    ("9999-12-31T23:59:59.999999Z", "auto", TIME_MS_MAX),
]
REFUSED = [
    # value, format, reason
    (None, "auto", "missing_time"),
    ("", "auto", "missing_time"),
    ("  ", "ms", "missing_time"),
    (True, "auto", "invalid_time"),
    (False, "ms", "invalid_time"),
    (float("nan"), "auto", "invalid_time"),
    (float("inf"), "s", "invalid_time"),
    (float("-inf"), "ns", "invalid_time"),
    ([1], "auto", "invalid_time"),
    ({"a": 1}, "auto", "invalid_time"),
    ("nan", "auto", "invalid_time"),
    ("inf", "s", "invalid_time"),
    ("yesterday", "auto", "invalid_time"),
    ("1.5.6", "ms", "invalid_time"),
    ("1e", "ms", "invalid_time"),
    ("0x1F", "auto", "invalid_time"),
    ("1_000", "auto", "invalid_time"),
    ("١٢٣", "auto", "invalid_time"),
    ("--1", "auto", "invalid_time"),
    ("2024-01-01", "ms", "invalid_time"),
    (1704067200000, "iso8601", "invalid_time"),
    (1.5, "iso8601", "invalid_time"),
    ("1704067200000", "iso8601", "invalid_time"),
    ("2024-1-1", "auto", "invalid_time"),
    ("2024-0101", "auto", "invalid_time"),
    ("2024-01-01T", "auto", "invalid_time"),
    ("2024-01-01X00:00:00", "auto", "invalid_time"),
    ("2024-02-30", "auto", "invalid_time"),
    ("2024-13-01T00:00:00Z", "auto", "invalid_time"),
    ("2024-01-01T24:00:00Z", "auto", "invalid_time"),
    ("2024-01-01T23:60:00Z", "auto", "invalid_time"),
    ("2024-01-01T23:59:60Z", "auto", "invalid_time"),
    ("2024-01-01T00:00:00+24:00", "auto", "invalid_time"),
    ("2024-01-01T00:00:00 CET", "auto", "invalid_time"),
    ("01/02/2024", "auto", "invalid_time"),
    (TIME_MS_MIN - 1, "ms", "time_out_of_range"),
    (TIME_MS_MAX + 1, "ms", "time_out_of_range"),
    (str(TIME_MS_MAX + 1), "auto", "time_out_of_range"),
    (TIME_MS_MAX // 1000 + 1, "s", "time_out_of_range"),
    (TIME_MS_MIN // 1000 - 1, "s", "time_out_of_range"),
    (TIME_MS_MAX * 1000 + 1000, "us", "time_out_of_range"),
    (TIME_MS_MIN * 1000 - 1, "us", "time_out_of_range"),
    (TIME_MS_MAX * 1_000_000 + 1_000_000, "ns", "time_out_of_range"),
    (2**63, "ms", "time_out_of_range"),
    (-(2**70), "ms", "time_out_of_range"),
    ("9" * 200, "ms", "time_out_of_range"),
    ("1e400", "ms", "time_out_of_range"),
    (1e300, "s", "time_out_of_range"),
    (-1e18, "ms", "time_out_of_range"),
    ("0000-12-31T23:59:59Z", "auto", "time_out_of_range"),
    ("0001-01-01T00:00:00+00:01", "auto", "time_out_of_range"),
    ("9999-12-31T23:59:59-00:01", "auto", "time_out_of_range"),
]
UNITS = ["s", "ms", "us", "ns"]


@pytest.mark.parametrize(("value", "time_format", "ms"), GOOD)
def test_accepted(value: object, time_format, ms: int) -> None:
    assert time_of(value, time_format, field="t") == ms
    times = times_of_values([value, value], time_format, field="t")
    assert times.ms.tolist() == [ms, ms]
    assert times.ms.dtype == np.int64
    assert times.faults == {}


@pytest.mark.parametrize(("value", "time_format", "reason"), REFUSED)
def test_refused(value: object, time_format, reason: str) -> None:
    times = times_of_values(["1970-01-01" if time_format == "iso8601" else 1, value], time_format, field="seen_at")
    assert times.faults.keys() == {1}
    assert times.faults[1].reason == reason
    assert "seen_at" in times.faults[1].detail
    assert times.ms[1] == 0


def test_everything_at_once() -> None:
    for time_format in ["auto", "s", "ms", "us", "ns", "iso8601"]:
        good = [(value, ms) for value, f, ms in GOOD if f == time_format]
        bad = [(value, reason) for value, f, reason in REFUSED if f == time_format]
        times = times_of_values([value for value, _ in good + bad], time_format, field="t")
        assert times.ms[: len(good)].tolist() == [ms for _, ms in good]
        assert [times.faults[len(good) + n].reason for n in range(len(bad))] == [reason for _, reason in bad]
        assert len(times.faults) == len(bad)


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "-05:00"])
@pytest.mark.parametrize("unit", UNITS)
def test_arrow_timestamps_know_their_unit_and_zone(unit: str, zone: str | None) -> None:
    per_s = 10 ** (3 * UNITS.index(unit))
    array = pa.array([1_700_000_000 * per_s, None, -1, 0], pa.timestamp(unit, zone))
    times = times_of_array(array, "ns", field="t")
    assert times.ms.tolist() == [1_700_000_000_000, 0, -1000 if unit == "s" else -1, 0]
    assert {row: fault.reason for row, fault in times.faults.items()} == {1: "missing_time"}


def test_arrow_timestamps_out_of_range() -> None:
    times = times_of_array(pa.array([0, 2**62], pa.timestamp("s")), "auto", field="t")
    assert times.faults[1].reason == "time_out_of_range"


@pytest.mark.parametrize(
    ("array", "time_format", "ms"),
    [
        (pa.array([1, 2], pa.int32()), "s", [1000, 2000]),
        (pa.array([1, 2], pa.uint64()), "auto", [1, 2]),
        (pa.array([1.5, -0.25]), "s", [1500, -250]),
        (pa.array(["5", "1970-01-01T00:00:01Z"]), "auto", [5, 1000]),
        (pa.array(["5", "6"], pa.large_string()), "auto", [5, 6]),
        (pa.array(["5", "6"], pa.string_view()), "auto", [5, 6]),
        (pa.array(["5", "6", "5"]).dictionary_encode(), "auto", [5, 6, 5]),
        (pa.array([dt.date(1970, 1, 2), dt.date(1969, 12, 31)], pa.date32()), "s", [DAY, -DAY]),
        (pa.array([dt.date(1970, 1, 2), dt.date(1969, 12, 31)], pa.date64()), "s", [DAY, -DAY]),
        (pa.array([Decimal("1.250"), Decimal("-2.000")]), "s", [1250, -2000]),
        (pa.chunked_array([["1"], ["2", "3"]]), "auto", [1, 2, 3]),
        (pa.chunked_array([], pa.string()), "auto", []),
        (pa.array(["0", "1", "2", "3"])[1:3], "auto", [1, 2]),
        (pa.array(["x", "1970-01-01", "1970-01-02", "x"])[1:3], "auto", [0, DAY]),
    ],
    ids=str,
)
def test_arrow_columns(array: pa.Array, time_format, ms: list[int]) -> None:
    times = times_of_array(array, time_format, field="t")
    assert (times.ms.tolist(), times.faults) == (ms, {})


@pytest.mark.parametrize(
    ("array", "reasons"),
    [
        (pa.array([None, None]), {0: "missing_time", 1: "missing_time"}),
        (pa.array([True, None]), {0: "invalid_time", 1: "missing_time"}),
        (pa.array([1.0, float("nan"), None]), {1: "invalid_time", 2: "missing_time"}),
        (pa.array(["1", "", "x", None]), {1: "missing_time", 2: "invalid_time", 3: "missing_time"}),
        (pa.array([2**64 - 1, 1], pa.uint64()), {0: "time_out_of_range"}),
        (pa.array([[1]]), {0: "invalid_time"}),
    ],
    ids=str,
)
def test_arrow_columns_with_faults(array: pa.Array, reasons: dict[int, str]) -> None:
    times = times_of_array(array, "auto", field="t")
    assert {row: fault.reason for row, fault in times.faults.items()} == reasons


def test_no_times() -> None:
    assert times_of_values([], "auto", field="t").ms.tolist() == []


@given(st.datetimes(), st.sampled_from(["s", "ms", "us"]), st.timezones() | st.just(dt.UTC))
def test_iso_8601_like_python_reads_it(moment: dt.datetime, spec: str, zone: dt.tzinfo) -> None:
    specs = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}
    text = moment.isoformat(timespec=specs[spec])
    read = dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)
    expected = (read - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)
    assert times_of_values([text], "auto", field="t").ms.tolist() == [expected]
    assert times_of_values([text + "Z", text + "+00:00"], "auto", field="t").ms.tolist() == [expected] * 2
    assert time_of(text, "iso8601", field="t") == expected


near_iso = st.builds(
    lambda base, place, what: base[:place] + what + base[place + len(what) % 2 :],
    st.sampled_from(
        ["2024-01-31T23:59:59.999999+02:00", "1969-12-31 00:00:00Z", "2024-02-29", "0001-01-01T00:00", "1752345678123"]
    ),
    st.integers(0, 32),
    st.text("0123456789-:TZ+. ", max_size=2),
)


@given(
    st.lists(near_iso | st.integers(-(10**18), 10**18).map(str), max_size=4),
    st.sampled_from(["auto", "iso8601", "ms", "s", "us", "ns"]),
)
def test_a_column_means_what_its_values_mean(texts: list[str], time_format) -> None:
    times = times_of_values(texts, time_format, field="t")
    each = [time_of(text, time_format, field="t") for text in texts]
    assert [times.faults.get(row, int(ms)) for row, ms in enumerate(times.ms)] == each


@given(
    st.lists(st.floats() | st.floats(-1e12, 1e12) | st.integers().map(float), max_size=5),
    st.sampled_from(["auto", "s", "us", "ns"]),
)
def test_a_column_of_floats_means_what_its_values_mean(numbers: list[float], time_format) -> None:
    times = times_of_values(numbers, time_format, field="t")
    each = [time_of(number, time_format, field="t") for number in numbers]
    assert [times.faults.get(row, int(ms)) for row, ms in enumerate(times.ms)] == each


@given(st.lists(st.integers(), max_size=5), st.sampled_from(["auto", "s", "us", "ns"]))
def test_a_column_of_integers_means_what_its_values_mean(numbers: list[int], time_format) -> None:
    times = times_of_values(numbers, time_format, field="t")
    each = [time_of(number, time_format, field="t") for number in numbers]
    assert [times.faults.get(row, int(ms)) for row, ms in enumerate(times.ms)] == each
