"""CSV: with and without quotes, in pieces of any size, and with every kind of bad line."""

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.errors import InputError
from sessionize.formats.csv_text.decoder import CsvLines
from sessionize.formats.csv_text.parser import CsvPiece, CsvRows
from sessionize.formats.dialects import Dialect
from sessionize.formats.input_format import InputFormat
from sessionize.formats.lines import LineIndex, Lines, pieces
from sessionize.formats.validation import Decoded

OWN = Dialect.mapping(user="u", time="t", page="p")
HEADER = b"u,t,p,x"


def decode(data: bytes, *, header: bytes = HEADER, piece_bytes: int = 1 << 20, dialect=OWN, **options) -> Decoded:
    decoder = CsvLines(header, dialect, source="f", **options)
    line = 2
    for piece in pieces(io.BytesIO(data), piece_bytes=piece_bytes):
        assert isinstance(piece, Lines)
        line += decoder.add(piece.data, source="f", first_line=line)
    decoder.flush()
    return decoder.take()


def test_plain_rows() -> None:
    decoded = decode(b"a,1,/x,1\r\nb,1970-01-01T00:00:00.002Z,,\n\n\r\n 7 ,3,/y,2", extras=True)
    assert decoded.events.to_pylist() == [
        {"user": "a", "event_time_ms": 1, "page": "/x", "x": "1"},
        {"user": "b", "event_time_ms": 2, "page": None, "x": None},
        {"user": " 7 ", "event_time_ms": 3, "page": "/y", "x": "2"},
    ]
    assert decoded.rejected.num_rows == 0


def test_quoted_rows() -> None:
    decoded = decode(b'"a, b",1,"say ""hi""",1\n"c\nd","2","/x",""\n"",3,p,1\r\ne,"4",p"q,1\n')
    assert decoded.events.to_pylist() == [
        {"user": "a, b", "event_time_ms": 1, "page": 'say "hi"'},
        {"user": "c\nd", "event_time_ms": 2, "page": "/x"},
        {"user": "e", "event_time_ms": 4, "page": 'p"q'},
    ]
    assert decoded.rejected.to_pylist() == [
        {
            "raw": b'"",3,p,1\r',
            "source": "f",
            "line_number": 5,
            "reason": "missing_user",
            "detail": "the user (u) is missing or null",
        }
    ]


GOOD = b"g,1,p,x"
QUOTED = b'"h",2,"p",x'
BAD = {
    "one column too few": (b"a,1,p", "wrong_column_count"),
    "one column too many": (b"a,1,p,x,y", "wrong_column_count"),
    "one word": (b"a", "wrong_column_count"),
    "only delimiters": (b",,,", "missing_user"),
    "spaces": (b"  ", "wrong_column_count"),
    "not UTF-8": (b"J\xfcrgen,1,p,x", "invalid_utf8"),
    "not UTF-8 in a column that is not read": (b"a,1,p,\xff", "invalid_utf8"),
    "no user": (b",1,p,x", "missing_user"),
    "blank user": (b" ,1,p,x", "empty_user"),
    "long user": (b"u" * 1025 + b",1,p,x", "user_too_long"),
    "no time": (b"a,,p,x", "missing_time"),
    "bad time": (b"a,soon,p,x", "invalid_time"),
    "time out of range": (b"a,1e300,p,x", "time_out_of_range"),
    "stray quote that never closes": (b'"a,1,p,x', "invalid_csv"),
    "stray quote in the last column": (b'a,1,p,"x', "invalid_csv"),
    "a lone carriage return": (b"a,1,p,x\rb,2,q,y", "invalid_csv"),
    "JSON": (b'{"u":"a","t":1}', "wrong_column_count"),
    "NUL bytes": (b"\x00\x00", "wrong_column_count"),
    "too large": (b"a,1,p," + b"x" * 100_000, "too_large"),
    "too large in quotes": (b'a,1,p,"' + b"x" * 100_000 + b'"', "too_large"),
}


@pytest.mark.parametrize("good", [GOOD, QUOTED], ids=["among plain rows", "among quoted rows"])
@pytest.mark.parametrize(("line", "reason"), BAD.values(), ids=BAD.keys())
def test_a_bad_line_is_rejected_alone(line: bytes, reason: str, good: bytes) -> None:
    decoded = decode(b"\n".join([good, line, good, b"", good]), line_bytes_max=90_000)
    assert decoded.events.num_rows == 3
    (record,) = decoded.rejected.to_pylist()
    assert (record["reason"], record["line_number"]) == (reason, 3)
    assert record["raw"] == (line[:65_536] if reason == "too_large" else line)
    assert len(record["detail"]) < 300


@pytest.mark.parametrize(("line", "reason"), BAD.values(), ids=BAD.keys())
def test_a_bad_line_is_rejected_when_it_comes_last(line: bytes, reason: str) -> None:
    decoded = decode(b"\n".join([GOOD, line]), line_bytes_max=90_000)
    assert decoded.events.num_rows == 1
    assert decoded.rejected["reason"].to_pylist() == [reason]


def test_all_bad_lines_at_once() -> None:
    lines = [line for line, _ in BAD.values()]
    decoded = decode(b"\n".join(part for line in lines for part in (line, GOOD)), line_bytes_max=90_000)
    assert decoded.events.num_rows == len(lines)
    assert decoded.rejected["raw"].to_pylist() == [line[:65_536] if len(line) > 90_000 else line for line in lines]
    assert decoded.rejected["line_number"].to_pylist() == [2 * n + 2 for n in range(len(lines))]


def test_a_row_over_several_lines_that_is_bad_is_rejected_whole() -> None:
    decoded = decode(b'g,1,p,x\n"a\nb","never",p,x\ng,2,p,x\n')
    assert decoded.events.num_rows == 2
    (record,) = decoded.rejected.to_pylist()
    assert (record["raw"], record["line_number"], record["reason"]) == (b'"a\nb","never",p,x', 3, "invalid_time")


@pytest.mark.parametrize("piece_bytes", [1, 30, 1 << 20])
def test_a_lone_carriage_return_costs_one_record_however_many_lines_it_has(piece_bytes: int) -> None:
    data = b'g,1,p,x\na,1,"p\n\nq",x\ry\ng,2,p,x\na\rb,1,"p\nq",x\ng,3,p,x\n'
    decoded = decode(data, piece_bytes=piece_bytes)
    assert decoded.events["event_time_ms"].to_pylist() == [1, 2, 3]
    assert decoded.rejected["reason"].to_pylist() == ["invalid_csv"] * 2
    assert decoded.rejected["line_number"].to_pylist() == [3, 7]


def test_fields_may_be_longer_than_pythons_own_limit() -> None:
    before = csv.field_size_limit()
    page = "x" * 500_000
    assert decode(f'a,1,"{page}",x\n'.encode()).events["page"].to_pylist() == [page]
    assert csv.field_size_limit() == before


fields = st.text(st.sampled_from('ab,"\n\r é'), max_size=4)
rows = st.lists(st.tuples(fields, fields), min_size=1, max_size=8)


@given(rows, st.integers(1, 50), st.sampled_from(["\n", "\r\n"]))
def test_what_python_writes_comes_back(many: list[tuple[str, str]], piece_bytes: int, end: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    if end == "\n":  # then Python writes a lone carriage return without quotes, and does not read it again itself
        many = [(page.replace("\r", ""), other.replace("\r", "")) for page, other in many]
    for n, (page, other) in enumerate(many):
        writer.writerow(["u", n, page, other])
    decoded = decode(text.getvalue().encode(), piece_bytes=piece_bytes, extras=True)
    assert decoded.rejected.to_pylist() == []
    assert decoded.events["event_time_ms"].to_pylist() == list(range(len(many)))
    assert decoded.events["page"].to_pylist() == [page or None for page, _ in many]
    assert decoded.events["x"].to_pylist() == [other or None for _, other in many]


@given(rows, st.integers(1, 50))
def test_what_python_writes_with_a_lone_carriage_return_is_counted(many: list[tuple[str, str]], piece_bytes: int):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(["u", n, page, other] for n, (page, other) in enumerate(many))
    decoded = decode(text.getvalue().encode(), piece_bytes=piece_bytes)
    assert decoded.events.num_rows + decoded.rejected.num_rows == len(many)


lines = st.lists(st.text(st.sampled_from('a,,,"\r '), max_size=9) | st.just("a,1,p,x"), max_size=8)


def each_road(data: bytes) -> list[CsvPiece]:
    reader = CsvRows(["u", "t", "p", "x"], delimiter=",", read=["u", "t", "p", "x"], line_bytes_max=1000)
    index = LineIndex(memoryview(data))
    roads: list[CsvPiece | None] = [reader._line_by_line(index, final=True), reader.parse(index, final=True)]
    if b'"' not in data:
        roads.append(reader._without_quotes(index))
    if len(index):
        roads.append(reader._row_by_line(index))
    return [road for road in roads if road is not None]


@given(lines)
def test_all_roads_mean_the_same(texts: list[str]) -> None:
    first, *others = each_road("\n".join(texts).encode())
    for other in others:
        assert other.table.equals(first.table)
        assert (other.first.tolist(), other.last.tolist()) == (first.first.tolist(), first.last.tolist())
        assert {line: fault.reason for line, fault in other.faults.items()} == {
            line: fault.reason for line, fault in first.faults.items()
        }


@given(lines, st.integers(1, 40))
def test_the_cut_into_pieces_does_not_matter(texts: list[str], piece_bytes: int) -> None:
    data = "\n".join(texts).encode()
    whole, cut = decode(data, extras=True), decode(data, extras=True, piece_bytes=piece_bytes)
    assert cut.events.equals(whole.events)
    assert cut.rejected.equals(whole.rejected)


def test_tabs() -> None:
    decoded = decode(b"a,b\t1\tp\tx\n", header=HEADER.replace(b",", b"\t"), delimiter="\t")
    assert decoded.events["user"].to_pylist() == ["a,b"]


def test_headers_are_forgiving() -> None:
    decoded = decode(
        b"a,1,2,3,4\n", header=b'\xef\xbb\xbf u ,"t",x,x,\r', dialect=Dialect.mapping(user="u", time="t"), extras=True
    )
    assert decoded.events.column_names == ["user", "event_time_ms", "x", "x_4", "column_5"]


@pytest.mark.parametrize("header", [b"\xffu,t", b'"u,t'])
def test_headers_that_cannot_be_read(header: bytes) -> None:
    with pytest.raises(InputError, match="header"):
        decode(b"", header=header)


def test_a_missing_column_names_what_is_there() -> None:
    with pytest.raises(InputError) as caught:
        decode(b"", header=b"usr,t,p")
    assert "usr, t, p" in str(caught.value)
    assert "did you mean 'usr'" not in str(caught.value)


def test_nothing_at_all_still_has_columns() -> None:
    decoded = decode(b"")
    assert decoded.events.column_names == ["user", "event_time_ms", "page"]
    assert decoded.events.num_rows == decoded.rejected.num_rows == 0
    assert decoded.events["user"].type == pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_a_line_that_begins_like_a_comment_is_text_within_quotes(step: int) -> None:
    lines = [b'# "odd\n', b'a,1,"x\n', b'# y"\n', b"# z\n", b"b,2,z\n", b"c,bad,z\n"]
    decoder = CsvLines(
        b"u,t,p\n", Dialect.mapping(user="u", time="t", page="p"), source="s", input_format=InputFormat(comment="#")
    )
    for at in range(0, len(lines), step):
        decoder.add(b"".join(lines[at : at + step]), source="s", first_line=2 + at)
    decoder.flush()
    decoded = decoder.take()
    assert decoded.events["page"].to_pylist() == ["x\n# y", "z"]
    assert decoded.rejected["line_number"].to_pylist() == [7]
