"""The query run in each database gives the rows of the reference, row for row."""

import random
from pathlib import Path

import pyarrow as pa
import pytest

from sessionize.errors import ConfigError
from sessionize.session.columns import SessionColumns
from sessionize.session.definition import SessionDefinition
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.sql import dialect_named, sessions_sql
from sessionize.testing.cases import Case, read_cases
from sessionize.testing.comparison import expected_labels
from sessionize.testing.own_column_examples import columns_of
from tests.sql.engines import Engine
from tests.sql.tables import (
    FIELDS,
    MEANS,
    OWN_OF_ANY,
    PRICES,
    QUANTITIES,
    READ,
    events,
    events_table,
    expected,
    labels,
    own_rows,
    random_policy,
    random_rows,
    random_rules,
    same,
    sessions,
    typed,
)

CASES = read_cases(Path(__file__).parents[1] / "cases")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_case_file(engine: Engine, case: Case):
    if engine.name == "postgres" and any("query_parameter" in (each.of or "") for each in case.columns.own.columns):
        with pytest.raises(ConfigError, match="cannot decode"):
            sessions(engine, events_table(case.events), case.policy, case.rules, own=case.columns.own)
        return
    table = typed(events_table(case.events), case.fields)
    found = sessions(engine, table, case.policy, case.rules, own=case.columns.own)
    case.check(found)
    assert same(found, expected(engine, case.events, case.policy, case.rules, own=case.columns.own))


@pytest.mark.parametrize("seed", range(24))
def test_random_tables(engine: Engine, seed: int):
    """Each query runs over a dozen tables at once."""
    chosen = random.Random(seed)
    policy, rules, rows = random_policy(chosen, seed % 2), random_rules(chosen, seed % 2), random_rows(chosen, 12)
    found = sessions(engine, events_table(rows), policy, rules)
    wanted = expected(engine, rows, policy, rules)
    assert same(found, wanted), [(f, w) for f, w in zip(found, wanted, strict=False) if f != w][:1]


@pytest.mark.parametrize("seed", range(6))
def test_columns_of_ones_own(engine: Engine, seed: int):
    """Every kind, type and function, over values that are hard to read, to add up or to compare."""
    chosen = random.Random(f"own {seed}")
    # a mean of sums beyond 2**53 may differ in its last bit, and PostgreSQL refuses to overflow
    kinds, large = OWN_OF_ANY, 1e300 if engine.name != "postgres" else 1e20
    rows = own_rows(chosen, 6, [*PRICES, 1e12, 1e13, large], [*QUANTITIES, 2**53 + 1, 2**62])
    if seed % 2:
        kinds, rows = {**OWN_OF_ANY, **MEANS}, own_rows(chosen, 6, PRICES, QUANTITIES)
    if engine.name != "postgres":
        kinds = {**kinds, "parameter": {"last": "query_parameter(page, 'a.b')"}}
    policy, rules, own = random_policy(chosen), random_rules(chosen), columns_of(kinds).own
    found = sessions(engine, typed(events_table(rows), FIELDS), policy, rules, own=own)
    wanted = expected(engine, rows, policy, rules, own=own)
    differ = [(n, kinds.get(n), f[n], w[n]) for f, w in zip(found, wanted, strict=False) for n in w if f.get(n) != w[n]]
    assert same(found, wanted), differ[:3]


@pytest.mark.parametrize("seed", range(8))
def test_labels_of_random_tables(engine: Engine, seed: int):
    """Every row comes back with all its columns, and with the id that the reference gives it."""
    chosen = random.Random(f"labels {seed}")
    read = chosen.choice([READ, ("event_type", "page"), ("event_id", "event_type")])
    policy, rules, rows = random_policy(chosen, seed % 2), random_rules(chosen, seed % 2), random_rows(chosen, 12)
    table = events_table(rows).append_column("row", pa.array(range(len(rows)), pa.int64()))
    found = labels(engine, table, policy, rules, read=read)
    assert sorted(row["row"] for row in found) == list(range(len(rows)))
    # what the table maps no column to is not there, but for the rules that name the column itself
    named = {*read, *rules.split_on_change, *([policy.gap_by.field] if policy.gap_by else [])}
    unread = {
        key: None for name, key in (("event_id", "id"), ("page", "page"), ("value", "amount")) if name not in named
    }
    ids = expected_labels([{**row, **unread} for row in rows], policy, rules)
    wanted = [{**row, "session_id": each} for row, each in zip(table.to_pylist(), ids, strict=True)]
    assert [list(row) for row in found] == [list(row) for row in wanted]
    # which of several events that are equal in all that counts is which does not matter
    compared = ["user", "event_time_ms", *(name for name in read if name != "value"), "source", "session_id"]
    assert sorted(repr([row[n] for n in compared]) for row in found) == sorted(
        repr([row[n] for n in compared]) for row in wanted
    )


def test_no_events(engine: Engine):
    assert sessions(engine, events_table([]), Policy(), Rules()) == []


def test_amounts_that_are_none(engine: Engine):
    """NaN, infinity and what is beyond the limit add nothing, as where there is no amount."""
    odd = [float("nan"), float("inf"), float("-inf"), 1.1e9, -2e9, 1e308, None]
    rows = [{"user": "u", "time": at, "type": "purchase", "amount": 0.25} for at in range(3)]
    table = events_table([*rows, *({"user": "u", "time": 9, "type": "purchase", "amount": each} for each in odd)])
    (row,) = sessions(engine, table, Policy(), Rules())
    assert (row["revenue"], row["event_count"], row["has_conversion"]) == (0.75, 10, True)


def test_large_sums_are_the_nearest_double(engine: Engine):
    """Far beyond what 64 bits have room for, and where rounding twice gives another double."""
    chosen = random.Random(1)
    each = {"type": "purchase"}
    rows = [{**each, "user": f"u{n % 40}", "time": n, "amount": chosen.uniform(0.9e9, 1e9)} for n in range(2_000)]
    rows += [{"user": "max", "time": n, "type": "purchase", "amount": 1e9} for n in range(11_000)]
    policy = Policy(gap_ms=1_000_000)
    found = sessions(engine, events_table(rows), policy, Rules())
    assert same(found, expected(engine, rows, policy, Rules()))


def test_rows_that_are_no_events(engine: Engine):
    """As in files: no user, a blank or an overlong one, no time or one out of range."""
    users = [None, "", " ", "\u2003\t", "x" * 1_025, "é" * 513]
    good = [{"user": "é" * 512, "time": 0}, {"user": " a", "time": -62_135_596_800_000}]
    good += [{"user": "b", "time": 253_402_300_799_999}]
    bad = [{"user": user, "time": 0} for user in users]
    bad += [{"user": "c", "time": at} for at in (None, -62_135_596_800_001, 253_402_300_800_000)]
    table = events_table([*good, *bad])
    found = sessions(engine, table, Policy(), Rules())
    assert same(found, expected(engine, good, Policy(), Rules()))
    named = labels(engine, table, Policy(), Rules())
    assert sorted(row["user"] for row in named if row["session_id"] is not None) == [" a", "b", "é" * 512]
    assert len(named) == len(good) + len(bad)


def test_timestamps_are_floored_to_milliseconds(engine: Engine):
    us = [0, 999, 1_000, -1, -1_000, -1_001, 1_700_000_000_000_999]
    table = pa.table({"user": [f"u{n}" for n in range(len(us))], "at": pa.array(us, pa.timestamp("us"))})
    found = sessions(engine, table, Policy(), Rules(), read=(), time="at", time_kind="timestamp")
    assert [row["session_start_time_ms"] for row in found] == [each // 1_000 for each in us]


TIMES = [("s", 5, 5_000), ("s", -5, -5_000), ("us", -1, -1), ("us", 1_999, 1), ("ns", 1_999_999, 1), ("ns", -1, -1)]


@pytest.mark.parametrize(("kind", "at", "ms"), [*TIMES, ("ms", -7, -7)])
def test_times_in_numbers(engine: Engine, kind: str, at: int, ms: int):
    table = pa.table({"user": ["u"], "at": pa.array([at], pa.int64())})
    (row,) = sessions(engine, table, Policy(), Rules(), read=(), time="at", time_kind=kind)
    assert row["session_start_time_ms"] == ms


def test_seconds_with_a_fraction(engine: Engine):
    table = pa.table({"user": ["a", "b"], "at": pa.array([1.2345, -0.0001], pa.float64())})
    found = sessions(engine, table, Policy(), Rules(), read=(), time="at", time_kind="s")
    assert [row["session_start_time_ms"] for row in found] == [1_234, -1]


@pytest.mark.parametrize(("kind", "really"), [("timestamp", pa.int64()), ("ms", pa.timestamp("us"))])
def test_a_time_of_another_kind_is_the_databases_error(engine: Engine, kind: str, really: pa.DataType):
    table = pa.table({"user": ["u"], "at": pa.array([5], really)})
    with pytest.raises(Exception, match=r"(?i)cast|type|function|illegal|exist"):
        sessions(engine, table, Policy(), Rules(), read=(), time="at", time_kind=kind)


NAMES = (
    'a"b', "a'b", "select", "A", "a b", "a;--", "é", "sz", "*", "%s", "a/*b",
    "$1", "x\\y", "a.b", ":p", "{{x}}",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names(engine: Engine, name: str):
    """Names of columns and values of rules are quoted, whatever they are."""
    rows = [{"user": "u", "time": at, "type": kind} for at, kind in enumerate([name, "view", name, "view"])]
    table = events_table(rows).select(["user", "event_time_ms", "event_type"])
    table = table.rename_columns([name, f"{name}2", f"{name}3"])
    rules = Rules(start_events=frozenset({name, "'; DROP TABLE events; --"}))
    more = {"user": name, "time": f"{name}2", "read": (), "columns": {"event_type": f"{name}3"}}
    found = sessions(engine, table, Policy(), rules, **more)
    assert [row["event_count"] for row in found] == [2, 2]
    assert [row["session_id"] for row in labels(engine, table, Policy(), rules, **more)].count("u_0") == 2


def test_a_table_in_a_schema(duckdb_engine: Engine):
    duckdb_engine.run('CREATE SCHEMA IF NOT EXISTS "my.data"')
    duckdb_engine.load("events", events_table([{"user": "u", "time": 1}]))
    duckdb_engine.run('CREATE OR REPLACE TABLE "my.data"."e v" AS FROM events')
    found = sessions(duckdb_engine, events_table([]), Policy(), Rules(), name=("my.data", "e v"))
    assert [row["session_id"] for row in found] == ["u_1"]


def test_text_sorts_by_its_bytes_whatever_the_collation():
    """The server of the tests knows no other order, so this looks at the query: the first step that sorts text."""
    columns = SessionColumns(("user", "session_id"))
    definition = SessionDefinition(policy=Policy(), rules=Rules(), columns=columns)
    made = sessions_sql(definition, events(), dialect_named("postgres"))
    ranked = made[made.index('"sz_ranked"') : made.index('"sz_ordered"')]
    assert ranked.count('COLLATE "C"') == 2
    assert made.count('"sz_id" COLLATE "C"') == 2
