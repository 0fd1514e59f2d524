"""A session larger than its topic takes: sent without its lists, so that it stops nobody; or else an error that says
exactly which, with nothing of its epoch in the topic, until a higher limit mends it.
"""

import io
import json
import random
import uuid
from pathlib import Path

import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.streams.logs import StreamLog
from sessionize.app.tables.warehouse import Warehouse
from sessionize.errors import OutputError
from sessionize.testing.records import by_user, clickstream
from sessionize.testing.services.kafka import KafkaServers
from sessionize.testing.tables import COMPARED, check_run
from tests.system.whole_runs import Crash, crash_before, oracle_of, run

LIMIT_BYTES = 50_000


def pipeline(folder: Path, kafka: KafkaServers, topic: str, out: str, oversized: str) -> PipelineConfig:
    path = folder / "p.toml"
    # the broker is shared, and only one process may write to it under a name
    path.write_text('name = "large-rows"\n[input]\nkind = "kafka"\ndialect = "clickstream"\n')
    keys = {
        "input.kafka.servers": kafka.servers,
        "input.kafka.topic": topic,
        "output.kafka.sessions": out,
        "output.kafka.oversized": oversized,
        "output.sqlite.path": "store.sqlite",
        "run.home": str(folder / "home"),
        "run.once": True,
        "rules.lateness": "5m",
        "stream.reconcile": "none",
        "stream.poll": "20ms",
        "stream.epoch_rows": 300,
    }
    return load_pipeline(str(path), overrides=keys, environ={})


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
    config = pipeline(tmp_path, kafka, topic, out, "stop")
    for _ in range(2):  # waiting does not mend it
        with pytest.raises(OutputError, match="too large for Kafka") as caught:
            run(config)
        assert f"topic {out}, the row of '{user}', session '{user}" in str(caught.value.detail)
        assert f"the topic allows {LIMIT_BYTES:,}" in str(caught.value.detail)
        assert "nothing of the epoch" in str(caught.value.hint)
    hint = str(caught.value.hint)
    kafka.configure_topic(out, {"max.message.bytes": hint.partition(f"{out}, to ")[2].split()[0]})
    accounting = run(config)
    oracle = oracle_of(config, parts)
    sent = [json.loads(value) for value in kafka.committed(out)]
    sessions = {"topic": [(row["uuid"], *(row.get(name) for name in COMPARED)) for row in sent]}
    check_run(
        config.home, oracle, config.policy(), config.event_rules(), accounting, user=config.dialect().user_name,
        sessions=sessions,
    )  # fmt: skip


def test_a_session_too_large_for_its_topic_goes_out_without_its_lists_and_stops_nobody(
    tmp_path: Path, kafka: KafkaServers
) -> None:
    """Killed before the epoch is committed, too: it is in the topic once, and whole in the tables and the store."""
    out = kafka.create_topic(f"out-{uuid.uuid4().hex[:8]}", 1, {"max.message.bytes": str(LIMIT_BYTES)})
    user = "b0b0b0b0-0000-4000-8000-000000000000"
    records = clickstream(700, seed=3)
    start_ms = int(json.loads(records[0])["event_timestamp"])
    parts = by_user([*busy_user(user, 100, start_ms=start_ms), *records], 2)
    topic = kafka.create_topic(f"in-{uuid.uuid4().hex[:8]}", 2)
    for number, part in enumerate(parts):
        kafka.send(topic, part, partition=number)
    config = pipeline(tmp_path, kafka, topic, out, "shorten")
    log = io.StringIO()
    for crash in (crash_before("commit"), crash_before("commit", 3)):
        with pytest.raises(Crash):
            run(config, on_step=crash, observer=StreamLog("large-rows", to=log))
    accounting = run(config, observer=StreamLog("large-rows", to=log))
    oracle = oracle_of(config, parts)
    sent = [json.loads(value) for value in kafka.committed(out)]
    (short,) = (row for row in sent if "shortened_fields" in row)
    assert (short["uuid"], short["event_count"], short["pages_visited"]) == (user, 100, None)
    sql = f"SELECT pages_visited, events_by_type FROM user_sessions WHERE session_id = '{short['session_id']}'"
    (lists,) = Warehouse(config.home).query(sql).to_pylist()
    assert len(lists["pages_visited"]) == 100
    lists["events_by_type"] = dict(lists["events_by_type"])
    sessions = {
        "topic": [
            (row["uuid"], *((row | lists if row is short else row).get(name) for name in COMPARED)) for row in sent
        ]
    }
    check_run(
        config.home, oracle, config.policy(), config.event_rules(), accounting, user=config.dialect().user_name,
        sessions=sessions,
    )  # fmt: skip
    told = [line for line in map(json.loads, log.getvalue().splitlines()) if line["event"] == "rows_shortened"]
    assert [(line["level"], line["topic"], line["rows"], line["limit_bytes"]) for line in told] == [
        ("warning", out, 1, LIMIT_BYTES)
    ]
    assert told[0]["largest"][0]["key"] == user
