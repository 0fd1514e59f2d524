"""Expressions of session columns as SQL: the tree that session/expressions.py has checked, in a dialect's words.

Their meaning is that of session/expression_values.py: an integer beside a number is a number, arithmetic is in doubles,
what has no value (a division by zero, text that is no number, a number that is not finite) is null, text compares by
its bytes. Types are the words of FIELD_TYPES.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from sqlglot import exp

from sessionize.session.expressions import NULL, cast_target, checked, function, is_literal, literal, parsed
from sessionize.sql.dialect import Dialect
from sessionize.sql.tree import Tree, number, text, tree

_COMPARISONS = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*"}
_SQL_TYPES = {"text": "text", "number": "double", "integer": "bigint", "boolean": "boolean"}


@dataclass(frozen=True, slots=True)
class Scope:
    """Where an expression stands. columns: the column of the query for each name. types: of the names."""

    dialect: Dialect
    columns: Mapping[str, Tree]
    types: Mapping[str, str]

    def tree(self, expression: str) -> Tree:
        """The expression over these columns."""
        return self._value(parsed(expression, ""))

    def type(self, node: Any) -> str:
        """The type of a part of an expression."""
        return checked(node.sql(), self.types, "")

    def _value(self, node: Any) -> Tree:
        if is_literal(node):
            return self._literal(literal(node))
        return _MAKERS[node.key](self, node)

    def _literal(self, value: str | float | int | bool | None) -> Tree:
        if isinstance(value, bool):
            return exp.true() if value else exp.false()
        if isinstance(value, float):
            return tree("CAST(:text AS DOUBLE)", text=text(repr(value)))
        return exp.null() if value is None else text(value) if isinstance(value, str) else number(value)

    def alike(self, nodes: list[Any]) -> list[Tree]:
        """The values in one type; text so that it compares by its bytes."""
        kinds = [self.type(node) for node in nodes]
        wanted = {kind for kind in kinds if kind != NULL}
        found = []
        for node, kind in zip(nodes, kinds, strict=True):
            value = self._value(node)
            if kind == "text":
                value = self.dialect.bytewise(value)
            elif kind == "integer" and "number" in wanted:
                value = exp.cast(value, "double")
            elif kind == NULL and wanted:
                value = exp.cast(value, _SQL_TYPES[next(iter(wanted))])
            found.append(value)
        return found

    def double(self, node: Any) -> Tree:
        """The value as a number."""
        value = self._value(node)
        return value if self.type(node) == "number" else exp.cast(value, "double")

    def finite(self, value: Tree) -> Tree:
        """Null for what is no finite number, and no negative zero."""
        return self.dialect.finite(value)


def _compare(scope: Scope, operator: str, left: Tree, right: Tree) -> Tree:
    return tree(f":a {_COMPARISONS[operator]} :b", a=left, b=right)


def _logic(make: Callable[[Tree, Tree], Tree]) -> Callable[[Scope, Any], Tree]:
    def made(scope: Scope, node: Any) -> Tree:
        parts: list[Tree] = [exp.paren(scope._value(part)) for part in node.iter_expressions()]
        return exp.paren(reduce(make, parts))

    return made


def _arithmetic(scope: Scope, node: Any) -> Tree:
    left, right = (scope.double(part) for part in node.iter_expressions())
    if node.key == "div":
        return scope.finite(tree(":a / NULLIF(:b, 0)", a=left, b=right))
    return scope.finite(tree(f":a {_ARITHMETIC[node.key]} :b", a=left, b=right))


def _in(scope: Scope, node: Any) -> Tree:
    subject, *others = node.iter_expressions()
    found = [_compare(scope, "eq", *scope.alike([subject, other])) for other in others]
    return exp.paren(reduce(lambda a, b: exp.or_(a, b), found))


def _between(scope: Scope, node: Any) -> Tree:
    subject, low, high = (node.args[name] for name in ("this", "low", "high"))
    least = _compare(scope, "gte", *scope.alike([subject, low]))
    return exp.paren(exp.and_(least, _compare(scope, "lte", *scope.alike([subject, high]))))


def _like(scope: Scope, node: Any) -> Tree:
    made = scope.dialect.like(scope._value(node.this), node.expression.this)
    return exp.not_(exp.paren(made)) if node.args.get("negate") else exp.paren(made)


def _is(scope: Scope, node: Any) -> Tree:
    value = scope._value(node.this)
    if node.expression.key == NULL:
        return exp.paren(tree(":v IS NULL", v=value))
    wanted = tree(":v", v=value) if node.expression.this else tree("NOT :v", v=value)
    return exp.func("COALESCE", wanted, exp.false())


def _case(scope: Scope, node: Any) -> Tree:
    subject, default = node.args.get("this"), node.args.get("default")
    results = [each.args["true"] for each in node.args["ifs"]] + ([] if default is None else [default])
    values = scope.alike(results)
    made = exp.Case()
    for each, value in zip(node.args["ifs"], values, strict=False):
        if subject is None:
            condition = scope._value(each.this)
        else:
            condition = _compare(scope, "eq", *scope.alike([subject, each.this]))
        made = made.when(condition, value)
    return made if default is None else made.else_(values[-1])


def _cast(scope: Scope, node: Any) -> Tree:
    found, wanted, value = scope.type(node.this), cast_target(node), scope._value(node.this)
    if found == wanted:
        return value
    if found == "text":
        if wanted == "integer":
            return scope.dialect.read_integer(value)
        return scope.finite(scope.dialect.read_number(value))
    if found == "number" and wanted == "integer":
        return scope.dialect.whole(value)
    return exp.cast(value, _SQL_TYPES[wanted])


def _nullif(scope: Scope, node: Any) -> Tree:
    left, right = scope.alike(list(node.iter_expressions()))
    return exp.func("NULLIF", left, right)


def _function(scope: Scope, node: Any) -> Tree:
    value = scope._value(node.expressions[0])
    if function(node) == "url_host":
        return scope.dialect.url_host(value)
    return scope.dialect.query_parameter(value, node.expressions[1].this)


def _negated(scope: Scope, node: Any) -> Tree:
    return scope.finite(tree("0.0 - :v", v=scope.double(node.this)))


_MAKERS: dict[str, Callable[[Scope, Any], Tree]] = {
    "column": lambda scope, node: scope.columns[node.name].copy(),
    "paren": lambda scope, node: exp.paren(scope._value(node.this)),
    "and": _logic(lambda a, b: exp.and_(a, b)),
    "or": _logic(lambda a, b: exp.or_(a, b)),
    "not": lambda scope, node: exp.not_(exp.paren(scope._value(node.this))),
    **dict.fromkeys(("add", "sub", "mul", "div"), _arithmetic),
    "neg": _negated,
    **{
        key: (lambda scope, node, key=key: _compare(scope, key, *scope.alike(list(node.iter_expressions()))))  # type: ignore[misc]
        for key in _COMPARISONS
    },
    "in": _in,
    "between": _between,
    "like": _like,
    "is": _is,
    "coalesce": lambda scope, node: exp.func("COALESCE", *scope.alike(list(node.iter_expressions()))),
    "nullif": _nullif,
    "case": _case,
    "cast": _cast,
    "lower": lambda scope, node: scope.dialect.lower(scope._value(node.this)),
    "upper": lambda scope, node: scope.dialect.upper(scope._value(node.this)),
    "length": lambda scope, node: scope.dialect.length(scope._value(node.this)),
    "anonymous": _function,
}
