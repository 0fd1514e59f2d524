"""The query of `sessionize sql` in DuckDB, on tables that are hard for it, beside `sessionize batch` on them.

    sql.py                       all tables at 10 M events
    sql.py --events 1000000      fewer
    sql.py --tiny                a moment, for the tests

many: about a hundred events a user. one: a single user has all events. half: one user has half of them. shuffled: as
many, but the rows come in any order. rolling: as many, with the rolling maximum, the one rule that goes step by step.
Each runs in a process of its own, with two threads; the number of sessions must be that of the batch.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TABLES = ("many", "one", "half", "shuffled", "rolling")
EVENTS = 10_000_000
SEED = 5


def make(table: str, events: int, path: Path) -> None:
    """Bursts of about eight events a minute apart, with silences between them; about a hundred events a user."""
    random = np.random.default_rng(SEED)
    users = max(1, events // 100)
    if table == "one":
        user = np.zeros(events, np.int64)
    else:
        user = random.integers(0, users, events)
        if table == "half":
            user[random.random(events) < 0.5] = 0
    order = np.argsort(user, kind="stable")
    steps = np.where(random.random(events) < 1 / 8, random.integers(1_900_000, 90_000_000, events), 60_000)
    moment = np.empty(events, np.int64)
    moment[order] = np.cumsum(steps)
    rows = random.permutation(events) if table == "shuffled" else np.argsort(moment, kind="stable")
    names = pa.array([f"user-{number}" for number in range(users)])
    pages = pa.array([f"/page/{number}" for number in range(50)])
    made = pa.table(
        {
            "user_id": pa.DictionaryArray.from_arrays(pa.array(user[rows].astype(np.int32)), names),
            "ts": pa.array(moment[rows]),
            "page": pa.DictionaryArray.from_arrays(pa.array(random.integers(0, 50, events).astype(np.int32)), pages),
        }
    )
    pq.write_table(made, path)


def run_sql(path: Path, mode: str) -> int:
    from sessionize.app.options import RuleOptions
    from sessionize.app.sql import SqlOptions, TableOptions

    table = TableOptions(table="events", user="user_id", time="ts", time_format="ms", page="page")
    asked = SqlOptions(dialect="duckdb", table=table, rules=RuleOptions(max_duration_mode=mode))
    query = asked.query(warn=lambda text: None)
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute(f"CREATE VIEW events AS FROM '{path}'")
        connection.execute(f"CREATE TABLE made AS {query}")
        return int(connection.execute("SELECT count(*) FROM made").fetchall()[0][0])


def run_batch(path: Path, mode: str) -> int:
    from sessionize.cli.process import run_command_line

    made = path.with_name("batch.parquet")
    fields = ["--user", "user_id", "--time", "ts", "--page", "page"]
    sys.argv = ["sessionize", "batch", str(path), "-o", str(made), *fields]
    sys.argv += ["--max-duration-mode", mode, "--max-future", "none"]
    code = run_command_line()
    if code:
        raise SystemExit(code)
    return int(pq.ParquetFile(made).metadata.num_rows)


def child(what: str, path: str, mode: str) -> None:
    began = time.perf_counter()
    sessions = (run_sql if what == "sql" else run_batch)(Path(path), mode)
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"sessions": sessions, "wall s": round(time.perf_counter() - began, 2)}
    found |= {"CPU s": round(used.ru_utime + used.ru_stime, 2), "peak MB": used.ru_maxrss // 1_000}
    sys.stdout.write(json.dumps(found) + "\n")


def measured(what: str, path: Path, mode: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", what, str(path), mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"})
    if done.returncode:
        raise SystemExit(f"{what} failed: {done.stderr[-2_000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=EVENTS)
    arguments.add_argument("--tables", default=",".join(TABLES))
    arguments.add_argument("--tiny", action="store_true")
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--child", nargs=3)
    given = arguments.parse_args()
    if given.child:
        child(*given.child)
        return 0
    events = 5_000 if given.tiny else given.events
    rows = []
    with tempfile.TemporaryDirectory(prefix="sessionize-sql-") as folder:
        for table in given.tables.split(","):
            path, mode = Path(folder) / "events.parquet", "rolling" if table == "rolling" else "anchored"
            make(table, events, path)
            both = {what: measured(what, path, mode) for what in ("batch", "sql")}
            equal = both["batch"]["sessions"] == both["sql"]["sessions"]
            rows += [{"table": table, "engine": name, **found, "equal": equal} for name, found in both.items()]
            print(*(f"{name} {value}" for name, value in rows[-2].items()), flush=True)
            print(*(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows))
    return 0 if all(row["equal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
