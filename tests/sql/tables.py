"""Events for the queries, in tables that hold many small cases under users of their own; and what must come out."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.session.expressions import FIELD_TYPES
from sessionize.session.gap_by import GapBy
from sessionize.session.own_columns import OwnColumns
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.sql import EventTable, dialect_named, labels_sql, sessions_sql
from sessionize.testing.comparison import events_table as canonical_events
from sessionize.testing.comparison import expected_sessions
from sessionize.testing.own_column_examples import EVERY_KIND
from sessionize.testing.strategies import DUPLICATES
from tests.sql.engines import Engine

Row = dict[str, Any]
READ = (col.EVENT_ID, col.EVENT_TYPE, col.PAGE, col.VALUE)
USERS = ("a", "b", "dé", "'\"", "\\", "\u212a", "a b", "💥", "%s")
TYPES = (None, "view", "purchase", "PURCHASE", "Purcha\u017fe", "login", "logout", "noise", "\u212aauf", "")
PAGES = (None, "home", "Z", "é", "a'b", "\\n", "", "\uffff", "💥")
# halves of a millionth, sums with a rounding error, and the largest
AMOUNTS = (None, 1.5, 0.1, -2.0, 1e9, -1e9, 0.0000005, 0.0000015, 2.675, 5e-324)
SOURCES = (None, "", "xqy", "xy", "z", "a%b", "a_b", "acb", "A", "\\", "*")
OWN_GAPS = (None, 0.0, 1.5, 3.0, 20.0, float("nan"), float("inf"), 0.5, -3.0)
FIELDS = {"source": "text", "price": "number", "qty": "integer", "flag": "boolean"}
TEXTS = [None, "a", "b", "12", "-3", "1.5", "1e3", "é", "É", "x y", "007", "1e", "0x1", "", "İ", "ß"]
ADDRESSES = [
    None, "home", "out", "https://U@Host:8/x?a.b=1&a.b=2", "http://[::1]/?q=a&a.b=%C3%A9+x%20#a", "?a.b=", "12", "-7",
    "999999999999999999", "//h/", "ftp://", "http://a@b@C/?xa.b=1",
]  # fmt: skip
PRICES: list[Any] = [None, 0.1, -2.5, float("nan"), float("inf"), 0.0, -0.0, 3.7, 0.3]
QUANTITIES: list[Any] = [None, 1, 2, -5]
MEANS = {name: column for name, column in EVERY_KIND.items() if "mean" in column or name == "per_event"}
# every kind, and every function and operator of expressions
OWN_OF_ANY: dict[str, dict[str, Any]] = {
    **{name: column for name, column in EVERY_KIND.items() if name not in MEANS},
    "host": {"first": "url_host(page)"},
    "whole_page": {"max": "cast(page as bigint)"},
    "read": {"first": "cast(source as double)"},
    "cut_off": {"min": "cast(price as bigint)"},
    "written": {"last": "cast(qty as text)"},
    "low": {"last": "lower(source)", "where": "source <> 'İ'"},
    "high": {"last": "upper(source)", "where": "source <> 'ß'"},
    "longest": {"max": "length(page)"},
    "between": {"count": True, "where": "price between 1 and 10 and source in ('a', 'b', null)"},
    "outside": {"count": True, "where": "not (source in ('a', 'b', null)) or page not like 'h%'"},
    "alike": {"count": True, "where": "page like '%o_e' or not page like 'a%'"},
    "negative": {"min": "-price"},
    "divided": {"max": "price / (qty - 1)"},
    "other": {"first": "nullif(source, 'a')"},
    "refused": {"count": True, "where": "flag is false or source is null and flag is not true"},
    "chosen": {"last": "case source when 'a' then 1 when 'b' then 2.5 end"},
    "summary": {"expression": "coalesce(low, entry_page, 'none')"},
    "longer": {"expression": "session_duration_seconds >= 0.01 or outside > 2"},
}


def events_table(rows: Sequence[Row]) -> pa.Table:
    """The rows with the fields source and ttl, whatever of them there is."""
    made = canonical_events(rows)
    for name, kind in (("source", pa.string()), ("ttl", pa.float64())):
        values = pa.chunked_array([[row.get(name) for row in rows]], kind)
        made = (
            made.append_column(name, values)
            if name not in made.column_names
            else made.set_column(made.column_names.index(name), name, values)
        )
    return made


def events(read: Sequence[str] = READ, **more: Any) -> EventTable:
    """The table that events_table makes."""
    as_made = {"name": ("events",), "user": "user", "time": "event_time_ms", "time_kind": "ms"}
    return EventTable(**{**as_made, "columns": {each: each for each in read}, **more})


def random_rows(random: random.Random, tables: int) -> list[Row]:
    """Events of so many small tables, whose users differ."""
    return [
        {
            "user": f"{random.choice(USERS)}{table}",
            "time": random.choice([random.randint(-5, 30), random.randint(-60, 400)]),
            "id": random.choice([None, None, "1", "2", "é", "Z"]),
            "type": random.choice(TYPES),
            "page": random.choice(PAGES),
            "amount": random.choice(AMOUNTS),
            "source": random.choice(SOURCES),
            "ttl": random.choice(OWN_GAPS),
        }
        for table in range(tables)
        for _ in range(random.randint(0, 60))
    ]


def random_policy(random: random.Random, comparing: int = 0) -> Policy:
    """comparing: also with rules that compare events."""
    limit = random.choice([None, 7, 20, 100])
    gaps = [GapBy(field="event_type", gaps={"view": 12, "login": 2}), GapBy(field="ttl", longest_ms=15), None]
    more = {
        "max_events": random.choice([None, 1, 2, 3]),
        "day_start": random.choice([None, None, "UTC", "Europe/Berlin"]),
        "min_events": random.choice([1, 1, 2]) if limit != 7 else 1,
        "min_duration_ms": random.choice([0, 0, 3]),
        "gap_by": random.choice(gaps),
        "bounce": random.choice([(), ("one_event",), ("one_page", "no_conversion"), ("one_page", "5ms")]),
    }
    if more["max_events"] == 1:
        more["min_events"] = 1
    return Policy(
        gap_ms=random.choice([1, 5, 10, 30]),
        gap_boundary=random.choice(["exclusive", "inclusive"]),
        max_duration_ms=limit,
        max_duration_mode="anchored" if limit is None else random.choice(["anchored", "rolling"]),
        session_ids=random.choice(["start", "sequential", "running"]),
        **(more if comparing else {}),
        **(random.choice(DUPLICATES) if comparing else {}),
    )


def random_rules(random: random.Random, comparing: int = 0) -> Rules:
    fields = random.choice([("page",), ("source", "page"), ("source", "event_type")]) if comparing else ()
    ignored = random.choice([(), ("home", "x*y", "*z"), ("a%b", "a_b"), ("a*b", "\\"), ("*",)]) if comparing else ()
    return Rules(
        start_events=frozenset(random.choice([(), ("login",)])),
        end_events=frozenset(random.choice([(), ("logout",), ("logout", "login")])),
        excluded_events=frozenset(random.choice([(), ("noise",)])),
        conversion_events=frozenset(random.choice([("purchase",), ("KAUF", "purchase"), ()])),
        split_on_change=frozenset(fields),
        split_ignore=frozenset(ignored),
    )


def columns_of(engine: Engine, table: EventTable, policy: Policy) -> col.SessionColumns:
    dialect = dialect_named(engine.name)
    possible = col.SessionColumns.made_of(table.event_columns, bounces=bool(policy.bounce)).names
    return col.SessionColumns(tuple(name for name in possible if dialect.can_fill(name)))


def sessions(
    engine: Engine, table: pa.Table, policy: Policy, rules: Rules, *, own: OwnColumns | None = None, **more: Any
) -> list[Row]:
    """The rows of the query over the table, run in the database, in a fixed order."""
    described = events(**more)
    columns = replace(columns_of(engine, described, policy), own=own or OwnColumns())
    definition = SessionDefinition(policy=policy, rules=rules, columns=columns)
    engine.load("events", table)
    return in_order(engine.rows(sessions_sql(definition, described, dialect_named(engine.name))))


def labels(engine: Engine, table: pa.Table, policy: Policy, rules: Rules, **more: Any) -> list[Row]:
    """The rows of the labelling query."""
    engine.load("events", table)
    definition = SessionDefinition(policy=policy, rules=rules)
    return engine.rows(labels_sql(definition, events(**more), dialect_named(engine.name)))


def expected(
    engine: Engine, rows: Sequence[Row], policy: Policy, rules: Rules, *, own: OwnColumns | None = None
) -> list[Row]:
    """What the reference says, with the columns that the dialect can fill."""
    own = own or OwnColumns()
    names = [*columns_of(engine, events(), policy).names, *own.types]
    return in_order([{name: row[name] for name in names} for row in expected_sessions(rows, policy, rules, own=own)])


def typed(table: pa.Table, fields: Mapping[str, str]) -> pa.Table:
    """The table with these fields in their types, null where there are none."""
    for name, kind in fields.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, FIELD_TYPES[kind]))
        table = table.set_column(table.column_names.index(name), name, table[name].cast(FIELD_TYPES[kind]))
    return table


def own_rows(random: random.Random, tables: int, prices: list[Any], quantities: list[Any]) -> list[Row]:
    """Random events with the fields that the examples of own columns name, and with pages that are addresses."""
    # half of the smallest double is an error in PostgreSQL
    further = {
        "amount": [each for each in AMOUNTS if each != 5e-324],
        "source": TEXTS,
        "page": ADDRESSES,
        "price": prices,
        "qty": quantities,
        "flag": [None, True, False],
    }
    return [
        {**row, "ttl": None, **{name: random.choice(values) for name, values in further.items()}}
        for row in random_rows(random, tables)
    ]


def in_order(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda r: (r["user"], r[col.SESSION_START], r[col.SESSION_END], r[col.SESSION_ID]))


def same(found: list[Row], wanted: list[Row]) -> bool:
    """Equal in values and their types, and in the order of columns."""
    kinds = [[(name, type(value)) for name, value in row.items()] for row in found]
    return found == wanted and kinds == [[(name, type(value)) for name, value in row.items()] for row in wanted]
