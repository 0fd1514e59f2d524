"""Kills `reconcile` and `maintain` again and again, after a stream and beside it, and compares every table at the end.

    python -m tests.system.chaos_upkeep --servers 127.0.0.1:9092 --kills 10

Each kind of kill happens so often: of reconcile and of maintain while nothing else runs, and of either one while a
stream runs (which is killed too). Run again to the end, sessions equal a batch over all events, and no event is lost.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.streams.run import open_stream
from sessionize.app.tables.maintain import MaintenanceSettings, maintain
from sessionize.app.tables.reconcile import reconcile_tables
from sessionize.app.tables.warehouse import Warehouse
from sessionize.testing.observers import Calls
from sessionize.testing.services.kafka import KafkaServers
from sessionize.testing.tables import event_differences, session_differences
from tests.system.campaign import EPOCH_ROWS, USER, Campaign, Stream
from tests.system.kills import ANY_MOMENT, Killer, Running, start

Work = Callable[[Callable[[str], None]], None]
_KEEP = MaintenanceSettings(keep_s=0.0, keep_snapshots=1)
# Nothing else runs, so files without an owner are those that a killed process has left.
_CLEAN = MaintenanceSettings(keep_s=0.0, keep_snapshots=1, orphan_age_h=0.0, force=True)


def stream(config: PipelineConfig, step: Callable[[str], None]) -> None:
    """Run the pipeline to its end."""
    with open_stream(config, stopping=threading.Event(), observer=Calls(step=step)) as opened:
        opened.run()


def process(work: Work, kill: Killer | None) -> Running:
    """Begin it in a process of its own."""

    def run(step: Callable[[str], None]) -> int:
        work(step)
        return 0

    return start(run, kill)


def killed(
    result: Campaign, name: str, chance: random.Random, work: Work, longest_s: float, beside: Work | None
) -> float:
    """Do it until it has died or ended, beside something that dies after some epochs; how long it took."""
    started = time.monotonic()
    other = None if beside is None else process(beside, Killer("committed", countdown=2))
    status, where = process(work, Killer(ANY_MOMENT, after_s=chance.uniform(0.05, longest_s))).wait()
    took_s = time.monotonic() - started
    ends = [status] if other is None else [status, other.wait()[0]]
    result.runs += len(ends)
    if not {0, -signal.SIGKILL}.issuperset(ends):
        raise RuntimeError(f"{name} ended with {ends}")
    if where:
        result.kills[name] += 1
    return took_s


def campaign(kafka: KafkaServers, folder: Path, *, kills: int, seed: int) -> Campaign:
    """Kill so often each way, and compare."""
    chance, result, started = random.Random(seed), Campaign(), time.monotonic()
    fed = Stream.filled(kafka, folder, "upkeep", 4 * EPOCH_ROWS * (2 * kills + 6), seed=seed)
    config, whole = fed.config(), fed.config(in_one_epoch=True)
    result.records = fed.records

    def reconcile(step: object) -> None:
        reconcile_tables(config.home, config)

    def reconcile_all(step: object) -> None:
        reconcile_tables(config.home, config, drained=True)

    def upkeep(step: object) -> None:
        maintain(Warehouse.of(config), _KEEP)

    def clean_up(step: object) -> None:
        maintain(Warehouse.of(config), _CLEAN)

    def engine(step: Callable[[str], None]) -> None:
        stream(config, step)

    def again(name: str, work: Work, beside: Work | None) -> None:
        until_killed(result, name, kills, lambda longest_s: killed(result, name, chance, work, longest_s, beside))

    def through(work: Work) -> None:
        status, _ = process(work, None).wait()
        if status != 0:
            raise RuntimeError(f"it did not end well: {status}")

    process(engine, Killer("committed", countdown=2)).wait()
    again("reconcile beside a stream", reconcile, engine)
    again("maintain beside a stream", upkeep, engine)
    through(lambda step: stream(whole, step))
    again("reconcile", reconcile_all, None)
    again("maintain", upkeep, None)
    through(reconcile_all)
    through(clean_up)
    oracle = fed.oracle()
    expected = oracle.sessions(config.policy(), config.event_rules(), late_too=True)
    result.differences += event_differences(config.home, oracle, user=USER)
    result.differences += session_differences(config.home, expected, user=USER, store=None)  # only the table is told
    result.seconds = time.monotonic() - started
    return result


def until_killed(result: Campaign, name: str, kills: int, once: Callable[[float], float]) -> None:
    """Try until it was killed so often; earlier, the more often it was through before."""
    longest_s, tries = 1.0, 0
    while result.kills[name] < kills:
        before = result.kills[name]
        took_s = once(longest_s)
        tries += 1
        if result.kills[name] == before:
            longest_s = max(0.1, min(longest_s, took_s))
        if tries > 6 * kills:
            raise RuntimeError(f"{name} is never killed: it ends within {took_s:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    pa.set_cpu_count(1)  # a fork takes no threads along
    with tempfile.TemporaryDirectory(prefix="sessionize-upkeep-") as folder:
        result = campaign(KafkaServers(options.servers), Path(folder), kills=options.kills, seed=options.seed)
    sys.stdout.write(json.dumps({"kills": result.total_kills, "by_step": result.kills, "runs": result.runs,
                                 "records": result.records, "seconds": round(result.seconds, 1),
                                 "differences": result.differences}) + "\n")  # fmt: skip
    sys.exit(1 if result.differences else 0)


if __name__ == "__main__":
    main()
