"""What session columns of one's own are, in plain Python over plain rows: the truth that the kernel and SQL must equal.

It shares the parsed tree with the program, and nothing else: each aggregate is a loop over the session's events in the
order of rule 1. Source: docs/spec/sessions.md, rule 7.
"""

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any
from urllib.parse import unquote_plus

from sessionize.session import columns as col
from sessionize.session.expressions import cast_target, function, literal, parsed
from sessionize.session.own_columns import NUMBER_MAX, BoundColumn, OwnColumns

Row = Mapping[str, Any]
_NAMES = {col.EVENT_TYPE: "type", col.VALUE: "amount", col.EVENT_TIME: "time", col.EVENT_ID: "id"}
_COMPARE = {
    "eq": lambda a, b: a == b,
    "neq": lambda a, b: a != b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}


def field_of(event: Row, name: str) -> Any:
    """A field of an event as the reference has it; a number that is not finite is missing."""
    value = event.get(_NAMES.get(name, name))
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tie_of(event: Row, own: OwnColumns) -> tuple[Any, ...]:
    """By what the fields of own columns decide between events: missing first, in the order of their names."""
    fields = [field_of(event, name) for name, _ in own.fields if name not in (col.EVENT_TIME, col.EVENT_ID)]
    return tuple((value is not None, comparable(value)) for value in fields)


def comparable(value: Any) -> Any:
    """Text by its bytes; what is missing is beside other missing ones."""
    return value.encode() if isinstance(value, str) else 0 if value is None else value


def own_values(session: Row, events: Sequence[Row], own: OwnColumns) -> dict[str, Any]:
    """The own columns of a session. session: its built-in columns; events: in the order of rule 1."""
    made: dict[str, Any] = {}
    for column in own.columns:
        if column.kind == "expression":
            row = {**session, **made}
            value = evaluate(column.of or "", row)
            made[column.name] = float(value) if column.result == "number" and value is not None else value
        else:
            made[column.name] = _aggregate(column, events)
    return made


def _aggregate(column: BoundColumn, events: Sequence[Row]) -> Any:
    where, values = column.definition.where, []
    for event in events:
        row = _Fields(event)
        if where is None or evaluate(where, row) is True:
            values.append(True if column.of is None else evaluate(column.of, row))
    there = [value for value in values if value is not None]
    if column.type == "number":
        there = [float(value) for value in there]
    match column.kind:
        case "first":
            return there[0] if there else None
        case "last":
            return there[-1] if there else None
        case "min":
            return min(there, key=comparable) if there else None
        case "max":
            return max(there, key=comparable) if there else None
        case "sum" | "mean":
            return _exact(column, there)
        case "count":
            return len(there)
    texts = list(dict.fromkeys(str(v).lower() if isinstance(v, bool) else v for v in there))
    return len(texts) if column.kind == "count_distinct" else [str(v) for v in texts[: column.definition.limit]]


def _exact(column: BoundColumn, values: Sequence[float]) -> float | None:
    if column.type == "integer":
        parts = [Fraction(value) for value in values]
    else:
        parts = [Fraction(round(value * 1_000_000), 1_000_000) for value in values if abs(value) <= NUMBER_MAX]
    if not parts:
        return None
    total = sum(parts, Fraction(0))
    return float(total / len(parts) if column.kind == "mean" else total)


class _Fields(dict[str, Any]):
    """An event by the names of its fields."""

    def __init__(self, event: Row) -> None:
        super().__init__()
        self._event = event

    def __missing__(self, name: str) -> Any:
        return field_of(self._event, name)


def evaluate(text: str, row: Mapping[str, Any]) -> Any:
    """An expression for one row; None is SQL's null."""
    return _value(parsed(text, "oracle"), row)


def _value(node: Any, row: Mapping[str, Any]) -> Any:
    key = node.key
    if key == "column":
        return row[node.name]
    if key in ("literal", "boolean", "null"):
        return literal(node)
    if key == "paren":
        return _value(node.this, row)
    if key in ("and", "or"):
        return _logic(key == "and", [_value(part, row) for part in node.iter_expressions()])
    if key == "not":
        value = _value(node.this, row)
        return None if value is None else not value
    if key == "case":
        return _case(node, row)
    if key == "is":
        value, wanted = _value(node.this, row), literal(node.expression)
        return value is None if wanted is None else value is wanted
    if key == "coalesce":
        return next((v for part in node.iter_expressions() if (v := _value(part, row)) is not None), None)
    if key == "in":
        subject, *others = (_value(part, row) for part in node.iter_expressions())
        return _logic(False, [_compare("eq", subject, other) for other in others])
    if key == "between":
        subject, low, high = (_value(node.args[name], row) for name in ("this", "low", "high"))
        return _logic(True, [_compare("gte", subject, low), _compare("lte", subject, high)])
    parts = node.expressions if key == "anonymous" else node.iter_expressions()
    return _of_values(node, [_value(part, row) for part in parts if part.key != "datatype"])


def _of_values(node: Any, values: list[Any]) -> Any:
    """What is null where its first value is."""
    key, first = node.key, values[0]
    if key in _COMPARE:
        return _compare(key, *values)
    if key == "nullif":
        return None if first is not None and first == values[1] else first
    if first is None:
        return None
    if key in ("add", "sub", "mul", "div", "neg"):
        return _arithmetic(key, values)
    if key == "like":
        pattern = "".join({"%": ".*", "_": "."}.get(each, re.escape(each)) for each in values[1])
        return (re.fullmatch(pattern, first, re.DOTALL) is not None) is not bool(node.args.get("negate"))
    if key == "cast":
        return _cast(first, cast_target(node))
    if key == "anonymous":
        return _host(first) if function(node) == "url_host" else _parameter(first, values[1])
    return {"lower": str.lower, "upper": str.upper, "length": len}[key](first)


def _host(address: str) -> str | None:
    scheme, separator, rest = address.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.\-]*", scheme):
        return None
    place = re.split("[/?#]", rest)[0].rpartition("@")[2]
    host = place.partition("]")[0] + "]" if place.startswith("[") and "]" in place else place.partition(":")[0]
    return host.lower() or None


def _parameter(address: str, wanted: str) -> str | None:
    for each in address.partition("#")[0].partition("?")[2].split("&"):
        name, equals, value = each.partition("=")
        if equals and name == wanted:
            return unquote_plus(value)
    return None


def _logic(all_of: bool, values: Sequence[Any]) -> Any:
    """Of three truths: what decides alone, else null where there is one."""
    if (not all_of) in values:
        return not all_of
    return None if None in values else all_of


def _compare(key: str, left: Any, right: Any) -> Any:
    return None if left is None or right is None else _COMPARE[key](comparable(left), comparable(right))


def _arithmetic(key: str, values: Sequence[Any]) -> float | None:
    if None in values or (key == "div" and values[1] == 0):
        return None
    numbers = [float(value) for value in values]
    left, right = (0.0, numbers[0]) if key == "neg" else numbers
    result = {"add": left + right, "sub": left - right, "neg": left - right, "mul": left * right}.get(key)
    result = left / right if result is None else result
    return result + 0.0 if math.isfinite(result) else None


def _cast(value: Any, wanted: str) -> Any:
    if wanted == "text":
        return str(value)
    if isinstance(value, str):
        pattern = r"-?[0-9]{1,18}" if wanted == "integer" else r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?"
        if not re.fullmatch(pattern, value):
            return None
        return int(value) if wanted == "integer" else _arithmetic("add", [float(value), 0.0])
    return (int(value) if abs(value) < 2**63 else None) if wanted == "integer" else float(value)


def _case(node: Any, row: Mapping[str, Any]) -> Any:
    subject = node.args.get("this")
    for each in node.args["ifs"]:
        condition = _value(each.this, row)
        if subject is not None:
            condition = _compare("eq", _value(subject, row), condition)
        if condition is True:
            return _value(each.args["true"], row)
    default = node.args.get("default")
    return None if default is None else _value(default, row)
