"""How long until an event is seen: in the live view (Redis), and as a final session in Iceberg.

    .venv/bin/python benchmarks/stream_latency.py --rate 1000 --seconds 60

Events of now go to a topic at a steady rate; ten a second belong to users who are never heard of again. For those it is
measured how long after sending their session is in Redis, and how long after it became final (the gap and the allowed
lateness over) it is in the newest snapshot of the table. Times are seen from outside, by polling.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import redis
from confluent_kafka import Producer
from report import machine, machine_lines, table
from stream_pipeline import from_kafka, write_pipeline

from sessionize.connectors import iceberg
from sessionize.testing.services.kafka import KafkaBroker
from sessionize.testing.services.valkey import ValkeyServer

TOPIC, PARTITIONS = "latency", 2
GAP_S, LATENESS_S, EPOCH_S, GRACE_S = 5, 1, 10, 2
TRAFFIC_USERS = 5_000
PROBES_PER_S = 10
START_TIMEOUT_S = 120
PREFIX = "bench:"


class Watch:
    """When each probe was sent and first seen; times are time.time()."""

    def __init__(self, home: Path, client: redis.Redis) -> None:
        self.home, self.client = home, client
        self.sent: dict[str, float] = {}
        self.live: dict[str, float] = {}
        self.final: dict[str, float] = {}
        self.stopping = threading.Event()

    def watch_live(self) -> None:
        while not self.stopping.is_set():
            waiting = [user for user in list(self.sent) if user not in self.live]
            with self.client.pipeline(transaction=False) as asked:
                for user in waiting:
                    asked.exists(f"{PREFIX}session:{user}")
                there = asked.execute()
            at = time.time()
            self.live.update({user: at for user, found in zip(waiting, there, strict=True) if found})
            self.stopping.wait(0.01)

    def watch_final(self) -> None:
        catalog, seen = iceberg.open_catalog(self.home, create=False), None
        while not self.stopping.is_set():
            if "user_sessions" in iceberg.table_names(catalog, iceberg.DATABASE):
                sessions = iceberg.load_table(catalog, iceberg.DATABASE, iceberg.USER_SESSIONS)
                at, snapshot = time.time(), sessions.current_snapshot()
                if snapshot is not None and snapshot.snapshot_id != seen:
                    seen = snapshot.snapshot_id
                    users = sessions.scan(selected_fields=("uuid",)).to_arrow()["uuid"].to_pylist()
                    for user in users:
                        if user.startswith("probe"):
                            self.final.setdefault(user, at)
            self.stopping.wait(0.1)


def record(user: str, number: int, at_s: float) -> bytes:
    event = {
        "event_id": f"ev-{number}",
        "page_name": f"/{number % 50}",
        "event_timestamp": str(int(at_s * 1000)),
        "booking_details": "",
        "uuid": user,
        "event_details": {"event_name": "page_view", "event_type": "navigation", "event_value": "1"},
    }
    return json.dumps(event, separators=(",", ":")).encode()


def send(servers: str, rate: int, seconds: float, watch: Watch) -> None:
    """Steady traffic with probes in it."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 2, "acks": "all"})
    every, began, number = rate // PROBES_PER_S, time.time(), 0
    while (at := time.time()) - began < seconds:
        while number < (at - began) * rate:
            probe = number % every == 0
            user = f"probe-{number}" if probe else f"user-{number * 7919 % TRAFFIC_USERS}"
            now = time.time()
            if probe:
                watch.sent[user] = now
            producer.produce(TOPIC, record(user, number, now), user)
            number += 1
        producer.poll(0.001)
    producer.flush()


def wait_for(there: Path, engine: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while not there.exists():
        if engine.poll() is not None or time.monotonic() > until:
            sys.exit("the pipeline did not start")
        time.sleep(0.05)


def write_times(log: Path) -> list[float]:
    """How long each epoch took to write, in seconds, as the pipeline's log says."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line["write_s"] for line in lines if line["event"] == "epoch_committed"]


def told(name: str, seconds: list[float], sent: int, target: str) -> tuple[str, ...]:
    if not seconds:
        return (name, "–", "–", "–", f"0 of {sent}", target)
    quantiles = (f"{value:.2f}" for value in np.percentile(seconds, (50, 99, 100)))
    return (name, *quantiles, f"{len(seconds)} of {sent}", target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=1_000, help="events a second")
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    command = Path(sys.executable).parent / "sessionize"
    with tempfile.TemporaryDirectory(prefix="sessionize-latency-") as scratch, ValkeyServer() as cache:
        folder = Path(scratch)
        with KafkaBroker(folder / "broker") as broker:
            broker.create_topic(TOPIC, PARTITIONS)
            file = write_pipeline(
                folder / "latency.toml",
                home=folder / "home",
                settings={
                    **from_kafka(broker.bootstrap_servers, TOPIC),
                    "rules": {"gap": f"{GAP_S}s", "lateness": f"{LATENESS_S}s", "max_duration": "none"},
                    "output.redis": {"url": cache.url, "prefix": PREFIX},
                    "stream": {"epoch": f"{EPOCH_S}s"},
                },
            )
            with (folder / "log").open("wb") as log:
                engine = subprocess.Popen([str(command), "run", str(file)], stdout=log, stderr=log)
            try:
                watch = observed(broker.bootstrap_servers, engine, folder, cache.url, args)
            finally:
                engine.send_signal(signal.SIGTERM)
                engine.wait(START_TIMEOUT_S)
            writes = write_times(folder / "log")
    live = [watch.live[user] - at for user, at in watch.sent.items() if user in watch.live]
    # Those sent near the end become final after the measurement: they are not looked at, seen or not.
    last = max(watch.sent.values()) - GAP_S - LATENESS_S - EPOCH_S - GRACE_S
    due = {user: at for user, at in watch.sent.items() if at < last}
    final = [watch.final[user] - at - GAP_S - LATENESS_S for user, at in due.items() if user in watch.final]
    print(machine_lines(machine(), {}))
    print(f"\n{args.rate:,} events/s for {args.seconds:.0f} s, epochs of {EPOCH_S} s, seconds until seen\n")
    rows = [
        told("live view, after sending", live, len(watch.sent), "p99 below 1 s"),
        told("Iceberg, after becoming final", final, len(due), f"one epoch + {GRACE_S} s = {EPOCH_S + GRACE_S} s"),
    ]
    print(table(("", "p50", "p99", "max", "seen", "target"), rows))
    if writes:
        print(f"\nwriting an epoch: median {np.median(writes):.2f} s, most {max(writes):.2f} s, {len(writes)} epochs")
    return 0


def observed(
    servers: str, engine: "subprocess.Popen[bytes]", folder: Path, url: str, args: argparse.Namespace
) -> Watch:
    """Sends, while two threads look for the probes."""
    wait_for(folder / "home" / "catalog.db", engine)
    watch = Watch(folder / "home", redis.Redis.from_url(url))
    threads = [threading.Thread(target=work) for work in (watch.watch_live, watch.watch_final)]
    for thread in threads:
        thread.start()
    try:
        send(servers, args.rate, args.seconds, watch)
        watch.stopping.wait(1)  # what is on its way to the live view
    finally:
        watch.stopping.set()
        for thread in threads:
            thread.join()
    return watch


if __name__ == "__main__":
    sys.exit(main())
