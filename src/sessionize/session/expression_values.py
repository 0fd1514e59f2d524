"""Expressions of session columns computed on Arrow columns, with SQL's rules for null.

Nothing here can fail: what has no value (a division by zero, a text that is no number, a number that is not finite) is
null.
"""

import re
from collections.abc import Callable, Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.session.expressions import (
    FIELD_TYPES,
    NULL,
    cast_target,
    function,
    is_literal,
    literal,
    parsed,
)

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

Values = Any  # an Arrow array, chunked array, or a scalar where no row matters
_NUMBER = r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_INTEGER = r"^-?[0-9]{1,18}$"
_HOST = r"^[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#]*@)?(?P<found>\[[^\]/?#]*\]|[^/?#:]*)"
# Of text that is computed at once: functions need room for more than they get, and an array has 2 GB.
CHUNK_BYTES_MAX = 1 << 29
_WHOLE_MAX = float(1 << 63)


def computed(text: str, columns: Mapping[str, pa.Array], rows: int) -> pa.Array:
    """The expression for each row. columns: the fields that it names, of types of FIELD_TYPES, `rows` long each."""
    value = _value(parsed(text, ""), columns)
    if isinstance(value, pa.Scalar):
        return pa.repeat(value, rows) if value.is_valid else pa.nulls(rows, value.type)
    return value


def field_values(column: "pa.Array | pa.ChunkedArray") -> "pa.Array | pa.ChunkedArray":
    """A column as expressions take it: plain; integers of 64 bits; numbers finite or null, zero without a sign."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _in_parts(column, kind.value_type)
    if pa.types.is_floating(kind):
        return _finite(column)
    if pa.types.is_string(kind) and column.nbytes > CHUNK_BYTES_MAX:
        return _in_parts(column, kind)
    return column.cast(pa.int64()) if pa.types.is_integer(kind) else column


def _in_parts(column: "pa.Array | pa.ChunkedArray", kind: pa.DataType) -> pa.ChunkedArray:
    """Text, plain, in parts that are small enough."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [part for chunk in chunks for part in _halved(chunk)]
    return pa.chunked_array([p.dictionary_decode() if pa.types.is_dictionary(p.type) else p for p in parts], kind)


def _halved(text: pa.Array) -> list[pa.Array]:
    size = text.nbytes
    if pa.types.is_dictionary(text.type):
        size = len(text) * int(pc.max(pc.binary_length(text.dictionary)).as_py() or 0)
    if len(text) < 2 or size <= CHUNK_BYTES_MAX:
        return [text]
    half = len(text) // 2
    return [*_halved(text.slice(0, half)), *_halved(text.slice(half))]


def _value(node: "Expr", columns: Mapping[str, pa.Array]) -> Values:
    if is_literal(node):
        value = literal(node)
        return pa.scalar(value, pa.float64() if isinstance(value, float) else None)
    return _MAKERS[node.key](node, columns)


def _typed(values: Values, kind: pa.DataType) -> Values:
    return values if values.type == kind else values.cast(kind)


def _number(values: Values) -> Values:
    """As float64; a large integer is the nearest one."""
    return (
        _typed(values, pa.float64()) if not pa.types.is_integer(values.type) else values.cast(pa.float64(), safe=False)
    )


def _alike(values: list[Values]) -> list[Values]:
    """In one type: an integer beside numbers is a number, and a null is of the others' type."""
    kinds = {value.type for value in values if value.type != pa.null()}
    if not kinds:
        return values
    kind = pa.float64() if len(kinds) > 1 else kinds.pop()
    return [_number(v) if kind == pa.float64() and v.type != pa.null() else _typed(v, kind) for v in values]


def _truth(values: Values) -> Values:
    return _typed(values, pa.bool_())


def _finite(values: Values) -> Values:
    """What is no finite number is null; there is no negative zero."""
    return pc.if_else(pc.is_finite(values), pc.add(values, 0.0), pa.scalar(None, pa.float64()))


def _parts(node: "Expr", columns: Mapping[str, pa.Array]) -> list[Values]:
    return [_value(part, columns) for part in node.iter_expressions()]


def _arithmetic(
    compute: Callable[[Values, Values], Values],
) -> Callable[["Expr", Mapping[str, pa.Array]], Values]:
    def make(node: "Expr", columns: Mapping[str, pa.Array]) -> Values:
        left, right = (_number(part) for part in _parts(node, columns))
        return _finite(compute(left, right))

    return make


def _compares(compute: Callable[[Values, Values], Values]) -> Callable[["Expr", Mapping[str, pa.Array]], Values]:
    return lambda node, columns: _compared(compute, *_parts(node, columns))


def _compared(compute: Callable[[Values, Values], Values], left: Values, right: Values) -> Values:
    left, right = _alike([left, right])
    return _truth(compute(left, right))


def _in(node: "Expr", columns: Mapping[str, pa.Array]) -> Values:
    subject, *others = _parts(node, columns)
    return reduce(pc.or_kleene, [_compared(pc.equal, subject, other) for other in others])


def _between(node: "Expr", columns: Mapping[str, pa.Array]) -> Values:
    subject, low, high = (_value(node.args[name], columns) for name in ("this", "low", "high"))
    return pc.and_kleene(_compared(pc.greater_equal, subject, low), _compared(pc.less_equal, subject, high))


def _like(node: "Expr", columns: Mapping[str, pa.Array]) -> Values:
    matched = pc.match_like(_typed(_value(node.this, columns), pa.string()), node.expression.this)
    return pc.invert(matched) if node.args.get("negate") else matched


def _is(node: "Expr", columns: Mapping[str, pa.Array]) -> Values:
    value = _value(node.this, columns)
    if node.expression.key == NULL:
        return pc.is_null(value)
    wanted = pc.equal(_truth(value), literal(node.expression))
    return pc.fill_null(wanted, False)


def _nullif(node: "Expr", columns: Mapping[str, pa.Array]) -> Values:
    left, right = _alike(_parts(node, columns))
    same = pc.fill_null(_truth(pc.equal(left, right)), False)
    return pc.if_else(same, pa.scalar(None, left.type), left)


def _case(node: "Expr", columns: Mapping[str, pa.Array]) -> Values:
    subject, default = node.args.get("this"), node.args.get("default")
    results = [_value(each.args["true"], columns) for each in node.args["ifs"]]
    results.append(pa.scalar(None) if default is None else _value(default, columns))
    *results, made = _alike(results)
    for each, result in zip(reversed(node.args["ifs"]), reversed(results), strict=True):
        condition = _value(each.this, columns)
        if subject is not None:
            condition = _compared(pc.equal, _value(subject, columns), condition)
        made = pc.if_else(pc.fill_null(_truth(condition), False), result, made)
    return made


def _cast(node: "Expr", columns: Mapping[str, pa.Array]) -> Values:
    value, wanted = _value(node.this, columns), FIELD_TYPES[cast_target(node)]
    if value.type in (wanted, pa.null()):
        return _typed(value, wanted)
    if pa.types.is_string(value.type):
        known = pc.match_substring_regex(value, _INTEGER if wanted == pa.int64() else _NUMBER)
        read = pc.if_else(known, value, pa.scalar(None, pa.string())).cast(wanted)
        return read if wanted == pa.int64() else _finite(read)
    if wanted == pa.int64():
        whole = pc.and_(pc.less(value, _WHOLE_MAX), pc.greater_equal(value, -_WHOLE_MAX))
        return pc.if_else(whole, pc.trunc(value), pa.scalar(None, pa.float64())).cast(pa.int64())
    return _number(value) if wanted == pa.float64() else value.cast(wanted)


def _by_distinct(text: Values, make: Callable[[pa.Array], pa.Array]) -> Values:
    """The result of an expensive function, which is called once for each distinct text."""
    if isinstance(text, pa.Scalar):
        return make(pa.array([text.as_py()], pa.string()))[0]
    chunks = text.chunks if isinstance(text, pa.ChunkedArray) else [text]
    coded = [chunk.dictionary_encode() for chunk in chunks]
    return pa.chunked_array([make(each.dictionary).take(each.indices) for each in coded], pa.string())


def _query_parameter(text: pa.Array, name: str) -> pa.Array:
    # what comes first counts, as in most programs that read such addresses; behind # there are none
    pattern = r"^[^?#]*\?(?:[^#]*?&)??" + re.escape(name) + r"=(?P<found>[^&#]*)"
    found = pc.struct_field(pc.extract_regex(text, pattern), "found")
    return pa.array([each if each is None else unquote_plus(each) for each in found.to_pylist()], pa.string())


def _url_host(text: pa.Array) -> pa.Array:
    host = pc.utf8_lower(pc.struct_field(pc.extract_regex(text, _HOST), "found"))
    return pc.if_else(pc.equal(host, ""), pa.scalar(None, pa.string()), host)


def _anonymous(node: "Expr", columns: Mapping[str, pa.Array]) -> Values:
    text = _typed(_value(node.expressions[0], columns), pa.string())
    if function(node) == "url_host":
        return _by_distinct(text, _url_host)
    name: str = node.expressions[1].this
    return _by_distinct(text, lambda texts: _query_parameter(texts, name))


def _text(compute: Callable[[Values], Values]) -> Callable[["Expr", Mapping[str, pa.Array]], Values]:
    return lambda node, columns: compute(_typed(_value(node.this, columns), pa.string()))


def _logic(compute: Callable[[Values, Values], Values]) -> Callable[["Expr", Mapping[str, pa.Array]], Values]:
    return lambda node, columns: reduce(compute, [_truth(part) for part in _parts(node, columns)])


_MAKERS: dict[str, Callable[[Any, Mapping[str, pa.Array]], Values]] = {
    "column": lambda node, columns: columns[node.name],
    "paren": lambda node, columns: _value(node.this, columns),
    "and": _logic(pc.and_kleene),
    "or": _logic(pc.or_kleene),
    "not": lambda node, columns: pc.invert(_truth(_value(node.this, columns))),
    "add": _arithmetic(pc.add),
    "sub": _arithmetic(pc.subtract),
    "mul": _arithmetic(pc.multiply),
    "div": _arithmetic(pc.divide),
    "neg": lambda node, columns: _finite(pc.subtract(0.0, _number(_value(node.this, columns)))),
    "eq": _compares(pc.equal),
    "neq": _compares(pc.not_equal),
    "gt": _compares(pc.greater),
    "gte": _compares(pc.greater_equal),
    "lt": _compares(pc.less),
    "lte": _compares(pc.less_equal),
    "in": _in,
    "between": _between,
    "like": _like,
    "is": _is,
    "coalesce": lambda node, columns: pc.coalesce(*_alike(_parts(node, columns))),
    "nullif": _nullif,
    "case": _case,
    "cast": _cast,
    "lower": _text(pc.utf8_lower),
    "upper": _text(pc.utf8_upper),
    "length": _text(lambda text: pc.utf8_length(text).cast(pa.int64())),
    "anonymous": _anonymous,
}
