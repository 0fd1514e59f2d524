import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel

from sessionize.connectors.iceberg import (
    Catalog,
    IcebergEpochSink,
    IcebergSink,
    MaintenanceSettings,
    epoch_records,
    events,
    load_table,
    maintain_table,
    open_catalog,
    sorting,
    user_sessions,
)
from sessionize.connectors.iceberg import compaction as packing
from sessionize.connectors.iceberg.checksum import Checksum
from sessionize.connectors.iceberg.layouts import LayoutName
from sessionize.connectors.iceberg.listing import listed_files
from sessionize.errors import ConfigError, OutputError
from sessionize.ports import EpochOutput
from sessionize.testing.epoch_sinks import epoch_id, epoch_rows
from tests.connectors.iceberg.writing import sessions

NOW_ONLY = MaintenanceSettings(keep_s=0, keep_snapshots=1)
HOUR_S = 3600


def some(number: int) -> EpochOutput:
    return epoch_rows(number + 1, ["a", "b", "c"])


def write_epochs(catalog: Catalog, count: int) -> None:
    sink = IcebergEpochSink(catalog)
    for number in range(1, count + 1):
        sink.write_epoch(epoch_id(number), some(number))


def rows_of(catalog: Catalog, table: str = "user_sessions") -> "Counter[str]":
    return Counter(map(repr, load_table(catalog, "sessions", table).scan().to_arrow().to_pylist()))


def on_disk(home: Path, table: str = "user_sessions", pattern: str = "*.parquet") -> set[Path]:
    return set((home / "warehouse/sessions" / table).rglob(pattern))


def aged(paths: Any, hours: float) -> None:
    for path in paths:
        os.utime(path, (time.time() - hours * HOUR_S,) * 2)


def test_small_files_become_one_for_each_partition_and_rows_stay(catalog: Catalog, tmp_path: Path) -> None:
    write_epochs(catalog, 4)
    before = {table: rows_of(catalog, table) for table in ("user_sessions", "events", "rejected_events")}

    for table, expected in before.items():
        done = maintain_table(catalog, "sessions", table, MaintenanceSettings())
        assert (done.packed, done.files_before) == (done.files_before, 4)
        assert done.files_after == done.packed_into == 1
        assert done.rows == done.packed_rows == sum(expected.values())
        assert rows_of(catalog, table) == expected
        again = maintain_table(catalog, "sessions", table, MaintenanceSettings())
        assert (again.packed, again.files_after) == (0, done.files_after)
    assert len(load_table(catalog, "sessions", "events").snapshots()) == 5


def test_the_record_of_epochs_stays(catalog: Catalog) -> None:
    write_epochs(catalog, 3)
    maintain_table(catalog, "sessions", "user_sessions", NOW_ONLY)

    table = load_table(catalog, "sessions", "user_sessions")
    assert len(table.snapshots()) == 1
    assert epoch_records(table)["writer"].number == 3
    expected = rows_of(catalog)
    sink = IcebergEpochSink(catalog)
    for number in (2, 3):
        sink.write_epoch(epoch_id(number), some(number))
    assert rows_of(catalog) == expected


def test_columns_that_came_later_and_odd_names_survive_packing(catalog: Catalog) -> None:
    sink = IcebergSink(catalog, events(), table="events")
    sink.write(pa.table({"user": ["a"], "event_time_ms": [1]}))
    sink.commit()
    sink.write(pa.table({"user": ["b", None][:1], "event_time_ms": [2], "odd name-ü": [1.5], "value": [0.1]}))
    sink.commit()
    expected = rows_of(catalog, "events")

    assert maintain_table(catalog, "sessions", "events", MaintenanceSettings()).packed == 2
    assert rows_of(catalog, "events") == expected


def test_a_target_that_is_reached_leaves_files_alone(catalog: Catalog) -> None:
    write_epochs(catalog, 3)
    assert maintain_table(catalog, "sessions", "events", MaintenanceSettings(target_bytes=100)).packed == 0
    assert maintain_table(catalog, "sessions", "events", MaintenanceSettings(files_min=4)).packed == 0


def test_nothing_is_committed_when_the_rows_are_not_the_same(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_epochs(catalog, 3)
    expected, files = rows_of(catalog, "events"), on_disk(tmp_path, "events")
    sums = iter(range(10, 1000))
    monkeypatch.setattr(packing, "checksum", lambda rows: Checksum(rows.num_rows, next(sums), 0))

    with pytest.raises(OutputError, match="do not hold the same rows"):
        maintain_table(catalog, "sessions", "events", MaintenanceSettings())

    assert rows_of(catalog, "events") == expected
    assert on_disk(tmp_path, "events") == files


def test_what_another_upkeep_packed_meanwhile_is_planned_again(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_epochs(catalog, 3)
    expected = rows_of(catalog, "events")
    replace = packing._replace
    overtaken: list[int] = []

    def late(*arguments: Any) -> bool:
        if not overtaken:
            overtaken.append(1)
            done = maintain_table(open_catalog(tmp_path), "sessions", "events", MaintenanceSettings())
            overtaken.append(done.packed)
        return replace(*arguments)

    monkeypatch.setattr(packing, "_replace", late)
    done = maintain_table(catalog, "sessions", "events", MaintenanceSettings())

    assert overtaken == [1, 3]
    assert (done.packed, done.files_after) == (0, 1)
    assert rows_of(catalog, "events") == expected
    assert len(on_disk(tmp_path, "events")) == 4  # three old ones, one new one; the loser's is gone


def test_a_commit_in_between_is_kept(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_epochs(catalog, 3)
    commit = catalog.commit_table
    appended: list[int] = []

    def overtaken(*arguments: Any) -> Any:
        if not appended:
            appended.append(1)
            other = IcebergSink(open_catalog(tmp_path), events(), table="events")
            other.write(epoch_rows(50).tables["events"])
            other.commit()
        return commit(*arguments)

    monkeypatch.setattr(catalog, "commit_table", overtaken)
    done = maintain_table(catalog, "sessions", "events", MaintenanceSettings())

    assert (done.packed, done.rows) == (3, 3 * 3 + 2)


def test_snapshots_are_kept_by_age_and_by_number(catalog: Catalog) -> None:
    write_epochs(catalog, 5)
    kept = maintain_table(catalog, "sessions", "events", MaintenanceSettings(files_min=99, keep_snapshots=1))
    assert (kept.snapshots_before, kept.snapshots_expired) == (5, 0)

    fewer = maintain_table(catalog, "sessions", "events", MaintenanceSettings(files_min=99, keep_s=0, keep_snapshots=3))
    assert (fewer.snapshots_before, fewer.snapshots_expired) == (5, 2)

    table = load_table(catalog, "sessions", "events")
    oldest = min(table.snapshots(), key=lambda s: s.sequence_number or 0).snapshot_id
    table.manage_snapshots().create_tag(oldest, "audit").commit()
    assert maintain_table(catalog, "sessions", "events", NOW_ONLY).snapshots_expired == 2  # the 4 of now, less 2 kept
    assert oldest in {s.snapshot_id for s in load_table(catalog, "sessions", "events").snapshots()}


def test_files_of_expired_snapshots_and_of_dead_writers_go_when_they_are_old(catalog: Catalog, tmp_path: Path) -> None:
    write_epochs(catalog, 3)
    dead = IcebergSink(catalog, user_sessions(), table="user_sessions")
    dead.write(epoch_rows(7).tables["user_sessions"])
    dead.finish()
    expected = rows_of(catalog)
    young = maintain_table(catalog, "sessions", "user_sessions", NOW_ONLY)
    assert (young.packed, young.orphans) == (3, 0)
    assert len(on_disk(tmp_path)) == young.files_after + 1

    aged(on_disk(tmp_path, pattern="*"), 80)
    (tmp_path / "warehouse/sessions/user_sessions/notes.txt").write_text("mine")
    dry = maintain_table(catalog, "sessions", "user_sessions", MaintenanceSettings(dry_run=True))
    done = maintain_table(catalog, "sessions", "user_sessions", MaintenanceSettings())

    assert dry.orphans == done.orphans == 1
    assert len(on_disk(tmp_path)) == done.files_after == 1
    assert (tmp_path / "warehouse/sessions/user_sessions/notes.txt").exists()
    assert rows_of(catalog) == expected


def ended(catalog: Catalog, table: str, hours: float) -> None:
    """Make the table's snapshots so much older, as if the time had passed."""
    changed = load_table(catalog, "sessions", table)
    path = Path(changed.metadata_location.removeprefix("file://"))
    metadata = json.loads(path.read_text())
    for entry in (*metadata["snapshots"], *metadata["snapshot-log"]):
        entry["timestamp-ms"] -= int(hours * HOUR_S * 1000)
    path.write_text(json.dumps(metadata))


def test_what_packing_replaced_is_freed_when_no_reader_can_need_it(catalog: Catalog, tmp_path: Path) -> None:
    write_epochs(catalog, 4)
    reader = load_table(catalog, "sessions", "events")
    expected = rows_of(catalog, "events")
    old = on_disk(tmp_path, "events")

    first = maintain_table(catalog, "sessions", "events", MaintenanceSettings())
    assert (first.packed, first.snapshots_expired, first.freed) == (4, 0, 0)
    assert (first.waiting, first.waiting_bytes) == (4, sum(path.stat().st_size for path in old))
    assert Counter(map(repr, reader.scan().to_arrow().to_pylist())) == expected

    # the last snapshot before packing was current until a moment ago, so readers may still use it
    ended(catalog, "events", 0.9)
    assert maintain_table(catalog, "sessions", "events", MaintenanceSettings()).freed == 0

    ended(catalog, "events", 0.2)
    sizes = {
        path: path.stat().st_size for path in (tmp_path / "warehouse/sessions/events").rglob("*") if path.is_file()
    }
    later = maintain_table(catalog, "sessions", "events", MaintenanceSettings())
    assert later.snapshots_expired == 4
    assert later.waiting == later.orphans == 0
    assert not old & on_disk(tmp_path, "events")
    gone = {path: size for path, size in sizes.items() if not path.exists() and not path.name.endswith(".json")}
    assert (later.freed, later.freed_bytes) == (len(gone), sum(gone.values()))
    assert len(gone) > 4 + 4
    assert rows_of(catalog, "events") == expected
    # one list, and the manifests of the new file and of those that it replaced
    assert len(on_disk(tmp_path, "events", "*.avro")) <= 3


def test_the_metadata_of_a_maintained_table_stops_growing(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "warehouse/sessions/events/metadata"
    sink = IcebergEpochSink(catalog)
    sizes = []
    for number in range(1, 81):
        sink.write_epoch(epoch_id(number), some(number))
        if number % 20 == 0:
            maintain_table(catalog, "sessions", "events", NOW_ONLY)
            sizes.append(sum(path.stat().st_size for path in folder.iterdir()))
    assert sizes[-1] < 1.2 * sizes[1]


def test_expiring_many_snapshots_copies_the_metadata_as_often_as_expiring_one(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = BaseModel.model_copy
    copies: list[bool] = []

    def counted(model: BaseModel, **how: Any) -> BaseModel:
        copies.extend([True] * bool(how.get("deep")))
        return copy(model, **how)

    monkeypatch.setattr(BaseModel, "model_copy", counted)
    counts = []
    sink = IcebergEpochSink(catalog)
    for first, last in ((1, 2), (3, 12)):
        for number in range(first, last + 1):
            sink.write_epoch(epoch_id(number), some(number))
        copies.clear()
        done = maintain_table(catalog, "sessions", "events", MaintenanceSettings(files_min=99, keep_s=0))
        counts.append((done.snapshots_expired, len(copies)))
    assert [expired for expired, _ in counts] == [1, 10]
    assert counts[0][1] == counts[1][1]


def test_files_of_an_earlier_layout_are_packed_into_the_present_one(catalog: Catalog, tmp_path: Path) -> None:
    rows = sessions(400, days=2)
    for layout in (user_sessions(layout="date_bucket"), user_sessions(layout="auto")):
        sink = IcebergSink(catalog, layout, table="user_sessions")
        sink.write(rows)
        sink.commit()
    expected = rows_of(catalog)

    done = maintain_table(catalog, "sessions", "user_sessions", NOW_ONLY)
    assert done.files_before > 100
    assert rows_of(catalog) == expected
    table = load_table(catalog, "sessions", "user_sessions")
    assert {task.file.spec_id for task in table.scan().plan_files()} == {table.metadata.default_spec_id}
    assert maintain_table(catalog, "sessions", "user_sessions", NOW_ONLY).files_after == 2
    assert len(on_disk(tmp_path)) == 2
    assert rows_of(catalog) == expected


@pytest.mark.parametrize("layout", ["auto", "none"])
def test_a_large_partition_is_sorted_on_disk_so_that_a_bucket_lies_in_few_files(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, layout: LayoutName
) -> None:
    monkeypatch.setattr(sorting, "MEMORY_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(packing, "_PIECE_BYTES", 1 << 18)
    sink = IcebergSink(catalog, user_sessions(layout=layout), table="user_sessions")
    for part in range(5):
        sink.write(sessions(8_000).set_column(0, "user", pa.array([f"u{part}-{i}" for i in range(8_000)])))
        sink.commit()
    expected = rows_of(catalog)

    settings = MaintenanceSettings(target_bytes=60_000)
    done = maintain_table(catalog, "sessions", "user_sessions", settings)
    assert done.packed == 5
    assert done.packed_into > 2
    assert rows_of(catalog) == expected
    listed = listed_files(load_table(catalog, "sessions", "user_sessions"))
    found = sorted(each.buckets for each in listed if each.buckets is not None)
    assert len(found) == done.files_after
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(found))
    assert maintain_table(catalog, "sessions", "user_sessions", settings).packed == 0


def test_a_run_that_is_to_end_leaves_the_rest_for_the_next_one(catalog: Catalog) -> None:
    write_epochs(catalog, 3)
    expected = rows_of(catalog, "events")
    left = maintain_table(catalog, "sessions", "events", NOW_ONLY, stop=lambda: True)
    assert (left.packed, left.snapshots_expired, left.freed) == (0, 0, 0)
    assert maintain_table(catalog, "sessions", "events", NOW_ONLY).packed == 3
    assert rows_of(catalog, "events") == expected


def test_files_of_a_write_that_goes_on_stay_however_old_the_first_are(catalog: Catalog, tmp_path: Path) -> None:
    write_epochs(catalog, 1)
    known = on_disk(tmp_path)
    long = IcebergSink(catalog, user_sessions(), table="user_sessions", buffer_bytes_max=1)
    long.write(epoch_rows(7).tables["user_sessions"])
    aged(on_disk(tmp_path) - known, 80)
    long.write(epoch_rows(8 + 24, ["x", "y", "z"]).tables["user_sessions"])

    assert maintain_table(catalog, "sessions", "user_sessions", MaintenanceSettings()).orphans == 0
    long.commit()
    assert sum(rows_of(catalog).values()) == 3 + 2 + 3


def test_a_dry_run_changes_nothing(catalog: Catalog, tmp_path: Path) -> None:
    write_epochs(catalog, 3)
    before = on_disk(tmp_path, pattern="*")

    would = maintain_table(catalog, "sessions", "events", MaintenanceSettings(keep_s=0, keep_snapshots=1, dry_run=True))
    assert (would.packed, would.packed_into, would.snapshots_expired) == (3, 1, 2)
    assert would.files_after == would.files_before
    assert on_disk(tmp_path, pattern="*") == before


@pytest.mark.parametrize(
    "given",
    [{"orphan_age_h": 0.5}, {"keep_snapshots": 0}, {"keep_s": -1}, {"target_bytes": 0}, {"files_min": 1}],
    ids=lambda given: next(iter(given)),
)
def test_what_upkeep_will_not_do(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        MaintenanceSettings(**given)
    assert MaintenanceSettings(orphan_age_h=0, force=True).orphan_age_h == 0


APPENDER = """
import sys
from pathlib import Path
from sessionize.connectors.iceberg import IcebergEpochSink, open_catalog
from sessionize.testing.epoch_sinks import epoch_id, epoch_rows
from tests.connectors.iceberg.writing import sessions
sink = IcebergEpochSink(open_catalog(Path(sys.argv[1])))
for number in range(1, int(sys.argv[2]) + 1):
    sink.write_epoch(epoch_id(number), epoch_rows(number + 1))
    print(number, flush=True)
"""


def test_beside_a_running_writer_nothing_is_lost_or_doubled(catalog: Catalog, tmp_path: Path) -> None:
    epochs = 8
    writer = subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path), str(epochs)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    packed = expired = 0
    with writer.stdout as said:
        assert said.readline()
        while writer.poll() is None:
            for table in ("user_sessions", "events"):
                done = maintain_table(catalog, "sessions", table, NOW_ONLY)
                packed, expired = packed + done.packed, expired + done.snapshots_expired
    assert writer.returncode == 0
    assert packed > epochs
    assert expired > 2

    def keys(rows: pa.Table, name: str) -> "Counter[Any]":
        return Counter(rows[name].to_pylist())

    for table, key in {"user_sessions": "session_id", "events": "event_id"}.items():
        expected = pa.concat_tables([epoch_rows(n + 1).tables[table] for n in range(1, epochs + 1)])
        assert keys(load_table(catalog, "sessions", table).scan().to_arrow(), key) == keys(expected, key), table
