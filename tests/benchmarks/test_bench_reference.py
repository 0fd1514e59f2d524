"""The reference of the benchmarks decides what is WRONG: here it meets loops over rows, and near misses."""

import importlib
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MIN = 60_000
GAP_MS, CAP_MS = 30 * MIN, 120 * MIN


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The modules of benchmarks/, which is a folder of scripts and no package."""
    names = ("events", "reference", "make_data")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in names:
            sys.modules.pop(name, None)


def by_loop(rows: list[tuple[str, int, str]], cap: str | None) -> list[tuple[str, int, int, int, list[str]]]:
    """(user, start, end, count, pages) of every session, the slow way; cap: None, "rolling" or "anchored"."""
    sessions: list[tuple[str, int, int, int, list[str]]] = []
    for user, events in groupby(sorted(rows), key=lambda row: row[0]):
        chain_start, start, last = 0, 0, -(10**15)
        for _, time_ms, page in events:
            new_chain = time_ms - last > GAP_MS
            rolled = cap == "rolling" and time_ms >= start + CAP_MS
            anchored = cap == "anchored" and (time_ms - chain_start) // CAP_MS != (last - chain_start) // CAP_MS
            if new_chain:
                chain_start = time_ms
            if new_chain or rolled or anchored:
                start = time_ms
                sessions.append((user, time_ms, time_ms, 0, []))
            _, _, _, count, pages = sessions.pop()
            pages = pages if page in pages else [*pages, page]
            sessions.append((user, start, time_ms, count + 1, pages))
            last = time_ms
    return sessions


def as_table(sessions: list[tuple[str, int, int, int, list[str]]]) -> pa.Table:
    names = ("user", "session_start_time_ms", "session_end_time_ms", "event_count", "pages_visited")
    types = (pa.string(), pa.int64(), pa.int64(), pa.int64(), pa.list_(pa.string()))
    columns = zip(*sessions, strict=True) if sessions else [[]] * len(names)
    return pa.table({n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)})


def write_events(path: Path, rows: list[tuple[str, int, str]]) -> None:
    user, ts, page = zip(*rows, strict=True)
    pq.write_table(pa.table({"user": user, "ts": pa.array(ts, pa.int64()), "page": page}), path)


# Steps of 10 min, with a few ms to and fro, put events on and beside both limits.
ROWS = st.lists(
    st.tuples(
        st.sampled_from("uvw"),
        st.builds(lambda step, off: step * 10 * MIN + off, st.integers(-5, 60), st.integers(-1, 1)),
        st.sampled_from(["/a", "/b", "/c"]),
    ),
    min_size=1,
    max_size=80,
    unique_by=lambda row: row[:2],
)


def every(step_ms: int, count: int, last_ms: int = 0) -> list[tuple[str, int, str]]:
    """One user's events at equal distances, the last of them moved by last_ms: on the limits to the millisecond."""
    return [("u", i * step_ms + (last_ms if i == count - 1 else 0), "/a") for i in range(count)]


@given(rows=ROWS)
@example(rows=every(20 * MIN, 7))
@example(rows=every(20 * MIN, 15))
@example(rows=every(30 * MIN, 10))
@example(rows=every(20 * MIN, 7, last_ms=-1))
@settings(max_examples=60, deadline=None)
def test_answers_equal_loops_over_rows(bench, tmp_path_factory, rows):
    reference, folder = bench["reference"], tmp_path_factory.mktemp("reference")
    write_events(folder / "events.parquet", rows)
    right = reference.answers(folder / "events.parquet")
    for task, cap in (("A", None), ("B", "rolling"), ("A+pages", None)):
        pq.write_table(as_table(by_loop(rows, cap)), folder / "sessions.parquet")
        assert reference.verdict(folder / "sessions.parquet", task, right[task]) == "ok"


@given(rows=ROWS)
@example(rows=every(20 * MIN, 7))
@example(rows=every(20 * MIN, 15))
@example(rows=every(30 * MIN, 10))
@example(rows=every(20 * MIN, 7, last_ms=-1))
@settings(max_examples=60, deadline=None)
def test_anchored_starts_equal_loops_over_rows(bench, rows):
    reference = bench["reference"]
    names = sorted({user for user, _, _ in rows})
    events = reference.ordered(
        np.array([names.index(user) for user, _, _ in rows]),
        np.array([time_ms for _, time_ms, _ in rows]),
        np.zeros(len(rows), int),
    )
    starts = events.time_ms[reference.anchored_starts(events)]
    assert starts.tolist() == [start for _, start, *_ in by_loop(rows, "anchored")]


@pytest.fixture
def case(bench, tmp_path):
    """(right answer of A+pages, its sessions, where to write a changed output)."""
    rows = [("u", t * MIN, f"/{t % 3}") for t in (0, 10, 20, 60, 61)] + [("v", 5 * MIN, "/0")]
    write_events(tmp_path / "events.parquet", rows)
    answer = bench["reference"].answers(tmp_path / "events.parquet")["A+pages"]
    return answer, by_loop(rows, None), tmp_path / "sessions.parquet"


def changed(sessions: list[Any], row: int, column: int, value: Any) -> list[Any]:
    return [
        tuple(value if (i, j) == (row, column) else cell for j, cell in enumerate(session))
        for i, session in enumerate(sessions)
    ]


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        (0, "w", "differ"),
        (1, 1, "differ"),
        (2, 20 * MIN + 1, "differ"),
        (3, 4, "differ"),
        (4, ["/1", "/0", "/2"], "pages differ"),
        (4, ["/0", "/1"], "pages differ"),
        (4, ["/0", "/1", None], "nulls inside pages_visited"),
        (3, None, "nulls in event_count"),
    ],
)
def test_a_near_miss_is_wrong(bench, case, column, value, says):
    answer, sessions, output = case
    assert sessions[0] == ("u", 0, 20 * MIN, 3, ["/0", "/1", "/2"])
    pq.write_table(as_table(changed(sessions, 0, column, value)), output)
    assert says in bench["reference"].verdict(output, "A+pages", answer)


def test_order_of_rows_is_free_and_number_of_rows_is_not(bench, case):
    answer, sessions, output = case
    reference = bench["reference"]
    pq.write_table(as_table(sessions[::-1]), output)
    assert reference.verdict(output, "A+pages", answer) == "ok"
    pq.write_table(as_table(sessions + sessions[:1]), output)
    assert "sessions, right are 3" in reference.verdict(output, "A+pages", answer)


def test_an_output_that_is_none_is_wrong(bench, case):
    answer, sessions, output = case
    reference = bench["reference"]
    assert reference.verdict(output, "A", answer).startswith("unreadable")
    output.write_bytes(b"PAR1 and then nothing")
    assert reference.verdict(output, "A", answer).startswith("unreadable")
    pq.write_table(as_table(sessions).drop_columns(["event_count"]), output)
    assert reference.verdict(output, "A", answer).startswith("no column event_count")


def test_the_made_events_have_the_shape_that_is_promised(bench):
    events, make_data = bench["events"], bench["make_data"]
    size = make_data.SIZES["100k"]
    whole = list(make_data.chunks(size, 30_000))
    assert [len(chunk) for chunk in whole] == [30_000, 30_000, 30_000, 10_000]
    user = np.concatenate([chunk.user for chunk in whole])
    time_ms = np.concatenate([chunk.time_ms for chunk in whole])
    assert len(np.unique(user.astype(np.int64) * 10**13 + (time_ms - time_ms.min()))) == size.events
    behind = np.maximum.accumulate(time_ms) - time_ms
    assert 0 < behind.max() <= events.DELAY_MS_MAX
    assert (behind > 0).mean() > 0.5
    by_user = np.lexsort((time_ms, user))
    silences = np.diff(time_ms[by_user])[np.diff(user[by_user]) == 0]
    assert {events.GAP_MS, events.GAP_MS + 1} <= set(silences.tolist())
    again = next(iter(make_data.chunks(size, 1000)))
    assert again.time_ms.tolist() == whole[0].time_ms[:1000].tolist()
    assert again.page.tolist() == whole[0].page[:1000].tolist()


def test_users_never_do_two_things_at_once_however_busy(bench):
    shape = bench["events"].Shape(users=20, events_per_day=2_000_000, edge_users=4)
    windows = bench["events"].stream(shape)
    seen: set[tuple[int, int]] = set()
    events = 0
    for _, window in zip(range(2), windows, strict=False):
        seen.update(zip(window.user.tolist(), window.time_ms.tolist(), strict=True))
        events += len(window)
    assert len(seen) == events > 900_000
