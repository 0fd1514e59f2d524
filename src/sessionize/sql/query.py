"""The query: steps that follow one another, each a common table expression with a line that says why."""

from dataclasses import dataclass, field

from sqlglot import exp

from sessionize.errors import ConfigError
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.sql import steps
from sessionize.sql.dialects import DIALECTS, Dialect
from sessionize.sql.event_table import EventTable
from sessionize.sql.session_columns import output_columns, session_steps
from sessionize.sql.steps import Plan


def sessions_sql(definition: SessionDefinition, events: EventTable, dialect: Dialect) -> str:
    """One row per session, with the columns of the definition, user_name included.

    Errors: ConfigError for what the dialect cannot say.
    """
    plan = Plan(definition, events, dialect)
    last = steps.numbered(plan)
    made = session_steps(plan, last)
    query = exp.select(*output_columns(plan)).from_(made)
    return _head(plan, "one row per session") + dialect.write(plan.assembled(query)) + "\n"


def labels_sql(definition: SessionDefinition, events: EventTable, dialect: Dialect) -> str:
    """Every row of the table with its session id, null for a row that is in no session."""
    plan = Plan(definition, events, dialect, keeps_rows=True)
    query = steps.labelled(plan, steps.numbered(plan))
    return _head(plan, "every row of the table with its session id") + dialect.write(plan.assembled(query)) + "\n"


def _head(plan: Plan, what: str) -> str:
    lines = [f"sessionize, {plan.dialect.name}: {what}; {plan.definition.policy.describe()}"]
    if plan.dialect.name not in DIALECTS:
        lines.append("UNTESTED: no test runs this dialect; compare its result with `sessionize batch` first")
    return "".join(f"-- {line}\n" for line in [*lines, *plan.notes])
