"""Finds a dialect's fields among the columns of a table, once for each file.

A path is a field inside a struct column, or a column of that name. The error for a missing column lists the existing
ones and the nearest name.
"""

from dataclasses import dataclass, field

import pyarrow as pa

from sessionize.errors import InputError
from sessionize.formats.absent_fields import how_to_map, listed, near_name
from sessionize.formats.dialects import Dialect
from sessionize.formats.json_limits import FIELDS_MAX
from sessionize.formats.paths.in_tables import read_name, type_at
from sessionize.formats.paths.language import Steps, candidates
from sessionize.formats.validation import EXTRA_COLUMNS_MAX
from sessionize.session.columns import EVENT_TIME, EVENT_TYPES


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a table behind each canonical column.

    columns: the columns to build. paths: the existing candidates of each, () for a missing optional one. read: the
    dotted paths to read from a file; nothing else is needed. extras: top-level columns to keep unchanged. rest:
    top-level columns to keep as JSON text. joined: the candidates of each part, of columns that are joined.
    """

    columns: tuple[str, ...]
    paths: dict[str, tuple[Steps, ...]]
    read: list[str]
    extras: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()
    joined: dict[str, tuple[tuple[Steps, ...], ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, schema: pa.Schema, dialect: Dialect, *, source: str, columns: frozenset[str] | None, extras: bool
    ) -> "Layout":
        """Errors: InputError if a required column is missing, occurs twice, or holds lists or objects, or if more than
        FIELDS_MAX columns are to be kept.
        """
        wanted = dialect.columns_for(columns)
        paths: dict[str, tuple[Steps, ...]] = {}
        joined: dict[str, tuple[tuple[Steps, ...], ...]] = {}
        for column in wanted:
            parts = [_existing(schema, path) for path in dialect.paths(column)]
            paths[column] = tuple(steps for part in parts for steps in part)
            if column in dialect.joined:
                joined[column] = tuple(parts)
            if dialect.needs(column) and not (all(parts) if column in dialect.joined else any(parts)):
                raise _missing(schema, dialect, column, source)
            for path in paths[column]:
                _check(schema, path, column, source)
        if not extras:
            return cls(wanted, paths, _read(schema, paths, ()), joined=joined)
        if len(schema) > FIELDS_MAX:
            raise InputError(
                "a table has too many columns to keep them all",
                detail=f"{source}: {len(schema):,} columns, at most {FIELDS_MAX:,} are kept",
                hint="leave columns out of the file; `batch` reads only those that it needs, whatever their number",
            )
        mapped = {str(p[0]) for ps in paths.values() for p in ps if len(p) == 1}
        kept, rest = _extras(schema, mapped, frozenset({dialect.user_name, *dialect.field_types}))
        return cls(wanted, paths, _read(schema, paths, kept + rest), kept, rest, joined)


def _existing(schema: pa.Schema, path: str) -> tuple[Steps, ...]:
    return tuple(steps for steps in candidates(path) if type_at(schema, steps) is not None)


def _read(schema: pa.Schema, paths: dict[str, tuple[Steps, ...]], whole: tuple[str, ...]) -> list[str]:
    columns = dict.fromkeys(whole)
    mapped = dict.fromkeys(read_name(schema, p) for ps in paths.values() for p in ps if p[0] not in columns)
    return [*mapped, *columns]


def field_names(schema: pa.Schema) -> list[str]:
    """All names that a path may use, including fields of structs."""
    names: list[str] = []
    for each in schema:
        names.append(each.name)
        if pa.types.is_struct(each.type):
            names += [f"{each.name}.{name}" for name in field_names(pa.schema(list(each.type)))]
    return names


def _check(schema: pa.Schema, path: Steps, column: str, source: str) -> None:
    kind = type_at(schema, path)
    if len(schema.get_all_field_indices(str(path[0]))) > 1:
        raise InputError(
            "a mapped column occurs twice",
            detail=f"{source}: column {path[0]!r}",
            hint="rename one of the two",
        )
    if pa.types.is_nested(kind):
        raise InputError(
            "a mapped column does not hold single values",
            detail=f"{source}: {read_name(schema, path)}, mapped to {column}, has the type {kind}",
            hint="map a field inside of it, with a dotted path"
            if pa.types.is_struct(kind)
            else "map one of its values, for example params[source] or items[0].name, or another column",
        )


def _extras(schema: pa.Schema, mapped: set[str], others: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Unmapped top-level columns: those kept as columns, and those that go into `properties`."""
    taken = {name.casefold() for name in (*EVENT_TYPES, *others)}
    kept: list[str] = []
    rest: list[str] = []
    for each in schema:
        if each.name in mapped or pa.types.is_null(each.type):
            continue
        name = each.name.casefold()
        usable = each.name and name not in taken and len(kept) < EXTRA_COLUMNS_MAX
        (kept if usable and not pa.types.is_nested(each.type) else rest).append(each.name)
        taken.add(name)
    return tuple(kept), tuple(dict.fromkeys(rest))


def _missing(schema: pa.Schema, dialect: Dialect, column: str, source: str) -> InputError:
    names = field_names(schema)
    paths = dialect.paths(column)
    near, mapping = near_name(paths, names), how_to_map(dialect, names)
    return InputError(
        f"the input has no column for {'the time' if column == EVENT_TIME else f'the {column}'}",
        detail=f"{source}: no column {' or '.join(repr(p) for p in paths)}; the columns are: {listed(names)}",
        hint=mapping if near is None else f"did you mean {near!r}? Otherwise {mapping}",
    )
