"""The columns of events and sessions: one name for each, from decoding to the sinks.

Events are pyarrow tables with the canonical columns below; a dialect maps the producer's fields to them. Only `user`
and `event_time_ms` are required, and never null. Sessions are pyarrow tables of SessionColumns.schema.
"""

from dataclasses import dataclass

import pyarrow as pa

from sessionize.errors import ConfigError

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
}
SESSION_COLUMNS: tuple[str, ...] = tuple(SESSION_TYPES)


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


@dataclass(frozen=True, slots=True)
class SessionColumns:
    """The session columns of a run, in the order of SESSION_COLUMNS; `user` is always among them."""

    names: tuple[str, ...] = SESSION_COLUMNS

    @classmethod
    def made_of(cls, event_columns: frozenset[str], *, only: tuple[str, ...] | None = None) -> "SessionColumns":
        """The session columns that these event columns can fill; `only` narrows them.

        Errors: ConfigError for a column that is unknown, or that the events cannot fill.
        """
        possible = tuple(n for n in SESSION_COLUMNS if MADE_OF.get(n, _REQUIRED) <= event_columns)
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

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def schema(self, user_name: str = USER) -> pa.Schema:
        """The Arrow schema of the sessions; the user column has the input's name."""
        return pa.schema([(user_name if n == USER else n, SESSION_TYPES[n]) for n in self.names])
