"""Times in patterns, in local time, and with the name of a zone behind them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.errors import ConfigError
from sessionize.formats.csv_text.decoder import CsvLines
from sessionize.formats.dialects import Dialect
from sessionize.formats.json_lines import JsonLines
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.times import times_of_array, times_of_values
from sessionize.formats.validation import Decoded

DAYS = st.datetimes(datetime.fromisoformat("1950-01-01"), datetime.fromisoformat("2037-01-01"))


def ms_of(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("pattern", "text", "meant"),
    [
        ("%d/%b/%Y:%H:%M:%S %z", "03/Oct/2016:03:20:11 -0400", "2016-10-03T07:20:11Z"),
        ("%d/%b/%Y:%H:%M:%S %z", " 03/oct/2016:08:22:51 +0100 ", "2016-10-03T07:22:51Z"),
        ("%d.%m.%Y %H:%M", "13.01.2021 10:05", "2021-01-13T10:05:00Z"),
        ("%d.%m.%Y", "1.2.2021", "2021-02-01T00:00:00Z"),
        ("%m/%d/%Y %I:%M %p", "7/30/2023 12:01 am", "2023-07-30T00:01:00Z"),
        ("%m/%d/%Y %I:%M %p", "7/30/2023 12:01 PM", "2023-07-30T12:01:00Z"),
        ("%Y-%m-%d %H:%M:%S.%f", "2021-01-02 03:04:05.9", "2021-01-02T03:04:05.900Z"),
        ("%Y-%m-%d %H:%M:%S.%f", "2021-01-02 03:04:05.123456789", "2021-01-02T03:04:05.123Z"),
        ("%F %T %Z", "2021-01-02 03:04:05 UTC", "2021-01-02T03:04:05Z"),
        ("%F %T%z", "2021-01-02 03:04:05+05:30", "2021-01-01T21:34:05Z"),
        ("%F %T%z", "2021-01-02 03:04:05Z", "2021-01-02T03:04:05Z"),
        ("%a, %d %B %Y %T %z", "Mon, 02 March 2026 10:00:00 +0000", "2026-03-02T10:00:00Z"),
        ("%y%m%d", "690101", "1969-01-01T00:00:00Z"),
        ("%Y%j", "2024366", "2024-12-31T00:00:00Z"),
        ("%s", "1610532000", "2021-01-13T10:00:00Z"),
        ("[%Y] %d %m %%", "[2021] 03 04 %", "2021-04-03T00:00:00Z"),
    ],
)
def test_patterns(pattern: str, text: str, meant: str) -> None:
    for times in (
        times_of_values([text], pattern, field="t"),
        times_of_array(pa.array([text, text]), pattern, field="t"),
    ):
        assert times.faults == {}
        assert set(times.ms.tolist()) == {ms_of(meant)}


@pytest.mark.parametrize(
    ("pattern", "text", "reason"),
    [
        ("%d.%m.%Y", "2021-01-13", "invalid_time"),
        ("%d.%m.%Y", "29.02.2023", "invalid_time"),
        ("%d.%m.%Y", "01.13.2023", "invalid_time"),
        ("%d.%m.%Y", "00.01.2023", "invalid_time"),
        ("%d.%m.%Y %H", "01.01.2023 24", "invalid_time"),
        ("%d %b %Y", "01 Foo 2023", "invalid_time"),
        ("%Y%j", "2023366", "invalid_time"),
        ("%F %T %Z", "2021-01-02 03:04:05 CET", "invalid_time"),
        ("%d.%m.%Y", "01.01.0000", "invalid_time"),
        ("%d.%m.%Y", " ", "missing_time"),
        ("%d.%m.%Y", None, "missing_time"),
        ("%d.%m.%Y", 1.5, "invalid_time"),
        ("%d.%m.%Y", True, "invalid_time"),
    ],
)
def test_what_has_not_the_form_is_rejected(pattern: str, text: object, reason: str) -> None:
    good = "%02d.01.2021" if pattern == "%d.%m.%Y" else ""
    values = [text, good % 5] if good else [text]
    times = times_of_values(values, pattern, field="t")
    assert {row: fault.reason for row, fault in times.faults.items()} == {0: reason}
    assert str(text).strip() in times.faults[0].detail or reason == "missing_time"


@given(DAYS, st.sampled_from(["%Y-%m-%d %H:%M:%S", "%d/%b/%Y:%H:%M:%S"]))
def test_patterns_are_those_of_python(when: datetime, pattern: str) -> None:
    when = when.replace(microsecond=0)
    text = when.strftime(pattern)
    expected = int((when.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))
    assert times_of_values([text], pattern, field="t").ms.tolist() == [expected]


@pytest.mark.parametrize("pattern", ["%q", "%Y", "%d.%m", "%d.%d.%Y", "minutes", "%H:%M"])
def test_unusable_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="time format"):
        Dialect.mapping(user="u", time="t", time_format=pattern)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-03-02 10:00:00 UTC", "2026-03-02T10:00:00Z"),
        ("2026-03-02 10:00:00.123456 UTC", "2026-03-02T10:00:00.123Z"),
        ("2026-03-02 10:00:00 GMT", "2026-03-02T10:00:00Z"),
        ("2026-03-02T10:00:00 utc", "2026-03-02T10:00:00Z"),
        ("2026-03-02 10:00:00 +0200 UTC", "2026-03-02T08:00:00Z"),
        ("2026-03-02 10:00:00+00", "2026-03-02T10:00:00Z"),
    ],
)
def test_names_of_utc_behind_the_time(text: str, meant: str) -> None:
    for times in (times_of_values([text, 5], "auto", field="t"), times_of_array(pa.array([text]), "auto", field="t")):
        assert times.ms.tolist()[0] == ms_of(meant)
        assert times.local is None


def of_json(times: list[Any], dialect: Dialect) -> Decoded:
    decoder = JsonLines(dialect)
    decoder.add("\n".join(json.dumps({"u": "a", "t": time}) for time in times).encode(), source="f")
    return decoder.take()


def of_csv(times: list[Any], dialect: Dialect) -> Decoded:
    decoder = CsvLines(b"u,t", dialect, source="f")
    decoder.add("".join(f"a,{time}\n" for time in times).encode(), source="f")
    return decoder.take()


def of_timestamps(times: list[Any], dialect: Dialect) -> Decoded:
    table = pa.table({"u": ["a"] * len(times), "t": pa.array(times).cast(pa.timestamp("us"))})
    layout = Layout.of(table.schema, dialect, source="f", columns=None, extras=False)
    return Tabular(layout, dialect).decode(table, source="f", line_number=int)


@pytest.mark.parametrize("decode", [of_json, of_csv, of_timestamps])
def test_local_times(decode: Any) -> None:
    """The hour that happens twice is the earlier one; a time that never happens is rejected."""
    dialect = Dialect.mapping(user="u", time="t", time_zone="Europe/Berlin")
    times = ["2021-10-31 02:30:00", "2021-10-31 01:45:00", "2021-03-28 02:30:00", "2021-07-01 12:00:00"]
    decoded = decode(times, dialect)
    meant = ["2021-10-31T00:30:00Z", "2021-10-30T23:45:00Z", "2021-07-01T10:00:00Z"]
    assert decoded.events["event_time_ms"].to_pylist() == list(map(ms_of, meant))
    (rejected,) = decoded.rejected.to_pylist()
    assert rejected["reason"] == "invalid_time"
    assert "2021-03-28 02:30:00: no such local time in Europe/Berlin" in rejected["detail"]
    assert decoded.local_times == 0


@pytest.mark.parametrize("decode", [of_json, of_csv, of_timestamps])
def test_local_times_of_no_zone_are_utc_and_noted(decode: Any) -> None:
    decoded = decode(["2021-10-31 02:30:00", "2021-10-31 01:45:00"], Dialect.mapping(user="u", time="t"))
    assert decoded.events["event_time_ms"].to_pylist() == [1635647400000, 1635644700000]
    assert decoded.local_times == 2


def test_times_with_a_zone_are_not_local() -> None:
    times = [1, "2", "2021-10-31T02:30:00Z", "2021-10-31T02:30:00+02:00", "2021-10-31 02:30:00 UTC", "20211031", 5.5]
    dialect = Dialect.mapping(user="u", time="t", time_zone="America/New_York")
    plain = of_json(times, Dialect.mapping(user="u", time="t"))
    assert plain.local_times == 0
    assert of_json(times, dialect).events.equals(plain.events)


@given(
    DAYS,
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]),
)
def test_local_times_are_those_of_python(when: datetime, zone: str) -> None:
    when = when.replace(microsecond=0, fold=0)
    decoded = of_json([when.isoformat(" ")], Dialect.mapping(user="u", time="t", time_zone=zone))
    aware = when.replace(tzinfo=ZoneInfo(zone))
    utc = aware.astimezone(UTC)
    if utc.astimezone(ZoneInfo(zone)).replace(tzinfo=None) != when:
        assert decoded.rejected["reason"].to_pylist() == ["invalid_time"]
    else:
        assert decoded.events["event_time_ms"].to_pylist() == [int(utc.timestamp() * 1000)]


def test_patterns_in_local_time() -> None:
    dialect = Dialect.mapping(user="u", time="t", time_format="%d.%m.%Y %H:%M", time_zone="Europe/Berlin")
    assert of_csv(["13.07.2021 10:00"], dialect).events["event_time_ms"].to_pylist() == [ms_of("2021-07-13T08:00:00Z")]


def test_unknown_zones_are_refused() -> None:
    with pytest.raises(ConfigError, match="time zone"):
        Dialect.mapping(user="u", time="t", time_zone="Europe/Berln")


@pytest.mark.parametrize(
    ("number", "words"),
    [(1772445600000000, "in microseconds it is in 2026"), (1772445600000000000, "in nanoseconds it is in 2026")],
)
def test_times_of_finer_units_are_told(number: int, words: str) -> None:
    for value in (number, str(number)):
        assert words in times_of_values([value], "auto", field="t").faults[0].detail
