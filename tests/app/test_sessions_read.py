"""Sessions read back from the tables, and both kinds as one reader."""

from pathlib import Path

import pyarrow as pa
import pytest

from sessionize.app.tables.sessions import Sessions, WarehouseSessions
from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.iceberg import IcebergSink, open_catalog, user_sessions
from sessionize.connectors.memory import MemoryLiveView
from sessionize.errors import ConfigError
from sessionize.ports import ClosedSessionReader
from sessionize.session import columns as col
from sessionize.testing.epoch_sinks import sessions
from sessionize.testing.session_readers import NOBODY, NOW_MS, START_MS, ClosedSessionReaderContract, Written


def write(home: Path, rows: pa.Table, *, user_name: str = col.USER, table: str = "user_sessions") -> None:
    sink = IcebergSink(open_catalog(home), user_sessions(user_name), table=table)
    sink.write(rows.rename_columns([user_name if name == col.USER else name for name in rows.column_names]))
    sink.commit()


class TestWarehouseSessions(ClosedSessionReaderContract):
    @pytest.fixture
    def written(self, tmp_path: Path) -> Written:
        def write_and_read(rows: pa.Table) -> ClosedSessionReader:
            write(tmp_path, rows)
            return WarehouseSessions(Warehouse(tmp_path))

        return write_and_read


def test_the_user_column_is_called_as_in_the_input(tmp_path: Path) -> None:
    write(tmp_path, sessions(["ann", "ben"]), user_name="uuid", table="visits")
    reader = WarehouseSessions(Warehouse(tmp_path), "visits")
    assert reader.sessions_of("ann", limit=5)["uuid"].to_pylist() == ["ann"]
    assert reader.recent(5)["uuid"].to_pylist() == ["ann", "ben"]


def test_other_days_and_buckets_are_not_opened(tmp_path: Path) -> None:
    """Their files are broken, so a reader that opens one fails."""
    write(tmp_path, sessions(["ann"], start_ms=START_MS))
    write(tmp_path, sessions(["ben"], start_ms=START_MS + 3 * 86_400_000))
    (old,) = (tmp_path / "warehouse").rglob("session_date=2023-11-14/*.parquet")
    old.write_bytes(b"broken")
    assert WarehouseSessions(Warehouse(tmp_path)).recent(1)[col.USER].to_pylist() == ["ben"]


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tables yet"):
        WarehouseSessions(Warehouse(tmp_path / "nowhere")).recent(1)
    write(tmp_path, sessions(["ann"]))
    with pytest.raises(ConfigError, match="does not exist"):
        WarehouseSessions(Warehouse(tmp_path), "visits").sessions_of("ann", limit=1)


def test_closed_and_open_sessions_from_one_reader(tmp_path: Path) -> None:
    write(tmp_path, sessions(["ann"]))
    view = MemoryLiveView()
    view.update(sessions(["ben"]), NOBODY, now_ms=NOW_MS)
    reader = Sessions(WarehouseSessions(Warehouse(tmp_path)), view)
    assert reader.sessions_of("ann", limit=1).num_rows == reader.recent(9).num_rows == 1
    assert reader.open_session("ann") is None
    assert (reader.open_session("ben") or {})[col.USER] == "ben"
