"""The query: steps that follow one another, each a common table expression with a line that says why."""

from sqlglot import exp

from sessionize.errors import ConfigError
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.sql.cuts import numbered
from sessionize.sql.dialects import DIALECTS, Dialect
from sessionize.sql.event_table import EventTable
from sessionize.sql.labels import labelled
from sessionize.sql.session_columns import output_columns, session_steps
from sessionize.sql.steps import Plan
from sessionize.sql.tree import number, tree


def sessions_sql(definition: SessionDefinition, events: EventTable, dialect: Dialect) -> str:
    """One row per session, with the columns of the definition, user_name included.

    Errors: ConfigError for what the dialect cannot say.
    """
    if definition.columns.own:
        names = ", ".join(each.name for each in definition.columns.own.columns)
        raise ConfigError("SQL cannot say columns of one's own yet", detail=names, hint="leave [session_columns] out")
    plan = Plan(definition, events, dialect)
    last = numbered(plan)
    made = session_steps(plan, last)
    query = exp.select(*output_columns(plan)).from_(made)
    policy = definition.policy
    if policy.drops_short:
        enough = "event_count >= :events AND sz_end - sz_start >= :ms"
        query = query.where(tree(enough, events=number(policy.min_events), ms=number(policy.min_duration_ms)))
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
