"""Dialects: which field of the input is the user, the time, the page ...

A dialect maps the producer's fields to the canonical event columns (session/columns.py) by dotted paths. Five are
built in; `Dialect.mapping` makes one from given field names. This module imports nothing heavy, for `--help`.
"""

import difflib
from dataclasses import dataclass
from typing import Literal, get_args

from sessionize.errors import ConfigError

TimeFormat = Literal["auto", "ms", "s", "us", "ns", "iso8601"]
Paths = tuple[str, ...]

# The canonical columns that a dialect can map, in canonical order. A test keeps them equal to session/columns.py.
EVENT_COLUMNS = ("user", "event_time_ms", "event_id", "event_type", "page", "product", "category", "value")
_DEFAULT_CONVERSIONS = ("purchase", "PURCHASE", "booking", "order")


UNMAPPABLE_HINT = "names with a quotation mark, a backslash or a control character cannot be mapped: rename the field"


def can_be_mapped(path: str) -> bool:
    """Whether decoders accept the names in a path: msgspec rejects names that JSON must escape."""
    return not any(char in '"\\' or ord(char) < 0x20 for char in path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The field names of one producer.

    user ... value: for each canonical column the candidate paths; the first that is present and not null is used; ()
    means that the input has none. "event_details.event_type" is the field event_type inside event_details, or else a
    field of that whole name. time_format: the unit of numeric times (formats/times.py). user_name: the input's name
    of the user column. conversion_events: the event types that count as conversions. exact: a table (CSV, Parquet)
    needs every mapped column; otherwise only user and time.
    """

    name: str
    user: Paths
    event_time_ms: Paths
    event_id: Paths = ()
    event_type: Paths = ()
    page: Paths = ()
    product: Paths = ()
    category: Paths = ()
    value: Paths = ()
    time_format: TimeFormat = "auto"
    user_name: str = "user_id"
    conversion_events: tuple[str, ...] = _DEFAULT_CONVERSIONS
    exact: bool = False

    def __post_init__(self) -> None:
        if not self.user or not self.event_time_ms:
            raise ConfigError(
                "a dialect must name the user and the time",
                detail=f"dialect {self.name!r}",
                hint="map both to a field",
            )
        if self.time_format not in get_args(TimeFormat):
            raise ConfigError(
                "unknown time format",
                detail=f"time_format = {self.time_format!r}",
                hint=f"one of {', '.join(get_args(TimeFormat))}",
            )
        for column in EVENT_COLUMNS:
            for path in self.paths(column):
                if not all(path.split(".")):
                    raise ConfigError(
                        "a field path has an empty part",
                        detail=f"{column} = {path!r}",
                        hint="write names joined by dots, for example event_details.event_type",
                    )
                if not can_be_mapped(path):
                    raise ConfigError(
                        "a field with this name cannot be mapped",
                        detail=f"{column} = {path!r}",
                        hint=UNMAPPABLE_HINT,
                    )

    @classmethod
    def mapping(
        cls,
        *,
        user: str,
        time: str,
        event_id: str | None = None,
        event_type: str | None = None,
        page: str | None = None,
        value: str | None = None,
        product: str | None = None,
        category: str | None = None,
        time_format: TimeFormat = "auto",
        conversion_events: tuple[str, ...] = _DEFAULT_CONVERSIONS,
    ) -> "Dialect":
        """A custom mapping. The user column is named by the last part of its path.

        Errors: ConfigError for an empty path or an unknown time format.
        """

        def one(path: str | None) -> Paths:
            return () if path is None else (path,)

        return cls(
            name="mapping",
            user=(user,),
            event_time_ms=(time,),
            event_id=one(event_id),
            event_type=one(event_type),
            page=one(page),
            product=one(product),
            category=one(category),
            value=one(value),
            time_format=time_format,
            user_name=user.rpartition(".")[2],
            conversion_events=conversion_events,
            exact=True,
        )

    def paths(self, column: str) -> Paths:
        """The candidate paths of a canonical column, () if it is not mapped."""
        return getattr(self, column) if column in EVENT_COLUMNS else ()

    @property
    def columns(self) -> frozenset[str]:
        """The canonical columns that this dialect maps."""
        return frozenset(column for column in EVENT_COLUMNS if self.paths(column))

    def columns_for(self, asked: frozenset[str] | None) -> tuple[str, ...]:
        """The requested mapped columns (None: all) in canonical order; always with user and time."""
        return tuple(
            column
            for column in EVENT_COLUMNS
            if self.paths(column) and (asked is None or column in asked or column in ("user", "event_time_ms"))
        )


DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            name="clickstream",
            user=("uuid",),
            event_time_ms=("event_timestamp",),
            event_id=("event_id",),
            event_type=("event_details.event_type",),
            page=("page_name",),
            user_name="uuid",
            conversion_events=("booking",),
        ),
        Dialect(
            name="user-events",
            user=("userId", "user_id"),
            event_time_ms=("timestamp",),
            event_id=("eventId",),
            event_type=("eventType",),
            page=("pageUrl", "page"),
            value=("amount", "value"),
            conversion_events=("PURCHASE", "purchase"),
        ),
        Dialect(
            name="user_activity",
            user=("user_id",),
            event_time_ms=("event_time",),
            event_type=("event_type",),
            page=("page_url",),
            conversion_events=("purchase",),
        ),
        Dialect(
            name="clicks",
            user=("user_id",),
            event_time_ms=("timestamp",),
            page=("url",),
            conversion_events=(),
        ),
        Dialect(
            name="ecommerce",
            user=("user_id",),
            event_time_ms=("event_timestamp",),
            event_id=("event_id",),
            event_type=("event_type",),
            product=("product_id",),
            category=("category",),
            value=("price",),
            conversion_events=("purchase",),
        ),
    )
}


def dialect_named(name: str) -> Dialect:
    """The built-in dialect of that name. Errors: ConfigError, with the nearest name."""
    if name in DIALECTS:
        return DIALECTS[name]
    near = difflib.get_close_matches(name.lower().replace(" ", "_"), DIALECTS, n=1, cutoff=0.5)
    known = f"one of {', '.join(DIALECTS)}, or map the fields yourself"
    raise ConfigError(
        "unknown dialect",
        detail=f"dialect {name!r}",
        hint=f"did you mean {near[0]!r}? {known}" if near else known,
    )
