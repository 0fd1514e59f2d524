"""The identity of a home's catalog file: an id, and the path where it was created.

Table files have absolute locations, so a copied or moved home would write to the files of the original one, and clean
up there. The record is a table in catalog.db, which is compared each time the catalog is opened.
"""

import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

from sessionize.errors import ConfigError

NOTE_TABLE = "sessionize_home"

_MAKE = f"CREATE TABLE IF NOT EXISTS {NOTE_TABLE} (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT, path TEXT)"
_NOTE = f"INSERT OR IGNORE INTO {NOTE_TABLE} VALUES (1, ?, ?)"
_READ = f"SELECT id, path FROM {NOTE_TABLE}"
_LOCATIONS = "SELECT metadata_location FROM iceberg_tables WHERE metadata_location LIKE 'file://%'"


def check_home(connection: sqlite3.Connection, home: Path, tables: set[str], *, warehouse: str | None) -> str | None:
    """The id of the home's catalog, recorded with the home's path if it is new; None if the file is read-only.

    home: absolute. tables: in the file. warehouse: the tables' location in the settings, if any. A catalog of an
    earlier version has no record, so the locations of its tables are checked.
    Errors: ConfigError for a home that was copied or moved; sqlite3.Error.
    """
    if NOTE_TABLE not in tables:
        if "iceberg_tables" in tables:
            _check_locations(connection, home, warehouse)
        try:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_MAKE)
                connection.execute(_NOTE, (uuid.uuid4().hex, str(home)))
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error):
                raise
            return None
    ((id_, path),) = connection.execute(_READ).fetchall()
    if not _is_same(home, Path(path)):
        raise _elsewhere(home, Path(path))
    return str(id_)


def _check_locations(connection: sqlite3.Connection, home: Path, warehouse: str | None) -> None:
    for location in _local_locations(connection):
        other = _home_of(location)
        if other is None or _is_same(home, other):
            continue
        if warehouse is not None and f"file://{location}".startswith(f"{warehouse.rstrip('/')}/"):
            continue
        if (other / "catalog.db").is_file() or not location.is_file():
            raise _elsewhere(home, other)


def _local_locations(connection: sqlite3.Connection) -> Iterator[Path]:
    for (location,) in connection.execute(_LOCATIONS):
        yield Path(location.removeprefix("file://"))


def _home_of(location: Path) -> Path | None:
    """The home of a metadata file, as <home>/warehouse/<database>/<table>/metadata/<file>."""
    folders = location.parents
    return folders[4] if len(folders) > 4 and folders[3].name == "warehouse" else None


def _is_same(home: Path, other: Path) -> bool:
    """Whether both paths resolve to the same folder."""
    try:
        return home == other or home.samefile(other)
    except OSError:
        return False


def _elsewhere(home: Path, made: Path) -> ConfigError:
    if (made / "catalog.db").is_file():
        return ConfigError(
            "the home is a copy of another one",
            detail=f"it was created as {made}, and is opened as {home}; its tables' files are those in {made}",
            hint=f"use {made}; or start a new home and load the input again",
        )
    return ConfigError(
        "the home was moved or copied",
        detail=f"it was created as {made}, and is opened as {home}; its tables' files have absolute paths",
        hint=f"move it back to {made}, or create a link there that leads to it; "
        "or start a new home and load the input again",
    )
