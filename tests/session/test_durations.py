"""Durations as people write them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize import ConfigError
from sessionize.session.durations import MS_MAX, format_duration, parse_duration_ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("30m", 1_800_000),
        ("2h", 7_200_000),
        ("1h30m", 5_400_000),
        ("1.5h", 5_400_000),
        ("0.1h", 360_000),
        ("500ms", 500),
        ("45 s", 45_000),
        ("7D", 604_800_000),
        ("10min", 600_000),
        (timedelta(minutes=30), 1_800_000),
        (timedelta(milliseconds=1), 1),
        ("0", 0),
    ],
)
def test_readable(text, ms):
    assert parse_duration_ms(text, name="gap") == ms


@pytest.mark.parametrize("unit", ["m", "h"])
def test_bare_numbers_count_in_the_callers_unit(unit):
    factor = {"m": 60_000, "h": 3_600_000}[unit]
    assert parse_duration_ms("30", name="gap", bare_unit=unit) == 30 * factor
    assert parse_duration_ms(2.5, name="gap", bare_unit=unit) == 2.5 * factor


@pytest.mark.parametrize(
    "bad", ["", "soon", "30", "30 parsecs", "-5m", "m30", "1h-30m", "nan", "inf", "1e400", "0.1ms", "200000d", True, 30]
)
def test_refused_with_name_and_value(bad):
    with pytest.raises(ConfigError) as caught:
        parse_duration_ms(bad, name="gap")
    assert "gap" in caught.value.message
    assert repr(bad) in (caught.value.detail or "")
    assert caught.value.hint


@given(st.integers(0, MS_MAX))
def test_written_durations_read_back(ms):
    assert parse_duration_ms(format_duration(ms), name="gap") == ms
