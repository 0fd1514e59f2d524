"""Session columns of one's own, as data: what each is made of, and which event fields they need.

[session_columns]
first_referrer = { first = "referrer" }
purchases = { count = true, where = "event_type = 'purchase'" }
per_event = { expression = "revenue / event_count" }

An aggregate folds a value of the session's events, in the order of rule 1; an expression is made of other session
columns. Source: docs/spec/sessions.md, rule 7.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from sessionize.errors import ConfigError
from sessionize.session.expressions import FIELD_TYPES, NUMERIC, checked, names_in, quoted

Kind = Literal["first", "last", "min", "max", "sum", "mean", "count", "distinct", "count_distinct", "expression"]
KINDS: tuple[Kind, ...] = (
    "first",
    "last",
    "min",
    "max",
    "sum",
    "mean",
    "count",
    "distinct",
    "count_distinct",
    "expression",
)
COLUMNS_MAX = 100
LIMIT_DEFAULT, LIMIT_MAX = 100, 10_000
TEXTS = "list of text"  # the type of a list of distinct values
RESULT_TYPES: dict[str, pa.DataType] = {**FIELD_TYPES, TEXTS: pa.list_(pa.string())}
# What a sum takes: beyond it, whole millionths have no room in 64 bits.
NUMBER_MAX = 1e12
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_WORD = re.compile(r"\w+")  # what can be nothing but the name of a field
_OF_TYPE: dict[str, tuple[str, ...]] = {
    "min": ("text", "number", "integer"),
    "max": ("text", "number", "integer"),
    "sum": NUMERIC,
    "mean": NUMERIC,
    "distinct": ("text", "integer", "boolean"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnColumn:
    """One column. of: a field, or an expression over fields; None counts events; of an `expression` the expression.

    where: which events count, as an expression; None for all. limit: the most values of a `distinct`.
    Errors: ConfigError.
    """

    name: str
    kind: Kind
    of: str | None
    where: str | None = None
    limit: int = LIMIT_DEFAULT

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            hint = "letters, digits and _, at most 63, no digit in front"
            raise ConfigError("a session column cannot be called that", detail=repr(self.name), hint=hint)
        if self.of is None and self.kind != "count":
            raise ConfigError(f"{self.kind} needs a field", detail=self.place, hint=f'{self.kind} = "value"')
        if self.where is not None and self.kind == "expression":
            hint = "an expression sees whole sessions; put the where into the columns that it is made of"
            raise ConfigError("an expression has no where", detail=self.place, hint=hint)
        if not 1 <= self.limit <= LIMIT_MAX:
            raise ConfigError("a limit is out of range", detail=f"{self.place}: {self.limit}", hint=f"1 to {LIMIT_MAX}")
        if self.limit != LIMIT_DEFAULT and self.kind != "distinct":
            raise ConfigError("only distinct has a limit", detail=self.place, hint="remove the limit")

    @property
    def place(self) -> str:
        """Where it stands in a pipeline file."""
        return f"session_columns.{self.name}"

    @classmethod
    def read(cls, name: str, value: object) -> "OwnColumn":
        """A column from its value in a pipeline file or a Python mapping. Errors: ConfigError."""
        place = f"session_columns.{name}"
        hint = 'for example { first = "page" } or { count = true, where = "event_type = \'view\'" }'
        if not isinstance(value, Mapping):
            raise ConfigError("a session column is a table of keys", detail=f"{place} = {value!r:.100}", hint=hint)
        given = dict(value)
        where, limit = given.pop("where", None), given.pop("limit", LIMIT_DEFAULT)
        kinds = [each for each in given if each in KINDS]
        if len(kinds) != 1 or len(given) != 1:
            detail = f"{place} has {', '.join(map(str, given)) or 'none'}"
            hint = f"one of {', '.join(KINDS)}; beside it where, and limit with distinct; {hint}"
            raise ConfigError("a session column is made in one way", detail=detail, hint=hint)
        kind, of = kinds[0], given[kinds[0]]
        if kind == "count" and of is True:
            of = None
        if not isinstance(of, str | None) or (of is None and kind != "count"):
            raise ConfigError(
                f"{kind} takes the name of a field" + (", or true" if kind == "count" else ""),
                detail=f"{place}.{kind} = {of!r:.100}",
                hint=hint,
            )
        if not isinstance(where, str | None):
            raise ConfigError("where is an expression in quotes", detail=f"{place}.where = {where!r:.100}", hint=hint)
        if not isinstance(limit, int) or isinstance(limit, bool):
            raise ConfigError("a limit is a whole number", detail=f"{place}.limit = {limit!r:.100}", hint="limit = 100")
        return cls(name=name, kind=kind, of=of, where=where, limit=limit)

    def to_json(self) -> dict[str, Any]:
        """What `read` takes, without what is at its default."""
        made: dict[str, Any] = {self.kind: True if self.of is None else self.of}
        if self.where is not None:
            made["where"] = self.where
        return made if self.limit == LIMIT_DEFAULT else {**made, "limit": self.limit}


@dataclass(frozen=True, slots=True)
class BoundColumn:
    """A column whose fields are known. of: its argument as an expression, None to count events; type: of its argument,
    a word of FIELD_TYPES (of an expression: of its result); result: a word of RESULT_TYPES.
    """

    definition: OwnColumn
    of: str | None
    type: str
    result: str

    @property
    def name(self) -> str:
        """Its name."""
        return self.definition.name

    @property
    def kind(self) -> Kind:
        """How it is made."""
        return self.definition.kind

    @property
    def shown(self) -> str:
        """Its name, definition and type, for people."""
        return f"{self.name} = {json.dumps(self.definition.to_json(), ensure_ascii=False)} ({self.result})"


@dataclass(frozen=True, slots=True)
class OwnColumns:
    """The own columns of a run. fields: the event fields that they name, with their types, in alphabetical order."""

    columns: tuple[BoundColumn, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    _by_name: dict[str, BoundColumn] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {each.name: each for each in self.columns})

    def __bool__(self) -> bool:
        return bool(self.columns)

    def __getitem__(self, name: str) -> BoundColumn:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @property
    def aggregates(self) -> tuple[BoundColumn, ...]:
        """Those that fold events."""
        return tuple(each for each in self.columns if each.kind != "expression")

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The columns in a table of sessions."""
        return {each.name: RESULT_TYPES[each.result] for each in self.columns}

    def differences(self, here: "OwnColumns") -> list[tuple[str, str, str]]:
        """(key, there, here) of each column that both have and that means something else here."""
        both = [(each, here[each.name]) for each in self.columns if each.name in here]
        return [
            (one.definition.place, one.shown, other.shown)
            for one, other in both
            if (one.definition, one.type) != (other.definition, other.type)
        ]

    def joined(self, other: "OwnColumns") -> "OwnColumns":
        """These and the columns of the other that are not among them."""
        added = tuple(each for each in other.columns if each.name not in self)
        if not added:
            return self
        return OwnColumns((*self.columns, *added), tuple(sorted({**dict(self.fields), **dict(other.fields)}.items())))

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values: each column as in a pipeline file, and the fields."""
        columns = {each.name: each.definition.to_json() for each in self.columns}
        return {"columns": columns, "fields": dict(self.fields)} if columns else {}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], session_types: Mapping[str, str]) -> "OwnColumns":
        """From to_json. Errors: ConfigError, KeyError."""
        if not value:
            return cls()
        return bound(read_columns(value["columns"]), value["fields"], session_types)


def read_columns(value: object) -> tuple[OwnColumn, ...]:
    """Columns by name, as a pipeline file or Python has them. Errors: ConfigError."""
    if not isinstance(value, Mapping):
        raise ConfigError("session_columns is a table of columns", detail=f"{value!r:.100}")
    made = tuple(OwnColumn.read(str(name), each) for name, each in value.items())
    if len(made) > COLUMNS_MAX:
        raise ConfigError("too many session columns", detail=f"{len(made)}, at most {COLUMNS_MAX} may be")
    return made


def check_names(columns: Sequence[OwnColumn], taken: Mapping[str, str]) -> None:
    """Errors: ConfigError where two columns of a table would have one name. taken: lower-case name -> whose it is."""
    seen = dict(taken)
    for each in columns:
        whose = seen.get(each.name.casefold())
        if whose is not None:
            raise ConfigError(
                "two columns of a table would have the same name",
                detail=f"{each.place}: {each.name!r} is {whose} (upper and lower case are alike)",
                hint="choose another name",
            )
        seen[each.name.casefold()] = "another column of session_columns"


def fields_named(columns: Sequence[OwnColumn], present: Collection[str]) -> frozenset[str]:
    """The fields that the columns name. present: fields there are, which may be named without quotes.

    Errors: ConfigError.
    """
    named: set[str] = set()
    for each in columns:
        if each.kind != "expression" and each.of is not None:
            whole = each.of in present or _WORD.fullmatch(each.of)
            named |= {each.of} if whole else set(names_in(each.of, f"{each.place}.{each.kind}"))
        if each.where is not None:
            named |= set(names_in(each.where, f"{each.place}.where"))
    return frozenset(named)


def bound(columns: Sequence[OwnColumn], fields: Mapping[str, str], session_types: Mapping[str, str]) -> OwnColumns:
    """Own columns whose arguments are checked against the fields of the events.

    fields: name -> word of FIELD_TYPES. session_types: the built-in session columns that expressions may name, in the
    same words. Errors: ConfigError that names the column, the place in it, and what is wrong.
    """
    made: list[BoundColumn] = []
    used: set[str] = set()
    known = dict(session_types)
    for each in columns:
        if each.kind == "expression":
            assert each.of is not None
            kind = checked(each.of, known, f"{each.place}.expression")
            if kind not in FIELD_TYPES:
                raise ConfigError(
                    "an expression without a type", detail=f"{each.place}: {each.of}", hint="it is always null"
                )
            made.append(BoundColumn(each, each.of, kind, kind))
        else:
            made.append(_aggregate(each, fields, used))
        if made[-1].result in FIELD_TYPES:
            known[each.name] = made[-1].result
    return OwnColumns(tuple(made), tuple((name, fields[name]) for name in sorted(used)))


def _aggregate(column: OwnColumn, fields: Mapping[str, str], used: set[str]) -> BoundColumn:
    """A column over events. used: takes the fields that it names."""
    expression, kind = None, "integer"
    if column.of is not None:
        place = f"{column.place}.{column.kind}"
        # the name of a field is that field, whatever it is made of
        expression = quoted(column.of) if column.of in fields or _WORD.fullmatch(column.of) else column.of
        kind = checked(expression, fields, place)
        allowed = _OF_TYPE.get(column.kind, tuple(FIELD_TYPES))
        if kind not in allowed:
            raise ConfigError(
                f"{column.kind} takes {' or '.join(allowed)}",
                detail=f"{place}: {column.of} is {kind}",
                hint="give the field another type where it is mapped, or cast it: cast(… as double)",
            )
        used |= set(names_in(expression, place))
    if column.where is not None:
        place = f"{column.place}.where"
        if (found := checked(column.where, fields, place)) != "boolean":
            raise ConfigError("where is no condition", detail=f"{place}: {column.where} is {found}", hint="page = 'x'")
        used |= set(names_in(column.where, place))
    result = {
        "sum": "number",
        "mean": "number",
        "count": "integer",
        "count_distinct": "integer",
        "distinct": TEXTS,
    }.get(column.kind, kind)
    return BoundColumn(column, expression, kind, result)
