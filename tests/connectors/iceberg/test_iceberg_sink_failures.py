"""The sink where something fails: values that are missing, a full disk, an answer of the catalog that is lost."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy.exc import OperationalError

from sessionize.connectors.iceberg import Catalog, IcebergSink, events, load_table, user_sessions
from sessionize.errors import OutputError, UnavailableError
from tests.connectors.iceberg.writing import data_files, sessions, stored, write_all


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

    assert data_files(tmp_path) == set()
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
    before = data_files(tmp_path)
    noise = [np.random.default_rng(i).bytes(400_000).hex() for i in range(4)]

    with files_limited_to(50_000), pytest.raises(UnavailableError, match="rows cannot be written"):
        sink.write(pa.table({"user": ["bob"] * 4, "event_time_ms": [2] * 4, "properties": noise}))
    sink.abort()

    assert data_files(tmp_path) == before
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
    monkeypatch.setattr("sessionize.connectors.iceberg.commits._WAIT_MAX_S", 0.0)
    sink = IcebergSink(catalog, user_sessions(), table="user_sessions")
    sink.write(sessions(10))
    broken = LostAnswer(catalog, monkeypatch, times=-1, land=False)

    with pytest.raises(UnavailableError, match="did not succeed"):
        sink.commit()
    broken.left = 0
    sink.commit()
    assert stored(catalog).num_rows == 10

    kept = data_files(tmp_path)
    sink.write(sessions(10))
    broken.left = -1
    with pytest.raises(UnavailableError, match="did not succeed"):
        sink.commit()
    sink.abort()
    assert data_files(tmp_path) == kept


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
