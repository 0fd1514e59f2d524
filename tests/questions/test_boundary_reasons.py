"""What explain says of the rules that compare events: the values and moments that decided."""

from typing import Any

from hypothesis import given

from sessionize import GapBy, Policy, Rules
from sessionize.analytics.explain import Explanation, explain
from sessionize.testing.comparison import events_table, expected_sessions
from sessionize.testing.strategies import events, policies, rules

MINUTE = 60_000


def of(rows: list[dict[str, Any]], policy: Policy, rules: Rules | None = None) -> Explanation:
    return explain(events_table([{"user": "u", **row} for row in rows]), "u", policy, rules=rules)


def test_a_change_is_named_with_both_values() -> None:
    rows = [{"time": 0, "source": "a", "medium": "x"}, {"time": 1, "source": None, "medium": "y"},
            {"time": 2, "source": "b", "medium": None}, {"time": 3, "source": "(direct)", "medium": "y"}]  # fmt: skip
    found = of(rows, Policy(), Rules(split_on_change=frozenset({"source", "medium"}), split_ignore={"(direct)"}))
    assert [each.began for each in found.sessions] == [
        "inactivity: no earlier event of this user",
        "rule:split_on_change: medium 'x' → 'y'",
        "rule:split_on_change: source 'a' → 'b'",
    ]
    assert [each.ended.partition(":")[0] for each in found.sessions] == ["rule", "rule", "end_of_input"]
    assert found.sessions[0].ended == "rule:split_on_change: medium 'x' → 'y'"


def test_a_day_and_a_number_of_events() -> None:
    found = of(
        [{"time": t * MINUTE} for t in (-70, -61, -60, -59, -58)], Policy(day_start="Europe/Berlin", max_events=2)
    )
    assert [each.began.partition(": ")[2] for each in found.sessions] == [
        "no earlier event of this user",
        "1970-01-01 in Europe/Berlin",
        "2 events in the session before",
    ]


def test_a_silence_where_events_have_their_own_gaps() -> None:
    policy = Policy(gap_ms=MINUTE, gap_by=GapBy(field="app", gaps=(("tv", 10 * MINUTE),)))
    found = of(
        [{"time": 0, "app": "tv"}, {"time": 5 * MINUTE, "app": None}, {"time": 12 * MINUTE, "app": None}], policy
    )
    assert found.sessions[1].began == "inactivity: silence 7m, 2m after the gaps of all events before"
    assert found.sessions[0].ended == "inactivity: silence 7m, longer than the gaps of its events"


def test_sessions_that_are_too_short_are_shown_as_such() -> None:
    found = of([{"time": 0}, {"time": 60 * MINUTE}, {"time": 61 * MINUTE}], Policy(min_events=2))
    assert [each.short for each in found.sessions] == [True, False]


@given(events(max_size=25), policies(writes=True), rules())
def test_every_boundary_of_any_rules_is_explained(rows: list[dict[str, Any]], policy: Policy, rule: Rules) -> None:
    for user in {row["user"] for row in rows}:
        mine = [row for row in rows if row["user"] == user]
        found = explain(events_table(mine), user, policy, rules=rule)
        expected = expected_sessions(mine, policy, rule, short_too=True)
        assert {each.id: each.row["start_reason"] for each in found.sessions} == {
            row["session_id"]: row["start_reason"] for row in expected
        }
        for each in found.sessions:
            assert each.began.startswith(each.row["start_reason"])
            assert each.ended.startswith(each.row["end_reason"])
            assert not each.began.endswith("split_on_change: ")
