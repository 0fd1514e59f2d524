"""Commands on tables that a PostgreSQL catalog knows, with the sessions in PostgreSQL and SQLite as well: every command
finds them by the pipeline, and a reconciliation that was killed between the tables and the stores is finished.
"""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from sessionize.cli.app import app
from sessionize.testing.services.postgres import PostgresServer

NOON = 1_700_000_000_000 - 1_700_000_000_000 % 86_400_000 + 43_200_000
MINUTE = 60_000
KEYS = ("uuid", "session_id", "event_count", "revision")
TEXT = """
[input]
kind = "directory"
paths = ["{folder}/in/*.ndjson"]
dialect = "clickstream"
[rules]
watermark = "maximum"  # an event of one user is to make one of another late
[output]
database = "web"
[output.catalog]
kind = "postgres"
uri = "postgresql://sessionize@127.0.0.1:{port}/{database}"
settings = ["password=env:CATALOG_PASSWORD"]
[output.sqlite]
[output.postgres]
dsn = "{dsn}"
password_env = "CATALOG_PASSWORD"
[stream]
reconcile = "none"
[run]
home = "{folder}/home"
log_level = "ERROR"
"""
# run instead of the command itself: it dies when it is to tell the first store
KILLED = """
import os, signal
from sessionize.connectors.sql_store import StoreSink
StoreSink.replace = lambda self, removed, added, *, token: os.kill(os.getpid(), signal.SIGKILL)
from sessionize.cli import main
main()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.fixture
def pipeline(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline that ran once: user a came late once, user b is on time, one record is broken."""
    monkeypatch.setenv("CATALOG_PASSWORD", server.password)
    monkeypatch.delenv("SESSIONIZE_HOME", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    database = f"t{abs(hash(str(tmp_path)))}"
    with server.connect() as admin:
        admin.execute(f"CREATE DATABASE {database}")
    folder = tmp_path / "in"
    folder.mkdir()
    times = [("a", 0), ("b", 1), ("b", 300), ("a", 10), ("a", 301)]
    lines = [
        {"uuid": u, "event_timestamp": str(NOON + at * MINUTE), "event_id": f"{u}{at}", "page_name": "p"}
        for u, at in times
    ]
    lines.append({"uuid": "c", "event_timestamp": "soon"})
    (folder / "one.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = tmp_path / "web.toml"
    dsn = server.dsn.replace("dbname=postgres", f"dbname={database}")
    path.write_text(TEXT.format(folder=tmp_path, port=server.port, database=database, dsn=dsn))
    done(path, "run", "--once")
    return path


def done(pipeline: Path, *words: str) -> str:
    """What a command prints; "run" and the like take the pipeline as an argument, the others by --pipeline."""
    takes = words[0] in ("run", "reconcile") or words[:2] == ("rejected", "retry")
    name = [str(pipeline)] if takes else ["--pipeline", str(pipeline)]
    ended = CliRunner().invoke(app, [*words, *name], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def sessions(pipeline: Path) -> list[Counter[Any]]:
    """The keys, counts and revisions of all sessions: in the tables, in SQLite, in PostgreSQL."""
    names = ", ".join(KEYS)
    printed = done(pipeline, "query", f"SELECT {names} FROM user_sessions", "--json")
    found = [Counter(tuple(json.loads(line)[name] for name in KEYS) for line in printed.splitlines())]
    home = pipeline.parent / "home"
    with sqlite3.connect(home / "store.sqlite") as store:
        found.append(Counter(store.execute(f"SELECT {names} FROM user_sessions").fetchall()))
    dsn = next(line for line in pipeline.read_text().splitlines() if line.startswith("dsn")).split('"')[1]
    with psycopg.connect(dsn, password=os.environ["CATALOG_PASSWORD"]) as served:
        found.append(Counter(served.execute(f"SELECT {names} FROM user_sessions").fetchall()))
    return found


BEFORE = Counter(
    [(f"{user}", f"{user}_{NOON + at * MINUTE}", 1, 0) for user, at in (("a", 0), ("b", 1), ("b", 300), ("a", 301))]
)
AFTER = BEFORE - Counter([("a", f"a_{NOON}", 1, 0)]) + Counter([("a", f"a_{NOON}", 2, 1)])


def test_every_command_finds_the_tables_of_the_pipeline(pipeline: Path) -> None:
    home = pipeline.parent / "home"
    assert not (home / "catalog.db").exists()
    assert sessions(pipeline) == [BEFORE, BEFORE, BEFORE]
    explained = json.loads(done(pipeline, "explain", "a", "--json"))
    assert [(each["event_count"], each["stored"]) for each in explained["sessions"]] == [(2, "otherwise"), (1, "yes")]
    (reason,) = json.loads(done(pipeline, "rejected", "show", "--json"))
    assert reason["count"] == 1
    assert json.loads(done(pipeline, "pruning", "--json"))["buckets"]
    assert json.loads(done(pipeline, "rejected", "retry", "--json"))["looked_at"] == 1
    would = json.loads(done(pipeline, "reconcile", "--dry-run", "--json"))
    assert (would["late_events"], would["replaced"], would["added"]) == (1, 1, 1)
    assert sessions(pipeline) == [BEFORE, BEFORE, BEFORE]
    assert json.loads(done(pipeline, "reconcile", "--json"))["replaced"] == 1
    assert sessions(pipeline) == [AFTER, AFTER, AFTER]
    assert (home / "reconcile.lock").exists()
    assert json.loads(done(pipeline, "reconcile", "--json"))["replaced"] == 0
    tables = json.loads(done(pipeline, "maintain", "--json"))["tables"]
    assert {table["table"]: table["rows"] for table in tables} == {
        "events": 4,
        "late_events": 1,
        "rejected_events": 1,
        "user_sessions": 4,
    }
    assert sessions(pipeline) == [AFTER, AFTER, AFTER]
    assert not (home / "catalog.db").exists()


def test_a_kill_between_the_tables_and_the_stores_is_made_up_for(pipeline: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "reconcile", str(pipeline)], capture_output=True, timeout=120, check=False
    )
    assert killed.returncode == -9, killed.stderr
    assert sessions(pipeline) == [AFTER, BEFORE, BEFORE]
    finished = json.loads(done(pipeline, "reconcile", "--json"))
    assert (finished["late_events"], finished["replaced"]) == (1, 0)
    assert sessions(pipeline) == [AFTER, AFTER, AFTER]
    assert not list((pipeline.parent / "home" / "reconcile-pending").iterdir())
    done(pipeline, "reconcile")
    assert sessions(pipeline) == [AFTER, AFTER, AFTER]


def test_the_running_command_reconciles_and_ends_when_asked(pipeline: Path) -> None:
    settings = ("stream.reconcile=200ms", 'stream.reconcile_tiers=["30d"]', "stream.epoch=100ms", "run.log_level=INFO")
    command = [sys.executable, "-c", "from sessionize.cli import main; main()", "run", str(pipeline)]
    log = pipeline.with_name("log")
    with open(log, "w") as file:
        running = subprocess.Popen([*command, *(f"--set={setting}" for setting in settings)], stderr=file)
    try:
        deadline = time.monotonic() + 120
        while sessions(pipeline) != [AFTER, AFTER, AFTER]:
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
        running.terminate()
        assert running.wait(60) == 0, log.read_text()
    finally:
        running.kill()
        running.wait()
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    (one,) = [line for line in lines if line["event"] == "reconcile_finished" and line["replaced"]]
    assert (one["replaced"], one["added"], one["window_ms"]) == (1, 1, 30 * 86_400_000)


def test_one_reconciliation_at_a_time_also_without_a_catalog_in_the_home(pipeline: Path) -> None:
    import fcntl

    from sessionize.errors import UnavailableError

    with open(pipeline.parent / "home" / "reconcile.lock", "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UnavailableError, match="another reconciliation is running"):
            done(pipeline, "reconcile")
    done(pipeline, "reconcile")
    assert sessions(pipeline) == [AFTER, AFTER, AFTER]


def test_what_is_given_goes_before_the_pipeline(pipeline: Path) -> None:
    from sessionize.errors import ConfigError

    with pytest.raises(ConfigError, match="no events to explain the sessions from"):
        done(pipeline, "explain", "a", "--iceberg-database", "another")
    shown = done(pipeline, "query", "SELECT count(*) AS n FROM user_sessions", "--home", str(pipeline.parent), "--json")
    assert json.loads(shown) == {"n": 4}  # the catalog knows them wherever the home is


def test_a_run_that_ends_by_itself_uses_the_catalog_too(pipeline: Path) -> None:
    events = 'kind = "generator"\n[input.generator]\nevents = 500\nusers = 5\n[output]\n'
    text = pipeline.read_text()
    made = pipeline.with_name("made.toml")
    made.write_text(f"[input]\n{events}{text.split('[output]')[1]}".replace('database = "web"', 'database = "made"'))
    done(made, "run")
    shown = done(made, "query", "SELECT count(*) > 0 AS some FROM user_sessions", "--json")
    assert json.loads(shown) == {"some": True}
    assert not (pipeline.parent / "home" / "catalog.db").exists()
    assert sessions(pipeline) == [BEFORE, BEFORE, BEFORE]  # it wrote to no store
