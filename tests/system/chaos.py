"""Kills a running pipeline again and again, and compares every table with the oracle at the end.

    python -m tests.system.chaos --kills 1000           # figures as a table
    python -m tests.system.chaos --each-point --json    # every point that has a name, once; for the tests

A process starts the pipeline, which kills itself (SIGKILL) at a named point of an epoch (kills.py), or at a random
moment; then the next one goes on (campaign.py). A live stream is paused and given other clocks, too (chaos_pauses.py).
Here are the command line, the servers and the figures.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pyarrow as pa

from sessionize.testing.services.kafka import KafkaBroker, KafkaServers
from sessionize.testing.services.postgres import PostgresServer
from tests.system.campaign import PASSWORD, Campaign, campaign
from tests.system.chaos_pauses import campaign as paused
from tests.system.kills import Killer, points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--each-point", action="store_true", help="kill at every point that has a name, once")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--each", type=int, default=100, help="kills of one stream, before the next one begins")
    parser.add_argument(
        "--pauses", type=int, help="pauses of a live stream beside that, a tenth of the kills by default"
    )
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
        total = Campaign()
        for number, kills in enumerate(_kills(options)):
            place, seed = folder / str(number), options.seed + number
            place.mkdir()
            dsn = _database(served.dsn, number)
            part = campaign(kafka, dsn, place, kills, seed=seed, with_topics=not options.no_topics)
            total += part
            _tell(seed, part)
        pauses = (0 if options.each_point else options.kills // 10) if options.pauses is None else options.pauses
        if pauses:
            (folder / "pauses").mkdir()
            part = paused(kafka, folder / "pauses", pauses=pauses, seed=options.seed)
            total += part
            _tell(options.seed, part)
    _show(total, as_json=options.json)
    sys.exit(1 if total.differences else 0)


def _kills(options: argparse.Namespace) -> Iterator[list[Killer]]:
    """The kills of each stream."""
    if options.each_point:
        yield [Killer(point) for point in points(with_topics=not options.no_topics)]
        return
    chance = random.Random(options.seed)
    for at in range(0, options.kills, options.each):
        count = min(options.each, options.kills - at)
        yield [Killer.somewhere(chance, with_topics=not options.no_topics) for _ in range(count)]


def _database(dsn: str, number: int) -> str:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE chaos_{number}")
        return psycopg.conninfo.make_conninfo(dsn, dbname=f"chaos_{number}")


def _tell(seed: int, part: Campaign) -> None:
    sys.stderr.write(f"seed {seed}: {_figures(part)}; {'; '.join(part.differences) or 'all tables equal'}\n")


def _figures(done: Campaign) -> str:
    return f"{done.total_kills} kills in {done.runs} runs over {done.records:,} records, {done.seconds:.0f} s"


def _show(total: Campaign, *, as_json: bool) -> None:
    if as_json:
        found = {"kills": total.total_kills, "by_step": total.kills, "runs": total.runs, "records": total.records,
                 "differences": total.differences}  # fmt: skip
        sys.stdout.write(json.dumps(found) + "\n")
        return
    sys.stdout.write(f"\n{_figures(total)}\n")
    for step, count in sorted(total.kills.items()):
        sys.stdout.write(f"  {step:<34} {count:>6}\n")


if __name__ == "__main__":
    main()
