"""Dialect: which field of the input is the user, the time, the page ..., as data; dialects.py has the known ones.

This module imports nothing heavy, for `--help`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from sessionize.errors import ConfigError
from sessionize.formats.paths.language import (
    EMPTY_PART,
    PATH_HINT,
    UNMAPPABLE_HINT,
    FieldPath,
    Join,
    fault_of,
    last_name,
    parse_field_path,
)
from sessionize.formats.time.forms import TimeFormat, form_fault

FieldType = Literal["text", "number", "integer", "boolean"]
Paths = tuple[str, ...]

# The canonical columns that a dialect can map, in canonical order. A test keeps them equal to session/columns.py.
EVENT_COLUMNS = ("user", "event_time_ms", "event_id", "event_type", "page", "product", "category", "value")
# What stands between the parts of a joined value.
JOINTS = {"user": "|", "event_time_ms": " "}
_DEFAULT_CONVERSIONS = ("purchase", "PURCHASE", "booking", "order")

# What stored events have beside those: no field can be called like them. A test keeps them equal to session/columns.py.
OTHER_COLUMNS = ("properties", "session_id", "event_date", "user_hash_bucket", "processing_time")


@dataclass(frozen=True, slots=True)
class Field:
    """A further field: its name in the events, its candidate paths, and its type.

    required: a table (CSV, Parquet) needs one of the columns. Errors: ConfigError.
    """

    name: str
    paths: Paths
    type: FieldType = "text"
    required: bool = True

    def __post_init__(self) -> None:
        if self.type not in get_args(FieldType):
            raise ConfigError(
                "unknown type of a field",
                detail=f"field {self.name!r}: {self.type!r}",
                hint=f"one of {', '.join(get_args(FieldType))}",
            )
        if not self.name.strip() or fault_of(self.name) not in (None, EMPTY_PART):
            raise ConfigError(
                "a field needs a name",
                detail=f"field {self.name!r}",
                hint="for example referrer=context.referrer",
            )
        if self.name.casefold() in (*EVENT_COLUMNS, *OTHER_COLUMNS):
            raise ConfigError(
                "a field cannot have the name of an event column",
                detail=f"field {self.name!r}",
                hint=f"choose another name than {', '.join((*EVENT_COLUMNS, *OTHER_COLUMNS))}",
            )
        for path in self.paths:
            _check_path(path, self.name)

    @classmethod
    def of(cls, name: str, path: FieldPath, kind: FieldType = "text") -> "Field":
        """A field by its path. Errors: ConfigError."""
        return cls(name, _paths(path), kind)

    @classmethod
    def parse(cls, text: str) -> "Field":
        """NAME=PATH or NAME:TYPE=PATH, as on the command line. Errors: ConfigError."""
        left, equals, path = text.partition("=")
        name, _, kind = left.partition(":")
        if not equals or not path.strip():
            raise ConfigError(
                "a field needs a name and a path",
                detail=f"--field {text}",
                hint="--field NAME=PATH, or --field NAME:TYPE=PATH",
            )
        return cls(name.strip(), _paths(parse_field_path(path.strip())), kind.strip() or "text")  # type: ignore[arg-type]  # checked


def _paths(path: FieldPath | None) -> Paths:
    if path is None:
        return ()
    return path.paths if isinstance(path, Join) else (path,) if isinstance(path, str) else tuple(path)


def _check_zone(zone: str) -> None:
    from sessionize.formats.time.local import zone_fault

    fault = zone_fault(zone)
    if fault is not None:
        raise ConfigError("unknown time zone", detail=fault, hint="for example Europe/Berlin or America/New_York")


def _check_path(path: str, what: str) -> None:
    fault = fault_of(path)
    if fault is not None:
        raise ConfigError(
            "a field path has an empty part" if fault == EMPTY_PART else "a field with this name cannot be mapped",
            detail=f"{what} = {path!r}",
            hint=PATH_HINT if fault == EMPTY_PART else UNMAPPABLE_HINT,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The field names of one producer.

    user ... value: for each canonical column the candidate paths (formats/paths/language.py); the first that is present
    and not empty is used; () means that the input has none. time_format: the form of the times (formats/time/forms.py).
    time_zone: of times that name none; None: UTC, and it is noted. user_name: the input's name of the user column.
    conversion_events: the event types that count as conversions. exact: a table (CSV, Parquet) needs every mapped
    column; otherwise only user and time. fields: columns of the events beside the canonical ones. strict: reject
    records with a value of a wrong type in an optional field; else the value becomes null. joined: the columns, user or
    event_time_ms, whose paths are parts of one value, joined by JOINTS. required: the columns that a table needs, also
    where not exact. header: the columns of its text files, which have no header of their own.
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
    fields: tuple[Field, ...] = ()
    strict: bool = False
    joined: frozenset[str] = frozenset()
    time_zone: str | None = None
    required: frozenset[str] = frozenset()
    header: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.user or not self.event_time_ms:
            raise ConfigError(
                "a dialect must name the user and the time",
                detail=f"dialect {self.name!r}",
                hint="map both to a field",
            )
        fault = form_fault(self.time_format)
        if fault is not None:
            raise ConfigError("unknown time format", detail=f"time_format = {self.time_format!r}", hint=fault)
        if self.time_zone not in (None, "UTC"):
            _check_zone(self.time_zone)
        for column in EVENT_COLUMNS:
            for path in self.paths(column):
                _check_path(path, column)
        names = [field.name.casefold() for field in self.fields]
        for name in names:
            if name == self.user_name.casefold() or names.count(name) > 1:
                raise ConfigError(
                    "two columns of the events have the same name",
                    detail=f"field {name!r}",
                    hint="give the field another name",
                )

    @classmethod
    def mapping(
        cls,
        *,
        user: FieldPath,
        time: FieldPath,
        event_id: FieldPath | None = None,
        event_type: FieldPath | None = None,
        page: FieldPath | None = None,
        value: FieldPath | None = None,
        product: FieldPath | None = None,
        category: FieldPath | None = None,
        time_format: TimeFormat = "auto",
        time_zone: str | None = None,
        conversion_events: tuple[str, ...] = _DEFAULT_CONVERSIONS,
    ) -> "Dialect":
        """A custom mapping. The user column is named by the last part of its first path.

        Errors: ConfigError for an empty path or an unknown time format.
        """
        joined = {"user": user, "event_time_ms": time}
        return cls(
            name="mapping",
            user=_paths(user),
            event_time_ms=_paths(time),
            event_id=_paths(event_id),
            event_type=_paths(event_type),
            page=_paths(page),
            product=_paths(product),
            category=_paths(category),
            value=_paths(value),
            joined=frozenset(column for column, path in joined.items() if isinstance(path, Join)),
            time_format=time_format,
            time_zone=time_zone,
            user_name=last_name((*_paths(user), "")[0]),
            conversion_events=conversion_events,
            exact=True,
        )

    def overridden(self, **paths: FieldPath | None) -> "Dialect":
        """The dialect with other paths for these columns (time for event_time_ms). Errors: ConfigError."""
        given = {"event_time_ms" if name == "time" else name: p for name, p in paths.items() if p is not None}
        if not given:
            return self
        joins = {column for column, path in given.items() if isinstance(path, Join)}
        changes: dict[str, Any] = {column: _paths(path) for column, path in given.items()}
        changes["joined"] = frozenset((self.joined - given.keys()) | joins)
        if "user" in given:
            changes["user_name"] = last_name((*changes["user"], "")[0])
        return replace(self, **changes, required=self.required | given.keys())

    def described(self, column: str) -> str:
        """The column's paths for people."""
        return ("+" if column in self.joined else ", ").join(self.paths(column))

    def paths(self, column: str) -> Paths:
        """The candidate paths of a column, () if it is not mapped."""
        if column in EVENT_COLUMNS:
            found: Paths = getattr(self, column)
            return found
        return next((field.paths for field in self.fields if field.name == column), ())

    @property
    def field_types(self) -> dict[str, FieldType]:
        """The further fields by name, with their types."""
        return {field.name: field.type for field in self.fields}

    @property
    def columns(self) -> frozenset[str]:
        """The canonical columns that this dialect maps, and its further fields."""
        return frozenset(column for column in self._columns if self.paths(column))

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*EVENT_COLUMNS, *self.field_types)

    def columns_for(self, asked: frozenset[str] | None) -> tuple[str, ...]:
        """The requested mapped columns (None: all) in canonical order, then fields; always with user and time."""
        return tuple(
            column
            for column in self._columns
            if self.paths(column) and (asked is None or column in asked or column in ("user", "event_time_ms"))
        )

    def needs(self, column: str) -> bool:
        """Whether a table must have a column for it."""
        if column in ("user", "event_time_ms"):
            return True
        return next(
            (field.required for field in self.fields if field.name == column), self.exact or column in self.required
        )

    def with_fields(self, fields: Iterable[Field]) -> "Dialect":
        """The dialect with more fields, in place of its own of the same name. Errors: ConfigError."""
        more = tuple(fields)
        names = {field.name.casefold() for field in more}
        own = (field for field in self.fields if field.name.casefold() not in names)
        return replace(self, fields=(*own, *more)) if more else self
