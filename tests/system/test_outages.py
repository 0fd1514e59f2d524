"""Servers that go away and come back while a pipeline runs: nothing is lost, nothing is doubled, and it is told."""

import io
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.streams.logs import StreamLog
from sessionize.app.streams.run import open_stream
from sessionize.engine.accounting import Accounting
from sessionize.errors import OutputError, UnavailableError
from sessionize.testing.records import by_user, clickstream
from sessionize.testing.runs import BackgroundRun
from sessionize.testing.services.kafka import KafkaBroker, KafkaServers
from sessionize.testing.services.postgres import PostgresServer
from sessionize.testing.services.proxy import CuttingProxy
from sessionize.testing.services.valkey import ValkeyServer
from sessionize.testing.tables import COMPARED, check_run
from tests.system.whole_runs import filled_topic, oracle_of, run_once

AVAILABILITY = ("server_unavailable", "server_recovered")
PASSWORD = "OUTAGE_TEST_PASSWORD"
BOUNCES = 10


@pytest.fixture
def dsn(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database of the test's own."""
    monkeypatch.setenv(PASSWORD, postgres.password)
    name = f"t{uuid.uuid4().hex[:12]}"
    with postgres.connect() as admin:
        admin.execute(f"CREATE DATABASE {name}")
    return psycopg.conninfo.make_conninfo(postgres.dsn, dbname=name)


def pipeline(folder: Path, servers: str, topic: str, **overrides: object) -> PipelineConfig:
    path = folder / "p.toml"
    path.write_text('name = "p"\n[input]\nkind = "kafka"\ndialect = "clickstream"\n')
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    fixed = {
        "input.kafka.servers": servers,
        "input.kafka.topic": topic,
        "output.sqlite.path": "store.sqlite",
        "run.home": str(folder / "home"),
        "rules.lateness": "5m",
        "stream.reconcile": "none",
        "stream.poll": "20ms",
        "stream.epoch": "300ms",
        "stream.epoch_rows": 200,
        "stream.outage": "10m",
    }
    return load_pipeline(str(path), overrides={**fixed, **keys}, environ={})


def with_postgres(dsn: str) -> dict[str, object]:
    return {"output__postgres__dsn": dsn, "output__postgres__password_env": PASSWORD}


def check(
    config: PipelineConfig,
    parts: list[list[bytes]],
    accounting: Accounting,
    sessions: dict[str, list[Any]] | None = None,
) -> None:
    oracle = oracle_of(config, parts)
    assert oracle.late
    assert oracle.rejected
    check_run(
        config.home, oracle, config.policy(), config.event_rules(), accounting, user=config.dialect().user_name,
        sessions=sessions,
    )  # fmt: skip


def served(dsn: str, postgres: PostgresServer) -> list[Any]:
    with psycopg.connect(dsn, password=postgres.password) as reader:
        return list(reader.execute(f"SELECT uuid, {', '.join(COMPARED)} FROM user_sessions"))


def test_a_broker_bounced_again_and_again(tmp_path: Path, own_kafka: Callable[[], KafkaBroker]) -> None:
    """Killed and stopped in turns, while topics are read and written; records come between."""
    broker = own_kafka()
    kafka = broker.servers
    records = clickstream(5_500, seed=1)
    pieces = [
        by_user(records[at * 500 : (at + 1) * 500 + (10_000 if at == BOUNCES else 0)], 3) for at in range(BOUNCES + 1)
    ]
    topic = kafka.create_topic("in", 3)
    for name in ("sessions", "enriched", "late", "rejected"):
        kafka.create_topic(name)
    outputs = {f"output__kafka__{name}": name for name in ("sessions", "enriched", "late", "rejected")}
    config = pipeline(tmp_path, kafka.servers, topic, **outputs)
    with BackgroundRun(open_stream, config) as running:
        for number, piece in enumerate(pieces):
            for partition, records in enumerate(piece):
                kafka.send(topic, records, partition=partition)
            if number == BOUNCES:
                break
            # at once after new records came, or after some of them were worked on
            running.wait_for_epochs(number % 3)
            broker.stop() if number % 2 else broker.kill()
            if number == BOUNCES - 1:  # it may be back sooner than anybody notices, so once it is not
                running.wait_for(lambda: running.unavailable, "the outage")
            broker.start()
        wanted = sum(len(records) for piece in pieces for records in piece)
        running.wait_for(lambda: running.reports and running.reports[-1].accounting.consumed == wanted, "every record")
        running.end(stop=True)
    assert running.unavailable, "no outage was noticed"
    accounting = run_once(config)
    parts = [[record for piece in pieces for record in piece[partition]] for partition in range(3)]
    sent = [json.loads(value) for value in kafka.committed("sessions")]
    check(config, parts, accounting, {"topic": [(row["uuid"], *(row.get(name) for name in COMPARED)) for row in sent]})
    oracle = oracle_of(config, parts)
    for name, rows in (("enriched", oracle.on_time), ("late", oracle.late)):
        found = [json.loads(value) for value in kafka.committed(name)]
        seen = Counter((row["uuid"], row["event_time_ms"], row["event_id"]) for row in found)
        assert seen == Counter((row["user"], row["time"], row["id"]) for row in rows), name
    assert len(kafka.committed("rejected")) == oracle.rejected


def test_a_broker_away_for_a_while_and_then_for_too_long(tmp_path: Path, own_kafka: Callable[[], KafkaBroker]) -> None:
    """Told within seconds, once, back only after an answer; and the patience counts from when it was told."""
    broker = own_kafka()
    kafka = broker.servers
    parts = [clickstream(400, seed=7)]
    topic = kafka.create_topic("in", 1)
    kafka.send(topic, parts[0][:200], partition=0)
    written = io.StringIO()
    slow = pipeline(tmp_path, kafka.servers, topic, stream__epoch="1h", stream__epoch_rows=100_000)
    with BackgroundRun(open_stream, slow, observer=StreamLog("p", to=written)) as running:
        running.wait_for(partial(running.has_read, 200), "the first half")
        assert not running.reports
        broker.kill()
        running.wait_for(lambda: running.status.unavailable, "news of the outage")
        until = time.monotonic() + 4
        running.wait_for(lambda: not running.status.unavailable or time.monotonic() > until, "a while")
        assert running.status.unavailable  # nothing else is told while it lasts
        assert running.reports[-1].accounting.consumed == 200  # what was read does not wait with it
        broker.start()
        kafka.send(topic, parts[0][200:], partition=0)
        running.wait_for(partial(running.has_read, 400), "the second half")
        running.end(stop=True)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["event"] for line in lines if line["event"] in AVAILABILITY] == [
        "server_unavailable",
        "server_recovered",
    ]
    short = pipeline(tmp_path, kafka.servers, topic, stream__outage="2s")
    written = io.StringIO()
    with BackgroundRun(open_stream, short, observer=StreamLog("p", to=written)) as running:
        running.wait_for(lambda: running.status.consumed, "the start")
        broker.kill()
        killed_s = time.monotonic()
        with pytest.raises(UnavailableError, match="Kafka cannot be reached"):
            running.end()
        assert time.monotonic() - killed_s < 60  # not the ten minutes of the default
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["event"] for line in lines if line["event"] in AVAILABILITY] == ["server_unavailable"]
    broker.start()
    oracle = oracle_of(short, parts)
    check_run(
        tmp_path / "home", oracle, short.policy(), short.event_rules(), run_once(short), user=short.dialect().user_name
    )


def test_databases_that_stop_and_come_back(
    tmp_path: Path, kafka: KafkaServers, postgres: PostgresServer, valkey: ValkeyServer, dsn: str
) -> None:
    """It is told, reading pauses before memory fills up, and afterwards everything is there once."""
    parts = by_user(clickstream(8_000, seed=3), 2)
    topic = kafka.create_topic(f"outage-{uuid.uuid4().hex[:8]}", len(parts))
    pieces = iter([[part[len(part) * n // 6 : len(part) * (n + 1) // 6] for part in parts] for n in range(6)])

    def send_more() -> None:
        for number, records in enumerate(next(pieces)):
            kafka.send(topic, records, partition=number)

    redis = {"output__redis__url": valkey.url, "output__redis__prefix": f"{topic}:", "stream__live": "20ms"}
    config = pipeline(tmp_path, kafka.servers, topic, **with_postgres(dsn), **redis)
    written = io.StringIO()
    log = StreamLog("p", to=written)
    with BackgroundRun(open_stream, config, observer=log) as running:
        for _ in range(2):
            send_more()
            running.wait_for_epochs(2)
            valkey.stop()
            send_more()
            running.wait_for(lambda: "redis" in running.status.unavailable, "news of the one outage")
            postgres.stop()
            send_more()
            running.wait_for(lambda: {"postgres", "redis"} <= set(running.status.unavailable), "news of both outages")
            committed = running.reports[-1].accounting.consumed
            running.wait_for(partial(running.has_read, committed + 300), "the next epoch to be full")
            # the epoch that cannot be written, the next one, and what a poll brings beyond each
            assert running.status.consumed <= committed + 4 * 200
            postgres.start()
            valkey.start()
            running.wait_for(lambda: not running.status.unavailable, "the end of the outage")
        running.wait_for(lambda: running.reports[-1].accounting.consumed == sum(map(len, parts)), "every record")
        running.end(stop=True)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    told = Counter((line["event"], line["server"]) for line in lines if line["event"] in AVAILABILITY)
    assert told == {(event, server): 2 for event in AVAILABILITY for server in ("postgres", "redis")}
    check(config, parts, run_once(config), {"postgres": served(dsn, postgres)})


@pytest.mark.parametrize("answered", [True, False], ids=["after the server's answer", "before the server has it"])
def test_connections_cut_around_commit(
    tmp_path: Path, kafka: KafkaServers, postgres: PostgresServer, dsn: str, answered: bool
) -> None:
    parts = by_user(clickstream(2_000, seed=4), 2)
    topic = filled_topic(kafka, parts)
    with closing(CuttingProxy(postgres.port)) as proxy:
        through = psycopg.conninfo.make_conninfo(dsn, port=proxy.port)
        config = pipeline(tmp_path, kafka.servers, topic, **with_postgres(through))
        proxy.answered = answered

        def cut_at_the_next(_: object) -> None:
            proxy.armed = True

        accounting = run_once(config, on_epoch=cut_at_the_next)
        cuts = proxy.cuts
    assert cuts >= 5
    check(config, parts, accounting, {"postgres": served(dsn, postgres)})


def test_an_outage_longer_than_the_patience(
    tmp_path: Path, kafka: KafkaServers, postgres: PostgresServer, dsn: str
) -> None:
    parts = by_user(clickstream(2_000, seed=5), 2)
    config = pipeline(tmp_path, kafka.servers, filled_topic(kafka, parts), **with_postgres(dsn), stream__outage="500ms")
    with BackgroundRun(open_stream, config) as running:
        running.wait_for(lambda: running.reports, "an epoch")
        postgres.stop()
        try:
            with pytest.raises(UnavailableError, match="the store cannot be reached now") as caught:
                running.end()
            assert any("the next run repeats it, and nothing is lost" in note for note in caught.value.__notes__)
            with pytest.raises(UnavailableError):  # still away
                run_once(config)
        finally:
            postgres.start()
    check(config, parts, run_once(config), {"postgres": served(dsn, postgres)})


@pytest.mark.parametrize(
    ("broken", "mended", "said"),
    [
        ("REVOKE INSERT, UPDATE ON user_sessions FROM writer", "GRANT ALL ON user_sessions TO writer", "permission"),
        (
            "DROP VIEW IF EXISTS user_sessions_timed; ALTER TABLE user_sessions ALTER event_count TYPE boolean"
            " USING event_count > 0",
            "DELETE FROM user_sessions; DROP TABLE user_sessions CASCADE; "
            "CREATE TABLE user_sessions AS TABLE saved; ALTER TABLE user_sessions ADD PRIMARY KEY (uuid, session_id); "
            "ALTER TABLE user_sessions OWNER TO writer",
            "boolean",
        ),
    ],
    ids=["permission revoked", "column of another type"],
)
def test_what_waiting_does_not_mend_ends_the_run_at_once(
    tmp_path: Path, kafka: KafkaServers, postgres: PostgresServer, dsn: str, broken: str, mended: str, said: str
) -> None:
    parts = by_user(clickstream(2_000, seed=6), 2)
    topic = filled_topic(kafka, parts)
    with psycopg.connect(dsn, password=postgres.password, autocommit=True) as admin:
        admin.execute("DO $$ BEGIN CREATE ROLE writer LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        admin.execute(f"ALTER ROLE writer PASSWORD '{postgres.password}'")
        admin.execute("GRANT ALL ON SCHEMA public TO writer")
        config = pipeline(
            tmp_path, kafka.servers, topic, **with_postgres(psycopg.conninfo.make_conninfo(dsn, user="writer"))
        )
        done = threading.Event()

        def spoil(step: str) -> None:
            if step == "committed" and not done.is_set():
                done.set()
                admin.execute("CREATE TABLE saved AS TABLE user_sessions")
                admin.execute(broken)

        with pytest.raises(OutputError) as caught:
            run_once(config, on_step=spoil)
        assert said in str(caught.value)
        assert caught.value.hint
        assert postgres.password not in str(caught.value)
        with pytest.raises(OutputError, match=said):  # and again, until somebody mends it
            run_once(config)
        admin.execute(mended)
    check(config, parts, run_once(config), {"postgres": served(dsn, postgres)})
