"""Policies and rules that cannot be meant are refused; flags are what the rules say."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sessionize import ConfigError, Policy, Rules
from sessionize.errors import BoundaryError
from sessionize.session import columns as col
from sessionize.session.reasons import RULE_BASE


@pytest.mark.parametrize(
    "options",
    [
        {"gap": "0s"},
        {"max_duration": "0s"},
        {"gap_boundary": "sometimes"},
        {"max_duration_mode": "sliding"},
        {"session_ids": "random"},
        {"max_duration": None, "max_duration_mode": "rolling"},
        {"max_duration": "NONE", "max_duration_mode": "rolling"},
        {"gap": 30},
    ],
)
def test_policies_that_cannot_be_meant(options):
    with pytest.raises(ConfigError):
        Policy.of(**options)


def test_defaults_are_those_of_the_spec():
    policy = Policy.of()
    assert (policy.gap_ms, policy.max_duration_ms) == (1_800_000, 7_200_000)
    assert (policy.gap_boundary, policy.max_duration_mode, policy.session_ids) == ("exclusive", "anchored", "start")
    assert policy == Policy()
    assert Policy.of(max_duration="none").max_duration_ms is None


def test_one_decision_for_the_gap():
    assert Policy(gap_ms=10).longest_silence_ms == 10
    assert Policy(gap_ms=10, gap_boundary="inclusive").longest_silence_ms == 9


def events(types, **more):
    n = len(types)
    return pa.table(
        {"user": ["u"] * n, "event_time_ms": list(range(n)), "event_type": pa.array(types, pa.string()), **more}
    )


def test_flags():
    rules = Rules(start_events={"in"}, end_events={"out"}, excluded_events={"beat"})
    flags = rules.flags(events(["in", "out", "beat", None, "Purchase"]), conversions=True)
    assert flags.starts.tolist() == [RULE_BASE, 0, 0, 0, 0]
    assert flags.ends.tolist() == [0, RULE_BASE + 1, 0, 0, 0]
    assert flags.drop.tolist() == [False, False, True, False, False]
    assert flags.converts.tolist() == [False, False, False, False, True]


def test_flags_of_dictionary_encoded_chunks_with_nulls():
    types = pa.chunked_array(
        [
            pa.array(["in", None]).dictionary_encode(),
            pa.array(["x", "in"]).dictionary_encode(),
            pa.array(["q"]).dictionary_encode(),
        ]
    )
    table = pa.table({"user": ["u"] * 5, "event_time_ms": range(5), "event_type": types})
    assert Rules(start_events={"in"}).flags(table, conversions=False).starts.tolist() == [RULE_BASE, 0, 0, RULE_BASE, 0]


def test_a_rule_about_types_needs_types():
    table = events(["a"]).drop_columns(["event_type"])
    with pytest.raises(ConfigError, match="event type"):
        Rules(end_events={"out"}).flags(table, conversions=False)


def test_excluded_events_can_neither_open_nor_close():
    with pytest.raises(ConfigError, match="excluded"):
        Rules(start_events={"a"}, excluded_events={"a"})


def test_a_single_text_is_not_a_set_of_types():
    with pytest.raises(ConfigError, match="start_events"):
        Rules(start_events="login")


@pytest.mark.parametrize("answer", [[True], [1, 2, 3], "yes", np.zeros(3)])
def test_a_boundary_function_must_answer_for_each_event(answer):
    def broken(table):
        return answer

    with pytest.raises(ConfigError, match="broken"):
        Rules(boundary=broken).flags(events(["a", "b", "c"]), conversions=False)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "NoneType"),
        ([[True], [True, False], [True]], "list"),
        ((True for _ in range(3)), "generator"),
        (pa.array([1, 2, 3]), "pyarrow.lib.Int64Array"),
        (np.ones((3, 1), bool), "numpy.ndarray .*shape .3, 1."),
    ],
)
def test_what_a_boundary_function_answered_is_said(answer, says):
    with pytest.raises(ConfigError, match=f"it returned {says}"):
        Rules(boundary=lambda table: answer).flags(events(["a", "b", "c"]), conversions=False)


class Odd(BaseException):
    pass


@pytest.mark.parametrize("error", [SystemExit(0), SystemExit("bye"), GeneratorExit(), Odd(), KeyError("page")])
def test_whatever_a_boundary_function_raises_is_an_error_with_its_name(error):
    def at_logout(table):
        raise error

    with pytest.raises(BoundaryError, match="the boundary function at_logout failed") as told:
        Rules(boundary=at_logout).flags(events(["a", "b"]), conversions=False)
    assert told.value.__cause__ is error
    assert type(error).__name__ in told.value.detail
    assert f"{__file__}, line " in told.value.detail


def test_an_interrupt_is_the_users_in_the_main_thread_and_the_functions_in_others():
    def interrupts(table):
        raise KeyboardInterrupt

    rules, table = Rules(boundary=interrupts), events(["a"])
    with pytest.raises(KeyboardInterrupt):
        rules.flags(table, conversions=False)
    with ThreadPoolExecutor(1) as pool, pytest.raises(BoundaryError, match="interrupts"):
        pool.submit(rules.flags, table, conversions=False).result()


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.__setitem__("user", ["x"]),
        lambda table: table["event_type"].to_numpy().__setitem__(0, "x") or True,
        lambda table: table["event_time_ms"].to_numpy().__setitem__(0, 7),
    ],
)
def test_a_boundary_function_cannot_change_the_events(change):
    table = pa.table({"user": ["a"], "event_time_ms": [1], "event_type": ["b"]})

    def changes(given):
        change(given)
        return [True]

    with contextlib.suppress(BoundaryError):
        Rules(boundary=changes).flags(table, conversions=False)
    assert table.to_pylist() == [{"user": "a", "event_time_ms": 1, "event_type": "b"}]


def test_a_boundary_function_is_not_asked_about_no_events():
    assert Rules(boundary=lambda table: []).flags(events([]), conversions=False).starts.tolist() == []


def test_a_boundary_function_is_known_by_its_name():
    def at_b(table):
        return pc.equal(table["event_type"], "b")

    rules = Rules(boundary=at_b)
    assert rules.names[2] == "at_b"
    assert rules.flags(events(["a", "b", None]), conversions=False).starts.tolist() == [0, RULE_BASE + 2, 0]


def test_session_columns_follow_the_event_columns():
    least = col.SessionColumns.made_of(frozenset({"user", "event_time_ms"}))
    assert "pages_visited" not in least
    assert {"session_id", "start_reason", "user_hash_bucket"} <= set(least.names)
    assert col.SessionColumns.made_of(frozenset(col.EVENT_TYPES)).names == col.SESSION_COLUMNS
    only = col.SessionColumns.made_of(frozenset({"user", "event_time_ms"}), only=("event_count",))
    assert only.names == ("user", "event_count")
    with pytest.raises(ConfigError, match="unknown session column"):
        col.SessionColumns.made_of(frozenset(), only=("pages",))
    with pytest.raises(ConfigError, match="cannot be filled"):
        col.SessionColumns.made_of(frozenset({"user", "event_time_ms"}), only=("entry_page",))
