"""The catalog of tables and their current snapshots: a SQLite file in the home by default, or a PostgreSQL database or
a REST server.

Its name is fixed, because it is a key in the database: another engine that opens the catalog under this name sees the
same tables. Table files have absolute paths, so a moved or copied home is refused (home_record.py).
"""

import re
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sessionize.connectors.iceberg.settings import CatalogSettings
from sessionize.errors import ConfigError, MissingExtraError
from sessionize.session.names import DATABASE

try:
    from pyiceberg.catalog import Catalog
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
    from pyiceberg.table import Table
    from sqlalchemy import create_engine, event, make_url
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    from sessionize.connectors.iceberg.errors import STORAGE_ERRORS, storage_failure
    from sessionize.connectors.iceberg.home_record import NOTE_TABLE, check_home
    from sessionize.connectors.iceberg.storage import local_location
    from sessionize.connectors.iceberg.table_folders import CATALOG_ID
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

# Makes pyiceberg open files through DurableFileIO, which syncs local ones, whatever their scheme.
_FILES = {"py-io-impl": "sessionize.connectors.iceberg.storage.DurableFileIO"}
_BUSY_TIMEOUT_S = 30
_CONNECT_TIMEOUT_S = 10
# Two processes may create the catalog at the same time: the slower one finds existing tables.
_OPEN_ATTEMPTS_MAX = 5
# Invalid in texts of a table's metadata: control characters, and bytes that are not UTF-8.
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}")


def open_catalog(home: Path, *, settings: CatalogSettings | None = None, create: bool = True) -> Catalog:
    """The catalog of the settings; by default `<home>/catalog.db`, with its tables' files under `<home>/warehouse`.

    create: create what is missing; otherwise a home without a catalog is an error.
    Errors: ConfigError for an invalid home or settings and for a copied or moved home, OutputError for a path that
    can't be written or a server that refuses access, UnavailableError for a server that cannot be reached.
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
    """The current table. Errors: ConfigError if it does not exist or its files were moved."""
    check_name("database", database)
    check_name("table", name)
    try:
        return catalog.load_table((database, name))
    except NoSuchTableError as error:
        known = ", ".join(table_names(catalog, database)) or "none yet"
        raise ConfigError("a table does not exist", detail=f"{database}.{name}", hint=f"tables: {known}") from error
    except FileNotFoundError as error:
        raise ConfigError(
            "a table's files are not at the path in the catalog",
            detail=f"{database}.{name}: {error}",
            hint="move the files back",
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
    """Refuse a name that is not a single folder name and a single word in SQL."""
    if not _SAFE_NAME.fullmatch(name):
        raise ConfigError(
            f"invalid name for a {what}",
            detail=f"{what} {name!r}",
            hint="use letters, digits, _ and -, at most 128",
        )


def _check_home(home: Path, *, create: bool) -> None:
    if _UNUSABLE.search(str(home)):
        raise ConfigError(
            "the home directory's path cannot be part of a file location",
            detail=f"home {str(home)!r} contains a control character, such as a tab, or is not UTF-8",
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
    """The id of the catalog in this file (home_record.py), None if the file is read-only.

    It turns on write-ahead logging, so that readers and a writer do not block each other.
    """
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)
    try:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not tables & {"iceberg_tables", "iceberg_namespace_properties", NOTE_TABLE}:
            raise ConfigError(
                "the catalog file belongs to another program",
                detail=f"{path} is a SQLite database with the tables {', '.join(sorted(tables))}",
                hint="choose another --home",
            )
        connection.execute("PRAGMA journal_mode=WAL")
        warehouse = None if settings.warehouse is None else _warehouse(path.parent, settings)
        return check_home(connection, path.parent, tables, warehouse=warehouse)
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
    # the URI is decoded: without quoting, the home `a%20b` would open the catalog of the home `a b`
    url = f"sqlite:///{quote(str(database))}?timeout={_BUSY_TIMEOUT_S}"
    properties = {**_FILES, **settings.resolved_options(), "uri": url, "warehouse": _warehouse(home, settings)}
    if settings.warehouse is None and id_ is not None:
        properties[CATALOG_ID] = id_  # only this catalog uses the warehouse
    catalog = SqlCatalog(CATALOG_NAME, **properties)
    # One connection per statement: none stays open between commits, and a fork inherits none.
    catalog.engine.dispose()
    catalog.engine = create_engine(url, poolclass=NullPool)
    event.listen(catalog.engine, "connect", _sync_every_commit)
    return catalog


def _warehouse(home: Path, settings: CatalogSettings) -> str:
    """The location of new tables' files. A folder is made absolute, because tables keep it."""
    given = settings.warehouse
    if given is None:
        return local_location(home / "warehouse")
    return given if _HAS_SCHEME.match(given) else local_location(Path(given).expanduser())


def _sync_every_commit(connection: Any, _record: Any) -> None:
    """Sync each commit to the disk, which some builds of SQLite do not do by default."""
    connection.execute("PRAGMA synchronous=FULL")


def _connect_server(home: Path, settings: CatalogSettings) -> Catalog:
    assert settings.uri is not None
    options = settings.resolved_options()
    if settings.kind == "rest":
        if settings.warehouse is not None:
            options["warehouse"] = settings.warehouse
        from pyiceberg.catalog.rest import RestCatalog  # takes 0.15 s to import, and most catalogs are files

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
    # A restarted server closes its connections: each statement gets one that works.
    catalog.engine = create_engine(url, poolclass=NullPool)
    # Every table has the catalog's properties, and none needs the password.
    catalog.properties["uri"] = hidden
    return catalog
