"""The record of how sessions are made: there and back as JSON, and what two of them differ in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.session.spec import SessionSpec, describe_differences, kind_of_difference, policy_differences

TYPES = st.frozensets(st.text(max_size=8), max_size=3)
POLICIES = st.builds(
    Policy,
    gap_ms=st.integers(1, 10**12),
    gap_boundary=st.sampled_from(["exclusive", "inclusive"]),
    max_duration_ms=st.integers(1, 10**12),
    max_duration_mode=st.sampled_from(["anchored", "rolling"]),
    session_ids=st.sampled_from(["start", "sequential", "running"]),
)
SPECS = st.builds(
    lambda policy, starts, excluded, conversions, **more: SessionSpec.of(
        policy,
        Rules(start_events=starts, excluded_events=excluded - starts, conversion_events=conversions),
        **more,
    ),
    POLICIES,
    TYPES,
    TYPES,
    TYPES,
    pipeline=st.text(min_size=1, max_size=8),
    user_column=st.text(min_size=1, max_size=8),
    boundary=st.none() | st.just("my_rules:after_logout"),
    dialect=st.sampled_from(["clicks", "mapping"]),
    columns=st.lists(st.sampled_from(["session_id", "event_count"]), unique=True),
)


@given(SPECS)
def test_there_and_back(spec: SessionSpec) -> None:
    again = SessionSpec.from_json(spec.to_json())
    assert again == spec
    assert again.differences(spec) == []
    assert again.rules() == spec.rules()
    assert again.policy == spec.policy


@given(SPECS, SPECS)
def test_two_differ_where_a_value_does(one: SessionSpec, other: SessionSpec) -> None:
    same = (one.pipeline, one.user_column, one.policy, one.boundary, *map(frozenset, (one.start_events,))) == (
        other.pipeline, other.user_column, other.policy, other.boundary, *map(frozenset, (other.start_events,))
    ) and one.excluded_events == other.excluded_events  # fmt: skip
    lower = [{each.lower() for each in spec.conversion_events} for spec in (one, other)]
    assert (one.differences(other) == []) == (same and lower[0] == lower[1])


def test_what_differs_is_said_by_key_with_both_values() -> None:
    rules = Rules(end_events=frozenset({"logout"}))
    there = SessionSpec.of(Policy(gap_ms=30_000), rules, pipeline="web", user_column="u")
    here = SessionSpec.of(Policy(max_duration_ms=None), Rules(), pipeline="shop", user_column="u")
    differences = there.differences(here)
    assert describe_differences(differences) == (
        "name: web there, shop here; rules.gap: 30s there, 30m here; rules.max_duration: 2h there, none here; "
        "rules.end_events: logout there, none here"
    )
    assert kind_of_difference(differences) == "another policy"
    assert kind_of_difference(differences[3:]) == "other rules"


def test_types_are_compared_as_they_are_but_for_conversions() -> None:
    def spec(**rules: frozenset[str]) -> SessionSpec:
        return SessionSpec.of(Policy(), Rules(**rules), pipeline="p", user_column="u")

    assert spec(conversion_events=frozenset({"BUY"})).differences(spec(conversion_events=frozenset({"buy"}))) == []
    assert spec(end_events=frozenset({"OUT"})).differences(spec(end_events=frozenset({"out"}))) != []
    # one type with a comma in it is not two
    assert spec(end_events=frozenset({"a, b"})).differences(spec(end_events=frozenset({"a", "b"}))) != []


def test_dialect_and_columns_do_not_count() -> None:
    one = SessionSpec.of(Policy(), Rules(), pipeline="p", user_column="u", dialect="clicks", columns=["session_id"])
    assert one.differences(SessionSpec.of(Policy(), Rules(), pipeline="p", user_column="u")) == []


def test_one_line_for_people() -> None:
    rules = Rules(end_events=frozenset({"logout"}), conversion_events=frozenset())
    spec = SessionSpec.of(Policy(), rules, pipeline="p", user_column="u", boundary="m:f")
    assert spec.describe() == "gap 30m (exclusive), at most 2h (anchored), ids start; end_events logout; boundary m:f"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        json.dumps({**json.loads(SessionSpec(pipeline="p", user_column="u", policy=Policy()).to_json()), "version": 2}),
        SessionSpec(pipeline="p", user_column="u", policy=Policy()).to_json().replace("1800000", "-1"),
        SessionSpec(pipeline="p", user_column="u", policy=Policy()).to_json().replace("1800000", '"x"'),
        SessionSpec(pipeline="p", user_column="u", policy=Policy()).to_json().replace("gap_ms", "gap_us"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        SessionSpec.from_json(text)


def test_a_state_is_compared_in_the_same_words() -> None:
    rules = {"start_events": [], "end_events": [], "excluded_events": [], "conversion_events": [], "boundary": ""}
    stored = {"gap_ms": 30_000, "gap_boundary": "exclusive", "max_duration_ms": 7_200_000,
              "max_duration_mode": "anchored", "session_ids": "start"}  # fmt: skip
    found = policy_differences(stored, rules, Policy(), {**rules, "boundary": "f"})
    assert describe_differences(found) == "rules.gap: 30s there, 30m here; rules.boundary: none there, f here"
