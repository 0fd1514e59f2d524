"""Session columns of one's own as SQL (docs/session-columns.md): aggregates over events, then expressions.

Columns of the steps: sz_field_0 ...: the fields that they name, missing where a number is not finite. sz_of_0 ...: the
value that each column folds. sz_if_0 ...: whether the event counts for it. sz_new_0 ...: whether it is the session's
first event with its value. The columns themselves have their names.
"""

from sqlglot import exp

from sessionize.session import columns as col
from sessionize.session.own_columns import NUMBER_MAX, BoundColumn
from sessionize.sql.expressions import Scope
from sessionize.sql.steps import Plan
from sessionize.sql.tree import Tree, column, named, number, select, tree

_OF_EVENT = {col.EVENT_TIME: "sz_time", col.EVENT_ID: "sz_id"}


def valued(plan: Plan, source: str) -> str:
    """Add the steps that compute what own columns fold, of each event; return the name of the last."""
    own = plan.definition.columns.own
    if not own.aggregates:
        return source
    scope = Scope(plan.dialect, event_fields(plan), dict(own.fields))
    columns: list[Tree] = []
    for at, each in enumerate(own.aggregates):
        where = None if each.definition.where is None else scope.tree(each.definition.where)
        counts: list[Tree] = [] if where is None else [exp.func("COALESCE", where, exp.false())]
        if each.of is not None:
            value = scope.tree(each.of)
            value = exp.cast(value, "boolean") if each.type == "boolean" else value
            columns.append(named(value, f"sz_of_{at}"))
            counts.append(tree(":v IS NOT NULL", v=value))
        keep = exp.and_(*(exp.paren(part) for part in counts)) if counts else exp.true()
        columns.append(named(keep, f"sz_if_{at}"))
    why = "the values that further columns fold, and which events count for each"
    source = plan.step("sz_folded", why, select("*", *columns, source=source))
    firsts = [
        named(_is_new(plan, at), f"sz_new_{at}") for at, each in enumerate(own.aggregates) if each.kind == "distinct"
    ]
    if not firsts:
        return source
    why = "the first event of each value, so that each is listed once"
    return plan.step("sz_listed", why, select("*", *firsts, source=source))


def event_fields(plan: Plan) -> dict[str, Tree]:
    """The column of the query for each field that own columns name."""
    names = [name for name, _ in plan.definition.columns.own.fields]
    return {name: column(_OF_EVENT.get(name, f"sz_field_{at}")) for at, name in enumerate(names)}


def _is_new(plan: Plan, at: int) -> Tree:
    keep = column(f"sz_if_{at}")
    row = plan.over(tree("ROW_NUMBER()"), column("sz_number"), keep, column(f"sz_of_{at}"), order=[tree("sz_pos")])
    return tree("(:keep AND :row = 1)", keep=keep, row=row)


def aggregates(plan: Plan) -> list[Tree]:
    """The columns that fold events, for the step that has one row per session."""
    own = plan.definition.columns.own
    return [named(_aggregate(plan, each, at), each.name) for at, each in enumerate(own.aggregates)]


def _aggregate(plan: Plan, each: BoundColumn, at: int) -> Tree:
    dialect, position = plan.dialect, column("sz_pos")
    value, keep = column(f"sz_of_{at}"), column(f"sz_if_{at}")
    kept = tree("CASE WHEN :k THEN :v END", k=keep, v=value)
    match each.kind:
        case "first":
            return dialect.first_of(value, position, keep)
        case "last":
            return dialect.last_of(value, position, keep)
        case "min" | "max":
            least = dialect.bytewise(kept) if each.type == "text" else kept
            return tree(f"{each.kind.upper()}(:v)", v=least)
        case "count":
            return tree("COUNT(CASE WHEN :k THEN 1 END)", k=keep)
        case "count_distinct":
            return tree("COUNT(DISTINCT :v)", v=kept)
        case "distinct":
            listed = dialect.list_of(exp.cast(value, "text"), position, column(f"sz_new_{at}"))
            return dialect.shortened(listed, each.definition.limit)
    return _sum(plan, each, value, keep)


def _sum(plan: Plan, each: BoundColumn, value: Tree, keep: Tree) -> Tree:
    """Exact in whole millionths, or in ones for integers, then rounded once."""
    dialect = plan.dialect
    if each.type == "integer":
        kept = tree("CASE WHEN :k THEN :v END", k=keep, v=value)
        unit = 1
    else:
        pattern = "CASE WHEN :k AND ABS(:v) <= :most THEN :micros END"
        kept = tree(pattern, k=keep, v=value, most=number(int(NUMBER_MAX)), micros=dialect.micros(value))
        unit = 1_000_000
    total = dialect.wide_sum(kept)
    if each.kind == "sum":
        return dialect.amount(total) if unit > 1 else dialect.nearest(total)
    # up to 2**53 both are doubles, and dividing them rounds once
    return tree("CAST(:total AS DOUBLE) / (COUNT(:kept) * :unit)", total=total, kept=kept, unit=number(unit))


def sessions_with_own(plan: Plan, built_in: exp.Select) -> exp.Select:
    """The sessions with the own columns behind the built-in ones. built_in: selects these under their names."""
    definition = plan.definition
    own = definition.columns.own
    query = built_in.select(*(column(each.name) for each in own.aggregates))
    if len(own.aggregates) == len(own.columns):
        return query
    source = plan.step("sz_named", "the session columns under their names", query)
    types = dict(definition.columns.types)
    for each in own.columns:
        if each.kind == "expression":
            value = Scope(plan.dialect, {name: column(name) for name in types}, types).tree(each.of or "")
            value = exp.cast(value, "boolean") if each.result == "boolean" else value
            why = "a column that is made of other columns of the session"
            source = plan.step(f"sz_with_{each.name}", why, select("*", named(value, each.name), source=source))
        types[each.name] = each.result
    names = [*built_in.named_selects, *(each.name for each in own.columns)]
    return select(*(column(name) for name in dict.fromkeys(names)), source=source)
