import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from sessionize.connectors.iceberg import (
    Catalog,
    IcebergSink,
    events,
    load_table,
    open_catalog,
    rejected_events,
    user_sessions,
)
from sessionize.connectors.iceberg.sink import COMMIT_ID
from sessionize.errors import OutputError, UnavailableError
from sessionize.ports import Sink
from sessionize.session.columns import REJECTED_SCHEMA, SESSION_COLUMNS, SESSION_TYPES

DAY_MS = 86_400_000


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return open_catalog(tmp_path)


def sessions(n: int, *, days: int = 1, user: str = "user") -> pa.Table:
    """n sessions of n users, spread over days, in the columns that every run makes."""
    start = np.arange(n, dtype=np.int64) % days * DAY_MS
    return pa.table(
        {
            user: [f"user-{i}" for i in range(n)],
            "session_id": [f"user-{i}_{t}" for i, t in enumerate(start)],
            "session_start_time_ms": start,
            "session_end_time_ms": start + 1000,
            "event_count": np.full(n, 2),
            "pages_visited": [["/a", "/b"]] * n,
            "events_by_type": pa.array([[("view", 2)]] * n, SESSION_TYPES["events_by_type"]),
        }
    )


def data_files(catalog: Catalog, home: Path) -> set[Path]:
    return set((home / "warehouse").rglob("*.parquet"))


def stored(catalog: Catalog, table: str = "user_sessions") -> pa.Table:
    return load_table(catalog, "sessions", table).scan().to_arrow()


def write_all(sink: Sink, *tables: pa.Table) -> None:
    for rows in tables:
        sink.write(rows)
    sink.commit()


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
        schema=pa.schema(SESSION_TYPES),
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


def test_each_partition_is_one_file_however_many_writes_there_are(catalog: Catalog, tmp_path: Path) -> None:
    sink = IcebergSink(catalog, user_sessions(), table="user_sessions", buffer_bytes_max=1 << 14)
    rows = sessions(200, days=2)
    write_all(sink, *(rows.slice(i, 50) for i in range(0, 200, 50)))

    buckets = stored(catalog).group_by(["session_date", "user_hash_bucket"]).aggregate([]).num_rows
    assert len(data_files(catalog, tmp_path)) == buckets
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
    assert 10 < len(data_files(catalog, tmp_path)) <= 20


def test_a_file_ends_at_the_target_size(catalog: Catalog, tmp_path: Path) -> None:
    sink = IcebergSink(catalog, events(), table="events", buffer_bytes_max=1)
    with sink.table.transaction() as change:
        change.set_properties({"write.target-file-size-bytes": "100"})
    for i in range(3):
        sink.write(pa.table({"user": [f"user-{i}"], "event_time_ms": [i]}))
    sink.commit()

    assert len(data_files(catalog, tmp_path)) == 3
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
    assert data_files(catalog, tmp_path) == set()


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
    assert data_files(catalog, tmp_path)

    sink.abort()

    assert data_files(catalog, tmp_path) == set()
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
    IcebergSink(catalog, user_sessions(), table="user_sessions", buffer_bytes_max=1).write(sessions(20))
    assert len(data_files(catalog, tmp_path)) > 5

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


@pytest.mark.parametrize(
    "rows",
    [
        pa.table({"user": ["ann", None], "event_time_ms": [1, 2]}),
        pa.table({"user": pa.DictionaryArray.from_arrays([0, 1], ["ann", None]), "event_time_ms": [1, 2]}),
        pa.table({"user": ["ann"], "event_time_ms": pa.array([None], pa.int64())}),
    ],
)
def test_a_required_value_that_is_missing(catalog: Catalog, rows: pa.Table) -> None:
    sink = IcebergSink(catalog, events(), table="events")

    with pytest.raises(OutputError, match="required column has an empty value"):
        sink.write(rows)


@pytest.mark.parametrize("column", ["user", "event_time_ms"])
def test_a_required_column_that_is_missing(catalog: Catalog, column: str) -> None:
    rows = pa.table({"user": ["ann"], "event_time_ms": [1]}).drop_columns([column])

    with pytest.raises(OutputError, match="required column is missing") as caught:
        IcebergSink(catalog, events(), table="events").write(rows)

    assert repr(column) in str(caught.value)


def test_after_a_failed_write_only_abort_is_left(catalog: Catalog, tmp_path: Path) -> None:
    sink = IcebergSink(catalog, events(), table="events", buffer_bytes_max=1)
    sink.write(pa.table({"user": ["ann"], "event_time_ms": [1]}))
    with pytest.raises(OutputError):
        sink.write(pa.table({"user": ["ann"], "event_time_ms": ["soon"]}))

    with pytest.raises(OutputError, match="incomplete write"):
        sink.write(pa.table({"user": ["ann"], "event_time_ms": [2]}))
    with pytest.raises(OutputError, match="incomplete write"):
        sink.commit()
    sink.abort()

    assert data_files(catalog, tmp_path) == set()
    write_all(sink, pa.table({"user": ["ann"], "event_time_ms": [3]}))
    assert stored(catalog, "events")["event_time_ms"].to_pylist() == [3]


@contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_loses_nothing_that_was_there(catalog: Catalog, tmp_path: Path) -> None:
    sink = IcebergSink(catalog, events(), table="events", buffer_bytes_max=1)
    write_all(sink, pa.table({"user": ["ann"], "event_time_ms": [1]}))
    before = data_files(catalog, tmp_path)
    noise = [np.random.default_rng(i).bytes(400_000).hex() for i in range(4)]

    with files_limited_to(50_000), pytest.raises(UnavailableError, match="rows cannot be written"):
        sink.write(pa.table({"user": ["bob"] * 4, "event_time_ms": [2] * 4, "properties": noise}))
    sink.abort()

    assert data_files(catalog, tmp_path) == before
    assert stored(catalog, "events")["user"].to_pylist() == ["ann"]


class LostAnswer:
    """Lets a catalog's commit through and then loses its answer, as often as told."""

    def __init__(self, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, *, times: int, land: bool) -> None:
        self.left = times
        commit = catalog.commit_table

        def lossy(*arguments: Any) -> object:
            if self.left == 0:
                return commit(*arguments)
            self.left -= 1
            if land:
                commit(*arguments)
            raise OperationalError("UPDATE", None, Exception("database is locked"))

        monkeypatch.setattr(catalog, "commit_table", lossy)


@pytest.mark.parametrize("land", [True, False])
def test_a_lost_answer_neither_doubles_nor_loses_rows(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, land: bool
) -> None:
    sink = IcebergSink(catalog, user_sessions(), table="user_sessions")
    sink.write(sessions(10))
    LostAnswer(catalog, monkeypatch, times=1, land=land)

    sink.commit()

    assert stored(catalog).num_rows == 10
    assert len(load_table(catalog, "sessions", "user_sessions").snapshots()) == 1


def test_a_commit_that_never_succeeds_can_be_repeated_or_aborted(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sessionize.connectors.iceberg.sink._WAIT_MAX_S", 0.0)
    sink = IcebergSink(catalog, user_sessions(), table="user_sessions")
    sink.write(sessions(10))
    broken = LostAnswer(catalog, monkeypatch, times=-1, land=False)

    with pytest.raises(UnavailableError, match="did not succeed"):
        sink.commit()
    broken.left = 0
    sink.commit()
    assert stored(catalog).num_rows == 10

    kept = data_files(catalog, tmp_path)
    sink.write(sessions(10))
    broken.left = -1
    with pytest.raises(UnavailableError, match="did not succeed"):
        sink.commit()
    sink.abort()
    assert data_files(catalog, tmp_path) == kept


def test_abort_after_an_interrupted_commit_that_went_through_keeps_its_files(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = IcebergSink(catalog, user_sessions(), table="user_sessions")
    sink.write(sessions(10))
    commit = catalog.commit_table

    def interrupted(*arguments: Any) -> object:
        commit(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(catalog, "commit_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sink.commit()
    monkeypatch.undo()
    sink.abort()

    assert stored(catalog).num_rows == 10


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
