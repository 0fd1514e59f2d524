"""Databases that run a query over events for real, and give its rows as plain values."""

from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from sessionize.testing.services.postgres import PostgresServer

Row = dict[str, Any]


class Engine(Protocol):
    """name: of the dialect. load replaces the table of this name."""

    name: str

    def load(self, table: str, events: pa.Table) -> None: ...

    def run(self, statement: str) -> None: ...

    def rows(self, query: str) -> list[Row]: ...


class DuckDB:
    name = "duckdb"

    def __init__(self) -> None:
        self.connection = duckdb.connect(config={"threads": 1})

    def load(self, table: str, events: pa.Table) -> None:
        self.connection.register("loaded", events)
        self.connection.execute(f"CREATE OR REPLACE TABLE {quoted(table)} AS FROM loaded")

    def run(self, statement: str) -> None:
        self.connection.execute(statement)

    def rows(self, query: str) -> list[Row]:
        return as_dicts(self.connection.sql(query).to_arrow_table())


class Postgres:
    name = "postgres"

    def __init__(self, server: PostgresServer) -> None:
        self.connection = server.connect()
        self.connection.execute("SET jit = off")

    def load(self, table: str, events: pa.Table) -> None:
        kinds = {pa.int64(): "BIGINT", pa.float64(): "DOUBLE PRECISION", pa.timestamp("us"): "TIMESTAMP"}
        columns = ", ".join(f"{quoted(f.name)} {kinds.get(f.type, 'TEXT')}" for f in events.schema)
        self.connection.execute(f"DROP TABLE IF EXISTS {quoted(table)}")
        self.connection.execute(f"CREATE TABLE {quoted(table)} ({columns})")
        with self.connection.cursor() as cursor, cursor.copy(f"COPY {quoted(table)} FROM STDIN") as copy:
            for row in events.to_pylist():
                copy.write_row(tuple(row.values()))

    def run(self, statement: str) -> None:
        self.connection.execute(statement)

    def rows(self, query: str) -> list[Row]:
        found = self.connection.execute(query)
        names = [each.name for each in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


class ClickHouse:
    name = "clickhouse"

    def __init__(self, folder: Path) -> None:
        from chdb.session import Session

        self.session, self.folder = Session(), folder

    def load(self, table: str, events: pa.Table) -> None:
        path = self.folder / "events.parquet"
        pq.write_table(events, path)
        self.session.query(f"DROP TABLE IF EXISTS {quoted(table)}")
        self.session.query(f"CREATE TABLE {quoted(table)} ENGINE = Memory AS SELECT * FROM file('{path}', Parquet)")

    def run(self, statement: str) -> None:
        self.session.query(statement)

    def rows(self, query: str) -> list[Row]:
        found = self.session.query(query, "Arrow")
        return as_dicts(pa.ipc.open_file(pa.py_buffer(found.bytes())).read_all()) if len(found.bytes()) else []


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def as_dicts(table: pa.Table) -> list[Row]:
    maps = [field.name for field in table.schema if pa.types.is_map(field.type)]
    rows = table.to_pylist()
    for row in rows:
        row |= {name: dict(row[name]) for name in maps}
    return rows
