"""Builds typed JSON decoders for one dialect; they build only the mapped fields.

Every mapped field holds a string, a number or null (further fields also a boolean); for anything else the decoder
fails with the field's path. The general decoder accepts times in any form. The quick one accepts only whole numbers
(also digit strings, in msgspec's lax mode); where it fails, the general one is used. Both give the same values. The
lenient one accepts anything in an optional field, for the records that the others refuse.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from sessionize.errors import ConfigError
from sessionize.formats.dialects import JOINTS, Dialect
from sessionize.formats.paths.in_json import joined_values, value_at, value_of_raw
from sessionize.formats.paths.language import Steps, candidates
from sessionize.session.columns import CATEGORY, EVENT_ID, EVENT_TIME, EVENT_TYPE, PAGE, PRODUCT, USER, VALUE

Path = tuple[str, ...]
Rows = Sequence[Any]  # structs defined below; their type is known only at run time
Getter = Callable[[Rows], list[Any]]

_SCALAR = str | int | float | None
_OF_FIELD = str | int | float | bool | None
_ABSENT = msgspec.Raw()
# A value of a wrong type in one of them rejects the record: without it there is no event, or it may count twice.
REQUIRED = (USER, EVENT_TIME, EVENT_ID)
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

    __slots__ = (
        "_getters",
        "_joined",
        "_kinds",
        "_lenient",
        "_opened",
        "_optional",
        "_places",
        "_scalars",
        "columns",
        "general",
        "quick",
        "top_level",
    )

    def __init__(self, dialect: Dialect, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self._joined = dialect.joined
        self._places: dict[Path, str] = {}
        self._kinds: dict[str, Any] = {}  # by attribute name: the types that are not _SCALAR
        self._scalars: set[Path] = set()
        self._optional: dict[Path, str] = {}  # the places that no required column uses
        self._lenient: msgspec.json.Decoder[Any] | None = None
        self._opened: tuple[Rows, dict[Path, list[Any]]] = ((), {})  # values of key/value lists, decoded once
        self._getters: dict[str, tuple[tuple[Getter, ...], ...]] = {}
        for column in sorted(columns, key=lambda each: each not in REQUIRED):
            before = set(self._places)
            kind = _OF_FIELD if column in dialect.field_types else _SCALAR
            paths = dialect.paths(column)
            self._getters[column] = tuple(tuple(self._getter(s, column, kind) for s in candidates(p)) for p in paths)
            if column not in REQUIRED:
                self._optional |= {path: name for path, name in self._places.items() if path not in before}
        _refuse_prefixes(self._places)
        self.top_level = frozenset(path[0] for path in self._places if len(path) == 1)
        self.general: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_struct(self._places, self._kinds))
        self.quick: msgspec.json.Decoder[Any] | None = None
        if dialect.time_format in ("auto", "ms", "s", "us", "ns") and self._getters[EVENT_TIME] == (
            (_FLAT[EVENT_TIME],),
        ):
            others = [getter for c in columns if c != EVENT_TIME for path in self._getters[c] for getter in path]
            if _FLAT[EVENT_TIME] not in others:
                quick = _struct(self._places, {**self._kinds, EVENT_TIME: int}, required=EVENT_TIME)
                self.quick = msgspec.json.Decoder(quick, strict=False)

    def values(self, rows: Rows, column: str) -> list[Any]:
        """The column's raw values: the first candidate that is not null and, among several paths, not empty."""
        first, *others = self._getters[column]
        values = _first_of(rows, first)
        if column in self._joined:
            return joined_values(
                [values, *(_first_of(rows, getters) for getters in others)], JOINTS[column], whole=column == EVENT_TIME
            )
        for getters in others:
            if None not in values and "" not in values:
                break
            more = _first_of(rows, getters)
            values = [b if a is None or (a == "" and b is not None) else a for a, b in zip(values, more, strict=True)]
        return values

    def decode_leniently(self, line: memoryview) -> Any:
        """One record, with any value in its optional fields. Errors: those of the other decoders."""
        if self._lenient is None:
            kinds = {**self._kinds, **dict.fromkeys(self._optional.values(), msgspec.Raw)}
            self._lenient = msgspec.json.Decoder(_struct(self._places, kinds))
        row = self._lenient.decode(line)
        for path, name in self._optional.items():
            if self._kinds.get(name) is msgspec.Raw:
                continue
            owner = row
            for n in range(1, len(path)):
                owner = getattr(owner, _object_name(path[:n]), None)
            raw = getattr(owner, name, None)
            if raw is not None:
                setattr(owner, name, value_of_raw(raw))
        return row

    def _getter(self, steps: Steps, column: str, kind: Any) -> Getter:
        """The getter of a path, whose names get an attribute name in the structs if they have none."""
        length = next((n for n, step in enumerate(steps) if not isinstance(step, str)), len(steps))
        path, rest = tuple(str(step) for step in steps[:length]), steps[length:]
        name = self._places.get(path)
        if name is None:
            plain = column in _FLAT and column not in self._places.values() and len(path) == 1 and not rest
            name = self._places[path] = column if plain else f"_{len(self._places)}"
        if (name in self._kinds or path in self._scalars) and (self._kinds.get(name) is msgspec.Raw) != bool(rest):
            raise _both(".".join(path))
        if rest:
            self._kinds[name] = msgspec.Raw
            return self._deep_getter(path, name, rest)
        self._scalars.add(path)
        if kind is not _SCALAR:
            self._kinds[name] = kind
        return _FLAT[name] if name in _FLAT else _nested_getter(path, name)

    def _deep_getter(self, path: Path, name: str, rest: Steps) -> Getter:
        get_raw = _nested_getter(path, name)

        def get(rows: Rows) -> list[Any]:
            if self._opened[0] is not rows:
                self._opened = (rows, {})
            opened = self._opened[1]
            if path not in opened:
                raws = get_raw(rows)
                opened[path] = [value_of_raw(each) if isinstance(each, msgspec.Raw) else each for each in raws]
            return [value_at(value, rest) for value in opened[path]]

        return get


def _first_of(rows: Rows, getters: tuple[Getter, ...]) -> list[Any]:
    """The first of a path's meanings that is not null, of each row."""
    first, *others = getters
    values = first(rows)
    for getter in others:
        if None not in values:
            break
        more = getter(rows)
        if more.count(None) < len(more):
            values = [b if a is None else a for a, b in zip(values, more, strict=True)]
    return values


def _object_name(path: Path) -> str:
    return "_object_" + "_".join(part.encode().hex() for part in path)


def _nested_getter(path: Path, name: str) -> Getter:
    names = (*(_object_name(path[: n + 1]) for n in range(len(path) - 1)), name)
    quick = attrgetter(".".join(names))

    def get(rows: Rows) -> list[Any]:
        try:
            return list(map(quick, rows))
        except AttributeError:  # a value on the path is not an object
            pass
        return [_through(row, names, path) for row in rows]

    return get


def _through(value: Any, names: tuple[str, ...], path: Path) -> Any:
    for depth, name in enumerate(names):
        if isinstance(value, str):  # maybe JSON in a string
            return value_at(value, path[depth:])
        value = getattr(value, name, None)
        if value is None:
            return None
    return value


def _refuse_prefixes(places: dict[Path, str]) -> None:
    for path in places:
        for n in range(1, len(path)):
            if path[:n] in places:
                raise _both(".".join(path[:n]), ".".join(path))


def _both(*paths: str) -> ConfigError:
    return ConfigError(
        "a field cannot be both a value and an object",
        detail=" and ".join(paths) + (" are both mapped" if len(paths) > 1 else ", and fields inside of it are mapped"),
        hint="map only one of them",
    )


def _struct(
    places: dict[Path, str], kinds: dict[str, Any], above: Path = (), *, required: str | None = None
) -> type[msgspec.Struct]:
    """The struct of the objects at path `above`. kinds: by attribute, where not _SCALAR. required: an attribute."""
    depth = len(above)
    needed: list[tuple[str, Any]] = []
    optional: list[tuple[str, Any, Any]] = []
    names: dict[str, str] = {}
    for path, name in places.items():
        if path[:depth] != above:
            continue
        if len(path) > depth + 1:
            inner = path[: depth + 1]
            name = _object_name(inner)
            if name not in names:
                optional.append((name, _struct(places, kinds, inner) | _NO_OBJECT, None))
        elif name == required:
            needed.append((name, kinds[name]))
        else:
            kind = kinds.get(name, _SCALAR)
            optional.append((name, kind, _ABSENT if kind is msgspec.Raw else None))
        names[name] = path[depth]
    return msgspec.defstruct("Record", [*needed, *optional], rename=names, gc=False)
