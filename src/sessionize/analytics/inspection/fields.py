"""The fields of sampled records by their paths, with their values: what every guess looks at."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from sessionize.formats.paths.in_json import typed_value, value_in_text
from sessionize.formats.paths.language import KEY_NAMES, fault_of, last_name

FIELDS_MAX = 400
_DEPTH_MAX = 6
_LOOKED_AT = 1_000
# What exports write for a missing value, and nobody is called.
NULL_WORDS = frozenset(("NULL", "null", "Null", "\\N", "nan", "NaN", "<NA>", "N/A", "None", "undefined", "(null)"))


@dataclass(slots=True)
class FieldValues:
    """A field: its path, and its value in each record, None where it has none. null_words: how often each occurs."""

    path: str
    values: list[Any] = field(default_factory=list)
    null_words: Counter[str] = field(default_factory=Counter)

    @property
    def filled(self) -> list[Any]:
        """The values that are there."""
        return [value for value in self.values if value is not None]

    @property
    def share(self) -> float:
        """In what part of the records it has a value."""
        return len(self.filled) / len(self.values) if self.values else 0.0

    @property
    def distinct(self) -> int:
        """How many different values."""
        return len({str(value) for value in self.filled})

    @property
    def name(self) -> str:
        """The last name of the path, with small letters and digits only."""
        return plain(last_name(self.path))

    @property
    def name_of_column(self) -> str:
        """What a column made of it is called."""
        return last_name(self.path)

    @property
    def two_names(self) -> str:
        """The last two names of the path, as one."""
        return plain("".join(self.path.replace("[", ".").split(".")[-2:]))

    @property
    def depth(self) -> int:
        """How many steps the path has."""
        return self.path.count(".") + 2 * self.path.count("[")

    @property
    def is_mappable(self) -> bool:
        """Whether an option can name it: a comma or a plus has a meaning of its own there."""
        return bool(self.path.strip()) and fault_of(self.path) is None and not set(",+") & set(self.path)

    @property
    def kind(self) -> str:
        """text, number, boolean, time, list, empty, or mixed."""
        kinds = {kind_of(value) for value in self.filled[:_LOOKED_AT]}
        return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "empty"


def plain(name: str) -> str:
    """A name without case and signs."""
    return "".join(char for char in name.casefold() if char.isalnum())


def kind_of(value: object) -> str:
    """The kind of one value; text that is a number counts as a number."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, datetime | date):
        return "time"
    if isinstance(value, list | dict):
        return "list"
    return "number" if number_of(value) is not None else "text"


def number_of(value: object) -> float | None:
    """The number that a value is, or that its text is."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not (value.strip()[:1].isdigit() or value.strip()[:1] in ("-", "+", ".")):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e30 else None


def fields_of(rows: Sequence[Mapping[str, Any]], *, text_nulls: bool) -> list[FieldValues]:
    """All fields in the order of their first occurrence. text_nulls: words for a missing value are such, as in CSV."""
    found: dict[str, FieldValues] = {}
    for number, row in enumerate(rows):
        for path, value in _flat(row, "", 0):
            its = found.get(path)
            if its is None:
                if len(found) >= FIELDS_MAX:
                    continue
                its = found[path] = FieldValues(path)
            if len(its.values) > number:
                continue  # twice in one record
            its.values += [None] * (number - len(its.values))
            if isinstance(value, str) and value.strip() in NULL_WORDS:
                its.null_words[value.strip()] += 1
                value = None if text_nulls else value
            its.values.append(None if value == "" or value != value else value)
    for its in found.values():
        its.values += [None] * (len(rows) - len(its.values))
    return list(found.values())


def _flat(row: Mapping[str, Any], before: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        path = f"{before}{name}"
        if isinstance(value, str) and value[:1] in ("{", "["):
            inner = value_in_text(value)
            value = inner if isinstance(inner, dict) and inner else value
        if isinstance(value, dict) and depth < _DEPTH_MAX:
            yield from _flat(value, f"{path}.", depth + 1)
        elif isinstance(value, list) and value and all(_is_pair(each) for each in value):
            for pair in value:
                key = next(pair[key] for key in KEY_NAMES if key in pair)
                yield f"{path}[{key}]", typed_value(pair["value"])
        else:
            yield path, value


def _is_pair(value: object) -> bool:
    return isinstance(value, dict) and "value" in value and any(isinstance(value.get(name), str) for name in KEY_NAMES)
