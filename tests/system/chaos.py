"""Kills a running pipeline again and again, and compares every table with the oracle at the end.

    python tests/system/chaos.py --kills 1000            # figures as a table
    python tests/system/chaos.py --kills 50 --json       # for the tests

A process starts the pipeline, which kills itself (SIGKILL) before a named step of an epoch, or at a random moment; then
the next one goes on. One broker, PostgreSQL, and everything else the pipeline writes are real. Loaded once and forked
for every run, so that a run costs what the pipeline does and not what Python takes to start.
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
from collections import Counter
from collections.abc import Callable, Iterable
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
from sessionize.testing.services.kafka import KafkaBroker, KafkaServers
from sessionize.testing.services.postgres import PostgresServer

PASSWORD = "CHAOS_PASSWORD"
FAR_OFF = 4_000_000_000_000  # what the generator dates beyond it is meant to be in the future
TOPICS = """[output.kafka]
sessions = "{topic}-sessions"
enriched = "{topic}-enriched"
late = "{topic}-late"
rejected = "{topic}-rejected"
"""
KINDS = ("sessions", "enriched", "late", "rejected")
STEPS = ("plan", "planned", "write", "commit", "committed", "repeat")
PARTITIONS = 4
LATENESS = "5m"
RECONCILE_KILLS = 4  # of each stream, besides the others
COMPARED = ("session_id", "session_start_time_ms", "session_end_time_ms", "event_count", "start_reason", "end_reason")

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


class Killer:
    """Ends this process before the n-th step that has a name, or after some seconds."""

    def __init__(self, chance: random.Random) -> None:
        self.step = chance.choice([*STEPS, None, None])
        self.countdown = chance.randint(1, 3)
        self.after_s = chance.uniform(0.0, 0.5)
        self.epochs_left = 4

    def __call__(self, step: str) -> None:
        if step == "committed":
            self.epochs_left -= 1
            if self.epochs_left == 0:  # the step has not come; a run without a kill would use the records up
                os.kill(os.getpid(), signal.SIGKILL)
        if self.step is not None and step.startswith(self.step):
            self.countdown -= 1
            if self.countdown == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def arm(self) -> None:
        if self.step is None:
            timer = threading.Timer(self.after_s, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()


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


def run_once(config: PipelineConfig, kill: Killer | None) -> int:
    """One run of the pipeline in a process of its own; its exit status, negative for a signal."""

    def run() -> bool:
        if kill is not None:
            kill.arm()
        with open_stream(config, stopping=threading.Event(), on_step=kill or (lambda step: None)) as opened:
            totals = opened.run()
        return totals.balanced and totals.pending == 0

    return in_a_fork(run)


def reconcile_once(config: PipelineConfig, chance: random.Random | None) -> int:
    """Work the late events in, in a process of its own that may be killed around a replacement in a store."""

    def run() -> bool:
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
        return done.waiting == 0

    return in_a_fork(run)


def in_a_fork(run: Callable[[], bool]) -> int:
    """The exit status of a process that does this; 0 when it says yes."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if run() else 3
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def campaign(
    kafka: KafkaServers,
    dsn: str | None,
    folder: Path,
    *,
    kills: int,
    seed: int,
    epoch_rows: int = 250,
    with_topics: bool,
) -> Campaign:
    """Kill until it has happened so often, let the rest run through, and compare."""
    chance, result, started = random.Random(seed), Campaign(), time.monotonic()
    # a run comes about one epoch far, and not every kill finds an epoch to interrupt
    records = make_records(max(4_000, int(1.2 * kills * epoch_rows)), seed)
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
            epoch_rows=epoch_rows,
            home=folder / "home",
        )
    )
    config = load_pipeline(str(path), environ={})
    result.records = len(records)
    ended = False
    while not ended:
        kill = Killer(chance) if result.total_kills < kills else None
        status = run_once(config, kill)
        result.runs += 1
        if status == -signal.SIGKILL and kill is not None:
            result.kills[kill.step or "any moment"] += 1
        elif status == 0:
            ended = True
        else:
            raise RuntimeError(f"run {result.runs} ended with {status}")
    oracle = Oracle.of_json(parts, config.dialect(), lateness_ms=config.rules.lateness_ms, latest_ms=FAR_OFF)
    compare(result, oracle, config, dsn)
    if with_topics:
        compare_topics(result, oracle, config, kafka, topic)
    for number in range(RECONCILE_KILLS + 1):
        status = reconcile_once(config, chance if number < RECONCILE_KILLS else None)
        if status == -signal.SIGKILL:
            result.kills["reconcile"] += 1
        elif status:
            raise RuntimeError(f"reconciling ended with {status}")
    compare_sessions(result, oracle, config, dsn, late_too=True)
    result.seconds = time.monotonic() - started
    return result


def compare(result: Campaign, oracle: Oracle, config: PipelineConfig, dsn: str | None) -> None:
    """Every table that there is against what the oracle says, row for row."""
    compare_sessions(result, oracle, config, dsn)
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


def compare_sessions(
    result: Campaign, oracle: Oracle, config: PipelineConfig, dsn: str | None, *, late_too: bool = False
) -> None:
    """The sessions wherever they are. late_too: after reconciling."""
    made = oracle.sessions(config.policy(), config.event_rules(), late_too=late_too)
    expected = Counter(_session(row["user"], row) for row in made)
    columns, home = ", ".join(COMPARED), config.home
    when = " reconciled" if late_too else ""

    def check(name: str, seen: Counter[Any]) -> None:
        result.check(f"{name}{when}", seen, expected)

    sessions = run_query(home, f"SELECT uuid, {columns} FROM user_sessions").to_pylist()
    check("iceberg user_sessions", Counter(_session(row["uuid"], row) for row in sessions))
    with sqlite3.connect(home / "store.sqlite") as store:
        rows = store.execute(f"SELECT uuid, {columns} FROM user_sessions").fetchall()
        check("sqlite", Counter(rows))
    if dsn is not None:
        import psycopg

        with psycopg.connect(dsn) as served:
            rows = served.execute(f"SELECT uuid, {columns} FROM user_sessions").fetchall()
            check("postgres", Counter(rows))


def compare_topics(result: Campaign, oracle: Oracle, config: PipelineConfig, kafka: KafkaServers, topic: str) -> None:
    """The topics that were written, as who reads committed records only sees them."""
    expected = Counter(_session(row["user"], row) for row in oracle.sessions(config.policy(), config.event_rules()))
    on_time = Counter((row["user"], row["time"], row["id"]) for row in oracle.on_time)
    check = result.check
    sent = [json.loads(value) for value in values_of(kafka, f"{topic}-sessions")]
    check("kafka sessions", Counter(_session(row["uuid"], row) for row in sent), expected)
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


def _session(user: str, row: Any) -> tuple[Any, ...]:
    return (user, *(row[name] for name in COMPARED))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
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
        for number, kills in enumerate(_parts(options.kills, options.each)):
            place = folder / str(number)
            place.mkdir()
            part = campaign(
                kafka,
                _database(dsn, number),
                place,
                kills=kills,
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
            sys.stdout.write(f"  {step:<12} {count:>6}\n")
    sys.exit(1 if total.differences else 0)


def _parts(kills: int, each: int) -> list[int]:
    return [min(each, kills - at) for at in range(0, kills, each)]


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
