"""A lake of Parquet files: each epoch once, nothing half written, whoever looks on and whenever it is killed."""

import datetime as dt
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sessionize.connectors.parquet_lake import ParquetLakeSink
from sessionize.connectors.parquet_lake.epoch_sink import DESTINATIONS
from sessionize.errors import ConfigError, OutputError, StateError, UnavailableError
from sessionize.ports import EpochOutput
from sessionize.testing.epoch_sinks import SinkUnderTest, check_name, empty_rows, epoch_id, epoch_rows
from sessionize.testing.further_tables import FURTHER_CHECKS, FURTHER_TABLES

DAY_MS = 86_400_000


def with_times(*times_ms: int) -> EpochOutput:
    events = pa.table({"user": [f"u{i}" for i in range(len(times_ms))], "event_time_ms": list(times_ms)})
    return replace(empty_rows().with_tables({"events": events}), watermark_ms=5)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("check", FURTHER_CHECKS, ids=check_name)
def test_tables_that_the_product_does_not_know(check: Callable[[SinkUnderTest], None], tmp_path: Path) -> None:
    def visible(table: str) -> list[dict[str, Any]]:
        found = sorted((tmp_path / "lake" / table).glob("*.parquet"))
        return [row for path in found for row in pq.read_table(path, partitioning=None).to_pylist()]

    place = SinkUnderTest(
        make=lambda: ParquetLakeSink(tmp_path / "lake"),
        visible=visible,
        kept=frozenset(),
        make_further=lambda tables: ParquetLakeSink(
            tmp_path / "lake", destinations={**DESTINATIONS, **{name: name for name in tables}}, specs=FURTHER_TABLES
        ),
    )
    check(place)


def test_tables_of_a_lake_are_divided_by_their_date_in_folders_of_their_own(tmp_path: Path) -> None:
    folders = {"events": "", "user_sessions": "made/sessions", "rejected_events": "bad"}
    sink = ParquetLakeSink(tmp_path, destinations=folders)
    rows = epoch_rows(1)
    sink.write_epoch(epoch_id(1, writer="w"), rows)
    assert set(files(tmp_path)) == {
        "_epochs/w.last.json",
        "bad/w-1.parquet",
        "event_date=2023-11-14/w-1.parquet",
        "made/sessions/session_date=2023-11-14/w-1.parquet",
    }
    sessions = pq.read_table(tmp_path / "made/sessions/session_date=2023-11-14/w-1.parquet", partitioning=None)
    assert sessions.equals(rows.tables["user_sessions"].drop_columns(["session_date"]))
    (tmp_path / "_epochs/w.last.json").unlink()  # cut off, and planned anew with less
    ParquetLakeSink(tmp_path, destinations=folders).write_epoch(epoch_id(1, writer="w"), empty_rows())
    assert set(files(tmp_path)) == {"_epochs/w.last.json"}


@pytest.mark.parametrize("folder", ["../other", "/other", "_epochs", "_epochs/x", "", ".", "./"])
def test_a_folder_that_a_table_of_the_lake_cannot_have(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this folder"):
        ParquetLakeSink(tmp_path, destinations={"events": "", "late_events": folder})


def test_one_file_for_each_date_and_the_record_that_lists_them(tmp_path: Path) -> None:
    ParquetLakeSink(tmp_path / "lake").write_epoch(epoch_id(3, writer="w"), with_times(DAY_MS, -1, 0, DAY_MS - 1, 5))

    assert set(files(tmp_path / "lake")) == {
        "_epochs/w.last.json",
        "event_date=1969-12-31/w-3.parquet",
        "event_date=1970-01-01/w-3.parquet",
        "event_date=1970-01-02/w-3.parquet",
    }
    times = pq.read_table(tmp_path / "lake/event_date=1970-01-01/w-3.parquet", partitioning=None)["event_time_ms"]
    assert times.to_pylist() == [0, DAY_MS - 1, 5]
    assert json.loads((tmp_path / "lake/_epochs/w.last.json").read_bytes()) == {
        "writer": "w",
        "epoch": 3,
        "plan": "plan-3",
        "watermark_ms": 5,
        "rows": 5,
        "files": [
            {"file": "event_date=1969-12-31/w-3.parquet", "rows": 1},
            {"file": "event_date=1970-01-01/w-3.parquet", "rows": 3},
            {"file": "event_date=1970-01-02/w-3.parquet", "rows": 1},
        ],
    }


def test_the_lake_is_a_dataset_by_date(tmp_path: Path) -> None:
    sink = ParquetLakeSink(tmp_path)
    sink.write_epoch(epoch_id(1), with_times(0, DAY_MS))
    sink.write_epoch(epoch_id(2), with_times(1))

    lake = ds.dataset(tmp_path, partitioning=ds.partitioning(pa.schema([("event_date", pa.date32())]), flavor="hive"))
    on_day = lake.to_table(filter=ds.field("event_date") == dt.date(1970, 1, 1))
    assert sorted(on_day["event_time_ms"].to_pylist()) == [0, 1]


def test_an_epoch_that_is_repeated_changes_nothing(tmp_path: Path) -> None:
    ParquetLakeSink(tmp_path).write_epoch(epoch_id(1), epoch_rows(1))
    before = files(tmp_path)
    (tmp_path / "_epochs/writer.last.json").unlink()  # as when the process died just before the record

    ParquetLakeSink(tmp_path).write_epoch(epoch_id(1), epoch_rows(1))
    ParquetLakeSink(tmp_path).write_epoch(epoch_id(1), epoch_rows(9))

    assert files(tmp_path) == before


def test_another_plan_is_refused(tmp_path: Path) -> None:
    sink = ParquetLakeSink(tmp_path)
    sink.write_epoch(epoch_id(1), epoch_rows(1))
    before = files(tmp_path)

    with pytest.raises(StateError, match="another plan"):
        sink.write_epoch(epoch_id(1, plan="other"), epoch_rows(2))
    assert files(tmp_path) == before


def test_the_last_epoch_is_known_for_each_writer(tmp_path: Path) -> None:
    sink = ParquetLakeSink(tmp_path)
    assert sink.last_epoch("w") == 0
    for number in (9, 10, 3):
        sink.write_epoch(epoch_id(number, writer="w"), empty_rows())
    sink.write_epoch(epoch_id(300, writer="w-1"), epoch_rows(1))
    assert [ParquetLakeSink(tmp_path).last_epoch(name) for name in ("w", "w-1", "v")] == [10, 300, 0]
    with pytest.raises(ConfigError):
        sink.last_epoch("../w")


def test_an_epoch_without_events_is_recorded_and_nothing_more(tmp_path: Path) -> None:
    sink = ParquetLakeSink(tmp_path)
    for number in range(1, 51):
        sink.write_epoch(epoch_id(number), empty_rows())
        assert set(files(tmp_path)) == {"_epochs/writer.last.json"}
    assert ParquetLakeSink(tmp_path).last_epoch("writer") == 50


def test_however_many_epochs_there_is_one_record_of_a_writer(tmp_path: Path) -> None:
    sink = ParquetLakeSink(tmp_path)
    for number in range(1, 21):
        sink.write_epoch(epoch_id(number), with_times(number))
        sink.write_epoch(epoch_id(number, writer="w-1"), with_times(number))
    assert sorted(path.name for path in (tmp_path / "_epochs").iterdir()) == ["w-1.last.json", "writer.last.json"]


def marked(folder: Path, writer: str, number: int) -> None:
    """An epoch as the code before wrote it: its file, and a marker of its own."""
    (folder / "event_date=1970-01-01").mkdir(parents=True, exist_ok=True)
    (folder / "_epochs").mkdir(exist_ok=True)
    pq.write_table(with_times(number).tables["events"], folder / f"event_date=1970-01-01/{writer}-{number}.parquet")
    content = {"writer": writer, "epoch": number, "plan": f"plan-{number}", "watermark_ms": 5, "rows": 1, "files": []}
    (folder / f"_epochs/{writer}-{number}.json").write_text(json.dumps(content))


def test_a_lake_of_the_code_before_is_understood_and_cleaned_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessionize.connectors.parquet_lake.records._REMOVED_MAX", 5)
    for number in range(1, 13):
        marked(tmp_path, "w", number)
    marked(tmp_path, "w-1", 7)
    before = files(tmp_path)
    sink = ParquetLakeSink(tmp_path)
    assert [sink.last_epoch(writer) for writer in ("w", "w-1", "v")] == [12, 7, 0]
    sink.write_epoch(epoch_id(12, writer="w"), with_times(9))
    sink.write_epoch(epoch_id(4, writer="w"), with_times(9))
    with pytest.raises(StateError, match="another plan"):
        sink.write_epoch(epoch_id(12, writer="w", plan="other"), with_times(9))
    assert files(tmp_path) == before
    for number, left in ((13, 7), (14, 2), (15, 0), (16, 0)):
        sink.write_epoch(epoch_id(number, writer="w"), with_times(number))
        assert len(list((tmp_path / "_epochs").glob("w-[0-9]*.json"))) == left + 1
        assert ParquetLakeSink(tmp_path).last_epoch("w") == number
    assert sorted(path.name for path in (tmp_path / "_epochs").iterdir()) == ["w-1-7.json", "w.last.json"]
    assert len(list(tmp_path.glob("event_date=*/w-[0-9]*.parquet"))) == 17


def test_an_epoch_that_was_cut_off_and_is_planned_anew_leaves_no_rows_of_the_first_plan(tmp_path: Path) -> None:
    sink = ParquetLakeSink(tmp_path)
    sink.write_epoch(epoch_id(1), with_times(0))
    sink.write_epoch(epoch_id(3, writer="writer-2"), with_times(0))
    record = tmp_path / "_epochs/writer.last.json"
    as_it_was = record.read_bytes()
    sink.write_epoch(epoch_id(2), with_times(0, DAY_MS, 2 * DAY_MS))
    record.write_bytes(as_it_was)  # as when the process died just before the record
    (tmp_path / "event_date=1970-01-03/.writer-2.parquet.unfinished").write_bytes(b"half")

    ParquetLakeSink(tmp_path).write_epoch(epoch_id(2, plan="with what is left"), with_times(DAY_MS))

    assert {path for path in files(tmp_path) if "event_date" in path} == {
        "event_date=1970-01-01/writer-1.parquet",
        "event_date=1970-01-01/writer-2-3.parquet",
        "event_date=1970-01-02/writer-2.parquet",
    }


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"writer": "writer"}'])
def test_a_record_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    ParquetLakeSink(tmp_path).write_epoch(epoch_id(1), with_times(0))
    (tmp_path / "_epochs/writer.last.json").write_bytes(content)
    with pytest.raises(StateError, match=r"writer\.last\.json"):
        ParquetLakeSink(tmp_path).last_epoch("writer")


def test_encoded_columns_are_stored_as_their_values(tmp_path: Path) -> None:
    rows = epoch_rows(1)
    encoded = rows.tables["events"].set_column(0, "user", rows.tables["events"]["user"].dictionary_encode())
    ParquetLakeSink(tmp_path).write_epoch(epoch_id(1), rows.with_tables({"events": encoded}))

    (path,) = tmp_path.rglob("*.parquet")
    assert pq.read_schema(path).field("user").type == pa.string()
    assert pq.read_table(path, partitioning=None).equals(rows.tables["events"])


@pytest.mark.parametrize("writer", ["", "../x", "a/b", "a b", "x" * 101])
def test_a_writer_that_cannot_name_a_file(writer: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot name files"):
        ParquetLakeSink(tmp_path).write_epoch(epoch_id(1, writer=writer), epoch_rows(1))


def test_a_file_that_may_not_grow_any_more_leaves_nothing_half_done(tmp_path: Path) -> None:
    sink = ParquetLakeSink(tmp_path)
    noise = [np.random.default_rng(i).bytes(400_000).hex() for i in range(4)]
    events = pa.table({"user": ["bob"] * 4, "event_time_ms": [2] * 4, "properties": noise})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OutputError, match="File too large"):
            sink.write_epoch(epoch_id(1), empty_rows().with_tables({"events": events}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == {}

    sink.write_epoch(epoch_id(1), empty_rows().with_tables({"events": events}))
    assert set(files(tmp_path)) == {"_epochs/writer.last.json", "event_date=1970-01-01/writer-1.parquet"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_is_full_or_fails_is_worth_waiting_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refused(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    sink = ParquetLakeSink(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refused)
        with pytest.raises(UnavailableError, match=os.strerror(code)):
            sink.write_epoch(epoch_id(1), epoch_rows(1))
    assert files(tmp_path) == {}
    sink.write_epoch(epoch_id(1), epoch_rows(1))
    assert "_epochs/writer.last.json" in files(tmp_path)


def test_a_place_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        ParquetLakeSink(tmp_path / "file")


def test_who_reads_meanwhile_sees_whole_files(tmp_path: Path) -> None:
    sink = ParquetLakeSink(tmp_path)
    rows = with_times(*range(20_000))
    failures: list[str] = []
    done, seen = threading.Event(), threading.Semaphore(0)

    def read() -> None:
        while not done.is_set():
            for path in tmp_path.glob("event_date=*/*.parquet"):
                if (found := pq.read_metadata(path).num_rows) != 20_000:
                    failures.append(f"{path}: {found}")
                seen.release()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, 30):
            sink.write_epoch(epoch_id(number), rows)
            assert seen.acquire(timeout=60)  # it looks beside the writing, however busy the machine is
    finally:
        done.set()
        reader.join()
    assert failures == []


KILLED = """
import sys
from sessionize.connectors.parquet_lake import ParquetLakeSink
from sessionize.testing.epoch_sinks import epoch_id, epoch_rows
sink = ParquetLakeSink(sys.argv[1])
for number in range(int(sys.argv[2]), 100_000):
    sink.write_epoch(epoch_id(number), epoch_rows(number))
    print(number, flush=True)
"""


def test_killed_while_writing(tmp_path: Path) -> None:
    number = 1
    for kill in range(5):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), str(number)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        with writer.stdout as said:
            for _ in range(3 + kill):
                said.readline()
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
            number += 3 + kill + len(said.readlines())
    sink = ParquetLakeSink(tmp_path)
    for again in range(1, number + 1):
        sink.write_epoch(epoch_id(again), epoch_rows(again))

    seen = pa.concat_tables([pq.read_table(p, partitioning=None) for p in tmp_path.glob("event_date=*/*.parquet")])
    expected = pa.concat_tables([epoch_rows(n).tables["events"] for n in range(1, number + 1)])
    assert sorted(seen["event_id"].to_pylist()) == sorted(expected["event_id"].to_pylist())


def test_a_field_called_like_a_column_of_arrows_own_leaves_the_lake_readable(tmp_path: Path) -> None:
    rows = epoch_rows(1, ["a"])
    named = rows.tables["events"].append_column("__filename", pa.array(["x"] * rows.tables["events"].num_rows))
    ParquetLakeSink(tmp_path).write_epoch(epoch_id(1), rows.with_tables({"events": named}))
    found = ds.dataset(tmp_path, format="parquet", partitioning="hive", exclude_invalid_files=True)
    texts = found.to_table(columns=["properties"])["properties"].to_pylist()
    assert texts
    assert all('"__filename":"x"' in text for text in texts)
