"""The tables of the store, the same in every database.

Output tables follow from their specs (session/output_tables.py): a row for each key, and an index for each that is
asked for. Fields of events without a column of their own are in `properties`; `revision` counts how often
a session was reconciled.

sessionize_epochs        the last epoch of each writer, written in the same transaction as its rows
sessionize_replacements  the replacements that were made, by token
sessionize_pipeline      whose the rows are: one row, whose `spec` is a record of session/spec.py
"""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from sessionize.errors import ConfigError
from sessionize.session import columns as col
from sessionize.session import output_tables as output
from sessionize.session.output_tables import Index, TableSpec

USER_SESSIONS = output.SESSIONS.name
LATE_EVENTS = output.LATE_EVENTS.name
REJECTED_EVENTS = output.REJECTED_EVENTS.name
EPOCHS = "sessionize_epochs"
REPLACEMENTS = "sessionize_replacements"
PIPELINE = "sessionize_pipeline"
NAME_BYTES_MAX = 63  # PostgreSQL cuts longer names without a word

Kind = Literal["text", "bigint", "integer", "double", "boolean", "date", "json", "bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column; required ones are never null. zero: what is not given is 0."""

    name: str
    kind: Kind
    required: bool = False
    zero: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TableShape:
    """A table. key: what makes a row the same row; without one, no row takes the place of another.

    removed_by: by which columns rows are removed, those of the key by default. clock_times: columns of ms -> what a
    view beside the table calls them as timestamps, where the database has such a type.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    indexes: tuple[Index, ...] = ()
    removed_by: tuple[str, ...] = ()
    clock_times: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.removed_by:
            object.__setattr__(self, "removed_by", self.key)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(column.name for column in self.columns)


def kind_of(arrow: pa.DataType) -> Kind:
    """What holds the values of an Arrow type; text holds what nothing else does."""
    kinds = pa.types
    if kinds.is_dictionary(arrow):
        return kind_of(arrow.value_type)
    if kinds.is_boolean(arrow):
        return "boolean"
    if kinds.is_integer(arrow) and not kinds.is_uint64(arrow):
        return "bigint" if arrow.bit_width == 64 or kinds.is_uint32(arrow) else "integer"
    if kinds.is_floating(arrow):
        return "double"
    if kinds.is_date(arrow):
        return "date"
    if kinds.is_nested(arrow):
        return "json"
    return "bytes" if kinds.is_binary(arrow) or kinds.is_large_binary(arrow) else "text"


def table_shape(spec: TableSpec, name: str, further: pa.Schema | None = None) -> TableShape:
    """An output table as a table of the store. name: what it is called there. further: columns beyond its own that rows
    bring; fields that belong into `properties` get none.
    """
    required = {*spec.key, *(spec.not_null if spec.not_null is not None else _never_null(spec.schema))}
    columns = [Column(name=c.name, kind=kind_of(c.type), required=c.name in required) for c in spec.schema]
    if spec.revised:
        columns.append(Column(name=col.REVISION, kind="integer", required=True, zero=True))
    known = {column.name for column in columns}
    for field in further if further is not None and not spec.keeps_fields else ():
        if field.name not in known:
            columns.append(Column(name=field.name, kind=kind_of(field.type)))
    return TableShape(
        name=name,
        columns=tuple(columns),
        key=spec.key,
        indexes=spec.indexes,
        removed_by=spec.removed_by,
        clock_times=spec.clock_times,
    )


def _never_null(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if not field.nullable]


def books() -> tuple[TableShape, TableShape, TableShape]:
    """What was written, epochs and replacements, and by whom."""
    epochs = TableShape(
        name=EPOCHS,
        columns=(
            Column(name="writer", kind="text", required=True),
            Column(name="epoch", kind="bigint", required=True),
            Column(name="plan", kind="text", required=True),
            Column(name="written_at_ms", kind="bigint", required=True),
        ),
        key=("writer",),
    )
    replacements = TableShape(
        name=REPLACEMENTS,
        columns=(
            Column(name="token", kind="text", required=True),
            Column(name="written_at_ms", kind="bigint", required=True),
        ),
        key=("token",),
    )
    pipeline = TableShape(
        name=PIPELINE,
        columns=(Column(name="one", kind="integer", required=True), Column(name="spec", kind="text")),
        key=("one",),
    )
    return epochs, replacements, pipeline


def check_names(user_name: str) -> None:
    """Errors: ConfigError when a column of the store cannot be called that beside the others."""
    col.check_user_name(user_name, events=True)
    if not 0 < len(user_name.encode()) <= NAME_BYTES_MAX or "\0" in user_name:
        raise ConfigError(
            "the user column's name cannot be a column of the store",
            detail=f"user column {user_name!r}",
            hint=f"use a name of 1 to {NAME_BYTES_MAX} bytes",
        )
