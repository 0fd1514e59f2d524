"""Days of a zone, gaps of events, values that split, and the stored forms of the rules that compare events."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize import GapBy, Policy, Rules
from sessionize.errors import ConfigError
from sessionize.kernel.cuts.runs import changes, first_rows, last_rows_with_value, running_maximum
from sessionize.session.event_gaps import event_gaps_ms
from sessionize.session.limits import TIME_MS_MAX, TIME_MS_MIN
from sessionize.session.local_days import local_day, local_days
from sessionize.session.spec import SessionSpec
from sessionize.session.split_values import split_values

ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Africa/Casablanca", "Asia/Kathmandu")


def ms(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        milliseconds=1
    )


@pytest.mark.parametrize(
    ("zone", "last", "first"),
    [
        ("UTC", "2021-03-27T23:59:59.999", "2021-03-28"),
        ("Europe/Berlin", "2021-03-27T22:59:59.999", "2021-03-27T23:00"),
        ("Europe/Berlin", "2021-03-28T21:59:59.999", "2021-03-28T22:00"),  # a day of 23 hours
        ("Europe/Berlin", "2021-10-31T22:59:59.999", "2021-10-31T23:00"),  # of 25
        ("Europe/Berlin", "2200-07-01T21:59:59.999", "2200-07-01T22:00"),  # by the rule that holds for ever
        ("Asia/Kathmandu", "2021-01-01T18:14:59.999", "2021-01-01T18:15"),
        ("Pacific/Apia", "2011-12-30T09:59:59.999", "2011-12-30T10:00"),  # 30 December was left out
    ],
)
def test_a_day_begins_at_midnight_of_the_zone(zone: str, last: str, first: str) -> None:
    before, after = local_days(np.array([ms(last), ms(first)]), zone).tolist()
    assert after - before == (2 if zone == "Pacific/Apia" else 1)


@pytest.mark.parametrize("zone", ZONES)
def test_many_days_at_once_are_those_one_by_one(zone: str) -> None:
    drawn = random.Random(zone)
    times = [drawn.randint(ms("1970-01-01"), ms("2060-01-01")) for _ in range(400)] + [TIME_MS_MIN, TIME_MS_MAX, 0, -1]
    for some in (times, times[:1], times[-4:], []):
        assert local_days(np.array(some, np.int64), zone).tolist() == [local_day(each, zone) for each in some]


@given(st.lists(st.tuples(st.integers(-(2**50), 2**50), st.booleans()), min_size=1, max_size=40), st.booleans())
def test_running_maximum(rows: list[tuple[int, bool]], near: bool) -> None:
    """near: the values fit into one key with the group, and take the quick way."""
    value = np.array([v % 100 if near else v * 2**12 for v, _ in rows], np.int64)
    begins = np.array([True, *(begin for _, begin in rows[1:])])
    expected: list[int] = []
    for each, begin in zip(value.tolist(), begins.tolist(), strict=True):
        expected.append(each if begin else max(each, expected[-1]))
    assert running_maximum(value, begins).tolist() == expected


@given(st.lists(st.tuples(st.integers(-1, 2), st.booleans()), min_size=1, max_size=40))
def test_changes_within_runs(rows: list[tuple[int, bool]]) -> None:
    code, begins = np.array([c for c, _ in rows], np.int32), np.array([True, *(b for _, b in rows[1:])])
    known, expected = -1, []
    for each, begin in zip(code.tolist(), begins.tolist(), strict=True):
        known = -1 if begin else known
        expected.append(-1 not in (each, known) and each != known)
        known = known if each < 0 else each
    run_first = first_rows(begins)
    assert changes(code, last_rows_with_value(code, run_first), run_first).tolist() == expected


@pytest.mark.parametrize(
    ("values", "gaps"),
    [
        (pa.array([None, 0, -5, 1, 90], pa.int64()), [7, 7, 7, 1_000, 60_000]),
        (pa.array([None, float("nan"), float("inf"), 0.0009, 0.001, 1.9999]), [7, 7, 60_000, 7, 1, 1_999]),
        (pa.array([None, "", "x", "2", "1m30s", "0", "-3", "0.5", "30s"]), [7, 7, 7, 2_000, 60_000, 7, 7, 500, 30_000]),
        (pa.array(["2", None, "2"]).dictionary_encode(), [2_000, 7, 2_000]),
        (pa.nulls(2), [7, 7]),
    ],
)
def test_the_gap_that_an_event_brings(values: pa.Array, gaps: list[int]) -> None:
    by = GapBy(field="timeout", unit="s", longest_ms=60_000)
    assert event_gaps_ms(pa.table({"timeout": values}), by, 7).tolist() == gaps


def test_the_gap_by_a_table_goes_by_the_value_as_text() -> None:
    by = GapBy.of(field="app", gaps={"tv": "4h", "7": "1m"})
    for values in (pa.array(["tv", "7", "TV", None]), pa.array([7, 8, None])):
        table = {"tv": 4 * 3_600_000, "7": 60_000}
        wanted = [table.get(str(value), 1) for value in values.to_pylist()]
        assert event_gaps_ms(pa.table({"app": values}), by, 1).tolist() == wanted


def test_values_that_count() -> None:
    rules = Rules(split_on_change=frozenset({"b", "a"}), split_ignore=frozenset({"(direct)", "*.pay.example*", "1"}))
    texts = ["x", "", None, "(direct)", "(Direct)", "https://www.pay.example/a\nb", "payexample", "(direct) "]
    found = split_values(pa.table({"a": texts, "b": [1, 2, None, 1, 2, 2, 2, 2]}), rules)
    assert list(found) == ["a", "b"]
    assert found["a"].to_pylist() == ["x", None, None, None, "(Direct)", None, "payexample", "(direct) "]
    assert found["b"].to_pylist() == [None, "2", None, None, "2", "2", "2", "2"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Policy(day_start="Europe/Atlantis"), "unknown time zone"),
        (lambda: Policy(day_start="../../etc/passwd"), "unknown time zone"),
        (lambda: Policy(max_events=0), "max_events must be at least 1"),
        (lambda: Policy(min_events=0), "min_events must be at least 1"),
        (lambda: Policy(min_duration_ms=-1), "min_duration_ms must be at least 0"),
        (lambda: Policy(max_events=2, min_events=3), "no session can have as many events"),
        (lambda: Policy(bounce=("two_pages",)), "unknown condition of a bounce"),
        (lambda: Policy(bounce=("10s", "20s")), "two durations"),
        (lambda: GapBy(field=""), "gap_by needs a field"),
        (lambda: GapBy(field="a", gaps=(("b", 0),)), "a gap must be longer than zero"),
        (lambda: GapBy(field="a", gaps=(("b", 1),), unit="s"), "no effect"),
        (lambda: Rules(split_ignore=frozenset({"x"})), "no effect without split_on_change"),
        (lambda: Rules(split_on_change="source"), "must be a set of fields"),
    ],
)
def test_rules_that_cannot_be_meant(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


def test_rules_that_compare_are_stored_and_told_apart() -> None:
    policy = Policy.of(
        gap_by={"field": "app", "gaps": {"tv": "4h"}}, day_start="Europe/Berlin", max_events=500, min_events=2,
        min_duration="5s", bounce=["10s", "one_page"],
    )  # fmt: skip
    rules = Rules(split_on_change=frozenset({"source"}), split_ignore=frozenset({"(direct)"}))
    there = SessionSpec.of(policy, rules, pipeline="web", user_column="u")
    assert SessionSpec.from_json(there.to_json()) == there
    assert there.rules() == rules
    assert Policy(**policy.record()) == policy
    here = SessionSpec.of(Policy(), Rules(), pipeline="web", user_column="u")
    assert [each.key for each in there.differences(here)] == [
        "rules.gap_by", "rules.day_start", "rules.max_events", "rules.min_events", "rules.min_duration", "rules.bounce",
        "rules.split_on_change", "rules.split_ignore",
    ]  # fmt: skip


def test_a_record_without_these_rules_is_that_of_before() -> None:
    """So a program of before reads it, and this one reads what that one wrote."""
    spec = SessionSpec.of(Policy(), Rules(), pipeline="web", user_column="u")
    for name in ("gap_by", "day_start", "max_events", "min_", "bounce", "split_"):
        assert name not in spec.to_json()
    assert set(Policy().record()) == {"gap_ms", "gap_boundary", "max_duration_ms", "max_duration_mode", "session_ids"}
