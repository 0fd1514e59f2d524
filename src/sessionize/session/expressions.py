"""The small part of SQL that session columns may use (`where`, `expression`, arguments): parsed and type-checked.

The tree is sqlglot's, of the nodes listed here and no others; session/expression_values.py computes it on Arrow
columns, and whatever writes SQL takes the same tree. Types are words: text, number (float64), integer (int64), boolean.
Source: docs/session-columns.md.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa

from sessionize.arrow import is_text
from sessionize.errors import ConfigError

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

FIELD_TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
}
NULL = "null"  # the type of the literal NULL, which fits everywhere
TEXT_LENGTH_MAX = 4_000  # of an expression
DEPTH_MAX = 100
NUMERIC = ("number", "integer")
FUNCTIONS = ("coalesce", "length", "lower", "nullif", "query_parameter", "upper", "url_host")
_HINT = (
    "it may use fields, numbers, 'text', = <> < <= > >=, and, or, not, in, between, like, is null, + - * /, case, "
    "cast, " + ", ".join(FUNCTIONS)
)
_INTEGER_MAX = (1 << 63) - 1
_CASTS = {
    "TEXT": "text",
    "VARCHAR": "text",
    "DOUBLE": "number",
    "FLOAT": "number",
    "BIGINT": "integer",
    "INT": "integer",
}
_CASTABLE = {("text", "number"), ("text", "integer"), ("integer", "number"), ("integer", "text"), ("number", "integer")}
_ORDERED = ("gt", "gte", "lt", "lte")


# What nodes may have; whatever else sqlglot reads (an escape, a format, "symmetric") is refused.
_ARGUMENTS = frozenset(
    (
        "this",
        "expression",
        "expressions",
        "low",
        "high",
        "ifs",
        "true",
        "default",
        "to",
        "is_string",
        "quoted",
        "negate",
    )
)


class _RefusedError(Exception):
    """Why an expression cannot be used."""


def word_of(kind: pa.DataType) -> str:
    """What expressions call a column's type; one that has no place there is called as Arrow does."""
    if is_text(kind):
        return "text"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    return "boolean" if pa.types.is_boolean(kind) else str(kind)


def parsed(text: str, place: str) -> "Expr":
    """The tree of an expression, of known nodes alone. place: where it stands, for errors. Errors: ConfigError."""
    try:
        return _parsed(text)
    except _RefusedError as why:
        _refuse(str(why), text, place)


def checked(text: str, types: Mapping[str, str], place: str) -> str:
    """The type of an expression over fields of these types. Errors: ConfigError, naming the place."""
    tree = parsed(text, place)
    try:
        return _type(tree, types)
    except _RefusedError as why:
        _refuse(str(why), text, place)


def names_in(text: str, place: str) -> tuple[str, ...]:
    """The fields that an expression names, in alphabetical order. Errors: ConfigError."""
    from sqlglot import exp

    return tuple(sorted({node.name for node in parsed(text, place).find_all(exp.Column)}))


def quoted(name: str) -> str:
    """A field's name as an expression that is the field, whatever the name is made of."""
    return '"' + name.replace('"', '""') + '"'


def literal(node: "Expr") -> str | float | int | bool | None:
    """The value of a literal node, of a negative number as well."""
    if node.key == "neg":
        value = literal(node.this)
        assert isinstance(value, int | float)
        return -value
    if node.key == "boolean":
        return bool(node.this)
    if node.key == NULL:
        return None
    if node.args["is_string"]:
        return str(node.this)
    if node.this.isdigit() and int(node.this) <= _INTEGER_MAX:
        return int(node.this)
    return float(node.this)


def is_literal(node: "Expr") -> bool:
    """Whether a node is a value that does not depend on the row."""
    if node.key == "neg":
        return bool(node.this.key == "literal" and not node.this.args["is_string"])
    return node.key in ("literal", "boolean", NULL)


def cast_target(node: "Expr") -> str:
    """The type that a cast node makes."""
    return _CASTS.get(node.args["to"].this.value, "")


def function(node: "Expr") -> str:
    """The name of a function node that SQL does not have."""
    return str(node.this).lower()


def _refuse(why: str, text: str, place: str) -> NoReturn:
    raise ConfigError(f"an expression of a session column cannot be used: {why}", detail=f"{place}: {text}", hint=_HINT)


@lru_cache(maxsize=1_000)
def _parsed(text: str) -> "Expr":
    from sqlglot import parse
    from sqlglot.errors import SqlglotError

    if len(text) > TEXT_LENGTH_MAX:
        raise _RefusedError(f"it has {len(text):,} characters, at most {TEXT_LENGTH_MAX:,} are read")
    try:
        trees = [tree for tree in parse(text) if tree is not None]
        if len(trees) != 1:
            raise _RefusedError("it is empty" if not trees else "it is more than one expression")
        tree = trees[0]
        _check_nodes(tree)
    except SqlglotError as error:
        found = getattr(error, "errors", None) or [{}]
        at = f" at character {found[0]['col']}" if found[0].get("col") else ""
        raise _RefusedError(f"it is not understood{at}") from error
    except RecursionError as error:
        raise _RefusedError("it is nested too deeply") from error
    return tree


def _check_nodes(tree: "Expr") -> None:
    for node in tree.walk():
        if node.depth > DEPTH_MAX:
            raise _RefusedError("it is nested too deeply")
        if node.key == "column" and node.args.get("table") is not None:
            raise _RefusedError(f'{node.sql()} has a dot; write "{node.sql()}" for a field of that name')
        known = node.key in _RULES or node.key in ("identifier", "if", "datatype")
        if not known or any(value and name not in _ARGUMENTS for name, value in node.args.items()):
            shown = node.sql()
            raise _RefusedError(f"{shown if len(shown) <= 40 else node.key} is not allowed")
        if node.key == "literal" and not node.args["is_string"] and not isfinite(float(node.this)):
            raise _RefusedError(f"{node.this} is too large")
        if node.key == "in" and not node.expressions:
            raise _RefusedError("in takes a list of values")
        if node.key == "anonymous" and function(node) not in FUNCTIONS:
            raise _RefusedError(f"there is no function {function(node)}")


def _type(node: "Expr", types: Mapping[str, str]) -> str:
    rule = _RULES.get(node.key)
    if rule is None:
        raise _RefusedError(f"{node.sql()} is not allowed")
    return rule(node, types)


def _column(node: "Expr", types: Mapping[str, str]) -> str:
    if node.name not in types:
        raise _RefusedError(f"there is no field {node.name!r}; there are {', '.join(sorted(types)) or 'none'}")
    if types[node.name] not in FIELD_TYPES:
        raise _RefusedError(f"{node.sql()} is {types[node.name]}; a field is text, a number, an integer or a boolean")
    return types[node.name]


def _literal(node: "Expr", types: Mapping[str, str]) -> str:
    value = literal(node)
    return "text" if isinstance(value, str) else "integer" if isinstance(value, int) else "number"


def _wants(node: "Expr", kind: str | tuple[str, ...], types: Mapping[str, str]) -> str:
    found, allowed = _type(node, types), (kind,) if isinstance(kind, str) else kind
    if found not in (*allowed, NULL):
        raise _RefusedError(f"{node.sql()} is {found}, not {' or '.join(allowed)}")
    return found


def _booleans(node: "Expr", types: Mapping[str, str]) -> str:
    for part in node.iter_expressions():
        _wants(part, "boolean", types)
    return "boolean"


def _numbers(node: "Expr", types: Mapping[str, str]) -> str:
    for part in node.iter_expressions():
        _wants(part, NUMERIC, types)
    return _literal(node.this, types) if node.key == "neg" and is_literal(node) else "number"


def _alike(nodes: "list[Expr]", types: Mapping[str, str]) -> str:
    """The one type of these. Errors: _RefusedError where they differ; an integer among numbers is a number."""
    found = [_type(node, types) for node in nodes]
    kinds = {kind for kind in found if kind != NULL}
    if kinds == set(NUMERIC):
        return "number"
    if len(kinds) > 1:
        shown = ", ".join(f"{node.sql()} is {kind}" for node, kind in zip(nodes, found, strict=True))
        raise _RefusedError(f"these do not go together: {shown}")
    return kinds.pop() if kinds else NULL


def _comparison(node: "Expr", types: Mapping[str, str]) -> str:
    kind = _alike(list(node.iter_expressions()), types)
    if kind == "boolean" and node.key in (*_ORDERED, "between"):
        raise _RefusedError(f"{node.sql()} compares booleans; they are equal or not")
    return "boolean"


def _like(node: "Expr", types: Mapping[str, str]) -> str:
    _wants(node.this, "text", types)
    pattern = node.expression
    if not (pattern.key == "literal" and pattern.args["is_string"]):
        raise _RefusedError("the pattern of like is a text in quotes")
    if "\\" in pattern.this:
        raise _RefusedError("the pattern of like has a backslash, which databases read in different ways")
    return "boolean"


def _is(node: "Expr", types: Mapping[str, str]) -> str:
    if node.expression.key == "boolean":
        _wants(node.this, "boolean", types)
    elif node.expression.key != NULL:
        raise _RefusedError("is takes null, true or false")
    _type(node.this, types)
    return "boolean"


def _text_function(node: "Expr", types: Mapping[str, str]) -> str:
    _wants(node.this, "text", types)
    return "integer" if node.key == "length" else "text"


def _case(node: "Expr", types: Mapping[str, str]) -> str:
    results, subject = [], node.args.get("this")
    for each in node.args["ifs"]:
        results.append(each.args["true"])
        if subject is None:
            _wants(each.this, "boolean", types)
        else:
            _alike([subject, each.this], types)
    if node.args.get("default") is not None:
        results.append(node.args["default"])
    return _alike(results, types)


def _cast(node: "Expr", types: Mapping[str, str]) -> str:
    found, wanted = _type(node.this, types), cast_target(node)
    if not wanted:
        raise _RefusedError("cast makes text, double or bigint")
    if found not in (wanted, NULL) and (found, wanted) not in _CASTABLE:
        raise _RefusedError(f"{found} cannot be cast to {wanted}")
    return wanted


def _anonymous(node: "Expr", types: Mapping[str, str]) -> str:
    wanted = 2 if function(node) == "query_parameter" else 1
    if len(node.expressions) != wanted:
        raise _RefusedError(f"{function(node)} takes {wanted} argument{'s' * (wanted > 1)}")
    _wants(node.expressions[0], "text", types)
    if wanted == 2:
        name = node.expressions[1]
        if not (name.key == "literal" and name.args["is_string"]):
            raise _RefusedError("the parameter's name is a text in quotes")
    return "text"


_Rule = Callable[[Any, Mapping[str, str]], str]
_RULES: dict[str, _Rule] = {
    "column": _column,
    "literal": _literal,
    "boolean": lambda node, types: "boolean",
    NULL: lambda node, types: NULL,
    "paren": lambda node, types: _type(node.this, types),
    **dict.fromkeys(("and", "or", "not"), _booleans),
    **dict.fromkeys(("add", "sub", "mul", "div", "neg"), _numbers),
    **dict.fromkeys(("eq", "neq", *_ORDERED, "in", "between"), _comparison),
    **dict.fromkeys(("coalesce", "nullif"), lambda node, types: _alike(list(node.iter_expressions()), types)),
    **dict.fromkeys(("lower", "upper", "length"), _text_function),
    "like": _like,
    "is": _is,
    "case": _case,
    "cast": _cast,
    "anonymous": _anonymous,
}
