"""Databases that run a query over events for real, and give its rows as plain values."""

import json
import subprocess
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from sessionize.testing.services.postgres import PostgresServer

Row = dict[str, Any]
# The Python of dbt and ClickHouse: `scripts/setup sql` makes it.
PYTHON = Path(__file__).parents[2] / ".venv-sql" / "bin" / "python"


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
        self.folder = folder
        command = [PYTHON, str(Path(__file__).with_name("clickhouse_process.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def load(self, table: str, events: pa.Table) -> None:
        path = self.folder / "events.parquet"
        pq.write_table(events, path)
        self._answer(f"DROP TABLE IF EXISTS {quoted(table)}")
        self._answer(f"CREATE TABLE {quoted(table)} ENGINE = Memory AS SELECT * FROM file('{path}', Parquet)")

    def run(self, statement: str) -> None:
        self._answer(statement)

    def rows(self, query: str) -> list[Row]:
        found = self._answer(query, "Arrow")
        return as_dicts(pa.ipc.open_file(pa.py_buffer(found)).read_all()) if found else []

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _answer(self, query: str, form: str = "CSV") -> bytes:
        """Errors: RuntimeError with what ClickHouse says."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"query": query, "format": form}).encode() + b"\n")
        self._process.stdin.flush()
        word, _, size = self._process.stdout.readline().decode().partition(" ")
        answer = self._process.stdout.read(int(size)) if size else b"ClickHouse has ended"
        if word != "ok":
            raise RuntimeError(answer.decode(errors="replace"))
        return answer


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def as_dicts(table: pa.Table) -> list[Row]:
    maps = [field.name for field in table.schema if pa.types.is_map(field.type)]
    rows = table.to_pylist()
    for row in rows:
        row |= {name: dict(row[name]) for name in maps}
    return rows
