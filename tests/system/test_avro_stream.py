"""Avro over a real topic: the rows of the reference, poison set aside, schemas from a file or a registry."""

import io
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import fastavro
import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.tables.retry_rejected import retry_rejected
from sessionize.app.tables.warehouse import Warehouse
from sessionize.engine.run_events.reports import Status
from sessionize.errors import ConfigError, InputError
from sessionize.formats.avro import AvroWriter
from sessionize.testing.oracle import Oracle
from sessionize.testing.records import FAR_OFF_MS
from sessionize.testing.services.kafka import KafkaServers
from sessionize.testing.services.registry import SchemaRegistryServer
from tests.system.whole_runs import run

COMMAND = Path(sys.executable).with_name("sessionize")
COLUMNS = "session_start_time_ms, session_end_time_ms, event_count, pages_visited, start_reason, end_reason"
SCHEMA = json.dumps(
    {
        "type": "record",
        "name": "click",
        "fields": [
            {"name": "user_id", "type": "string"},
            {"name": "timestamp", "type": "long"},
            {"name": "url", "type": "string"},
        ],
    }
)
START_MS = 1_700_000_000_000


def click(number: int) -> dict[str, Any]:
    return {"user_id": f"u{number % 3}", "timestamp": START_MS + 1_000 * number, "url": "/"}


def pipeline(folder: Path, servers: str, topic: str, *, dialect: str = "clicks", **kafka: object) -> PipelineConfig:
    path = folder / "p.toml"
    path.write_text(f'[input]\nkind = "kafka"\ndialect = "{dialect}"\n')
    fixed = {
        "input.kafka.servers": servers,
        "input.kafka.topic": topic,
        "input.kafka.format": "avro",
        "run.once": True,
        "run.home": str(folder / "home"),
        "rules.lateness": "5m",
        "stream.reconcile": "none",
        "stream.poll": "20ms",
    }
    overrides = fixed | {f"input.kafka.{name}": value for name, value in kafka.items()}
    return load_pipeline(str(path), overrides=overrides, environ={})


def rows(config: PipelineConfig, sql: str) -> list[dict[str, Any]]:
    return Warehouse(config.home).query(sql).to_pylist()


def produced(servers: str, topic: str, *options: object) -> None:
    done = subprocess.run(
        [COMMAND, "produce", "--kafka-servers", servers, "--topic", topic, "--format", "avro", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def parts_as_json(
    kafka: KafkaServers, topic: str, schema: str, head_bytes: int, *, partitions: int
) -> list[list[bytes]]:
    """The topic's records by partition, as JSON lines; what is no Avro is broken there too."""
    parsed = fastavro.parse_schema(json.loads(schema))

    def line(value: bytes) -> bytes:
        try:
            return json.dumps(fastavro.schemaless_reader(io.BytesIO(value[head_bytes:]), parsed, None)).encode()
        except Exception:  # whatever it is that was broken on purpose
            return b"broken"

    return [[line(value) for value in kafka.committed(topic, partition)] for partition in range(partitions)]


@pytest.mark.parametrize("place", ["file", "registry"])
def test_what_produce_writes_gives_the_rows_of_the_reference(
    tmp_path: Path, kafka: KafkaServers, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    topic = kafka.create_topic(f"avro-{uuid.uuid4().hex[:8]}", 3)
    spoiled = ("--late-fraction", 0.02, "--late-by", "20m", "--duplicate-fraction", 0.02, "--broken-fraction", 0.02)
    options = ("--events", 2_000, "--num-users", 40, "--duration", "8h", "--profile", "clickstream", *spoiled)
    with SchemaRegistryServer(login="me:hunter2hunter2") as registry:
        if place == "file":
            produced(kafka.servers, topic, *options, "--avro-schema", tmp_path / "event.avsc")
            schema = (tmp_path / "event.avsc").read_text()
            where: dict[str, object] = {"schema_file": str(tmp_path / "event.avsc")}
        else:
            (tmp_path / "client").write_text("schema.registry.basic.auth.user.info=me:hunter2hunter2\n")
            login = ("--kafka-settings", tmp_path / "client")
            produced(kafka.servers, topic, *options, *login, "--schema-registry", registry.url)
            schema = registry.schemas[1]["schema"]
            monkeypatch.setenv("REGISTRY_LOGIN", "me:hunter2hunter2")
            settings = ["schema.registry.basic.auth.user.info=env:REGISTRY_LOGIN"]
            where = {"schema_registry": registry.url, "settings": settings}
        config = pipeline(tmp_path, kafka.servers, topic, dialect="clickstream", **where)
        accounting = run(config)
    parts = parts_as_json(kafka, topic, schema, head_bytes=0 if place == "file" else 5, partitions=3)
    oracle = Oracle.of_json(
        parts,
        config.dialect(),
        lateness_ms=config.rules.lateness_ms,
        watermark=config.rules.watermark,
        latest_ms=FAR_OFF_MS,
    )
    assert accounting.consumed == sum(map(len, parts)) > 2_000
    assert (accounting.late, accounting.rejected) == (len(oracle.late), oracle.rejected)
    assert oracle.late
    assert oracle.rejected
    found = rows(config, f"SELECT uuid AS user, session_id, {COLUMNS} FROM user_sessions")
    expected = [
        {name: row[name] for name in found[0]} for row in oracle.sessions(config.policy(), config.event_rules())
    ]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))


def test_poison_is_rejected_with_bytes_offset_and_reason(tmp_path: Path, kafka: KafkaServers) -> None:
    topic = kafka.create_topic(f"avro-{uuid.uuid4().hex[:8]}")
    with SchemaRegistryServer() as registry:
        good = AvroWriter(SCHEMA, number=registry.register(SCHEMA)).encode
        unknown = AvroWriter(SCHEMA, number=2).encode
        poison: list[bytes | None] = [
            None,
            b"",
            b'{"user_id": "u", "timestamp": 1, "url": "/"}',
            good(click(1))[:-3],
            good(click(1)) + b"\x00",
            unknown(click(2)),
            b"\x00\x00",
            good(click(1))[:5] + b"\xff" * 30,
            unknown(click(3)),
        ]
        values = [good(click(0)), *poison, good(click(1))]
        kafka.send(topic, values)
        config = pipeline(tmp_path, kafka.servers, topic, schema_registry=registry.url)
        accounting = run(config)
        assert (accounting.consumed, accounting.rejected) == (len(values), len(poison))
        assert registry.calls.count("/schemas/ids/2") == 1
        found = rows(config, "SELECT raw, source, line_number, reason FROM rejected_events ORDER BY line_number")
        assert [row["line_number"] for row in found] == list(range(1, 10))
        assert [None if row["raw"] is None else bytes(row["raw"]) for row in found] == poison
        assert {row["source"] for row in found} == {f"{topic}[0]"}
        broken = "invalid_avro"
        reasons = [*[broken] * 3, "unknown_schema", *[broken] * 2, "unknown_schema"]
        assert [row["reason"] for row in found] == ["null_value", "empty_value", *reasons]
        assert rows(config, "SELECT sum(event_count) AS n FROM user_sessions") == [{"n": 2}]
        # once the schema is known, they can be tried again
        assert registry.register(SCHEMA, subject="other") == 2
        retried = retry_rejected(config.home, config)
        assert (retried.usable, retried.looked_at) == (2, len(poison))
        assert rows(config, "SELECT count(*) AS n FROM late_events") == [{"n": 2}]
        left = rows(config, "SELECT DISTINCT reason FROM rejected_events")
        assert {row["reason"] for row in left} == {"null_value", "empty_value", broken}


def test_a_registry_that_is_away_is_waited_for_and_nothing_is_rejected(tmp_path: Path, kafka: KafkaServers) -> None:
    topic = kafka.create_topic(f"avro-{uuid.uuid4().hex[:8]}", 2)
    registry = SchemaRegistryServer()
    write = AvroWriter(SCHEMA, number=registry.register(SCHEMA)).encode
    for p in range(2):
        kafka.send(topic, [write(click(n)) for n in range(50)], partition=p)
    registry.start()
    registry.stop()
    heard: list[str] = []

    def told(status: Status) -> None:
        heard.extend(status.unavailable.values())
        if status.unavailable and len(heard) == 2:
            registry.start()

    config = pipeline(tmp_path, kafka.servers, topic, schema_registry=registry.url)
    try:
        accounting = run(config, on_status=told)
    finally:
        registry.stop()
    assert [text for text in heard if text.startswith("the schema registry cannot be reached (http://127.0.0.1:")]
    assert (accounting.consumed, accounting.rejected) == (100, 0)


def test_a_registry_that_refuses_is_an_error_at_once(
    tmp_path: Path, kafka: KafkaServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = kafka.create_topic(f"avro-{uuid.uuid4().hex[:8]}")
    kafka.send(topic, [AvroWriter(SCHEMA, number=1).encode(click(0))])
    settings = ["schema.registry.basic.auth.user.info=env:REGISTRY_LOGIN"]
    monkeypatch.setenv("REGISTRY_LOGIN", "me:hunter3hunter3")
    with SchemaRegistryServer(login="me:hunter2hunter2") as registry:
        config = pipeline(tmp_path, kafka.servers, topic, schema_registry=registry.url, settings=settings)
        with pytest.raises(InputError, match="refuses access") as caught:
            run(config)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("nonsense", "cannot be read"),
        ('{"type": "record", "name": "x", "fields": [{"name": "a", "type": "nope"}]}', "cannot be read"),
        ('{"type": "record", "name": "x"}', "has no fields"),
        ('"string"', "not a record schema"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_schema_file_that_cannot_be_used_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    place = tmp_path / "event.avsc"
    if text is not None:
        place.write_text(text, errors="surrogateescape")
    config = pipeline(tmp_path, "127.0.0.1:1", "t", schema_file=str(place))
    with pytest.raises(ConfigError, match=message) as caught:
        run(config)
    assert str(place) in str(caught.value)


@pytest.mark.parametrize(
    ("login", "message"), [(None, "REGISTRY_LOGIN, which is not set"), ("hunter2", "write user:password")]
)
def test_a_login_that_cannot_be_used_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str | None, message: str
) -> None:
    monkeypatch.delenv("REGISTRY_LOGIN", raising=False)
    if login is not None:
        monkeypatch.setenv("REGISTRY_LOGIN", login)
    settings = ["schema.registry.basic.auth.user.info=env:REGISTRY_LOGIN"]
    config = pipeline(tmp_path, "127.0.0.1:1", "t", schema_registry="http://127.0.0.1:1", settings=settings)
    with pytest.raises(ConfigError, match=message) as caught:
        run(config)
    assert "hunter" not in str(caught.value)
