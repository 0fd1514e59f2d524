"""A server that is away when a run begins is waited for, and told about; the rest is an error at once."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.streams import startup as opening
from sessionize.app.streams.run import open_stream
from sessionize.app.streams.startup import StoppedError
from sessionize.engine.accounting import Accounting
from sessionize.engine.run_events.reports import Status
from sessionize.errors import InputError, OutputError, UnavailableError
from sessionize.testing.observers import Calls
from sessionize.testing.services.kafka import KafkaBroker, KafkaServers
from sessionize.testing.services.postgres import PostgresServer
from sessionize.testing.services.valkey import ValkeyServer

COMMAND = Path(sys.executable).with_name("sessionize")
EVENTS = [
    json.dumps({"user_id": f"u{n % 5}", "timestamp": 1_700_000_000_000 + 60_000 * n, "url": "/"}).encode()
    for n in range(100)
]


def pipeline(folder: Path, text: str = "", **overrides: object) -> PipelineConfig:
    """A hundred events in files, or what text says."""
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / "a.ndjson").write_bytes(b"\n".join(EVENTS))
    (folder / "p.toml").write_text(
        text or f'[input]\nkind = "directory"\npaths = ["{folder / "in"}"]\ndialect = "clicks"\n'
    )
    fixed = {"run.once": True, "run.home": str(folder / "home"), "stream.poll": "20ms", "stream.outage": "1m"}
    return load_pipeline(str(folder / "p.toml"), overrides=fixed | overrides, environ={})


def kafka_text(servers: str, topic: str) -> str:
    return f'[input]\nkind = "kafka"\ndialect = "clicks"\n[input.kafka]\nservers = "{servers}"\ntopic = "{topic}"\n'


class Ears:
    """Hears who is away."""

    def __init__(self) -> None:
        self.heard: dict[str, str] = {}
        self.now: dict[str, str] = {}
        self.something = threading.Event()

    def __call__(self, status: Status) -> None:
        self.now = status.unavailable
        self.heard |= status.unavailable
        if status.unavailable:
            self.something.set()


def opened(config: PipelineConfig, stopping: threading.Event, hears: Callable[[Status], None]) -> None:
    """Opened, and closed again."""
    with open_stream(config, stopping=stopping, observer=Calls(status=hears)):
        pass


def run_while(config: PipelineConfig, come: Callable[[], None]) -> tuple[Accounting, Ears]:
    """Run it; come() is called when somebody was heard to be away."""
    ears, stopping = Ears(), threading.Event()

    def run() -> Accounting:
        with open_stream(config, stopping=stopping, observer=Calls(status=ears)) as opened:
            return opened.run()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            assert ears.something.wait(30)
            come()
            return running.result(60), ears
        finally:
            stopping.set()


def test_kafka_that_starts_later(tmp_path: Path, own_kafka: Callable[[], KafkaBroker]) -> None:
    broker = own_kafka()
    topic = broker.create_topic("later")
    broker.servers.send(topic, EVENTS)
    broker.stop()
    accounting, ears = run_while(pipeline(tmp_path, kafka_text(broker.bootstrap_servers, topic)), broker.start)
    assert accounting.consumed == 100
    assert "Kafka cannot be reached" in ears.heard["kafka"]
    assert broker.bootstrap_servers in ears.heard["kafka"]
    assert ears.now == {}


def test_postgres_that_starts_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = PostgresServer()
    try:
        monkeypatch.setenv("DB_PASSWORD", server.password)
        options = {"output.postgres.dsn": server.dsn, "output.postgres.password_env": "DB_PASSWORD"}
        accounting, ears = run_while(pipeline(tmp_path, **options), server.start)
        assert accounting.sessions > 0
        assert "cannot be reached" in ears.heard["postgres"]
        with server.connect() as connection:
            assert connection.execute("SELECT count(*) FROM user_sessions").fetchone() == (accounting.sessions,)
        monkeypatch.setenv("DB_PASSWORD", "wrong-and-secret")
        ears = Ears()
        wrong = pipeline(tmp_path, **options)
        with pytest.raises(OutputError, match="let us in") as caught:
            opened(wrong, threading.Event(), ears)
        assert "secret" not in str(caught.value)
        assert ears.heard == {}
    finally:
        server.close()


def test_redis_that_starts_later_holds_nothing_up(tmp_path: Path) -> None:
    server = ValkeyServer()
    stopping = threading.Event()
    ears = Ears()

    def status(now: Status) -> None:
        ears(now)
        if now.consumed == 100 and ears.heard:
            stopping.set()

    config = pipeline(tmp_path, **{"output.redis.url": server.url, "run.once": False, "stream.epoch": "100ms"})
    with open_stream(config, stopping=stopping, observer=Calls(status=status)) as opened:
        assert opened.run().consumed == 100
    assert set(ears.heard) == {"redis"}


@pytest.mark.parametrize("call", ["open", "scandir"], ids=["when the folder is made", "when it is read"])
def test_a_disk_that_fails_when_the_run_begins_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Full while the folder of the state is made, or failing while it is read for where to go on."""
    with open_stream(pipeline(tmp_path), stopping=threading.Event()) as first:
        first.run()
    mended, real = threading.Event(), getattr(os, call)

    def refused(path: object, *more: object) -> object:
        if "state" in str(path) and not mended.is_set():
            raise OSError(errno.ENOSPC if call == "open" else errno.EIO, "no")
        return real(path, *more)

    monkeypatch.setattr(os, call, refused)
    (tmp_path / "in" / "b.ndjson").write_bytes(EVENTS[-1])
    accounting, ears = run_while(pipeline(tmp_path), mended.set)
    assert "state" in ears.heard
    assert accounting.consumed == len(EVENTS) + 1
    assert not ears.now


@pytest.mark.parametrize("kind", ["rest", "postgres"])
def test_a_catalog_that_is_away_is_waited_for_until_the_run_is_to_end(tmp_path: Path, kind: str) -> None:
    with socket.socket() as taken:  # and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        uri = f"http://{address}" if kind == "rest" else f"postgresql://me@{address}/x"
        config = pipeline(tmp_path, **{"output.catalog.kind": kind, "output.catalog.uri": uri})
        stopping, ears = threading.Event(), Ears()

        def status(now: Status) -> None:
            ears(now)
            if now.unavailable:
                stopping.set()

        with pytest.raises(StoppedError, match="stopped while waiting for iceberg"):
            opened(config, stopping, status)
        assert "cannot be opened" in ears.heard["iceberg"]


def test_a_server_that_says_nothing_counts_as_away_and_cannot_hold_the_end_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_SILENT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dsn = f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=60"
        stopping, ears, told_s = threading.Event(), Ears(), 0.0

        def status(now: Status) -> None:
            nonlocal told_s
            ears(now)
            if "postgres" in now.unavailable:
                told_s = time.monotonic()
                stopping.set()

        config = pipeline(tmp_path, **{"output.postgres.dsn": dsn})
        with pytest.raises(StoppedError, match="waiting for postgres"):
            opened(config, stopping, status)
        assert time.monotonic() - told_s < 30  # the driver would wait for sixty
        assert ears.heard["postgres"] == "no answer yet"


def test_patience_ends(tmp_path: Path) -> None:
    config = pipeline(tmp_path, kafka_text("127.0.0.1:1", "t"), **{"stream.outage": "100ms"})
    ears = Ears()
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        opened(config, threading.Event(), ears)


def test_an_unknown_topic_is_an_error_at_once(tmp_path: Path, kafka: KafkaServers) -> None:
    ears = Ears()
    config = pipeline(tmp_path, kafka_text(kafka.servers, "nowhere"))
    with pytest.raises(InputError, match="the Kafka topic does not exist"):
        opened(config, threading.Event(), ears)
    assert ears.heard == {}


def test_sigterm_ends_the_wait_with_a_clean_message(tmp_path: Path) -> None:
    pipeline(tmp_path, kafka_text("127.0.0.1:1", "t"))
    command = [COMMAND, "run", str(tmp_path / "p.toml"), "--home", str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stderr is not None
            line = json.loads(running.stderr.readline())
            assert (line["event"], line["server"], line["then"]) == ("server_unavailable", "kafka", "retrying")
            os.kill(running.pid, signal.SIGTERM)
            out, said = running.communicate(timeout=60)
        finally:
            running.kill()
    assert (running.returncode, out) == (0, "")
    lines = [json.loads(line) for line in said.splitlines()]
    assert lines[-1]["event"] == "stream_stopped"
    assert lines[-1]["reason"] == "stopped while waiting for kafka; nothing was read or written"
    assert "stream_stopping" in {line["event"] for line in lines}
    assert "server_recovered" not in {line["event"] for line in lines}
