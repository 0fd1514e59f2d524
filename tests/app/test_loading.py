"""Files that are loaded twice are noticed, and a load that is cut off at any commit neither blocks nor doubles."""

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from sessionize.app import runs
from sessionize.app.files import FilePlan
from sessionize.app.tables.maintain import MaintenanceSettings, maintain
from sessionize.app.tables.reconcile import reconcile_tables
from sessionize.app.tables.retry_rejected import retry_rejected
from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.iceberg import load_table, maintain_table, open_catalog
from sessionize.errors import InputError, StateError
from sessionize.formats.dialects import dialect_named
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from tests.app.loads import NOW_MS, ONCE, KilledError, counts, killed_after, pipeline, records, run, two_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As two_files."""
    return two_files(tmp_path)


def test_the_same_files_are_refused_with_when_they_were_loaded(folder: Path) -> None:
    run(pipeline(folder))
    with pytest.raises(StateError, match="files are in the tables already") as caught:
        run(pipeline(folder))
    text = str(caught.value)
    assert f"2 of 2: {folder}/in/ann.ndjson (loaded 20" in text
    assert " UTC), " in text
    assert "--again loads all of them once more, --set output.mode=overwrite replaces" in text
    assert "--new-only" not in text  # there is nothing new
    assert counts(folder) == ONCE


def test_it_is_the_content_that_counts(folder: Path) -> None:
    run(pipeline(folder))
    os.utime(folder / "in" / "ann.ndjson", (1, 1))
    shutil.copy(folder / "in" / "ann.ndjson", folder / "other.ndjson")
    for name in ("in/ann.ndjson", "other.ndjson"):
        with pytest.raises(StateError, match="already"):
            run(pipeline(folder, name))
    with pytest.raises(StateError, match=r"other\.ndjson \(loaded [^)]* as [^)]*ann\.ndjson\)"):
        run(pipeline(folder, "other.ndjson"))
    (folder / "in" / "ann.ndjson").write_text(records("ann", 2))  # another day under the same name
    run(pipeline(folder, "in/ann.ndjson"))
    assert counts(folder) == (3, 8, 3)


def test_new_files_beside_old_ones(folder: Path) -> None:
    run(pipeline(folder))
    (folder / "in" / "cid.ndjson").write_text(records("cid", 1))
    with pytest.raises(StateError, match=r"2 of 3: [^$]*--new-only loads the other 1, "):
        run(pipeline(folder))
    told: list[str] = []
    accounting = run(pipeline(folder, **{"input.known_files": "skip"}), told.append)
    assert accounting.consumed == 2
    assert counts(folder) == (3, 7, 3)
    assert len(told) == 1
    assert told[0].startswith(f"2 files are in the tables already and skipped: {folder}/in/ann.ndjson (loaded ")
    assert run(pipeline(folder, **{"input.known_files": "skip"}), told.append).consumed == 0
    assert counts(folder) == (3, 7, 3)


def test_again_adds_and_overwrite_replaces(folder: Path) -> None:
    run(pipeline(folder))
    run(pipeline(folder, **{"input.known_files": "again"}))
    assert counts(folder) == (4, 12, 4)
    run(pipeline(folder, "in/ann.ndjson", **{"output.mode": "overwrite"}))
    assert counts(folder) == (1, 3, 1)
    run(pipeline(folder, "in/bob.ndjson"))  # which is in no more
    assert counts(folder) == ONCE


def test_what_was_loaded_can_be_asked(folder: Path) -> None:
    run(pipeline(folder))
    run(pipeline(folder, "in/ann.ndjson", **{"output.mode": "overwrite"}))
    rows = Warehouse(folder / "home").query("FROM loads ORDER BY loaded_at, path").to_pylist()
    assert [(Path(row["path"]).name, row["is_in"]) for row in rows] == [
        ("ann.ndjson", False), ("bob.ndjson", False), ("ann.ndjson", True)
    ]  # fmt: skip
    first = rows[0]
    assert (first["pipeline"], first["table_name"]) == ("mine", "user_sessions")
    assert (first["records"], first["rows_written"]) == (8, 2)
    assert first["size_bytes"] == (folder / "in" / "ann.ndjson").stat().st_size
    assert len(first["fingerprint"]) == 32
    assert first["modified_at"] < first["loaded_at"]


def test_the_record_outlives_maintenance(folder: Path) -> None:
    for name in ("in/ann.ndjson", "in/bob.ndjson"):
        run(pipeline(folder, name))
    settings = MaintenanceSettings(keep_s=0, keep_snapshots=1, orphan_age_h=0, force=True)
    done = maintain(Warehouse(folder / "home"), settings)
    assert {table.table: table.files_after for table in done}["loads"] == 1
    for name in ("in/ann.ndjson", "in/bob.ndjson"):
        with pytest.raises(StateError, match="already"):
            run(pipeline(folder, name))


@pytest.mark.parametrize("known", ["refuse", "again", "skip"])
@pytest.mark.parametrize("commits", range(6))  # loads, rejected, late (nothing), events, sessions, and after them
def test_a_load_that_was_killed_at_any_commit_is_done_by_the_next_try(
    folder: Path, monkeypatch: pytest.MonkeyPatch, commits: int, known: str
) -> None:
    with monkeypatch.context() as patched:
        killed_after(patched, commits)
        if commits < 5:
            with pytest.raises(KilledError):
                run(pipeline(folder))
        else:
            run(pipeline(folder))
    if commits == 5 and known == "refuse":
        with pytest.raises(StateError, match="already"):
            run(pipeline(folder))
    else:
        run(pipeline(folder, **{"input.known_files": known}), lambda text: None)
    assert counts(folder) == ((4, 12, 4) if commits == 5 and known == "again" else ONCE)
    is_in = Warehouse(folder / "home").query("SELECT count(*) AS n FROM loads WHERE is_in").to_pylist()
    assert is_in == [{"n": 4 if commits == 5 and known == "again" else 2}]


def test_what_was_cut_off_is_taken_out_by_a_load_of_some_of_its_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        killed_after(patched, 4)
        with pytest.raises(KilledError):
            run(pipeline(folder))
    assert Warehouse(folder / "home").query("SELECT count(*) AS n FROM events").to_pylist() == [{"n": 6}]
    run(pipeline(folder, "in/ann.ndjson", **{"input.mapping.page": None}))
    assert counts(folder) == (1, 3, 1)
    run(pipeline(folder, "in/bob.ndjson"))
    assert counts(folder) == ONCE
    reconcile_tables(folder / "home", pipeline(folder))
    assert counts(folder) == ONCE


def test_what_was_cut_off_is_known_when_its_snapshot_is_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots expire before long."""
    with monkeypatch.context() as patched:
        killed_after(patched, 4)
        with pytest.raises(KilledError):
            run(pipeline(folder))
    for name in ("events", "rejected_events"):
        table = load_table(open_catalog(folder / "home"), "sessions", name)
        with table.transaction() as change:  # a further snapshot, so that the load's own may go
            change.update_snapshot().merge_append().commit()
    settings = MaintenanceSettings(keep_s=0, keep_snapshots=1, orphan_age_h=0, force=True)
    maintain(Warehouse(folder / "home"), settings, tables=["events", "rejected_events"])
    table = load_table(open_catalog(folder / "home"), "sessions", "events")
    assert all("sessionize.load" not in (each.summary or {}).additional_properties for each in table.snapshots())
    run(pipeline(folder))
    assert counts(folder) == ONCE


def test_maintenance_leaves_what_was_cut_off_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "cid.ndjson").write_text(records("cid", 3))
    run(pipeline(folder, "in/ann.ndjson"))
    run(pipeline(folder, "cid.ndjson"))
    with monkeypatch.context() as patched:
        killed_after(patched, 4)
        with pytest.raises(KilledError):
            run(pipeline(folder, "in/bob.ndjson"))
    settings = MaintenanceSettings(keep_s=0, keep_snapshots=1, orphan_age_h=0, force=True)
    files = {each.table: each.files_after for each in maintain(Warehouse(folder / "home"), settings)}
    assert (files["events"], files["rejected_events"], files["user_sessions"]) == (2, 2, 1)
    run(pipeline(folder, "in/bob.ndjson"))
    assert counts(folder) == (3, 9, 3)
    files = {each.table: each.files_after for each in maintain(Warehouse(folder / "home"), settings)}
    assert (files["events"], files["rejected_events"], files["user_sessions"]) == (1, 1, 1)


def test_rows_that_cannot_be_told_apart_any_more_are_no_reason_to_double(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(pipeline(folder, "in/ann.ndjson"))
    with monkeypatch.context() as patched:
        killed_after(patched, 4)
        with pytest.raises(KilledError):
            run(pipeline(folder, "in/bob.ndjson"))
    maintain_table(open_catalog(folder / "home"), "sessions", "events", MaintenanceSettings(keep_s=0))
    before = counts(folder)
    with pytest.raises(StateError, match="interrupted, and its rows can no longer be identified"):
        run(pipeline(folder, "in/bob.ndjson"))
    assert counts(folder) == before
    run(pipeline(folder, **{"output.mode": "overwrite"}))
    assert counts(folder) == ONCE


def test_a_pipe_is_loaded_whatever_came_before(folder: Path) -> None:
    os.mkfifo(folder / "pipe.ndjson")
    text = (folder / "in" / "ann.ndjson").read_text()
    for _ in range(2):
        writer = threading.Thread(target=lambda: (folder / "pipe.ndjson").write_text(text))
        writer.start()
        run(pipeline(folder, "pipe.ndjson"))
        writer.join()
    assert counts(folder) == (2, 6, 2)
    rows = Warehouse(folder / "home").query("SELECT fingerprint, size_bytes, is_in FROM loads").to_pylist()
    assert rows == [{"fingerprint": None, "size_bytes": None, "is_in": True}] * 2


def test_files_of_which_every_record_was_rejected_can_be_run_again(folder: Path) -> None:
    """The mapping was wrong. What the first try left in rejected_events makes way for the second one's."""
    wrong = {"input.mapping.time": "when"}
    for _ in range(2):
        with pytest.raises(InputError, match="run it over the files again, which replaces them"):
            run(pipeline(folder, **wrong))
        assert Warehouse(folder / "home").query("SELECT count(*) AS n FROM rejected_events").to_pylist() == [{"n": 8}]
    assert run(pipeline(folder)).settled == 6
    assert counts(folder) == ONCE


def test_files_whose_records_a_retry_brought_in_are_in(folder: Path) -> None:
    with pytest.raises(InputError):
        run(pipeline(folder, **{"input.mapping.time": "when"}))
    assert retry_rejected(folder / "home", pipeline(folder), now_ms=NOW_MS).usable == 6
    with pytest.raises(StateError, match="already"):
        run(pipeline(folder))
    assert Warehouse(folder / "home").query("SELECT count(*) AS n FROM late_events").to_pylist() == [{"n": 6}]


def test_files_of_one_content_in_one_run(folder: Path) -> None:
    shutil.copy(folder / "in" / "ann.ndjson", folder / "in" / "copy.ndjson")
    with pytest.raises(StateError, match="some files have the same content") as caught:
        run(pipeline(folder))
    assert f"{folder}/in/copy.ndjson equals {folder}/in/ann.ndjson" in str(caught.value)
    assert "--new-only loads one of each, --again loads all" in str(caught.value)
    told: list[str] = []
    run(pipeline(folder, **{"input.known_files": "skip"}), told.append)
    assert counts(folder) == ONCE
    assert "loaded once: " in told[0]


def test_files_without_a_record_are_no_reason_to_refuse(folder: Path) -> None:
    """The days on which nothing happened all look the same."""
    for name in ("mon", "tue"):
        (folder / "in" / f"{name}.csv").write_text("user_id,timestamp,url\n")
    run(pipeline(folder))
    (folder / "cid.ndjson").write_text(records("cid", 1))
    run(pipeline(folder, "in/mon.csv", "cid.ndjson"))
    assert counts(folder) == (3, 7, 3)


def test_two_at_a_time_load_the_same_file_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have read it before either is committed."""
    opened = [runs.plan(pipeline(folder), now_ms=NOW_MS).open() for _ in range(2)]
    failed: list[BaseException] = []

    def work(each: Any) -> None:
        try:
            each.run()
        except StateError as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(each,)) for each in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ["already" in str(error) for error in failed] == [True]
    assert counts(folder) == ONCE


def plan(folder: Path, output: str, **more: Any) -> FilePlan:
    settings: dict[str, Any] = {"what": "sessions", "inputs": (str(folder / "in"),), **more}
    return FilePlan(
        output=output, dialect=dialect_named("clicks"), policy=Policy(), rules=Rules(), home=folder / "home", **settings
    )


@pytest.mark.parametrize(("what", "rows"), [("sessions", 2), ("labels", 6)])
def test_batch_and_label_into_a_table(folder: Path, what: str, rows: int) -> None:
    def there() -> int:
        count: int = Warehouse(folder / "home").query("SELECT count(*) AS n FROM t").to_pylist()[0]["n"]
        return count

    plan(folder, "iceberg:mine.t", what=what).open(pytest.fail).run()
    with pytest.raises(StateError, match="--overwrite replaces what the tables hold"):
        plan(folder, "iceberg:mine.t", what=what).open(pytest.fail)
    assert there() == rows
    plan(folder, "iceberg:mine.t", what=what, known_files="again").open(pytest.fail).run()
    assert there() == 2 * rows
    plan(folder, "iceberg:mine.t", what=what, overwrite=True).open(pytest.fail).run()
    assert there() == rows


def test_a_file_as_output_warns_of_files_that_come_twice(folder: Path) -> None:
    shutil.copy(folder / "in" / "ann.ndjson", folder / "in" / "copy.ndjson")
    told: list[str] = []
    plan(folder, str(folder / "out.parquet")).open(told.append).run()
    assert len(told) == 1
    assert "copy.ndjson equals " in told[0]
