"""One stream that is killed again and again until it is through, and every table of it compared with the oracle.

Everything that the pipeline reads and writes is real. It is loaded once and forked for every run (kills.py), so that a
run costs what the pipeline does and not what Python takes to start.
"""

import json
import os
import random
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa

from sessionize.app.build import open_stores
from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.streams.run import open_stream
from sessionize.app.tables.reconcile import reconcile_tables
from sessionize.connectors.sql_store import StoreSink
from sessionize.testing.observers import Calls
from sessionize.testing.oracle import Oracle
from sessionize.testing.records import FAR_OFF_MS, by_user, clickstream
from sessionize.testing.services.kafka import KafkaServers
from sessionize.testing.tables import (
    COMPARED,
    difference,
    event_differences,
    events_expected,
    session_differences,
    session_row,
)
from tests.system.kills import Killer, start

PASSWORD = "CHAOS_PASSWORD"  # the environment variable that has PostgreSQL's
EPOCH_ROWS = 100
USER = "uuid"  # what the dialect calls the user
_KINDS = ("sessions", "enriched", "late", "rejected")  # of topics that are written
_PARTITIONS = 4
_RECONCILE_KILLS = 4  # of each stream, besides the others

_CONFIG = """
name = "chaos"
[input]
kind = "kafka"
dialect = "clickstream"
[input.kafka]
servers = "{servers}"
topic = "{topic}"
[rules]
lateness = "5m"
[output.sqlite]
path = "store.sqlite"
[output.lake]
path = "lake"
[stream]
reconcile = "none"
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
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)

    @property
    def total_kills(self) -> int:
        return sum(self.kills.values())

    def __add__(self, other: "Campaign") -> "Campaign":
        return Campaign(
            self.records + other.records,
            self.runs + other.runs,
            self.kills + other.kills,
            self.seconds + other.seconds,
            self.differences + other.differences,
        )


@dataclass(frozen=True, slots=True)
class Stream:
    """A topic full of records, and the pipeline that reads it. parts: the records of each partition."""

    kafka: KafkaServers
    topic: str
    parts: list[list[bytes]]
    file: Path

    @classmethod
    def filled(
        cls, kafka: KafkaServers, folder: Path, name: str, records: int, *, seed: int, more: str = ""
    ) -> "Stream":
        """About so many records, some out of order, late, double or broken. more: sections that may name {topic}."""
        made = clickstream(
            records,
            seed=seed,
            duration_ms=12 * 3_600_000,
            out_of_order_ms=60_000,
            late_by_ms=900_000,
            duplicate_fraction=0.01,
        )
        parts = by_user(made, _PARTITIONS)
        topic = kafka.create_topic(f"{name}-{seed}-{os.getpid()}", _PARTITIONS)
        for number, part in enumerate(parts):
            kafka.send(topic, part, partition=number)
        text = _CONFIG + more
        path = folder / f"{name}.toml"
        path.write_text(text.format(servers=kafka.servers, topic=topic, epoch_rows=EPOCH_ROWS, home=folder / "home"))
        return cls(kafka, topic, parts, path)

    def config(self, *, in_one_epoch: bool = False) -> PipelineConfig:
        """in_one_epoch: what is left, for a run that is to end soon."""
        overrides = {"stream.epoch_rows": 1_000_000} if in_one_epoch else {}
        return load_pipeline(str(self.file), environ={}, overrides=overrides)

    def oracle(self) -> Oracle:
        """What the tables have to come to."""
        config = self.config()
        return Oracle.of_json(
            self.parts,
            config.dialect(),
            lateness_ms=config.rules.lateness_ms,
            watermark=config.rules.watermark,
            latest_ms=FAR_OFF_MS,
        )

    @property
    def records(self) -> int:
        """How many there are."""
        return sum(map(len, self.parts))


def campaign(
    kafka: KafkaServers, dsn: str | None, folder: Path, kills: Iterable[Killer], *, seed: int, with_topics: bool
) -> Campaign:
    """Kill as often as told, let the rest run through, and compare."""
    result, started, todo = Campaign(), time.monotonic(), deque(kills)
    more = "" if dsn is None else f'[output.postgres]\ndsn = "{dsn}"\npassword_env = "{PASSWORD}"\n'
    if with_topics:
        more += "[output.kafka]\n" + "".join(f'{kind} = "{{topic}}-{kind}"\n' for kind in _KINDS)
    # an epoch is lost to few kills; what is left at the end goes in one
    stream = Stream.filled(kafka, folder, "chaos", 3 * EPOCH_ROWS * (len(todo) + 10), seed=seed, more=more)
    for kind in _KINDS:
        kafka.create_topic(f"{stream.topic}-{kind}", 1)
    result.records = stream.records
    config, planned = stream.config(), False
    while todo:
        kill = Killer("planned") if todo[0].needs_plan and not planned else todo.popleft()
        where = _killed(result, config, kill)
        planned = _left_planned(where, planned)
    _killed(result, stream.config(in_one_epoch=True), None)
    oracle = stream.oracle()
    result.differences += _sessions(config, oracle, dsn)
    result.differences += event_differences(config.home, oracle, user=USER)
    if with_topics:
        result.differences += _topics(stream, config, oracle)
    chance = random.Random(seed)
    for number in range(_RECONCILE_KILLS + 1):
        status = reconcile_once(config, chance if number < _RECONCILE_KILLS else None)
        if status == -signal.SIGKILL:
            result.kills["reconcile"] += 1
        elif status:
            raise RuntimeError(f"reconciling ended with {status}")
    result.differences += [f"reconciled {line}" for line in _sessions(config, oracle, dsn, late_too=True)]
    result.seconds = time.monotonic() - started
    return result


def run_once(config: PipelineConfig, kill: Killer | None) -> tuple[int, str]:
    """One run of the pipeline in a process of its own; its exit status, and where it was killed."""

    def run(step: Callable[[str], None]) -> int:
        with open_stream(config, stopping=threading.Event(), observer=Calls(step=step)) as opened:
            accounting = opened.run()
        return 0 if accounting.balanced and accounting.pending == 0 else 3

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


def _sessions(config: PipelineConfig, oracle: Oracle, dsn: str | None, *, late_too: bool = False) -> list[str]:
    """Where the sessions of the tables and the stores differ. late_too: after reconciling."""
    expected = oracle.sessions(config.policy(), config.event_rules(), late_too=late_too)
    served: dict[str, list[Any]] = {}
    if dsn is not None:
        with psycopg.connect(dsn) as opened:
            served["postgres"] = opened.execute(f"SELECT {USER}, {', '.join(COMPARED)} FROM user_sessions").fetchall()
    return session_differences(config.home, expected, user=USER, sessions=served)


def _topics(stream: Stream, config: PipelineConfig, oracle: Oracle) -> list[str]:
    """Where the topics that were written differ, as who reads committed records only sees them."""

    def sent(kind: str) -> list[Any]:
        return [json.loads(value) for value in stream.kafka.committed(f"{stream.topic}-{kind}")]

    def events(kind: str) -> Counter[Any]:
        return Counter((row[USER], row["event_time_ms"], row["event_id"]) for row in sent(kind))

    made = oracle.sessions(config.policy(), config.event_rules())
    rejected = Counter((row["source"], row["line_number"]) for row in sent("rejected"))
    found = [
        difference(
            "kafka sessions",
            Counter(session_row(row[USER], row) for row in sent("sessions")),
            Counter(session_row(row["user"], row) for row in made),
        ),
        difference("kafka enriched", events("enriched"), events_expected(oracle.on_time)),
        difference("kafka late", events("late"), events_expected(oracle.late)),
        difference("kafka rejected, each once", rejected, Counter(rejected.keys())),
    ]
    if rejected.total() != oracle.rejected:
        found.append(f"kafka rejected: {rejected.total()}, not {oracle.rejected}")
    return [line for line in found if line is not None]
