"""Who takes part in the streaming benchmark, how each is started, and where its sessions lie afterwards.

A peer whose parts are not there, or cannot be got, keeps its row and says why.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from stream_pipeline import from_kafka, sessions_in_iceberg, write_pipeline
from stream_topic import FilledTopic, sessions_in_topic

from sessionize.testing.services.java_parts import ServiceMissing, java
from sessionize.testing.services.kafka import KafkaServers

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = HERE / "stream_peers"
BUILT = ROOT / ".cache" / "bench-stream"
PEERS_PYTHON = ROOT / ".venv-bench-stream" / "bin" / "python"
SELF = "sessionize"
BUILD_TIMEOUT_S = 900
HEAP = "-Xmx2g"
# What Flink's own scripts give a Java of version 17.
FLINK_JAVA = tuple(
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in (
        "java.lang",
        "java.lang.invoke",
        "java.lang.reflect",
        "java.net",
        "java.io",
        "java.nio",
        "java.text",
        "java.time",
        "java.util",
        "java.util.concurrent",
        "java.util.concurrent.atomic",
        "java.util.concurrent.locks",
        "sun.nio.ch",
    )
)
CAP, NO_CAP = {"max_duration": "2h", "max_duration_mode": "rolling"}, {"max_duration": "none"}


@dataclass(frozen=True, slots=True)
class Task:
    """One run: what to read, where to write. sessions: how many to find; scratch: an empty folder of the run's own."""

    servers: KafkaServers
    topic: FilledTopic
    sessions: int
    output: str
    scratch: Path
    cores: int


@dataclass(frozen=True, slots=True)
class Contender:
    """found: its sessions, None when it makes none; answers: what they must equal; missing: why it cannot take part."""

    name: str
    command: Callable[[Task], Sequence[str]]
    found: Callable[[Task], pa.Table] | None
    answers: str = "A"
    user_name: str = "user"
    missing: str | None = None


def sessionize(name: str, program: Sequence[str], *, cap: bool, events: bool, missing: str | None = None) -> Contender:
    """Our own row: from the pipeline file to the Iceberg table. program: the command, with what it takes to run it."""

    def prepared(task: Task) -> Sequence[str]:
        rules = {"gap": "30m", "lateness": "61s", **(CAP if cap else NO_CAP)}
        file = write_pipeline(
            task.scratch / "bench.toml",
            home=task.scratch / "home",
            settings={
                **from_kafka(task.servers.servers, task.topic.name),
                "rules": rules,
                "output": {"events": events},
            },
        )
        return [*program, "run", str(file), "--once"]

    def found(task: Task) -> pa.Table:
        return sessions_in_iceberg(task.scratch / "home")

    return Contender(name, prepared, found, "B" if cap else "A", "uuid", missing)


def _sessions_in_kafka(task: Task) -> pa.Table:
    return sessions_in_topic(task.servers, task.output)


def flink(name: str, state: str) -> Contender:
    """Flink SQL in one JVM. state: hashmap (on the heap) or rocksdb."""
    jars, missing = built("flink")

    def prepared(task: Task) -> Sequence[str]:
        given = (task.servers.servers, task.topic.name, task.output, state, str(task.cores), str(task.scratch / "ck"))
        return [java(), HEAP, *FLINK_JAVA, "-cp", jars, "sessionize.bench.FlinkSessions", *given]

    return Contender(name, prepared, _sessions_in_kafka, missing=missing)


def kafka_streams(name: str, guarantee: str) -> Contender:
    """Kafka Streams with its state in RocksDB and a changelog."""
    jars, missing = built("kstreams")

    def prepared(task: Task) -> Sequence[str]:
        nudges = task.servers.create_topic(f"{task.output}-nudges", 2)
        given = (task.servers.servers, task.topic.name, task.output, nudges, guarantee, str(task.cores))
        # Windows are looked at once a second: what the store forgets before that is lost, however short the replay.
        kept_ms = task.topic.ends_ms - task.topic.events.earliest_ms
        ends = (task.scratch / "state", task.topic.records, task.sessions, task.topic.ends_ms, kept_ms)
        return [java(), HEAP, "-cp", jars, "sessionize.bench.StreamsSessions", *given, *map(str, ends)]

    return Contender(name, prepared, _sessions_in_kafka, missing=missing)


def bytewax(name: str, *, recovery: bool) -> Contender:
    """bytewax with one worker."""

    def prepared(task: Task) -> Sequence[str]:
        given = [task.servers.servers, task.topic.name, task.output]
        kept = ["--recovery", str(task.scratch / "recovery")] if recovery else []
        return [str(PEERS_PYTHON), str(PEERS / "bytewax_peer.py"), *given, *kept]

    missing = None
    if not PEERS_PYTHON.exists():
        missing = f"not installed: no {PEERS_PYTHON.relative_to(ROOT)} (scripts/setup bench-stream makes it)"
    elif subprocess.run([str(PEERS_PYTHON), "-c", "import bytewax"], capture_output=True, check=False).returncode:
        missing = f"not installed: no bytewax for {PEERS_PYTHON.relative_to(ROOT)}"
    return Contender(name, prepared, _sessions_in_kafka, missing=missing)


def floor(name: str, *, columns: bool) -> Contender:
    """Reading the topic alone, in this environment: no sessions."""

    def prepared(task: Task) -> Sequence[str]:
        script = [sys.executable, str(HERE / "stream_floor.py"), task.servers.servers, task.topic.name]
        return [*script, "--columns"] if columns else script

    return Contender(name, prepared, None)


def built(project: str) -> tuple[str, str | None]:
    """The class path of a Java peer, built when its source is newer; or why it cannot be built."""
    source, target = PEERS / project, BUILT / project
    jar, path = target / "job.jar", f"{target / 'job.jar'}{os.pathsep}{target / 'libs'}/*"
    try:
        java()
    except ServiceMissing as why:
        return path, f"not installed: {why}"
    newest = max(file.stat().st_mtime for file in source.rglob("*") if file.is_file())
    if jar.exists() and jar.stat().st_mtime >= newest:
        return path, None
    maven = shutil.which("mvn")
    if maven is None:
        return path, "not installed: there is no Maven (mvn) to get it with"
    command = [maven, "-q", "-B", "-f", str(source / "pom.xml"), "clean", "package"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return path, f"not installed: Maven was not done within {BUILD_TIMEOUT_S} s"
    if done.returncode:
        errors = re.findall(r"^\[ERROR\] (.+)", done.stdout, re.MULTILINE) or ["it said nothing"]
        return path, f"not installed: Maven: {errors[0][:160]}"
    return path, None


OURS: dict[str, tuple[bool, bool]] = {  # name -> (2 h cap, archive of events)
    SELF: (False, True),
    "sessionize, no archive": (False, False),
    "sessionize, 2 h cap": (True, True),
}
OTHERS: dict[str, Callable[[str], Contender]] = {
    "floor-consume": lambda name: floor(name, columns=False),
    "floor-columns": lambda name: floor(name, columns=True),
    "flink-heap": lambda name: flink(name, "hashmap"),
    "flink-rocksdb": lambda name: flink(name, "rocksdb"),
    "kstreams-exact": lambda name: kafka_streams(name, "exactly_once_v2"),
    "kstreams": lambda name: kafka_streams(name, "at_least_once"),
    "bytewax-recovery": lambda name: bytewax(name, recovery=True),
    "bytewax": lambda name: bytewax(name, recovery=False),
}


def line_up(peers: Sequence[str], command: Path, *, ours: Sequence[str]) -> list[Contender]:
    """Those named, in the order of the table."""
    missing = None if command.exists() else f"not installed: no {command}"
    rows = [sessionize(name, [str(command)], cap=OURS[name][0], events=OURS[name][1], missing=missing) for name in ours]
    return [*rows, *(OTHERS[name](name) for name in peers)]
