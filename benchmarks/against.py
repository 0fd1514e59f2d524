"""Measures this version beside another one of its own: the same work, in turns, every result checked.

    make bench-against REV=v0.1                               # any commit, branch or tag
    .venv/bin/python benchmarks/against.py HEAD~3 --tasks core,stream --repeat 7

Each round runs a task with both, one directly after the other, now this one first and now that one. The ratios are
those within a round, this one over the other: below 1 this one takes less. Exit code 1 when something failed or was
wrong.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
from contenders import TASKS as VARIANTS
from contenders import Contender
from measure import Limits, Run, rounds, run, warm
from other_version import Version, other_version, this_version
from report import ABSENT, Row, machine, machine_lines, median_and_range, table
from run import Benchmark, input_files, judge, listed, positive, run_rounds
from stream_pipeline import sessions_in_iceberg, write_pipeline

HERE = Path(__file__).resolve().parent
TASKS = ("batch", "ndjson", "core", "stream", "kafka")
HEADER = (
    "",
    *("CPU s other", "this", "× CPU", "min–max"),
    *("wall s other", "this", "× wall", "min–max"),
    *("MB other", "this", "× MB", "min–max"),
    "",
)
STREAM_RULES = {"gap": "30m", "lateness": "61s", "max_duration": "none"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many events the tasks get: names of make_data.py, and numbers. core_batch: how many at a time."""

    batch: str
    ndjson: str
    core: int
    core_batch: int
    kafka: int


WHOLE = Sizes("10m", "2m", 2_000_000, 100_000, 2_000_000)
TINY = Sizes("100k", "100k", 100_000, 10_000, 20_000)


@dataclass(slots=True)
class Against:
    """One invocation. other: the base of every ratio. lines: of the table."""

    this: Version
    other: Version
    bench: Benchmark
    sizes: Sizes
    lines: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def versions(self) -> tuple[Version, Version]:
        return self.other, self.this

    def show(self, task: str, rows: Sequence[Row]) -> None:
        """Takes in the rows of a task, the other version's first."""
        other, this = rows
        cells = [task]
        for measure in ("cpu_s", "wall_s", "peak_mb"):
            spreads = [row.spread(measure) for row in rows]
            cells += [ABSENT if spread is None else f"{spread.median:,.4g}" for spread in spreads]
            cells += median_and_range(this.ratio(other, measure))
        self.lines.append((*cells, this.problem or other.problem or "ok"))
        self.bench.progress(f"{task}: × CPU {cells[3]} ({cells[4]})")
        self.bench.close(task, rows)

    def rows(self) -> list[Row]:
        return [Row(version.name, ()) for version in self.versions]


def batch(against: Against, size: str, *, ndjson: bool) -> None:
    """A file of events to a file of sessions, as in run.py, with the peers' columns."""
    source, events = input_files(against.bench, size, ndjson=ndjson)
    for variant in against.bench.args.variants:
        with tempfile.TemporaryDirectory(prefix="sessionize-bench-") as scratch:
            rows = run_rounds(against.bench, variant, source, events, Path(scratch))
        against.show(f"{'ndjson' if ndjson else 'batch'} {size} {variant}", rows)


def core(against: Against) -> None:
    """push, advance and flush of core.py alone, without making the events."""
    rows, sizes = against.rows(), against.sizes
    script = [str(HERE / "core.py"), "--events", str(sizes.core), "--batch", str(sizes.core_batch)]
    pairs = list(zip(against.versions, rows, strict=True))
    for order in rounds(pairs, against.bench.args.repeat):
        for version, row in order:
            row.command = [*version.python, *script]
            done = run(row.command, against.bench.limits)
            said = (done.said.strip().splitlines() or [""])[-1]
            cost = json.loads(said) if said.startswith("{") else {}
            if done.failure is None and not cost.get("problem"):
                wall_s, cpu_s = (cost[f"steady_{unit}_s"] + cost[f"flush_{unit}_s"] for unit in ("wall", "cpu"))
                done = Run(wall_s, cpu_s, cost["peak_mb"], 0, None, "")
            row.keep(done)
            row.problem = cost.get("problem") or row.problem
    against.show(f"core {sizes.core:,}", rows)


def stream(against: Against) -> None:
    """A followed file of records to tables of sessions, from empty state; the records are kept as well or not."""
    source, events = input_files(against.bench, against.sizes.ndjson, ndjson=True)
    for name, keeps in (("stream", False), ("stream, events kept", True)):
        rows = against.rows()
        pairs = list(zip(against.versions, rows, strict=True))
        for order in rounds(pairs, against.bench.args.repeat):
            warm(source)
            for version, row in order:
                with tempfile.TemporaryDirectory(prefix="sessionize-bench-") as scratch:
                    run_stream(against, version, row, source, events, Path(scratch), keeps=keeps)
        against.show(f"{name}, {against.sizes.ndjson}", rows)


def run_stream(
    against: Against, version: Version, row: Row, source: Path, events: Path, scratch: Path, *, keeps: bool
) -> None:
    """One run, judged."""
    settings: dict[str, dict[str, object]] = {
        "input": {"kind": "directory", "paths": [str(source)]},
        "rules": dict(STREAM_RULES),
        "output": {"events": keeps},
    }
    file = write_pipeline(scratch / "bench.toml", home=scratch / "home", settings=settings)
    row.command = [*version.command, "run", str(file), "--once"]
    os.sync()  # what the last one wrote must not be written out at this one's expense
    row.keep(run(row.command, against.bench.limits))
    if row.problem is None:
        pq.write_table(sessions_in_iceberg(scratch / "home"), scratch / "sessions.parquet")
        (verdict,) = judge(events, "A", [scratch / "sessions.parquet"])[1]
        row.problem = None if verdict == "ok" else f"WRONG: {verdict}"


def kafka(against: Against) -> None:
    """A topic to tables of sessions, as in stream.py; left out where there is no Java, or no Maven the first time."""
    import stream as topics
    from stream_contenders import sessionize

    from sessionize.testing.services.java_parts import ServiceMissing, java, server_jars

    title = f"kafka {against.sizes.kafka:,}"
    try:
        java()
        server_jars("kafka")
    except ServiceMissing as why:
        against.lines.append((title, *[ABSENT] * (len(HEADER) - 2), f"left out: {why}"))
        return
    contenders = [sessionize(one.name, one.command, cap=False, events=False) for one in against.versions]
    with topics.beside_a_broker(against.bench.args) as bench:
        topic = topics.fill(bench.servers, topics.events_of(against.bench.args.folder, against.sizes.kafka), "events")
        lines = topics.run_rounds(bench, contenders, topic)
    against.show(title, [line.row for line in lines])


MEASURE: dict[str, Callable[[Against], None]] = {
    "batch": lambda against: batch(against, against.sizes.batch, ndjson=False),
    "ndjson": lambda against: batch(against, against.sizes.ndjson, ndjson=True),
    "core": core,
    "stream": stream,
    "kafka": kafka,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", nargs="?", default="HEAD", help="commit, branch or tag (default HEAD)")
    parser.add_argument("--tasks", type=listed(TASKS), default=list(TASKS), help=f"of {', '.join(TASKS)}")
    parser.add_argument("--variants", type=listed(VARIANTS), default=list(VARIANTS), help="of A, B, A+pages")
    parser.add_argument("--repeat", type=positive, help="rounds (default 5; 1 with --tiny)")
    parser.add_argument("--tiny", action="store_true", help="few events: a check of the harness")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, run by run")
    parser.add_argument("--folder", type=Path, default=HERE / "data", help="where inputs are made and kept")
    parser.add_argument("--timeout", type=positive, default=600, metavar="SECONDS", help="of one run")
    args = parser.parse_args()
    args.repeat = args.repeat or (1 if args.tiny else 5)
    args.folder = args.folder.absolute()
    return args


def main() -> int:
    args, facts = arguments(), machine()
    with tempfile.TemporaryDirectory(prefix="sessionize-version-") as checkout:
        other, this = other_version(args.revision, Path(checkout)), this_version()
        contenders = [Contender(one.name, one.command, None, 0) for one in (other, this)]
        bench = Benchmark(args, contenders, Limits(wall_s_max=args.timeout))
        against = Against(this, other, bench, TINY if args.tiny else WHOLE)
        print(machine_lines(facts, {}))
        print(f"this: {this.described}\nother: {other.described}\nrounds: {args.repeat}", flush=True)
        for task in args.tasks:
            MEASURE[task](against)
    print(f"\n{table(HEADER, against.lines)}\n\nload now {os.getloadavg()[0]:.1f}")
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"machine": facts, "results": bench.results}, indent=1))
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
