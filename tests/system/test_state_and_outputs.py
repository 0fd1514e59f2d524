"""State and outputs belong together: what a run, or a command, says when one of them is gone or still in use."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.errors import StateError
from sessionize.testing.records import by_user, clickstream
from sessionize.testing.services.kafka import KafkaServers
from sessionize.testing.tables import iceberg_rows
from tests.system.whole_runs import run

TIMEOUT_S = 120
COMMAND = [sys.executable, "-c", "from sessionize.cli import main; main()"]
FOLLOWED = """
name = "p"
[input]
kind = "directory"
paths = ["{folder}/in"]
[input.mapping]
user = "user"
time = "ts"
[rules]
lateness = "1m"
watermark = "maximum"
[stream]
reconcile = "none"
epoch = "100ms"
poll = "20ms"
[run]
home = "{folder}/home"
"""


def from_topic(folder: Path, kafka: KafkaServers, topic: str, out: str, **overrides: object) -> PipelineConfig:
    path = folder / "p.toml"
    path.write_text(
        f"""name = "p"
[input]
kind = "kafka"
[input.kafka]
servers = "{kafka.servers}"
topic = "{topic}"
[output.sqlite]
path = "store.sqlite"
[output.kafka]
sessions = "{out}"
late = "{out}-late"
"""
    )
    fixed: dict[str, object] = {
        "run.once": True,
        "run.home": str(folder / "home"),
        "stream.poll": "20ms",
        "stream.reconcile": "none",
    }
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_pipeline(str(path), overrides={**fixed, "stream.epoch_rows": 300, **keys}, environ={})


def everything(config: PipelineConfig, kafka: KafkaServers, out: str) -> list[Any]:
    """All that the outputs have."""
    with sqlite3.connect(config.home / "store.sqlite") as store:
        tables = [store.execute(f"SELECT * FROM {name}").fetchall() for name in ("user_sessions", "late_events")]
    store.close()
    names = ("user_sessions", "events", "late_events", "rejected_events")
    topics = [sorted(kafka.committed(topic)) for topic in (out, f"{out}-late")]
    return [*tables, *(sorted(map(repr, iceberg_rows(config.home, name))) for name in names), *topics]


def test_outputs_without_their_state_are_refused_at_the_start(tmp_path: Path, kafka: KafkaServers) -> None:
    """Though each epoch would have had other rows than the one of that number before: nothing is dropped in silence."""
    parts = by_user(clickstream(2_000, seed=3, late_fraction=0.02), 2)
    topic, out = kafka.create_topic(f"in-{uuid.uuid4().hex[:8]}", 2), kafka.create_topic(f"out-{uuid.uuid4().hex[:8]}")
    for number, part in enumerate(parts):
        kafka.send(topic, part[: len(part) // 2], partition=number)
    config = from_topic(tmp_path, kafka, topic, out)
    run(config)
    backup = shutil.copytree(config.home / "state", tmp_path / "backup")
    before = everything(config, kafka, out)
    assert all(before[:4])
    for number, part in enumerate(parts):
        kafka.send(topic, part[len(part) // 2 :], partition=number)

    shutil.rmtree(config.home / "state")
    for further in ({}, {"stream__epoch_rows": 1_000_000}):
        with pytest.raises(StateError, match="ahead of the state") as caught:
            run(from_topic(tmp_path, kafka, topic, out, **further))
        assert "sqlite has epochs of writer 'p' up to" in str(caught.value.detail)
        assert everything(config, kafka, out) == before
    # each of them would have refused, also alone
    os.rename(config.home / "store.sqlite", tmp_path / "store.sqlite")
    os.rename(config.home / "catalog.db", tmp_path / "catalog.db")
    with pytest.raises(StateError, match="ahead of the state") as caught:
        run(config)
    assert "kafka has epochs of writer 'p' up to" in str(caught.value.detail)
    os.replace(tmp_path / "store.sqlite", config.home / "store.sqlite")
    os.replace(tmp_path / "catalog.db", config.home / "catalog.db")
    assert everything(config, kafka, out) == before

    shutil.rmtree(config.home / "state")
    shutil.copytree(backup, config.home / "state")
    accounting = run(config)
    assert accounting.consumed == sum(map(len, parts))
    assert accounting.balanced
    sessions = everything(config, kafka, out)
    assert len(sessions[0]) == len(sessions[2]) == len(sessions[6]) == accounting.sessions > len(before[0])


@contextmanager
def running(config: PipelineConfig) -> Iterator[None]:
    """The pipeline as a process of its own, once it has written an epoch; stopped at the end."""
    command = [*COMMAND, "run", str(config.home.parent / "p.toml")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        assert any('"event": "epoch_committed"' in line for line in process.stderr)
        yield
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)


def command(*arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "COLUMNS": "300", "NO_COLOR": "1"},
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_no_session_counts_as_drained_while_an_engine_runs(tmp_path: Path) -> None:
    path, minute_ms, start_ms = tmp_path / "p.toml", 60_000, 1_700_000_000_000
    path.write_text(FOLLOWED.format(folder=tmp_path))
    (tmp_path / "in").mkdir()
    rows = [("a", 0), ("b", 0), ("b", 100), ("a", 100), ("a", 80), ("b", 20)]  # the last two are late
    lines = [f'{{"user": "{user}", "ts": {start_ms + at * minute_ms}}}\n' for user, at in rows]
    (tmp_path / "in" / "one.jsonl").write_text("".join(lines))
    config = load_pipeline(str(path), environ={})
    with running(config):
        before = iceberg_rows(config.home, "user_sessions")
        for more in ([], ["--dry-run"]):
            code, said = command("reconcile", path, "--drained", *more)
            assert code == 1, said
            assert "an engine runs" in said
            assert "process" in said
            assert "--once" in said
        assert iceberg_rows(config.home, "user_sessions") == before
        code, said = command("reconcile", path)
        assert code == 0, said
        assert "may still be open in an engine" in said
    code, said = command("reconcile", path, "--drained")
    assert code == 0, said
    assert "waiting: " not in said


def test_a_topic_that_was_made_anew_is_told_from_the_one_that_was_read(tmp_path: Path, kafka: KafkaServers) -> None:
    """By its id: its offsets look like a continuation, and the records before them would be passed over."""
    topic, out = kafka.create_topic(f"in-{uuid.uuid4().hex[:8]}"), kafka.create_topic(f"out-{uuid.uuid4().hex[:8]}")
    records = clickstream(600, seed=5)
    kafka.send(topic, records[:200])
    config = from_topic(tmp_path, kafka, topic, out)
    run(config)
    before = everything(config, kafka, out)
    kafka.send(topic, records[200:300])
    assert run(config).consumed == 300  # the same topic: it goes on
    before = everything(config, kafka, out)
    kafka.delete_topic(topic)
    kafka.create_topic(topic)
    kafka.send(topic, records)
    for _again in range(2):
        with pytest.raises(StateError, match="the Kafka topic was recreated") as caught:
            run(config)
        assert topic in str(caught.value.detail)
    assert everything(config, kafka, out) == before
