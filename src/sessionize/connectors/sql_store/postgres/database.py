"""PostgreSQL as the store: COPY into a temporary table, one upsert from it, and the epoch, in one transaction.

Whether a COMMIT whose answer got lost took place is never guessed: the next connection finds the epoch, or does not. It
waits for the writer's row in sessionize_epochs, so a transaction that the server is still ending is seen as well.
"""

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import LiteralString

import pyarrow as pa
import pyarrow.csv as pcsv

from sessionize.errors import MissingExtraError, OutputError, UnavailableError
from sessionize.ports import EpochId

try:
    import psycopg
    from psycopg.sql import SQL, Composed, Identifier
except ModuleNotFoundError as missing:
    raise MissingExtraError("psycopg", "postgres", "writing to PostgreSQL") from missing

from sessionize.connectors.sql_store.postgres.errors import failure_of
from sessionize.connectors.sql_store.postgres.settings import Login
from sessionize.connectors.sql_store.tables import (
    EPOCHS,
    NAME_BYTES_MAX,
    PIPELINE,
    REPLACEMENTS,
    Column,
    TableShape,
)
from sessionize.session.output_tables import Index

# All writers make tables under this lock: two that make the same one at once would fail, IF NOT EXISTS or not.
_MAKING_LOCK = 0x5E55_1012
_INCOMING = "sessionize_incoming"
_COPY_ROWS = 20_000
_TYPES: dict[str, LiteralString] = {
    "text": "text",
    "bigint": "bigint",
    "integer": "integer",
    "double": "double precision",
    "boolean": "boolean",
    "date": "date",
    "json": "jsonb",
    "bytes": "bytea",
}
# A writer that vanished must not keep others waiting, nor a reader that never ends; and a commit has to be durable.
_SETTINGS: tuple[LiteralString, ...] = (
    "SET lock_timeout = '30s'",
    "SET idle_in_transaction_session_timeout = '60s'",
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
)

Connection = psycopg.Connection[tuple[object, ...]]


class PostgresDatabase:
    """A PostgreSQL database (database.Database).

    login: where it is, and who we are. schema: the schema of the tables, made when it is not there; the first of the
    search path when None. The view user_sessions_timed, of a table with clock_times, shows the times as timestamps too.
    """

    def __init__(self, login: Login, *, schema: str | None = None) -> None:
        self._login = login
        self._schema = schema
        self._connection: Connection | None = None
        self._prepared: tuple[TableShape, ...] = ()

    def prepare(self, tables: Sequence[TableShape]) -> None:
        """Make what is not there (database.Database); a role that may not make anything finds all made."""
        with self._errors_mapped():
            connection = self._connected()
            if self._prepared == tuple(tables):
                return
            if any(self._lacking(connection, table) for table in tables):
                with connection.transaction():
                    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MAKING_LOCK,))
                    self._make_all(connection, tables)
            for table in tables:
                if table.removed_by:
                    _make_incoming(connection, table)
            self._prepared = tuple(tables)

    def recorded(self) -> str | None:
        """The record of whose the rows are (database.Database)."""
        with self._errors_mapped():
            connection = self._connected()
            transaction = PostgresTransaction(connection, self._schema)
            return transaction.recorded() if transaction.is_there(PIPELINE) else None

    @contextmanager
    def transaction(self) -> Iterator["PostgresTransaction"]:
        """One transaction (database.Database)."""
        with self._errors_mapped():
            connection = self._connected()
            with connection.transaction():
                yield PostgresTransaction(connection, self._schema)

    def close(self) -> None:
        """Disconnect."""
        connection, self._connection, self._prepared = self._connection, None, ()
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        self.close()
        connection = self._login.connect()
        try:
            encoding = connection.info.parameter_status("server_encoding")
            if encoding != "UTF8":
                raise OutputError(
                    "the database cannot hold every character",
                    detail=f"{self._login}: its encoding is {encoding}",
                    hint="use a database that was made with the encoding UTF8",
                )
            for setting in _SETTINGS:
                connection.execute(setting)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    @contextmanager
    def _errors_mapped(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            failure = failure_of(error, str(self._login))
            if isinstance(failure, UnavailableError):
                self.close()
            raise failure from error

    def _lacking(self, connection: Connection, table: TableShape) -> list[Column]:
        too_long = [name for name in table.column_names if len(name.encode()) > NAME_BYTES_MAX]
        if too_long:
            raise OutputError(
                "a column's name is too long for PostgreSQL",
                detail=f"column {too_long[0]!r}, at most {NAME_BYTES_MAX} bytes are allowed",
                hint="rename the column, or leave it out",
            )
        there = self._columns(connection, table)
        return [column for column in table.columns if column.name not in there]

    def _columns(self, connection: Connection, table: TableShape) -> set[str]:
        found = connection.execute(
            "SELECT attname::text FROM pg_attribute"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            (_named(self._schema, table.name).as_string(connection),),
        )
        return {str(row[0]) for row in found}

    def _make_all(self, connection: Connection, tables: Sequence[TableShape]) -> None:
        if self._schema is not None:
            there = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (self._schema,)).fetchone()
            if there is None:
                connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(self._schema)))
        for table in tables:
            there_now = self._columns(connection, table)
            lacking = self._lacking(connection, table)
            if not there_now:
                connection.execute(_creation(self._schema, table))
                for index in table.indexes:
                    connection.execute(_index(self._schema, table, index))
            else:
                for column in lacking:
                    self._add(connection, table, column, there_now)
            if lacking and table.clock_times:
                connection.execute(_timed_view(self._schema, table))

    def _add(self, connection: Connection, table: TableShape, column: Column, there: set[str]) -> None:
        if column.name in table.key or (column.required and not column.zero):
            raise OutputError(
                "a table of the store is not as sessionize makes it",
                detail=f"table {table.name} has no column {column.name!r}, but {', '.join(sorted(there))}",
                hint="another pipeline calls the user otherwise: give this one a schema of its own",
            )
        statement = SQL("ALTER TABLE {} ADD COLUMN {}").format(_named(self._schema, table.name), _declared(column))
        connection.execute(statement)


class PostgresTransaction:
    """The transaction that the connection is in (database.Transaction)."""

    def __init__(self, connection: Connection, schema: str | None) -> None:
        self._connection = connection
        self._schema = schema

    def last_epoch(self, writer: str) -> tuple[int, str]:
        """The writer's last epoch. Its row is made and locked, so that another of this name waits until our end."""
        epochs = _named(self._schema, EPOCHS)
        self._connection.execute(
            SQL(
                "INSERT INTO {} (writer, epoch, plan, written_at_ms) VALUES (%s, 0, '', 0) ON CONFLICT DO NOTHING"
            ).format(epochs),
            (writer,),
        )
        query = SQL("SELECT epoch, plan FROM {} WHERE writer = %s FOR UPDATE").format(epochs)
        found = self._connection.execute(query, (writer,)).fetchone()
        return (0, "") if found is None else (int(str(found[0])), str(found[1]))

    def record_epoch(self, epoch: EpochId) -> None:
        """Keep the epoch as the writer's last."""
        self._connection.execute(
            SQL("UPDATE {} SET epoch = %s, plan = %s, written_at_ms = %s WHERE writer = %s").format(
                _named(self._schema, EPOCHS)
            ),
            (epoch.number, epoch.plan, _now_ms(), epoch.writer),
        )

    def take_token(self, token: str) -> bool:
        """Whether the token is new; another one who takes it waits until our end."""
        done = self._connection.execute(
            SQL("INSERT INTO {} (token, written_at_ms) VALUES (%s, %s) ON CONFLICT DO NOTHING").format(
                _named(self._schema, REPLACEMENTS)
            ),
            (token, _now_ms()),
        )
        return done.rowcount == 1

    def hold_record(self) -> None:
        """Make and lock the row of the record."""
        table = _named(self._schema, PIPELINE)
        self._connection.execute(SQL("INSERT INTO {} (one) VALUES (1) ON CONFLICT DO NOTHING").format(table))
        self._connection.execute(SQL("SELECT one FROM {} FOR UPDATE").format(table))

    def recorded(self) -> str | None:
        """The record of whose the rows are."""
        query = SQL("SELECT spec FROM {}").format(_named(self._schema, PIPELINE))
        found = self._connection.execute(query).fetchone()
        return None if found is None or found[0] is None else str(found[0])

    def record(self, text: str) -> None:
        """Keep the record."""
        statement = SQL("UPDATE {} SET spec = %s").format(_named(self._schema, PIPELINE))
        self._connection.execute(statement, (text,))

    def has_rows(self, tables: Sequence[TableShape]) -> bool:
        """Whether any of these tables has a row."""
        names = [_named(self._schema, table.name) for table in tables if self.is_there(table.name)]
        queries = (SQL("SELECT 1 FROM {} LIMIT 1").format(name) for name in names)
        return any(self._connection.execute(query).fetchone() is not None for query in queries)

    def is_there(self, table: str) -> bool:
        """Whether there is such a table."""
        name = _named(self._schema, table).as_string(self._connection)
        return self._connection.execute("SELECT to_regclass(%s)", (name,)).fetchone() != (None,)

    def put(self, table: TableShape, rows: pa.Table) -> None:
        """Copy rows in; with a key, by way of the temporary table."""
        if not table.key:
            self._copy(_named(self._schema, table.name), rows)
            return
        incoming = Identifier("pg_temp", f"{_INCOMING}_{table.name}")
        self._copy(incoming, rows)
        updated = [name for name in rows.column_names if name not in table.key]
        columns = SQL(", ").join(map(Identifier, rows.column_names))
        sets = SQL(", ").join(SQL("{0} = excluded.{0}").format(Identifier(name)) for name in updated)
        statement = SQL("INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT ({}) DO {}").format(
            _named(self._schema, table.name),
            columns,
            columns,
            incoming,
            SQL(", ").join(map(Identifier, table.key)),
            SQL("UPDATE SET {}").format(sets) if updated else SQL("NOTHING"),
        )
        self._connection.execute(statement, prepare=True)
        self._connection.execute(SQL("TRUNCATE {}").format(incoming))

    def remove(self, table: TableShape, keys: pa.Table) -> None:
        """Remove rows by their keys, by way of the temporary table."""
        incoming = Identifier("pg_temp", f"{_INCOMING}_{table.name}")
        self._copy(incoming, keys)
        same = SQL(" AND ").join(SQL("old.{0} = gone.{0}").format(Identifier(name)) for name in keys.column_names)
        statement = SQL("DELETE FROM {} AS old USING {} AS gone WHERE {}").format(
            _named(self._schema, table.name), incoming, same
        )
        self._connection.execute(statement, prepare=True)
        self._connection.execute(SQL("TRUNCATE {}").format(incoming))

    def _copy(self, target: Identifier, rows: pa.Table) -> None:
        columns = SQL(", ").join(map(Identifier, rows.column_names))
        statement = SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(target, columns)
        # Everything that is not null is quoted: a null is then what is not.
        options = pcsv.WriteOptions(include_header=False, quoting_style="all_valid")
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for start in range(0, rows.num_rows, _COPY_ROWS):
                text = io.BytesIO()
                pcsv.write_csv(_in_text_form(rows.slice(start, _COPY_ROWS)), text, options)
                copy.write(text.getbuffer())


def _in_text_form(rows: pa.Table) -> pa.Table:
    """Bytes as PostgreSQL reads them from text."""
    for at, field in enumerate(rows.schema):
        if pa.types.is_binary(field.type):
            texts = [None if value is None else "\\x" + value.hex() for value in rows[field.name].to_pylist()]
            rows = rows.set_column(at, field.name, pa.array(texts, pa.string()))
    return rows


def _named(schema: str | None, table: str) -> Identifier:
    return Identifier(table) if schema is None else Identifier(schema, table)


def _declared(column: Column) -> Composed:
    parts = SQL("{} {}").format(Identifier(column.name), SQL(_TYPES[column.kind]))
    if column.required:
        parts += SQL(" NOT NULL")
    return parts + SQL(" DEFAULT 0") if column.zero else parts


def _creation(schema: str | None, table: TableShape) -> Composed:
    parts = [_declared(column) for column in table.columns]
    if table.key:
        parts.append(SQL("PRIMARY KEY ({})").format(SQL(", ").join(map(Identifier, table.key))))
    return SQL("CREATE TABLE {} ({})").format(_named(schema, table.name), SQL(", ").join(parts))


def _index(schema: str | None, table: TableShape, index: Index) -> Composed:
    columns = SQL(", ").join(
        SQL("{} DESC").format(Identifier(name)) if falling else Identifier(name) for name, falling in index.columns
    )
    statement = SQL("CREATE INDEX {} ON {} ({})").format(Identifier(index.name), _named(schema, table.name), columns)
    return statement if index.where is None else statement + SQL(" WHERE {}").format(Identifier(index.where))


def _timed_view(schema: str | None, table: TableShape) -> Composed:
    times = SQL("").join(
        SQL("to_timestamp({} / 1000.0) AS {}, ").format(Identifier(name), Identifier(shown))
        for name, shown in table.clock_times
    )
    return SQL("CREATE OR REPLACE VIEW {} AS SELECT {}kept.* FROM {} AS kept").format(
        _named(schema, f"{table.name}_timed"), times, _named(schema, table.name)
    )


def _make_incoming(connection: Connection, table: TableShape) -> None:
    """Where rows land before they are put in their places; private to the connection, and empty after each commit."""
    name = Identifier("pg_temp", f"{_INCOMING}_{table.name}")
    columns = SQL(", ").join(SQL("{} {}").format(Identifier(c.name), SQL(_TYPES[c.kind])) for c in table.columns)
    with connection.transaction():
        connection.execute(SQL("DROP TABLE IF EXISTS {}").format(name))
        connection.execute(SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DELETE ROWS").format(name, columns))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
