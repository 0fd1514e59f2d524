"""The dialects, each with a record as its producer writes it, and the user's own mapping."""

import json

import pytest

from sessionize.errors import ConfigError
from sessionize.formats.dialects import DIALECTS, EVENT_COLUMNS, PROFILE_DIALECTS, Dialect, dialect_named
from sessionize.formats.json_lines import JsonLines
from sessionize.formats.validation import DECODED_TYPES
from sessionize.session import columns

EXAMPLES = {
    "clickstream": (
        {
            "event_id": "1234-dfg21-56sda-092123",
            "page_name": "selection",
            "event_timestamp": "1790875556200",
            "booking_details": "",
            "uuid": "user-1234-5678-11223-33221",
            "event_details": {
                "event_name": "user-selection",
                "event_type": "user-action",
                "event_value": "card-1-selected",
            },
        },
        {
            "user": "user-1234-5678-11223-33221",
            "event_time_ms": 1790875556200,
            "event_id": "1234-dfg21-56sda-092123",
            "event_type": "user-action",
            "page": "selection",
        },
    ),
    "user-events": (
        {
            "eventId": "e1",
            "userId": "user-1",
            "eventType": "PURCHASE",
            "timestamp": 1790875556200,
            "pageUrl": "/checkout",
            "amount": 99.5,
        },
        {
            "user": "user-1",
            "event_time_ms": 1790875556200,
            "event_id": "e1",
            "event_type": "PURCHASE",
            "page": "/checkout",
            "value": 99.5,
        },
    ),
    "user_activity": (
        {
            "user_id": "u1",
            "event_time": "2026-09-30T12:00:00.500Z",
            "event_type": "session_start",
            "page_url": "/home",
        },
        {
            "user": "u1",
            "event_time_ms": 1790769600500,
            "event_type": "session_start",
            "page": "/home",
        },
    ),
    "clicks": (
        {"user_id": "u1", "timestamp": "2026-09-30 12:00:00", "url": "/a"},
        {"user": "u1", "event_time_ms": 1790769600000, "page": "/a"},
    ),
    "ecommerce": (
        {
            "event_id": "e1",
            "user_id": 17,
            "event_type": "purchase",
            "product_id": "PROD_001",
            "category": "shoes",
            "price": "19.90",
            "event_timestamp": "2026-09-30T12:00:00",
        },
        {
            "user": "17",
            "event_time_ms": 1790769600000,
            "event_id": "e1",
            "event_type": "purchase",
            "product": "PROD_001",
            "category": "shoes",
            "value": 19.9,
        },
    ),
}


@pytest.mark.parametrize("name", PROFILE_DIALECTS)
def test_a_record_of_each_dialect(name: str) -> None:
    record, expected = EXAMPLES[name]
    decoder = JsonLines(DIALECTS[name])
    decoder.add(json.dumps(record).encode(), source="f")
    decoded = decoder.take()
    assert decoded.events.to_pylist() == [expected]
    assert set(decoded.events.column_names) == DIALECTS[name].columns
    assert all(decoded.events[c].type == DECODED_TYPES[c] for c in decoded.events.column_names)


def test_the_first_candidate_that_is_there_wins() -> None:
    decoder = JsonLines(DIALECTS["user-events"])
    for record in [
        {"userId": "a", "user_id": "b", "timestamp": 1, "pageUrl": "/p", "page": "/q", "amount": 1, "value": 2},
        {"userId": None, "user_id": "b", "timestamp": 1, "pageUrl": None, "page": "/q", "value": 2},
        {"user_id": "b", "timestamp": 1},
    ]:
        decoder.add(json.dumps(record).encode(), source="f")
    events = decoder.take().events
    assert events["user"].to_pylist() == ["a", "b", "b"]
    assert events["page"].to_pylist() == ["/p", "/q", None]
    assert events["value"].to_pylist() == [1.0, 2.0, None]


def test_only_the_columns_asked_for_are_built() -> None:
    decoder = JsonLines(DIALECTS["clickstream"], columns=frozenset({"page", "value"}))
    assert decoder.columns == ("user", "event_time_ms", "page")
    assert decoder.take().events.column_names == ["user", "event_time_ms", "page"]


def test_canonical_names_are_those_of_the_session_layer() -> None:
    assert tuple(name for name in columns.EVENT_TYPES if name != columns.PROPERTIES) == EVENT_COLUMNS
    assert DECODED_TYPES.keys() == columns.EVENT_TYPES.keys()


def test_what_the_input_calls_the_user() -> None:
    assert DIALECTS["clickstream"].user_name == "uuid"
    assert Dialect.mapping(user="payload.visitor", time="t").user_name == "visitor"
    assert Dialect.mapping(user="visitor", time="t").user_name == "visitor"


def test_conversions() -> None:
    assert DIALECTS["clickstream"].conversion_events == ("booking",)
    assert "PURCHASE" in DIALECTS["user-events"].conversion_events
    assert Dialect.mapping(user="u", time="t", conversion_events=("won",)).conversion_events == ("won",)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("clickstreem", "clickstream"), ("user_events", "user-events"), ("User Activity", "user_activity")],
)
def test_did_you_mean(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dialect_named(typed)
    assert f"did you mean {meant!r}" in str(caught.value)
    assert repr(typed) in str(caught.value)


def test_a_name_like_no_other() -> None:
    with pytest.raises(ConfigError) as caught:
        dialect_named("xyz")
    assert "did you mean" not in str(caught.value)
    assert "ecommerce" in str(caught.value)


@pytest.mark.parametrize("name", DIALECTS)
def test_known_names(name: str) -> None:
    assert dialect_named(name).name == name


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b"])
def test_paths_with_empty_parts_are_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="empty part"):
        Dialect.mapping(user="u", time="t", page=path)


def test_unknown_time_format() -> None:
    with pytest.raises(ConfigError, match="time format"):
        Dialect.mapping(user="u", time="t", time_format="minutes")


def test_a_field_cannot_be_a_value_and_an_object() -> None:
    with pytest.raises(ConfigError) as caught:
        JsonLines(Dialect.mapping(user="user", time="t", page="user.page"))
    assert "user.page" in str(caught.value)


def test_one_field_for_two_columns() -> None:
    decoder = JsonLines(Dialect.mapping(user="u", time="t", page="name", event_type="name", event_id="t"))
    decoder.add(b'{"u":"a","t":"5","name":"x"}\n{"u":"a","t":6,"name":"y"}', source="f")
    rows = decoder.take().events.to_pylist()
    assert rows == [
        {"user": "a", "event_time_ms": 5, "event_id": "5", "event_type": "x", "page": "x"},
        {"user": "a", "event_time_ms": 6, "event_id": "6", "event_type": "y", "page": "y"},
    ]


def test_names_that_are_no_identifiers() -> None:
    decoder = JsonLines(Dialect.mapping(user="the user", time="@t", page="class.1.ü-ber", event_type="user"))
    decoder.add('{"the user":"a","@t":1,"class":{"1":{"ü-ber":"p"}},"user":"x"}'.encode(), source="f")
    expected = {"user": "a", "event_time_ms": 1, "event_type": "x", "page": "p"}
    assert decoder.take().events.to_pylist() == [expected]
