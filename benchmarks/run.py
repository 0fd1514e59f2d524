"""Measures sessionize and its peers side by side and prints plain tables with ratios.

    .venv/bin/python benchmarks/run.py --task batch --size 10m --peers chdb,duckdb --repeat 5 --json out.json

Every run is a whole process; contenders take turns within each round; every output is compared with the reference,
and one that differs is reported as WRONG instead of timed. Exit code 1 when something failed or was wrong. See
benchmarks/README.md.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contenders import PEERS, SELF, TASK_MEANING, TASKS, Contender, line_up, versions
from measure import Limits, Spread, rounds, run, warm
from report import ABSENT, Row, costs, failures, machine, machine_lines, median_and_range, starts, table
from startup import measure_startup

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
KINDS = ("batch", "ndjson", "core", "startup")
SIZES = ("100k", "2m", "10m", "50m")
CORE_EVENTS = (1_000_000, 10_000_000)
CORE_EVENTS_SLOW = 100_000_000
CORE_EVENTS_TINY = 100_000
STARTUP_REPEAT_MIN = 5


@dataclass(slots=True)
class Benchmark:
    """One invocation: what it runs with, and what came of it."""

    args: argparse.Namespace
    contenders: Sequence[Contender]
    limits: Limits
    results: dict[str, Any] = field(default_factory=dict)
    failed: bool = False

    def say(self, text: str) -> None:
        print(text, flush=True)

    def progress(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    def close(self, name: str, rows: Sequence[Row]) -> None:
        """Keeps the rows of a table for the JSON file and tells about those that failed."""
        self.results[name] = [row.as_dict() for row in rows]
        for text in failures(rows):
            self.failed = True
            self.say(f"\n{text}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=(*KINDS, "all"), default="all")
    parser.add_argument("--size", choices=SIZES, help="events (default: 10m for batch, 2m for ndjson)")
    parser.add_argument("--variants", type=listed(TASKS), default=list(TASKS), help="of A, B, A+pages; with commas")
    parser.add_argument("--peers", type=peers, default="default", help=f"default, all, none or of {', '.join(PEERS)}")
    parser.add_argument("--repeat", type=positive, help="rounds (default 3; 1 with --tiny)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, run by run")
    parser.add_argument("--tiny", action="store_true", help="100k events everywhere, once: a check of the harness")
    parser.add_argument("--slow", action="store_true", help="the core also with 100 M events")
    parser.add_argument("--bench-python", type=Path, help="the peers' Python (default .venv-bench's; with --tiny this)")
    parser.add_argument("--sessionize", type=Path, help="the command (default: beside this Python)")
    parser.add_argument("--folder", type=Path, default=HERE / "data", help="where inputs are made and kept")
    parser.add_argument("--threads", type=positive, default=len(os.sched_getaffinity(0)), help="of the peers")
    parser.add_argument("--timeout", type=positive, default=1800, metavar="SECONDS", help="of one run")
    args = parser.parse_args()
    this = Path(sys.executable)
    args.repeat = args.repeat or (1 if args.tiny else 3)
    args.sessionize = absolute(args.sessionize or this.parent / "sessionize")
    args.bench_python = absolute(args.bench_python or (this if args.tiny else ROOT / ".venv-bench/bin/python"))
    args.folder = absolute(args.folder)
    if not args.bench_python.exists() and args.peers and args.task != "core":
        parser.error(f"no {args.bench_python}: `make bench` makes it; or choose --bench-python, or --peers none")
    return args


def absolute(path: Path) -> Path:
    """Without following links, which would leave a virtual environment."""
    return Path(os.path.abspath(path))


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def listed(allowed: Sequence[str]) -> Any:
    def split(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in names if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(allowed)}")
        return names

    return split


def peers(text: str) -> list[str]:
    sets = {"default": [name for name, peer in PEERS.items() if peer.default], "all": list(PEERS), "none": []}
    names: list[str] = sets[text] if text in sets else listed(tuple(PEERS))(text)
    return names


def input_files(bench: Benchmark, size: str, *, ndjson: bool) -> tuple[Path, Path]:
    """(what the engines read, the same events as Parquet for the reference), made when they aren't there."""
    command = [sys.executable, str(HERE / "make_data.py"), size, "--folder", str(bench.args.folder)]
    made = subprocess.run([*command, "--ndjson"] if ndjson else command, capture_output=True, text=True, check=False)
    if made.returncode:
        sys.exit(f"the input could not be made: {shlex.join(command)}\n{made.stderr}")
    for line in made.stdout.splitlines():
        bench.progress(line)
    paths = [Path(line.rpartition(" (")[0]) for line in made.stdout.splitlines()]
    return paths[-1], paths[0]


def judge(events: Path, variant: str, outputs: Sequence[Path]) -> tuple[dict[str, Any], list[str]]:
    """The right answer, and "ok" or what is wrong with each output."""
    command = [sys.executable, str(HERE / "reference.py"), str(events), *map(str, outputs), "--task", variant]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        sys.exit(f"the reference failed: {shlex.join(command)}\n{done.stderr}")
    judged = json.loads(done.stdout)
    return judged["answers"][variant], judged["verdicts"]


def whole_process(bench: Benchmark, size: str, *, ndjson: bool) -> None:
    """A table for each variant: a file of events in, a file of sessions out."""
    source, events = input_files(bench, size, ndjson=ndjson)
    kind = "ndjson" if ndjson else "batch"
    for variant in bench.args.variants:
        right, _ = judge(events, variant, [])
        with tempfile.TemporaryDirectory(prefix="sessionize-bench-") as scratch:
            rows = run_rounds(bench, variant, source, events, Path(scratch))
        bench.say(f"\n{kind} {size}, {variant}: {TASK_MEANING[variant]}")
        bench.say(f"{source.name}, {source.stat().st_size / 1e6:,.0f} MB, {right['sessions']:,} sessions\n")
        bench.say(costs(rows, SELF))
        bench.close(f"{kind} {size} {variant}", rows)


def run_rounds(bench: Benchmark, variant: str, source: Path, events: Path, scratch: Path) -> list[Row]:
    rows, outputs = [], {}
    for number, contender in enumerate(bench.contenders):
        output, reason = scratch / f"{number}.parquet", contender.left_out(variant)
        command = contender.command(variant, source, output)
        rows.append(Row(contender.name, command, problem=reason, left_out=reason is not None and contender.is_optional))
        outputs[contender.name] = output
    ready = [row for row in rows if row.problem is None]
    for turn, order in enumerate(rounds(ready, bench.args.repeat), start=1):
        warm(source)
        for row in order:
            if row.problem is None:
                os.sync()  # what the last one wrote must not be written out at this one's expense
                done = run(row.command, bench.limits)
                row.keep(done)
                bench.progress(f"{variant}, round {turn}: {row.name}: {done.wall_s:.2f} s, {done.cpu_s:.2f} s CPU")
        well = [row for row in order if row.problem is None]
        for row, verdict in zip(well, judge(events, variant, [outputs[row.name] for row in well])[1], strict=True):
            if verdict != "ok":
                row.problem = f"WRONG: {verdict}"
        for output in outputs.values():
            remove(output)
    return rows


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def core(bench: Benchmark, sizes: Sequence[int], batch: int) -> None:
    """The incremental core, one process per size and round; the slow size in the first round only."""
    rows = {
        size: Row(f"{size:,}", [sys.executable, str(HERE / "core.py"), "--events", str(size), "--batch", str(batch)])
        for size in sizes
    }
    found: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    for turn, order in enumerate(rounds(sizes, bench.args.repeat), start=1):
        for size in order:
            row = rows[size]
            if row.problem is not None or (turn > 1 and size == CORE_EVENTS_SLOW):
                continue
            done = run(row.command, bench.limits)
            said = (done.said.strip().splitlines() or [""])[-1]
            cost = json.loads(said) if said.startswith("{") else {}
            row.keep(done)
            row.problem = cost.get("problem") or row.problem
            if row.problem is None:
                found[size].append(cost)
            bench.progress(f"core, round {turn}: {size:,} events: {done.wall_s:.2f} s with making them")
    bench.say(f"\ncore: push and advance, all columns and reasons, one core, 200,000 users, batches of {batch:,}\n")
    bench.say(core_table(rows, found))
    bench.close("core", list(rows.values()))
    bench.results["core costs"] = found


def core_table(rows: dict[int, Row], found: dict[int, list[dict[str, Any]]]) -> str:
    """Rates in M events a second; µs and × (over the first size) are CPU per event, the flush included."""
    header = ("events", "M/s", "min–max", "M/s wall", "µs an event", "×", "sessions", "peak MB", "")
    lines, base = [], None
    for size, row in rows.items():
        if row.problem is not None or not found[size]:
            lines.append((row.name, *[ABSENT] * 7, row.problem or "not run"))
            continue
        costs_us = [(one["steady_cpu_s"] + one["flush_cpu_s"]) / size * 1e6 for one in found[size]]
        whole_us = Spread.of(costs_us).median
        base = base or whole_us
        lines.append(
            (
                row.name,
                *median_and_range(Spread.of([size / one["steady_cpu_s"] / 1e6 for one in found[size]])),
                f"{Spread.of([size / one['steady_wall_s'] / 1e6 for one in found[size]]).median:.2f}",
                f"{whole_us:.3f}",
                f"{whole_us / base:.2f}",
                f"{found[size][0]['sessions']:,}",
                f"{max(one['peak_mb'] for one in found[size]):,.0f}",
                "ok",
            )
        )
    return table(header, lines)


def start_up(bench: Benchmark) -> None:
    source, _ = input_files(bench, "100k", ndjson=False)
    with tempfile.TemporaryDirectory(prefix="sessionize-tiny-") as folder:
        tiny = Path(folder) / "events-1000.parquet"
        head = "import sys, pyarrow.parquet as pq\npq.write_table(pq.read_table(sys.argv[1])[:1000], sys.argv[2])"
        subprocess.run([sys.executable, "-c", head, str(source), str(tiny)], check=True)
        repeat = bench.args.repeat if bench.args.tiny else max(STARTUP_REPEAT_MIN, bench.args.repeat)
        rows = measure_startup(bench.contenders, sys.executable, tiny, repeat, bench.limits)
    bench.say("\nstart-up: 1,000 events; first: libraries are compiled to bytecode, sessionize is not\n")
    bench.say(starts(rows))
    bench.close("startup", rows)


def tell_commands(bench: Benchmark) -> None:
    """The commands as they were run, paths shortened, so that a figure can be had again by hand."""
    bench.say("\ncommands (for NDJSON sessionize gets --dialect clickstream instead of --user, --time, --page)")
    for contender in bench.contenders:
        for variant in bench.args.variants:
            if contender.left_out(variant) is None:
                command = shlex.join(contender.command(variant, Path("IN.parquet"), Path("OUT.parquet")))
                bench.say(f"  {variant:8} {command.replace(f'{ROOT}/', '')}")


def main() -> int:
    args = arguments()
    began = time.perf_counter()
    contenders, there = line_up(args.peers, args.sessionize, args.bench_python, args.threads)
    there |= versions(Path(sys.executable), ["sessionize"])
    bench = Benchmark(args, contenders, Limits(wall_s_max=args.timeout))
    facts = machine()
    bench.say(machine_lines(facts, there))
    bench.say(f"rounds: {args.repeat}, median and range; ×: over {SELF} in the same round, above 1 takes more")
    chosen = KINDS if args.task == "all" else (args.task,)
    if "batch" in chosen:
        whole_process(bench, args.size or ("100k" if args.tiny else "10m"), ndjson=False)
    if "ndjson" in chosen:
        whole_process(bench, args.size or ("100k" if args.tiny else "2m"), ndjson=True)
    if "core" in chosen and args.tiny:
        core(bench, [CORE_EVENTS_TINY], CORE_EVENTS_TINY // 10)
    elif "core" in chosen:
        core(bench, [*CORE_EVENTS, *([CORE_EVENTS_SLOW] if args.slow else [])], 100_000)
    if "startup" in chosen:
        start_up(bench)
    if {"batch", "ndjson"} & set(chosen):
        tell_commands(bench)
    bench.say(f"\ntook {time.perf_counter() - began:.0f} s{', and something failed: see above' * bench.failed}")
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"machine": facts, "versions": there, "results": bench.results}, indent=1))
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
