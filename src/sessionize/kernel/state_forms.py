"""What the tables of an operator's state look like, and whether a further delta fits to those of before.

Deltas that do not fit could never be merged, so they are refused before they are in a checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from sessionize.errors import StateError
from sessionize.kernel.operator import Append, StateDelta, TableDelta, Upsert

_HINT = (
    "nothing of this epoch was written. Go on with the operator as it was; or let it give a whole delta after the "
    "restart; or take it out of the pipeline, which drops its state"
)


@dataclass(frozen=True, slots=True)
class TableForm:
    """How the deltas of a table add up (the key, or the time), and the columns that its rows and removed keys had."""

    rule: tuple[str, ...]
    rows: pa.Schema
    removed: pa.Schema


Forms = Mapping[str, TableForm]


def forms_after(operator: str, delta: StateDelta, before: Forms | None) -> Forms:
    """The forms of an operator's tables with this delta. before: those of the state it adds to; None for nothing, and
    for a delta that is whole.

    Errors: StateError, naming operator and table, for a delta that does not fit: other tables, another rule, a column
    in another type, rows that lack the columns of their key or their time.
    """
    if before is not None and before.keys() != delta.tables.keys():
        was, now = (", ".join(sorted(names)) or "none" for names in (before, delta.tables))
        raise _misfit(operator, f"its delta has the tables {now}, its state {was}")
    return {
        name: _form_after(operator, name, table, None if before is None else before[name])
        for name, table in delta.tables.items()
    }


def _form_after(operator: str, name: str, table: TableDelta, before: TableForm | None) -> TableForm:
    rule = _rule(table.merge)
    rows, removed = table.rows.schema, pa.schema([]) if table.removed is None else table.removed.schema
    for part in (table.rows, table.removed):
        lacking = (
            [] if part is None or not part.num_rows else [each for each in rule[1:] if each not in part.column_names]
        )
        if lacking:
            raise _misfit(operator, f"rows of its table {name} lack the column {lacking[0]!r}, which its rule names")
    if isinstance(table.merge, Append) and table.merge.time is not None and table.rows.num_rows:
        kind = rows.field(table.merge.time).type
        if kind != pa.int64():
            raise _misfit(
                operator, f"the column {table.merge.time!r} of its table {name}, by which rows leave, is {kind}"
            )
    if before is not None:
        if before.rule != rule:
            raise _misfit(
                operator, f"its table {name} adds up by {' '.join(rule)}, its state by {' '.join(before.rule)}"
            )
        rows, removed = _both(operator, name, before.rows, rows), _both(operator, name, before.removed, removed)
    if isinstance(table.merge, Upsert):
        _both(operator, name, *(_keys(schema, table.merge) for schema in (rows, removed)))
    return TableForm(rule, rows, removed)


def _rule(merge: Upsert | Append) -> tuple[str, ...]:
    return (
        ("upsert", *merge.key)
        if isinstance(merge, Upsert)
        else ("append", *([] if merge.time is None else [merge.time]))
    )


def _keys(schema: pa.Schema, merge: Upsert) -> pa.Schema:
    return pa.schema([each for each in schema if each.name in merge.key])


def _both(operator: str, name: str, one: pa.Schema, other: pa.Schema) -> pa.Schema:
    """The columns of both, by the rule by which tables are put together: one may be missing, or null throughout."""
    try:
        return pa.unify_schemas([one, other], promote_options="default")
    except pa.ArrowException as error:
        raise _misfit(operator, f"its table {name}: {error}") from error


def _misfit(operator: str, how: str) -> StateError:
    return StateError(
        "the state of an operator does not fit to the one before", detail=f"operator {operator}: {how}", hint=_HINT
    )
