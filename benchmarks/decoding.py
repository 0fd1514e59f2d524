"""How quickly a log of a web server becomes columns, beside DuckDB with a regular expression on the same file.

    make bench-decoding                            # a million lines, in a minute or two
    make bench-decoding ARGS="--lines 300000"
    make bench-decoding ARGS=--tiny                # a check of the harness

Both take turns in one process and make the same three columns in memory: address, time in milliseconds, page. All rows
are compared. The ratio of a round is DuckDB's time over that of sessionize: above 1 sessionize is the quicker one.

    decoding.py --alone csv --lines 500000         # sessionize alone, for against.py: csv or ndjson
"""

import argparse
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
from measure import rounds
from report import machine, machine_lines, table

from sessionize.connectors.files.source import FileSource
from sessionize.formats.dialects import DIALECTS, Dialect

BY_ADDRESS = Dialect.mapping(user="ip", time="time", page="page")
BY_NAME = Dialect.mapping(user="user", time="time", page="page", event_type="kind", event_id="id")
QUOTED = r'"(?:[^"\\]|\\.)*"'
HEAD = r'^(?P<ip>\S+) \S+ [^\[]+ \[(?P<time>[^\]]+)\] "[^ "]+(?: (?P<page>[^ "]+)'
# The whole line, as sessionize checks it; and only what is before the page, which takes damaged lines for events.
PATTERNS = {
    "DuckDB, the whole line": HEAD + rf'(?: [^"]*)?)?" (?:\d{{3}}|-) \S+ {QUOTED} {QUOTED}$',
    "DuckDB, up to the page": HEAD + ")?",
}
NAMES = ["ip", "time", "page"]
OURS = "sessionize"


def write_log(file: Path, lines: int) -> None:
    """A log in the combined format. One line in a hundred has a user, one has no request, one an escaped quote."""
    chance = random.Random(1)
    with file.open("w") as log:
        for n in range(lines):
            kind = chance.randrange(100)
            user = "bob" if kind == 0 else "-"
            page = f"/p/{chance.randrange(5000)}?q={n}" if kind % 2 else f"/static/{chance.randrange(300)}.js"
            request = "-" if kind == 1 else f"GET {page} HTTP/1.1"
            address = f"192.0.{chance.randrange(256)}.{chance.randrange(256)}"
            day, hour = divmod(24 * 28 * n // lines, 24)
            at = f"{1 + day:02}/Oct/2016:{hour:02}:{chance.randrange(60):02}:{chance.randrange(60):02} -0400"
            quoted = '\\"desk\\"' if kind == 2 else "Win64"
            log.write(
                f'{address} - {user} [{at}] "{request}" 200 {chance.randrange(99999)} "https://example.org/{n % 97}" '
                f'"Mozilla/5.0 (Windows NT 10.0; {quoted}; x64) AppleWebKit/537.36 (KHTML, like Gecko) '
                f'Chrome/{90 + n % 30}.0.0.0 Safari/537.36"\n'
            )


def write_events(file: Path, lines: int, kind: str) -> None:
    """The same events as CSV, or as JSON lines of the dialect clickstream."""
    chance = random.Random(1)
    with file.open("w") as out:
        if kind == "csv":
            out.write("id,user,time,kind,page,other\n")
        for n in range(lines):
            user, page, at = f"user-{chance.randrange(20_000)}", f"/page/{chance.randrange(300)}", 1_700_000_000_000 + n
            what = chance.choice(["page_view", "click", "scroll"])
            if kind == "csv":
                out.write(f"ev-{n:010},{user},{at},{what},{page},junk {n}\n")
                continue
            record = {"uuid": user, "event_timestamp": str(at), "event_id": f"ev-{n:010}", "event_type": what}
            out.write(json.dumps({**record, "page_name": page, "other": f"junk {n}"}) + "\n")


def decoded(file: Path, dialect: Dialect, *, processes: int | None = None) -> pa.Table:
    """What sessionize makes of a file."""
    source = FileSource(file, dialect=dialect, processes=processes)
    return pa.concat_tables(batch.events for batch in source.batches())


def by_duckdb(file: Path, pattern: str, threads: int) -> pa.Table:
    """The same columns by DuckDB: each line one value of CSV, which it reads with all threads."""
    import duckdb

    for name in NAMES:
        pattern = pattern.replace(f"?P<{name}>", "")
    query = f"""
        SELECT g.ip AS "user", epoch_ms(strptime(g.time, '%d/%b/%Y:%H:%M:%S %z')) AS event_time_ms,
            nullif(g.page, '') AS page
        FROM (
            SELECT regexp_extract(line, '{pattern}', {NAMES}) AS g
            FROM read_csv(
                '{file}', columns = {{'line': 'VARCHAR'}}, delim = '\x01', quote = '', escape = '', header = false,
                auto_detect = false
            )
        )
        WHERE g.ip <> ''"""
    with duckdb.connect(config={"threads": threads}) as connection:
        return connection.sql(query).to_arrow_table()


def plain(events: pa.Table) -> pa.Table:
    """Three columns of plain types, to compare them."""
    kinds = {"user": pa.string(), "event_time_ms": pa.int64(), "page": pa.string()}
    return events.select(list(kinds)).cast(pa.schema(kinds.items())).combine_chunks()


def cpu_s() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def timed(make: Callable[[], pa.Table]) -> tuple[pa.Table, float, float]:
    wall, cpu = time.perf_counter(), cpu_s()
    made = make()
    return made, time.perf_counter() - wall, cpu_s() - cpu


def alone(kind: str, file: Path, lines: int) -> int:
    """sessionize in one process; prints what it costs as JSON."""
    dialect = BY_NAME if kind == "csv" else DIALECTS["clickstream"]
    if not file.exists():
        write_events(file, lines, kind)
    costs = [timed(lambda: decoded(file, dialect, processes=1)) for _ in range(3)]
    wall, cpu = (statistics.median(cost[place] for cost in costs) for place in (1, 2))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    wrong = {len(events) for events, _, _ in costs} != {lines}
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "peak_mb": peak, "problem": "WRONG" if wrong else None}))
    return int(wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=7, help="rounds")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of DuckDB; our processes")
    parser.add_argument("--tiny", action="store_true", help="few lines, one round")
    parser.add_argument("--alone", choices=("csv", "ndjson"), help="sessionize alone")
    parser.add_argument("--file", type=Path, help="the input with --alone, made where it is missing")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    lines, repeat = (20_000, 1) if given.tiny else (given.lines, given.repeat)
    with tempfile.TemporaryDirectory(prefix="sessionize-bench-") as scratch:
        if given.alone:
            return alone(given.alone, given.file or Path(scratch, f"events.{given.alone}"), lines)
        file = Path(scratch, "access.log")
        write_log(file, lines)
        contenders: dict[str, Callable[[], pa.Table]] = {
            OURS: lambda: decoded(file, BY_ADDRESS, processes=given.threads),
            **{name: partial(by_duckdb, file, pattern, given.threads) for name, pattern in PATTERNS.items()},
        }
        return compare(contenders, lines, file.stat().st_size / 1e6, repeat, given.json)


def compare(
    contenders: dict[str, Callable[[], pa.Table]], lines: int, size_mb: float, repeat: int, result: Path | None
) -> int:
    """All in turns, one round before those that count; the exit code."""
    answer = plain(contenders[OURS]())
    wrong = [name for name, make in contenders.items() if not plain(make()).equals(answer)]
    wrong += [f"{len(answer)} of {lines} rows"] if len(answer) != lines else []
    walls: dict[str, list[float]] = {name: [] for name in contenders}
    cpus: dict[str, list[float]] = {name: [] for name in contenders}
    for order in rounds(list(contenders), repeat):
        for name in order:
            _, wall, cpu = timed(contenders[name])
            walls[name].append(wall)
            cpus[name].append(cpu)
    rows, ratios = [], {}
    for name in contenders:
        ratio = ratios[name] = [other / own for other, own in zip(walls[name], walls[OURS], strict=True)]
        wall, cpu = statistics.median(walls[name]), statistics.median(cpus[name])
        spread = f"{statistics.median(ratio):.2f} ({min(ratio):.2f}–{max(ratio):.2f})"
        rows.append([name, f"{wall:.2f}", f"{cpu:.2f}", f"{size_mb / wall:,.0f}", "" if name == OURS else spread])
    print(machine_lines(machine(), {}))
    print(f"{lines:,} lines of the combined format, {size_mb:,.0f} MB; rounds: {repeat}\n")
    print(table(["", "wall s", "CPU s", "MB/s", "over sessionize, wall"], rows))
    for what in wrong:
        print(f"WRONG: {what}")
    if result is not None:
        result.write_text(json.dumps({"ratios": ratios, "wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
