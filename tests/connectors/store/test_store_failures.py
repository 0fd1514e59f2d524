"""What the store says when it cannot be written: later, or never; and that it never shows a password."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from psycopg import errors
from psycopg.sql import SQL, Identifier

from sessionize.connectors.sql_store import StoreSink
from sessionize.connectors.sql_store.postgres import Login, PostgresDatabase
from sessionize.connectors.sql_store.postgres.errors import failure_of
from sessionize.connectors.sql_store.sqlite import SqliteDatabase
from sessionize.errors import ConfigError, OutputError, UnavailableError
from sessionize.testing.epoch_sinks import empty_rows, epoch_id, epoch_rows, sessions, with_revision
from sessionize.testing.services.postgres import PostgresServer

LATER = [
    *(errors.DiskFull, errors.TooManyConnections, errors.OutOfMemory, errors.DeadlockDetected, errors.IoError),
    *(errors.SerializationFailure, errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow),
    *(errors.LockNotAvailable, errors.ConnectionFailure, errors.ReadOnlySqlTransaction),
    *(errors.IdleInTransactionSessionTimeout, psycopg.OperationalError, psycopg.InterfaceError),
]
NEVER = [
    *(errors.InvalidPassword, errors.InsufficientPrivilege, errors.DatatypeMismatch, errors.UndefinedColumn),
    *(errors.NumericValueOutOfRange, errors.NotNullViolation, errors.InvalidCatalogName, psycopg.ProgrammingError),
]


@pytest.fixture
def login(postgres: PostgresServer, password_env: str) -> Login:
    return Login(dsn=postgres.dsn, password_env=password_env)


@pytest.fixture
def sink(login: Login, schema: str) -> Iterator[StoreSink]:
    with closing(StoreSink(PostgresDatabase(login, schema=schema))) as sink:
        yield sink


def count(postgres: PostgresServer, schema: str, table: str = "user_sessions") -> int:
    with postgres.connect() as connection:
        found = connection.execute(SQL("SELECT count(*) FROM {}").format(Identifier(schema, table))).fetchone()
    assert found is not None
    return int(str(found[0]))


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (("user=sessionize", "user=nobody_here"), "password"),
        (("dbname=postgres", "dbname=not_there"), "database"),
        (("127.0.0.1", "127.0.0.1 sslmode=require"), "sslmode"),
    ],
    ids=["no such user", "no such database", "no TLS"],
)
def test_a_login_that_stays_wrong(
    postgres: PostgresServer, password_env: str, change: tuple[str, str], hint: str
) -> None:
    login = Login(dsn=postgres.dsn.replace(*change), password_env=password_env)
    with closing(StoreSink(PostgresDatabase(login))) as sink, pytest.raises(OutputError) as caught:
        sink.write_epoch(epoch_id(1), epoch_rows(1))
    assert hint in str(caught.value.hint)
    assert postgres.password not in str(caught.value)


@pytest.mark.parametrize("password", ["a wrong one", None])
def test_a_wrong_password(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, password: str | None
) -> None:
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    file = None
    if password is not None:
        file = tmp_path / "password"
        file.write_text(password, encoding="utf-8")
    with closing(StoreSink(PostgresDatabase(Login(dsn=postgres.dsn, password_file=file)))) as sink:
        with pytest.raises(OutputError, match="does not let us in") as caught:
            sink.write_epoch(epoch_id(1), epoch_rows(1))
        assert "a wrong one" not in str(caught.value)
        assert "password" in str(caught.value.hint)


def test_the_driver_s_own_ways_to_give_a_password(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, schema: str
) -> None:
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    with closing(StoreSink(PostgresDatabase(Login(dsn=postgres.dsn), schema=schema))) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1))
    assert count(postgres, schema) == 2


def test_a_password_that_changes_is_read_again(postgres: PostgresServer, tmp_path: Path, schema: str) -> None:
    file = tmp_path / "password"
    file.write_text("old", encoding="utf-8")
    with closing(StoreSink(PostgresDatabase(Login(dsn=postgres.dsn, password_file=file), schema=schema))) as sink:
        with pytest.raises(OutputError):
            sink.write_epoch(epoch_id(1), epoch_rows(1))
        file.write_text(postgres.password + "\n", encoding="utf-8")
        sink.write_epoch(epoch_id(1), epoch_rows(1))
    assert count(postgres, schema) == 2


@pytest.mark.parametrize(
    "dsn",
    ["host=x password=hidden", "postgresql://u:hidden@x/db", "postgres//hidden@x", "hidden", "sslpassword=hidden"],
)
def test_addresses_with_passwords_or_without_sense(dsn: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Login(dsn=dsn)
    assert "hidden" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_places_of_passwords(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two places"):
        Login(password_env="A", password_file=tmp_path / "b")
    for login in (Login(password_env="NOT_SET_ANYWHERE"), Login(password_file=tmp_path / "b")):
        with pytest.raises(ConfigError, match="password for PostgreSQL"):
            login.connect()


def test_a_role_that_may_only_write(
    postgres: PostgresServer, sink: StoreSink, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs no right to make tables when they are there, and is told what it lacks when they are not."""
    role, name = Identifier(f"writer of {schema}"), Identifier(schema)
    monkeypatch.setenv("WRITER", "abc")
    with postgres.connect() as connection:
        connection.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'abc'").format(role))
        connection.execute(SQL("CREATE SCHEMA {}").format(name))
        connection.execute(SQL("GRANT USAGE ON SCHEMA {} TO {}").format(name, role))
    dsn = psycopg.conninfo.make_conninfo(postgres.dsn, user=f"writer of {schema}")
    with closing(StoreSink(PostgresDatabase(Login(dsn=dsn, password_env="WRITER"), schema=schema))) as writer:
        with pytest.raises(OutputError, match="42501") as caught:
            writer.write_epoch(epoch_id(1), epoch_rows(1))
        assert "grant" in str(caught.value.hint)

        sink.write_epoch(epoch_id(1, writer="owner"), empty_rows())
        with postgres.connect() as connection:
            connection.execute(
                SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {} TO {}").format(name, role)
            )
        writer.write_epoch(epoch_id(1), epoch_rows(1))
    assert count(postgres, schema) == 2


def test_a_table_of_other_types(postgres: PostgresServer, sink: StoreSink, schema: str) -> None:
    sink.write_epoch(epoch_id(1), epoch_rows(1))
    with postgres.connect() as connection:
        table = Identifier(schema, "user_sessions")
        connection.execute(SQL("DROP VIEW {}").format(Identifier(schema, "user_sessions_timed")))
        connection.execute(SQL("ALTER TABLE {} ALTER event_count TYPE date USING NULL").format(table))
    with pytest.raises(OutputError, match="event_count") as caught:
        sink.write_epoch(epoch_id(2), epoch_rows(2))
    assert "type" in str(caught.value.hint)
    assert count(postgres, schema, "late_events") == 2


def test_another_name_for_the_user(login: Login, sink: StoreSink, schema: str, tmp_path: Path) -> None:
    sink.write_epoch(epoch_id(1), epoch_rows(1))
    path = tmp_path / "store.db"
    with closing(StoreSink(SqliteDatabase(path))) as first:
        first.write_epoch(epoch_id(1), epoch_rows(1))
    for database in (PostgresDatabase(login, schema=schema), SqliteDatabase(path)):
        other = StoreSink(database, user_name="uuid")
        with closing(other), pytest.raises(OutputError, match="no column 'uuid'"):
            other.write_epoch(epoch_id(1, writer="other"), empty_rows())


@pytest.mark.parametrize("name", ["session_id", "Revision", "page", "", "x" * 64, "a\0"])
def test_names_the_user_cannot_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        StoreSink(SqliteDatabase(tmp_path / "store.db"), user_name=name)


def test_a_connection_that_is_ended(postgres: PostgresServer, sink: StoreSink, schema: str) -> None:
    sink.write_epoch(epoch_id(1), epoch_rows(1))
    with postgres.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'sessionize'"
        )
    with pytest.raises(UnavailableError):
        sink.write_epoch(epoch_id(2), epoch_rows(2))
    sink.write_epoch(epoch_id(2), epoch_rows(2))
    assert count(postgres, schema) == 4


def test_a_server_full_of_connections(postgres: PostgresServer, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROWDED", "abc")
    role = Identifier(f"crowded {schema}")
    with postgres.connect() as connection:
        connection.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'abc' CONNECTION LIMIT 0").format(role))
    dsn = psycopg.conninfo.make_conninfo(postgres.dsn, user=f"crowded {schema}")
    sink = StoreSink(PostgresDatabase(Login(dsn=dsn, password_env="CROWDED")))
    with closing(sink), pytest.raises(UnavailableError, match="too many connections"):
        sink.write_epoch(epoch_id(1), epoch_rows(1))


@pytest.mark.parametrize("kind", LATER)
def test_what_may_succeed_later(kind: type[psycopg.Error]) -> None:
    failure = failure_of(kind("told"), "host=x")
    assert isinstance(failure, UnavailableError)
    assert failure.hint
    assert "host=x" in str(failure.detail)


@pytest.mark.parametrize("kind", NEVER)
def test_what_never_will(kind: type[psycopg.Error]) -> None:
    failure = failure_of(kind("told"), "host=x")
    assert isinstance(failure, OutputError)
    assert failure.hint


def test_a_database_that_cannot_hold_every_character(postgres: PostgresServer, schema: str, password_env: str) -> None:
    with postgres.connect() as connection:
        connection.execute(
            SQL("CREATE DATABASE {} ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'").format(Identifier(schema))
        )
    dsn = psycopg.conninfo.make_conninfo(postgres.dsn, dbname=schema)
    sink = StoreSink(PostgresDatabase(Login(dsn=dsn, password_env=password_env)))
    with closing(sink), pytest.raises(OutputError, match="every character"):
        sink.write_epoch(epoch_id(1), epoch_rows(1))


def test_sqlite_disk_full_and_freed(tmp_path: Path) -> None:
    """The limit stands in for a full disk: SQLite reports both alike."""
    path = tmp_path / "store.db"
    database = SqliteDatabase(path)
    with closing(StoreSink(database)) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1))
        connection = database._connection
        assert connection is not None
        connection.execute("PRAGMA max_page_count = 1")
        big = epoch_rows(2, [f"user {i}" for i in range(2_000)])
        with pytest.raises(UnavailableError, match="full") as caught:
            sink.write_epoch(epoch_id(2), big)
        assert "space" in str(caught.value.hint)
        sink.write_epoch(epoch_id(2), big)
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT count(*) FROM user_sessions").fetchone() == (2_002,)
        assert reader.execute("SELECT count(*) FROM late_events").fetchone() == (2_002,)


def test_sqlite_waits_for_a_writer_but_not_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(StoreSink(SqliteDatabase(path, busy_timeout_s=0.05))) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(UnavailableError, match="locked"):
                sink.write_epoch(epoch_id(2), epoch_rows(2))
            other.execute("ROLLBACK")
        sink.write_epoch(epoch_id(2), epoch_rows(2))


def test_sqlite_files_that_will_not_do(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("no database" * 1_000, encoding="utf-8")
    (tmp_path / "file").touch()
    for path in (text, tmp_path, tmp_path / "file" / "store.db"):
        with closing(StoreSink(SqliteDatabase(path))) as sink, pytest.raises(OutputError) as caught:
            sink.write_epoch(epoch_id(1), epoch_rows(1))
        assert str(path) in str(caught.value.detail)
        assert caught.value.hint


def test_sqlite_a_file_removed_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(StoreSink(SqliteDatabase(path))) as sink:
        sink.write_epoch(epoch_id(1), epoch_rows(1))
        path.unlink()
        with pytest.raises(OutputError, match="removed"):
            sink.write_epoch(epoch_id(2), epoch_rows(2))


def test_rows_that_do_not_fit(tmp_path: Path) -> None:
    with closing(StoreSink(SqliteDatabase(tmp_path / "store.db"))) as sink:
        good = sessions(["a"])
        unheard = pa.table({"user": ["a"], "session_id": ["a_1"]})
        empty_key = good.set_column(0, "user", pa.array([None], pa.string()))
        wrong = good.set_column(good.schema.get_field_index("event_count"), "event_count", pa.array(["many"]))
        twice = pa.concat_tables([good, good])
        for rows, told in (
            (unheard, "lack a column"),
            (empty_key, "empty value"),
            (wrong, "does not fit"),
            (twice, "the same row"),
        ):
            with pytest.raises(OutputError, match=told) as caught:
                sink.replace(good.slice(0, 0), rows, token="t")
            assert caught.value.hint
        sink.replace(good.slice(0, 0), with_revision(good, 1), token="t")


def test_writers_that_come_first_at_once(postgres: PostgresServer, login: Login, schema: str, tmp_path: Path) -> None:
    """All of them find no tables, and make them."""
    path = tmp_path / "home" / "store.db"
    problems: list[BaseException] = []
    together = threading.Barrier(12)

    def write(number: int) -> None:
        database = PostgresDatabase(login, schema=schema) if number % 2 else SqliteDatabase(path)
        with closing(StoreSink(database)) as sink:
            try:
                together.wait(timeout=60)
                sink.write_epoch(epoch_id(1, writer=f"w{number}"), epoch_rows(1, [f"user {number}"]))
            except BaseException as error:
                problems.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert problems == []
    assert count(postgres, schema) == 6
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT count(*) FROM user_sessions").fetchone() == (6,)


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['psycopg'] = None; import sessionize.connectors.sql_store.postgres"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "sessionize.errors.MissingExtraError" in done.stderr
    assert "sessionize[postgres]" in done.stderr
