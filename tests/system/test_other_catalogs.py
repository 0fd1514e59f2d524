"""A stream whose tables a REST catalog knows, or that lie in an object store, by the command line alone: killed between
the tables' commit and the checkpoint, gone on with, reconciled and packed, they equal a batch over all events.
"""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.testing.records import by_user, clickstream
from sessionize.testing.services.kafka import KafkaServers
from sessionize.testing.services.object_store import ObjectStoreServer
from sessionize.testing.services.rest_catalog import RestCatalogServer
from sessionize.testing.tables import COMPARED, session_row
from tests.system.whole_runs import oracle_of

TIMEOUT_S = 120
RUN = "from sessionize.cli import main; main()"
# Dies when the tables have an epoch and the checkpoint has not.
DIES = """
import os, signal
from sessionize.engine.stream.checkpoints import Checkpoints
plain = Checkpoints.commit
def commit(self, epoch, *rest):
    if epoch == {epoch}:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, epoch, *rest)
Checkpoints.commit = commit
{run}
"""
TEXT = """
name = "web"
[input]
kind = "kafka"
dialect = "clickstream"
[input.kafka]
servers = "{servers}"
topic = "{topic}"
[rules]
lateness = "5m"
[output.catalog]
{catalog}
[stream]
reconcile = "none"
epoch_rows = 500
[run]
home = "{home}"
log_level = "ERROR"
"""


@pytest.fixture(params=["rest", "object-store"])
def catalog(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What [output.catalog] says."""
    if request.param == "rest":
        server: RestCatalogServer = request.getfixturevalue("rest_catalog")
        yield f'kind = "rest"\nuri = "{server.uri}"'
        return
    monkeypatch.setenv("STORE_KEY", "any")
    with ObjectStoreServer() as store:
        options = {name.removesuffix("-env"): value for name, value in store.options.items()}
        options["s3.secret-access-key"] = "env:STORE_KEY"
        settings = json.dumps([f"{name}={value}" for name, value in options.items()])
        yield f'kind = "sqlite"\nwarehouse = "s3://{store.bucket}/house"\nsettings = {settings}'


def command(*words: str | Path, code: str = RUN) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        check=False,
    )
    return done.returncode, done.stdout + (done.stderr if done.returncode else "")


def done(*words: str | Path) -> str:
    code, said = command(*words)
    assert code == 0, said
    return said


def sessions(path: Path) -> Counter[tuple[Any, ...]]:
    text = done("query", f"SELECT uuid, {', '.join(COMPARED)} FROM user_sessions", "--pipeline", path, "--json")
    return Counter(session_row(row["uuid"], row) for row in map(json.loads, text.splitlines()))


def expected(config: PipelineConfig, parts: list[list[bytes]], *, late_too: bool) -> Counter[tuple[Any, ...]]:
    oracle = oracle_of(config, parts)
    rows = oracle.sessions(config.policy(), config.event_rules(), late_too=late_too)
    return Counter(session_row(row["user"], row) for row in rows)


def test_a_stream_into_another_catalog(tmp_path: Path, kafka: KafkaServers, catalog: str) -> None:
    parts = by_user(clickstream(1_500, seed=4, late_fraction=0.05), 2)
    topic = kafka.create_topic(f"other-{uuid.uuid4().hex[:8]}", 2)
    path = tmp_path / "web.toml"
    path.write_text(TEXT.format(servers=kafka.servers, topic=topic, catalog=catalog, home=tmp_path / "home"))
    config = load_pipeline(str(path), environ={})
    for number, records in enumerate(parts):
        kafka.send(topic, records, partition=number)
    for epoch in (1, 2):
        ended, said = command("run", path, "--once", code=DIES.format(epoch=epoch, run=RUN))
        assert ended == -signal.SIGKILL, said
    done("run", path, "--once")
    assert sessions(path) == expected(config, parts, late_too=False)

    assert json.loads(done("reconcile", path, "--drained", "--json"))["replaced"] > 0
    assert sessions(path) == expected(config, parts, late_too=True)
    packed = json.loads(done("maintain", "--pipeline", path, "--json"))["tables"]
    assert {table["table"] for table in packed} == {"events", "late_events", "rejected_events", "user_sessions"}
    assert sessions(path) == expected(config, parts, late_too=True)
    assert not list((tmp_path / "home").rglob("*.parquet"))
