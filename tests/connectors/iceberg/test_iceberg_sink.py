"""The sink for one table: what is written comes back, once, in few files, and only after the commit."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessionize.connectors.iceberg import (
    Catalog,
    IcebergSink,
    events,
    load_table,
    open_catalog,
    rejected_events,
    user_sessions,
)
from sessionize.connectors.iceberg.commits import COMMIT_ID
from sessionize.session.columns import REJECTED_SCHEMA, SESSION_COLUMNS, SESSION_TYPES
from tests.connectors.iceberg.writing import DAY_MS, data_files, sessions, stored, write_all


def test_rows_are_visible_only_after_commit_and_in_one_snapshot(catalog: Catalog) -> None:
    sink = IcebergSink(catalog, user_sessions(), table="user_sessions", buffer_bytes_max=1)
    for part in range(3):
        sink.write(sessions(30).slice(part * 10, 10))
        assert stored(catalog).num_rows == 0

    sink.commit()

    assert sorted(stored(catalog)["user"].to_pylist()) == sorted(f"user-{i}" for i in range(30))
    assert len(load_table(catalog, "sessions", "user_sessions").snapshots()) == 1


def test_every_value_comes_back(catalog: Catalog) -> None:
    rows = pa.table(
        {
            "user": ["zoë", "名前\U0001f600"],
            "session_id": ["a", "b"],
            "session_start_time_ms": [-1, 1_705_312_800_000],
            "session_end_time_ms": [0, 1_705_312_900_000],
            "session_duration_seconds": [0.001, 100.0],
            "event_count": [1, 2**40],
            "pages_visited": [[], ["/a", None, "/ü"]],
            "entry_page": [None, "/a"],
            "exit_page": [None, "/ü"],
            "events_by_type": pa.array([None, [("view", 3), ("click", 0)]], SESSION_TYPES["events_by_type"]),
            "has_conversion": [None, True],
            "revenue": [None, -0.5],
            "start_reason": ["first", "inactivity"],
            "end_reason": ["inactivity", "end_of_input"],
            "session_date": pa.array([-1, 19737], pa.int32()).cast(pa.date32()),
            "user_hash_bucket": pa.array([7, 99], pa.int32()),
        },
        # whether a session is a bounce is only written where a run asks for it
        schema=pa.schema({name: kind for name, kind in SESSION_TYPES.items() if name != "is_bounce"}),
    )
    write_all(IcebergSink(catalog, user_sessions(), table="user_sessions"), rows)

    back = stored(catalog).sort_by("session_start_time_ms")
    assert back.column_names == [*SESSION_COLUMNS, "revision"]
    assert back.drop_columns(["revision"]).to_pylist() == rows.to_pylist()


def test_columns_that_a_run_does_not_make_are_null(catalog: Catalog) -> None:
    write_all(IcebergSink(catalog, user_sessions(), table="user_sessions"), sessions(5))

    back = stored(catalog)
    assert back["revenue"].null_count == back["entry_page"].null_count == 5
    assert back["session_date"].null_count == back["user_hash_bucket"].null_count == 0


def test_rows_without_anything_to_derive_a_date_from_go_to_the_null_partition(catalog: Catalog) -> None:
    sink = IcebergSink(catalog, user_sessions(), table="user_sessions")
    write_all(sink, pa.table({"user": ["ann"]}))

    assert stored(catalog)["session_date"].to_pylist() == [None]
    assert [task.file.partition[0] for task in sink.table.scan().plan_files()] == [None]


def test_each_date_is_one_sorted_file_however_many_writes_there_are(catalog: Catalog, tmp_path: Path) -> None:
    sink = IcebergSink(catalog, user_sessions(), table="user_sessions")
    rows = sessions(200, days=2)
    write_all(sink, *(rows.slice(i, 50) for i in range(0, 200, 50)))

    assert len(data_files(tmp_path)) == 2
    for task in sink.table.scan().plan_files():
        file = pq.read_table(task.file.file_path.removeprefix("file://"))
        keys = file.select(["session_date", "user_hash_bucket", "user", "session_start_time_ms"]).to_pylist()
        order = [tuple(key.values()) for key in keys]
        assert order == sorted(order)
        assert len({date for date, *_ in order}) == 1


def test_each_partition_is_one_file_however_many_writes_there_are(catalog: Catalog, tmp_path: Path) -> None:
    layout = user_sessions(layout="date_bucket")
    sink = IcebergSink(catalog, layout, table="user_sessions", buffer_bytes_max=1 << 14)
    rows = sessions(200, days=2)
    write_all(sink, *(rows.slice(i, 50) for i in range(0, 200, 50)))

    buckets = stored(catalog).group_by(["session_date", "user_hash_bucket"]).aggregate([]).num_rows
    assert len(data_files(tmp_path)) == buckets
    for task in sink.table.scan().plan_files():
        file = pq.read_table(task.file.file_path.removeprefix("file://"))
        assert file["user_hash_bucket"].unique().to_pylist() == [task.file.partition[1]]
        assert file.num_rows == task.file.record_count


def test_files_are_closed_when_there_are_more_partitions_than_open_files(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sessionize.connectors.iceberg.staging._OPEN_FILES_MAX", 4)
    sink = IcebergSink(catalog, events(), table="events", buffer_bytes_max=1)
    for round_ in range(2):
        days = np.arange(10, dtype=np.int64)
        sink.write(pa.table({"user": ["ann"] * 10, "event_time_ms": days * DAY_MS + round_}))
    sink.commit()

    assert sorted(stored(catalog, "events")["event_time_ms"].to_pylist()) == sorted(
        day * DAY_MS + round_ for day in range(10) for round_ in range(2)
    )
    assert 10 < len(data_files(tmp_path)) <= 20


def test_a_file_ends_at_the_target_size(catalog: Catalog, tmp_path: Path) -> None:
    sink = IcebergSink(catalog, events(), table="events", buffer_bytes_max=1)
    with sink.table.transaction() as change:
        change.set_properties({"write.target-file-size-bytes": "100"})
    for i in range(3):
        sink.write(pa.table({"user": [f"user-{i}"], "event_time_ms": [i]}))
    sink.commit()

    assert len(data_files(tmp_path)) == 3
    assert stored(catalog, "events").num_rows == 3


def test_events_of_a_file_are_sorted_by_bucket_and_otherwise_in_their_order(catalog: Catalog) -> None:
    sink = IcebergSink(catalog, events(), table="events")
    write_all(sink, pa.table({"user": [f"user-{i % 50}" for i in range(500)], "event_time_ms": range(500)}))

    (task,) = sink.table.scan().plan_files()
    file = pq.read_table(task.file.file_path.removeprefix("file://"))
    order = list(zip(file["user_hash_bucket"].to_pylist(), file["event_time_ms"].to_pylist(), strict=True))
    assert order == sorted(order)
    assert len(set(file["user_hash_bucket"].to_pylist())) > 10


@pytest.mark.parametrize("index", [pa.int8(), pa.int32(), pa.uint16()])
def test_dictionary_columns_are_decoded(catalog: Catalog, index: pa.DataType) -> None:
    encoded = pa.array(["ann", "bob", "ann"]).cast(pa.dictionary(index, pa.string()))
    pages = pa.array(["/a", None, "/b"]).dictionary_encode().cast(pa.dictionary(index, pa.string()))
    write_all(
        IcebergSink(catalog, events(), table="events"),
        pa.table({"user": encoded, "event_time_ms": [1, 2, 3], "page": pages}),
        pa.table({"user": ["cid"], "event_time_ms": [4], "page": ["/c"]}),
    )

    back = stored(catalog, "events").sort_by("event_time_ms")
    assert back["user"].to_pylist() == ["ann", "bob", "ann", "cid"]
    assert back["page"].to_pylist() == ["/a", None, "/b", "/c"]


def test_writing_no_rows_makes_no_snapshot(catalog: Catalog, tmp_path: Path) -> None:
    sink = IcebergSink(catalog, user_sessions(), table="user_sessions")
    write_all(sink, sessions(0))

    assert sink.table.snapshots() == []
    assert data_files(tmp_path) == set()


def test_rejected_records_keep_their_bytes(catalog: Catalog) -> None:
    rows = pa.table(
        [[b"\xff\x00{", None], ["in.json", "in.json"], [1, 2], ["not_json", "too_long"], ["", "2 MB"]],
        schema=REJECTED_SCHEMA,
    )
    write_all(IcebergSink(catalog, rejected_events(), table="rejected_events"), rows)

    assert stored(catalog, "rejected_events").to_pylist() == rows.to_pylist()


def test_abort_leaves_no_files_and_the_sink_usable(catalog: Catalog, tmp_path: Path) -> None:
    sink = IcebergSink(catalog, user_sessions(), table="user_sessions", buffer_bytes_max=1)
    sink.write(sessions(50))
    assert data_files(tmp_path)

    sink.abort()

    assert data_files(tmp_path) == set()
    sink.commit()
    assert sink.table.snapshots() == []
    write_all(sink, sessions(3))
    assert stored(catalog).num_rows == 3


def test_abort_after_a_commit_keeps_what_was_committed(catalog: Catalog) -> None:
    sink = IcebergSink(catalog, user_sessions(), table="user_sessions")
    write_all(sink, sessions(3))
    sink.write(sessions(4))
    sink.abort()

    assert stored(catalog).num_rows == 3


def test_files_of_a_process_that_died_are_invisible(catalog: Catalog, tmp_path: Path) -> None:
    IcebergSink(catalog, user_sessions(), table="user_sessions", buffer_bytes_max=1).write(sessions(20, days=9))
    assert len(data_files(tmp_path)) > 5

    assert stored(open_catalog(tmp_path)).num_rows == 0
    write_all(IcebergSink(catalog, user_sessions(), table="user_sessions"), sessions(2))
    assert stored(open_catalog(tmp_path)).num_rows == 2


def test_overwrite_replaces_everything_in_one_snapshot(catalog: Catalog) -> None:
    write_all(IcebergSink(catalog, user_sessions(), table="user_sessions"), sessions(40))
    write_all(IcebergSink(catalog, user_sessions(), table="user_sessions"), sessions(40))

    write_all(IcebergSink(catalog, user_sessions(), table="user_sessions", overwrite=True), sessions(7))

    assert stored(catalog).num_rows == 7
    assert len(load_table(catalog, "sessions", "user_sessions").snapshots()) == 3


def test_overwrite_with_nothing_empties_the_table(catalog: Catalog) -> None:
    write_all(IcebergSink(catalog, user_sessions(), table="user_sessions"), sessions(4))
    IcebergSink(catalog, user_sessions(), table="user_sessions", overwrite=True).commit()

    assert stored(catalog).num_rows == 0


def test_snapshot_properties_are_kept(catalog: Catalog) -> None:
    sink = IcebergSink(catalog, user_sessions(), table="user_sessions")
    sink.write(sessions(1))
    sink.commit(snapshot_properties={"sessionize.epoch": "42"})

    (snapshot,) = load_table(catalog, "sessions", "user_sessions").snapshots()
    assert snapshot.summary is not None
    assert snapshot.summary["sessionize.epoch"] == "42"
    assert snapshot.summary[COMMIT_ID]


def test_many_small_commits_do_not_pile_up_manifests(catalog: Catalog) -> None:
    sink = IcebergSink(catalog, rejected_events(), table="rejected_events")
    with sink.table.transaction() as change:
        change.set_properties({"commit.manifest.min-count-to-merge": "5"})
    row = pa.table([[b"x"], ["f"], [1], ["r"], ["d"]], schema=REJECTED_SCHEMA)
    for _ in range(12):
        write_all(sink, row)

    snapshot = sink.table.current_snapshot()
    assert snapshot is not None
    assert len(snapshot.manifests(sink.table.io)) < 6
    assert stored(catalog, "rejected_events").num_rows == 12


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.text(max_size=5), st.integers(-(10**12), 10**12), st.none() | st.text(max_size=20)),
        min_size=1,
        max_size=30,
    ),
    cut=st.integers(0, 30),
    buffer_bytes_max=st.sampled_from([1, 500, 1 << 20]),
)
def test_any_events_in_any_batches_come_back_once(
    catalog: Catalog, rows: list[tuple[str, int, str | None]], cut: int, buffer_bytes_max: int
) -> None:
    users, times, pages = zip(*rows, strict=True)
    table = pa.table({"user": users, "event_time_ms": times, "page": pa.array(pages, pa.string())})
    sink = IcebergSink(catalog, events(), table="events", overwrite=True, buffer_bytes_max=buffer_bytes_max)
    write_all(sink, table.slice(0, cut), table.slice(cut))

    back = stored(catalog, "events").select(["user", "event_time_ms", "page"]).to_pylist()
    assert sorted(map(repr, back)) == sorted(map(repr, table.to_pylist()))
