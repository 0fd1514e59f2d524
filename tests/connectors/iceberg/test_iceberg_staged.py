"""Files that are staged in one place and committed in another: as if one sink had written the epoch."""

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table, Transaction

from sessionize.connectors.iceberg import IcebergEpochSink, epoch_records, load_table, open_catalog
from sessionize.connectors.iceberg.data_files import StagedFiles
from sessionize.errors import ConfigError, StateError, UnavailableError
from sessionize.ports import EpochOutput
from sessionize.testing.epoch_sinks import empty_rows, epoch_id, epoch_rows, events

TABLES = ("user_sessions", "events", "late_events", "rejected_events")

Files = dict[str, list[StagedFiles]]


def staged(home: Path, *outputs: EpochOutput) -> Files:
    """The files of each output, each staged by a sink of its own and sent to another process."""
    files: Files = {}
    for output in outputs:
        sink = IcebergEpochSink(open_catalog(home))
        for name, rows in output.tables.items():
            part = sink.stage(name, rows)
            if part is not None:
                assert part.rows == rows.num_rows
                files.setdefault(name, []).append(pickle.loads(pickle.dumps(part)))
        sink.close()
    return files


def commit(home: Path, number: int, files: Files, *, plan: str | None = None) -> None:
    sink = IcebergEpochSink(open_catalog(home))
    sink.commit_files(epoch_id(number, plan=plan), files, watermark_ms=epoch_rows(number).watermark_ms)
    sink.close()


def table(home: Path, name: str) -> Table:
    return load_table(open_catalog(home), "sessions", name)


def found(home: Path) -> dict[str, list[str]]:
    return {name: sorted(map(repr, table(home, name).scan().to_arrow().to_pylist())) for name in TABLES}


def test_staged_here_and_committed_there_is_what_write_epoch_writes(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    sink = IcebergEpochSink(open_catalog(one))
    for number in (1, 2):
        sink.write_epoch(epoch_id(number), epoch_rows(number))
        commit(other, number, staged(other, epoch_rows(number)))
    assert found(one) == found(other)
    for name in TABLES:
        mine, its = table(one, name), table(other, name)
        assert epoch_records(mine) == epoch_records(its)
        said = [
            [{k: v for k, v in s.summary.additional_properties.items() if k.startswith("sessionize.")} for s in snaps]
            for snaps in (mine.snapshots(), its.snapshots())
        ]
        for summaries in said:
            for summary in summaries:
                del summary["sessionize.commit-id"]
        assert said[0] == said[1]
        assert len(said[0]) == 2


def test_nothing_is_seen_before_the_commit_and_an_epoch_is_committed_once(tmp_path: Path) -> None:
    files = staged(tmp_path, epoch_rows(1))
    assert all(rows == [] for rows in found(tmp_path).values())
    commit(tmp_path, 1, files)
    once = found(tmp_path)
    assert once["user_sessions"]
    commit(tmp_path, 1, files)  # a process that does not know whether its last try went through
    commit(tmp_path, 1, staged(tmp_path, epoch_rows(1)))
    assert found(tmp_path) == once
    with pytest.raises(StateError, match="another plan"):
        commit(tmp_path, 1, staged(tmp_path, epoch_rows(9)), plan="other")
    assert found(tmp_path) == once


def test_a_commit_that_failed_half_way_is_repeated_with_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = staged(tmp_path, epoch_rows(1))
    real, fails = Transaction.commit_transaction, [True]

    def refused(self: Transaction) -> Table:
        if self._table.name()[-1] in {"events", "user_sessions"} and fails:
            raise CommitFailedException("another one was faster")
        return real(self)

    monkeypatch.setattr(Transaction, "commit_transaction", refused)
    monkeypatch.setattr("sessionize.connectors.iceberg.commits._WAIT_MAX_S", 0)
    with pytest.raises(UnavailableError):
        commit(tmp_path, 1, files)
    assert [len(table(tmp_path, name).snapshots()) for name in TABLES] == [0, 0, 1, 1]
    fails.clear()
    commit(tmp_path, 1, files)
    whole = tmp_path / "whole"
    IcebergEpochSink(open_catalog(whole)).write_epoch(epoch_id(1), epoch_rows(1))
    assert found(tmp_path) == found(whole)


def coloured(user: str, **more: Any) -> EpochOutput:
    rows = events([user])
    for name, values in more.items():
        rows = rows.append_column(name, pa.array(values))
    return empty_rows().with_tables({"events": rows})


def test_pieces_that_bring_different_columns_become_one_snapshot(tmp_path: Path) -> None:
    """Each was staged for a table that knew neither column, so their field ids contradict each other."""
    large = pa.array([2**40])
    pieces = [
        coloured("a", colour=["red"]),
        coloured("b", size=pa.array([1], pa.int32())),
        coloured("c", size=large),
        coloured("d", size=["XL"]),  # a field may be a number in one piece and text in another
    ]
    files = staged(tmp_path, *pieces)
    commit(tmp_path, 1, files)
    rows = table(tmp_path, "events").scan().to_arrow().to_pylist()
    assert sorted((row["user"], row["colour"], row["size"], row["properties"]) for row in rows) == [
        ("a", "red", None, '{"a": 1}'),
        ("b", None, 1, '{"a": 1}'),
        ("c", None, 2**40, '{"a": 1}'),
        ("d", None, None, '{"a":1,"size":"XL"}'),
    ]
    assert len(table(tmp_path, "events").snapshots()) == 1
    commit(tmp_path, 1, files)
    assert len(table(tmp_path, "events").scan().to_arrow()) == 4


def test_an_epoch_without_files_is_noted(tmp_path: Path) -> None:
    assert staged(tmp_path, empty_rows()) == {}
    commit(tmp_path, 1, {})
    assert IcebergEpochSink(open_catalog(tmp_path)).last_epoch("writer") == 1
    assert [len(table(tmp_path, name).snapshots()) for name in TABLES] == [0, 0, 0, 0]


def test_a_table_that_is_not_written_here_cannot_be_staged(tmp_path: Path) -> None:
    sink = IcebergEpochSink(open_catalog(tmp_path), destinations={"user_sessions": "user_sessions"})
    with pytest.raises(ConfigError, match="no Iceberg table"):
        sink.stage("events", epoch_rows(1).tables["events"])
    with pytest.raises(ConfigError, match="no Iceberg table"):
        sink.commit_files(epoch_id(1), {"events": []}, watermark_ms=None)
    assert sink.last_epoch("writer") == 0


def test_two_tables_cannot_be_one_here(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two output tables have one destination"):
        IcebergEpochSink(open_catalog(tmp_path), destinations={"events": "t", "late_events": "t"})


def test_what_cannot_be_staged_leaves_no_file(tmp_path: Path) -> None:
    sink = IcebergEpochSink(open_catalog(tmp_path))
    rows = epoch_rows(1).tables["user_sessions"]
    wrong = rows.set_column(0, "user", pa.nulls(rows.num_rows, pa.string()))
    with pytest.raises(Exception, match="empty value"):
        sink.stage("user_sessions", wrong)
    assert list((tmp_path / "warehouse").rglob("*.parquet")) == []
    assert sink.stage("user_sessions", rows) is not None
