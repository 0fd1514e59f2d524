"""Both databases do what every epoch sink has to do."""

import json
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from psycopg.sql import SQL, Identifier

from sessionize.connectors.sql_store import LATE_EVENTS, REJECTED_EVENTS, StoreSink, stored_text
from sessionize.connectors.sql_store.database import Database
from sessionize.connectors.sql_store.epoch_sink import DESTINATIONS
from sessionize.connectors.sql_store.postgres import Login, PostgresDatabase
from sessionize.connectors.sql_store.sqlite import SqliteDatabase
from sessionize.testing.epoch_sinks import (
    EPOCH_CHECKS,
    OUTAGE_CHECKS,
    REPLACE_CHECKS,
    SinkUnderTest,
    check_name,
    epoch_id,
    epoch_rows,
    events,
)
from sessionize.testing.further_tables import FURTHER_CHECKS, FURTHER_TABLES
from sessionize.testing.services.postgres import PostgresServer

Check = Callable[[SinkUnderTest], None]


@pytest.fixture
def in_postgres(postgres: PostgresServer, schema: str, password_env: str) -> SinkUnderTest:
    login = Login(dsn=postgres.dsn, password_env=password_env)

    def visible(table: str) -> list[dict[str, Any]]:
        with postgres.connect() as connection:
            rows = connection.cursor(row_factory=psycopg.rows.dict_row)
            return rows.execute(SQL("SELECT * FROM {}").format(Identifier(schema, table))).fetchall()

    return SinkUnderTest(
        make=lambda: StoreSink(PostgresDatabase(login, schema=schema)),
        make_further=lambda tables: further(PostgresDatabase(login, schema=schema), tables),
        updates=True,
        visible=visible,
        text=stored_text,
        away=postgres.stop,
        back=postgres.start,
    )


@pytest.fixture
def in_sqlite(tmp_path: Path) -> SinkUnderTest:
    path = tmp_path / "home" / "store.db"

    def visible(table: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
        for row in rows:
            for name in ("pages_visited", "events_by_type"):
                row[name] = json.loads(row[name]) if row.get(name) is not None else None
        return rows

    return SinkUnderTest(
        make=lambda: StoreSink(SqliteDatabase(path)),
        visible=visible,
        text=stored_text,
        make_further=lambda tables: further(SqliteDatabase(path), tables),
        updates=True,
    )


def further(database: Database, tables: Sequence[str]) -> StoreSink:
    return StoreSink(database, destinations={**DESTINATIONS, **{name: name for name in tables}}, specs=FURTHER_TABLES)


@pytest.mark.parametrize("check", [*EPOCH_CHECKS, *REPLACE_CHECKS, *FURTHER_CHECKS], ids=check_name)
def test_sqlite(check: Check, in_sqlite: SinkUnderTest) -> None:
    check(in_sqlite)


@pytest.mark.parametrize("check", [*EPOCH_CHECKS, *REPLACE_CHECKS, *FURTHER_CHECKS, *OUTAGE_CHECKS], ids=check_name)
def test_postgres(check: Check, in_postgres: SinkUnderTest) -> None:
    check(in_postgres)


def brought_back(place: SinkUnderTest) -> None:
    """Of the records that are named, those that are there go, and their events come; once for each token."""
    rows, again = epoch_rows(1, ["a", "b"]), events(["c"], time_ms=7)
    with_field = again.append_column("colour", pa.array(["red"]))
    first = rows.tables["rejected_events"].slice(0, 1).drop_columns(["detail"])
    nowhere = pa.Table.from_pylist([{**first.to_pylist()[0], "line_number": 99}], schema=first.schema)
    with closing(place.make()) as sink:
        assert isinstance(sink, StoreSink)
        sink.write_epoch(epoch_id(1), rows)
        for _ in range(2):
            sink.bring_back(pa.concat_tables([first, nowhere]), with_field, token="one")
    with closing(place.make()) as sink:
        assert isinstance(sink, StoreSink)
        sink.bring_back(first, with_field, token="one")
        sink.bring_back(first.slice(0, 0), again.slice(0, 0), token="nothing")
    left = rows.with_tables(
        {
            "rejected_events": rows.tables["rejected_events"].slice(1),
            "late_events": pa.concat_tables([rows.tables["late_events"], again]),
        }
    )
    place.shows(left)
    (late,) = [row for row in place.visible(LATE_EVENTS) if row["user"] == "c"]
    properties = late["properties"] if isinstance(late["properties"], dict) else json.loads(late["properties"])
    assert properties == {"a": 1, "colour": "red"}


def with_a_long_source(place: SinkUnderTest) -> None:
    """A path may have thousands of characters that nothing makes shorter."""
    rows = epoch_rows(1)
    source = "/".join(uuid.uuid4().hex for _ in range(120))
    records = rows.tables["rejected_events"].set_column(
        1, rows.tables["rejected_events"].schema.field("source"), pa.array([source] * 2)
    )
    rows = rows.with_tables({"rejected_events": records})
    with closing(place.make()) as sink:
        assert isinstance(sink, StoreSink)
        sink.write_epoch(epoch_id(1), rows)
        place.shows(rows)
        sink.bring_back(records.drop_columns(["detail"]), events([]), token="one")
    assert list(place.visible(REJECTED_EVENTS)) == []


def test_a_long_source_in_sqlite(in_sqlite: SinkUnderTest) -> None:
    with_a_long_source(in_sqlite)


def test_a_long_source_in_postgres(in_postgres: SinkUnderTest) -> None:
    with_a_long_source(in_postgres)


def test_records_that_are_brought_back_in_sqlite(in_sqlite: SinkUnderTest) -> None:
    brought_back(in_sqlite)


def test_records_that_are_brought_back_in_postgres(in_postgres: SinkUnderTest) -> None:
    brought_back(in_postgres)
