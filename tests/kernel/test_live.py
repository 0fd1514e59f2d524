"""Several users' sessions as they stand, and the session of each event just pushed."""

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from sessionize import Policy, Rules, Sessionizer
from sessionize.kernel.labels import label_events
from sessionize.testing.comparison import events_table, sorted_rows
from sessionize.testing.strategies import USERS, events, policies, rules

Events = list[dict[str, Any]]
GAP = Policy(gap_ms=10, max_duration_ms=None)


@given(events(), policies(), rules(), st.lists(st.sampled_from([*USERS, "nobody"])), st.data())
def test_many_at_once_are_each_alone(rows: Events, policy: Policy, rule: Rules, users: list[str], data: st.DataObject):
    core = Sessionizer(policy, rules=rule, track_changes=data.draw(st.booleans()))
    core.push(events_table(sorted(rows, key=lambda r: r["time"])))
    if rows:
        core.advance(data.draw(st.sampled_from(rows))["time"])
    before = core.snapshot()
    many = core.live_many(pa.array(users, pa.string()))
    alone = [core.live(user) for user in sorted(set(users))]
    assert sorted_rows(many) == [row for table in alone for row in sorted_rows(table)]
    still = [row for row in sorted_rows(many) if row["end_reason"] is None]
    assert sorted_rows(core.live_many(pa.array(users, pa.string()), open_only=True)) == still
    assert core.snapshot() == before


@given(events(), policies(), rules(), st.data())
def test_pushed_events_know_their_sessions(rows: Events, policy: Policy, rule: Rules, data: st.DataObject):
    """What has come so far, labelled as if it were all: the ids of the part pushed since the last look."""
    arriving = sorted(rows, key=lambda r: r["time"])
    core, at, told = Sessionizer(policy, rules=rule, track_changes=True), 0, 0
    while at < len(arriving):
        size = data.draw(st.integers(1, 12), label="batch")
        core.push(events_table(arriving[at : at + size]))
        at = min(at + size, len(arriving))
        action = data.draw(st.sampled_from(["ask", "advance", "push"]), label="action")
        if action != "push":
            before = core.snapshot()
            ids = core.pushed_session_ids().to_pylist()
            expected = label_events(events_table(arriving[:at]), policy, rules=rule).session_id.to_pylist()
            if policy.duplicates == "id":  # a duplicate of an event that was settled before has no id
                users_and_ids = [(row["user"], row["id"]) for row in arriving[:at]]
                for place, known in enumerate(ids, told):
                    if known is None and expected[place] is not None:
                        assert users_and_ids[place][1] is not None
                        assert users_and_ids[place] in users_and_ids[:place]
                        expected[place] = None
            assert ids == expected[told:]
            assert core.snapshot() == before
        if action == "advance":
            core.changes()
            told = at
            core.advance(arriving[at - 1]["time"])
    assert core.changes().users.num_rows <= len(USERS)
    assert len(core.pushed_session_ids()) == 0


def test_late_events_are_left_out_and_excluded_ones_are_null():
    core = Sessionizer(GAP, rules=Rules(excluded_events={"noise"}), track_changes=True)
    core.push(events_table([{"user": "a", "time": 0}]))
    core.advance(5)
    late = core.push(
        events_table(
            [
                {"user": "a", "time": 8, "id": "1"},
                {"user": "a", "time": 4},
                {"user": "a", "time": 7, "type": "noise"},
                {"user": "b", "time": 30},
                {"user": "a", "time": 8, "id": "1"},
            ]
        )
    )
    assert late.num_rows == 1
    assert core.pushed_session_ids().to_pylist() == [None, "a_0", None, "b_30", "a_0"]
    core.changes()
    core.push(events_table([{"user": "a", "time": 16}, {"user": "b", "time": 20}]))
    assert core.pushed_session_ids().to_pylist() == ["a_0", "b_20"]
    core.advance(17)  # settled by now: only the answer before the watermark moves is whole
    assert core.pushed_session_ids().to_pylist() == [None, "b_20"]


def test_columns_that_need_no_payload_have_ids_too():
    from sessionize.session.columns import SESSION_ID, USER, SessionColumns

    core = Sessionizer(GAP, columns=SessionColumns((USER, SESSION_ID)), track_changes=True)
    core.push(pa.table({"user": ["a", "b", "a"], "event_time_ms": [20, 1, 2]}))
    assert core.pushed_session_ids().to_pylist() == ["a_20", "b_1", "a_2"]
    assert core.live_many(pa.array(["a", "zz"])).num_rows == 2
    assert core.live_many(pa.array(["a", "zz"]), open_only=True)["session_id"].to_pylist() == ["a_20"]


def test_a_repeated_event_has_the_session_of_its_twin_also_behind_an_open_session():
    """The open sessions of both users stand in front of what is pending, and move the twins."""
    core = Sessionizer(GAP, track_changes=True)
    core.push(events_table([{"user": user, "time": 10} for user in "ab"]))
    core.advance(12)
    core.changes()
    rows = [{"user": user, "time": time, "id": str(time)} for user in "ab" for time in (15, 40, 40, 60)]
    core.push(events_table(rows))
    assert core.pushed_session_ids().to_pylist() == [f"{u}_{t}" for u in "ab" for t in (10, 40, 40, 60)]
