"""Killed writers, servers that stop, and connections cut around COMMIT: every epoch is there once."""

import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from sessionize.connectors.sql_store import StoreSink
from sessionize.connectors.sql_store.postgres import Login, PostgresDatabase
from sessionize.errors import UnavailableError
from sessionize.testing.epoch_sinks import epoch_id, epoch_rows
from sessionize.testing.services.postgres import PostgresServer
from sessionize.testing.services.proxy import CuttingProxy

EPOCHS = 60
USERS = 200
KILLS = 5
TIMEOUT_S = 60

# Writes epochs as an engine does: the last one it knows of is repeated, an outage is waited for.
WRITER = """
import sys, time
from pathlib import Path
from sessionize.connectors.sql_store import StoreSink
from sessionize.connectors.sql_store.postgres import Login, PostgresDatabase
from sessionize.connectors.sql_store.sqlite import SqliteDatabase
from sessionize.errors import UnavailableError
from sessionize.testing.epoch_sinks import epoch_id, epoch_rows

kind, place, schema, first, last, users = sys.argv[1], *sys.argv[2:4], *map(int, sys.argv[4:7])
if kind == "sqlite":
    database = SqliteDatabase(Path(place))
else:
    database = PostgresDatabase(Login(dsn=place, password_env="SESSIONIZE_TEST_PASSWORD"), schema=schema)
sink = StoreSink(database)
until = time.monotonic() + 60
for number in range(first, last + 1):
    while True:
        try:
            sink.write_epoch(epoch_id(number), epoch_rows(number, [f"user {i}" for i in range(users)]))
            break
        except UnavailableError:
            if time.monotonic() > until:
                raise
    print(number, flush=True)
"""


class Writer:
    """A process that writes epochs from `first` to the last."""

    def __init__(self, kind: str, place: str, schema: str, first: int) -> None:
        arguments = [kind, place, schema, str(first), str(EPOCHS), str(USERS)]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True
        )

    def wait_for_an_epoch(self) -> int | None:
        """The next epoch that it says it wrote, None when it is done."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return int(line) if line else None

    def kill_within(self, longest_s: float) -> int | None:
        """Kill it at some moment; the last epoch that it said it wrote."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(random.uniform(0, longest_s))
        self.process.kill()
        told, _ = self.process.communicate(timeout=TIMEOUT_S)
        # The last line may be half a number.
        return int(told.split()[-2]) if len(told.split()) > 1 else None

    def finish(self) -> None:
        """Let it write the rest."""
        self.process.communicate(timeout=TIMEOUT_S)
        assert self.process.returncode == 0


def postgres_counts(postgres: PostgresServer, schema: str) -> list[tuple[int, int]]:
    """Rows, and different (user, time), of sessions and of late events."""
    query = SQL(
        'SELECT count(*), count(DISTINCT ("user", session_id)) FROM {0}.user_sessions UNION ALL '
        'SELECT count(*), count(DISTINCT ("user", event_time_ms)) FROM {0}.late_events UNION ALL '
        "SELECT count(*), count(DISTINCT raw) FROM {0}.rejected_events"
    ).format(Identifier(schema))
    with postgres.connect() as connection:
        return [(int(str(rows)), int(str(different))) for rows, different in connection.execute(query)]


def sqlite_counts(path: Path) -> list[tuple[int, int]]:
    query = (
        'SELECT count(*), count(DISTINCT "user" || session_id) FROM user_sessions UNION ALL '
        'SELECT count(*), count(DISTINCT "user" || event_time_ms) FROM late_events UNION ALL '
        "SELECT count(*), count(DISTINCT raw) FROM rejected_events"
    )
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


ALL = [(EPOCHS * USERS, EPOCHS * USERS), (EPOCHS * USERS, EPOCHS * USERS), (EPOCHS * 2, EPOCHS + 1)]


def kill_often(kind: str, place: str, schema: str) -> None:
    first = 1
    for _ in range(KILLS):
        writer = Writer(kind, place, schema, first)
        first = writer.wait_for_an_epoch() or EPOCHS
        first = writer.kill_within(0.15) or first
    Writer(kind, place, schema, first).finish()


def test_a_postgres_writer_killed_at_any_moment(postgres: PostgresServer, schema: str, password_env: str) -> None:
    kill_often("postgres", postgres.dsn, schema)
    assert postgres_counts(postgres, schema) == ALL


def test_a_sqlite_writer_killed_at_any_moment(tmp_path: Path) -> None:
    kill_often("sqlite", str(tmp_path / "store.db"), "")
    assert sqlite_counts(tmp_path / "store.db") == ALL


def test_a_server_that_stops_and_starts_while_it_is_written(
    postgres: PostgresServer, schema: str, password_env: str
) -> None:
    writer = Writer("postgres", postgres.dsn, schema, 1)
    for _ in range(3):
        assert writer.wait_for_an_epoch() is not None
        postgres.restart()
    writer.finish()
    assert postgres_counts(postgres, schema) == ALL


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[CuttingProxy]:
    with closing(CuttingProxy(postgres.port)) as proxy:
        yield proxy


@pytest.mark.parametrize("answered", [True, False], ids=["after the server's answer", "before the server has it"])
@pytest.mark.parametrize("call", ["write_epoch", "replace"])
def test_a_connection_cut_around_commit(
    postgres: PostgresServer, proxy: CuttingProxy, schema: str, password_env: str, call: str, answered: bool
) -> None:
    dsn = psycopg.conninfo.make_conninfo(postgres.dsn, port=proxy.port)
    database = PostgresDatabase(Login(dsn=dsn, password_env=password_env), schema=schema)
    rows, none = epoch_rows(2, ["a", "b"]), epoch_rows(2, []).tables["user_sessions"]
    with closing(StoreSink(database)) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1, ["a", "b"]))
        before = postgres_counts(postgres, schema)
        calls: dict[str, Callable[[], None]] = {
            "write_epoch": lambda: sink.write_epoch(epoch_id(2), rows),
            "replace": lambda: sink.replace(none, rows.tables["user_sessions"], token="t"),
        }
        proxy.answered, proxy.armed = answered, True
        with pytest.raises(UnavailableError):
            calls[call]()
        assert proxy.cuts == 1
        after = {"write_epoch": [(4, 4), (4, 4), (4, 3)], "replace": [(4, 4), (2, 2), (2, 2)]}[call]
        assert postgres_counts(postgres, schema) == (after if answered else before)

        calls[call]()
        assert postgres_counts(postgres, schema) == after
