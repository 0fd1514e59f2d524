"""Damaged archives and odd text in every format option: no crash, no hang, and every record is an event or rejected."""

import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sessionize.errors import InputError
from sessionize.formats.input_format import InputFormat
from tests.connectors.files.reading import read, times
from tests.connectors.files.test_files_opening import COMPRESSIONS, zipped

DAMAGES = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "drop", "repeat", "insert"]), st.floats(0, 1), st.binary(max_size=4)),
    max_size=3,
)
# No quotes: without them a line is a record, so that records can be counted by looking.
PLAIN = st.text(st.characters(exclude_characters='"\r\n\0', exclude_categories=("Cs", "Zl", "Zp")), max_size=12)

CELLS = st.one_of(PLAIN, PLAIN.map(lambda text: f"#{text}"), st.sampled_from(["", "u1", "1", "1.5", "#", " "]))


def damaged(data: bytes, damages: list[tuple[str, float, bytes]]) -> bytes:
    for kind, share, new in damages:
        at = int(share * max(len(data) - 1, 0))
        match kind:
            case "flip":
                data = data[:at] + bytes(255 - byte for byte in data[at : at + 1]) + data[at + 1 :]
            case "cut":
                data = data[:at]
            case "drop":
                data = data[:at] + data[at + 9 :]
            case "repeat":
                data = data[: at + 9] + data[at:]
            case _:
                data = data[:at] + new + data[at:]
    return data


@pytest.mark.parametrize("ending", COMPRESSIONS)
@settings(max_examples=40)
@given(count=st.integers(0, 1000), damages=DAMAGES)
def test_damaged_archives(ending: str, count: int, damages: list[tuple[str, float, bytes]]) -> None:
    text = b"".join(b'{"u":"u%d","t":%d,"p":"/%d"}\n' % (n % 7, n, n * n % 9973) for n in range(count))
    whole = zipped(text, "a.ndjson", "b.ndjson") if ending == ".zip" else COMPRESSIONS[ending](text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a.ndjson{ending}")
        path.write_bytes(damaged(whole, damages))
        try:
            events, rejected, batches = read(path)
        except InputError:
            assert damages, "a whole archive is refused"
            return
    assert sum(batch.consumed for batch in batches) == len(events) + len(rejected) + lost(batches)
    if not damages:
        assert (len(events), len(rejected)) == (count * (2 if ending == ".zip" else 1), 0)
    if len(events) and ending == ".gz" and all(kind == "cut" for kind, _, _ in damages):
        assert times(events) == list(range(len(events)))


def lost(batches: list) -> int:  # type: ignore[type-arg]
    return sum(sum(batch.lost.values()) for batch in batches)


@settings(max_examples=150)
@given(
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=12),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "latin-1", "cp1252"]),
    decimal=st.sampled_from([None, ",", "."]),
    comment=st.sampled_from([None, "#"]),
    has_header=st.booleans(),
    damage=st.binary(max_size=3),
)
def test_any_text_as_csv(
    rows: list[list[str]],
    delimiter: str,
    encoding: str,
    decimal: str | None,
    comment: str | None,
    has_header: bool,
    damage: bytes,
) -> None:
    assume(b"\n" not in damage and b"\r" not in damage and b'"' not in damage and b"\0" not in damage)
    assume(rows or not (has_header and damage))
    body = [delimiter.join(row) for row in rows]
    text = "\n".join((["u" + delimiter + "t" + delimiter + "p"] if has_header else []) + body)
    data = text.encode(encoding, "replace") + (b"" if encoding == "utf-16" else damage)
    given_format = InputFormat(
        format="csv",
        delimiter=delimiter,
        encoding=None if encoding in ("utf-8", "utf-16") else encoding,
        decimal=decimal,
        comment=comment,
        columns=() if has_header else ("u", "t", "p"),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.csv")
        path.write_bytes(data)
        events, rejected, _ = read(path, input_format=given_format)
    found = text.split("\n")[1 if has_header else 0 :]
    if damage and encoding != "utf-16":
        found[-1] += "?"
    records = [line for line in found if line and not (comment and line.startswith(comment))]
    assert len(events) + len(rejected) == len(records), list(itertools.islice(records, 5))
