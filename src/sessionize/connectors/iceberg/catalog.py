"""The catalog: which tables there are and which snapshot of each is current. One SQLite file under the home, unless
settings name a PostgreSQL database or a REST server.

Its name is fixed, because the name is a key in the database: another engine that opens the same catalog under
the same name sees the same tables. Table files are addressed by absolute paths, so a home that was moved or copied is
refused (home_note.py).
"""

import re
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sessionize.connectors.iceberg.settings import CatalogSettings
from sessionize.errors import ConfigError, MissingExtraError

try:
    from pyiceberg.catalog import Catalog
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
    from pyiceberg.table import Table
    from sqlalchemy import create_engine, event, make_url
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    from sessionize.connectors.iceberg.errors import STORAGE_ERRORS, storage_failure
    from sessionize.connectors.iceberg.home_record import NOTE_TABLE, know_home
    from sessionize.connectors.iceberg.neighbours import CATALOG_ID
    from sessionize.connectors.iceberg.storage import local_location
except ModuleNotFoundError as missing:
    raise MissingExtraError(missing.name or "pyiceberg", "iceberg", "reading or writing Iceberg tables") from missing

__all__ = [
    "CATALOG_NAME",
    "DATABASE",
    "Catalog",
    "CatalogSettings",
    "SqlCatalog",
    "database_names",
    "load_table",
    "open_catalog",
    "table_names",
]

CATALOG_NAME = "sessionize"
DATABASE = "sessions"

# How pyiceberg is told to open files: local ones are synced, what it would guess from the scheme does not matter.
_FILES = {"py-io-impl": "sessionize.connectors.iceberg.storage.DurableFileIO"}
_BUSY_TIMEOUT_S = 30
_CONNECT_TIMEOUT_S = 10
# Two processes that create the catalog at the same moment: the slower one finds the tables there already.
_OPEN_ATTEMPTS_MAX = 5
# What no text of a table's metadata can hold: control characters, and bytes that are no text.
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}")


def open_catalog(home: Path, *, settings: CatalogSettings | None = None, create: bool = True) -> Catalog:
    """The catalog that the settings name; by default `<home>/catalog.db`, with its tables' files under
    `<home>/warehouse`.

    create: make what is missing; otherwise a home without a catalog is an error.
    Errors: ConfigError for a home or settings that can't be meant and for a home that was copied or moved, OutputError
    for a place that can't be written or a server that refuses, UnavailableError for one that is not there.
    """
    settings = settings or CatalogSettings()
    home = home.absolute()
    if settings.kind != "sqlite":
        try:
            return _connect_server(home, settings)
        except STORAGE_ERRORS as error:
            raise storage_failure("the catalog cannot be opened", settings.where, error) from error
    _check_home(home, create=create)
    database = home / "catalog.db"
    last: Exception | None = None
    for _ in range(_OPEN_ATTEMPTS_MAX):
        try:
            (home / "warehouse").mkdir(parents=True, exist_ok=True)
            id_ = _prepare_database(database, settings)
            return _connect(home, database, settings, id_)
        except (OSError, sqlite3.OperationalError, DBAPIError) as error:
            last = error
            if isinstance(error, OSError):
                break
    raise storage_failure("the catalog cannot be opened", str(database), last) from last


def load_table(catalog: Catalog, database: str, name: str) -> Table:
    """The table as it is now. Errors: ConfigError when there is none, or when its files were moved away."""
    check_name("database", database)
    check_name("table", name)
    try:
        return catalog.load_table((database, name))
    except NoSuchTableError as error:
        known = ", ".join(table_names(catalog, database)) or "none yet"
        raise ConfigError("a table does not exist", detail=f"{database}.{name}", hint=f"tables: {known}") from error
    except FileNotFoundError as error:
        raise ConfigError(
            "a table's files are not where the catalog says",
            detail=f"{database}.{name}: {error}",
            hint="bring the files back to where they were",
        ) from error
    except STORAGE_ERRORS as error:
        raise storage_failure("a table cannot be read", f"{database}.{name}", error) from error


def table_names(catalog: Catalog, database: str) -> list[str]:
    """The names of a database's tables, sorted; none for a database that does not exist."""
    try:
        return sorted(identifier[-1] for identifier in catalog.list_tables((database,)))
    except NoSuchNamespaceError:
        return []
    except STORAGE_ERRORS as error:
        raise storage_failure("the catalog cannot be read", f"database {database}", error) from error


def database_names(catalog: Catalog) -> list[str]:
    """The databases that have tables, sorted."""
    try:
        names = sorted(identifier[0] for identifier in catalog.list_namespaces() if len(identifier) == 1)
    except STORAGE_ERRORS as error:
        raise storage_failure("the catalog cannot be read", "its databases", error) from error
    return [name for name in names if table_names(catalog, name)]


def check_name(what: str, name: str) -> None:
    """Refuse a name that would not be one folder in the warehouse and one word in SQL."""
    if not _SAFE_NAME.fullmatch(name):
        raise ConfigError(
            f"a name for a {what} cannot be used",
            detail=f"{what} {name!r}",
            hint="letters, digits, _ and -, at most 128 of them",
        )


def _check_home(home: Path, *, create: bool) -> None:
    if _UNUSABLE.search(str(home)):
        raise ConfigError(
            "the home directory's path cannot be part of a file location",
            detail=f"home {str(home)!r} holds a control character, such as a tab, or is not UTF-8",
            hint="choose another --home",
        )
    try:
        missing = not (home / "catalog.db").exists()
    except (OSError, ValueError) as error:
        raise ConfigError("the home directory cannot be reached", detail=f"{home}: {error}") from error
    for place in (home, *home.parents):
        if place.exists() and not place.is_dir():
            raise ConfigError("the home is not a directory", detail=f"{place} is a file", hint="choose another --home")
    if missing and not create:
        raise ConfigError(
            "there are no tables yet",
            detail=f"{home} has no catalog.db",
            hint="run a pipeline first, or give its --home",
        )


def _prepare_database(path: Path, settings: CatalogSettings) -> str | None:
    """The id of the catalog in this file (home_note.py), None where nothing can be written.

    Write-ahead logging, so that readers and a writer do not shut each other out, stays on.
    """
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)
    try:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not tables & {"iceberg_tables", "iceberg_namespace_properties", NOTE_TABLE}:
            raise ConfigError(
                "the catalog file belongs to something else",
                detail=f"{path} is a SQLite database with the tables {', '.join(sorted(tables))}",
                hint="choose another --home",
            )
        connection.execute("PRAGMA journal_mode=WAL")
        warehouse = None if settings.warehouse is None else _warehouse(path.parent, settings)
        return know_home(connection, path.parent, tables, warehouse=warehouse)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise ConfigError(
            "the catalog file is not a catalog",
            detail=f"{path}: {error}",
            hint="move it away, or choose another --home",
        ) from error
    finally:
        connection.close()


def _connect(home: Path, database: Path, settings: CatalogSettings, id_: str | None) -> SqlCatalog:
    # an address is decoded: without this, the home `a%20b` would open the catalog of the home `a b`
    url = f"sqlite:///{quote(str(database))}?timeout={_BUSY_TIMEOUT_S}"
    properties = {**_FILES, **settings.revealed(), "uri": url, "warehouse": _warehouse(home, settings)}
    if settings.warehouse is None and id_ is not None:
        properties[CATALOG_ID] = id_  # the warehouse is this catalog's alone
    catalog = SqlCatalog(CATALOG_NAME, **properties)
    # A connection for each statement: nothing stays open between commits, and a fork inherits nothing.
    catalog.engine.dispose()
    catalog.engine = create_engine(url, poolclass=NullPool)
    event.listen(catalog.engine, "connect", _sync_every_commit)
    return catalog


def _warehouse(home: Path, settings: CatalogSettings) -> str:
    """Where new tables put their files, as a location. A folder is made absolute: tables keep it for good."""
    given = settings.warehouse
    if given is None:
        return local_location(home / "warehouse")
    return given if _HAS_SCHEME.match(given) else local_location(Path(given).expanduser())


def _sync_every_commit(connection: Any, _record: Any) -> None:
    """What SQLite may be built without: a commit is on the disk before it counts."""
    connection.execute("PRAGMA synchronous=FULL")


def _connect_server(home: Path, settings: CatalogSettings) -> Catalog:
    assert settings.uri is not None
    options = settings.revealed()
    if settings.kind == "rest":
        if settings.warehouse is not None:
            options["warehouse"] = settings.warehouse
        from pyiceberg.catalog.rest import RestCatalog  # takes 0.15 s to load, and most catalogs are files

        return RestCatalog(CATALOG_NAME, **{**_FILES, **options, "uri": settings.uri})
    warehouse = _warehouse(home, settings)
    url = make_url(settings.uri).set(drivername="postgresql+psycopg", password=options.pop("password", None))
    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": str(_CONNECT_TIMEOUT_S)})
    hidden = url.render_as_string(hide_password=True)
    try:
        catalog = SqlCatalog(
            CATALOG_NAME,
            **{**_FILES, **options, "uri": url.render_as_string(hide_password=False), "warehouse": warehouse},
        )
    except ModuleNotFoundError as missing:
        raise MissingExtraError(missing.name or "psycopg", "postgres", "a catalog in PostgreSQL") from missing
    catalog.engine.dispose()
    # A server that was restarted closes what was open: each statement gets a connection that answers.
    catalog.engine = create_engine(url, poolclass=NullPool)
    # Every table carries the catalog's properties, and none of them needs the password.
    catalog.properties["uri"] = hidden
    return catalog
