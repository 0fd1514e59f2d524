"""Finds mapped fields that are missing from all records, and suggests the nearest field that they have.

A table's header shows that a column is missing. JSON records are rejected one by one for a missing user or time, so
this module looks at the first rejected ones.
"""

import difflib
import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import msgspec

from sessionize.formats.dialects import DIALECTS, Dialect
from sessionize.formats.paths.in_json import value_at, value_in_text
from sessionize.formats.paths.language import candidates
from sessionize.session.columns import EVENT_TIME, USER

_NAMES_MAX = 50
_DEPTH_MAX = 3
_VALUE = re.compile(r"\d{9,}|\d{4}-\d\d-\d\d.*")  # a name that is a time: the first line is no header


@dataclass(frozen=True, slots=True)
class AbsentFields:
    """detail: the absent fields and the existing ones. hint: the nearest name and how to map the fields."""

    detail: str
    hint: str


def absent_fields(dialect: Dialect, raws: Iterable[bytes]) -> AbsentFields | None:
    """The user or time field that most of these records lack; None if neither, or if they are not JSON objects.

    raws: the bytes of records that were rejected for a missing user or time.
    """
    records = [record for record in map(_decoded, raws) if isinstance(record, dict)]
    names = list(dict.fromkeys(name for record in records for name in _names_in(record)))
    details, nearest = [], []
    for column, what in ((USER, "the user"), (EVENT_TIME, "the time")):
        paths = dialect.paths(column)
        lacking = sum(not any(_has(record, path) for path in paths) for record in records)
        if not lacking or 2 * lacking < len(records):
            continue
        details.append(f"no field {' or '.join(map(repr, paths))} for {what}")
        near = near_name(paths, names)
        nearest += [] if near is None else [repr(near)]
    if not details:
        return None
    hint = how_to_map(dialect, names)
    return AbsentFields(
        detail=f"{', '.join(details)}; the fields are: {listed(names)}",
        hint=f"did you mean {' and '.join(nearest)}? Otherwise {hint}" if nearest else hint,
    )


def names_of_records(raws: Iterable[bytes]) -> list[str]:
    """The names of the fields of these records, those of nested objects with dots; without those that are no JSON."""
    records = [record for record in map(_decoded, raws) if isinstance(record, dict)]
    return list(dict.fromkeys(name for record in records for name in _names_in(record)))


def near_name(paths: Sequence[str], names: Sequence[str]) -> str | None:
    """The name closest to the first path, else one whose last part equals a path, ignoring case."""
    near = difflib.get_close_matches(paths[0], names, n=1, cutoff=0.6)
    if near:
        return near[0]
    same = {name.casefold().rpartition(".")[2]: name for name in names}
    return next((same[path.casefold()] for path in paths if path.casefold() in same), None)


def listed(names: Sequence[str]) -> str:
    """The first names and the number of the remaining ones."""
    more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    return (", ".join(names[:_NAMES_MAX]) + more) or "none"


def how_to_map(dialect: Dialect, names: Sequence[str]) -> str:
    """The hint that says how to map the fields, and which dialects these names fit."""
    options = "--user FIELD --time FIELD --page FIELD (batch, label, explain)"
    where = f"say where the fields are: {options}, or [input.mapping] in a pipeline"
    if any(map(_VALUE.fullmatch, names)):
        columns = "--columns user,time,page (batch, label, explain)"
        where = f"if the first line is no header, name the columns: {columns}; {where}"
    if dialect.name == "mapping":
        return where
    fitting = " or ".join(f"--dialect {each.name}" for each in DIALECTS.values() if _fits(each, set(names)))
    return f"{where} (now the dialect is {dialect.name!r}{fitting and f'; the fields fit {fitting}'})"


def _fits(dialect: Dialect, names: Set[str]) -> bool:
    return all(not names.isdisjoint(dialect.paths(column)) for column in (USER, EVENT_TIME))


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def _names_in(record: dict[str, Any], before: str = "", depth: int = 1) -> Iterable[str]:
    """The names of the fields; fields of nested objects are joined with dots."""
    for name, value in record.items():
        if isinstance(value, dict) and value and depth < _DEPTH_MAX:
            yield from _names_in(value, f"{before}{name}.", depth + 1)
        else:
            yield before + name


def _has(record: dict[str, Any], path: str) -> bool:
    """Whether the field exists, null or not."""
    for steps in candidates(path):
        *above, last = steps
        here = value_at(record, tuple(above))
        if isinstance(here, str):
            here = value_in_text(here)
        if (isinstance(here, dict) and last in here) or value_at(here, (last,)) is not None:
            return True
    return False
