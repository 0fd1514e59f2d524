"""The catalog: which tables there are and which snapshot of each is current, in one SQLite file under the
home.

Its name is fixed, because the name is a key in the SQLite file: another engine that opens the same file under
the same name sees the same tables. Table files are addressed by absolute paths, so a home can't be moved.
"""

import errno
import re
import sqlite3
from pathlib import Path

from sessionize.errors import ConfigError, MissingExtraError, OutputError

try:
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
    from pyiceberg.table import Table
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool
except ModuleNotFoundError as missing:
    raise MissingExtraError(missing.name or "pyiceberg", "iceberg", "reading or writing Iceberg tables") from missing

__all__ = [
    "CATALOG_NAME",
    "DATABASE",
    "SqlCatalog",
    "load_table",
    "open_catalog",
    "storage_failure",
    "table_names",
]

CATALOG_NAME = "sessionize"
DATABASE = "sessions"

_BUSY_TIMEOUT_S = 30
# Two processes that create the catalog at the same moment: the slower one finds the tables there already.
_OPEN_ATTEMPTS_MAX = 5
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}")


def open_catalog(home: Path, *, create: bool = True) -> SqlCatalog:
    """The catalog `<home>/catalog.db` with its tables' files under `<home>/warehouse`.

    create: make what is missing; otherwise a home without a catalog is an error.
    Errors: ConfigError for a home that can't be one, OutputError for a place that can't be written.
    """
    home = home.absolute()
    _check_home(home, create=create)
    database = home / "catalog.db"
    last: Exception | None = None
    for _ in range(_OPEN_ATTEMPTS_MAX):
        try:
            (home / "warehouse").mkdir(parents=True, exist_ok=True)
            _prepare_database(database)
            return _connect(home, database)
        except (OSError, sqlite3.OperationalError, DBAPIError) as error:
            last = error
            if isinstance(error, OSError):
                break
    raise storage_failure("the catalog cannot be opened", str(database), last) from last


def load_table(catalog: SqlCatalog, database: str, name: str) -> Table:
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
            hint="a home cannot be moved; put it back, or give the path it was made under",
        ) from error
    except (OSError, DBAPIError) as error:
        raise storage_failure("a table cannot be read", f"{database}.{name}", error) from error


def table_names(catalog: SqlCatalog, database: str) -> list[str]:
    """The names of a database's tables, sorted; none for a database that does not exist."""
    try:
        return sorted(identifier[-1] for identifier in catalog.list_tables((database,)))
    except NoSuchNamespaceError:
        return []
    except DBAPIError as error:
        raise storage_failure("the catalog cannot be read", str(catalog.engine.url.database), error) from error


def check_name(what: str, name: str) -> None:
    """Refuse a name that would not be one folder in the warehouse and one word in SQL."""
    if not _SAFE_NAME.fullmatch(name):
        raise ConfigError(
            f"a name for a {what} cannot be used",
            detail=f"{what} {name!r}",
            hint="letters, digits, _ and -, at most 128 of them",
        )


def storage_failure(what: str, where: str, error: Exception | None) -> OutputError:
    """An error of the disk or of SQLite, in words: what failed, where, and what can be done about it."""
    text = str(error.orig if isinstance(error, DBAPIError) else error)
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.ENOSPC or "disk is full" in text or "No space left" in text:
        hint = "the disk is full: make space and run again"
    elif isinstance(error, PermissionError) or "readonly" in text or "unable to open database" in text:
        hint = "this user may not write there: change the permissions, or choose another --home"
    elif "locked" in text:
        hint = "another process holds the catalog; wait until it is done"
    else:
        hint = "look at the disk and its permissions"
    return OutputError(what, detail=f"{where}: {text}", hint=hint)


def _check_home(home: Path, *, create: bool) -> None:
    if any(mark in str(home) for mark in "?#\n"):
        raise ConfigError(
            "the home directory's path cannot be part of a file location",
            detail=f"home {str(home)!r} holds one of ? # or a line break",
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


def _prepare_database(path: Path) -> None:
    """Write-ahead logging, so that readers and a writer do not shut each other out; it stays on."""
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)
    try:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and "iceberg_tables" not in tables and "iceberg_namespace_properties" not in tables:
            raise ConfigError(
                "the catalog file belongs to something else",
                detail=f"{path} is a SQLite database with the tables {', '.join(sorted(tables))}",
                hint="choose another --home",
            )
        connection.execute("PRAGMA journal_mode=WAL")
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


def _connect(home: Path, database: Path) -> SqlCatalog:
    url = f"sqlite:///{database}?timeout={_BUSY_TIMEOUT_S}"
    catalog = SqlCatalog(CATALOG_NAME, uri=url, warehouse=f"file://{home / 'warehouse'}")
    # A connection for each statement: nothing stays open between commits, and a fork inherits nothing.
    catalog.engine.dispose()
    catalog.engine = create_engine(url, poolclass=NullPool)
    return catalog
