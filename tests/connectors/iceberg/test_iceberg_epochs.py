import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel
from pyiceberg.exceptions import CommitFailedException
from sqlalchemy.exc import OperationalError

from sessionize.connectors.iceberg import (
    Catalog,
    EpochRecord,
    IcebergEpochSink,
    IcebergSink,
    commits,
    epoch_records,
    load_table,
    open_catalog,
    table_names,
    user_sessions,
)
from sessionize.connectors.iceberg.commits import COMMIT_ID
from sessionize.errors import StateError, UnavailableError
from sessionize.testing.epoch_sinks import EPOCH_CHECKS, SinkUnderTest, check_name, empty_rows, epoch_id, epoch_rows
from sessionize.testing.further_tables import FURTHER_CHECKS, FURTHER_TABLES

TABLES = ("user_sessions", "events", "late_events", "rejected_events")
KILLS = 20


def visible(home: Path, kind: str) -> Iterable[dict[str, Any]]:
    catalog = open_catalog(home)
    if kind not in table_names(catalog, "sessions"):
        return []
    return load_table(catalog, "sessions", kind).scan().to_arrow().to_pylist()


@pytest.mark.parametrize("check", [*EPOCH_CHECKS, *FURTHER_CHECKS], ids=check_name)
def test_what_every_epoch_sink_does(check: Any, tmp_path: Path) -> None:
    place = SinkUnderTest(
        make=lambda: IcebergEpochSink(open_catalog(tmp_path)),
        visible=lambda table: visible(tmp_path, table),
        make_further=lambda tables: IcebergEpochSink(
            open_catalog(tmp_path), destinations={name: name for name in (*TABLES, *tables)}, specs=FURTHER_TABLES
        ),
    )
    check(place)


def table_of(catalog: Catalog, kind: str) -> Any:
    return load_table(catalog, "sessions", kind)


def test_a_commit_says_what_it_is_and_the_table_remembers_it(catalog: Catalog) -> None:
    sink = IcebergEpochSink(catalog)
    sink.write_epoch(epoch_id(7, plan="abc"), epoch_rows(1))

    for kind in TABLES:
        table = table_of(catalog, kind)
        (snapshot,) = table.snapshots()
        said = {name: snapshot.summary[f"sessionize.{name}"] for name in ("writer", "epoch", "plan", "watermark-ms")}
        watermark_ms = epoch_rows(1).watermark_ms
        assert said == {"writer": "writer", "epoch": "7", "plan": "abc", "watermark-ms": str(watermark_ms)}
        assert table.properties["sessionize.epoch.writer"] == "7 abc"
        assert epoch_records(table) == {"writer": EpochRecord(7, "abc", watermark_ms)}


def test_the_record_outlives_its_snapshots(catalog: Catalog) -> None:
    IcebergEpochSink(catalog).write_epoch(epoch_id(1), epoch_rows(1))
    # another engine replaces every row, and expires what was before
    for kind in ("user_sessions",):
        foreign = IcebergSink(catalog, user_sessions(), table=kind, overwrite=True)
        foreign.write(epoch_rows(5).tables["user_sessions"])
        foreign.commit()
        table = table_of(catalog, kind)
        table.maintenance.expire_snapshots().by_id(table.snapshots()[0].snapshot_id).commit()
        assert len(table_of(catalog, kind).snapshots()) == 1

    IcebergEpochSink(catalog).write_epoch(epoch_id(1), epoch_rows(1))

    starts = set(table_of(catalog, "user_sessions").scan().to_arrow()["session_start_time_ms"].to_pylist())
    assert starts == set(epoch_rows(5).tables["user_sessions"]["session_start_time_ms"].to_pylist())


def test_an_earlier_epoch_of_another_plan_is_noticed_while_its_snapshot_is_there(catalog: Catalog) -> None:
    sink = IcebergEpochSink(catalog)
    for number in (1, 2, 3):
        sink.write_epoch(epoch_id(number), epoch_rows(number))

    with pytest.raises(StateError, match="another plan"):
        IcebergEpochSink(catalog).write_epoch(epoch_id(1, plan="new life"), epoch_rows(1))


def test_an_empty_state_is_noticed_when_the_snapshots_have_expired(catalog: Catalog) -> None:
    """Its epochs have numbers that the tables are past: all of their rows would be passed over without a word."""
    sink = IcebergEpochSink(catalog)
    for number in (1, 2, 3):
        sink.write_epoch(epoch_id(number), epoch_rows(number))
    for kind in TABLES:
        table = table_of(catalog, kind)
        old = [snapshot.snapshot_id for snapshot in table.snapshots()[:-1]]
        table.maintenance.expire_snapshots().by_ids(old).commit()

    with pytest.raises(StateError, match="another plan"):
        IcebergEpochSink(catalog).write_epoch(epoch_id(1, plan="new life"), epoch_rows(1))
    for number in (1, 2, 3):
        IcebergEpochSink(catalog).write_epoch(epoch_id(number), epoch_rows(number))
    assert len(table_of(catalog, "events").scan().to_arrow()) == 3 * len(epoch_rows(1).tables["events"])


def test_tables_without_rows_are_left_alone(catalog: Catalog) -> None:
    sink = IcebergEpochSink(catalog)
    sink.write_epoch(epoch_id(1), empty_rows())
    sink.write_epoch(epoch_id(2), empty_rows().with_tables({"events": epoch_rows(1).tables["events"]}))

    assert [len(table_of(catalog, kind).snapshots()) for kind in TABLES] == [0, 1, 0, 0]


def test_an_epoch_without_rows_for_the_tables_that_are_kept_is_remembered(catalog: Catalog) -> None:
    """Else the table would seem to lack it."""
    sink = IcebergEpochSink(catalog, destinations={kind: kind for kind in TABLES if kind != "events"})
    sink.write_epoch(epoch_id(1), empty_rows().with_tables({"events": epoch_rows(1).tables["events"]}))

    assert sink.last_epoch("writer") == 1
    assert table_of(catalog, "user_sessions").snapshots() == []


def test_an_epoch_without_any_rows_is_remembered_by_the_sessions_alone(catalog: Catalog) -> None:
    IcebergEpochSink(catalog).write_epoch(epoch_id(4), replace(empty_rows(), watermark_ms=99))

    records = [epoch_records(table_of(catalog, kind)) for kind in TABLES]
    assert records == [{"writer": EpochRecord(4, "plan-4", 99)}, {}, {}, {}]


def test_tables_can_be_off_or_have_other_names(catalog: Catalog) -> None:
    tables = {"user_sessions": "mine", "rejected_events": "rejected_events"}
    IcebergEpochSink(catalog, destinations=tables).write_epoch(epoch_id(1), epoch_rows(1))

    assert table_names(catalog, "sessions") == ["mine", "rejected_events"]


def test_sessions_are_new_at_revision_0_and_older_tables_learn_the_column(catalog: Catalog) -> None:
    layout = user_sessions()
    before = replace(
        layout,
        columns=pa.schema([column for column in layout.columns if column.name != "revision"]),
        derived=tuple(d for d in layout.derived if d.name != "revision"),
    )
    old = IcebergSink(catalog, before, table="user_sessions")
    old.write(epoch_rows(9, ["z"]).tables["user_sessions"])
    old.commit()

    IcebergEpochSink(catalog).write_epoch(epoch_id(1), epoch_rows(1))

    rows = table_of(catalog, "user_sessions").scan().to_arrow().to_pylist()
    assert {row["user"]: row["revision"] for row in rows} == {"a": 0, "b": 0, "z": None}


def test_events_and_sessions_come_with_one_snapshot_each_and_sessions_last(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    commit = catalog.commit_table

    def noted(table: Any, *rest: Any) -> Any:
        order.append(table.name()[-1])
        return commit(table, *rest)

    sink = IcebergEpochSink(catalog)
    monkeypatch.setattr(catalog, "commit_table", noted)
    sink.write_epoch(epoch_id(1), epoch_rows(1))

    assert order == ["rejected_events", "late_events", "events", "user_sessions"]


def test_a_commit_copies_the_table_s_history_no_more_than_twice(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = IcebergEpochSink(catalog, destinations={"user_sessions": "user_sessions"})
    sink.write_epoch(epoch_id(1), epoch_rows(1))
    copies: list[bool] = []
    copy = BaseModel.model_copy

    def counted(model: BaseModel, **how: Any) -> BaseModel:
        if how.get("deep"):
            copies.append(True)
        return copy(model, **how)

    monkeypatch.setattr(BaseModel, "model_copy", counted)
    sink.write_epoch(epoch_id(2), epoch_rows(2))
    table = load_table(catalog, "sessions", "user_sessions")
    assert len(table.snapshots()) == 2
    assert epoch_records(table)["writer"].number == 2
    # each copies every snapshot there is: one for the catalog, one for what the new snapshot makes of the table
    assert 1 <= len(copies) <= 2


def test_a_lost_answer_does_not_double(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = IcebergEpochSink(catalog)
    commit = catalog.commit_table
    lost = []

    def answers_never(table: Any, *rest: Any) -> Any:
        done = commit(table, *rest)
        if table.name()[-1] not in lost:
            lost.append(table.name()[-1])
            raise OperationalError("UPDATE", None, Exception("the connection was closed"))
        return done

    monkeypatch.setattr(catalog, "commit_table", answers_never)
    sink.write_epoch(epoch_id(1), epoch_rows(1))

    assert len(lost) == 4
    assert [len(table_of(catalog, kind).snapshots()) for kind in TABLES] == [1, 1, 1, 1]


def test_an_outage_between_two_tables_is_made_up_for_by_the_same_call(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessionize.connectors.iceberg.commits._WAIT_MAX_S", 0.0)
    sink = IcebergEpochSink(catalog)
    commit = catalog.commit_table

    def away(table: Any, *rest: Any) -> Any:
        if table.name()[-1] in {"events", "user_sessions"}:
            raise OperationalError("UPDATE", None, Exception("database is locked"))
        return commit(table, *rest)

    monkeypatch.setattr(catalog, "commit_table", away)
    with pytest.raises(UnavailableError, match="did not succeed"):
        sink.write_epoch(epoch_id(1), epoch_rows(1))
    assert [len(table_of(catalog, kind).snapshots()) for kind in TABLES] == [0, 0, 1, 1]

    monkeypatch.setattr(catalog, "commit_table", commit)
    sink.write_epoch(epoch_id(1), epoch_rows(1))
    assert [len(table_of(catalog, kind).snapshots()) for kind in TABLES] == [1, 1, 1, 1]
    assert len(list(tmp_path.rglob("*.parquet"))) == sum(
        len(list(table_of(catalog, kind).scan().plan_files())) for kind in TABLES
    )


def test_two_engines_under_one_name_cannot_both_write_an_epoch(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = IcebergEpochSink(catalog), IcebergEpochSink(open_catalog(tmp_path))
    commit = catalog.commit_table
    asked: list[Any] = []

    def overtaken(table: Any, *rest: Any) -> Any:
        if not asked:
            asked.append(table)
            second.write_epoch(epoch_id(1), epoch_rows(1))
        return commit(table, *rest)

    monkeypatch.setattr(catalog, "commit_table", overtaken)
    first.write_epoch(epoch_id(1), epoch_rows(1))

    assert asked
    assert [len(table_of(catalog, kind).snapshots()) for kind in TABLES] == [1, 1, 1, 1]


def test_another_writer_s_commit_in_between_loses_nothing(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, other = IcebergEpochSink(catalog), IcebergEpochSink(open_catalog(tmp_path))
    commit = catalog.commit_table
    refused: list[Any] = []

    def overtaken(table: Any, *rest: Any) -> Any:
        if not refused:
            refused.append(table)
            other.write_epoch(epoch_id(1, writer="other"), epoch_rows(2))
        try:
            return commit(table, *rest)
        except CommitFailedException:
            refused.append(table)
            raise

    monkeypatch.setattr(catalog, "commit_table", overtaken)
    sink.write_epoch(epoch_id(1), epoch_rows(1))

    assert len(refused) > 1
    assert [len(table_of(catalog, kind).snapshots()) for kind in TABLES] == [2, 2, 2, 2]
    assert set(epoch_records(table_of(catalog, "user_sessions"))) == {"writer", "other"}


def test_a_record_that_was_changed_by_hand_is_refused(catalog: Catalog) -> None:
    sink = IcebergEpochSink(catalog)
    with table_of(catalog, "events").transaction() as change:
        change.set_properties({"sessionize.epoch.writer": "soon"})

    with pytest.raises(StateError, match="cannot be read"):
        sink.write_epoch(epoch_id(1), epoch_rows(1))


# Forks a writer of epochs that reports each one it begins, kills it in the middle of one, and starts the next.
KILLER = """
import os, select, signal, sys
from pathlib import Path
from sessionize.connectors.iceberg import IcebergEpochSink, open_catalog
from sessionize.testing.epoch_sinks import epoch_id, epoch_rows

home, kills = Path(sys.argv[1]), int(sys.argv[2])

def write_for_ever(number, report):
    sink = IcebergEpochSink(open_catalog(home))
    while True:
        os.write(report, b"%d\\n" % number)
        sink.write_epoch(epoch_id(number), epoch_rows(number))
        number += 1

number = 1
for kill in range(kills):
    told, report = os.pipe()
    child = os.fork()
    if not child:
        write_for_ever(max(1, number - 1), report)  # as an engine repeats what was planned
    os.close(report)
    with os.fdopen(told) as epochs:
        for _ in range(2 + kill % 2):
            number = int(epochs.readline())
        select.select([], [], [], kill * 37 % 190 / 1000)
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        number = max([number, *map(int, epochs)])
print(number)
"""


def test_killed_over_and_over_every_table_has_every_row_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path), str(KILLS)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    number = int(done.stdout)

    sink = IcebergEpochSink(open_catalog(tmp_path))
    for again in range(1, number + 1):
        sink.write_epoch(epoch_id(again), epoch_rows(again))

    def key(row: dict[str, Any]) -> str:
        return repr(row.get("session_id") or row.get("event_id") or row.get("raw"))

    assert number > KILLS // 2
    for kind in TABLES:
        expected = [key(row) for n in range(1, number + 1) for row in epoch_rows(n).tables[kind].to_pylist()]
        assert sorted(map(key, visible(tmp_path, kind))) == sorted(expected), kind
        table = table_of(open_catalog(tmp_path), kind)
        written = [s.summary["sessionize.epoch"] for s in table.snapshots()]
        assert written == [str(n) for n in range(1, number + 1)]
        assert len({s.summary[COMMIT_ID] for s in table.snapshots()}) == len(written)


def test_an_epoch_without_rows_is_noted_also_when_somebody_else_was_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = open_catalog(tmp_path)
    sink = IcebergEpochSink(catalog)
    sink.write_epoch(epoch_id(1), epoch_rows(1))
    faster = [1, 2]
    real = commits.single_attempt

    def single_attempt(table: Any) -> Any:
        transaction = real(table)
        if faster:
            load_table(catalog, "sessions", "user_sessions").transaction().set_properties(
                {"somebody": str(faster.pop())}
            ).commit_transaction()
        return transaction

    monkeypatch.setattr("sessionize.connectors.iceberg.sink.single_attempt", single_attempt)
    nothing = empty_rows()
    sink.write_epoch(epoch_id(2), nothing)
    sink.write_epoch(epoch_id(2), nothing)
    table = load_table(catalog, "sessions", "user_sessions")
    assert epoch_records(table)["writer"].number == 2
    assert table.properties["somebody"] == "1"
    assert faster == []
