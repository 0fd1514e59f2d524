"""The kinds of value a pipeline file may hold, as annotated types: checked strictly, so that "1000" is not a
number and 1 is not a truth value, and described for the JSON Schema.
"""

from collections.abc import Callable
from typing import Annotated, Any, NoReturn, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)
from pydantic import WithJsonSchema as Schema

from sessionize.app.config.suggest import did_you_mean, hint_of
from sessionize.app.config.values import parse_size_bytes
from sessionize.app.table_inputs import check_input
from sessionize.connectors.local_paths import hint_for, is_address
from sessionize.errors import ConfigError
from sessionize.formats.dialects import EVENT_COLUMNS, OTHER_COLUMNS, FieldType
from sessionize.formats.paths.language import EMPTY_PART, PATH_HINT, UNMAPPABLE_HINT, fault_of
from sessionize.formats.time.forms import form_fault
from sessionize.session.columns import SESSION_TYPES, check_own_names
from sessionize.session.durations import parse_duration_ms
from sessionize.session.own_columns import KINDS, LIMIT_MAX, read_columns

_DURATION_HINT = 'write a duration in quotes with its unit, for example "30m", "2h", "1h30m", "45s" or "500ms"'
_DURATION_PATTERN = r"^(\d+(\.\d+)?\s*(ms|s|min|m|h|d)\s*)+$"
_DURATION_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "string", "pattern": _DURATION_PATTERN}, {"const": 0}, {"const": "0"}],
}
_COUNT_MAX = 2**53
_BYTES_MIN = 16 * 1000**2


class RefusedError(ValueError):
    """Why a value is refused, and what to write instead; pydantic carries it to errors.py."""

    def __init__(self, why: str, hint: str, key: str | None, *, secret: bool) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint
        self.key = key
        self.secret = secret


def refuse(why: str, hint: str, *, key: str | None = None, secret: bool = False) -> NoReturn:
    """Fail a validation: "invalid KEY: <why>"; key is given if it is not the field itself.

    secret: the value may hold a password, so it is not shown.
    """
    raise RefusedError(why, hint, key, secret=secret)


def _duration(value: object, *, zero: bool) -> str:
    """Check a duration; it stays as it is written, but for a bare zero, which gets a unit."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        refuse("not a duration", _DURATION_HINT)
    try:
        ms = parse_duration_ms(value, name="duration")
    except ConfigError as error:
        unit = f' ("{value}m" for minutes, "{value}h" for hours)' if error.message.endswith("missing unit") else ""
        refuse(error.message.partition(": ")[2], _DURATION_HINT + unit)
    if ms == 0 and not zero:
        refuse("must be longer than zero", _DURATION_HINT)
    return str(value).strip() if ms else "0s"


def _or_none(check: Callable[[object], str]) -> Callable[[object], str]:
    def checked(value: object) -> str:
        if isinstance(value, str) and value.strip().lower() == "none":
            return "none"
        return check(value)

    return checked


def _any_duration(value: object) -> str:
    return _duration(value, zero=True)


def _positive_duration(value: object) -> str:
    return _duration(value, zero=False)


def _size(value: object) -> str:
    try:
        size_bytes = parse_size_bytes(value)
    except ConfigError as error:
        refuse(
            error.message.partition(": ")[2] or "not a size",
            'write for example "500MB", "1GB" or "2GiB"',
        )
    if size_bytes < _BYTES_MIN:
        refuse("too small", f"use at least {_BYTES_MIN // 1000**2}MB")
    return str(value).strip()


def _text(value: str) -> str:
    if not value.strip():
        refuse("empty", "write a text, or remove the key")
    if any(ord(char) < 0x20 or ord(char) == 0x7F or 0xD800 <= ord(char) < 0xE000 for char in value):
        refuse("contains a control character", "write one line of plain text")
    return value


def _local_path(value: str) -> str:
    if is_address(value):
        refuse("expected a local path, not an address", hint_for(value))
    return value


def _input_path(value: str) -> str:
    try:
        check_input(value, name="the input")
    except ConfigError as error:
        refuse(error.message.removeprefix("the input "), error.hint or "", secret=is_address(value))
    return value


def _field_path(value: str) -> str:
    fault = fault_of(value)
    if fault is not None:
        refuse(fault, PATH_HINT if fault == EMPTY_PART else UNMAPPABLE_HINT)
    return value


def _field_paths(value: object) -> str | tuple[str, ...]:
    """One path, or several in order."""
    if isinstance(value, str):
        return _field_path(_text(value))
    if not isinstance(value, list | tuple) or not value or not all(isinstance(each, str) for each in value):
        refuse("not a field path", 'write a text, or a list of texts: ["user_id", "anonymous_id"]')
    return tuple(_field_path(_text(each)) for each in value)


def _joined_paths(value: object) -> str | tuple[str, ...] | dict[str, tuple[str, ...]]:
    """Also {join = [...]}."""
    if not isinstance(value, dict):
        return _field_paths(value)
    parts = value.get("join")
    if set(value) != {"join"} or not isinstance(parts, list | tuple) or len(parts) < 2:
        refuse("not a join of fields", '{join = ["ip", "user_agent"]}')
    paths = _field_paths(parts)
    assert isinstance(paths, tuple)
    return {"join": paths}


def _field_spec(value: object) -> str | tuple[str, ...] | dict[str, Any]:
    """A path, several, or {path, type}."""
    if not isinstance(value, dict):
        return _field_paths(value)
    if not {"path"} <= set(value) <= {"path", "type"} or value.get("type", "text") not in get_args(FieldType):
        refuse("not a field", f'{{path = "price", type = "number"}}; type is one of {", ".join(get_args(FieldType))}')
    return {**value, "path": _field_paths(value["path"])}


def _object(properties: dict[str, Any], required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [required], "additionalProperties": False}


def _time_form(value: str) -> str:
    fault = form_fault(value)
    if fault is not None:
        refuse("not a time format", fault)
    return value


def _time_zone(value: str) -> str:
    from sessionize.formats.time.local import zone_fault

    fault = zone_fault(value)
    if fault is not None:
        refuse(fault, "for example Europe/Berlin or America/New_York")
    return value


def _field_name(value: str) -> str:
    if value.casefold() in (*EVENT_COLUMNS, *OTHER_COLUMNS):
        refuse("a field cannot have the name of an event column", "choose another name for the field")
    return value


def _column(value: str) -> str:
    if value not in SESSION_TYPES:
        near = did_you_mean(value, SESSION_TYPES)
        refuse("no such session column", hint_of(near, f"one of {', '.join(SESSION_TYPES)}"))
    return value


def _count_or_none(value: object) -> int | str:
    if value == "none":
        return "none"
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _COUNT_MAX:
        refuse("expected a whole number from 1 on", 'write a number, or "none" for no limit')
    return value


def _columns(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        refuse("no column", "remove the key to write every column")
    twice = sorted({name for name in value if value.count(name) > 1})
    if twice:
        refuse(f"{', '.join(twice)} occurs twice", "name each column once")
    return value


def _own_columns(value: dict[str, Any]) -> dict[str, Any]:
    try:
        columns = read_columns(value)
        check_own_names(columns)
    except ConfigError as error:
        why = error.message if error.detail is None else f"{error.message} ({error.detail})"
        refuse(why, error.hint or "see docs/session-columns.md")
    return value


def _function(value: str) -> str:
    module, colon, function = value.partition(":")
    if not colon or not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        refuse("not a function name", 'write "module:function", for example "my_rules:after_logout"')
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


# How editors check a session column of one's own; what goes beyond is checked by read_columns.
OWN_COLUMN_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 3,
    "properties": {
        **{kind: {"type": ["boolean", "string"] if kind == "count" else "string"} for kind in KINDS},
        "where": {"type": "string"},
        "limit": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
    },
}

Text = Annotated[StrictStr, AfterValidator(_text)]
Texts = tuple[Text, ...]
Delimiter = Annotated[StrictStr, Field(min_length=1, max_length=9)]  # a tab is no plain text, but a delimiter
LocalPath = Annotated[Text, AfterValidator(_local_path)]
InputPaths = tuple[Annotated[Text, AfterValidator(_input_path)], ...]
Name = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
FieldPath = Annotated[Text, AfterValidator(_field_path)]
_TEXT_SCHEMA: dict[str, Any] = {"type": "string"}
_LIST_SCHEMA: dict[str, Any] = {"type": "array", "items": _TEXT_SCHEMA, "minItems": 1}
FieldPaths = Annotated[Any, PlainValidator(_field_paths), Schema({"anyOf": [_TEXT_SCHEMA, _LIST_SCHEMA]})]
JoinedPaths = Annotated[
    Any,
    PlainValidator(_joined_paths),
    Schema({"anyOf": [_TEXT_SCHEMA, _LIST_SCHEMA, _object({"join": _LIST_SCHEMA}, "join")]}),
]
FieldSpec = Annotated[
    Any,
    PlainValidator(_field_spec),
    Schema(
        {
            "anyOf": [
                _TEXT_SCHEMA,
                _LIST_SCHEMA,
                _object({"path": _TEXT_SCHEMA, "type": {"enum": list(get_args(FieldType))}}, "path"),
            ]
        }
    ),
]
TimeForm = Annotated[Text, AfterValidator(_time_form)]
TimeZone = Annotated[Text, AfterValidator(_time_zone)]
FieldName = Annotated[Text, AfterValidator(_field_name)]
TableName = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$")]
FunctionName = Annotated[StrictStr, AfterValidator(_function)]
Column = Annotated[StrictStr, AfterValidator(_column), Schema({"type": "string", "enum": list(SESSION_TYPES)})]
Columns = Annotated[tuple[Column, ...], AfterValidator(_columns)]
OwnColumns = Annotated[
    dict[str, Any], AfterValidator(_own_columns), Schema({"type": "object", "additionalProperties": OWN_COLUMN_SCHEMA})
]
Switch = StrictBool
Count = Annotated[StrictInt, Field(ge=1, le=_COUNT_MAX)]
CountOrNone = Annotated[
    int | str,
    BeforeValidator(_count_or_none),
    Schema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": _COUNT_MAX}, {"const": "none"}]}),
]
# The bounds of the numbers are the generator's own (connectors/generator/settings.py).
Seed = Annotated[StrictInt, Field(ge=0, le=2**63 - 1)]
Users = Annotated[StrictInt, Field(ge=1, le=10**7)]
Events = Annotated[StrictInt, Field(ge=1, le=10**12)]
Rate = Annotated[StrictFloat, Field(ge=1e-6, le=1e7, allow_inf_nan=False)]
Skew = Annotated[StrictFloat, Field(ge=0, le=5, allow_inf_nan=False)]
Fraction = Annotated[StrictFloat, Field(ge=0, le=1, allow_inf_nan=False)]
Length = Annotated[str, BeforeValidator(_any_duration), Schema(_DURATION_SCHEMA)]
PositiveLength = Annotated[
    str, BeforeValidator(_positive_duration), Schema({"type": "string", "pattern": _DURATION_PATTERN})
]
LengthOrNone = Annotated[
    str,
    BeforeValidator(_or_none(_any_duration)),
    Schema({"anyOf": [*_DURATION_SCHEMA["anyOf"], {"const": "none"}]}),
]
PositiveLengthOrNone = Annotated[
    str,
    BeforeValidator(_or_none(_positive_duration)),
    Schema({"anyOf": [{"type": "string", "pattern": _DURATION_PATTERN}, {"const": "none"}]}),
]
Size = Annotated[
    str,
    BeforeValidator(_size),
    Schema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*([kKmMgGtT][iI]?)?[bB]$"}),
]
CaseBlindUpper = BeforeValidator(_upper)
