"""The query as an incremental model for dbt: a run reads again what new rows can change, and nothing else.

Rows are new by the time at which they were loaded, whatever their event time. For each user with new rows, and for each
whose last session is still open, the events are read from the start of a session that a silence began, before the
first of them: what lies before that start cannot change. All sessions of these users are written anew, the earlier
ones as they are, so that a session that was merged into another is gone.

Columns of the steps: sz_loaded_at: of the event. sz_last_loaded, sz_last_end: of the run before. sz_touched_user,
sz_touched_ms: a user whose sessions may change, and the first time at which. sz_from_user, sz_from_ms: from when that
user's events are read. Columns of the model beside those of sessions: LOADED, INPUT_END.
"""

import re
from dataclasses import replace

from sqlglot import exp

from sessionize.errors import ConfigError
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.sql.cuts import numbered
from sessionize.sql.dialect import Dialect
from sessionize.sql.event_table import EventTable
from sessionize.sql.session_columns import INPUT_END, session_rows
from sessionize.sql.steps import Plan
from sessionize.sql.tree import Tree, column, named, select, text, tree

LOADED = "loaded_up_to"
# What a run needs to know of the sessions that are there.
NEEDED = (col.USER, col.SESSION_ID, col.SESSION_START, col.SESSION_END, col.START_REASON, col.END_REASON)
_SOURCE, _THIS = "sz_dbt_source", "sz_dbt_this"


def check_incremental(definition: SessionDefinition, events: EventTable) -> None:
    """Errors: ConfigError for what an incremental model cannot know."""
    policy = definition.policy
    if events.loaded_at is None:
        raise ConfigError(
            "an incremental model needs to know when rows were loaded",
            detail=f"table {'.'.join(events.name)}",
            hint="--loaded-at COLUMN, a timestamp",
        )
    if policy.numbers_sessions:
        raise ConfigError(
            "an incremental model cannot number the sessions of a user",
            detail=f"session_ids = {policy.session_ids}: one late event would rename all later sessions",
            hint="session_ids = start",
        )
    if policy.repeats_ids:
        raise ConfigError(
            "an incremental model finds no duplicates at other times",
            detail="duplicates = id: a new row may repeat the id of one in a session that is not read again",
            hint="duplicates = user_time_id, or a query over all rows",
        )
    if policy.drops_short:
        raise ConfigError(
            "an incremental model needs the short sessions too",
            detail=f"min_events = {policy.min_events}, min_duration = {policy.min_duration_ms} ms",
            hint="leave the minimum out, and filter in a view over the model",
        )


def model_sql(definition: SessionDefinition, events: EventTable, dialect: Dialect, *, lookback_s: int) -> str:
    """The model. lookback_s: rows may come into the table this much later than their loaded_at says.

    Errors: ConfigError.
    """
    check_incremental(definition, events)
    asked = definition.columns.names
    names = tuple(each for each in col.SESSION_TYPES if each in asked or each in NEEDED)
    definition = replace(definition, columns=replace(definition.columns, names=names))
    plan = Plan(definition, events, dialect, source=_table(_SOURCE), reread=_Reread(lookback_s))
    rows = session_rows(plan, numbered(plan))
    made = rows.named_selects
    sessions = rows.select(column(LOADED), column(INPUT_END)).join("sz_input", join_type="cross")
    user, start = column(definition.user_name), column(col.SESSION_START)
    earlier = select(*(column(each) for each in [*made, LOADED, INPUT_END]), source=_table(_THIS))
    earlier = earlier.join("sz_from", on=tree("CAST(:u AS TEXT) = sz_from_user", u=user))
    earlier = earlier.where(tree(":s < sz_from_ms", s=start))
    key = dialect.write(exp.to_identifier(definition.user_name, quoted=True))
    parts = [
        f"{{{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key={key!r}) }}}}",
        "WITH RECURSIVE" if plan.is_recursive else "WITH",
        *_steps(plan),
        _written(sessions, events, dialect),
        "{% if is_incremental() %}",
        "UNION ALL",
        _written(earlier, events, dialect),
        "{% endif %}",
    ]
    return "\n".join(parts) + "\n"


def recomputation_sql(definition: SessionDefinition, events: EventTable, dialect: Dialect, *, model: str) -> str:
    """A test for dbt: the rows in which the model and the sessions of all its events differ. Errors: ConfigError."""
    check_incremental(definition, events)
    compared = (*NEEDED, col.EVENT_COUNT)
    columns = col.SessionColumns(tuple(each for each in col.SESSION_COLUMNS if each in compared))
    definition = replace(definition, columns=columns)
    assert events.loaded_at is not None
    read = select(f"MAX({LOADED})", source=_table(_THIS))
    known = tree(":at <= :up_to", at=column(events.loaded_at), up_to=exp.Subquery(this=read))
    plan = Plan(definition, events, dialect, source=select("*", source=_table(_SOURCE)).where(known).subquery())
    whole = session_rows(plan, numbered(plan))
    plan.step("sz_expected", "the sessions of all events that the model has read", whole)
    names = [column(definition.user_name if each == col.USER else each) for each in columns.names]
    plan.step("sz_found", "the sessions of the model", select(*names, source=_table(_THIS)))
    both = [select("*", source=name) for name in ("sz_expected", "sz_found")]
    differ = [exp.except_(one, other).subquery(f"sz_only_{at}") for at, (one, other) in enumerate((both, both[::-1]))]
    query = exp.union(*(select("*", source=each) for each in differ), distinct=False)
    sql = _written(plan.assembled(query), events, dialect)
    return sql.replace("{{ this }}", f"{{{{ ref({model!r}) }}}}") + "\n"


class _Reread:
    """Adds the steps that choose what a run reads."""

    def __init__(self, lookback_s: int) -> None:
        self._lookback_s = lookback_s

    def __call__(self, plan: Plan, source: str) -> str:
        user, start = column(plan.definition.user_name), column(col.SESSION_START)
        this = _table(_THIS)

        def add(name: str, why: str, query: Tree) -> str:
            return plan.step(name, why, query, if_incremental=True)

        last = [named(tree(f"MAX({LOADED})"), "sz_last_loaded"), named(tree(f"MAX({INPUT_END})"), "sz_last_end")]
        add("sz_last", "what the runs before have read", select(*last, source=this.copy()))
        back = exp.Interval(this=text(str(self._lookback_s)), unit=exp.Var(this="SECOND"))
        is_new = tree("sz_last_loaded IS NULL OR sz_loaded_at >= sz_last_loaded - :back", back=back)
        new = select("*", source=source).join("sz_last", join_type="cross").where(is_new)
        add("sz_new", "rows that came since, and some before them", new)
        is_open = exp.EQ(this=column(col.END_REASON), expression=text("end_of_input"))
        opened = select(named(tree("CAST(:u AS TEXT)", u=user), "sz_user"), start, source=this.copy()).where(is_open)
        both = exp.union(select("sz_user", "sz_time", source="sz_new"), opened, distinct=False).subquery("sz_both")
        touched = select(
            named(column("sz_user"), "sz_touched_user"), named(tree("MIN(sz_time)"), "sz_touched_ms"), source=both
        ).group_by(column("sz_user"))
        add("sz_touched", "users with new rows, and users whose last session is open", touched)
        earliest = tree("COALESCE(MAX(:s), MIN(sz_touched_ms))", s=start)
        begins = exp.EQ(this=column(col.START_REASON), expression=text("inactivity"))
        same = tree("CAST(:u AS TEXT) = sz_touched_user AND :b AND :s < sz_touched_ms", u=user, b=begins, s=start)
        columns = [named(column("sz_touched_user"), "sz_from_user"), named(earliest, "sz_from_ms")]
        since = select(*columns, source="sz_touched")
        since = since.join(this.copy(), on=same, join_type="left").group_by(column("sz_touched_user"))
        add("sz_from", "the last start after a silence that no new row can move", since)
        within = tree("sz_user = sz_from_user AND sz_time >= sz_from_ms")
        add("sz_reread", "the events whose sessions may change", select("*", source=source).join("sz_from", on=within))
        plan.step("sz_reread", "all events", select("*", source=source), if_incremental=False)
        seen = exp.union(
            select("sz_loaded_at", "sz_time", source="sz_new"),
            select("sz_last_loaded", "sz_last_end", source="sz_last"),
            distinct=False,
        ).subquery("sz_seen")
        ends = [named(tree("MAX(sz_loaded_at)"), LOADED), named(tree("MAX(sz_time)"), INPUT_END)]
        add("sz_input", "where the events end that are known by now", select(*ends, source=seen))
        whole = select(*(each.copy() for each in ends), source=source)
        plan.step("sz_input", "where the events end", whole, if_incremental=False)
        return "sz_reread"


def _steps(plan: Plan) -> list[str]:
    """The common table expressions, those of only one form within their condition."""
    made: list[str] = []
    for at, step in enumerate(plan.steps):
        before = plan.steps[at - 1].if_incremental if at else None
        if step.if_incremental is not before:
            made += ["{% endif %}"] if before is not None else []
            if step.if_incremental is not None:
                made.append("{% if is_incremental() %}" if step.if_incremental else "{% if not is_incremental() %}")
        body = _written(step.query, plan.events, plan.dialect)
        comma = "" if step is plan.steps[-1] else ","
        made.append(f'"{step.name}" /* {step.why} */ AS (\n{body}\n){comma}')
    return made


def _table(token: str) -> exp.Table:
    return exp.Table(this=exp.Var(this=token))


def _written(query: Tree, events: EventTable, dialect: Dialect) -> str:
    """The query with dbt's relations in it; what a text or name has of Jinja's is text for Jinja."""
    sql = re.sub(r"\{(?=[{%#])", "{{ '{' }}", dialect.write(query))
    return sql.replace(_SOURCE, f"{{{{ {source_call(events.name)} }}}}").replace(_THIS, "{{ this }}")


def source_call(name: tuple[str, ...]) -> str:
    """How dbt calls the table: a source if it has a schema, else a model or seed of the project."""
    return f"source({name[-2]!r}, {name[-1]!r})" if len(name) > 1 else f"ref({name[-1]!r})"
