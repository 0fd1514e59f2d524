"""What the tables cost: files, seconds and memory of layouts, a backfill, a day of small epochs, and reconciling.

    python benchmarks/tables.py                         # everything, some minutes on two cores
    python benchmarks/tables.py --task day --epochs 8640
    python benchmarks/tables.py --tiny                  # does it all work?

Every figure comes with a check: the rows that were read are those that were written. docs/adr/0012 has the conclusions.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import report
from measure import Limits, Run, run

from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.iceberg import (
    IcebergEpochSink,
    IcebergSink,
    MaintenanceSettings,
    load_table,
    maintain_table,
    open_catalog,
    user_sessions,
)
from sessionize.connectors.iceberg.layouts import LAYOUTS
from sessionize.connectors.iceberg.row_rewrite import RowReplacer
from sessionize.ports import EpochId
from sessionize.session import columns as col
from sessionize.session.ids import user_hash_buckets
from sessionize.testing.epoch_outputs import output

DAY_MS = 86_400_000
START_MS = 1_388_534_400_000  # 2014-01-01
MB = 1_000_000
# More files than this say nothing new and take minutes.
FILES_MAX = 20_000


@dataclass
class Results:
    """Tables by task: header and rows; and what was wrong."""

    tables: dict[str, tuple[list[str], list[list[str]]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, task: str, header: str, *cells: object) -> None:
        columns = header.split("|")
        self.tables.setdefault(task, (columns, []))[1].append([_text(cell) for cell in cells])

    def check(self, task: str, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.problems.append(f"{task}: {what} is {found}, not {wanted}")


def _text(cell: object) -> str:
    return f"{cell:,.2f}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else str(cell)


def sessions(count: int, days: int, *, seed: int = 0, first_ms: int = START_MS) -> pa.Table:
    """Sessions of as many users, spread evenly over the days, with every column that a run makes."""
    chance = np.random.default_rng(seed)
    users = pa.array([f"user-{seed}-{i:07d}" for i in range(count)])
    start = first_ms + chance.integers(0, days * DAY_MS, count)
    pages = pa.array([f"/page/{i}" for i in range(200)])
    ends = np.concatenate([[0], np.cumsum(chance.integers(1, 6, count))]).astype(np.int32)
    visited = pa.ListArray.from_arrays(ends, pages.take(pa.array(chance.integers(0, 200, int(ends[-1])))))
    by_type = pa.MapArray.from_arrays(
        pa.array(np.arange(0, 2 * count + 1, 2, dtype=np.int32)),
        pa.array(["click", "view"] * count),
        pa.array(chance.integers(1, 9, 2 * count)),
    )

    def one_of(values: list[str]) -> pa.Array:
        return pa.array(values).take(pa.array(chance.integers(0, len(values), count)))

    return pa.table(
        {
            col.USER: users,
            col.SESSION_ID: pc.binary_join_element_wise(users, pa.array(start).cast(pa.string()), "_"),
            col.SESSION_START: start,
            col.SESSION_END: start + chance.integers(0, 3_600_000, count),
            col.SESSION_DURATION: chance.random(count) * 3600,
            col.EVENT_COUNT: chance.integers(1, 40, count),
            col.PAGES_VISITED: visited,
            col.ENTRY_PAGE: one_of(pages.to_pylist()),
            col.EXIT_PAGE: one_of(pages.to_pylist()),
            col.EVENTS_BY_TYPE: by_type,
            col.HAS_CONVERSION: chance.random(count) < 0.1,
            col.REVENUE: np.round(chance.random(count) * 100, 2),
            col.START_REASON: one_of(["first", "inactivity"]),
            col.END_REASON: one_of(["inactivity", "max_duration"]),
        }
    )


def timed(work: Callable[[], object]) -> tuple[float, object]:
    began = time.perf_counter()
    value = work()
    return time.perf_counter() - began, value


# Run by a child before anything else: what the kernel says of its parent's size counts as its own otherwise.
_NOTE_PEAK = (
    "import atexit, os, pathlib\n"
    "status, leave = pathlib.Path('/proc/self/status'), os._exit\n"
    "note = lambda: pathlib.Path(os.environ['BENCH_PEAK']).write_text(status.read_text())\n"
    "atexit.register(note)\n"
    "os._exit = lambda code: (note(), leave(code))\n"  # the command skips what the interpreter does at its end
)


def process(command: list[str], folder: Path) -> tuple[Run, float]:
    """Run a command of Python that begins with _NOTE_PEAK; what it cost, and its peak in MB."""
    note = folder / "peak.txt"
    done = run(command, Limits(), env={**os.environ, "BENCH_PEAK": str(note)})
    sizes = [line.split()[1] for line in note.read_text().splitlines() if line.startswith("VmHWM")]
    return done, int(sizes[0]) * 1024 / MB


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sessionize-tables-") as name:
        yield Path(name)


def layouts(results: Results, sizes: list[tuple[int, int]], names: list[str]) -> None:
    """The same sessions in every layout."""
    header = "sessions|days|layout|files|MB|write s|count(*) s|all s|one date s|one bucket s"
    for count, days in sizes:
        rows = sessions(count, days)
        for name in (each for each in LAYOUTS if each in names):
            if name == "date_bucket" and min(count, 100 * days) > FILES_MAX // 2 and days > 1:
                continue
            with folder() as home:
                sink = IcebergSink(open_catalog(home), user_sessions(layout=name), table="user_sessions")

                def write(sink: IcebergSink = sink, rows: pa.Table = rows) -> None:
                    sink.write(rows)
                    sink.commit()

                write_s, _ = timed(write)
                files = [task.file for task in sink.table.scan().plan_files()]
                size = sum(file.file_size_in_bytes for file in files) / MB
                spent = []
                for where in ("count", "all", "session_date = '2014-01-01'", "user_hash_bucket = 42"):
                    what = "count(*) AS n" if where == "count" else "*"
                    clause = f" WHERE {where}" if "=" in where else ""
                    sql = f"SELECT {what} FROM user_sessions{clause}"
                    seconds, found = timed(lambda sql=sql, home=home: Warehouse(home).query(sql))
                    spent.append(seconds)
                    if where in ("count", "all"):
                        got = found["n"][0].as_py() if where == "count" else found.num_rows
                        results.check("layouts", f"{where} of {count} in {name}", got, count)
                results.add("layouts", header, count, days, name, len(files), size, write_s, *spent)


def backfill(results: Results, events: int, days: int) -> None:
    """Events of many years in a file, through the commands."""
    header = "events|days|layout|command|wall s|CPU s|peak MB"
    chance = np.random.default_rng(1)
    times = np.sort(START_MS + chance.integers(0, days * DAY_MS, events)).tolist()
    for layout in ("auto", "date"):
        with folder() as home:
            lines = (
                json.dumps({"uuid": f"u{i % 997}", "event_timestamp": str(at), "event_id": str(i), "page_name": "/p"})
                for i, at in enumerate(times)
            )
            (home / "in.ndjson").write_text("\n".join(lines))
            command = [sys.executable, "-c", f"{_NOTE_PEAK}from sessionize.cli import main\nmain()\n"]
            ingest = [*command, "run", "batch_file_processor", "--input", str(home / "in.ndjson")]
            ingest += ["--set", f"output.layout={layout}", "--home", str(home / "home"), "--json"]
            sql = "SELECT count(*) AS n FROM events"
            for name, words in (
                ("run", ingest),
                ("query count(*)", [*command, "query", "--home", str(home / "home"), "--json", sql]),
            ):
                done, peak_mb = process(words, home)
                if done.failure is not None:
                    results.problems.append(f"backfill: {name} {done.failure}: {done.said}")
                results.add("backfill", header, events, days, layout, name, done.wall_s, done.cpu_s, peak_mb)
            found = Warehouse(home / "home").query(sql)["n"][0].as_py()
            results.check("backfill", f"events in {layout}", found, events)


def day(results: Results, epochs: int, each: int) -> None:
    """A day of epochs, written by the sink of a stream, and what maintenance makes of it."""
    header = "epochs|sessions each|phase|files|on disk|metadata MB|s|peak MB"
    with folder() as home:
        sink = IcebergEpochSink(open_catalog(home))
        nothing = pa.table({col.USER: pa.array([], pa.string()), col.EVENT_TIME: pa.array([], pa.int64())})
        rejected = col.REJECTED_SCHEMA.empty_table()
        began = time.perf_counter()
        for number in range(1, epochs + 1):
            at_ms = START_MS + number * DAY_MS // (epochs + 1)
            made = sessions(each, 1, seed=number)
            start = pa.array(np.maximum(START_MS, at_ms - np.arange(each) * 60_000))
            made = made.set_column(2, col.SESSION_START, start)
            seen = pa.table({col.USER: made[col.USER], col.EVENT_TIME: start})
            rows = output(
                user_sessions=made, events=seen, late_events=nothing, rejected_events=rejected, watermark_ms=at_ms
            )
            sink.write_epoch(EpochId("bench", number, str(number)), rows)
        results.add("day", header, epochs, each, "written", *_files(home), time.perf_counter() - began, "")
        maintain = _NOTE_PEAK + (
            "import sys, pathlib\n"
            "from sessionize.app.tables.maintain import MaintenanceSettings, maintain\n"
            "from sessionize.app.tables.warehouse import Warehouse\n"
            "maintain(Warehouse(pathlib.Path(sys.argv[1])), MaintenanceSettings(keep_s=0))\n"
        )
        done, peak_mb = process([sys.executable, "-c", maintain, str(home)], home)
        if done.failure is not None:
            results.problems.append(f"day: maintain {done.failure}: {done.said}")
        results.add("day", header, epochs, each, "maintained", *_files(home), done.wall_s, peak_mb)
        found = load_table(open_catalog(home), "sessions", "user_sessions").scan().count()
        results.check("day", "sessions", found, epochs * each)


def _files(home: Path) -> tuple[int, int, float]:
    """Of user_sessions: data files of the table, data files on disk, and MB of metadata."""
    table = load_table(open_catalog(home), "sessions", "user_sessions")
    place = home / "warehouse/sessions/user_sessions"
    metadata = sum(path.stat().st_size for path in (place / "metadata").iterdir()) / MB
    return len(list(table.scan().plan_files())), len(list(place.rglob("*.parquet"))), metadata


def reconcile(results: Results, count: int) -> None:
    """Sessions of one date, and what it costs to replace those of some users."""
    header = "sessions|layout|replaced|files written|MB written|s|CPU s"
    rows = sessions(count, 1)
    order = pc.sort_indices(user_hash_buckets(rows[col.USER].combine_chunks()))
    picks = {
        "1 user": rows.slice(count // 2, 1),
        f"{count // 500:,} users of like buckets": rows.take(order.slice(0, count // 500)),
        "100 users of all buckets": rows.take(pa.array(np.arange(100) * (count // 100))),
    }
    for name in ("date_bucket", "auto"):
        with folder() as home:
            catalog, layout = open_catalog(home), user_sessions(layout=name)
            sink = IcebergSink(catalog, layout, table="user_sessions")
            for start in range(0, count, max(1, count // 4)):
                sink.write(rows.slice(start, max(1, count // 4)))
                sink.commit()
            maintain_table(catalog, "sessions", "user_sessions", MaintenanceSettings(keep_s=0))
            for what, picked in picks.items():
                table = load_table(catalog, "sessions", "user_sessions")
                before = {task.file.file_path for task in table.scan().plan_files()}
                replacer, cpu = RowReplacer(table, layout), time.process_time()
                seconds, _ = timed(
                    lambda replacer=replacer, picked=picked, what=what: replacer.replace(
                        picked.select([col.USER, col.SESSION_ID]),
                        picked,
                        token=what,
                        start_ms=picked[col.SESSION_START].combine_chunks(),
                    )
                )
                cpu = time.process_time() - cpu
                after = [task.file for task in table.refresh().scan().plan_files()]
                new = [file.file_size_in_bytes for file in after if file.file_path not in before]
                results.add("reconcile", header, count, name, what, len(new), sum(new) / MB, seconds, cpu)
                results.check("reconcile", f"rows of {name}", sum(file.record_count for file in after), count)


def statistics(results: Results, count: int, repeat: int) -> None:
    """The same sessions with minima and maxima of all columns, and of those alone that a filter profits from."""
    header = "sessions|minima and maxima of|write CPU s|MB|metadata kB"
    rows = sessions(count, 1)
    own = user_sessions()
    every = replace(own, properties={**own.properties, "write.metadata.metrics.default": "truncate(16)"})
    spent: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(repeat):
        for name, layout in (("all columns", every), ("six columns", own)):
            with folder() as home:
                sink, began = IcebergSink(open_catalog(home), layout, table="user_sessions"), time.process_time()
                sink.write(rows)
                sink.commit()
                cpu = time.process_time() - began
                size = sum(path.stat().st_size for path in home.rglob("*.parquet")) / MB
                metadata = sum(path.stat().st_size for path in home.rglob("*-m0.avro")) / 1000
                spent.setdefault(name, []).append((cpu, size, metadata))
                results.check("statistics", f"sessions with {name}", sink.table.scan().count(), count)
    for name, figures in spent.items():
        results.add("statistics", header, count, name, *(float(np.median(each)) for each in zip(*figures, strict=True)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="layouts,backfill,day,reconcile,statistics", help="which, comma-separated")
    parser.add_argument("--tiny", action="store_true", help="small, to see that it works")
    parser.add_argument("--epochs", type=int, default=8_640, help="of a day; 8640 are one each 10 s")
    parser.add_argument("--sizes", default="32000x181,20000x3650,1000000x1", help="of layouts: sessions x days")
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="which, comma-separated")
    parser.add_argument("--json", type=Path, help="also write the tables here")
    given = parser.parse_args()
    results, tiny = Results(), given.tiny
    sizes = [(int(count), int(days)) for count, _, days in (size.partition("x") for size in given.sizes.split(","))]
    tasks: dict[str, Callable[[], None]] = {
        "layouts": lambda: layouts(results, [(400, 40)] if tiny else sizes, given.layouts.split(",")),
        "backfill": lambda: backfill(results, *((400, 400) if tiny else (20_000, 3_650))),
        "day": lambda: day(results, *((12, 3) if tiny else (given.epochs, 20))),
        "reconcile": lambda: reconcile(results, 2_000 if tiny else 1_000_000),
        "statistics": lambda: statistics(results, *((2_000, 1) if tiny else (200_000, 7))),
    }
    for name in given.task.split(","):
        tasks[name]()
        header, rows = results.tables[name]
        print(f"\n{name}\n\n{report.table(header, rows)}", flush=True)
    for problem in results.problems:
        print(f"WRONG: {problem}")
    if given.json is not None:
        given.json.write_text(json.dumps(asdict(results), indent=1))
    return 1 if results.problems else 0


if __name__ == "__main__":
    sys.exit(main())
