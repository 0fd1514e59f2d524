"""Rows replaced in one snapshot: only those, once per token, beside writers that append, compact or are faster."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table, Transaction

from sessionize.connectors.iceberg import Catalog, IcebergSink, load_table, open_catalog, user_sessions
from sessionize.connectors.iceberg.row_rewrite import RowReplacer
from sessionize.errors import OutputError, UnavailableError
from sessionize.session import columns as col

DAY = 86_400_000
LAYOUT = user_sessions("uuid")
SCHEMA = col.SessionColumns().schema("uuid")


def sessions(*rows: tuple[str, int, int], **more: list[Any]) -> pa.Table:
    """Sessions of (user, start, events)."""
    made = {
        "uuid": [user for user, _, _ in rows],
        col.SESSION_ID: [f"{user}_{start}" for user, start, _ in rows],
        col.SESSION_START: pa.array([start for _, start, _ in rows], pa.int64()),
        col.EVENT_COUNT: pa.array([events for _, _, events in rows], pa.int64()),
    }
    return pa.table({**made, **more})


def append(catalog: Catalog, rows: pa.Table) -> None:
    sink = IcebergSink(catalog, LAYOUT, table="user_sessions")
    sink.write(rows)
    sink.commit()


def opened(catalog: Catalog) -> Table:
    return load_table(catalog, "sessions", "user_sessions")


def stored(catalog: Catalog, *names: str) -> list[tuple[Any, ...]]:
    rows = opened(catalog).scan().to_arrow()
    columns = [rows[name].to_pylist() for name in ("uuid", col.SESSION_START, col.EVENT_COUNT, *names)]
    return sorted(zip(*columns, strict=True))


def data_files(home: Path) -> set[str]:
    return {str(path) for path in (home / "warehouse").rglob("*.parquet")}


def replace(catalog: Catalog, removed: pa.Table, added: pa.Table, token: str = "t", **options: Any) -> RowReplacer:
    replacer = RowReplacer(opened(catalog), LAYOUT)
    start_ms = removed[col.SESSION_START].combine_chunks()
    replacer.replace(removed.select(["uuid", col.SESSION_ID]), added, token=token, start_ms=start_ms, **options)
    return replacer


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    made = open_catalog(tmp_path)
    append(made, sessions(("a", 0, 1), ("a", 5, 2), ("a", DAY, 3), ("b", 0, 4)))
    append(made, sessions(("a", 7, 5), ("c", -1, 6)))
    return made


def test_one_snapshot_replaces_rows_and_leaves_other_files_alone(catalog: Catalog) -> None:
    before = {task.file.file_path for task in opened(catalog).scan().plan_files()}
    old = sessions(("a", 0, 0), ("a", 7, 0))
    new = sessions(("a", -5, 8), revision=pa.array([1], pa.int64()))
    done = replace(catalog, old, new, snapshot_properties={"why": "late"})
    assert stored(catalog, "revision") == [
        ("a", -5, 8, 1),
        ("a", 5, 2, 0),
        ("a", DAY, 3, 0),
        ("b", 0, 4, 0),
        ("c", -1, 6, 0),
    ]
    table = opened(catalog)
    after = {task.file.file_path for task in table.scan().plan_files()}
    assert len(before - after) == 2
    assert len(after - before) == 2
    assert len(table.snapshots()) == 3
    summary = table.current_snapshot().summary
    assert summary is not None
    # of the first day both files: three rows of one, and the one that is alone in the other
    assert (summary["why"], summary["deleted-records"], summary["added-records"]) == ("late", "4", "3")
    done.set_properties({"mark": "9"})
    assert opened(catalog).properties["mark"] == "9"
    assert done.was_committed("t")


def test_a_token_that_landed_is_not_written_again(catalog: Catalog, tmp_path: Path) -> None:
    replace(catalog, sessions(("b", 0, 0)), sessions(("b", 1, 1)))
    files = data_files(tmp_path)
    replace(catalog, sessions(("b", 0, 0)), sessions(("b", 1, 1)))
    assert [row for row in stored(catalog) if row[0] == "b"] == [("b", 1, 1)]
    assert data_files(tmp_path) == files


def test_only_removing_and_only_adding(catalog: Catalog) -> None:
    replace(catalog, sessions(("b", 0, 0)), sessions().cast(sessions(("x", 0, 0)).schema))
    replace(catalog, sessions(("b", 0, 0)).slice(0, 0), sessions(("d", 3, 1)), "other")
    assert [row[0] for row in stored(catalog)] == ["a", "a", "a", "a", "c", "d"]


def test_rows_that_are_gone_change_nothing(catalog: Catalog, tmp_path: Path) -> None:
    files, before = data_files(tmp_path), stored(catalog)
    with pytest.raises(OutputError, match=r"(?s)no longer in the table.*1 of 2"):
        replace(catalog, sessions(("b", 0, 0), ("b", 99, 0)), sessions(("b", 1, 1)))
    assert stored(catalog) == before
    assert data_files(tmp_path) == files


def interrupt(monkeypatch: pytest.MonkeyPatch, *steps: Any) -> None:
    """Before each try to commit, one of the steps happens; a step that returns an error raises it afterwards."""
    waiting = list(steps)
    real = Transaction.commit_transaction
    busy: list[bool] = []

    def commit(self: Transaction) -> Table:
        if busy or not waiting:
            return real(self)
        busy.append(True)
        problem = waiting.pop(0)(lambda: real(self))
        busy.clear()
        if problem is not None:
            raise problem
        return real(self)

    monkeypatch.setattr(Transaction, "commit_transaction", commit)


def test_an_append_in_between_is_kept(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, lambda _: append(open_catalog(tmp_path), sessions(("b", 2, 7), extra=["x"])))
    replace(catalog, sessions(("b", 0, 0)), sessions(("b", 1, 1)))
    assert [row for row in stored(catalog, "extra") if row[0] == "b"] == [("b", 1, 1, None), ("b", 2, 7, "x")]


def test_a_row_that_is_appended_again_in_between_goes_too(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, lambda _: append(open_catalog(tmp_path), sessions(("b", 0, 7))))
    replace(catalog, sessions(("b", 0, 0)), sessions(("b", 1, 1)))
    assert [row for row in stored(catalog) if row[0] == "b"] == [("b", 1, 1)]


def test_files_that_were_rewritten_in_between_are_planned_again(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compact(_: Any) -> None:
        other = open_catalog(tmp_path)
        rows = opened(other).scan().to_arrow()
        sink = IcebergSink(other, LAYOUT, table="user_sessions", overwrite=True)
        sink.write(rows)
        sink.commit()

    interrupt(monkeypatch, compact)
    replace(catalog, sessions(("a", 0, 0)), sessions(("a", 1, 9)))
    assert [row for row in stored(catalog) if row[0] == "a"] == [("a", 1, 9), ("a", 5, 2), ("a", 7, 5), ("a", DAY, 3)]
    live = {task.file.file_path.removeprefix("file://") for task in opened(catalog).scan().plan_files()}
    assert live <= data_files(tmp_path)


def test_an_answer_that_got_lost_doubles_nothing(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(commit: Any) -> Exception:
        commit()
        return OSError("the connection is gone")

    interrupt(monkeypatch, lost)
    replace(catalog, sessions(("b", 0, 0)), sessions(("b", 1, 1)))
    assert [row for row in stored(catalog) if row[0] == "b"] == [("b", 1, 1)]
    assert len(opened(catalog).snapshots()) == 3


def test_writers_that_are_always_faster_leave_no_files(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, before = data_files(tmp_path), stored(catalog)
    monkeypatch.setattr("sessionize.connectors.iceberg.commits._WAIT_MAX_S", 0.0)
    interrupt(monkeypatch, *[lambda _: CommitFailedException("too late")] * 10)
    with pytest.raises(UnavailableError, match=r"(?s)commit did not succeed.*nothing was changed"):
        replace(catalog, sessions(("b", 0, 0)), sessions(("b", 1, 1)))
    assert stored(catalog) == before
    assert data_files(tmp_path) == files
