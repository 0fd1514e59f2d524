"""A session larger than its topic takes: told exactly, its epoch never half there, and a higher limit mends it."""

import json
import random
import uuid
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its own way
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from sessionize.app.config import PipelineConfig, load_pipeline
from sessionize.errors import OutputError
from sessionize.testing.records import by_user, clickstream
from sessionize.testing.services.kafka import KafkaServers
from sessionize.testing.tables import COMPARED, check_run
from tests.system.whole_runs import oracle_of, run

LIMIT_BYTES = 50_000


def pipeline(folder: Path, kafka: KafkaServers, topic: str, out: str) -> PipelineConfig:
    path = folder / "p.toml"
    # the broker is shared, and only one process may write to it under a name
    path.write_text('name = "large-rows"\n[input]\nkind = "kafka"\ndialect = "clickstream"\n')
    keys = {
        "input.kafka.servers": kafka.servers,
        "input.kafka.topic": topic,
        "output.kafka.sessions": out,
        "output.sqlite.path": "store.sqlite",
        "run.home": str(folder / "home"),
        "run.once": True,
        "rules.lateness": "5m",
        "stream.reconcile": "none",
        "stream.poll": "20ms",
        "stream.epoch_rows": 300,
    }
    return load_pipeline(str(path), overrides=keys, environ={})


def raise_limit(kafka: KafkaServers, topic: str, limit_bytes: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(limit_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka.servers})  # calls under way end with it
    admin.incremental_alter_configs([resource])[resource].result(30)


def busy_user(user: str, pages: int, *, start_ms: int) -> list[bytes]:
    """One session with many pages whose names do not compress."""
    names = random.Random(5)
    return [
        json.dumps(
            {
                "uuid": user,
                "event_timestamp": str(start_ms + at * 1_000),
                "event_id": uuid.UUID(int=names.getrandbits(128)).hex,
                "page_name": names.randbytes(500).hex(),
            }
        ).encode()
        for at in range(pages)
    ]


def test_a_session_too_large_for_its_topic_is_named_and_written_once_the_limit_is_raised(
    tmp_path: Path, kafka: KafkaServers
) -> None:
    out = kafka.create_topic(f"out-{uuid.uuid4().hex[:8]}", 1, {"max.message.bytes": str(LIMIT_BYTES)})
    user = "b0b0b0b0-0000-4000-8000-000000000000"
    records = clickstream(700, seed=3)
    start_ms = int(json.loads(records[0])["event_timestamp"])
    parts = by_user([*busy_user(user, 100, start_ms=start_ms), *records], 2)
    topic = kafka.create_topic(f"in-{uuid.uuid4().hex[:8]}", 2)
    for number, part in enumerate(parts):
        kafka.send(topic, part, partition=number)
    config = pipeline(tmp_path, kafka, topic, out)
    for _ in range(2):  # waiting does not mend it
        with pytest.raises(OutputError, match="too large for Kafka") as caught:
            run(config)
        assert f"topic {out}, the row of '{user}', session '{user}" in str(caught.value.detail)
        assert f"takes {LIMIT_BYTES:,}" in str(caught.value.detail)
        assert "nothing of the epoch" in str(caught.value.hint)
    hint = str(caught.value.hint)
    raise_limit(kafka, out, int(hint.partition(f"{out}, to ")[2].split()[0]))
    totals = run(config)
    oracle = oracle_of(config, parts)
    sent = [json.loads(value) for value in kafka.committed(out)]
    sessions = {"topic": [(row["uuid"], *(row.get(name) for name in COMPARED)) for row in sent]}
    check_run(
        config.home, oracle, config.policy(), config.event_rules(), totals, user=config.dialect().user_name,
        sessions=sessions,
    )  # fmt: skip
