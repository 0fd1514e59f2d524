"""Records one by one decode as lines do: the same events, the same reasons, and nothing is lost."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.connectors.generator import GeneratorSettings
from sessionize.connectors.generator.stream import Stream
from sessionize.formats.dialects import DIALECTS
from sessionize.formats.json_lines import JsonLines
from sessionize.formats.records import JsonRecords

CLICKS = DIALECTS["clicks"]
GOOD = b'{"user_id":"u","timestamp":1767571200000,"url":"/"}'


def decoded(values, *, latest_ms=None, first=100, records=None):
    records = records or JsonRecords(CLICKS)
    return records.decode(values, np.arange(first, first + len(values)), source="t[3]", latest_ms=latest_ms)


def rejected(values, **options):
    rows = decoded(values, **options).rejected.to_pylist()
    return [(row["line_number"], row["raw"], row["reason"]) for row in rows]


def test_values_become_events_in_their_order():
    values = [json.dumps({"user_id": f"u{n}", "timestamp": n, "url": "/"}).encode() for n in range(50)]
    found = decoded(values)
    assert found.events["event_time_ms"].to_pylist() == list(range(50))
    assert found.events["user"].to_pylist() == [f"u{n}" for n in range(50)]
    assert found.rejected.num_rows == 0


def test_the_same_as_lines_for_every_kind_of_broken_record():
    settings = GeneratorSettings(profile="clicks", users=50, events=3_000, broken_fraction=0.5, seed=5)
    values = [line[:-1] for block in Stream(settings).blocks() for line in block.lines.to_pylist()]
    lines = JsonLines(CLICKS, latest_ms=settings.start_ms + 10**9)
    lines.add(b"\n".join(values) + b"\n", source="t[3]", first_line=100)
    expected = lines.take()
    found = decoded(values, latest_ms=settings.start_ms + 10**9)
    assert found.events.to_pylist() == expected.events.to_pylist()
    assert found.rejected.equals(expected.rejected)
    assert len(found.rejected) > 1_000


def test_null_and_empty_values_are_rejected_where_they_stood():
    values = [None, GOOD, b"", b" \t\r\n", GOOD, b"\n", None]
    assert rejected(values) == [
        (100, None, "null_value"),
        (102, b"", "empty_value"),
        (103, b" \t\r\n", "empty_value"),
        (105, b"\n", "empty_value"),
        (106, None, "null_value"),
    ]
    assert decoded(values).events.num_rows == 2
    assert rejected([]) == []
    assert rejected([None]) == [(100, None, "null_value")]


@pytest.mark.parametrize(
    "value",
    [GOOD + b"\n", b"\n" + GOOD, GOOD.replace(b",", b",\n"), GOOD.replace(b":", b":\n\n").replace(b"}", b"\r\n}")],
)
def test_line_feeds_between_the_parts_of_a_value_do_not_matter(value):
    found = decoded([GOOD, value, GOOD])
    assert found.rejected.num_rows == 0
    assert found.events.to_pylist() == [decoded([GOOD]).events.to_pylist()[0]] * 3


def test_two_values_in_one_record_and_a_line_feed_in_a_string_stay_wrong():
    values = [GOOD + b"\n" + GOOD, GOOD.replace(b'"u"', b'"u\nu"'), GOOD]
    assert rejected(values) == [(100, values[0], "invalid_json"), (101, values[1], "invalid_json")]


def test_a_value_that_is_too_large_is_cut_and_harms_no_other():
    large = b'{"user_id":"' + b"x" * 100_000 + b'\n"}'
    records = JsonRecords(CLICKS, value_bytes_max=1_000)
    assert rejected([GOOD, large, GOOD], records=records) == [(101, large[:65_536], "too_large")]


def test_the_future_guard_holds_for_one_call():
    records = JsonRecords(CLICKS)
    assert rejected([GOOD], latest_ms=0, records=records) == [(100, GOOD, "future_timestamp")]
    assert rejected([GOOD], latest_ms=None, records=records) == []


def test_offsets_may_have_gaps():
    found = JsonRecords(CLICKS).decode([b"x", GOOD, b"y"], np.array([5, 90, 10**12]), source="t[0]", latest_ms=None)
    assert found.rejected["line_number"].to_pylist() == [5, 10**12]
    assert found.rejected["source"].to_pylist() == ["t[0]"] * 2


PIECES = [None, b"", b"\n", b" ", GOOD, GOOD + b"\n", GOOD.replace(b",", b",\n"), b"nonsense", b"\xff", b"{}", b"[1]"]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=12)), max_size=40))
def test_every_record_is_an_event_or_rejected_with_its_own_bytes(values):
    found = decoded(values)
    assert found.events.num_rows + found.rejected.num_rows == len(values)
    assert all(row["raw"] == values[row["line_number"] - 100] for row in found.rejected.to_pylist())
    alone = [decoded([value], first=100 + n) for n, value in enumerate(values)]
    assert found.rejected.to_pylist() == [row for one in alone for row in one.rejected.to_pylist()]
    assert found.events.num_rows == sum(one.events.num_rows for one in alone)
    assert found.events.schema.types[0] == pa.string()
