"""From the user's table to events with the number of their session: rules 1 to 4 of docs/spec/sessions.md as SQL.

Columns of the steps: sz_user, sz_time (ms), sz_id, sz_type, sz_page, sz_value: the event. sz_starts, sz_ends,
sz_converts: flags. sz_micros: what it adds to revenue. sz_kept: whether it is in a session (only where rows are kept).
sz_value_0, sz_split_0 ...: values of split_on_change as they are, and those that count. sz_gap: the event's own gap.
sz_pos: its place among the user's events. sz_before, sz_after_end: of the event before. Further ones: cuts.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from sessionize.errors import ConfigError
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.session.durations import MS_OF_UNIT
from sessionize.session.limits import TIME_MS_MAX, TIME_MS_MIN, USER_BYTES_MAX, VALUE_MAX
from sessionize.sql.dialect import Dialect, case_pairs
from sessionize.sql.event_table import EventTable
from sessionize.sql.tree import Tree, column, is_one_of, named, number, select, text, tree

_SOURCE = "sz_table"
_TEXTS = {col.EVENT_ID: "sz_id", col.EVENT_TYPE: "sz_type", col.PAGE: "sz_page"}


@dataclass(frozen=True, slots=True)
class Step:
    """A common table expression.

    why: what for, in a line. if_incremental: where only one of the two forms of a dbt model has it.
    """

    name: str
    why: str
    query: Tree
    if_incremental: bool | None = None


@dataclass(slots=True)
class Plan:
    """A query in the making.

    keeps_rows: whether rows that are in no session stay, with all their columns. source: in place of the table's name.
    reread: adds the steps that choose the rows of an incremental run; None for a query over all rows.
    """

    definition: SessionDefinition
    events: EventTable
    dialect: Dialect
    keeps_rows: bool = False
    source: exp.Table | exp.Subquery | None = None
    reread: "Callable[[Plan, str], str] | None" = None
    steps: list[Step] = field(default_factory=list)
    is_recursive: bool = False

    def has(self, canonical: str) -> bool:
        """Whether the table has this event column."""
        return canonical in self.events.columns

    def step(self, name: str, why: str, query: Tree, *, if_incremental: bool | None = None) -> str:
        """Add a step, and return its name. why: without quotation marks, which DuckDB takes for the start of a text."""
        assert not set(why) & set("'\"*"), why
        self.steps.append(Step(name, why, query, if_incremental))
        return name

    def assembled(self, query: exp.Query) -> exp.Query:
        """The query with all steps before it."""
        for step in self.steps:
            alias = exp.to_identifier(step.name, quoted=True)
            query = query.with_(alias, as_=step.query, recursive=self.is_recursive, copy=False)
            query.ctes[-1].add_comments([f" {step.why} "])
        return query

    @property
    def own_columns(self) -> list[str]:
        """The columns that the steps so far have added to those of the table."""
        queries = (step.query for step in self.steps if isinstance(step.query, exp.Query))
        made = (each.alias for query in queries for each in query.selects)
        return list(dict.fromkeys(name for name in made if name.startswith("sz_")))

    @property
    def users(self) -> list[Tree]:
        """What windows are partitioned by: rows that are in no session stay apart."""
        return [column("sz_user"), *([column("sz_kept")] if self.keeps_rows else [])]

    def over(
        self, function: Tree, *partition: Tree, order: list[Tree] | None = None, frame: Tree | None = None
    ) -> Tree:
        """The function over the rows of a user, and of what else is named."""
        made = exp.Window(this=function, partition_by=[*self.users, *partition])
        if order:
            made.set("order", exp.Order(expressions=order))
        if frame is not None:
            made.set("spec", frame)
        return made

    def running(self, function: Tree, *partition: Tree) -> Tree:
        """The function over all events of the user up to this one."""
        rows = exp.WindowSpec(kind="ROWS", start="UNBOUNDED", start_side="PRECEDING", end="CURRENT ROW")
        return self.over(function, *partition, order=[tree("sz_pos")], frame=rows)


def read(plan: Plan) -> str:
    """Add the step that reads the user's table."""
    events, dialect = plan.events, plan.dialect
    time = column(events.time)
    made = dialect.time_ms(time) if events.time_kind == "timestamp" else dialect.whole_ms(time, events.time_kind)
    columns = [named(tree("CAST(:c AS TEXT)", c=column(events.user)), "sz_user"), named(made, "sz_time")]
    for canonical, name in _TEXTS.items():
        if plan.has(canonical):
            pattern = "NULLIF(CAST(:c AS TEXT), '')" if canonical == col.EVENT_ID else "CAST(:c AS TEXT)"
            columns.append(named(tree(pattern, c=column(events.columns[canonical])), name))
    if plan.has(col.VALUE):
        columns.append(named(tree("CAST(:c AS DOUBLE)", c=column(events.columns[col.VALUE])), "sz_value"))
    for at, name in enumerate(plan.definition.rules.split_fields):
        columns.append(named(tree("CAST(:c AS TEXT)", c=column(events.column_of(name))), f"sz_value_{at}"))
    if (by := plan.definition.policy.gap_by) is not None:
        kind = "text" if by.gaps else "double"
        columns.append(named(exp.cast(column(events.column_of(by.field)), kind), "sz_gap_value"))
    if events.loaded_at is not None:
        columns.append(named(column(events.loaded_at), "sz_loaded_at"))
    for at, (name, kind) in enumerate(plan.definition.columns.own.fields):
        if name not in (col.EVENT_TIME, col.EVENT_ID):
            columns.append(named(_field(plan, name, kind), f"sz_field_{at}"))
    if plan.keeps_rows:
        columns.insert(0, dialect.carried_row(_SOURCE))
    source = table_named(events.name) if plan.source is None else plan.source.copy()
    source.set("alias", exp.TableAlias(this=exp.to_identifier(_SOURCE, quoted=True)))
    return plan.step("sz_read", "columns of the table under fixed names and types", select(*columns, source=source))


def table_named(name: tuple[str, ...]) -> exp.Table:
    """A table by the parts of its name."""
    *schema, table = (exp.to_identifier(part, quoted=True) for part in name)
    made = exp.Table(this=table)
    for place, part in zip(("db", "catalog"), reversed(schema), strict=False):
        made.set(place, part)
    return made


def _field(plan: Plan, name: str, kind: str) -> Tree:
    """A field of own columns in its type."""
    value = column(plan.events.column_of(name))
    if kind == "number":
        return plan.dialect.finite(exp.cast(value, "double"))
    return exp.cast(value, {"text": "text", "integer": "bigint", "boolean": "boolean"}[kind])


def _usable(plan: Plan) -> Tree:
    """Whether a row has a user and a time within the limits of rule 10."""
    pattern = (
        "sz_user IS NOT NULL AND :trimmed <> '' AND :size <= :most "
        "AND sz_time IS NOT NULL AND sz_time BETWEEN :low AND :high"
    )
    user = column("sz_user")
    return tree(
        pattern,
        trimmed=exp.Trim(this=user, expression=text(_blanks()), position="BOTH"),
        size=plan.dialect.byte_length(user.copy()),
        most=number(USER_BYTES_MAX),
        low=number(TIME_MS_MIN),
        high=number(TIME_MS_MAX),
    )


def flagged(plan: Plan, source: str) -> str:
    """What rule 4 says of each event alone; events of excluded types are set aside."""
    rules, kind = plan.definition.rules, column("sz_type")
    if rules.boundary is not None:
        raise ConfigError(
            "SQL cannot call a Python boundary function",
            detail=f"rules.boundary = {rules.boundary_name}",
            hint="use start_events or end_events, or a column of the table that says it",
        )
    if rules.need_event_type and not plan.has(col.EVENT_TYPE):
        raise ConfigError(
            "a rule needs the event type, which the table lacks",
            detail="start_events, end_events or excluded_events",
            hint="--event-type COLUMN",
        )
    usable = _usable(plan)
    if not plan.keeps_rows:
        why = "a row without a usable user or time is no event (rule 10)"
        source = plan.step("sz_usable", why, select("*", source=source).where(usable))
    if plan.reread is not None:
        source = plan.reread(plan, source)
    columns: list[Tree] = []
    if rules.start_events:
        columns.append(named(is_one_of(kind.copy(), rules.start_events), "sz_starts"))
    if rules.end_events:
        columns.append(named(is_one_of(kind.copy(), rules.end_events), "sz_ends"))
    if plan.has(col.EVENT_TYPE):
        columns.append(named(_converts(plan), "sz_converts"))
    if plan.has(col.EVENT_TYPE) and plan.has(col.VALUE):
        columns.append(named(_micros(plan), "sz_micros"))
    for at in range(len(rules.split_fields)):
        columns.append(named(_value_that_counts(plan, column(f"sz_value_{at}")), f"sz_split_{at}"))
    if plan.definition.policy.gap_by is not None:
        columns.append(named(_own_gap(plan), "sz_gap"))
    excluded = is_one_of(kind.copy(), rules.excluded_events) if rules.excluded_events else None
    made = select("*", *columns, source=source)
    if plan.keeps_rows:
        counts = usable if excluded is None else exp.and_(usable, exp.not_(excluded))
        made = made.select(named(exp.func("COALESCE", exp.paren(counts), exp.false()), "sz_counts"))
    elif excluded is not None:
        made = made.where(exp.not_(excluded))
    return plan.step("sz_flagged", "what rule 4 says of each event alone", made)


def _converts(plan: Plan) -> Tree:
    """Whether the event is a conversion, upper or lower case alike."""
    names = frozenset(name.lower() for name in plan.definition.rules.conversion_events)
    if not names:
        return exp.false()
    upper, lower = _upper_of(frozenset("".join(names)))
    return is_one_of(plan.dialect.translated(column("sz_type"), upper, lower) if upper else column("sz_type"), names)


def _micros(plan: Plan) -> Tree:
    """What the event adds to revenue, in whole millionths; NaN and what is beyond the limit add nothing."""
    micros = plan.dialect.micros(column("sz_value"))
    pattern = "CASE WHEN :converts AND ABS(sz_value) <= :most THEN :micros ELSE 0 END"
    return tree(pattern, converts=_converts(plan), most=number(int(VALUE_MAX)), micros=micros)


def _value_that_counts(plan: Plan, value: Tree) -> Tree:
    """The value of a field of split_on_change; null where it is missing or to be ignored."""
    exact = frozenset(each for each in plan.definition.rules.split_ignore if "*" not in each) | {""}
    made = exp.Case().when(is_one_of(value, exact), exp.null())
    for pattern in sorted(plan.definition.rules.split_ignore - exact):
        made = made.when(plan.dialect.matches(value, pattern), exp.null())
    return made.else_(value)


def _own_gap(plan: Plan) -> Tree:
    """The gap of the event in ms (rule 2)."""
    policy, value = plan.definition.policy, column("sz_gap_value")
    by, default = policy.gap_by, number(policy.gap_ms)
    assert by is not None
    if by.gaps:
        table = exp.Case()
        for each, ms in by.gaps:
            table = table.when(exp.EQ(this=value.copy(), expression=text(each)), number(ms))
        return table.else_(default)
    return tree(
        "CASE WHEN :nan OR sz_gap_value IS NULL OR sz_gap_value * :unit < 1 THEN :default "
        "WHEN sz_gap_value * :unit >= :longest THEN :longest ELSE CAST(FLOOR(sz_gap_value * :unit) AS BIGINT) END",
        nan=plan.dialect.is_nan(value),
        unit=number(MS_OF_UNIT[by.unit]),
        longest=number(by.longest_ms),
        default=default,
    )


def _order(plan: Plan) -> list[Tree]:
    """Rule 1: time, id, then the rest of the event; missing first, text by its bytes."""
    found = [_ascending(column("sz_time"))]
    if plan.has(col.EVENT_ID):
        found.append(_ascending(plan.dialect.bytewise(column("sz_id"))))
    return found + _rest(plan)


def _rest(plan: Plan) -> list[Tree]:
    rules, dialect = plan.definition.rules, plan.dialect
    flags = [name for name, wanted in (("sz_starts", rules.start_events), ("sz_ends", rules.end_events)) if wanted]
    found = [_ascending(tree("CASE WHEN :f THEN 1 ELSE 0 END", f=column(flag))) for flag in flags]
    found += [_ascending(dialect.bytewise(column(f"sz_split_{at}"))) for at in range(len(rules.split_fields))]
    if plan.definition.policy.gap_by is not None:
        found.append(_ascending(column("sz_gap")))
    for canonical, name in ((col.PAGE, "sz_page"), (col.EVENT_TYPE, "sz_type")):
        if plan.has(canonical):
            found.append(_ascending(dialect.bytewise(column(name))))
    if plan.has(col.EVENT_TYPE) and plan.has(col.VALUE):
        found.append(_ascending(column("sz_micros")))
    for at, (name, kind) in enumerate(plan.definition.columns.own.fields):
        if name not in (col.EVENT_TIME, col.EVENT_ID):
            value = column(f"sz_field_{at}")
            found.append(_ascending(dialect.bytewise(value) if kind == "text" else value))
    return found


def _ascending(value: Tree) -> Tree:
    return exp.Ordered(this=value, desc=False, nulls_first=True)


def _without_duplicates(plan: Plan, source: str) -> tuple[str, Tree]:
    """The step that tells duplicates, and the condition that an event is none."""
    policy = plan.definition.policy
    by = [column("sz_user"), *([tree("sz_counts")] if plan.keeps_rows else []), column("sz_id")]
    if not policy.repeats_ids:
        order = _rest(plan) or [number(1)]
        by.insert(-1, column("sz_time"))
        copy = exp.Window(this=tree("ROW_NUMBER()"), partition_by=by, order=exp.Order(expressions=order))
        why = "events with equal user, time and id are duplicates: the first in order counts (rule 1)"
        source = plan.step("sz_ranked", why, select("*", named(copy, "sz_copy"), source=source))
        return source, tree("(sz_id IS NULL OR sz_copy = 1)")
    order = [_ascending(column("sz_time")), *_rest(plan)]
    before = exp.Window(this=tree("LAG(sz_time)"), partition_by=by, order=exp.Order(expressions=order))
    why = "an event that soon follows another one of its user and id is a duplicate (rule 1)"
    source = plan.step("sz_ranked", why, select("*", named(before, "sz_id_before"), source=source))
    pattern = "(sz_id IS NULL OR sz_id_before IS NULL OR sz_time - sz_id_before > :within)"
    first = tree(pattern, within=number(policy.duplicates_within_ms))
    if plan.keeps_rows:
        # events of one time are peers, so all copies of an event have its number
        many = tree("SUM(CASE WHEN :first THEN 1 ELSE 0 END)", first=first.copy())
        by_time = exp.Order(expressions=[_ascending(column("sz_time"))])
        number_of = exp.Window(this=many, partition_by=[each.copy() for each in by], order=by_time)
        why = "which event of its id a duplicate repeats"
        source = plan.step("sz_repeating", why, select("*", named(number_of, "sz_original"), source=source))
    return source, first


def ordered(plan: Plan, source: str) -> str:
    """Rule 1: duplicates go, and every event gets its place and what it needs of the event before."""
    kept: Tree | None = tree("sz_counts") if plan.keeps_rows else None
    if plan.has(col.EVENT_ID):
        source, first = _without_duplicates(plan, source)
        kept = first if kept is None else exp.and_(kept, first)
    if plan.keeps_rows and kept is not None:
        why = "rows that are in no session stay, apart from those that are"
        source = plan.step("sz_marked", why, select("*", named(kept, "sz_kept"), source=source))
    order = _order(plan)
    columns = [
        named(plan.over(tree("ROW_NUMBER()"), order=order), "sz_pos"),
        named(plan.over(tree("LAG(sz_time)"), order=order), "sz_before"),
    ]
    if plan.definition.rules.end_events:
        columns.append(named(plan.over(tree("LAG(sz_ends)"), order=order), "sz_after_end"))
    made = select("*", *columns, source=source)
    if kept is not None and not plan.keeps_rows:
        made = made.where(kept)
    return plan.step("sz_ordered", "the place of each event in the order of its user, and the event before", made)


def session_id(plan: Plan) -> Tree:
    """Rule 6, of a row with sz_user, sz_number and, by style, sz_start and sz_repeat, or sz_chain and sz_piece."""
    match plan.definition.policy.session_ids:
        case "running":
            return _joined(column("sz_user"), text("-"), column("sz_number"))
        case "sequential":
            return _joined(column("sz_user"), text("_session_"), column("sz_chain"), text("_"), column("sz_piece"))
        case _:
            suffix = _joined(text("."), column("sz_repeat"))
            again = tree("CASE WHEN sz_repeat > 0 THEN :suffix ELSE '' END", suffix=suffix)
            begun = _joined(column("sz_user"), text("_"), column("sz_start"))
            return exp.DPipe(this=begun, expression=again, safe=True)


def _joined(*parts: Tree) -> Tree:
    """Texts and whole numbers, one after the other."""
    first, *rest = (part if part.is_string or part.name == "sz_user" else exp.cast(part, "text") for part in parts)
    for part in rest:
        first = exp.DPipe(this=first, expression=part, safe=True)
    return first


@cache
def _blanks() -> str:
    """All characters that are blank to the decoders: a user of nothing else is empty."""
    every = pa.array([chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000])
    return "".join(every.filter(pc.utf8_is_space(every)).to_pylist())


@cache
def _upper_of(lower: frozenset[str]) -> tuple[str, str]:
    """Characters whose lower case is one of these, and that lower case, in the same order."""
    pairs = [(each, other) for each, other in zip(*case_pairs(upper=False), strict=True) if other in lower]
    return "".join(each for each, _ in pairs), "".join(other for _, other in pairs)
