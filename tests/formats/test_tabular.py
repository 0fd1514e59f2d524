"""Tables of Arrow columns of every type to events and rejects."""

import json
import uuid
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pytest

from sessionize.errors import InputError
from sessionize.formats.dialects import DIALECTS, Dialect
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.validation import DECODED_TYPES, Decoded

OWN = Dialect.mapping(user="u", time="t", page="p", value="v", event_id="id", event_type="d.type")
MINIMAL = Dialect.mapping(user="u", time="t")


def decode(table: pa.Table, dialect: Dialect = MINIMAL, *, extras=False, columns=None, latest_ms=None) -> Decoded:
    layout = Layout.of(table.schema, dialect, source="f", columns=columns, extras=extras)
    tabular = Tabular(layout, dialect, latest_ms=latest_ms)
    return tabular.decode(table, source="f", line_number=lambda row: row + 1)


def test_all_columns() -> None:
    table = pa.table(
        {
            "u": ["a", "b"],
            "t": pa.array([1, 2], pa.timestamp("ms")),
            "p": ["/x", None],
            "v": [1, None],
            "id": ["", "e"],
            "d": [{"type": "view"}, None],
        }
    )
    decoded = decode(table, OWN)
    assert decoded.events.to_pylist() == [
        {"user": "a", "event_time_ms": 1, "event_id": None, "event_type": "view", "page": "/x", "value": 1.0},
        {"user": "b", "event_time_ms": 2, "event_id": "e", "event_type": None, "page": None, "value": None},
    ]
    assert all(decoded.events[c].type == DECODED_TYPES[c] for c in decoded.events.column_names)
    assert decoded.rejected.num_rows == 0


USERS = {
    "int32": (pa.array([1, -2], pa.int32()), ["1", "-2"]),
    "uint64": (pa.array([2**64 - 1, 0], pa.uint64()), ["18446744073709551615", "0"]),
    "whole floats as pandas writes integers with gaps": (pa.array([7.0, 1e15]), ["7", "1000000000000000"]),
    "decimal": (pa.array([Decimal(7), Decimal(8)]), ["7", "8"]),
    "large_string": (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
    "string_view": (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
    "binary": (pa.array([b"a", "ü".encode()], pa.binary()), ["a", "ü"]),
    "dictionary": (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    "dictionary of large_string with int8": (
        pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int8()), pa.array(["x", "y"], pa.large_string())),
        ["y", "x"],
    ),
    "dictionary of integers": (pa.array([5, 6]).dictionary_encode(), ["5", "6"]),
    "uuid": (
        pa.array([uuid.UUID(int=1).bytes, uuid.UUID(int=2).bytes], pa.uuid()),
        [str(uuid.UUID(int=1)), str(uuid.UUID(int=2))],
    ),
    "chunks with different dictionaries": (
        pa.chunked_array([pa.array(["a"]).dictionary_encode(), pa.array(["b"]).dictionary_encode()]),
        ["a", "b"],
    ),
    "slice": (pa.array(["x", "a", "b", ""])[1:3], ["a", "b"]),
}


@pytest.mark.parametrize(("array", "expected"), USERS.values(), ids=USERS.keys())
def test_users_of_many_types(array: pa.Array, expected: list[str]) -> None:
    decoded = decode(pa.table({"u": array, "t": [1, 2]}))
    assert decoded.rejected.to_pylist() == []
    assert decoded.events["user"].to_pylist() == expected
    assert decoded.events["user"].type == DECODED_TYPES["user"]


BAD_USERS = {
    "null": (pa.array(["a", None]), "missing_user"),
    "all null": (pa.array([None, None]), "missing_user"),
    "empty": (pa.array(["a", ""]), "empty_user"),
    "blank": (pa.array(["a", " \t"]), "empty_user"),
    "too long": (pa.array(["a", "u" * 1025]), "user_too_long"),
    "NaN": (pa.array([1.0, float("nan")]), "missing_user"),
    "fraction": (pa.array([1.0, 1.5]), "wrong_type"),
    "not UTF-8": (pa.array([b"a", b"\xff"], pa.binary()), "invalid_utf8"),
    "null in the indices": (pa.array(["a", None]).dictionary_encode(), "missing_user"),
    "null in the dictionary": (
        pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None])),
        "missing_user",
    ),
    "empty in the dictionary": (pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", ""])), "empty_user"),
}


@pytest.mark.parametrize(("array", "reason"), BAD_USERS.values(), ids=BAD_USERS.keys())
def test_bad_users(array: pa.Array, reason: str) -> None:
    decoded = decode(pa.table({"u": array, "t": [1, 2]}))
    assert decoded.rejected["reason"].to_pylist()[-1] == reason
    assert decoded.rejected["line_number"].to_pylist()[-1] == 2
    assert decoded.events.num_rows + decoded.rejected.num_rows == 2
    assert None not in decoded.events["user"].to_pylist()


def test_a_rejected_row_is_kept_as_json() -> None:
    table = pa.table(
        {
            "u": ["a", None, "c"],
            "t": pa.array([1, 2, 2**60], pa.timestamp("us", "UTC")),
            "d": [{"k": [1, 2]}] * 3,
            "b": [b"\x00", b"\x01", b"\x02"],
        }
    )
    rejected = decode(table, extras=True).rejected.to_pylist()
    assert [(r["line_number"], r["reason"]) for r in rejected] == [(2, "missing_user"), (3, "time_out_of_range")]
    first, second = (json.loads(r["raw"]) for r in rejected)
    assert first == {"u": None, "t": "1970-01-01T00:00:00.000002Z", "d": {"k": [1, 2]}, "b": "AQ=="}
    assert second["u"] == "c"
    assert second["t"] == 2**60


def unsound(values: list[bytes | None]) -> pa.Array:
    """Text that nobody has looked at."""
    data = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(data), data.buffers(), data.null_count)


@pytest.mark.parametrize("column", ["u", "p", "id", "x", "deep", "list"])
@pytest.mark.parametrize("encoded", [False, True])
def test_text_that_is_no_utf8_is_rejected_with_its_bytes(column: str, encoded: bool) -> None:
    text = unsound([b"ok", b"g\xfcn", None, "g\u00fcn".encode()])
    if column == "list":
        text = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3, 4], pa.int32()), text)
    elif column == "deep":
        text = pa.StructArray.from_arrays([text, pa.array([1, 2, 3, 4])], ["a", "b"])
    elif encoded:
        text = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), text)
    table = pa.table({"u": ["a", "b", "c", "d"], "t": [1, 2, 3, 4], "p": ["/"] * 4, "v": [1] * 4, "id": list("1234")})
    table = table.drop_columns([column] if column in table.column_names else []).append_column(column, text)
    decoded = decode(table, Dialect.mapping(user="u", time="t", page="p", event_id="id"), extras=True)
    decoded.events.validate(full=True)
    (rejected,) = [row for row in decoded.rejected.to_pylist() if row["line_number"] == 2]
    assert rejected["reason"] == "invalid_utf8"
    assert b"g\xfcn" in rejected["raw"]
    assert rejected["raw"].decode("latin-1").startswith("{")
    assert json.loads(rejected["raw"].decode("latin-1"))["t"] == 2
    assert decoded.events["event_time_ms"].to_pylist() == ([1, 4] if column == "u" else [1, 3, 4])


def test_the_future() -> None:
    decoded = decode(pa.table({"u": ["a", "b"], "t": [5, 6]}), latest_ms=5)
    assert decoded.events["user"].to_pylist() == ["a"]
    assert decoded.rejected["reason"].to_pylist() == ["future_timestamp"]


VALUES = {
    "int": (pa.array([1, None]), [1.0, None], {}),
    "float with NaN": (pa.array([1.5, float("nan")]), [1.5, None], {}),
    "all null": (pa.array([None, None], pa.float64()), [None, None], {}),
    "decimal": (pa.array([Decimal("1.25"), None]), [1.25, None], {}),
    "text": (pa.array(["1.5", None]), [1.5, None], {}),
    "text with blanks and signs": (pa.array([" +1.5e1 ", ""]), [15.0, None], {}),
    "dictionary of text": (pa.array(["2", "2"]).dictionary_encode(), [2.0, 2.0], {}),
    "infinite": (pa.array([1.0, float("inf")]), [1.0], {2: "number_out_of_range"}),
    "infinite beside NaN": (pa.array([float("nan"), float("inf")]), [None], {2: "number_out_of_range"}),
    "word": (pa.array(["x", "1"]), [1.0], {1: "invalid_number"}),
    "word beside null": (pa.array(["x", None]), [None], {1: "invalid_number"}),
    "nan as text": (pa.array(["nan", "1"]), [1.0], {1: "invalid_number"}),
    "beyond the limit": (pa.array([1e300, 1.0]), [1.0], {1: "number_out_of_range"}),
    "beyond a double": (pa.array(["1e999", "1"]), [1.0], {1: "number_out_of_range"}),
}


@pytest.mark.parametrize(("array", "expected", "reasons"), VALUES.values(), ids=VALUES.keys())
def test_values(array: pa.Array, expected: list[float | None], reasons: dict[int, str]) -> None:
    table, dialect = (
        pa.table({"u": ["a", "b"], "t": [1, 2], "v": array}),
        Dialect.mapping(user="u", time="t", value="v"),
    )
    decoded = decode(table, replace(dialect, strict=True))
    assert decoded.events["value"].to_pylist() == expected
    lenient = decode(table, dialect)
    assert [value for row, value in enumerate(lenient.events["value"].to_pylist(), 1) if row not in reasons] == expected
    assert lenient.nulled.get("value", 0) == len(reasons)
    assert not len(lenient.rejected)
    rejected = decoded.rejected
    assert dict(zip(rejected["line_number"].to_pylist(), rejected["reason"].to_pylist(), strict=True)) == reasons


def test_candidates_are_tried_row_by_row() -> None:
    table = pa.table(
        {
            "userId": ["a", None, None],
            "user_id": pa.array(["x", "b", None]).dictionary_encode(),
            "timestamp": [1, 2, 3],
            "pageUrl": pa.array([None, None, None], pa.string()),
            "page": [1, 2, 3],
        }
    )
    decoded = decode(table, DIALECTS["user-events"])
    assert decoded.events["user"].to_pylist() == ["a", "b"]
    assert decoded.events["page"].to_pylist() == ["1", "2"]
    assert decoded.events["event_type"].to_pylist() == [None, None]
    assert decoded.rejected["reason"].to_pylist() == ["missing_user"]


def test_a_column_may_be_called_like_a_path() -> None:
    decoded = decode(
        pa.table({"uuid": ["a"], "event_timestamp": ["7"], "event_details.event_type": ["x"]}), DIALECTS["clickstream"]
    )
    assert decoded.events["event_type"].to_pylist() == ["x"]


def test_structs_in_structs() -> None:
    table = pa.table({"a": [{"b": {"u": "x", "t": 5}}, {"b": None}, None]})
    decoded = decode(table, Dialect.mapping(user="a.b.u", time="a.b.t"))
    assert decoded.events.to_pylist() == [{"user": "x", "event_time_ms": 5}]
    assert decoded.rejected["reason"].to_pylist() == ["missing_user", "missing_user"]


def test_extras() -> None:
    table = pa.table(
        {
            "u": ["a", None, "c"],
            "t": [1, 2, 3],
            "flag": [True, None, False],
            "name": pa.array(["x", "y", "x"]).dictionary_encode(),
            "at": pa.array([0, 1, 2], pa.timestamp("us")),
            "d": [{"k": 1, "none": None}, None, None],
            "tags": [["x"], [], None],
            "page": [1, 2, 3],
            "nothing": pa.nulls(3),
        }
    )
    events = decode(table, extras=True).events
    assert events.column_names == ["user", "event_time_ms", "flag", "name", "at", "properties"]
    assert events["name"].type == pa.string()
    assert events["flag"].to_pylist() == [True, False]
    assert [json.loads(p) for p in events["properties"].to_pylist()] == [
        {"d": {"k": 1, "none": None}, "tags": ["x"], "page": 1},
        {"page": 3},
    ]


def test_only_the_columns_asked_for() -> None:
    table = pa.table({"u": ["a"], "t": [1], "p": ["x"]})
    dialect = Dialect.mapping(user="u", time="t", page="p")
    assert decode(table, dialect, columns=frozenset()).events.column_names == ["user", "event_time_ms"]
    layout = Layout.of(table.schema, dialect, source="f", columns=frozenset({"page"}), extras=False)
    assert layout.read == ["u", "t", "p"]


def test_no_rows() -> None:
    decoded = decode(pa.table({"u": pa.array([], pa.string()), "t": pa.array([], pa.int64())}))
    assert (decoded.events.num_rows, decoded.rejected.num_rows) == (0, 0)
    assert decoded.events["user"].type == DECODED_TYPES["user"]


@pytest.mark.parametrize(
    ("names", "dialect", "words"),
    [
        (["user", "time"], MINIMAL, ["'u'", "user, time"]),
        (["u", "v"], DIALECTS["clickstream"], ["--user FIELD --time FIELD --page FIELD", "'clickstream'"]),
        (["u", "v"], Dialect.mapping(user="u", time="t"), ["--user FIELD --time FIELD --page FIELD"]),
        (["uuid", "event_timestmp"], DIALECTS["clickstream"], ["the time", "did you mean 'event_timestmp'"]),
        (["UUID", "event_timestamp"], DIALECTS["clickstream"], ["the user", "did you mean 'UUID'"]),
        (["userid", "timestamp"], DIALECTS["user-events"], ["'userId' or 'user_id'", "did you mean 'userid'"]),
        (["u", "t"], Dialect.mapping(user="u", time="t", page="url"), ["the page", "'url'"]),
        ([], MINIMAL, ["the columns are: none"]),
    ],
)
def test_missing_columns_are_said_with_what_is_there(names: list[str], dialect: Dialect, words: list[str]) -> None:
    table = pa.table({name: ["1"] for name in names})
    with pytest.raises(InputError) as caught:
        decode(table, dialect)
    assert all(word in str(caught.value) for word in ["f: no column", *words])


def test_optional_columns_of_a_dialect_may_be_missing() -> None:
    decoded = decode(pa.table({"uuid": ["a"], "event_timestamp": [1]}), DIALECTS["clickstream"])
    assert decoded.events.select(["page", "event_id"]).to_pylist() == [{"page": None, "event_id": None}]
    assert decoded.events["page"].type == DECODED_TYPES["page"]


@pytest.mark.parametrize("column", [[{"x": "a"}], [["a"]]])
def test_objects_and_lists_are_no_values(column: list[object]) -> None:
    with pytest.raises(InputError, match="single values"):
        decode(pa.table({"u": column, "t": [1]}))


def test_a_column_that_occurs_twice() -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array(["b"])], names=["u", "t", "u"])
    with pytest.raises(InputError, match="twice"):
        decode(table)
