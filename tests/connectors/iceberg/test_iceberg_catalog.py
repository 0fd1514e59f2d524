import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pyiceberg.table import Table

from sessionize.connectors.iceberg import (
    CATALOG_NAME,
    Catalog,
    CatalogSettings,
    IcebergSink,
    MaintenanceSettings,
    SqlCatalog,
    load_table,
    maintain_table,
    open_catalog,
    open_table,
    readable,
    rejected_events,
    table_names,
    user_sessions,
)
from sessionize.errors import ConfigError, OutputError
from tests.connectors.iceberg.writing import sessions, write_all


def sessions_of(name: str) -> pa.Table:
    """Two sessions of two users that are called after the name."""
    return sessions(2, days=2).set_column(0, "user", pa.array([f"{name}-0", f"{name}-1"]))


def dataset_users(table: Table) -> set[str]:
    seen = readable(table)
    assert isinstance(seen.data, ds.Dataset)
    return set(seen.data.to_table(columns=["user"])["user"].to_pylist())


def test_a_new_home_gets_a_catalog_and_a_warehouse(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home with spaces — ünïcode"

    open_table(open_catalog(home), "sessions", "rejected_events", rejected_events())

    assert (home / "catalog.db").is_file()
    again = open_catalog(home)
    assert again.name == CATALOG_NAME == "sessionize"
    assert table_names(again, "sessions") == ["rejected_events"]
    assert load_table(again, "sessions", "rejected_events").location().startswith(f"file://{home}/warehouse/")


def test_the_catalog_lets_readers_and_a_writer_work_together(tmp_path: Path) -> None:
    catalog = open_catalog(tmp_path)

    with sqlite3.connect(tmp_path / "catalog.db") as database:
        mode = database.execute("PRAGMA journal_mode").fetchone()[0]
    database.close()
    assert isinstance(catalog, SqlCatalog)
    with catalog.engine.connect() as connection:
        timeout_ms = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()

    assert mode == "wal"
    assert timeout_ms == 30_000


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    table = open_table(open_catalog(Path("here")), "sessions", "s", user_sessions())

    assert table.location() == f"file://{tmp_path}/here/warehouse/sessions/s"


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="not a directory") as caught:
            open_catalog(home)
        assert str(tmp_path / "file") in str(caught.value)


def test_a_catalog_file_that_is_no_database_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"not a database, but long enough to look like a file with a header" * 9)
    before = (tmp_path / "catalog.db").read_bytes()

    with pytest.raises(ConfigError, match="not a catalog"):
        open_catalog(tmp_path)

    assert (tmp_path / "catalog.db").read_bytes() == before


def test_a_catalog_file_of_another_program(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "catalog.db") as database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")
    database.close()

    with pytest.raises(ConfigError, match="belongs to another program") as caught:
        open_catalog(tmp_path)

    assert "bookmarks" in str(caught.value)


# Pairs that are the same folder to whoever decodes a path, or takes it for an address.
TWINS = [
    ("a b", "a%20b"),
    ("a%20b", "a%2520b"),
    ("a?timeout=1", "a"),
    ("a#b", "a"),
    ("a+b", "a b"),
    ("ü", "%C3%BC"),
    ("a%2Fb", "a"),
    ("a&b=c;d", "a"),
    ("a:b@c", "c"),
]


@pytest.mark.parametrize(("one", "other"), TWINS, ids=[f"{one} {other}" for one, other in TWINS])
@pytest.mark.parametrize("as_warehouse", [False, True], ids=["home", "warehouse"])
def test_homes_whose_names_differ_by_an_encoding_share_nothing(
    tmp_path: Path, one: str, other: str, as_warehouse: bool
) -> None:
    def catalog(name: str) -> Catalog:
        home = tmp_path / "homes" / (f"{abs(hash(name))}" if as_warehouse else name)
        folder = str(tmp_path / "files" / name)
        return open_catalog(home, settings=CatalogSettings(warehouse=folder) if as_warehouse else None)

    for name in (one, other):
        write_all(IcebergSink(catalog(name), user_sessions(), table="s"), sessions_of(name))
    for name in (one, other):
        table = load_table(catalog(name), "sessions", "s")
        folder = tmp_path / "files" / name if as_warehouse else tmp_path / "homes" / name / "warehouse"
        suffix = "-[0-9a-f]{12}" if as_warehouse else ""
        assert re.fullmatch(re.escape(f"file://{folder}/sessions/s") + suffix, table.location())
        assert set(table.scan().to_arrow()["user"].to_pylist()) == {f"{name}-0", f"{name}-1"}
        assert dataset_users(table) == {f"{name}-0", f"{name}-1"}
        upkeep = MaintenanceSettings(keep_s=0, orphan_age_h=0, force=True)
        assert maintain_table(catalog(name), "sessions", "s", upkeep).orphans == 0
        assert len(set(folder.rglob("*.parquet"))) == 2


def test_a_warehouse_given_as_a_relative_folder_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    catalog = open_catalog(tmp_path, settings=CatalogSettings(warehouse="house"))
    write_all(IcebergSink(catalog, user_sessions(), table="s"), sessions(2))

    monkeypatch.chdir(tmp_path)
    assert load_table(open_catalog(tmp_path), "sessions", "s").scan().count() == 2


@pytest.mark.parametrize("mark", ["\n", "\t", "\udcff"])
def test_a_path_that_no_file_location_can_hold(tmp_path: Path, mark: str) -> None:
    with pytest.raises(ConfigError, match="file location"):
        open_catalog(tmp_path / f"a{mark}b")


def test_reading_does_not_make_a_home(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tables yet"):
        open_catalog(tmp_path / "home", create=False)

    assert not (tmp_path / "home").exists()


@pytest.fixture
def nobodys_folder() -> Iterator[Path]:
    """A folder that the user of the test may enter but not write; root, who may write anywhere, becomes nobody."""
    folder = Path(tempfile.mkdtemp(prefix="sessionize-read-only-"))
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_home_that_may_not_be_written(nobodys_folder: Path) -> None:
    with pytest.raises(OutputError, match="no permission to write"):
        open_catalog(nobodys_folder / "home")


def test_a_place_where_nothing_can_be_made() -> None:
    with pytest.raises(OutputError, match="cannot be opened"):
        open_catalog(Path("/proc/sessionize-home"))


@pytest.mark.parametrize("name", ["", "../up", "a.b", "a/b", "a b", "x" * 200, 'a"b', "-a"])
def test_names_that_would_leave_the_warehouse_or_break_sql(tmp_path: Path, name: str) -> None:
    catalog = open_catalog(tmp_path)

    with pytest.raises(ConfigError, match="name for a table"):
        open_table(catalog, "sessions", name, user_sessions())
    with pytest.raises(ConfigError, match="name for a database"):
        open_table(catalog, name, "user_sessions", user_sessions())


def test_a_missing_table_names_those_there(tmp_path: Path) -> None:
    catalog = open_catalog(tmp_path)
    open_table(catalog, "sessions", "user_sessions", user_sessions())

    with pytest.raises(ConfigError, match="does not exist") as caught:
        load_table(catalog, "sessions", "user_session")

    assert caught.value.hint == "tables: user_sessions"


def test_a_home_that_was_moved(tmp_path: Path) -> None:
    open_table(open_catalog(tmp_path / "old"), "sessions", "user_sessions", user_sessions())
    (tmp_path / "old").rename(tmp_path / "new")

    with pytest.raises(ConfigError, match="moved or copied") as caught:
        open_catalog(tmp_path / "new")

    assert str(tmp_path / "old") in str(caught.value)
    assert str(tmp_path / "new") in str(caught.value)
    assert str(tmp_path / "old") in str(caught.value.hint)
    (tmp_path / "old").symlink_to(tmp_path / "new")
    assert load_table(open_catalog(tmp_path / "new"), "sessions", "user_sessions").scan().count() == 0
