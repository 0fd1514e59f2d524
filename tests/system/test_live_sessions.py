"""Open sessions in Redis while a pipeline runs: there while they are open, gone when final, whatever Redis forgets."""

import json
import socket
import threading
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.streams.run import open_stream
from sessionize.connectors.redis import settings as login
from sessionize.engine.stream import live_feed as livefeed
from sessionize.testing.oracle import Oracle
from sessionize.testing.runs import BackgroundRun
from sessionize.testing.services.kafka import KafkaServers
from sessionize.testing.services.valkey import ValkeyServer
from sessionize.testing.tables import check_run

START_MS = 1_700_000_000_000
GAP_MS = 1_800_000
LIFE_MS = GAP_MS + 300_000
PREFIX = "live:"


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def pipeline(
    folder: Path, kafka: KafkaServers, topic: str, redis_url: str, *, partitions: str | None = None
) -> PipelineConfig:
    path = folder / "p.toml"
    path.write_text('name = "p"\n[input]\nkind = "kafka"\ndialect = "clickstream"\n')
    keys = {
        "input.kafka.servers": kafka.servers,
        "input.kafka.topic": topic,
        "input.kafka.partitions": partitions,
        "output.redis.url": redis_url,
        "output.redis.prefix": PREFIX,
        "run.home": str(folder / "home"),
        "rules.lateness": "5m",
        "rules.watermark": "maximum",  # one event of another user is to end a session here
        "stream.reconcile": "none",
        "stream.poll": "20ms",
        "stream.epoch": "100ms",
        "stream.live": "20ms",
    }
    return load_pipeline(str(path), overrides=keys, environ={})


def event(user: str, minute: int) -> bytes:
    time_ms = START_MS + minute * 60_000
    return json.dumps(
        {"uuid": user, "event_timestamp": str(time_ms), "event_id": uuid.uuid4().hex, "page_name": "home"}
    ).encode()


def shown(client: redis.Redis) -> dict[str, int]:
    """user -> events of the open session."""
    found: dict[str, int] = {}
    keys: Any = client.keys(f"{PREFIX}*session:*")
    for key in keys:
        value: Any = client.get(key)
        if value is not None:
            found[key.decode().rpartition(":")[2]] = json.loads(value).get("event_count", 0)
    return found


def test_open_sessions_come_and_go(tmp_path: Path, kafka: KafkaServers, valkey: ValkeyServer) -> None:
    topic = kafka.create_topic(f"live-{uuid.uuid4().hex[:8]}")
    config = pipeline(tmp_path, kafka, topic, valkey.url)
    sent: list[bytes] = []

    def send(*records: bytes) -> None:
        sent.extend(records)
        kafka.send(topic, records)

    with valkey.client() as client:
        client.set(f"{PREFIX}session:of-another-time", "{}")
        client.set("somebody else's", "stays")
        with BackgroundRun(open_stream, config) as running:
            send(event("a", 0), event("a", 1), event("b", 2))
            running.wait_for(lambda: shown(client) == {"a": 2, "b": 1}, "the open sessions")
            life: Any = client.pttl(f"{PREFIX}session:a")
            assert LIFE_MS - 60_000 < life <= LIFE_MS
            send(event("b", 30))
            running.wait_for(lambda: shown(client) == {"a": 2, "b": 2}, "the new event")
            # a's session is over once the watermark has passed its gap
            send(event("c", 60))
            running.wait_for(lambda: shown(client) == {"b": 2, "c": 1}, "the end of a session")
            client.flushall()
            client.set("somebody else's", "stays")
            send(event("b", 59), event("d", 61))
            running.wait_for(lambda: shown(client) == {"b": 3, "d": 1}, "what changed after Redis was emptied")
            running.end(stop=True)
        # a new start shows the state anew, also what Redis had lost, and nothing else
        client.set(f"{PREFIX}session:of-another-time", "{}")
        with BackgroundRun(open_stream, config) as running:
            running.wait_for(lambda: shown(client) == {"b": 3, "c": 1, "d": 1}, "the sessions of the state")
            running.end(stop=True)
        assert shown(client) == {"b": 3, "c": 1, "d": 1}  # they are still open
        once = config.model_copy(update={"run": config.run.model_copy(update={"once": True})})
        with open_stream(once, stopping=threading.Event()) as opened:
            accounting = opened.run()
        assert shown(client) == {}
        assert client.get("somebody else's") == b"stays"
    oracle = Oracle.of_json(
        [sent], config.dialect(), lateness_ms=config.rules.lateness_ms, watermark=config.rules.watermark
    )
    assert not oracle.late
    check_run(config.home, oracle, config.policy(), config.event_rules(), accounting, user="uuid")


def test_processes_that_split_the_partitions_show_beside_each_other(
    tmp_path: Path, kafka: KafkaServers, valkey: ValkeyServer
) -> None:
    topic = kafka.create_topic(f"live-{uuid.uuid4().hex[:8]}", 2)
    first, second = (pipeline(tmp_path, kafka, topic, valkey.url, partitions=p) for p in "01")
    with valkey.client() as client:
        client.flushall()
        with BackgroundRun(open_stream, first) as running:
            kafka.send(topic, [event("a", 0)], partition=0)
            running.wait_for(lambda: shown(client) == {"a": 1}, "the session of the first")
            with BackgroundRun(open_stream, second) as beside:
                kafka.send(topic, [event("b", 0)], partition=1)
                beside.wait_for(lambda: "b" in shown(client), "the session of the second")
                assert shown(client) == {"a": 1, "b": 1}
                beside.end(stop=True)
            running.end(stop=True)


def test_a_redis_that_never_answers_holds_nothing_up(
    tmp_path: Path, kafka: KafkaServers, silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one call to it lasts as long as this test, and epochs go on beside it, up to the end of the run."""
    monkeypatch.setattr(login, "_TIMEOUT_S", 3_600.0)
    monkeypatch.setattr(livefeed, "END_S", 0.0)
    topic = kafka.create_topic(f"live-{uuid.uuid4().hex[:8]}")
    config = pipeline(tmp_path, kafka, topic, f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
    sent: list[bytes] = []
    with BackgroundRun(open_stream, config) as running:
        silent.settimeout(60)
        hanging, _ = silent.accept()
        with hanging:
            for number in range(5):
                sent.append(event("a", number))
                kafka.send(topic, sent[-1:])
                running.wait_for(partial(running.has_read, number + 1), "a record")
                running.wait_for_epochs(1)
            running.end(stop=True)
    assert not running.unavailable
    once = config.model_copy(update={"run": config.run.model_copy(update={"once": True})})
    with open_stream(once, stopping=threading.Event()) as opened:
        accounting = opened.run()
    oracle = Oracle.of_json(
        [sent], config.dialect(), lateness_ms=config.rules.lateness_ms, watermark=config.rules.watermark
    )
    check_run(config.home, oracle, config.policy(), config.event_rules(), accounting, user="uuid")
