"""Paths: key/value lists, list indexes, JSON in strings, fallbacks and joins, the same in JSON and in tables."""

import json
from typing import Any

import pyarrow as pa
import pytest

from sessionize.errors import ConfigError, InputError
from sessionize.formats.absent_fields import absent_fields
from sessionize.formats.csv_text.decoder import CsvLines
from sessionize.formats.dialects import Dialect
from sessionize.formats.json_lines import JsonLines
from sessionize.formats.paths.language import Join, Key, candidates, last_name, parse_field_path
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.validation import Decoded


def of_json(records: list[dict[str, Any]], dialect: Dialect) -> Decoded:
    decoder = JsonLines(dialect)
    decoder.add("\n".join(map(json.dumps, records)).encode(), source="f")
    return decoder.take()


def of_table(records: list[dict[str, Any]], dialect: Dialect) -> Decoded:
    table = pa.Table.from_pylist(records)
    layout = Layout.of(table.schema, dialect, source="f", columns=None, extras=False)
    read = table.select(list(dict.fromkeys(name.split(".")[0] for name in layout.read)))
    return Tabular(layout, dialect).decode(read, source="f", line_number=int)


BOTH = pytest.mark.parametrize("decode", [of_json, of_table])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a", (("a",),)),
        ("a.b", (("a", "b"), ("a.b",))),
        ("a[b]", (("a", Key("b")), ("a[b]",))),
        ("a[b.c].d", (("a", Key("b.c"), "d"), ("a[b.c].d",))),
        ("a[0][-1]", (("a", 0, -1), ("a[0][-1]",))),
        ("a[b", (("a[b",),)),
        ("[b]", (("[b]",),)),
        ("cs(User-Agent)", (("cs(User-Agent)",),)),
    ],
)
def test_what_a_path_means(text: str, meant: object) -> None:
    assert candidates(text) == meant


def test_the_last_name() -> None:
    assert [last_name(t) for t in ("a", "a.b", "a[b]", "a[b][0]", "items[0].name")] == ["a", "b", "b", "b", "name"]


def test_the_paths_of_a_command_line() -> None:
    assert parse_field_path("a,b") == ("a", "b")
    assert parse_field_path("ip + agent", joins=True) == Join(("ip", "agent"))
    assert parse_field_path("a+b") == "a+b"


PARAMS = [
    {"key": "page", "value": {"string_value": "/a", "int_value": None, "double_value": None}},
    {"key": "n", "value": {"string_value": None, "int_value": 7, "double_value": None}},
    {"key": "price", "value": {"string_value": None, "int_value": None, "double_value": 2.5}},
]


@BOTH
def test_key_value_lists(decode: Any) -> None:
    dialect = Dialect.mapping(user="u", time="t", page="params[page]", value="params[price]", event_id="params[n]")
    rows = decode([{"u": "a", "t": 1, "params": PARAMS}, {"u": "b", "t": 2, "params": PARAMS[:1]},
                   {"u": "c", "t": 3, "params": None}], dialect).events.to_pylist()  # fmt: skip
    assert [(r["page"], r["value"], r["event_id"]) for r in rows] == [
        ("/a", 2.5, "7"),
        ("/a", None, None),
        (None, None, None),
    ]


@BOTH
def test_list_indexes(decode: Any) -> None:
    dialect = Dialect.mapping(user="u", time="t", page="items[0].name", event_type="items[-1].name")
    items = [{"name": "x"}, {"name": "y"}]
    rows = decode([{"u": "a", "t": 1, "items": i} for i in (items, items[1:], [], None)], dialect).events.to_pylist()
    assert [(r["page"], r["event_type"]) for r in rows] == [("x", "y"), ("y", "y"), (None, None), (None, None)]


@BOTH
def test_json_in_a_string(decode: Any) -> None:
    dialect = Dialect.mapping(user="p.user.id", time="t", page="p.params[page]", value="p.v")
    texts = [json.dumps({"user": {"id": "a"}, "params": PARAMS, "v": 3}), '{"user": {"id": "b"}}', "{no json", None]
    decoded = decode([{"t": n, "p": text} for n, text in enumerate(texts)], dialect)
    rows = decoded.events.to_pylist()
    assert [(r["user"], r["page"], r["value"]) for r in rows] == [("a", "/a", 3.0), ("b", None, None)]
    assert decoded.rejected["reason"].to_pylist() == ["missing_user", "missing_user"]


def test_json_in_a_csv_field() -> None:
    dialect = Dialect.mapping(user="u", time="t", page="props.page")
    decoder = CsvLines(b"u,t,props", dialect, source="f")
    decoder.add(b'a,1,"{""page"":""/x""}"\nb,2,\n', source="f")
    assert decoder.take().events["page"].to_pylist() == ["/x", None]


@BOTH
def test_the_first_that_is_present_and_not_empty(decode: Any) -> None:
    dialect = Dialect.mapping(user=("id", "anon"), time="t")
    records: list[dict[str, Any]] = [
        {"id": "u", "anon": "x"},
        {"id": None, "anon": "a"},
        {"id": "", "anon": "b"},
        {"id": "", "anon": None},
    ]
    decoded = decode([{"t": 1, **record} for record in records], dialect)
    assert decoded.events["user"].to_pylist() == ["u", "a", "b"]
    assert decoded.rejected["reason"].to_pylist() == ["empty_user"]
    assert dialect.user_name == "id"


@BOTH
def test_joined_users(decode: Any) -> None:
    dialect = Dialect.mapping(user=Join(("ip", "agent")), time="t")
    records: list[dict[str, Any]] = [{"ip": "1", "agent": "A"}, {"ip": "1", "agent": None}, {"ip": None, "agent": None}]
    decoded = decode([{"t": 1, **record} for record in records], dialect)
    assert decoded.events["user"].to_pylist() == ["1|A", "1|"]
    assert decoded.rejected["reason"].to_pylist() == ["missing_user"]
    assert "ip+agent" in decoded.rejected["detail"][0].as_py()
    assert dialect.user_name == "ip"


@BOTH
def test_date_and_time_in_two_fields(decode: Any) -> None:
    dialect = Dialect.mapping(user="u", time=Join(("date", "time")))
    days = [{"u": "a", "date": "2010-09-21", "time": time} for time in ("23:59:59", None, "")]
    decoded = decode(days, dialect)
    assert decoded.events["event_time_ms"].to_pylist() == [1285113599000]
    assert decoded.rejected["reason"].to_pylist() == ["missing_time"] * 2


def test_maps_and_typed_columns_of_a_table() -> None:
    kind = pa.map_(pa.string(), pa.string())
    table = pa.table({"u": ["a", "b"], "t": [1, 2], "m": pa.array([[("page", "/a")], []], kind)})
    layout = Layout.of(table.schema, dialect := Dialect.mapping(user="u", time="t", page="m[page]"), source="f",
                       columns=None, extras=False)  # fmt: skip
    decoded = Tabular(layout, dialect).decode(table, source="f", line_number=int)
    assert decoded.events["page"].to_pylist() == ["/a", None]


@BOTH
def test_a_part_of_a_sliced_table_or_file(decode: Any) -> None:
    """Offsets of lists count from the slice, not from the whole."""
    dialect = Dialect.mapping(user="u", time="t", page="params[page]", event_type="params[0].key")
    pairs = [{"key": "page", "value": {"string_value": f"/{n}"}} for n in range(9)]
    many = [{"u": "a", "t": n, "params": [pair] * (n % 3)} for n, pair in enumerate(pairs)]
    expected = [f"/{n}" if n % 3 else None for n in range(9)]
    assert decode(many, dialect).events["page"].to_pylist() == expected
    if decode is of_table:
        table = pa.Table.from_pylist(many).slice(4)
        layout = Layout.of(table.schema, dialect, source="f", columns=None, extras=False)
        decoded = Tabular(layout, dialect).decode(table, source="f", line_number=int)
        assert decoded.events["page"].to_pylist() == expected[4:]
        assert decoded.events["event_type"].to_pylist() == ["page" if n % 3 else None for n in range(4, 9)]


def test_a_missing_part_of_a_join_is_said() -> None:
    with pytest.raises(InputError, match="no column"):
        of_table([{"ip": "1", "t": 1}], Dialect.mapping(user=Join(("ip", "agent")), time="t"))


@pytest.mark.parametrize(("one", "other"), [("p", "p[x]"), ("p[x]", "p"), ("p[x]", "p.y")])
def test_a_field_cannot_be_both(one: str, other: str) -> None:
    with pytest.raises(ConfigError, match="both"):
        JsonLines(Dialect.mapping(user="u", time="t", page=one, event_type=other))


def test_absent_fields_of_deep_paths() -> None:
    dialect = Dialect.mapping(user="params[uid]", time="t")
    found = absent_fields(dialect, [b'{"params":[{"key":"id","value":"a"}],"t":1}'] * 3)
    assert found is not None
    assert "params[uid]" in found.detail
    assert absent_fields(dialect, [b'{"params":[{"key":"uid","value":"a"}],"t":1}'] * 3) is None
