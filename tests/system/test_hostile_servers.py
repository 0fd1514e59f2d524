"""Records made to stop a pipeline, into the outputs that need a server: nothing is refused, and all of it is there."""

import json
import uuid
from collections import Counter
from typing import Any

import pytest
from confluent_kafka import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from sessionize import Policy, Sessionizer
from sessionize.connectors.kafka.epoch_sink import KafkaEpochSink
from sessionize.connectors.redis import Login as RedisLogin
from sessionize.connectors.redis import RedisLiveView
from sessionize.connectors.sql_store import StoreSink
from sessionize.connectors.sql_store.postgres import Login, PostgresDatabase
from sessionize.formats.records import JsonRecords
from sessionize.ports import EpochSink
from sessionize.testing.hostile import HOSTILE, lines
from sessionize.testing.services.kafka import KafkaServers
from sessionize.testing.services.postgres import PostgresServer
from sessionize.testing.services.valkey import ValkeyServer
from sessionize.testing.streams import InMemoryEpochSink
from tests.system.hostile_runs import COLUMNS, RULES, check_store, events_of, expected_of, run

PASSWORD = "HOSTILE_TEST_PASSWORD"
POLICY = Policy(gap_ms=10)
few = settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
many_lines = st.lists(lines(), min_size=40, max_size=80)


def values_of(messages: list[Message]) -> list[dict[str, Any]]:
    return [json.loads(message.value() or b"") for message in messages]


@few
@given(part=many_lines, crash_at=st.integers(1, 30))
def test_a_stream_into_postgres_and_topics(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: PostgresServer,
    kafka: KafkaServers,
    monkeypatch: pytest.MonkeyPatch,
    part: list[bytes],
    crash_at: int,
):
    monkeypatch.setenv(PASSWORD, postgres.password)
    login, name, kept = Login(dsn=postgres.dsn, password_env=PASSWORD), f"h{uuid.uuid4().hex[:12]}", InMemoryEpochSink()
    topics = {
        "user_sessions": f"{name}-sessions",
        "events": f"{name}-events",
        "late_events": f"{name}-late",
        "rejected_events": f"{name}-rejected",
    }

    def opened() -> dict[str, EpochSink]:
        return {
            "kept": kept,
            "postgres": StoreSink(PostgresDatabase(login, schema=name), user_name="u"),
            "kafka": KafkaEpochSink(kafka.servers, topics, writer=name, user_name="u"),
        }

    folder = tmp_path_factory.mktemp("hostile")
    accounting = run(folder, [part], opened, POLICY, size=6, crash_at=crash_at, writer=name, epoch_rows=24).accounting
    assert accounting.balanced
    assert accounting.consumed == len(part)
    events, late, expected = events_of(kept, "events"), events_of(kept, "late_events"), expected_of(kept, POLICY)
    with postgres.connect() as connection:
        connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(name)))
        check_store(lambda query: connection.execute(query.encode()).fetchall(), expected, late, accounting.rejected)

    sent = {kind: kafka.records(f"{name}-{kind}") for kind in ("sessions", "events", "late", "rejected")}
    assert len(sent["rejected"]) == accounting.rejected
    assert Counter((row["u"], row["session_id"], row["event_count"]) for row in values_of(sent["sessions"])) == Counter(
        (row["user"], row["session_id"], row["event_count"]) for row in expected
    )
    for kind, rows in (("events", events), ("late", late)):
        assert Counter((row["u"], row["event_time_ms"], row["page"]) for row in values_of(sent[kind])) == Counter(
            (row["u"], row["event_time_ms"], row["page"]) for row in rows
        )


@few
@given(part=st.lists(lines(rejected=False), min_size=20, max_size=80))
def test_open_sessions_in_redis(valkey: ValkeyServer, part: list[bytes]):
    core = Sessionizer(POLICY, rules=RULES, columns=COLUMNS)
    core.push(JsonRecords(HOSTILE, extras=True).decode(part, list(range(len(part))), source="f", latest_ms=None).events)
    users, prefix = core.users(), f"{uuid.uuid4().hex}:"
    view = RedisLiveView(RedisLogin(url=valkey.url), gap_ms=POLICY.gap_ms, prefix=prefix, user_name="user")
    live = core.live_many(users)
    view.update(live, users.slice(0, 0), now_ms=0)
    with valkey.client() as client:
        shown = [json.loads(client.get(key)) for key in client.keys(f"{prefix}session:*")]
    newest = {row["user"]: row["session_id"] for row in live.to_pylist()}  # of a user's open sessions
    assert {row["user"]: row["session_id"] for row in shown} == newest
    view.close()
