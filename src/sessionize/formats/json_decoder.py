"""Builds typed JSON decoders for one dialect; they build only the mapped fields.

Every mapped field holds a string, a number or null; for anything else the decoder fails with the field's path, and
the record is rejected. The general decoder accepts times in any form. The quick one accepts only whole numbers (also
digit strings, in msgspec's lax mode); where it fails, the general one is used. Both give the same values.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from sessionize.errors import ConfigError
from sessionize.formats.dialects import Dialect
from sessionize.session.columns import CATEGORY, EVENT_ID, EVENT_TIME, EVENT_TYPE, PAGE, PRODUCT, USER, VALUE

Path = tuple[str, ...]
Rows = Sequence[Any]  # structs defined below; their type is known only at run time
Getter = Callable[[Rows], list[Any]]

_SCALAR = str | int | float | None
_NO_OBJECT = str | int | float | bool | list[msgspec.Raw] | None  # in place of an object: it has no fields

# Plain attribute access is a third faster than attrgetter, and this line is the hottest of the package.
_FLAT: dict[str, Getter] = {
    USER: lambda rows: [row.user for row in rows],
    EVENT_TIME: lambda rows: [row.event_time_ms for row in rows],
    EVENT_ID: lambda rows: [row.event_id for row in rows],
    EVENT_TYPE: lambda rows: [row.event_type for row in rows],
    PAGE: lambda rows: [row.page for row in rows],
    PRODUCT: lambda rows: [row.product for row in rows],
    CATEGORY: lambda rows: [row.category for row in rows],
    VALUE: lambda rows: [row.value for row in rows],
}


class RecordShape:
    """The decoders and getters for some columns of a dialect.

    general, quick: decoders of one record, or of many by decode_lines; quick is None if times are not plain numbers.
    top_level: the names of the mapped top-level fields.
    """

    __slots__ = ("_getters", "columns", "general", "quick", "top_level")

    def __init__(self, dialect: Dialect, columns: tuple[str, ...]) -> None:
        self.columns = columns
        places: dict[Path, str] = {}
        self._getters: dict[str, tuple[Getter, ...]] = {}
        for column in columns:
            paths = [path for text in dialect.paths(column) for path in _candidates(text)]
            self._getters[column] = tuple(_getter(path, column, places) for path in paths)
        _refuse_prefixes(places)
        self.top_level = frozenset(path[0] for path in places if len(path) == 1)
        self.general: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_struct(places, {}))
        self.quick: msgspec.json.Decoder[Any] | None = None
        if dialect.time_format != "iso8601" and self._getters[EVENT_TIME] == (_FLAT[EVENT_TIME],):
            alone = all(_FLAT[EVENT_TIME] not in self._getters[c] for c in columns if c != EVENT_TIME)
            if alone:
                self.quick = msgspec.json.Decoder(_struct(places, {EVENT_TIME: int}), strict=False)

    def values(self, rows: Rows, column: str) -> list[Any]:
        """The column's raw values: the first non-null candidate of each row."""
        first, *others = self._getters[column]
        values = first(rows)
        for getter in others:
            if None not in values:
                break
            values = [b if a is None else a for a, b in zip(values, getter(rows), strict=True)]
        return values


def _candidates(text: str) -> list[Path]:
    """ "a.b" is b inside a, or else a field named "a.b"."""
    nested = tuple(text.split("."))
    return [nested] if len(nested) == 1 else [nested, (text,)]


def _getter(path: Path, column: str, places: dict[Path, str]) -> Getter:
    """The getter of a path, which gets an attribute name in the structs if it has none."""
    name = places.get(path)
    if name is None:
        first = column not in places.values() and len(path) == 1
        name = places[path] = column if first else f"_{len(places)}"
    if name in _FLAT:
        return _FLAT[name]
    return _nested_getter((*(_object_name(path[: n + 1]) for n in range(len(path) - 1)), name))


def _object_name(path: Path) -> str:
    return "_object_" + "_".join(part.encode().hex() for part in path)


def _nested_getter(names: tuple[str, ...]) -> Getter:
    quick = attrgetter(".".join(names))

    def get(rows: Rows) -> list[Any]:
        try:
            return list(map(quick, rows))
        except AttributeError:  # a value on the path is not an object
            pass
        values = list(rows)
        for name in names:
            values = [getattr(value, name, None) for value in values]
        return values

    return get


def _refuse_prefixes(places: dict[Path, str]) -> None:
    for path in places:
        for n in range(1, len(path)):
            if path[:n] in places:
                raise ConfigError(
                    "a field cannot be both a value and an object",
                    detail=f"{'.'.join(path[:n])} and {'.'.join(path)} are both mapped",
                    hint="map only one of them",
                )


def _struct(places: dict[Path, str], types: dict[str, Any], above: Path = ()) -> type[msgspec.Struct]:
    """The struct of the objects at path `above`. types: by attribute name, for required fields that are not _SCALAR."""
    depth = len(above)
    required: list[tuple[str, Any]] = []
    optional: list[tuple[str, Any, Any]] = []
    names: dict[str, str] = {}
    for path, name in places.items():
        if path[:depth] != above:
            continue
        if len(path) > depth + 1:
            inner = path[: depth + 1]
            name = _object_name(inner)
            if name not in names:
                optional.append((name, _struct(places, types, inner) | _NO_OBJECT, None))
        elif name in types:
            required.append((name, types[name]))
        else:
            optional.append((name, _SCALAR, None))
        names[name] = path[depth]
    return msgspec.defstruct("Record", [*required, *optional], rename=names, gc=False)
