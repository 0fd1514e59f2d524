"""The quick road and the line-by-line road mean the same, however the bytes are cut into pieces."""

import io
import json

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from sessionize.formats.dialects import DIALECTS, Dialect
from sessionize.formats.json_lines import JsonLines
from sessionize.formats.lines import LineIndex, Lines, LongLine, pieces

OWN = Dialect.mapping(user="user", time="time", event_id="id", event_type="details.type", page="page", value="amount")
OTHERS = [DIALECTS["user-events"], DIALECTS["clickstream"]]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([1.0, -0.0, 1e300, 1.5]),
    st.text(max_size=5),
    st.sampled_from(["", " ", "12", "-7", "1.0", "1e3", "2024-01-01", "2024-01-01T00:00:00.123Z", "null", "true"]),
)
values = st.one_of(scalars, st.lists(scalars, max_size=2), st.dictionaries(st.text(max_size=3), scalars, max_size=2))
plain_times = st.one_of(
    st.integers(0, 10**13), st.sampled_from([10**12, 10**12 + 1, 2 * 10**14, 10**15, -(10**18), 0, -1])
)
times = st.one_of(plain_times, plain_times.map(str), plain_times, values)
users = st.one_of(st.sampled_from(["ann", "bob", 17]), values)
names = st.sampled_from(["user", "time", "page", "id", "amount", "userId", "user_id", "timestamp", "uuid", "x", ""])
records = st.one_of(
    st.fixed_dictionaries(
        {"user": users, "time": times},
        optional={
            "page": values,
            "id": values,
            "amount": values,
            "details": st.one_of(values, st.fixed_dictionaries({"type": values})),
            "x": values,
        },
    ),
    st.fixed_dictionaries({"userId": users, "timestamp": times}, optional={"user_id": users, "value": values}),
    st.dictionaries(names, values, max_size=5),
)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=20)).replace(b"\n", b"")
    if kind == 1:
        return draw(st.sampled_from([b"", b"\r", b"{}", b"}", b"{", b'{"user":"u",', b'"time":1}', b'{"time":1}{}']))
    text = json.dumps(draw(records), ensure_ascii=draw(st.booleans()))
    line = text.encode("utf-8", "surrogatepass")
    if kind == 2:
        return line[: draw(st.integers(0, len(line)))]
    if kind == 3:
        place = draw(st.integers(0, len(line)))
        return line[:place] + draw(st.sampled_from([b"\xff", b"\x00", b"{", b"}", b" ", b"\r", b'"'])) + line[place:]
    return line


files = st.lists(lines(), max_size=12).map(b"\n".join)


class LineByLine(JsonLines):
    """Never takes the quick road."""

    __slots__ = ()

    def _decode_whole(self, lines: LineIndex) -> None:
        return None


def decoded_by(decoder: JsonLines, data: bytes, *, piece_bytes: int = 1 << 20) -> tuple[pa.Table, pa.Table]:
    line = 1
    for piece in pieces(io.BytesIO(data), piece_bytes=piece_bytes):
        assert isinstance(piece, Lines)
        line += decoder.add(piece.data, source="f", first_line=line)
    decoded = decoder.take()
    return decoded.events, decoded.rejected


@given(files, st.sampled_from([OWN, *OTHERS]), st.booleans(), st.sampled_from([None, 10**12]))
def test_quick_equals_line_by_line(data: bytes, dialect: Dialect, extras: bool, latest_ms: int | None) -> None:
    options = {"extras": extras, "latest_ms": latest_ms}
    quick_events, quick_rejected = decoded_by(JsonLines(dialect, **options), data)
    events, rejected = decoded_by(LineByLine(dialect, **options), data)
    assert quick_events.equals(events)
    assert quick_rejected.equals(rejected)


@given(st.lists(st.fixed_dictionaries({"user": st.just("u"), "time": plain_times}), max_size=4))
def test_quick_equals_line_by_line_where_all_times_are_numbers(many: list[dict[str, object]]) -> None:
    data = b"".join(json.dumps(record).encode() + b"\n" for record in many)
    quick = decoded_by(JsonLines(OWN, latest_ms=10**12), data)
    slow = decoded_by(LineByLine(OWN, latest_ms=10**12), data)
    assert quick[0].equals(slow[0])
    assert quick[1].equals(slow[1])
    assert quick[0]["event_time_ms"].to_pylist() == [r["time"] for r in many if -(10**14) < r["time"] <= 10**12]


@given(st.lists(records, min_size=1, max_size=8), st.sampled_from([OWN, *OTHERS]))
def test_quick_equals_line_by_line_where_every_line_is_json(many: list[dict[str, object]], dialect: Dialect) -> None:
    data = b"".join(json.dumps(record).encode() + b"\n" for record in many)
    quick, slow = decoded_by(JsonLines(dialect), data), decoded_by(LineByLine(dialect), data)
    assert quick[0].equals(slow[0])
    assert quick[1].equals(slow[1])


@given(files, st.integers(1, 60))
def test_the_cut_into_pieces_does_not_matter(data: bytes, piece_bytes: int) -> None:
    whole = decoded_by(JsonLines(OWN), data)
    cut = decoded_by(JsonLines(OWN), data, piece_bytes=piece_bytes)
    assert cut[0].equals(whole[0])
    assert cut[1].equals(whole[1])


@given(files)
def test_every_line_is_an_event_or_a_reject_or_blank(data: bytes) -> None:
    events, rejected = decoded_by(JsonLines(OWN), data)
    blank = sum(not line.strip(b" \t\r") for line in data.split(b"\n"))
    assert events.num_rows + rejected.num_rows + blank == len(data.split(b"\n"))
    numbers = rejected["line_number"].to_pylist()
    assert numbers == sorted(set(numbers))
    texts = data.split(b"\n")
    assert rejected["raw"].to_pylist() == [texts[number - 1] for number in numbers]


@given(st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=8))
def test_dictionaries_hold_each_value_once(pages: list[str | None]) -> None:
    decoder = JsonLines(OWN)
    for page in pages:
        decoder.add(json.dumps({"user": "u", "time": 1, "page": page}).encode(), source="f")
    page = decoder.take().events["page"].combine_chunks()
    assert page.to_pylist() == pages
    assert page.type == pa.dictionary(pa.int32(), pa.string())
    assert sorted(page.dictionary.to_pylist()) == sorted({p for p in pages if p is not None})


def test_the_quick_decoder_comes_back_after_a_stretch_of_other_times() -> None:
    decoder = JsonLines(OWN)
    iso = b'{"user":"u","time":"2024-01-01T00:00:00Z"}\n' * 3
    numbers = b'{"user":"u","time":1}\n' * 3
    for data in [iso] * 5 + [numbers] * 40 + [iso]:
        decoder.add(data, source="f")
    decoded = decoder.take()
    assert decoded.events["event_time_ms"].to_pylist() == [1704067200000] * 15 + [1] * 120 + [1704067200000] * 3
    assert decoded.rejected.num_rows == 0


@given(st.lists(st.integers(0, 200), max_size=20), st.booleans())
def test_line_index(sizes: list[int], ended: bool) -> None:
    texts = [b"x" * size for size in sizes]
    data = b"\n".join(texts) + b"\n" * (ended and bool(texts))
    index = LineIndex(memoryview(data))
    expected = texts if ended or not texts or texts[-1] else texts[:-1]
    assert [bytes(index[line]) for line in range(len(index))] == expected
    assert index.longest == max(map(len, expected), default=0)


@given(st.binary(max_size=300))
def test_utf8_is_told_like_python_does(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        assert not LineIndex(memoryview(data)).is_utf8()
    else:
        assert LineIndex(memoryview(data)).is_utf8()


@given(st.lists(st.integers(0, 40), max_size=15), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_long_lines_are_never_held(sizes: list[int], piece_bytes: int, line_bytes_max: int, ended: bool) -> None:
    texts = [bytes([97 + n % 26]) * size for n, size in enumerate(sizes)]
    data = b"\n".join(texts) + b"\n" * (ended and bool(texts))
    seen: list[bytes] = []
    for piece in pieces(io.BytesIO(data), piece_bytes=piece_bytes, line_bytes_max=line_bytes_max):
        if isinstance(piece, LongLine):
            assert piece.size_bytes > line_bytes_max
            assert len(piece.head) <= max(piece_bytes, line_bytes_max + 1)
            seen.append(piece.head[:1] * piece.size_bytes + b"\n" * piece.ended)
        else:
            assert len(piece.data) <= max(piece_bytes, line_bytes_max + 1)
            assert piece.ended == bytes(piece.data).endswith(b"\n")
            seen.append(bytes(piece.data))
    assert b"".join(seen) == data
