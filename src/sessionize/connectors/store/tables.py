"""The tables of the store, the same in every database.

user_sessions       one row for each session, by (user, session_id); `revision` counts how often it was reconciled
late_events         events that came too late, as they came; fields without a column of their own are in `properties`
rejected_events     records that could not be used
sessionize_epochs        the last epoch of each writer, written in the same transaction as its rows
sessionize_replacements  the replacements that were made, by token
sessionize_pipeline      whose the rows are: one row, whose `spec` is a record of session/spec.py
"""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from sessionize.errors import ConfigError
from sessionize.session import columns as col

USER_SESSIONS = "user_sessions"
LATE_EVENTS = "late_events"
REJECTED_EVENTS = "rejected_events"
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
class Index:
    """An index on columns, (name, whether from the largest down); where: a boolean column that has to be true."""

    name: str
    columns: tuple[tuple[str, bool], ...]
    where: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableShape:
    """A table. key: what makes a row the same row; without one, no row takes the place of another.

    removed_by: by which columns rows are removed, those of the key by default.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    indexes: tuple[Index, ...] = ()
    removed_by: tuple[str, ...] = ()

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


def user_sessions(user_name: str, further: pa.Schema | None = None) -> TableShape:
    """Sessions, with an index for the newest ones of a user and one for those that converted.

    further: columns beyond those of a session that rows bring.
    """
    types = {user_name if name == col.USER else name: type_ for name, type_ in col.SESSION_TYPES.items()}
    key = (user_name, col.SESSION_ID)
    required = {*key, col.SESSION_START, col.SESSION_END}
    columns = [Column(name=name, kind=kind_of(type_), required=name in required) for name, type_ in types.items()]
    columns.append(Column(name=col.REVISION, kind="integer", required=True, zero=True))
    for field in further or ():
        if field.name not in types and field.name != col.REVISION:
            columns.append(Column(name=field.name, kind=kind_of(field.type)))
    newest = Index(name="user_sessions_newest", columns=((user_name, False), (col.SESSION_START, True)))
    converted = Index(name="user_sessions_converted", columns=((col.SESSION_START, True),), where=col.HAS_CONVERSION)
    return TableShape(name=USER_SESSIONS, columns=tuple(columns), key=key, indexes=(newest, converted))


def late_events(user_name: str) -> TableShape:
    """Late events, with an index for reading them in the order of their times."""
    columns = [
        Column(name=user_name if name == col.USER else name, kind=kind_of(type_))
        for name, type_ in col.EVENT_TYPES.items()
    ]
    by_time = Index(name="late_events_by_time", columns=((col.EVENT_TIME, False),))
    return TableShape(name=LATE_EVENTS, columns=tuple(columns), indexes=(by_time,))


def rejected_events() -> TableShape:
    """Rejected records, with an index for finding one again."""
    columns = tuple(
        Column(name=field.name, kind=kind_of(field.type), required=not field.nullable) for field in col.REJECTED_SCHEMA
    )
    # a path may be longer than PostgreSQL lets an index hold
    by_line = Index(name="rejected_events_by_line", columns=(("line_number", False),))
    removed_by = ("source", "line_number", "reason", "raw")
    return TableShape(name=REJECTED_EVENTS, columns=columns, indexes=(by_line,), removed_by=removed_by)


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
