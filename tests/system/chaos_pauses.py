"""Pauses a pipeline that reads what happens now (SIGSTOP), kills it, and moves its clock: nothing punctual is late.

    python -m tests.system.chaos_pauses --servers 127.0.0.1:9092 --pauses 30

Events are sent as they happen, in bursts with silences between them in which partitions become idle. Meanwhile the
process that reads them is stopped for some seconds, or killed and started again, and its wall clock jumps by hours.
Whatever comes, each event was punctual, so none may be late, and every table equals the oracle at the end.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

from confluent_kafka import Producer

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.streams.run import open_stream
from sessionize.testing.oracle import Oracle
from sessionize.testing.records import FAR_OFF_MS
from sessionize.testing.services.kafka import KafkaServers
from sessionize.testing.tables import event_differences, session_differences
from tests.system.campaign import USER, Campaign, run_once
from tests.system.kills import Running, start

_PARTITIONS = 2
_USERS = 40
_HOUR_MS = 3_600_000
_STEP_S = 1.7  # how long the wall clock stays where it jumped to
_STEPS_MS = (0, 0, 0, 2 * _HOUR_MS, 0, 0, 0, -3 * _HOUR_MS, 0, 0, -60_000)
_BETWEEN_S = (*(0.02,) * 30, *(0.2,) * 5, 2.5)  # from one burst of events to the next
_PIPELINE = """
name = "pauses"
[input]
kind = "kafka"
dialect = "clickstream"
[input.kafka]
servers = "{servers}"
topic = "{topic}"
[rules]
gap = "1s"
lateness = "2s"
[output.sqlite]
path = "store.sqlite"
[stream]
epoch = "300ms"
poll = "20ms"
idle_after = "1s"
reconcile = "none"
[run]
home = "{home}"
log_level = "ERROR"
"""


class JumpingClock:
    """The machine's clocks, of which the wall clock jumps by hours every few seconds."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + _STEPS_MS[int(time.monotonic() / _STEP_S) % len(_STEPS_MS)]

    def monotonic_s(self) -> float:
        return time.monotonic()


def send(servers: str, topic: str, sent: Path, *, seed: int) -> int:
    """Send events as they happen until SIGTERM. sent: the file that gets each record, after its partition's number."""
    chance, stopping = random.Random(seed), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    producer = Producer({"bootstrap.servers": servers, "max.in.flight": 1, "linger.ms": 5})
    with sent.open("wb") as file:
        while not stopping.wait(chance.choice(_BETWEEN_S)):
            active = chance.choice([(0, 1), (0, 1), (0,), (1,)])
            now_ms = time.time_ns() // 1_000_000
            for _ in range(chance.randint(1, 12)):
                p = chance.choice(active)
                event = {
                    "uuid": f"u{chance.randrange(_USERS) * _PARTITIONS + p}",
                    "event_timestamp": str(now_ms - chance.randint(0, 500)),
                    "event_id": uuid.uuid4().hex,
                    "page_name": "p",
                }
                record = json.dumps(event).encode()
                producer.produce(topic, record, partition=p)
                file.write(b"%d%s\n" % (p, record))
            producer.flush()
    return 0


def campaign(kafka: KafkaServers, folder: Path, *, pauses: int, seed: int) -> Campaign:
    """Disturb it so often, let it end, and compare."""
    chance, result, started = random.Random(seed), Campaign(), time.monotonic()
    topic = kafka.create_topic(f"pauses-{seed}-{os.getpid()}", _PARTITIONS)
    file = folder / "pauses.toml"
    file.write_text(_PIPELINE.format(servers=kafka.servers, topic=topic, home=folder / "home"))
    config = load_pipeline(str(file), environ={})
    sent = folder / "sent"
    sender = start(lambda step: send(kafka.servers, topic, sent, seed=seed), None)
    try:
        running = _reader(config)
        result.runs += 1
        for _ in range(pauses):
            time.sleep(chance.uniform(0.3, 2.0))
            if chance.random() < 0.7:
                _pause(running, chance.uniform(0.5, 4.0))
                result.kills["paused"] += 1
            else:
                _kill(running)
                result.kills["killed"] += 1
                running = _reader(config)
                result.runs += 1
        _kill(running)
    finally:
        os.kill(sender.child, signal.SIGTERM)
        sender.wait()
    parts: list[list[bytes]] = [[] for _ in range(_PARTITIONS)]
    for line in sent.read_bytes().splitlines():
        parts[int(line[:1])].append(line[1:])
    once = config.model_copy(update={"run": config.run.model_copy(update={"once": True})})
    status, _ = run_once(once, None)
    if status:
        raise RuntimeError(f"the last run ended with {status}")
    result.records = sum(map(len, parts))
    oracle = Oracle.of_json(
        parts,
        config.dialect(),
        lateness_ms=config.rules.lateness_ms,
        watermark=config.rules.watermark,
        latest_ms=FAR_OFF_MS,
    )
    if oracle.late:
        raise RuntimeError(f"{len(oracle.late)} events were sent late")
    expected = oracle.sessions(config.policy(), config.event_rules())
    result.differences += event_differences(config.home, oracle, user=USER)
    result.differences += session_differences(config.home, expected, user=USER)
    result.seconds = time.monotonic() - started
    return result


def _reader(config: PipelineConfig) -> Running:
    def run(step: object) -> int:
        del step
        with open_stream(config, stopping=threading.Event(), clock=JumpingClock()) as opened:
            opened.run()
        return 0

    return start(run, None)


def _pause(running: Running, seconds: float) -> None:
    os.kill(running.child, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(running.child, signal.SIGCONT)


def _kill(running: Running) -> None:
    os.kill(running.child, signal.SIGKILL)
    status, _ = running.wait()
    if status != -signal.SIGKILL:
        raise RuntimeError(f"a reader ended by itself, with {status}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", required=True)
    parser.add_argument("--pauses", type=int, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sessionize-pauses-") as folder:
        done = campaign(KafkaServers(options.servers), Path(folder), pauses=options.pauses, seed=options.seed)
    found = {"kills": done.total_kills, "by_step": done.kills, "runs": done.runs, "records": done.records,
             "differences": done.differences, "seconds": round(done.seconds)}  # fmt: skip
    sys.stdout.write(json.dumps(found) + "\n")
    sys.exit(1 if done.differences else 0)


if __name__ == "__main__":
    main()
