"""The user's table of events: what it is called, and which of its columns is the user, the time, the page ..."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from sessionize.errors import ConfigError
from sessionize.session import columns as col

TimeKind = Literal["timestamp", "ms", "s", "us", "ns"]
# The columns of events that sessions are made of; others are only in the table.
READ = (col.EVENT_ID, col.EVENT_TYPE, col.PAGE, col.VALUE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTable:
    """A table or view in a database.

    name: of the table, with its schema in front if it needs one: ("analytics", "events"). user, time: columns.
    time_kind: a timestamp, or whole numbers of this unit since 1970. columns: canonical event column -> column of the
    table, for those that it has. fields: further field -> column; any other column of the table is a field too.
    loaded_at: the column with the timestamp at which a row came into the table, for incremental models.
    """

    name: tuple[str, ...]
    user: str
    time: str
    time_kind: TimeKind = "timestamp"
    columns: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    loaded_at: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 3 or not all(self.name):
            raise ConfigError(
                "invalid table name", detail=f"{'.'.join(self.name)!r}", hint="write events, or analytics.events"
            )
        for name in (self.user, self.time, *self.columns.values(), *self.fields.values()):
            if not name or "\0" in name:
                raise ConfigError("a column name is empty or has a NUL", detail=f"column {name!r}")
        if self.time_kind not in get_args(TimeKind):
            raise ConfigError(
                "SQL cannot read this time format",
                detail=f"time_format = {self.time_kind!r}",
                hint="--time-format timestamp for a timestamp column, ms, s, us or ns for numbers; cast text in a view",
            )

    def column_of(self, field: str) -> str:
        """The column for a field that a rule names: mapped ones by their mapping, others as they are called."""
        named = {col.USER: self.user, col.EVENT_TIME: self.time, **self.columns, **self.fields}
        return named.get(field, field)

    @property
    def event_columns(self) -> frozenset[str]:
        """The canonical event columns that the table has."""
        return frozenset({col.USER, col.EVENT_TIME, *self.columns})
