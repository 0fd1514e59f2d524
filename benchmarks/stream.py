"""Measures streaming: a Kafka topic of events to sessions, sessionize and its peers side by side, from empty state.

    .venv/bin/python benchmarks/stream.py --events 1000000,2000000 --peers flink-heap,kstreams-exact --repeat 3

All read the same topic of one broker, which is started for it; contenders take turns within each round. Every run is a
whole process with all its children. Sessions must equal the reference, or the row says WRONG and has no figures. Exit
code 1 when something failed or was wrong.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measure
from reference import answers
from report import ABSENT, Row, failures, machine, machine_lines, median_and_range, table
from stream_contenders import OTHERS, OURS, SELF, Contender, Task, line_up
from stream_topic import FilledTopic, events_of, fill, judged

from sessionize.testing.services.java_parts import ServiceMissing
from sessionize.testing.services.kafka import KafkaBroker, KafkaServers

HERE = Path(__file__).resolve().parent
CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Line:
    """A row of the table. found: sessions of the last run; broker_cpu_s: what the broker took for it, run by run."""

    row: Row
    contender: Contender
    found: int | None = None
    broker_cpu_s: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {**self.row.as_dict(), "sessions": self.found, "broker_cpu_s": self.broker_cpu_s}


@dataclass(slots=True)
class Bench:
    """One invocation."""

    args: argparse.Namespace
    servers: KafkaServers
    broker_pid: int
    scratch: Path
    failed: bool = False
    results: dict[str, Any] = field(default_factory=dict)

    def progress(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=counts, default=[1_000_000, 2_000_000], help="topic sizes, with commas")
    parser.add_argument("--peers", type=names(OTHERS), default=list(OTHERS), help=f"none or of {', '.join(OTHERS)}")
    parser.add_argument("--ours", type=names(OURS, ";"), default=list(OURS), help="rows of sessionize, with semicolons")
    parser.add_argument("--repeat", type=int, default=1, help="rounds (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, run by run")
    parser.add_argument("--sessionize", type=Path, default=Path(sys.executable).parent / "sessionize")
    parser.add_argument("--folder", type=Path, default=HERE / "data", help="where inputs are made and kept")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="of one run")
    args = parser.parse_args(given)
    args.sessionize, args.folder = Path(os.path.abspath(args.sessionize)), args.folder.absolute()
    return args


def counts(text: str) -> list[int]:
    return [int(one.replace("_", "")) for one in text.split(",")]


def names(known: dict[str, Any], separator: str = ",") -> Any:
    def split(text: str) -> list[str]:
        wanted = [] if text == "none" else [one.strip() for one in text.split(separator) if one.strip()]
        unknown = [one for one in wanted if one not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {separator.join(known)}")
        return wanted

    return split


def measured(command: Sequence[str], wall_s_max: float) -> measure.Run:
    """measure.run in a process of its own."""
    asked = json.dumps({"command": list(command), "wall_s_max": wall_s_max})
    meter = [sys.executable, str(HERE / "stream_measure.py")]
    pipe = subprocess.PIPE
    with subprocess.Popen(meter, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as running:
        try:
            told, problem = running.communicate(asked)
        finally:  # interrupted: it ends what it started, which killing it would not
            running.terminate()
    if running.returncode:
        sys.exit(f"{command[0]} could not be run: {problem.strip()}")
    return measure.Run(**json.loads(told))


def cpu_s(pid: int) -> float:
    """User and system time of a process and all below it, so far."""
    total = 0
    for member in measure.descendants(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / CLOCK_TICKS_PER_S


def run_one(bench: Bench, line: Line, topic: FilledTopic, number: int) -> None:
    """One run of one contender, judged; its output is gone afterwards."""
    contender = line.contender
    right = answers(topic.events.parquet)[contender.answers]
    output = bench.servers.create_topic(f"{topic.name}-sessions-{number}", 2)
    with tempfile.TemporaryDirectory(prefix="run-", dir=bench.scratch) as scratch:
        task = Task(bench.servers, topic, right.sessions, output, Path(scratch), len(os.sched_getaffinity(0)))
        line.row.command = contender.command(task)
        os.sync()  # what the last one wrote must not be written out at this one's expense
        before = cpu_s(bench.broker_pid)
        done = measured(line.row.command, bench.args.timeout)
        line.broker_cpu_s.append(round(cpu_s(bench.broker_pid) - before, 2))
        line.row.keep(done)
        bench.progress(f"{contender.name}: {done.wall_s:.1f} s, {done.cpu_s:.1f} s CPU {done.failure or ''}")
        if line.row.problem is None and contender.found is not None:
            line.found, verdict = judged(
                contender.found(task), contender.user_name, topic.events, contender.answers, Path(scratch)
            )
            line.row.problem = None if verdict == "ok" else f"WRONG: {verdict}"
    bench.servers.delete_topic(output)


def run_rounds(bench: Bench, contenders: Sequence[Contender], topic: FilledTopic) -> list[Line]:
    """Everybody `repeat` times, in turns."""
    lines = [Line(Row(one.name, (), problem=one.missing, left_out=one.missing is not None), one) for one in contenders]
    number = 0
    for order in measure.rounds([line for line in lines if line.row.problem is None], bench.args.repeat):
        for line in order:
            number += 1
            if line.row.problem is None:
                run_one(bench, line, topic, number)
    return lines


def costs(lines: Sequence[Line], base_name: str, events: int) -> str:
    """What each took, and each over the row named `base_name` (above 1: it takes more)."""
    base = next((line.row for line in lines if line.row.name == base_name), None)
    header = ("", "CPU s", "min–max", "wall s", "events/s", "peak MB", "broker CPU s", "sessions")
    shown = []
    for line in lines:
        row, cpu, wall, peak = line.row, *(line.row.spread(m) for m in ("cpu_s", "wall_s", "peak_mb"))
        broker = measure.Spread.of(line.broker_cpu_s).median if line.broker_cpu_s else None
        ratios = (median_and_range(row.ratio(base, m))[0] for m in ("cpu_s", "wall_s", "peak_mb"))
        shown.append(
            (
                row.name,
                *median_and_range(cpu),
                f"{wall.median:.1f}" if wall else ABSENT,
                f"{events / wall.median:,.0f}" if wall else ABSENT,
                f"{peak.median:,.0f}" if peak else ABSENT,
                f"{broker:.1f}" if broker is not None else ABSENT,
                ABSENT if line.found is None else f"{line.found:,}",
                *ratios,
                row.problem or "ok",
            )
        )
    return table((*header, "× CPU", "× wall", "× MB", ""), shown)


def compare(bench: Bench, contenders: Sequence[Contender], count: int) -> None:
    """The table of one topic."""
    events = events_of(bench.args.folder, count)
    began = time.perf_counter()
    topic = fill(bench.servers, events, f"events-{count}")
    bench.progress(f"{count:,} events are in the topic after {time.perf_counter() - began:.0f} s")
    lines = run_rounds(bench, contenders, topic)
    right = answers(events.parquet)
    print(f"\nstream, {count:,} events, 2 partitions, lz4: {right['A'].sessions:,} sessions by the gap alone, ", end="")
    print(f"{right['B'].sessions:,} with the 2 h cap; load now {os.getloadavg()[0]:.1f}\n")
    print(costs(lines, SELF, count), flush=True)
    bench.results[str(count)] = [line.as_dict() for line in lines]
    for text in failures([line.row for line in lines]):
        bench.failed = True
        print(f"\n{text}")
    bench.servers.delete_topic(topic.name)


@contextmanager
def beside_a_broker(args: argparse.Namespace) -> Iterator[Bench]:
    """A broker of its own. args: timeout and repeat are looked at. Errors: SystemExit where there can be none."""
    with tempfile.TemporaryDirectory(prefix="sessionize-stream-") as scratch:
        try:
            broker = KafkaBroker(Path(scratch) / "broker")
        except ServiceMissing as why:
            sys.exit(f"there is no Kafka broker to measure with: {why}")
        with broker:
            broker_pid = next(iter(measure.descendants(os.getpid()).keys() - {os.getpid()}))
            yield Bench(args, broker.servers, broker_pid, Path(scratch))


def main(given: Sequence[str] | None = None) -> int:
    args = arguments(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: broker and contenders end with it
    contenders = line_up(args.peers, args.sessionize, ours=args.ours)
    facts = machine()
    print(machine_lines(facts, {}))
    print(f"rounds: {args.repeat}; ×: over {SELF} in the same round, above 1 takes more; from empty state each time")
    with beside_a_broker(args) as bench:
        for count in args.events:
            compare(bench, contenders, count)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"machine": facts, "results": bench.results}, indent=1))
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
