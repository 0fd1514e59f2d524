"""The incremental core at its edges: late events, finality, freed state, snapshots, bad input."""

import pyarrow as pa
import pytest

from sessionize import InputError, Policy, Rules, Sessionizer, StateError
from sessionize.session import columns as col
from sessionize.testing.comparison import events_table, sorted_rows

GAP = Policy(gap_ms=10, max_duration_ms=None)


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


def test_wide_times_need_the_slow_sort_and_come_out_the_same():
    """A span of a hundred million days leaves no room to pack the row number beside user and time."""
    far = 8_640_000_000_000_000
    rows = [{"user": f"u{i % 3}", "time": t} for i, t in enumerate([-far, far, 0, 5, -far + 3, far - 3] * 3)]
    core = Sessionizer(Policy(gap_ms=10))
    core.push(events_table(rows))
    assert sum(core.flush()["event_count"].to_pylist()) == len(rows)


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
        ({"user": ["a"], "event_time_ms": [1], "event_type": ["purchase"], "value": [float("nan")]}, "value"),
        ({"user": ["a"], "event_time_ms": [1], "event_type": ["purchase"], "value": [1e300]}, "value"),
    ],
)
def test_bad_tables_are_refused_whole(table, says):
    core = Sessionizer()
    with pytest.raises(InputError, match=says):
        core.push(pa.table(table))
    assert core.counts.consumed == 0
    assert core.counts.pending == 0


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
