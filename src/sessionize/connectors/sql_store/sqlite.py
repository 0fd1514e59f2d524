"""SQLite as the store: one file, readers beside one writer (write-ahead log), every commit brought to the disk."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.connectors.sql_store.tables import EPOCHS, PIPELINE, REPLACEMENTS, Column, TableShape
from sessionize.durable import is_transient
from sessionize.errors import OutputError, SessionizeError, UnavailableError
from sessionize.ports import EpochId
from sessionize.session.output_tables import Index

_BUSY_TIMEOUT_S = 30.0
_TYPES = {
    "text": "TEXT",
    "bigint": "INTEGER",
    "integer": "INTEGER",
    "double": "REAL",
    "boolean": "INTEGER",
    "date": "TEXT",
    "json": "TEXT",
    "bytes": "BLOB",
}
_LATER = {
    sqlite3.SQLITE_BUSY: "another process has been writing for too long",
    sqlite3.SQLITE_LOCKED: "another connection has been writing for too long",
    sqlite3.SQLITE_FULL: "free some space on the disk",
    sqlite3.SQLITE_IOERR: "make room, or look at the disk and at the system's log",
    sqlite3.SQLITE_NOMEM: "free some memory",
    sqlite3.SQLITE_PROTOCOL: "another process has been writing for too long",
}
_NEVER = {
    sqlite3.SQLITE_CANTOPEN: "check that the folder is there and may be written",
    sqlite3.SQLITE_READONLY: "check the permissions of the file and its folder",
    sqlite3.SQLITE_PERM: "check the permissions of the file and its folder",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore a copy, or move it away and replay the events",
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database: name another one",
}


class SqliteDatabase:
    """A database file (database.Database); made with its folder when it is not there.

    busy_timeout_s: how long to wait for another writer.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = _BUSY_TIMEOUT_S) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._prepared: tuple[TableShape, ...] = ()

    def prepare(self, tables: Sequence[TableShape]) -> None:
        """Make what is not there (database.Database)."""
        with self._errors_mapped():
            connection = self._connected()
            if self._prepared == tuple(tables):
                return
            with _transaction(connection):
                for table in tables:
                    _make(connection, table)
            self._prepared = tuple(tables)

    def recorded(self) -> str | None:
        """The record of whose the rows are (database.Database)."""
        if self._connection is None and not self._path.exists():
            return None
        with self._errors_mapped():
            connection = self._connected()
            there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (PIPELINE,)).fetchone()
            return SqliteTransaction(connection).recorded() if there is not None else None

    @contextmanager
    def transaction(self) -> Iterator["SqliteTransaction"]:
        """One transaction (database.Database)."""
        with self._errors_mapped():
            connection = self._connected()
            with _transaction(connection):
                yield SqliteTransaction(connection)

    def close(self) -> None:
        """Disconnect."""
        connection, self._connection, self._prepared = self._connection, None, ()
        if connection is not None:
            connection.close()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None:
            self._check_in_place()
            return self._connection
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            file = self._path.stat()
        except BaseException:
            connection.close()
            raise
        self._connection, self._inode = connection, (file.st_dev, file.st_ino)
        return connection

    def _check_in_place(self) -> None:
        """A file that was removed still takes writes from those who have it open, and nobody would see them."""
        try:
            file = self._path.stat()
        except FileNotFoundError:
            file = None
        if file is None or (file.st_dev, file.st_ino) != self._inode:
            raise OutputError(
                "the database file was removed or replaced while it was written",
                detail=str(self._path),
                hint="bring it back, or remove the engine's state as well and replay the events",
            )

    @contextmanager
    def _errors_mapped(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            failure = self._failure(error)
            if isinstance(failure, UnavailableError):
                self.close()
            raise failure from error

    def _failure(self, error: sqlite3.Error | OSError) -> SessionizeError:
        if isinstance(error, OSError):
            code = sqlite3.SQLITE_IOERR if is_transient(error) else sqlite3.SQLITE_CANTOPEN
        else:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        detail = f"{self._path}: {error}"
        if code in _LATER:
            return UnavailableError("the store cannot be written now", detail=detail, hint=_LATER[code])
        hint = _NEVER.get(code, "check that the path is right and that the tables are as sessionize makes them")
        return OutputError("the store cannot be written", detail=detail, hint=hint)


class SqliteTransaction:
    """The transaction that the connection is in (database.Transaction)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def last_epoch(self, writer: str) -> tuple[int, str]:
        """The writer's last epoch; the whole database is locked already."""
        found = self._connection.execute(f"SELECT epoch, plan FROM {EPOCHS} WHERE writer = ?", (writer,)).fetchone()
        return (0, "") if found is None else (int(found[0]), str(found[1]))

    def record_epoch(self, epoch: EpochId) -> None:
        """Keep the epoch as the writer's last."""
        self._connection.execute(
            f"INSERT OR REPLACE INTO {EPOCHS} (writer, epoch, plan, written_at_ms) VALUES (?, ?, ?, ?)",
            (epoch.writer, epoch.number, epoch.plan, _now_ms()),
        )

    def take_token(self, token: str) -> bool:
        """Whether the token is new."""
        done = self._connection.execute(
            f"INSERT OR IGNORE INTO {REPLACEMENTS} (token, written_at_ms) VALUES (?, ?)", (token, _now_ms())
        )
        return done.rowcount == 1

    def hold_record(self) -> None:
        """Nothing to do: the whole database is locked already."""

    def recorded(self) -> str | None:
        """The record of whose the rows are."""
        found = self._connection.execute(f"SELECT spec FROM {PIPELINE}").fetchone()
        return None if found is None or found[0] is None else str(found[0])

    def record(self, text: str) -> None:
        """Keep the record."""
        self._connection.execute(f"INSERT OR REPLACE INTO {PIPELINE} (one, spec) VALUES (1, ?)", (text,))

    def has_rows(self, tables: Sequence[TableShape]) -> bool:
        """Whether any of these tables has a row."""
        there = {row[0] for row in self._connection.execute("SELECT name FROM sqlite_master")}
        queries = (f"SELECT 1 FROM {quoted(table.name)} LIMIT 1" for table in tables if table.name in there)
        return any(self._connection.execute(query).fetchone() is not None for query in queries)

    def put(self, table: TableShape, rows: pa.Table) -> None:
        """Add or update rows, one statement for all of them."""
        names = [quoted(name) for name in rows.column_names]
        marks = ", ".join("?" * len(names))
        statement = f"INSERT INTO {quoted(table.name)} ({', '.join(names)}) VALUES ({marks})"
        if table.key:
            updates = ", ".join(f"{quoted(n)} = excluded.{quoted(n)}" for n in rows.column_names if n not in table.key)
            action = f"UPDATE SET {updates}" if updates else "NOTHING"
            statement += f" ON CONFLICT ({', '.join(map(quoted, table.key))}) DO {action}"
        self._connection.executemany(statement, _tuples(rows))

    def remove(self, table: TableShape, keys: pa.Table) -> None:
        """Remove rows by their keys."""
        condition = " AND ".join(f"{quoted(name)} = ?" for name in keys.column_names)
        self._connection.executemany(f"DELETE FROM {quoted(table.name)} WHERE {condition}", _tuples(keys))


def quoted(name: str) -> str:
    """An identifier in SQL; SQLite has no function of its own for it outside SQL."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _make(connection: sqlite3.Connection, table: TableShape) -> None:
    there = {row[1] for row in connection.execute(f"PRAGMA table_info({quoted(table.name)})")}
    if not there:
        parts = [_declared(column) for column in table.columns]
        if table.key:
            parts.append(f"PRIMARY KEY ({', '.join(map(quoted, table.key))})")
        connection.execute(f"CREATE TABLE {quoted(table.name)} ({', '.join(parts)})")
    for column in table.columns:
        if there and column.name not in there:
            _check_addable(table, column, there)
            connection.execute(f"ALTER TABLE {quoted(table.name)} ADD COLUMN {_declared(column)}")
    for index in table.indexes:
        connection.execute(_index(table, index))


def _check_addable(table: TableShape, column: Column, there: set[str]) -> None:
    if column.name in table.key or (column.required and not column.zero):
        raise OutputError(
            "a table of the store is not as sessionize makes it",
            detail=f"table {table.name} has no column {column.name!r}, but {', '.join(sorted(there))}",
            hint="another pipeline calls the user otherwise: give this one a store of its own",
        )


def _declared(column: Column) -> str:
    required = " NOT NULL" if column.required else ""
    return f"{quoted(column.name)} {_TYPES[column.kind]}{required}{' DEFAULT 0' if column.zero else ''}"


def _index(table: TableShape, index: Index) -> str:
    columns = ", ".join(quoted(name) + (" DESC" if falling else "") for name, falling in index.columns)
    where = f" WHERE {quoted(index.where)}" if index.where is not None else ""
    return f"CREATE INDEX IF NOT EXISTS {quoted(index.name)} ON {quoted(table.name)} ({columns}){where}"


def _tuples(rows: pa.Table) -> Iterator[tuple[object, ...]]:
    columns = [pc.cast(c, pa.string()) if pa.types.is_date(c.type) else c for c in rows.columns]
    for batch in pa.Table.from_arrays(columns, names=rows.column_names).to_batches(max_chunksize=10_000):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
