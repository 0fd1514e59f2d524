"""The query: steps that follow one another, each a common table expression with a line that says why."""

from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.sql.cuts import numbered
from sessionize.sql.dialect import Dialect
from sessionize.sql.dialects import DIALECTS
from sessionize.sql.event_table import EventTable
from sessionize.sql.labels import labelled
from sessionize.sql.session_columns import session_rows
from sessionize.sql.steps import Plan


def sessions_sql(definition: SessionDefinition, events: EventTable, dialect: Dialect) -> str:
    """One row per session, with the columns of the definition, user_name included.

    Errors: ConfigError for what the dialect cannot say.
    """
    plan = Plan(definition, events, dialect)
    query = session_rows(plan, numbered(plan))
    return _head(plan, "one row per session") + dialect.write(plan.assembled(query)) + "\n"


def labels_sql(definition: SessionDefinition, events: EventTable, dialect: Dialect) -> str:
    """Every row of the table with its session id, null for a row that is in no session."""
    plan = Plan(definition, events, dialect, keeps_rows=True)
    query = labelled(plan, numbered(plan))
    return _head(plan, "every row of the table with its session id") + dialect.write(plan.assembled(query)) + "\n"


def _head(plan: Plan, what: str) -> str:
    lines = [f"sessionize, {plan.dialect.name}: {what}; {plan.definition.policy.describe()}"]
    if plan.dialect.name not in DIALECTS:
        lines.append("UNTESTED: no test runs this dialect; compare its result with `sessionize batch` first")
    missing = [name for name in col.SESSION_COLUMNS if not plan.dialect.can_fill(name)]
    if missing and not plan.keeps_rows:
        lines.append(f"without {', '.join(missing)}, for which {plan.dialect.name} has no hash")
    return "".join(f"-- {_plain(line)}\n" for line in lines)


def _plain(line: str) -> str:
    """A comment that stays one whatever it names."""
    return "".join(char if char.isprintable() and char not in "'\"" else " " for char in line)
