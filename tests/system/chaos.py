"""Kills a running pipeline again and again, and compares every table with the oracle at the end.

    python -m tests.system.chaos --kills 1000           # figures as a table
    python -m tests.system.chaos --each-point --json    # every point that has a name, once; for the tests

A process starts the pipeline, which kills itself (SIGKILL) at a named point of an epoch (kills.py), or at a random
moment; then the next one goes on. One broker, PostgreSQL, and everything else the pipeline writes are real. Loaded once
and forked for every run, so that a run costs what the pipeline does and not what Python takes to start.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from zlib import crc32

import pyarrow as pa
import pyarrow.dataset as ds
from confluent_kafka import Consumer, KafkaError, TopicPartition

from sessionize.app.config import PipelineConfig, load_pipeline
from sessionize.app.queries import run_query
from sessionize.app.reconciling import reconcile_tables
from sessionize.app.stream_parts import open_stores
from sessionize.app.streaming import open_stream
from sessionize.connectors.generator.settings import GeneratorSettings
from sessionize.connectors.generator.writer import write_lines
from sessionize.connectors.store import StoreSink
from sessionize.testing.oracle import Oracle
from sessionize.testing.records import FAR_OFF_MS
from sessionize.testing.services.kafka import KafkaBroker, KafkaServers
from sessionize.testing.services.postgres import PostgresServer
from sessionize.testing.tables import COMPARED, session_row, sessions_seen
from tests.system.kills import Killer, points, start

PASSWORD = "CHAOS_PASSWORD"
TOPICS = """[output.kafka]
sessions = "{topic}-sessions"
enriched = "{topic}-enriched"
late = "{topic}-late"
rejected = "{topic}-rejected"
"""
EPOCH_ROWS = 100
KINDS = ("sessions", "enriched", "late", "rejected")
PARTITIONS = 4
LATENESS = "5m"
RECONCILE_KILLS = 4  # of each stream, besides the others

CONFIG = """
name = "chaos"
[input]
kind = "kafka"
dialect = "clickstream"
[input.kafka]
servers = "{servers}"
topic = "{topic}"
[rules]
lateness = "{lateness}"
[output.sqlite]
path = "store.sqlite"
[output.lake]
path = "lake"
{topics}
{postgres}
[stream]
epoch = "1h"
epoch_rows = {epoch_rows}
poll = "20ms"
[run]
once = true
home = "{home}"
log_level = "ERROR"
"""


@dataclass(slots=True)
class Campaign:
    """What happened: runs, kills by the step before which they came, and where tables differ from the oracle."""

    records: int = 0
    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    epochs: int = 0
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)

    def check(self, name: str, seen: Counter[Any], wanted: Counter[Any]) -> None:
        """Note a table that differs."""
        if seen != wanted:
            self.differences.append(f"{name}: {(wanted - seen).total()} missing, {(seen - wanted).total()} too many")

    @property
    def total_kills(self) -> int:
        return sum(self.kills.values())


def make_records(count: int, seed: int) -> list[bytes]:
    """Clickstream records as they arrive: some out of order, late, double, broken."""
    out = BytesIO()
    settings = GeneratorSettings(
        profile="clickstream",
        users=max(20, count // 60),
        events=count,
        duration_ms=12 * 3_600_000,
        seed=seed,
        out_of_order_ms=60_000,
        late_fraction=0.02,
        late_by_ms=900_000,
        duplicate_fraction=0.01,
        broken_fraction=0.01,
    )
    write_lines(settings, out)
    return out.getvalue().splitlines()


def partitioned(records: Iterable[bytes]) -> list[list[bytes]]:
    """By user, as a keyed producer does; broken records anywhere."""
    parts: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
    for record in records:
        try:
            key = str(json.loads(record)["uuid"]).encode()
        except (ValueError, KeyError, TypeError, RecursionError):
            key = record
        parts[crc32(key) % PARTITIONS].append(record)
    return parts


def run_once(config: PipelineConfig, kill: Killer | None) -> tuple[int, str]:
    """One run of the pipeline in a process of its own; its exit status, and where it was killed."""

    def run(step: Callable[[str], None]) -> int:
        with open_stream(config, stopping=threading.Event(), on_step=step) as opened:
            totals = opened.run()
        return 0 if totals.balanced and totals.pending == 0 else 3

    return start(run, kill).wait()


def reconcile_once(config: PipelineConfig, chance: random.Random | None) -> int:
    """Work the late events in, in a process of its own that may be killed around a replacement in a store."""

    def run(step: object) -> int:
        if chance is not None:
            real, left, after = StoreSink.replace, [chance.randint(1, 8)], chance.random() < 0.5

            def replace(self: StoreSink, removed: pa.Table, added: pa.Table, *, token: str) -> None:
                left[0] -= 1
                if left[0] == 0 and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                real(self, removed, added, token=token)
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            StoreSink.replace = replace  # type: ignore[method-assign]  # this process ends soon
        with open_stores(config) as stores:
            done = reconcile_tables(config.home, config, stores=stores, users_max=5)
        return 0 if done.waiting == 0 else 3

    return start(run, None).wait()[0]


def campaign(
    kafka: KafkaServers, dsn: str | None, folder: Path, kills: Iterable[Killer], *, seed: int, with_topics: bool
) -> Campaign:
    """Kill as often as told, let the rest run through, and compare."""
    result, started, todo = Campaign(), time.monotonic(), deque(kills)
    # an epoch is lost to few kills; what is left at the end goes in one
    records = make_records(3 * EPOCH_ROWS * (len(todo) + 10), seed)
    parts = partitioned(records)
    topic = kafka.create_topic(f"chaos-{seed}-{os.getpid()}", PARTITIONS)
    for kind in KINDS:
        kafka.create_topic(f"{topic}-{kind}", 1)
    for number, part in enumerate(parts):
        kafka.send(topic, part, partition=number)
    path = folder / "chaos.toml"
    path.write_text(
        CONFIG.format(
            servers=kafka.servers,
            topic=topic,
            lateness=LATENESS,
            postgres="" if dsn is None else f'[output.postgres]\ndsn = "{dsn}"\npassword_env = "{PASSWORD}"',
            topics=TOPICS.format(topic=topic) if with_topics else "",
            epoch_rows=EPOCH_ROWS,
            home=folder / "home",
        )
    )
    config = load_pipeline(str(path), environ={})
    result.records = len(records)
    planned = False
    while todo:
        kill = Killer("planned") if todo[0].needs_plan and not planned else todo.popleft()
        where = _killed(result, config, kill)
        planned = _left_planned(where, planned)
    _killed(result, load_pipeline(str(path), environ={}, overrides={"stream.epoch_rows": 1_000_000}), None)
    oracle = Oracle.of_json(parts, config.dialect(), lateness_ms=config.rules.lateness_ms, latest_ms=FAR_OFF_MS)
    compare(result, oracle, config, dsn)
    if with_topics:
        compare_topics(result, oracle, config, kafka, topic)
    chance = random.Random(seed)
    for number in range(RECONCILE_KILLS + 1):
        status = reconcile_once(config, chance if number < RECONCILE_KILLS else None)
        if status == -signal.SIGKILL:
            result.kills["reconcile"] += 1
        elif status:
            raise RuntimeError(f"reconciling ended with {status}")
    compare_sessions(result, oracle, config, dsn, late_too=True)
    result.seconds = time.monotonic() - started
    return result


def _left_planned(where: str, before: bool) -> bool:
    """Whether an epoch is surely planned and not committed, after a kill there."""
    if where in ("recover", "repeat"):
        return before
    if where in ("repeat, committed", "delta sync_folder"):
        return False
    return where in ("planned", "commit") or where.startswith(("write", "repeat", "delta"))


def _killed(result: Campaign, config: PipelineConfig, kill: Killer | None) -> str:
    """Run once, and note it. Errors: RuntimeError for any other end than that which was asked for."""
    status, where = run_once(config, kill)
    result.runs += 1
    if status != (0 if kill is None else -signal.SIGKILL):
        raise RuntimeError(f"run {result.runs} ended with {status}, to be killed at {kill and kill.point}")
    if kill is not None:
        result.kills[where] += 1
    return where


def compare(result: Campaign, oracle: Oracle, config: PipelineConfig, dsn: str | None) -> None:
    """Every table that there is against what the oracle says, row for row."""
    compare_sessions(result, oracle, config, dsn)
    compare_events(result, oracle, config)


def compare_sessions(
    result: Campaign, oracle: Oracle, config: PipelineConfig, dsn: str | None, *, late_too: bool = False
) -> None:
    """The sessions wherever they are. late_too: after reconciling."""
    made = oracle.sessions(config.policy(), config.event_rules(), late_too=late_too)
    expected = Counter(session_row(row["user"], row) for row in made)
    columns, home = ", ".join(COMPARED), config.home
    when = " reconciled" if late_too else ""

    def check(name: str, seen: Counter[Any]) -> None:
        result.check(f"{name}{when}", seen, expected)

    sessions = run_query(home, f"SELECT uuid, {columns} FROM user_sessions").to_pylist()
    check("iceberg user_sessions", Counter(session_row(row["uuid"], row) for row in sessions))
    with sqlite3.connect(home / "store.sqlite") as store:
        rows = store.execute(f"SELECT uuid, {columns} FROM user_sessions").fetchall()
        check("sqlite", sessions_seen(rows))
    if dsn is not None:
        import psycopg

        with psycopg.connect(dsn) as served:
            rows = served.execute(f"SELECT uuid, {columns} FROM user_sessions").fetchall()
            check("postgres", sessions_seen(rows))


def compare_events(result: Campaign, oracle: Oracle, config: PipelineConfig) -> None:
    """The events, wherever they are kept, and how many records were rejected."""
    check, home = result.check, config.home
    on_time = Counter((row["user"], row["time"], row["id"]) for row in oracle.on_time)
    late = Counter((row["user"], row["time"], row["id"]) for row in oracle.late)
    for table, wanted in (("events", on_time), ("late_events", late)):
        rows = run_query(home, f"SELECT uuid, event_time_ms, event_id FROM {table}").to_pylist()
        check(f"iceberg {table}", Counter(tuple(row.values()) for row in rows), wanted)
    (rejected,) = run_query(home, "SELECT count(*) AS n FROM rejected_events").to_pylist()
    check("iceberg rejected_events", Counter(n=rejected["n"]), Counter(n=oracle.rejected))
    lake = ds.dataset(str(home / "lake"), format="parquet", partitioning="hive", exclude_invalid_files=True)
    lake_rows = lake.to_table(columns=["uuid", "event_time_ms", "event_id"]).to_pylist()
    check("lake", Counter(tuple(row.values()) for row in lake_rows), on_time)


def compare_topics(result: Campaign, oracle: Oracle, config: PipelineConfig, kafka: KafkaServers, topic: str) -> None:
    """The topics that were written, as who reads committed records only sees them."""
    expected = Counter(session_row(row["user"], row) for row in oracle.sessions(config.policy(), config.event_rules()))
    on_time = Counter((row["user"], row["time"], row["id"]) for row in oracle.on_time)
    check = result.check
    sent = [json.loads(value) for value in values_of(kafka, f"{topic}-sessions")]
    check("kafka sessions", Counter(session_row(row["uuid"], row) for row in sent), expected)
    sent = [json.loads(value) for value in values_of(kafka, f"{topic}-enriched")]
    check("kafka enriched", Counter((r["uuid"], r["event_time_ms"], r["event_id"]) for r in sent), on_time)
    sent = [json.loads(value) for value in values_of(kafka, f"{topic}-late")]
    late = Counter((row["user"], row["time"], row["id"]) for row in oracle.late)
    check("kafka late", Counter((r["uuid"], r["event_time_ms"], r["event_id"]) for r in sent), late)
    sent = [json.loads(value) for value in values_of(kafka, f"{topic}-rejected")]
    check("kafka rejected", Counter(n=len(sent)), Counter(n=oracle.rejected))
    places = Counter((r["source"], r["line_number"]) for r in sent)
    check("kafka rejected, each once", places, Counter(places.keys()))


def values_of(kafka: KafkaServers, topic: str) -> list[bytes]:
    """Everything that is committed in the first partition of a topic."""
    settings = {"bootstrap.servers": kafka.servers, "group.id": "chaos", "isolation.level": "read_committed",
                "enable.partition.eof": True, "auto.offset.reset": "earliest"}  # fmt: skip
    consumer, values = Consumer(settings), list[bytes]()
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        while True:
            message = consumer.poll(30)
            if message is None:
                raise TimeoutError(f"topic {topic} does not end")
            error = message.error()
            if error and error.code() == KafkaError._PARTITION_EOF:
                return values
            values.append(bytes(message.value() or b""))
    finally:
        consumer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--each-point", action="store_true", help="kill at every point that has a name, once")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--each", type=int, default=100, help="kills of one stream, before the next one begins")
    parser.add_argument("--servers", help="Kafka that is running already")
    parser.add_argument("--no-topics", action="store_true", help="leave out the Kafka topics that are written")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    pa.set_cpu_count(1)  # a fork takes no threads along
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="sessionize-chaos-")))
        if options.servers is None:
            kafka = opened.enter_context(KafkaBroker(folder / "kafka")).servers
        else:
            kafka = KafkaServers(options.servers)
        served = opened.enter_context(PostgresServer())
        os.environ[PASSWORD] = served.password
        os.environ["PGPASSWORD"] = served.password  # for what compares
        dsn = served.dsn
        total, tell = Campaign(), sys.stderr.write
        for number, kills in enumerate(_campaigns(options)):
            place = folder / str(number)
            place.mkdir()
            part = campaign(
                kafka,
                _database(dsn, number),
                place,
                kills,
                seed=options.seed + number,
                with_topics=not options.no_topics,
            )
            _add(total, part)
            tell(f"seed {options.seed + number}: {part.records:,} records, {part.runs} runs, {part.total_kills} kills, "
                 f"{part.seconds:.0f} s, {'; '.join(part.differences) or 'all tables equal'}\n")  # fmt: skip
    if options.json:
        sys.stdout.write(json.dumps({"kills": total.total_kills, "by_step": total.kills, "runs": total.runs,
                                     "records": total.records, "differences": total.differences}) + "\n")  # fmt: skip
    else:
        sys.stdout.write(
            f"\n{total.total_kills} kills in {total.runs} runs over {total.records:,} records, {total.seconds:.0f} s\n"
        )
        for step, count in sorted(total.kills.items()):
            sys.stdout.write(f"  {step:<34} {count:>6}\n")
    sys.exit(1 if total.differences else 0)


def _campaigns(options: argparse.Namespace) -> Iterator[list[Killer]]:
    """The kills of each stream."""
    if options.each_point:
        yield [Killer(point) for point in points(with_topics=not options.no_topics)]
        return
    chance = random.Random(options.seed)
    for at in range(0, options.kills, options.each):
        count = min(options.each, options.kills - at)
        yield [Killer.somewhere(chance, with_topics=not options.no_topics) for _ in range(count)]


def _database(dsn: str, number: int) -> str:
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE chaos_{number}")
        parts: Callable[..., str] = psycopg.conninfo.make_conninfo
        return parts(dsn, dbname=f"chaos_{number}")


def _add(total: Campaign, part: Campaign) -> None:
    total.records += part.records
    total.runs += part.runs
    total.kills.update(part.kills)
    total.seconds += part.seconds
    total.differences += part.differences


if __name__ == "__main__":
    main()
