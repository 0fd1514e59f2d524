"""The columns of events and sessions: one name for each, from decoding to the sinks.

Events are pyarrow tables with the canonical columns below; a dialect maps the producer's fields to them. Only `user`
and `event_time_ms` are required, and never null. Sessions are pyarrow tables of SessionColumns.schema.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from sessionize.errors import ConfigError
from sessionize.session.expressions import FIELD_TYPES
from sessionize.session.own_columns import OwnColumn, OwnColumns, bound, check_names

USER = "user"
EVENT_TIME = "event_time_ms"
EVENT_ID = "event_id"
EVENT_TYPE = "event_type"
PAGE = "page"
PRODUCT = "product"
CATEGORY = "category"
VALUE = "value"
PROPERTIES = "properties"

# event_time_ms: milliseconds since 1970-01-01 UTC, any sign. value: an amount of money or any number to add up.
# properties: JSON text of the fields that have no column of their own.
EVENT_TYPES: dict[str, pa.DataType] = {
    USER: pa.string(),
    EVENT_TIME: pa.int64(),
    EVENT_ID: pa.string(),
    EVENT_TYPE: pa.string(),
    PAGE: pa.string(),
    PRODUCT: pa.string(),
    CATEGORY: pa.string(),
    VALUE: pa.float64(),
    PROPERTIES: pa.string(),
}

# A rejected record, with everything needed to find the cause and to retry it.
REJECTED_SCHEMA = pa.schema(
    [
        pa.field("raw", pa.binary()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("line_number", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)

SESSION_ID = "session_id"
SESSION_START = "session_start_time_ms"
SESSION_END = "session_end_time_ms"
SESSION_DURATION = "session_duration_seconds"
EVENT_COUNT = "event_count"
PAGES_VISITED = "pages_visited"
ENTRY_PAGE = "entry_page"
EXIT_PAGE = "exit_page"
EVENTS_BY_TYPE = "events_by_type"
HAS_CONVERSION = "has_conversion"
REVENUE = "revenue"
START_REASON = "start_reason"
END_REASON = "end_reason"
SESSION_DATE = "session_date"
USER_HASH_BUCKET = "user_hash_bucket"
# Only where the policy says what a bounce is.
IS_BOUNCE = "is_bounce"
# Only of stored sessions: how often reconciling has replaced the session, 0 as first written.
REVISION = "revision"
# Only of stored events: the UTC date of the event.
EVENT_DATE = "event_date"
# Only of enriched events: the time when they were written with their session so far.
PROCESSING_TIME = "processing_time"

BUCKET_COUNT = 100

_REQUIRED: frozenset[str] = frozenset()
# The optional event columns that a session column needs; the others need only user and event time.
MADE_OF: dict[str, frozenset[str]] = {
    PAGES_VISITED: frozenset({PAGE}),
    ENTRY_PAGE: frozenset({PAGE}),
    EXIT_PAGE: frozenset({PAGE}),
    EVENTS_BY_TYPE: frozenset({EVENT_TYPE}),
    HAS_CONVERSION: frozenset({EVENT_TYPE}),
    REVENUE: frozenset({EVENT_TYPE, VALUE}),
}

SESSION_TYPES: dict[str, pa.DataType] = {
    USER: pa.string(),
    SESSION_ID: pa.string(),
    SESSION_START: pa.int64(),
    SESSION_END: pa.int64(),
    SESSION_DURATION: pa.float64(),
    EVENT_COUNT: pa.int64(),
    PAGES_VISITED: pa.list_(pa.string()),
    ENTRY_PAGE: pa.string(),
    EXIT_PAGE: pa.string(),
    EVENTS_BY_TYPE: pa.map_(pa.string(), pa.int64()),
    HAS_CONVERSION: pa.bool_(),
    REVENUE: pa.float64(),
    START_REASON: pa.string(),
    END_REASON: pa.string(),
    SESSION_DATE: pa.date32(),
    USER_HASH_BUCKET: pa.int32(),
    IS_BOUNCE: pa.bool_(),
}
SESSION_COLUMNS: tuple[str, ...] = tuple(name for name in SESSION_TYPES if name != IS_BOUNCE)


_BESIDE_SESSIONS = frozenset(SESSION_TYPES) - {USER} | {REVISION}
_BESIDE_EVENTS = frozenset(EVENT_TYPES) - {USER} | {SESSION_ID, EVENT_DATE, USER_HASH_BUCKET, PROCESSING_TIME}


def check_user_name(user_name: str, *, sessions: bool = True, events: bool = False) -> None:
    """Errors: ConfigError if the user column has the name of another written column.

    Case is ignored, as in tables. sessions, events: what is written.
    """
    others = (_BESIDE_SESSIONS if sessions else frozenset()) | (_BESIDE_EVENTS if events else frozenset())
    if user_name.casefold() in others:
        raise ConfigError(
            "two columns of a table would have the same name",
            detail=f"column {user_name!r} holds the user",
            hint="rename the input's user column",
        )


def event_types(names: Iterable[str]) -> dict[str, str]:
    """The event columns of these names that own columns may name, with their types as words of FIELD_TYPES."""
    return {name: _WORDS[EVENT_TYPES[name]] for name in names if name in EVENT_TYPES and name not in (USER, PROPERTIES)}


# What an expression calls the types; others have no place in one.
_WORDS = {**{kind: word for word, kind in FIELD_TYPES.items()}, pa.int32(): "integer"}
# Names of a table of sessions that an own column cannot have: the columns, and what a view calls the times.
_TAKEN = frozenset({*SESSION_COLUMNS, REVISION, "session_start_at", "session_end_at"})


def check_own_names(columns: Sequence[OwnColumn], user_name: str = USER) -> None:
    """Errors: ConfigError where an own column has the name of another column of the sessions' tables."""
    check_names(columns, {**dict.fromkeys(_TAKEN, "a session column"), user_name.casefold(): "the user column"})


@dataclass(frozen=True, slots=True)
class SessionColumns:
    """The session columns of a run, in the order of SESSION_TYPES; `user` is always among them.

    own: columns of one's own, which come behind (session/own_columns.py).
    """

    names: tuple[str, ...] = SESSION_COLUMNS
    own: OwnColumns = field(default_factory=OwnColumns)

    @classmethod
    def made_of(
        cls, event_columns: frozenset[str], *, only: tuple[str, ...] | None = None, bounces: bool = False
    ) -> "SessionColumns":
        """The session columns that these event columns can fill; `only` narrows them. bounces: is_bounce as well.

        Errors: ConfigError for a column that is unknown, or that the events cannot fill.
        """
        possible = tuple(n for n in SESSION_COLUMNS if MADE_OF.get(n, _REQUIRED) <= event_columns)
        possible += (IS_BOUNCE,) if bounces else ()
        if only is not None and IS_BOUNCE in only and not bounces:
            raise ConfigError("the column is_bounce needs a definition of bounces", hint="set bounce, or a definition")
        if only is None:
            return cls(possible)
        for name in only:
            if name not in SESSION_TYPES:
                raise ConfigError(
                    "unknown session column", detail=f"column {name!r}", hint=f"one of {', '.join(possible)}"
                )
            if name not in possible:
                needs = ", ".join(sorted(MADE_OF[name] - event_columns))
                raise ConfigError(
                    "a session column cannot be filled",
                    detail=f"column {name!r} needs the event column(s) {needs}, which the input does not map",
                    hint="map them, or remove the column",
                )
        return cls(tuple(n for n in possible if n in only or n == USER))

    @classmethod
    def every(cls, *, bounces: bool = False) -> "SessionColumns":
        """All session columns there are. bounces: is_bounce as well."""
        return cls((*SESSION_COLUMNS, IS_BOUNCE) if bounces else SESSION_COLUMNS)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def schema(self, user_name: str = USER) -> pa.Schema:
        """The Arrow schema of the sessions; the user column has the input's name."""
        built_in = [(user_name if n == USER else n, SESSION_TYPES[n]) for n in self.names]
        return pa.schema([*built_in, *self.own.types.items()])

    def with_own(self, columns: Sequence[OwnColumn], fields: Mapping[str, str], user_name: str) -> "SessionColumns":
        """These and columns of one's own. fields: the events' fields with their types, words of FIELD_TYPES.

        Errors: ConfigError for a name that is taken, or a column that cannot be made of these fields.
        """
        if not columns:
            return self
        check_own_names(columns, user_name)
        check_names(columns, dict.fromkeys(self.names, "a session column"))
        return replace(self, own=bound(columns, fields, self.types))

    @property
    def decided_by_ties(self) -> bool:
        """Whether any depends on which of several events with one id counts, or on the order of events at one time.

        Then rule 1 looks at the whole event, whichever columns are asked for.
        """
        return bool(self.own) or any(name in MADE_OF or name == IS_BOUNCE for name in self.names)

    @property
    def event_columns(self) -> frozenset[str]:
        """The event columns and fields that they are made of, and those that decide between ties."""
        needs = {USER, EVENT_TIME, EVENT_ID}.union(*(MADE_OF.get(name, _REQUIRED) for name in self.names))
        if self.decided_by_ties:
            needs |= {EVENT_TYPE, PAGE}
        return frozenset(needs | ({VALUE, *(name for name, _ in self.own.fields)} if self.own else set()))

    def joined(self, other: "SessionColumns") -> "SessionColumns":
        """These and the columns of the other that are not among them."""
        names = tuple(n for n in (*SESSION_COLUMNS, IS_BOUNCE) if n in self.names or n in other.names)
        return SessionColumns(names, self.own.joined(other.own))

    @classmethod
    def stored(cls, names: Sequence[str], own: Mapping[str, Any]) -> "SessionColumns":
        """From names and OwnColumns.to_json, as they are stored. Errors: ConfigError, KeyError."""
        built_in = cls(tuple(names))
        return replace(built_in, own=OwnColumns.from_json(own, built_in.types))

    @property
    def types(self) -> dict[str, str]:
        """The built-in columns that an expression may name, with their types as words of FIELD_TYPES."""
        return {name: _WORDS[SESSION_TYPES[name]] for name in self.names if SESSION_TYPES[name] in _WORDS}
