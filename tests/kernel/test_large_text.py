"""More text than an Arrow array has room for: with the limits made tiny, everything comes out as it does otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize import Policy, Rules, Sessionizer
from sessionize.kernel import emit, large_text, reorder, snapshot, text_arrays
from sessionize.kernel.changes import merge_changes
from sessionize.session import columns as col
from sessionize.testing.comparison import events_table, expected_sessions, sorted_rows
from sessionize.testing.strategies import events, policies, rules

SCHEMA = col.SessionColumns().schema()


@contextmanager
def tiny_arrays(text_bytes: int, rows: int) -> Iterator[None]:
    modules = (emit, large_text, reorder, snapshot)
    before = text_arrays.TEXT_BYTES_MAX, emit.ROWS_MAX
    for module in modules:
        module.TEXT_BYTES_MAX = text_bytes  # type: ignore[attr-defined]
    emit.ROWS_MAX = rows
    try:
        yield
    finally:
        for module in modules:
            module.TEXT_BYTES_MAX = before[0]  # type: ignore[attr-defined]
        emit.ROWS_MAX = before[1]


def order(row: Any) -> tuple[Any, ...]:
    return (row["user"], row["session_start_time_ms"], row["session_end_time_ms"], row["session_id"])


@given(events(), policies(), rules(), st.sampled_from([1, 30]), st.integers(1, 3), st.integers(1, 20), st.booleans())
def test_nothing_depends_on_the_room_in_an_array(
    rows: list[dict[str, Any]], policy: Policy, rule: Rules, text_bytes: int, rows_max: int, batch: int, whole: bool
):
    arriving = sorted(rows, key=lambda row: row["time"])
    with tiny_arrays(text_bytes, rows_max):
        core, made = Sessionizer(policy, rules=rule, track_changes=True), list[Any]()
        parts = [core.changes()]
        for at in range(0, len(arriving), batch):
            some = arriving[at : at + batch]
            assert core.push(events_table(some)).num_rows == 0
            live = core.live_many(core.users())
            # by their ids alone, all that is pending may repeat what was settled
            counts_for_sure = core.counts.pending and policy.duplicates != "id"
            assert live.cast(SCHEMA).num_rows >= (1 if counts_for_sure else 0)
            made += sorted_rows(core.advance(some[0]["time"]))
            if whole:
                core = Sessionizer.restore(core.snapshot(), policy, rules=rule, track_changes=True)
            else:
                parts.append(core.changes())
                merged = merge_changes(parts, whole=True)
                core = Sessionizer.restore_tables(merged.header, merged.tables, policy, rules=rule, track_changes=True)
        made += sorted_rows(core.flush())
    assert sorted(made, key=order) == sorted(expected_sessions(rows, policy, rule), key=order)


def test_ties_of_large_ids_are_compared():
    with tiny_arrays(10, 2):
        core = Sessionizer(Policy(gap_ms=10))
        for ids in (["b" * 50, "a" * 50], ["a" * 50, None]):
            core.push(pa.table({"user": ["u", "u"], "event_time_ms": [1, 1], "event_id": ids, "page": ["x", "y"]}))
        made = core.flush()
    assert (made["event_count"].to_pylist(), core.counts.duplicate) == ([3], 1)


@pytest.mark.parametrize("size", [3_000_000])
def test_sessions_of_more_text_than_two_gigabytes(size: int):
    """One page that 800 users have seen is in memory once, and would be 2.4 GB when it is written out."""
    core = Sessionizer(Policy(gap_ms=10), columns=col.SessionColumns((col.USER, col.PAGES_VISITED, col.EVENTS_BY_TYPE)))
    large = pa.DictionaryArray.from_arrays(pa.array([0] * 800, pa.int32()), pa.array(["x" * size]))
    users = [f"u{number}" for number in range(800)]
    core.push(pa.table({"user": users, "event_time_ms": [0] * 800, "page": large, "event_type": large}))
    core.advance(5)
    core.push(pa.table({"user": users, "event_time_ms": [100] * 800, "page": large, "event_type": large}))
    made = pa.concat_tables([core.advance(101).slice(0, 3), core.flush().slice(0, 3)])
    lengths = pc.binary_length(made["pages_visited"].combine_chunks().flatten().cast(pa.string())).to_pylist()
    assert lengths == [size] * 6
