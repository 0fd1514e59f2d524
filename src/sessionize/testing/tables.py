"""What a whole run has to leave behind: every table as the oracle says, and every record booked once.

    check_run(home, oracle, policy, rules, totals, user="uuid", sessions={"postgres": rows})

Reads the Iceberg tables, and the SQLite store and the lake where there are some; rows of other places are handed in.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from sessionize.connectors.iceberg import DATABASE, load_table, open_catalog, table_names
from sessionize.engine.totals import Totals
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.testing.oracle import Oracle

# Of a session, beside the user; the same names in every place that takes sessions.
COMPARED = (
    "session_id",
    "session_start_time_ms",
    "session_end_time_ms",
    "event_count",
    "start_reason",
    "end_reason",
)
_EVENT = ("event_time_ms", "event_id")

Rows = Counter[tuple[Any, ...]]


def check_run(
    home: Path,
    oracle: Oracle,
    policy: Policy,
    rules: Rules,
    totals: Totals,
    *,
    user: str,
    sessions: Mapping[str, Iterable[Any]] | None = None,
    store: str = "store.sqlite",
    lake: str = "lake",
) -> None:
    """Errors: AssertionError that names every table with rows missing or too many, and every sum that is wrong.

    user: what the tables call the user. sessions: place -> rows of (user, *COMPARED), of further places.
    """
    expected = oracle.sessions(policy, rules)
    wanted = _rows((row["user"], *(row[name] for name in COMPARED)) for row in expected)
    on_time = _rows((row["user"], row["time"], row["id"]) for row in oracle.on_time)
    late = _rows((row["user"], row["time"], row["id"]) for row in oracle.late)
    told = [
        _difference("iceberg user_sessions", _iceberg(home, "user_sessions", (user, *COMPARED)), wanted),
        _difference("iceberg events", _iceberg(home, "events", (user, *_EVENT)), on_time),
        _difference("iceberg late_events", _iceberg(home, "late_events", (user, *_EVENT)), late),
        _unequal("rejected_events", _iceberg(home, "rejected_events", ("reason",)).total(), oracle.rejected),
    ]
    if (home / store).exists():
        columns = ", ".join(f'"{name}"' for name in (user, *COMPARED))
        with closing(sqlite3.connect(home / store)) as opened:
            told.append(_difference("sqlite", _rows(opened.execute(f"SELECT {columns} FROM user_sessions")), wanted))
    if (home / lake).exists():
        told.append(_difference("lake", _lake(home / lake, (user, *_EVENT)), on_time))
    for place, rows in (sessions or {}).items():
        told.append(_difference(place, _rows(rows), wanted))
    settled = sum(row["event_count"] for row in expected)
    known = len(oracle.on_time) + len(oracle.late)
    told += [
        _unequal("consumed", totals.consumed, known + oracle.rejected),
        _unequal("settled", totals.settled, settled),
        _unequal("pending", totals.pending, 0),
        _unequal("late", totals.late, len(oracle.late)),
        _unequal("duplicate + excluded", totals.duplicate + totals.excluded, len(oracle.on_time) - settled),
        _unequal("rejected", totals.rejected, oracle.rejected),
        _unequal("rejected by reason", sum(totals.rejected_by_reason.values()), oracle.rejected),
        _unequal("sessions", totals.sessions, len(expected)),
        _unequal("balanced", totals.balanced, True),
    ]
    wrong = [line for line in told if line is not None]
    if wrong:
        raise AssertionError("; ".join(wrong))


def iceberg_rows(home: Path, table: str) -> list[dict[str, Any]]:
    """All rows of a table; none when it was never written."""
    catalog = open_catalog(home)
    if table not in table_names(catalog, DATABASE):
        return []
    rows: list[dict[str, Any]] = load_table(catalog, DATABASE, table).scan().to_arrow().to_pylist()
    return rows


def _iceberg(home: Path, table: str, columns: tuple[str, ...]) -> Rows:
    return _rows(tuple(row.get(name) for name in columns) for row in iceberg_rows(home, table))


def _lake(folder: Path, columns: tuple[str, ...]) -> Rows:
    data = ds.dataset(str(folder), format="parquet", partitioning="hive", exclude_invalid_files=True)
    if not set(columns) <= set(data.schema.names):
        return Counter()
    return _rows(tuple(row.values()) for row in data.to_table(columns=list(columns)).to_pylist())


def _rows(rows: Iterable[Any]) -> Rows:
    return Counter(tuple(row) for row in rows)


def _difference(name: str, seen: Rows, wanted: Rows) -> str | None:
    if seen == wanted:
        return None
    missing, more = wanted - seen, seen - wanted
    shown = ", ".join(repr(row) for row in [*list(missing)[:2], *list(more)[:2]])
    return f"{name}: {missing.total()} missing, {more.total()} too many, such as {shown}"


def _unequal(name: str, seen: object, wanted: object) -> str | None:
    return None if seen == wanted else f"{name}: {seen}, not {wanted}"
