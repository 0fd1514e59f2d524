"""Expressions of session columns: Arrow computes what plain Python does, for every node and every mix of nulls."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sessionize.errors import ConfigError
from sessionize.session import expression_values
from sessionize.session.expression_values import computed, field_values
from sessionize.session.expressions import FIELD_TYPES, checked, names_in
from sessionize.testing.own_columns import evaluate

TYPES = {"a": "integer", "b": "number", "s": "text", "t": "boolean", "utm-source": "text", "when": "text"}
ADDRESSES = [
    "http://User:pw@Host.Example:80/p?utm_source=a%20b&q=1#f?q=2",
    "/p?q=&q=2&utm_source=x+y",
    "?q=1?q=2&xq=3",
    "https://[2001:db8::1]:1/?q",
    "mailto:x@y?q=%C3%A9",
    "ftp://a@b@C.d?q&q=1",
    "http://[::1?q=%",
    "x://",
    "q=1",
    "/#?q=1",
]
ROW = st.fixed_dictionaries(
    {
        "a": st.sampled_from([None, 0, 1, -3, 2**53, -(2**63)]),
        "b": st.sampled_from([None, 0.0, 0.5, -2.5, 1.0, 1e300, -1e300, 1e19]),
        "s": st.sampled_from([None, "", "x", "X_y", "a%b", "é\nÄ", "12", "-007", "1.5e3", " 1", "1e999", *ADDRESSES]),
        "t": st.sampled_from([None, True, False]),
        "utm-source": st.sampled_from([None, "x", "y"]),
        "when": st.sampled_from([None, "x"]),
    }
)
EXPRESSIONS = [
    "a + 1",
    "a - b",
    "a * b",
    "a / b",
    "b / 0",
    "b * 1e300 * 1e300 - b",
    "-a",
    "-b",
    "-3",
    "0 * -1",
    "a + 9223372036854775807",
    "a = 1",
    "a <> b",
    "a < b",
    "a <= 1.5",
    "a > -3",
    "b >= a",
    "s = 'x'",
    "s < 'é'",
    's <> "utm-source"',
    "t = true",
    "t <> t",
    "a = 9007199254740993",
    "a = 9007199254740992.0",
    "t and a = 1",
    "t or a = 1",
    "not t",
    "not (t and null)",
    "t and null",
    "t or null",
    "(a = 1 or b > 1) and not t is true",
    "a in (1, -3)",
    "a in (1, null)",
    "a not in (1, b)",
    "s in ('x', '', s)",
    "b in (0.5)",
    "t in (true, null)",
    "a between -3 and 1",
    "a not between b and 1",
    "a between null and 0",
    "s between 'a' and 'y'",
    "s like '%'",
    "s like '_'",
    "s like 'X^_%'",
    "s like 'a%b'",
    "s not like '%x%'",
    "s like ''",
    "s like '%.%'",
    "s like '[%'",
    "a is null",
    "s is not null",
    "t is true",
    "t is not false",
    "null is null",
    "(a = 1) is null",
    "coalesce(b, a, 0)",
    "coalesce(s, 'none')",
    "coalesce(null, a)",
    "nullif(a, 1)",
    "nullif(s, '')",
    "nullif(b, a)",
    "case when a = 1 then 'one' when b > 0 then s end",
    "case a when 1 then 0.5 when b then a else -1 end",
    "case when t then t else a is null end",
    "case s when null then 1 else 2 end",
    "lower(s)",
    "upper(s)",
    "length(s)",
    "length(lower(s)) > 1",
    "cast(a as text)",
    "cast(s as double)",
    "cast(s as bigint)",
    "cast(b as bigint)",
    "cast(a as double)",
    "cast(null as text)",
    "query_parameter(s, 'q')",
    "query_parameter(s, 'utm_source')",
    "query_parameter(s, 'a.b')",
    "url_host(s)",
    "coalesce(query_parameter(s, 'q'), url_host(s), 'none') = 'none'",
    "\"when\" = 'x'",
    "1",
    "'it''s'",
    "null",
]
REFUSED = {
    "a <": "not understood",
    "": "empty",
    "a; b": "more than one",
    "nope": "no field 'nope'",
    "a + s": "s is text",
    "a = 's'": "do not go together",
    "a and t": "a is integer",
    "not s": "s is text",
    "t > t": "compares booleans",
    "t between t and t": "compares booleans",
    "a.b": "has a dot",
    "s like b": "a text in quotes",
    "s like 'a' escape '!'": "not allowed",
    "s like 'a\\%'": "backslash",
    "a like 'x'": "a is integer",
    "a is 1": "null, true or false",
    "s is true": "s is text",
    "a in (select 1)": "not allowed",
    "a in (1, 's')": "do not go together",
    "count(*)": "not allowed",
    "foo(s)": "no function foo",
    "now()": "no function now",
    "s || s": "not allowed",
    "if(t, 1, 2)": "not allowed",
    "length(s, 'x')": "not allowed",
    "a between symmetric 1 and 2": "not allowed",
    "case when a then 1 end": "a is integer",
    "case a when 's' then 1 end": "do not go together",
    "case when t then 1 else 's' end": "do not go together",
    "cast(s as date)": "text, double or bigint",
    "cast(b as text)": "cannot be cast",
    "cast(t as bigint)": "cannot be cast",
    "cast(s as varchar(3))": "not allowed",
    "coalesce(a, s)": "do not go together",
    "query_parameter(s)": "2 arguments",
    "query_parameter(s, s)": "text in quotes",
    "url_host(a)": "a is integer",
    "1e400": "too large",
    "(" * 2_000: "",
    "t and " * 300 + "t": "nested too deeply",
    "'" + "x" * 4_000 + "'": "characters",
    "select 1": "not allowed",
    "drop table t": "not allowed",
    "@x": "not allowed",
    "a as b": "not allowed",
}


def in_arrow(text: str, rows: list[dict[str, Any]]) -> list[Any]:
    columns = {name: pa.array([row[name] for row in rows], FIELD_TYPES[TYPES[name]]) for name in names_in(text, "")}
    made = computed(text, columns, len(rows))
    kind = checked(text, TYPES, "test")
    assert made.type == FIELD_TYPES.get(kind, pa.null())
    values: list[Any] = made.to_pylist()
    return values


@given(st.lists(ROW, min_size=1, max_size=8), st.sampled_from(EXPRESSIONS))
@settings(max_examples=400)
def test_arrow_computes_what_python_does(rows: list[dict[str, Any]], text: str):
    assert in_arrow(text, rows) == [evaluate(text, row) for row in rows], text


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_every_expression_over_every_text_and_chunks(text: str):
    words = [None, "", "x", "X_y", "é\nÄ", "12", "1.5e3", *ADDRESSES]
    rows = [
        {"a": a, "b": b, "s": s, "t": t, "utm-source": s, "when": s}
        for s in words
        for a, b, t in [(1, 0.5, True), (None, None, None), (-3, -2.5, False), (0, 0.0, None)]
    ]
    expected = [evaluate(text, row) for row in rows]
    assert in_arrow(text, rows) == expected
    chunked = {
        name: pa.chunked_array(
            [pa.array([row[name] for row in part], FIELD_TYPES[TYPES[name]]) for part in (rows[:7], rows[7:])]
        )
        for name in names_in(text, "")
    }
    assert computed(text, chunked, len(rows)).to_pylist() == expected
    assert computed(text, {name: column.slice(0, 0) for name, column in chunked.items()}, 0).to_pylist() == []


@pytest.mark.parametrize(("text", "why"), REFUSED.items(), ids=[text[:30] for text in REFUSED])
def test_what_cannot_be_used_is_refused_with_its_place(text: str, why: str):
    with pytest.raises(ConfigError) as raised:
        checked(text, TYPES, "session_columns.x.where")
    assert why in raised.value.message
    assert raised.value.detail is not None
    assert raised.value.detail.startswith("session_columns.x.where: ")


def test_much_text_is_computed_in_parts(monkeypatch: pytest.MonkeyPatch):
    """An array has 2 GB, and lower() asks for half as much again as it gets."""
    words = pa.array(["A" * size for size in range(40)] + [None, "Ä"])
    whole = computed("lower(s)", {"s": field_values(words)}, len(words))
    monkeypatch.setattr(expression_values, "CHUNK_BYTES_MAX", 100)
    parts = field_values(words)
    assert max(chunk.nbytes for chunk in parts.chunks if len(chunk) > 1) <= 100
    assert computed("lower(s)", {"s": parts}, len(words)).to_pylist() == whole.to_pylist()
    coded = field_values(words.dictionary_encode())
    assert coded.to_pylist() == words.to_pylist()
    assert coded.type == pa.string()
    assert coded.num_chunks > 10


def test_integers_are_compared_exactly_and_beside_numbers_as_doubles():
    rows = [{"a": 2**53 + 1, "b": 2.0**53}]
    assert in_arrow("a = 9007199254740993", rows) == [True]
    assert in_arrow("a = 9007199254740992", rows) == [False]
    assert in_arrow("a = b", rows) == [True]
    assert in_arrow("a + 0", rows) == [2.0**53]


@given(st.text(alphabet="ab()'\"<>=+-*/, .%;:@#\\\n\0é1eE_ andorlikeincase", max_size=40))
@example("'\0'")
@settings(max_examples=300)
def test_any_text_is_computed_or_refused(text: str):
    try:
        checked(text, TYPES, "place")
    except ConfigError:
        return
    row = {"a": 1, "b": 0.5, "s": "x", "t": True, "utm-source": "y", "when": None}
    assert in_arrow(text, [row]) == [evaluate(text, row)]
