"""From numbered events to one row per session: rules 5 to 7 of docs/spec/sessions.md as SQL.

Columns of the steps: sz_first_page, sz_first_type: whether the event is the session's first with its page or type.
sz_type_count: how many it has with this type. sz_start, sz_end: of the session, in ms. sz_repeat: how many earlier
sessions of the user began in the same millisecond. The others are called like the session columns they become.
"""

from sqlglot import exp

from sessionize.errors import ConfigError
from sessionize.session import columns as col
from sessionize.session.bounce import NO_CONVERSION, ONE_EVENT, ONE_PAGE, bounce_duration_ms
from sessionize.session.time import MS_PER_DAY
from sessionize.sql.own_columns import aggregates, sessions_with_own, valued
from sessionize.sql.steps import Plan, session_id
from sessionize.sql.tree import Tree, column, named, number, select, text, tree

# Of an incremental model: when the events known to it end.
INPUT_END = "input_end_time_ms"


def session_rows(plan: Plan, source: str) -> exp.Select:
    """Add the steps from the numbered events to sessions, and select their columns, those of one's own last."""
    query = select(*output_columns(plan), source=_session_steps(plan, source))
    policy = plan.definition.policy
    if policy.drops_short:
        enough = "event_count >= :events AND sz_end - sz_start >= :ms"
        query = query.where(tree(enough, events=number(policy.min_events), ms=number(policy.min_duration_ms)))
    return sessions_with_own(plan, query)


def _session_steps(plan: Plan, source: str) -> str:
    wanted = plan.definition.columns
    source = valued(plan, source)
    firsts: list[Tree] = []
    if col.PAGES_VISITED in wanted:
        firsts.append(named(_is_first(plan, "sz_page"), "sz_first_page"))
    if col.EVENTS_BY_TYPE in wanted and plan.dialect.counts_rows:
        firsts.append(named(_is_first(plan, "sz_type"), "sz_first_type"))
        count = plan.over(tree("COUNT(*)"), column("sz_number"), column("sz_type"))
        firsts.append(named(count, "sz_type_count"))
    if firsts:
        why = "the first event of each page and type, so that each counts once"
        source = plan.step("sz_visits", why, select("*", *firsts, source=source))
    grouped = select("sz_user", "sz_number", *_aggregates(plan), *aggregates(plan), source=source)
    grouped = grouped.group_by(column("sz_user"), column("sz_number"))
    source = plan.step("sz_sessions", "one row per session (rule 7)", grouped)
    return _ended(plan, source)


def _is_first(plan: Plan, name: str) -> Tree:
    row = plan.over(tree("ROW_NUMBER()"), column("sz_number"), column(name), order=[tree("sz_pos")])
    return tree("(:c IS NOT NULL AND :row = 1)", c=column(name), row=row)


def _aggregates(plan: Plan) -> list[Tree]:
    """What is added up over the events of a session."""
    wanted, dialect = plan.definition.columns, plan.dialect
    position, has_page = column("sz_pos"), tree("sz_page IS NOT NULL")
    made: dict[str, Tree] = {
        "sz_start": tree("MIN(sz_time)"),
        "sz_end": tree("MAX(sz_time)"),
        "sz_chain": tree("MIN(sz_chain)"),
        col.EVENT_COUNT: tree("COUNT(*)"),
        col.START_REASON: tree("MAX(sz_begins)"),
    }
    if plan.definition.policy.gap_by is not None:
        made["sz_reached_until"] = tree("MAX(sz_reach)")
    if plan.definition.rules.end_events:
        made["sz_closed"] = tree("MAX(CASE WHEN sz_ends THEN 1 ELSE 0 END)")
    if col.PAGES_VISITED in wanted:
        made[col.PAGES_VISITED] = dialect.list_of(column("sz_page"), position, column("sz_first_page"))
    if col.ENTRY_PAGE in wanted:
        made[col.ENTRY_PAGE] = dialect.first_of(column("sz_page"), position, has_page)
    if col.EXIT_PAGE in wanted:
        made[col.EXIT_PAGE] = dialect.last_of(column("sz_page"), position, has_page)
    if col.EVENTS_BY_TYPE in wanted:
        count, first = column("sz_type_count"), column("sz_first_type")
        made[col.EVENTS_BY_TYPE] = dialect.counts_by(column("sz_type"), count, first)
    if col.HAS_CONVERSION in wanted:
        made[col.HAS_CONVERSION] = tree("CAST(MAX(CASE WHEN sz_converts THEN 1 ELSE 0 END) AS BOOLEAN)")
    if col.IS_BOUNCE in wanted:
        made[col.IS_BOUNCE] = _is_bounce(plan)
    if col.REVENUE in wanted:
        made[col.REVENUE] = dialect.amount(dialect.wide_sum(column("sz_micros")))
    return [named(value, name) for name, value in made.items()]


def _is_bounce(plan: Plan) -> Tree:
    """Rule 12: all conditions hold; without pages or types there are no page views and no conversions."""
    conditions = plan.definition.policy.bounce
    found = []
    if ONE_EVENT in conditions:
        found.append(tree("COUNT(*) = 1"))
    if ONE_PAGE in conditions and plan.has(col.PAGE):
        found.append(tree("COUNT(sz_page) < 2"))
    if NO_CONVERSION in conditions and plan.has(col.EVENT_TYPE):
        found.append(tree("MAX(CASE WHEN sz_converts THEN 1 ELSE 0 END) = 0"))
    if (limit := bounce_duration_ms(conditions)) is not None:
        found.append(tree("MAX(sz_time) - MIN(sz_time) < :limit", limit=number(limit)))
    return exp.cast(exp.and_(*found) if found else exp.true(), "boolean")


def _ended(plan: Plan, source: str) -> str:
    """Rule 5: a session ends for the reason that the next one began, or because nothing came, or the input ended."""
    policy, rules = plan.definition.policy, plan.definition.rules
    silence = text("timeout" if rules.end_events else "inactivity")
    order = [tree("sz_number")]
    next_reason = exp.Window(
        this=tree("LEAD(start_reason)"), partition_by=[column("sz_user")], order=exp.Order(expressions=order)
    )
    earlier = exp.Window(this=tree("MIN(sz_number)"), partition_by=[column("sz_user"), column("sz_start")])
    in_chain = exp.Window(this=tree("MIN(sz_number)"), partition_by=[column("sz_user"), column("sz_chain")])
    repeat, piece = (tree("sz_number - :first", first=first) for first in (earlier, in_chain))
    extra = {"start": [named(repeat, "sz_repeat")], "sequential": [named(piece, "sz_piece")], "running": []}
    why = "the next session of the user says why this one ended (rule 5)"
    columns = [named(next_reason, "sz_next_reason"), *extra[policy.session_ids]]
    source = plan.step("sz_followed", why, select("*", *columns, source=source))
    end = exp.Case()
    if rules.end_events:
        end = end.when(tree("sz_closed = 1"), text("rule:end_events"))
    ends = select("MAX(sz_time)", source="sz_usable") if plan.reread is None else select(INPUT_END, source="sz_input")
    latest = exp.Subquery(this=ends)
    silent = tree(":latest - sz_end > :longest", latest=latest, longest=number(policy.longest_silence_ms))
    if policy.gap_by is not None:
        silent = tree(":latest > sz_reached_until", latest=latest)
    end = (
        end.when(tree("sz_next_reason = 'inactivity'"), silence)
        .when(tree("sz_next_reason IS NOT NULL"), tree("sz_next_reason"))
        .when(silent, silence)
        .else_(text("end_of_input"))
    )
    why = "an end rule goes before all, and the last session ends by silence or with the input (rule 5)"
    return plan.step("sz_ended", why, select("*", named(end, col.END_REASON), source=source))


def output_columns(plan: Plan) -> list[Tree]:
    """The session columns under their names, in their order."""
    made = {
        col.USER: lambda: column("sz_user"),
        col.SESSION_ID: lambda: session_id(plan),
        col.SESSION_START: lambda: column("sz_start"),
        col.SESSION_END: lambda: column("sz_end"),
        col.SESSION_DURATION: lambda: tree("CAST(sz_end - sz_start AS DOUBLE) / 1000"),
        col.SESSION_DATE: lambda: plan.dialect.date_of(plan.dialect.floor_div(column("sz_start"), MS_PER_DAY)),
        col.USER_HASH_BUCKET: lambda: _bucket(plan),
    }
    name_of = {col.USER: plan.definition.user_name}
    names = plan.definition.columns.names
    return [named(made.get(name, lambda name=name: column(name))(), name_of.get(name, name)) for name in names]


def _bucket(plan: Plan) -> Tree:
    made = plan.dialect.user_bucket(column("sz_user"))
    if made is None:
        raise ConfigError(
            f"{plan.dialect.name} has no hash for the column {col.USER_HASH_BUCKET}",
            detail="it is a bucket of murmur3, as in Iceberg",
            hint="leave it out with --session-columns",
        )
    return made
