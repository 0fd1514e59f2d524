"""The difference of two policies equals that of plain loops over the sessions of the reference."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sessionize.analytics.policy_diff import KINDS, PolicyDiff
from sessionize.analytics.two_cuts import Side
from sessionize.kernel.reference import reference_sessions
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.testing import strategies
from sessionize.testing.comparison import _columns, _flagged, _is_written, events_table
from tests.questions.commands import coded

Session = tuple[frozenset[int], int, dict[str, Any], bool]
_VALUES = ("has_conversion", "revenue", "start_reason", "end_reason")


def plain_sessions(rows: list[dict[str, Any]], side: Side) -> list[Session]:
    """(rows, first row, columns, whether it is written) of each session, by the reference."""
    flagged = [{**_flagged(row, side.policy, side.rules), "row": at} for at, row in enumerate(rows)]
    kept = [row for row in flagged if row["type"] not in side.rules.excluded_events]
    end_ms = max(row["time"] for row in rows)
    made = reference_sessions(kept, side.policy, expects_end=bool(side.rules.end_events), end_ms=end_ms)
    return [
        (
            frozenset(e["row"] for e in s["events"]),
            s["events"][0]["row"],
            dict(_columns(s, side.policy, made)),
            _is_written(s, side.policy),
        )
        for s in made
    ]


def brute_force(rows: list[dict[str, Any]], a: Side, b: Side) -> tuple[Counter[Any], Counter[Any]]:
    """(kind, sessions of A, of B) of each change, and (side, reason) of each boundary that one side has alone."""
    if not rows:
        return Counter(), Counter()
    both = plain_sessions(rows, a), plain_sessions(rows, b)
    waiting = [(side, number) for side in (0, 1) for number in range(len(both[side]))]
    changes: Counter[Any] = Counter()
    while waiting:
        group = [waiting.pop()]
        for side, number in group:  # grows while it is read
            mine = both[side][number][0]
            near = [(s, n) for s, n in waiting if s != side and both[s][n][0] & mine]
            group += near
            waiting = [each for each in waiting if each not in near]
        in_a, in_b = ([both[s][n] for s, n in group if s == side] for side in (0, 1))
        na, nb = (sum(session[3] for session in its) for its in (in_a, in_b))
        if na or nb:
            changes[kind_of(in_a, in_b, na, nb), na, nb] += 1
    first_a, first_b = ({session[1]: session[2]["start_reason"] for session in its} for its in both)
    boundaries = Counter(("a", reason) for row, reason in first_a.items() if row not in first_b)
    boundaries.update(("b", reason) for row, reason in first_b.items() if row not in first_a)
    return changes, boundaries


def kind_of(in_a: list[Session], in_b: list[Session], na: int, nb: int) -> str:
    if not na or not nb:
        return "only_a" if na else "only_b"
    if (na, nb) != (1, 1):
        return "split" if na == 1 else "merged" if nb == 1 else "moved"
    if len(in_a) > 1 or len(in_b) > 1 or in_a[0][0] != in_b[0][0]:
        return "resized"
    one, other = in_a[0][2], in_b[0][2]
    if any(one[name] != other[name] for name in _VALUES):
        return "revalued"
    return "same" if one["session_id"] == other["session_id"] else "renamed"


def found(rows: list[dict[str, Any]], a: Side, b: Side, keep: int = 3) -> PolicyDiff:
    diff = PolicyDiff(a=a, b=b, keep=keep)
    diff.add(diff.of(coded(events_table(rows)), max((row["time"] for row in rows), default=0)))
    return diff


SIDES = st.builds(Side, name=st.just("x"), policy=strategies.policies(writes=True), rules=strategies.rules())


def in_numbers(diff: PolicyDiff) -> dict[str, tuple[int, int, int]]:
    return {k: (n, diff.sessions_a[k], diff.sessions_b[k]) for k, n in diff.changes.items() if n}


@settings(max_examples=150, deadline=None)
@given(strategies.events(max_size=40), SIDES, SIDES)
@example([], Side(name="a", policy=Policy(), rules=Rules()), Side(name="b", policy=Policy(), rules=Rules()))
def test_a_difference_equals_that_of_plain_loops(rows: list[dict[str, Any]], a: Side, b: Side) -> None:
    rows = with_equal_copies(rows)
    diff = found(rows, a, b)
    changes, boundaries = brute_force(rows, a, b)
    expected: dict[str, tuple[int, int, int]] = {}
    for (kind, na, nb), count in changes.items():
        before = expected.get(kind, (0, 0, 0))
        expected[kind] = (before[0] + count, before[1] + na * count, before[2] + nb * count)
    assert in_numbers(diff) == expected
    assert diff.boundaries == boundaries
    # the sessions of the kinds add up to those of each side
    assert sum(diff.sessions_a.values()) == diff.figures_a.durations.sessions
    assert sum(diff.sessions_b.values()) == diff.figures_b.durations.sessions
    for kind, shown in diff.examples.items():
        assert len(shown) == min(3, diff.changes[kind])


def with_equal_copies(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events of one user and id differ in nothing but their time.

    Which of several different ones counts depends on the fields that a policy compares, so it is another event then.
    """
    first: dict[tuple[str, str], dict[str, Any]] = {}
    return [
        row if row["id"] is None else first.setdefault((row["user"], row["id"]), row) | {"time": row["time"]}
        for row in rows
    ]


@settings(max_examples=60, deadline=None)
@given(strategies.events(max_size=40), SIDES)
def test_a_policy_does_not_differ_from_itself(rows: list[dict[str, Any]], side: Side) -> None:
    diff = found(rows, side, side)
    assert diff.is_empty
    assert set(in_numbers(diff)) <= {"same"}
    assert diff.examples == {}
    assert all(each["difference"] == 0 for each in diff.as_dict()["figures"].values())


@settings(max_examples=40, deadline=None)
@given(strategies.events(max_size=40), SIDES, SIDES)
def test_parts_of_the_users_add_up(rows: list[dict[str, Any]], a: Side, b: Side) -> None:
    end_ms = max((row["time"] for row in rows), default=0)
    added = PolicyDiff(a=a, b=b, keep=4)
    for part in ([row for row in rows if (row["user"] < "b") == early] for early in (True, False)):
        added.add(added.of(coded(events_table(part)), end_ms))
    assert added.as_dict() == found(rows, a, b, keep=4).as_dict()


def side(policy: Policy, **rules: Any) -> Side:
    return Side(name="x", policy=policy, rules=Rules(**rules))


VISIT = [{"user": "u", "time": minute * 60_000, "type": "view", "page": "home"} for minute in (0, 20, 40, 100, 110)]


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        (side(Policy.of(gap="30m")), side(Policy.of(gap="15m")), "split"),
        (side(Policy.of(gap="15m")), side(Policy.of(gap="30m")), "merged"),
        (side(Policy.of(session_ids="start")), side(Policy.of(session_ids="running")), "revalued"),
        (side(Policy.of(session_ids="sequential")), side(Policy.of(session_ids="running")), "renamed"),
        (side(Policy()), side(Policy(), excluded_events={"view"}), "only_a"),
        (side(Policy()), side(Policy(), conversion_events={"view"}), "revalued"),
    ],
)
def test_each_kind_has_its_example(a: Side, b: Side, kind: str) -> None:
    diff = found(VISIT, a, b)
    assert kind in diff.examples
    assert set(diff.examples) <= set(KINDS)
    (shown, *_) = diff.examples[kind]
    assert (shown["user"], shown["time_ms"]) == ("u", 0)


def test_an_example_names_the_boundary_and_the_rule_behind_it() -> None:
    (shown,) = found(VISIT, side(Policy.of(gap="30m")), side(Policy.of(gap="15m"))).examples["split"]
    (first, second) = shown["boundaries"]
    assert (first["time_ms"], first["only_in"], first["reason"]) == (20 * 60_000, "b", "inactivity")
    assert first["why"] == "inactivity: silence 20m > gap 15m"
    assert first["other_side"].startswith("continues: silence 20m, gap 30m")
    assert second["time_ms"] == 40 * 60_000
    assert [s["event_count"] for s in shown["sessions_a"]] == [3]
    assert [s["event_count"] for s in shown["sessions_b"]] == [1, 1, 1]
