"""Fields that no canonical column takes: columns of their own, or JSON text."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.formats.dialects import DIALECTS, Dialect
from sessionize.formats.json_lines import JsonLines

OWN = Dialect.mapping(user="u", time="t", event_type="d.type")


def extras(*records: dict[str, object] | bytes, dialect: Dialect = OWN) -> pa.Table:
    decoder = JsonLines(dialect, extras=True)
    data = b"\n".join(r if isinstance(r, bytes) else json.dumps({"u": "a", "t": 1, **r}).encode() for r in records)
    decoder.add(data, source="f")
    decoded = decoder.take()
    assert decoded.rejected.num_rows == 0
    return decoded.events.drop_columns(list(decoder.columns))


names = st.sampled_from(["a", "b", "B", "", "page", "properties", "d", "ü", "u"])
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**63, 2**70, 0.5, 1e300]),
    st.text(max_size=2),
    st.lists(st.integers(0, 2), max_size=2),
    st.dictionaries(st.text(max_size=1), st.integers(0, 2), max_size=2),
)
records = st.dictionaries(names, values, max_size=5)
batches = st.lists(st.lists(st.lists(records | st.just({"u": 0.5}), max_size=4), max_size=3), max_size=3)


@given(batches)
def test_learned_decoders_and_field_by_field_give_the_same(many: list[list[list[dict[str, object]]]]) -> None:
    learning, plain = JsonLines(OWN, extras=True), JsonLines(OWN, extras=True)
    assert plain._extras is not None
    plain._extras._unnameable = True
    for batch in many:
        for piece in batch:
            data = b"".join(json.dumps({"u": "a", "t": 1, **record}).encode() + b"\n" for record in piece)
            learning.add(data, source="f")
            plain.add(data, source="f")
        one, other = learning.take(), plain.take()
        assert one.events.equals(other.events)
        assert one.rejected.equals(other.rejected)


def test_a_decoder_is_learned_once_and_then_used() -> None:
    decoder = JsonLines(OWN, extras=True)
    assert decoder._extras is not None
    seen = []
    for n in range(6):
        decoder.add(b'{"u":"a","t":1,"x":%d,"d":{"k":1}}\n' % n * 3, source="f")
        seen.append(decoder._extras._decoder)
    assert seen[0] is not None
    assert [one is seen[0] for one in seen] == [True] * 6


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([True, None, False], pa.bool_(), [True, None, False]),
        ([1, None, -(2**63)], pa.int64(), [1, None, -(2**63)]),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([0.5, None], pa.float64(), [0.5, None]),
        (["", "x", None], pa.string(), ["", "x", None]),
        ([1, "x", 1.5, True, None], pa.string(), ["1", "x", "1.5", "true", None]),
        ([True, 1], pa.string(), ["true", "1"]),
        ([1, 2**64], pa.string(), ["1", "18446744073709551616"]),
        ([2**53 + 1, 0.5], pa.string(), ["9007199254740993", "0.5"]),
    ],
)
def test_scalars_become_columns(values: list[object], kind: pa.DataType, expected: list[object]) -> None:
    table = extras(*({"x": value} for value in values))
    assert table.schema == pa.schema([("x", kind)])
    assert table["x"].to_pylist() == expected


def test_absent_fields_are_null_and_columns_of_nothing_are_left_out() -> None:
    table = extras({"a": 1, "z": None}, {}, {"b": "x"})
    assert table.to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": None}, {"a": None, "b": "x"}]


def test_nested_values_keep_their_letters() -> None:
    table = extras(
        b'{"u":"a","t":1,"d":{"type":"v","n":1.50,"big":123456789012345678901234567890,"e":1e999},"s":1}',
        b'{"u":"a","t":1,"list":[1, 2.0,"x"],"d":"no object"}',
        b'{"u":"a","t":1}',
    )
    assert table["properties"].to_pylist() == [
        '{"d":{"type":"v","n":1.50,"big":123456789012345678901234567890,"e":1e999}}',
        '{"list":[1, 2.0,"x"]}',
        None,
    ]
    assert table["d"].to_pylist() == [None, "no object", None]
    assert table["s"].to_pylist() == [1, None, None]


def test_names_that_are_taken_go_to_properties() -> None:
    clicks = DIALECTS["clicks"]
    record = {"user_id": "a", "timestamp": 1, "url": "/x", "page": 3, "event_time_ms": "soon", "Ab": 1, "aB": 2, "": 4}
    table = extras(json.dumps(record | {"properties": {"k": 1}}).encode(), dialect=clicks)
    assert table["Ab"].to_pylist() == [1]
    assert json.loads(table["properties"][0].as_py()) == {
        "page": 3,
        "event_time_ms": "soon",
        "aB": 2,
        "": 4,
        "properties": {"k": 1},
    }


def test_more_than_200_names() -> None:
    table = extras({f"f{n}": n for n in range(250)}, {"f0": 1, "f249": True})
    assert table.num_columns == 201
    assert json.loads(table["properties"][0].as_py()) == {f"f{n}": n for n in range(200, 250)}
    assert json.loads(table["properties"][1].as_py()) == {"f249": True}


def test_numbers_that_fit_no_type_are_kept_as_text() -> None:
    table = extras(b'{"u":"a","t":1,"x":1e999,"y":' + b"7" * 100 + b',"z":1}', {"x": 2.5})
    assert table["x"].to_pylist() == ["1e999", "2.5"]
    assert table["y"].to_pylist() == ["7" * 100, None]
    assert table["z"].to_pylist() == [1, None]


def test_rejected_records_leave_no_trace_in_the_extras() -> None:
    decoder = JsonLines(OWN, extras=True)
    decoder.add(b'{"u":"a","t":1,"x":1}\n{"u":"","t":1,"x":"bad","y":1}\n{"u":"b","t":2,"x":2}', source="f")
    decoder.add(b'{"u":"c","t":1,"x":3}\nbroken\n', source="f")
    decoded = decoder.take()
    assert decoded.events["x"].to_pylist() == [1, 2, 3]
    assert "y" not in decoded.events.column_names
    assert decoded.rejected.num_rows == 2


def test_the_bytes_may_be_reused_before_take() -> None:
    decoder = JsonLines(OWN, extras=True)
    buffer = bytearray(b'{"u":"a","t":1,"x":{"k":"v"}}')
    decoder.add(memoryview(buffer), source="f")
    buffer[:] = b"-" * len(buffer)
    assert decoder.take().events["properties"].to_pylist() == ['{"x":{"k":"v"}}']


@pytest.mark.parametrize("extras_too", [False, True])
def test_any_depth_is_an_event_or_too_deep(extras_too: bool) -> None:
    for depth in range(850, 1100, 3):
        decoder = JsonLines(OWN, extras=extras_too)
        decoder.add(b'{"u":"a","t":1,"x":' + b"[" * depth + b"]" * depth + b"}\n", source="f")
        decoded = decoder.take()
        reasons = decoded.rejected["reason"].to_pylist()
        assert reasons == ([] if decoded.events.num_rows else ["too_deep"])
        if extras_too and not reasons:
            assert "[" * depth in decoded.events["properties"][0].as_py()


@pytest.mark.parametrize("name", ['a"; DROP TABLE events; --', "a\\b", "a\0b", "a\nb", "\x1f"])
def test_a_name_that_nobody_can_ask_for_goes_to_properties(name: str) -> None:
    table = extras({"x": 1}, {name: "here", "x": 2}, {"x": 3})
    assert table["x"].to_pylist() == [1, 2, 3]
    assert [text and json.loads(text) for text in table["properties"].to_pylist()] == [None, {name: "here"}, None]


def test_a_name_that_nobody_can_ask_for_slows_down_only_its_own_piece() -> None:
    decoder = JsonLines(OWN, extras=True)
    assert decoder._extras is not None
    decoder.add(b'{"u":"a","t":1,"x":1}\n{"u":"a","t":1,"q\\"":1}\n', source="f")
    learned = decoder._extras._decoder
    decoder.add(b'{"u":"a","t":1,"x":1}\n', source="f")
    assert not decoder._extras._unnameable
    assert decoder._extras._decoder is learned
