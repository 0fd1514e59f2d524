"""What a whole run has to leave behind: every table as the oracle says, and every record booked once.

    check_run(home, oracle, policy, rules, totals, user="uuid", sessions={"postgres": rows})

Reads the Iceberg tables, and the SQLite store and the lake where there are some; rows of other places are handed in.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from sessionize.connectors.iceberg import DATABASE, load_table, open_catalog, table_names
from sessionize.engine.accounting import Accounting
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.testing.oracle import Oracle

# Of a session, beside the user; the same names in every place that takes sessions.
COMPARED = (
    "session_id",
    "session_start_time_ms",
    "session_end_time_ms",
    "event_count",
    "pages_visited",
    "entry_page",
    "exit_page",
    "events_by_type",
    "has_conversion",
    "revenue",
    "start_reason",
    "end_reason",
)
# What is said where the input does not map the column: some places keep null, or leave it out.
_NOTHING: dict[str, Any] = {"pages_visited": [], "events_by_type": {}, "has_conversion": False, "revenue": 0.0}
_EVENT = ("event_time_ms", "event_id")

Rows = Counter[tuple[Any, ...]]


def check_run(
    home: Path,
    oracle: Oracle,
    policy: Policy,
    rules: Rules,
    accounting: Accounting,
    *,
    user: str,
    sessions: Mapping[str, Iterable[Any]] | None = None,
    store: str = "store.sqlite",
    lake: str = "lake",
) -> None:
    """Errors: AssertionError that names every table with rows missing or too many, and every sum that is wrong.

    The other arguments are those of session_differences and event_differences.
    """
    expected = oracle.sessions(policy, rules)
    settled = sum(row["event_count"] for row in expected)
    sums = [
        ("consumed", accounting.consumed, len(oracle.on_time) + len(oracle.late) + oracle.rejected),
        ("settled", accounting.settled, settled),
        ("pending", accounting.pending, 0),
        ("late", accounting.late, len(oracle.late)),
        ("duplicate + excluded", accounting.duplicate + accounting.excluded, len(oracle.on_time) - settled),
        ("rejected", accounting.rejected, oracle.rejected),
        ("rejected by reason", sum(accounting.rejected_by_reason.values()), oracle.rejected),
        ("sessions", accounting.sessions, len(expected)),
        ("balanced", accounting.balanced, True),
    ]
    wrong = [
        *session_differences(home, expected, user=user, sessions=sessions, store=store),
        *event_differences(home, oracle, user=user, lake=lake),
        *(f"{name}: {seen}, not {wanted}" for name, seen, wanted in sums if seen != wanted),
    ]
    if wrong:
        raise AssertionError("; ".join(wrong))


def session_differences(
    home: Path,
    expected: Iterable[Mapping[str, Any]],
    *,
    user: str,
    sessions: Mapping[str, Iterable[Any]] | None = None,
    store: str | None = "store.sqlite",
) -> list[str]:
    """Every place whose sessions are not the expected ones, with what is missing there and too many.

    expected: as the oracle makes them. user: what the tables call the user. sessions: place -> rows of
    (user, *COMPARED), of further places. store: None to leave the SQLite store out.
    """
    wanted = _rows(session_row(row["user"], row) for row in expected)
    places = {"iceberg user_sessions": sessions_seen(_iceberg(home, "user_sessions", (user, *COMPARED)))}
    if store is not None and (home / store).exists():
        columns = ", ".join(f'"{name}"' for name in (user, *COMPARED))
        with closing(sqlite3.connect(home / store)) as opened:
            places["sqlite"] = sessions_seen(opened.execute(f"SELECT {columns} FROM user_sessions"))
    places |= {place: sessions_seen(rows) for place, rows in (sessions or {}).items()}
    return _told(difference(place, seen, wanted) for place, seen in places.items())


def event_differences(home: Path, oracle: Oracle, *, user: str, lake: str = "lake") -> list[str]:
    """Every place whose events, late events or number of rejected records are not the oracle's."""
    on_time = events_expected(oracle.on_time)
    found = [
        difference("iceberg events", _rows(_iceberg(home, "events", (user, *_EVENT))), on_time),
        difference(
            "iceberg late_events", _rows(_iceberg(home, "late_events", (user, *_EVENT))), events_expected(oracle.late)
        ),
    ]
    if (home / lake).exists():
        found.append(difference("lake", _lake(home / lake, (user, *_EVENT)), on_time))
    rejected = len(_iceberg(home, "rejected_events", ("reason",)))
    if rejected != oracle.rejected:
        found.append(f"rejected_events: {rejected}, not {oracle.rejected}")
    return _told(found)


def events_expected(rows: Iterable[Mapping[str, Any]]) -> Rows:
    """Events of the oracle as they are compared: user, event_time_ms, event_id."""
    return _rows((row["user"], row["time"], row["id"]) for row in rows)


def difference(place: str, seen: Rows, wanted: Rows) -> str | None:
    """How many rows are missing in a place and how many are too many, with examples; None when it is as wanted."""
    if seen == wanted:
        return None
    missing, more = wanted - seen, seen - wanted
    shown = ", ".join(repr(row) for row in [*list(missing)[:2], *list(more)[:2]])
    return f"{place}: {missing.total()} missing, {more.total()} too many, such as {shown}"


def iceberg_rows(home: Path, table: str) -> list[dict[str, Any]]:
    """All rows of a table; none when it was never written."""
    catalog = open_catalog(home)
    if table not in table_names(catalog, DATABASE):
        return []
    rows: list[dict[str, Any]] = load_table(catalog, DATABASE, table).scan().to_arrow().to_pylist()
    return rows


def session_row(user: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    """A session as it is compared: the user and COMPARED, in one form wherever it was read."""
    return (user, *(_plain(name, row.get(name) if name in _NOTHING else row[name]) for name in COMPARED))


def sessions_seen(rows: Iterable[Any]) -> Rows:
    """Rows of (user, *COMPARED) as some place gives them, in that form."""
    return _rows(session_row(user, dict(zip(COMPARED, values, strict=True))) for user, *values in rows)


def _plain(name: str, value: Any) -> Any:
    """Lists and maps are text in SQLite, pairs in Arrow; numbers and truth values are what they say."""
    if name not in _NOTHING:
        return value
    if value is None:
        value = _NOTHING[name]
    if isinstance(value, str):
        value = json.loads(value)
    if name == "events_by_type":
        return tuple(sorted(dict(value).items()))
    return tuple(value) if isinstance(value, list) else type(_NOTHING[name])(value)


def _iceberg(home: Path, table: str, columns: tuple[str, ...]) -> list[tuple[Any, ...]]:
    return [tuple(row.get(name) for name in columns) for row in iceberg_rows(home, table)]


def _lake(folder: Path, columns: tuple[str, ...]) -> Rows:
    data = ds.dataset(str(folder), format="parquet", partitioning="hive", exclude_invalid_files=True)
    if not set(columns) <= set(data.schema.names):
        return Counter()
    return _rows(tuple(row.values()) for row in data.to_table(columns=list(columns)).to_pylist())


def _rows(rows: Iterable[Any]) -> Rows:
    return Counter(tuple(row) for row in rows)


def _told(found: Iterable[str | None]) -> list[str]:
    return [line for line in found if line is not None]
