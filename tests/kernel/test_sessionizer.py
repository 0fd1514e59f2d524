"""The incremental core at its edges: late events, finality, freed state, snapshots, bad input."""

from datetime import date

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sessionize import InputError, Policy, Rules, Sessionizer, StateError
from sessionize.kernel.changes import merge_changes
from sessionize.session import columns as col
from sessionize.session.limits import TIME_MS_MAX, TIME_MS_MIN
from sessionize.testing.comparison import events_table, sorted_rows

GAP = Policy(gap_ms=10, max_duration_ms=None)
NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xff")]
)


def push(core, *pairs):
    return core.push(events_table([{"user": u, "time": t} for u, t in pairs]))


def starts(table):
    return sorted(zip(table["user"].to_pylist(), table["session_start_time_ms"].to_pylist(), strict=True))


def test_late_is_strictly_below_the_watermark():
    core = Sessionizer(GAP)
    core.advance(100)
    late = push(core, ("a", 99), ("a", 100))
    assert late["event_time_ms"].to_pylist() == [99]
    assert (core.counts.late, core.counts.pending) == (1, 1)


def test_settled_is_strictly_below_the_watermark():
    core = Sessionizer(GAP)
    push(core, ("a", 100), ("a", 101))
    core.advance(100)
    assert core.counts.pending == 2
    core.advance(101)
    assert (core.counts.pending, core.counts.settled) == (1, 1)


def test_final_exactly_when_no_on_time_event_can_continue():
    core = Sessionizer(GAP)
    push(core, ("a", 0))
    assert core.advance(10).num_rows == 0  # an event at 10 would still belong: the silence is not longer than the gap
    assert starts(core.advance(11)) == [("a", 0)]
    inclusive = Sessionizer(Policy(gap_ms=10, gap_boundary="inclusive", max_duration_ms=None))
    push(inclusive, ("a", 0))
    assert inclusive.advance(9).num_rows == 0
    assert starts(inclusive.advance(10)) == [("a", 0)]


def test_cut_by_a_later_event_is_final_at_once():
    core = Sessionizer(Policy(gap_ms=1000, max_duration_ms=20))
    push(core, ("a", 0), ("a", 25))
    assert starts(core.advance(26)) == [("a", 0)]


def test_an_end_event_makes_final_at_once_and_is_remembered_within_the_gap():
    core = Sessionizer(GAP, rules=Rules(end_events={"out"}))
    core.push(events_table([{"user": "a", "time": 0, "type": "out"}]))
    assert sorted_rows(core.advance(1))[0]["end_reason"] == "rule:end_events"
    core.push(events_table([{"user": "a", "time": 5}]))
    assert sorted_rows(core.flush())[0]["start_reason"] == "rule:end_events"


def test_a_watermark_that_goes_back_changes_nothing():
    core = Sessionizer(GAP)
    core.advance(100)
    assert core.advance(50).num_rows == 0
    assert core.watermark_ms == 100


def test_memory_follows_open_sessions_not_users_ever_seen():
    core = Sessionizer(Policy(gap_ms=10))
    most = 0
    for step in range(60):
        times = [step * 1000] * 1000
        core.push(
            pa.table(
                {
                    "user": [f"user-{step}-{i}" for i in range(1000)],
                    "event_time_ms": times,
                    "page": [f"/page/{step}/{i}" for i in range(1000)],
                    "event_type": ["view"] * 1000,
                }
            )
        )
        core.advance(step * 1000 + 500)
        most = max(most, len(core._held.users), core._held.state.capacity)
    assert core.open_sessions == 0
    assert most < 20_000  # of 60,000 users ever seen
    assert len(core._held.users) < 20_000
    assert len(core._held.page_names) <= 65_536 + 1000


def test_pages_survive_the_tidying_of_names():
    core = Sessionizer(Policy(gap_ms=10_000_000, max_duration_ms=None))
    core._held.names_limit = 10
    core.push(events_table([{"user": "keeper", "time": 0, "page": "first", "type": "t0"}]))
    for step in range(1, 40):
        core.push(events_table([{"user": f"u{step}", "time": step, "page": f"p{step}", "type": f"t{step}"}]))
        core.advance(step)
        core._held.names_limit = 10
    core.push(events_table([{"user": "keeper", "time": 100, "page": "last", "type": "t1"}]))
    kept = [row for row in sorted_rows(core.flush()) if row["user"] == "keeper"]
    assert kept[0]["pages_visited"] == ["first", "last"]
    assert (kept[0]["entry_page"], kept[0]["exit_page"]) == ("first", "last")
    assert kept[0]["events_by_type"] == {"t0": 1, "t1": 1}


def test_a_long_session_in_many_batches_keeps_its_pages_in_order():
    core = Sessionizer(Policy(gap_ms=100, max_duration_ms=None))
    for step in range(200):  # more runs than are linked before they are merged
        core.push(events_table([{"user": "a", "time": step, "page": f"p{step % 7}", "type": "t"}]))
        core.advance(step)
    row = sorted_rows(core.flush())[0]
    assert row["pages_visited"] == [f"p{i}" for i in range(7)]
    assert row["events_by_type"] == {"t": 200}


@pytest.mark.parametrize("users", [3, 20_000, 40_000])
def test_wide_times_need_the_slow_sort_and_come_out_the_same(users):
    """Ten thousand years leave no room to pack the row's number beside user and time, or not even both of these."""
    times = np.array([TIME_MS_MIN, TIME_MS_MAX, 0, 5, TIME_MS_MIN + 3, TIME_MS_MAX - 3])
    order = np.random.default_rng(1).permutation(6 * users)
    core = Sessionizer(Policy(gap_ms=10))
    core.push(pa.table({"user": np.repeat(np.arange(users), 6).astype(str)[order], "event_time_ms": times[order % 6]}))
    made = core.flush()
    counted = made.group_by(["session_start_time_ms", "session_end_time_ms", "event_count", "session_date"])
    assert {(*row.values(),) for row in counted.aggregate([([], "count_all")]).to_pylist()} == {
        (TIME_MS_MIN, TIME_MS_MIN + 3, 2, date(1, 1, 1), users),
        (TIME_MS_MAX - 3, TIME_MS_MAX, 2, date(9999, 12, 31), users),
        (0, 5, 2, date(1970, 1, 1), users),
    }


@pytest.mark.parametrize("action", ["advance", "flush"])
def test_nothing_in_nothing_out(action):
    core = Sessionizer()
    core.push(events_table([]))
    made = core.advance(10**15) if action == "advance" else core.flush()
    assert made.schema == col.SessionColumns().schema()
    assert made.num_rows == 0


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"user": ["a"]}, "event_time_ms"),
        ({"event_time_ms": [1]}, "user"),
        ({"user": ["a"], "event_time_ms": ["1"]}, "int64"),
        ({"user": ["a"], "event_time_ms": pa.array([None], pa.int64())}, "nulls"),
        ({"user": pa.array([None], pa.string()), "event_time_ms": [1]}, "nulls"),
        ({"user": [7], "event_time_ms": [1]}, "text"),
        ({"user": ["a"], "event_time_ms": [2**62]}, "out of range"),
        ({"user": ["a", "a"], "event_time_ms": [1, TIME_MS_MAX + 1]}, "row 1: event_time_ms = 253402300800000"),
        ({"user": ["a"], "event_time_ms": [TIME_MS_MIN - 1]}, "row 0: event_time_ms = -62135596800001"),
        ({"user": ["a", "é" * 512 + "x"], "event_time_ms": [1, 1]}, "row 1: .* has 1,025 bytes, at most 1,024"),
        ({"user": pa.array(["a", "x" * 1025, "b"]).dictionary_encode(), "event_time_ms": [1, 2, 3]}, "row 1: .*1,025"),
        ({"user": ["a", ""], "event_time_ms": [1, 1]}, "a user is empty"),
        ({"user": ["a", "\u2003 \t"], "event_time_ms": [1, 1]}, "row 1: user = "),
        ({"user": ["a", "b"], "event_time_ms": [1, 1], "page": NOT_UTF8}, "page has bytes that are not UTF-8\nrow 1"),
        ({"user": NOT_UTF8, "event_time_ms": [1, 1]}, "user has bytes that are not UTF-8"),
        ({"user": ["a"], "event_time_ms": [1], "event_type": ["purchase"], "value": [float("nan")]}, "value"),
        (
            {"user": ["a"], "event_time_ms": [1], "event_type": ["purchase"], "value": [1e300]},
            "row 0: value = 1e\\+300",
        ),
        (
            {"user": ["a"], "event_time_ms": [1], "event_type": ["purchase"], "value": [2**60 + 1]},
            "1152921504606846977",
        ),
        ({"user": ["a"], "event_time_ms": [1], "value": ["1"]}, "value must be a number"),
        ({"user": ["a"], "event_time_ms": [1], "event_id": [1]}, "event_id must be text"),
    ],
)
def test_bad_tables_are_refused_whole(table, says):
    core = Sessionizer()
    with pytest.raises(InputError, match=says):
        core.push(pa.table(table))
    assert core.counts.consumed == 0
    assert core.counts.pending == 0


def test_the_longest_user_and_the_ends_of_the_calendar_are_taken():
    core = Sessionizer(Policy.of(gap="876000h", max_duration=None))  # a hundred years
    user = "é" * 512
    push(core, (user, TIME_MS_MIN), (user, TIME_MS_MAX))
    assert core.advance(TIME_MS_MIN + 1).num_rows == 0
    assert [row["session_date"].year for row in sorted_rows(core.flush())] == [1, 9999]


@pytest.mark.parametrize(
    ("events", "says", "then"),
    [
        ([1], "this is list", "pyarrow.table"),
        (None, "this is NoneType", "pyarrow.table"),
        ({"user": ["a"]}, "this is dict", "pyarrow.table"),
        (pd.DataFrame({"user": ["a"]}), "this is pandas.DataFrame", "from_pandas"),
        (pl.DataFrame({"user": ["a"]}), "this is polars.dataframe.frame.DataFrame", "to_arrow"),
    ],
)
def test_what_is_no_arrow_table_is_named_with_what_to_do(events, says, then):
    with pytest.raises(InputError, match="events must be a pyarrow Table") as error:
        Sessionizer().push(events)
    assert says in error.value.detail
    assert then in error.value.hint


TEXTS = [
    pa.array(["a", "b", "a"]),
    pa.array(["a", "b", "a"], pa.large_string()),
    pa.array(["a", "b", "a"], pa.string_view()),
    pa.array(["a", "b", "a"]).dictionary_encode().cast(pa.dictionary(pa.uint16(), pa.string())),
    pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), pa.array(["a", "b", "x" * 2000], pa.large_string())),
    pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), pa.array(["a", "b", "a"], pa.string_view())),
]
NOTHING = [pa.nulls(3), pa.DictionaryArray.from_arrays(pa.array([0, 0, 0]), pa.array([None], pa.string()))]


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("column", ["user", "event_id", "event_type", "page"])
@pytest.mark.parametrize("values", [*TEXTS, *NOTHING], ids=lambda values: str(values.type))
def test_text_of_any_arrow_type_means_the_same(values, column, tracked):
    """In each batch another type, and a restart between them."""
    if column == "user" and values in NOTHING:
        with pytest.raises(InputError, match="user"):
            Sessionizer().push(pa.table({"user": values, "event_time_ms": [1, 2, 3]}))
        return
    rules = Rules(start_events={"b"}, conversion_events={"A"})
    plain = pa.nulls(3, pa.string()) if values in NOTHING else TEXTS[0]
    made = []
    for texts in (values, plain):
        first = {"user": ["a", "b", "a"], "event_time_ms": [1, 2, 3], "value": [1, 2, 3], "event_type": ["a", "b", "c"]}
        core = Sessionizer(rules=rules, track_changes=tracked)
        core.push(pa.table({**first, column: texts}))
        core.push(pa.table({**first, column: plain}))
        core.advance(2)
        core = Sessionizer.restore(core.snapshot(), rules=rules, track_changes=tracked)
        core.push(pa.table({**first, "event_time_ms": [4, 5, 6], column: texts}))
        made.append([sorted_rows(core.live("a")), sorted_rows(core.flush())])
    assert made[0] == made[1]


def test_counts_are_a_copy():
    core = Sessionizer(GAP)
    before = core.counts
    push(core, ("a", 0))
    assert (before.consumed, core.counts.consumed) == (0, 1)
    core.counts.consumed = 100
    core.counts.pending = 100
    assert core.counts.as_dict() == {**Sessionizer().counts.as_dict(), "consumed": 1, "pending": 1}


@pytest.mark.parametrize("far", [2**70, -(2**70), np.int64(2**62)])
def test_any_whole_number_is_a_watermark(far):
    core = Sessionizer(GAP, track_changes=True)
    push(core, ("a", TIME_MS_MIN), ("a", TIME_MS_MAX))
    parts = [core.changes()]
    made = core.advance(far).num_rows
    parts.append(core.changes())
    whole = merge_changes(parts, whole=True)
    for again in (
        Sessionizer.restore(core.snapshot(), GAP),
        Sessionizer.restore_tables(whole.header, whole.tables, GAP),
    ):
        assert made + again.flush(np.int64(TIME_MS_MAX)).num_rows == 2


@pytest.mark.parametrize("wrong", [1.5, float("inf"), None, "1"])
def test_a_watermark_that_is_no_whole_number_is_refused(wrong):
    with pytest.raises(InputError, match="whole number of milliseconds"):
        Sessionizer().advance(wrong)


def test_whoever_can_be_no_user_has_no_live_sessions():
    core = Sessionizer(GAP)
    push(core, ("a", 0))
    assert [core.live(user).num_rows for user in ("a", "", "\ud800", "x" * 5000)] == [1, 0, 0, 0]
    with pytest.raises(InputError, match="users must be text"):
        core.live(5)


def test_every_bit_of_a_snapshot_counts():
    core = Sessionizer(GAP)
    push(core, ("a", 0), ("b", 5))
    core.advance(3)
    data = core.snapshot()
    assert starts(Sessionizer.restore(data, GAP).flush()) == [("a", 0), ("b", 5)]
    for at in range(0, len(data), 7):
        broken = bytearray(data)
        broken[at] ^= 1 << (at % 8)
        with pytest.raises(StateError):
            Sessionizer.restore(bytes(broken), GAP)
    for size in (0, 3, 11, len(data) // 2, len(data) - 1):
        with pytest.raises(StateError):
            Sessionizer.restore(data[:size], GAP)


def test_a_snapshot_belongs_to_its_policy_and_rules():
    data = Sessionizer(GAP).snapshot()
    with pytest.raises(StateError, match="policy"):
        Sessionizer.restore(data, Policy(gap_ms=11, max_duration_ms=None))
    with pytest.raises(StateError, match="rules"):
        Sessionizer.restore(data, GAP, rules=Rules(end_events={"out"}))


def test_flush_with_the_end_of_a_larger_input():
    core = Sessionizer(GAP)
    push(core, ("a", 0))
    assert core.flush(10)["end_reason"].to_pylist() == ["end_of_input"]
    other = Sessionizer(GAP)
    push(other, ("a", 0))
    assert other.flush(11)["end_reason"].to_pylist() == ["inactivity"]
