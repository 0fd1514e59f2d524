"""Arrays of records and records that span lines: read in any pieces, with the faults where they are."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionize.formats.dialects import Dialect
from sessionize.formats.json_lines import JsonLines
from sessionize.formats.json_stream.values import JsonValues

OWN = Dialect.mapping(user="u", time="t")
TOKENS = st.sampled_from([*'[]{},:"\n \\', '"u":"a"', '"t":1', '{"u":"a","t":1}'])
ODD = st.text(st.sampled_from('"\\[]{},: \nä'), max_size=5)


def decoded(text: bytes, step: int) -> tuple[list[str], list[tuple[int, str]]]:
    decoder = JsonValues(JsonLines(OWN))
    lines, line = text.splitlines(keepends=True), 1
    for at in range(0, len(lines), step):
        line += decoder.add(b"".join(lines[at : at + step]), source="s", first_line=line, at_start=at == 0)
    decoder.flush()
    found = decoder.take()
    rejected = [(row["line_number"], row["reason"]) for row in found.rejected.to_pylist()]
    return found.events["user"].to_pylist(), rejected


@settings(max_examples=150)
@given(
    st.lists(ODD.map(lambda text: {"u": f"x{text}", "t": 1, "more": [text, {"k": [text]}]}), max_size=5),
    st.sampled_from([None, 0, 1]),
    st.booleans(),
    st.integers(1, 4),
)
def test_records_are_read_in_any_pieces(
    records: list[dict[str, Any]], indent: int | None, lined: bool, step: int
) -> None:
    parts = [json.dumps(record, indent=indent, ensure_ascii=False) for record in records]
    text = "\n".join(parts) if lined else json.dumps(records, indent=indent, ensure_ascii=False)
    assert decoded(text.encode(), step) == ([record["u"] for record in records], [])


@pytest.mark.parametrize("step", [1, 2, 100])
@pytest.mark.parametrize(
    ("text", "users", "rejected"),
    [
        (b'[\n{"u":"a,\n"t":1},\n{"u":"c","t":3}\n]\n', ["c"], [(2, "invalid_json")]),
        (b'[\n{"u":"a","t":1,\n{"u":"b","t":2}]', ["b"], [(2, "invalid_json")]),
        (b'[{"u":"a","t":1}},\n{"u":"b","t":2}]', ["a", "b"], [(1, "invalid_json")]),
        (b'[{"u":"a","t":1},\n{"u":"b","t":2', ["a"], [(2, "invalid_json")]),
        (b'[{"u":"a","t":1},\n3,\n{"u":"b"}]', ["a"], [(2, "not_an_object"), (3, "missing_time")]),
        (b"[\n\n]", [], []),
    ],
)
def test_a_bad_record_costs_only_itself(text: bytes, users: list[str], rejected: list[Any], step: int) -> None:
    assert decoded(text, step) == (users, rejected)


@settings(max_examples=150)
@given(st.lists(TOKENS, max_size=25), st.integers(1, 3))
def test_any_text_ends(parts: list[str], step: int) -> None:
    text = "".join(parts).encode()
    users, rejected = decoded(text, step)
    assert len(users) + len(rejected) <= len(text)
    assert all(1 <= line <= text.count(b"\n") + 1 for line, _ in rejected)
