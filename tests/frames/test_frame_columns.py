"""Users, times and amounts of frames by the rules of files: the cases that people of pandas bring."""

import datetime as dt
import uuid
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import sessionize
from sessionize.errors import ConfigError, InputError

TIMES = pd.to_datetime(["2026-03-02 10:00", "2026-03-02 10:10", "2026-03-02 11:00"])
AT_10 = 1_772_445_600_000
NAMES = {"user": "user_id", "time": "timestamp"}


def starts(frame: Any, **options: Any) -> list[tuple[str, int, int]]:
    made = sessionize.sessions(frame, **NAMES, **options)
    columns = ["user_id", "session_start_time_ms", "event_count"]
    return [tuple(row) for row in made[columns].itertuples(index=False)]


def frame(users: Any = ("a", "a", "a"), times: Any = TIMES) -> pd.DataFrame:
    return pd.DataFrame({"user_id": users, "timestamp": times})


@pytest.mark.parametrize(
    ("times", "options"),
    [
        (TIMES, {}),
        (TIMES.astype(str), {}),
        (TIMES.tz_localize("UTC"), {}),
        (TIMES.tz_localize("UTC").tz_convert("America/New_York"), {}),
        (pd.Series(list(TIMES.to_pydatetime()), dtype=object), {}),
        (TIMES.strftime("%d.%m.%Y %H:%M"), {"time_format": "%d.%m.%Y %H:%M"}),
        ([1772445600, 1772446200, 1772449200], {"time_format": "s"}),
        ([1772445600.0, 1772446200.0, 1772449200.0], {"time_format": "s"}),
        ([1772445600000000, 1772446200000000, 1772449200000000], {"time_format": "us"}),
        ([str(AT_10), str(AT_10 + 600_000), str(AT_10 + 3_600_000)], {}),
        (TIMES + pd.Timedelta("1h"), {"time_zone": "Europe/Berlin"}),
        (TIMES.astype(str) + " UTC", {"time_zone": "Europe/Berlin"}),
    ],
)
def test_times_in_every_form(times: Any, options: dict[str, Any]) -> None:
    assert starts(frame(times=times), **options) == [("a", AT_10, 2), ("a", AT_10 + 3_600_000, 1)]


@pytest.mark.parametrize("times", [[1772445600, 1772446200], [1772445600.5, 1772446200.5]])
def test_seconds_taken_for_milliseconds_are_warned_of(times: list[float]) -> None:
    with pytest.warns(UserWarning, match="time_format='s'"):
        sessionize.sessions(frame(["a", "a"], times), **NAMES)


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        ([1.0, 1.0, 2.0], ["1", "2"]),
        (pd.array([1, 1, 2]), ["1", "2"]),
        (pd.Categorical(["a", "a", "b"]), ["a", "b"]),
        ([uuid.UUID(int=1)] * 3, [str(uuid.UUID(int=1))]),
    ],
)
def test_users_in_every_form(users: Any, expected: list[str]) -> None:
    made = sessionize.sessions(frame(users, TIMES[[0, 0, 0]]), **NAMES)
    assert sorted(made["user_id"].astype(str)) == expected


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: frame([1.0, 1.0, np.nan]), 'frame.dropna(subset=["user_id"])'),
        (lambda: frame([1.5, 1.0, 2.0]), "1.5 is no whole number"),
        (lambda: frame([1, "a", "a"]), 'frame["user_id"].astype(str)'),
        (lambda: frame(times=[TIMES[0], pd.NaT, TIMES[2]]), 'frame.dropna(subset=["timestamp"])'),
        (lambda: frame(times=["2026-03-02", "soon", "2026-03-02"]), "row 1: timestamp = 'soon'"),
        (lambda: frame(times=[AT_10 * 1000] * 3), "in microseconds it is in 2026"),
        (lambda: pd.DataFrame({"user_id": ["a"]}, index=pd.Index(TIMES[:1], name="timestamp")), "reset_index"),
    ],
)
def test_what_cannot_be_used_is_told_with_the_line_that_mends_it(made: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        sessionize.sessions(made(), **NAMES)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "empty",
    [
        lambda: pd.DataFrame({"user_id": [], "timestamp": []}),
        lambda: frame().iloc[:0],
        lambda: pd.DataFrame({"user_id": pd.Series([], dtype=object), "timestamp": pd.Series([], dtype=object)}),
    ],
)
def test_an_empty_day_is_an_empty_frame(empty: Any) -> None:
    made = sessionize.sessions(empty(), **NAMES)
    assert len(made) == 0
    assert "session_id" in made.columns
    assert len(sessionize.label(empty(), **NAMES)) == 0


def test_a_local_time_that_never_happens() -> None:
    with pytest.raises(InputError, match="no such local time in Europe/Berlin"):
        starts(frame(["a"], ["2021-03-28 02:30:00"]), time_zone="Europe/Berlin")


def test_result_times_as_timestamps() -> None:
    made = sessionize.sessions(pl.DataFrame({"user_id": ["a"], "timestamp": [AT_10]}), times="timestamp", **NAMES)
    assert made["session_start_time"].to_list() == [dt.datetime(2026, 3, 2, 10, tzinfo=dt.UTC)]
    assert made.schema["session_end_time"] == pl.Datetime("ms", "UTC")
    assert "session_start_time_ms" not in made.columns


@pytest.mark.parametrize("gap", [np.timedelta64(30, "m"), np.timedelta64(1800, "s"), pd.Timedelta("30min")])
def test_durations_of_numpy(gap: Any) -> None:
    assert len(starts(frame(), gap=gap)) == 2


@pytest.mark.parametrize("gap", [np.timedelta64(1, "M"), np.timedelta64("NaT"), None, [30]])
def test_what_is_no_duration(gap: Any) -> None:
    with pytest.raises(ConfigError, match="invalid gap"):
        starts(frame(), gap=gap)


@pytest.mark.parametrize("options", [{"time_format": "minutes"}, {"time_zone": "Europe/Berln"}, {"times": "s"}])
def test_options_that_are_no_ones(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        starts(frame(), **options)


def test_text_amounts() -> None:
    events = frame().assign(e="purchase", v=["1.5", "", "2"])
    made = sessionize.sessions(events, value="v", event_type="e", **NAMES)
    assert list(made["revenue"]) == [1.5, 2.0]
    with pytest.raises(InputError, match=r"pandas.to_numeric"):
        sessionize.sessions(events.assign(v="1,5"), value="v", event_type="e", **NAMES)


def test_labels_by_the_same_rules() -> None:
    labelled = sessionize.label(
        frame(times=["02.03.2026", "02.03.2026", "03.03.2026"]), time_format="%d.%m.%Y", **NAMES
    )
    assert labelled["session_id"].nunique() == 2


def test_arrow_users_of_other_types() -> None:
    table = pa.table({"user_id": pa.array([5, 5]).cast(pa.decimal128(38, 0)), "timestamp": [AT_10, AT_10]})
    assert sessionize.sessions(table, **NAMES)["user_id"].to_pylist() == ["5"]
