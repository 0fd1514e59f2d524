"""Arrays of records and records that span lines: read in any pieces, with the faults where they are."""

import io
import json
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionize.connectors.files.source_text import feed
from sessionize.formats.content.compressed import DecompressedStream, truncated
from sessionize.formats.dialects import Dialect
from sessionize.formats.json_lines import JsonLines
from sessionize.formats.json_stream.values import JsonValues
from sessionize.formats.lines import LINE_BYTES_MAX, Readable
from sessionize.formats.rejects import Fault

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


def cut_anywhere(text: bytes, step: int, *, value_bytes_max: int) -> tuple[list[str], list[tuple[int, str]]]:
    decoder, line = JsonValues(JsonLines(OWN), value_bytes_max=value_bytes_max), 1
    for at in range(0, len(text), step):
        line += decoder.add(text[at : at + step], source="s", first_line=line, at_start=at == 0)
    decoder.flush()
    found = decoder.take()
    rejected = [(row["line_number"], row["reason"]) for row in found.rejected.to_pylist()]
    return found.events["user"].to_pylist(), rejected


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.booleans(), ODD), max_size=5), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 90)
)
def test_what_is_nested_in_a_record_that_is_too_large_is_no_record(
    records: list[tuple[bool, str]], indent: int | None, lined: bool, step: int
) -> None:
    """Records lie anywhere in the pieces, as in an array on one line; only the large ones are rejected."""
    nested = [{"u": "nested", "t": n, "pad": ['\\"]}' * 9]} for n in range(9)]
    rows = [{"u": f"x{text}", "t": 1, "more": nested if large else []} for large, text in records]
    parts = [json.dumps(row, indent=indent, ensure_ascii=False) for row in rows]
    text = "\n".join(parts) if lined else json.dumps(rows, indent=indent, ensure_ascii=False)
    users, rejected = cut_anywhere(text.encode(), step, value_bytes_max=300)
    assert users == [row["u"] for row, (large, _) in zip(rows, records, strict=True) if not large]
    assert [reason for _, reason in rejected] == ["too_large"] * sum(large for large, _ in records)


def test_a_large_text_or_number_in_an_array_costs_only_itself() -> None:
    text = b'["' + b'a\\"' * 200 + b'",{"u":"a","t":1},' + b"1" * 500 + b'\n,\n{"u":"b","t":1}]'
    assert cut_anywhere(text, 7, value_bytes_max=300) == (["a", "b"], [(1, "too_large"), (1, "too_large")])


class Torn(io.BytesIO):
    read_bytes = 1
    fault: Fault | None = None


def test_an_array_on_one_line_may_be_larger_than_a_line_may_be() -> None:
    text = b"[" + b",".join([b'{"u":"a","t":1,"pad":"' + b"x" * 100_000 + b'"}'] * 90) + b"]"
    assert len(text) > LINE_BYTES_MAX
    decoder = JsonValues(JsonLines(OWN))
    list(feed(cast(Readable, io.BytesIO(text)), decoder, source="s"))
    found = decoder.take()
    assert (len(found.events), len(found.rejected)) == (90, 0)


def test_of_a_torn_array_the_cut_record_is_the_rejected_one() -> None:
    torn = Torn(b'[{"u":"a","t":1},\n{"u":"b","t":2},\n{"u":"c",')
    torn.fault = truncated("xz", 1)
    decoder = JsonValues(JsonLines(OWN))
    list(feed(cast(Readable, torn), decoder, source="s", damage=cast(DecompressedStream, torn)))
    found = decoder.take()
    assert len(found.events) == 2
    (rejected,) = found.rejected.to_pylist()
    assert (rejected["raw"], rejected["line_number"]) == (b'{"u":"c"', 3)


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
