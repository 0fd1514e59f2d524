"""Every case file, through the reference and through every road to sessions."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import sessionize
from sessionize import Sessionizer
from sessionize.engine.accounting import Accounting
from sessionize.engine.batch.sessions import sessions_of
from sessionize.session.definition import SessionDefinition
from sessionize.testing.cases import Case, read_cases
from sessionize.testing.comparison import events_table, expected_sessions, sorted_rows

CASES = read_cases(Path(__file__).parents[1] / "cases")
each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def filled(case: Case) -> list[dict[str, Any]]:
    """The events of a case, each with every field of any."""
    absent = dict.fromkeys(name for event in case.events for name in event)
    return [{**absent, **event} for event in case.events]


def test_there_are_cases():
    assert len(CASES) >= 20


@each_case
def test_reference(case: Case):
    case.check(expected_sessions(case.events, case.policy, case.rules, own=case.columns.own))


@each_case
def test_one_push_one_flush(case: Case):
    core = Sessionizer(case.policy, rules=case.rules, columns=case.columns)
    core.push(events_table(case.events, case.fields))
    case.check(sorted_rows(core.flush()))


@each_case
def test_event_by_event_with_the_watermark_close_behind(case: Case):
    core, rows = Sessionizer(case.policy, rules=case.rules, columns=case.columns), []
    for event in sorted(filled(case), key=lambda e: e["time"]):
        assert core.push(events_table([event], case.fields)).num_rows == 0
        rows += sorted_rows(core.advance(event["time"]))
    rows += sorted_rows(core.flush())
    case.check(sorted(rows, key=lambda r: (r["user"], r["session_start_time_ms"], r["session_id"])))


@each_case
def test_batch_engine(case: Case):
    tables = [events_table([event], case.fields) for event in filled(case)]
    definition = SessionDefinition(policy=case.policy, rules=case.rules, columns=case.columns)
    made = list(sessions_of(tables, definition, Accounting()))
    case.check(sorted_rows(pa.concat_tables([t.cast(case.columns.schema()) for t, _ in made])))


@each_case
def test_frames(case: Case):
    made = sessionize.sessions(
        events_table(case.events, case.fields).rename_columns({"event_time_ms": "ts"}),
        user="user", time="ts", event_id="event_id", event_type="event_type", page="page", value="value",
        policy=case.policy, rules=case.rules, columns=case.columns.own.to_json().get("columns"),
    )  # fmt: skip
    case.check(sorted_rows(made))
