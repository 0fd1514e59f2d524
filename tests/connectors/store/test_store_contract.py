"""Both databases do what every epoch sink has to do."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from sessionize.connectors.store import LATE_EVENTS, REJECTED_EVENTS, USER_SESSIONS, StoreSink, stored_text
from sessionize.connectors.store.postgres import Login, PostgresDatabase
from sessionize.connectors.store.sqlite import SqliteDatabase
from sessionize.testing.epoch_sinks import (
    EPOCH_CHECKS,
    LATE,
    OUTAGE_CHECKS,
    REJECTED,
    REPLACE_CHECKS,
    SESSIONS,
    SinkUnderTest,
    check_name,
)
from sessionize.testing.services.postgres import PostgresServer

TABLES = {SESSIONS: USER_SESSIONS, LATE: LATE_EVENTS, REJECTED: REJECTED_EVENTS}
Check = Callable[[SinkUnderTest], None]


@pytest.fixture
def in_postgres(postgres: PostgresServer, schema: str, password_env: str) -> SinkUnderTest:
    login = Login(dsn=postgres.dsn, password_env=password_env)

    def visible(table: str) -> list[dict[str, Any]]:
        with postgres.connect() as connection:
            rows = connection.cursor(row_factory=psycopg.rows.dict_row)
            return rows.execute(SQL("SELECT * FROM {}").format(Identifier(schema, TABLES[table]))).fetchall()

    return SinkUnderTest(
        make=lambda: StoreSink(PostgresDatabase(login, schema=schema)),
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
            rows = [dict(row) for row in connection.execute(f"SELECT * FROM {TABLES[table]}")]
        for row in rows:
            for name in ("pages_visited", "events_by_type"):
                row[name] = json.loads(row[name]) if row.get(name) is not None else None
        return rows

    return SinkUnderTest(make=lambda: StoreSink(SqliteDatabase(path)), visible=visible, text=stored_text)


@pytest.mark.parametrize("check", [*EPOCH_CHECKS, *REPLACE_CHECKS], ids=check_name)
def test_sqlite(check: Check, in_sqlite: SinkUnderTest) -> None:
    check(in_sqlite)


@pytest.mark.parametrize("check", [*EPOCH_CHECKS, *REPLACE_CHECKS, *OUTAGE_CHECKS], ids=check_name)
def test_postgres(check: Check, in_postgres: SinkUnderTest) -> None:
    check(in_postgres)
