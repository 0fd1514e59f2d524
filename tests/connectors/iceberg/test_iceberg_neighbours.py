"""Two catalogs in one warehouse: neither takes the other's files for its own."""

import os
import shutil
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from sessionize.connectors.iceberg import (
    Catalog,
    CatalogSettings,
    IcebergSink,
    MaintenanceSettings,
    load_table,
    maintain_table,
    open_catalog,
    open_table,
    rejected_events,
    tables,
    user_sessions,
)
from sessionize.connectors.iceberg.home_record import NOTE_TABLE
from sessionize.errors import ConfigError
from tests.connectors.iceberg.writing import sessions, write_all

OLD_FILES_GO = MaintenanceSettings(keep_s=0, orphan_age_h=72)


def aged(folder: Path) -> None:
    """Make every file below the folder four days old."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - 96 * 3600,) * 2)


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def rows_of(catalog: Catalog, table: str = "s") -> "Counter[str]":
    return Counter(map(repr, load_table(catalog, "sessions", table).scan().to_arrow().to_pylist()))


def written(catalog: Catalog, count: int) -> Catalog:
    write_all(IcebergSink(catalog, user_sessions(), table="s"), sessions(count))
    return catalog


def as_an_earlier_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are made as they were before: in the folder that the warehouse and their name give, without a note."""
    monkeypatch.setattr(tables, "new_location", lambda *_: None)
    monkeypatch.setattr(tables, "catalog_properties", lambda _: {})


def without_note(home: Path) -> None:
    """Make the catalog one of an earlier version."""
    with closing(sqlite3.connect(home / "catalog.db")) as database, database:
        database.execute(f"DROP TABLE {NOTE_TABLE}")


# ---- one warehouse ----


def test_homes_that_share_a_warehouse_have_folders_of_their_own(tmp_path: Path) -> None:
    shared = CatalogSettings(warehouse=str(tmp_path / "shared"))
    one = written(open_catalog(tmp_path / "one", settings=shared), 2)
    other = written(open_catalog(tmp_path / "other", settings=shared), 3)
    expected = rows_of(other)
    aged(tmp_path / "shared")
    before = files_in(tmp_path / "shared")

    done = maintain_table(one, "sessions", "s", OLD_FILES_GO)

    assert (done.orphans, done.shared_with) == (0, None)
    assert before <= files_in(tmp_path / "shared")
    assert rows_of(other) == expected
    assert load_table(one, "sessions", "s").location() != load_table(other, "sessions", "s").location()


def test_a_folder_that_two_tables_share_already_keeps_its_orphans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = CatalogSettings(warehouse=str(tmp_path / "shared"))
    with monkeypatch.context() as patched:
        as_an_earlier_version(patched)
        one = written(open_catalog(tmp_path / "one", settings=shared), 2)
        other = written(open_catalog(tmp_path / "other", settings=shared), 3)
    assert load_table(one, "sessions", "s").location() == load_table(other, "sessions", "s").location()
    expected = rows_of(other)
    aged(tmp_path / "shared")
    before = files_in(tmp_path / "shared")

    done = maintain_table(one, "sessions", "s", OLD_FILES_GO)

    assert done.orphans == 0
    assert done.shared_with is not None
    assert done.shared_with in str(done.warning())
    assert before <= files_in(tmp_path / "shared")
    assert rows_of(other) == expected


def test_a_table_without_rows_in_the_same_folder_stays_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_an_earlier_version(monkeypatch)
    shared = CatalogSettings(warehouse=str(tmp_path / "shared"))
    one = written(open_catalog(tmp_path / "one", settings=shared), 2)
    other = open_catalog(tmp_path / "other", settings=shared)
    open_table(other, "sessions", "s", user_sessions())
    aged(tmp_path / "shared")

    assert maintain_table(one, "sessions", "s", OLD_FILES_GO).orphans == 0
    assert rows_of(other) == Counter()


def test_a_warehouse_within_a_tables_folder(tmp_path: Path) -> None:
    outer = written(open_catalog(tmp_path / "home"), 2)
    inside = CatalogSettings(warehouse=str(tmp_path / "home/warehouse/sessions/s"))
    other = written(open_catalog(tmp_path / "other", settings=inside), 3)
    expected = rows_of(other)
    aged(tmp_path / "home/warehouse")

    done = maintain_table(outer, "sessions", "s", OLD_FILES_GO)

    assert (done.orphans, done.shared_with is None) == (0, False)
    assert rows_of(other) == expected


def test_a_home_begun_anew_beside_old_tables_leaves_them_their_folder(tmp_path: Path) -> None:
    written(open_catalog(tmp_path), 2)
    old = files_in(tmp_path / "warehouse")
    (tmp_path / "catalog.db").rename(tmp_path / "catalog.old")
    for name in ("catalog.db-wal", "catalog.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)

    anew = written(open_catalog(tmp_path), 3)
    aged(tmp_path / "warehouse")
    assert maintain_table(anew, "sessions", "s", OLD_FILES_GO).orphans == 0
    assert old <= files_in(tmp_path / "warehouse")


def test_a_table_that_was_renamed_keeps_its_folder_to_itself(tmp_path: Path) -> None:
    catalog = written(open_catalog(tmp_path), 2)
    catalog.rename_table(("sessions", "s"), ("sessions", "kept"))
    expected = rows_of(catalog, "kept")
    written(catalog, 3)
    aged(tmp_path / "warehouse")

    assert maintain_table(catalog, "sessions", "s", OLD_FILES_GO).orphans == 0
    assert rows_of(catalog, "kept") == expected


def test_what_a_slower_maker_of_the_same_table_left_is_an_orphan(tmp_path: Path) -> None:
    catalog = open_catalog(tmp_path)
    open_table(catalog, "sessions", "s", user_sessions())
    lost = load_table(catalog, "sessions", "s")
    catalog.drop_table(("sessions", "s"))  # as if it had never come in
    made = catalog.create_table(
        ("sessions", "s"), lost.schema(), location=lost.location(), properties=dict(lost.properties)
    )
    assert made.metadata.table_uuid != lost.metadata.table_uuid
    aged(tmp_path / "warehouse")

    done = maintain_table(catalog, "sessions", "s", OLD_FILES_GO)

    assert (done.orphans, done.shared_with) == (1, None)
    assert not Path(lost.metadata_location.removeprefix("file://")).exists()
    assert load_table(catalog, "sessions", "s").scan().count() == 0


def test_metadata_that_was_cut_off_is_an_orphan(tmp_path: Path) -> None:
    catalog = written(open_catalog(tmp_path), 2)
    cut = tmp_path / "warehouse/sessions/s/metadata/00001-x.metadata.json"
    cut.write_text('{"format-version": 2, "table-uu')
    aged(tmp_path / "warehouse")

    assert maintain_table(catalog, "sessions", "s", OLD_FILES_GO).orphans == 1
    assert not cut.exists()


# ---- copied and moved homes ----


@pytest.mark.parametrize("earlier", [False, True], ids=["noted", "of an earlier version"])
def test_a_copied_home_is_refused_and_the_original_goes_on(tmp_path: Path, earlier: bool) -> None:
    written(open_catalog(tmp_path / "home"), 2)
    if earlier:
        without_note(tmp_path / "home")
    shutil.copytree(tmp_path / "home", tmp_path / "copy")
    before = files_in(tmp_path / "home")

    for create in (True, False):
        with pytest.raises(ConfigError, match="copy of another") as caught:
            open_catalog(tmp_path / "copy", create=create)
        assert str(tmp_path / "home") in str(caught.value)
        assert str(tmp_path / "copy") in str(caught.value)
        assert str(tmp_path / "home") in str(caught.value.hint)
    assert files_in(tmp_path / "home") == before
    assert load_table(written(open_catalog(tmp_path / "home"), 3), "sessions", "s").scan().count() == 5


@pytest.mark.parametrize("earlier", [False, True], ids=["noted", "of an earlier version"])
def test_a_moved_home_is_refused_until_it_is_back(tmp_path: Path, earlier: bool) -> None:
    written(open_catalog(tmp_path / "home"), 2)
    if earlier:
        without_note(tmp_path / "home")
    (tmp_path / "home").rename(tmp_path / "new")

    with pytest.raises(ConfigError, match="moved or copied"):
        open_catalog(tmp_path / "new", create=False)

    (tmp_path / "new").rename(tmp_path / "home")
    assert load_table(open_catalog(tmp_path / "home"), "sessions", "s").scan().count() == 2


@pytest.mark.parametrize("earlier", [False, True], ids=["noted", "of an earlier version"])
def test_a_home_behind_a_link_is_the_same_home(tmp_path: Path, earlier: bool) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    written(open_catalog(tmp_path / "link/home"), 2)
    if earlier:
        without_note(tmp_path / "disk/home")

    for path in (tmp_path / "disk/home", tmp_path / "link/home"):
        assert load_table(open_catalog(path), "sessions", "s").scan().count() == 2


def test_an_earlier_home_gets_its_note_when_it_is_opened(tmp_path: Path) -> None:
    written(open_catalog(tmp_path / "home"), 2)
    without_note(tmp_path / "home")
    open_catalog(tmp_path / "home")
    shutil.copytree(tmp_path / "home", tmp_path / "copy")
    shutil.rmtree(tmp_path / "home")

    with pytest.raises(ConfigError, match="moved or copied"):
        open_catalog(tmp_path / "copy")


def test_an_earlier_home_with_a_warehouse_elsewhere_goes_on(tmp_path: Path) -> None:
    elsewhere = CatalogSettings(warehouse=str(tmp_path / "big/warehouse"))
    written(open_catalog(tmp_path / "home", settings=elsewhere), 2)
    without_note(tmp_path / "home")

    assert load_table(open_catalog(tmp_path / "home", create=False), "sessions", "s").scan().count() == 2


def test_a_copy_of_a_home_whose_warehouse_is_elsewhere_is_refused(tmp_path: Path) -> None:
    elsewhere = CatalogSettings(warehouse=str(tmp_path / "big"))
    written(open_catalog(tmp_path / "home", settings=elsewhere), 2)
    shutil.copytree(tmp_path / "home", tmp_path / "copy")

    with pytest.raises(ConfigError, match="copy of another"):
        open_catalog(tmp_path / "copy", settings=elsewhere)


def test_a_first_try_with_other_columns_leaves_nothing_that_stops_the_removal_of_orphans(tmp_path: Path) -> None:
    catalog = open_catalog(tmp_path)
    open_table(catalog, "sessions", "rejected_events", rejected_events())
    catalog.drop_table(("sessions", "rejected_events"))
    open_table(catalog, "sessions", "rejected_events", rejected_events())
    aged(tmp_path / "warehouse")

    assert maintain_table(catalog, "sessions", "rejected_events", OLD_FILES_GO).shared_with is None
