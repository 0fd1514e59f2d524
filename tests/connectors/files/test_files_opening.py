"""Inputs are opened by their content: compression, format, encoding and delimiter, whatever the name says."""

import bz2
import gzip
import io
import logging
import lzma
import os
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from sessionize.connectors.files.source import FileSource
from sessionize.errors import ConfigError, InputError
from sessionize.formats.dialects import Dialect
from sessionize.formats.input_format import InputFormat
from tests.connectors.files.reading import OWN, lines, read, times

CSV = b"u,t,p\na,1,/x\nb,2,/y\n"


def zstd(data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return out.getvalue().to_pybytes()


def zipped(data: bytes, *names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("a.csv",):
            archive.writestr(name, data)
    return out.getvalue()


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstd,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zip": zipped,
}


@pytest.mark.parametrize("name", ["a.csv", "a.CSV{}", "a{}", "a.txt", "a.ndjson.wrong", "a.csv.gz"])
@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_compression_by_content(tmp_path: Path, ending: str, name: str) -> None:
    path = tmp_path / name.format(ending)
    path.write_bytes(COMPRESSIONS[ending](CSV))
    events, rejected, batches = read(path)
    assert times(events) == [1, 2]
    assert not len(rejected)
    assert sum(batch.read_bytes for batch in batches) == path.stat().st_size


@pytest.mark.parametrize("ending", COMPRESSIONS)
@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_torn_file_gives_the_rows_before_the_damage(tmp_path: Path, ending: str, cut: float) -> None:
    text = b"".join(b'{"u":"u%d","t":%d,"p":"%d"}\n' % (n % 7, n, n * n % 9973) for n in range(100_000))
    whole = COMPRESSIONS[ending](text)
    if ending == ".zip":
        whole = zipped(text, "a.ndjson")[:-100]
    path = tmp_path / f"a.ndjson{ending}"
    path.write_bytes(whole[: int(len(whole) * cut)])
    events, rejected, _ = read(path)
    assert times(events) == list(range(len(events)))
    assert len(events) > 100
    (record,) = rejected.to_pylist()
    assert record["reason"] == ("truncated_gzip" if ending == ".gz" else "truncated_compression")
    assert record["line_number"] == len(events) + 1


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
def test_several_members_are_one_text(tmp_path: Path, ending: str) -> None:
    compress = COMPRESSIONS[ending]
    (tmp_path / f"a.csv{ending}").write_bytes(compress(CSV[:9]) + compress(CSV[9:]))
    assert times(read(tmp_path)[0]) == [1, 2]


def test_every_entry_of_a_zip_is_a_source(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("days/", b"")
        archive.writestr("days/1.csv", CSV)
        archive.writestr("days/2.ndjson.gz", gzip.compress(lines(3)))
        archive.writestr("days/3.csv", b"u,t,p\na,4,/\na,five,/\n")
        archive.writestr("__MACOSX/._1.csv", b"\0\0")
        archive.writestr("days/readme.md", b"nothing here")
    path = tmp_path / "all.zip"
    path.write_bytes(out.getvalue())
    with caplog.at_level(logging.WARNING, "sessionize.input"):
        events, rejected, _ = read(path)
    assert times(events) == [1, 2, 0, 1, 2, 4]
    (record,) = rejected.to_pylist()
    assert (record["source"], record["line_number"], record["reason"]) == (f"{path}/days/3.csv", 3, "invalid_time")
    assert [each.getMessage() for each in caplog.records] == [
        f"1 file is not read (unknown format in an archive): {path}/days/readme.md"
    ]


def test_an_entry_of_a_zip_that_ends_early_costs_no_other(tmp_path: Path) -> None:
    rows = b"u,t,p\n" + b"".join(b"a,%d,/%d\n" % (n, n * n) for n in range(100))
    data = zipped(rows, "a.csv", "b.csv")
    size = int.from_bytes(data[18:22], "little")  # of the first entry's data, which lie behind 30 bytes and the name
    cut = data[:18] + (size - 20).to_bytes(4, "little") + data[22 : 35 + size - 20] + data[35 + size :]
    (tmp_path / "a.zip").write_bytes(cut)
    events, rejected, _ = read(tmp_path / "a.zip")
    assert len(events) > 100
    assert rejected["reason"].to_pylist() == ["truncated_compression"]


def test_what_a_zip_cannot_give_is_rejected(tmp_path: Path) -> None:
    data = bytearray(zipped(CSV, "a.csv", "b.csv"))
    data[6] |= 1  # the first entry is encrypted
    (tmp_path / "a.zip").write_bytes(bytes(data))
    events, rejected, _ = read(tmp_path)
    assert times(events) == [1, 2]
    assert ["encrypted" in detail for detail in rejected["detail"].to_pylist()] == [True]


def test_a_bomb_takes_no_more_memory_than_another_file(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson.bz2").write_bytes(bz2.compress(b" " * (64 << 20) + b"\n" + lines(2)))
    before = pa.total_allocated_bytes()
    events, rejected, _ = read(tmp_path, processes=1)
    assert times(events) == [0, 1]
    assert rejected["reason"].to_pylist() == ["too_large"]
    assert pa.total_allocated_bytes() - before < 8 << 20


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.csv", lines(2), [0, 1]),  # JSON lines under a wrong name
        ("a.json", b'[{"u":"a","t":1},\n {"u":"a","t":2}]\n', [1, 2]),
        ("a.ndjson", b'[\n {\n  "u": "a",\n  "t": 1\n },\n {\n  "u": "a",\n  "t": 2\n }\n]\n', [1, 2]),
        ("a.json", b'{\n "u": "a",\n "t": 1\n}\n{\n "u": "a",\n "t": 2\n}', [1, 2]),
        ("a.csv", CSV.replace(b",", b";"), [1, 2]),
        ("a.csv", CSV.replace(b",", b"\t"), [1, 2]),
        ("a.csv", CSV.replace(b",", b"|"), [1, 2]),
        ("a.csv", b'u;"t";p\na;1;"x,y"\nb;2;0,5\n', [1, 2]),
        ("a.tsv", CSV.replace(b",", b"\t"), [1, 2]),
        ("a.csv", CSV.decode().encode("utf-16"), [1, 2]),
        ("a.csv", b"\xef\xbb\xbf" + CSV, [1, 2]),
        ("no-ending", CSV, [1, 2]),
        ("no-ending", lines(2), [0, 1]),
    ],
)
def test_format_by_content(tmp_path: Path, name: str, data: bytes, expected: list[int]) -> None:
    (tmp_path / name).write_bytes(data)
    events, rejected, _ = read(tmp_path)
    assert times(events) == expected
    assert not len(rejected)


def test_files_of_a_folder_whose_names_say_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    (tmp_path / "b.csv.zst").write_bytes(zstd(CSV))
    (tmp_path / "c.csv.bz2").write_bytes(bz2.compress(CSV))
    (tmp_path / "d.txt").write_bytes(CSV)
    (tmp_path / "access.log").write_bytes(b'::1 - - [03/Oct/2016:03:20:11 -0400] "GET / HTTP/1.1" 200 1 "-" "-"\n' * 2)
    (tmp_path / "readme.txt").write_bytes(b"Hello, these are\nthe events of the shop\n")
    (tmp_path / "_SUCCESS").touch()
    with caplog.at_level(logging.WARNING, "sessionize.input"):
        events, _, _ = read(tmp_path)
    assert times(events) == [1, 2] * 4
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == f"1 file is not read (unknown file name ending): {tmp_path / 'readme.txt'}"
    assert len(told) == 2
    assert str(tmp_path / "access.log") in told[1]
    assert "no column for the user" in told[1]


def test_a_named_file_of_unknown_content_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="unknown file name ending") as caught:
        FileSource(path, dialect=OWN)
    assert "name the format" in str(caught.value.hint)


@pytest.mark.parametrize(
    "data",
    [CSV, gzip.compress(CSV), zstd(CSV), zipped(CSV), lzma.compress(CSV)],
    ids=["plain", "gzip", "zstd", "zip", "xz"],
)
def test_pipes_are_read_as_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    assert times(read(pipe)[0]) == [1, 2]
    writer.join()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert times(read("-")[0]) == [1, 2]


class TestCsvAsItIs:
    def test_headerless(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfa,1,/x\nb,2,/y\nc,x,/\n")
        events, rejected, _ = read(tmp_path, input_format=InputFormat(columns=("u", "t", "p")))
        assert events["user"].to_pylist() == ["a", "b"]
        assert rejected["line_number"].to_pylist() == [3]

    def test_another_encoding(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_bytes("u,t,p\nÄnne,1,/café\nb,2,/\n".encode("latin-1"))
        _, rejected, _ = read(path)
        assert rejected["reason"].to_pylist() == ["invalid_utf8"]
        events, rejected, _ = read(path, input_format=InputFormat(encoding="latin-1"))
        assert events["user"].to_pylist() == ["Änne", "b"]
        assert not len(rejected)
        path.write_bytes("ü,u,t,p\n".encode("latin-1"))
        with pytest.raises(InputError, match="the header cannot be read") as caught:
            read(path)
        assert "--encoding latin-1" in str(caught.value.hint)

    def test_half_a_surrogate_pair_costs_its_line(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b"u,t,p\n+2AA-,1,\nb,2,\n")
        events, rejected, _ = read(tmp_path, input_format=InputFormat(encoding="utf-7"))
        assert (times(events), rejected["reason"].to_pylist()) == ([2], ["invalid_utf8"])

    @pytest.mark.parametrize("name", ["undefined", "punycode", "idna", "hex", "none"])
    def test_an_encoding_that_decodes_no_text_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigError, match="unknown encoding"):
            InputFormat(encoding=name)

    def test_a_byte_that_the_encoding_does_not_know_costs_its_line(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b"u,t,p\na,1,\x81\nb,2,\x80\n")
        events, rejected, _ = read(tmp_path, input_format=InputFormat(encoding="cp1252"))
        assert events["page"].to_pylist() == ["€"]
        assert rejected["line_number"].to_pylist() == [2]

    @pytest.mark.parametrize(
        ("decimal", "texts", "expected"),
        [
            (",", ["1.234,50", "0,50", "7", "-1,5", "1 234,5", "12.345.678"], [1234.5, 0.5, 7, -1.5, 1234.5, 12345678]),
            (".", ["1,234.50", "0.50", "7", "1'000"], [1234.5, 0.5, 7, 1000]),
        ],
    )
    def test_decimal_marks(self, tmp_path: Path, decimal: str, texts: list[str], expected: list[float]) -> None:
        rows = "".join(f'a;{n};"{text}"\n' for n, text in enumerate(texts))
        (tmp_path / "a.csv").write_text(f"u;t;v\n{rows}")
        dialect = Dialect.mapping(user="u", time="t", value="v")
        events, _, _ = read(tmp_path, dialect=dialect, input_format=InputFormat(decimal=decimal))
        assert events["value"].to_pylist() == expected

    def test_an_amount_in_the_other_form_is_no_number(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("u;t;v\na;1;1.5\n")
        dialect = Dialect.mapping(user="u", time="t", value="v")
        events, rejected, _ = read(tmp_path, dialect=dialect, input_format=InputFormat(decimal=","))
        assert events["value"].to_pylist() in ([], [None])
        assert len(events) + len(rejected) == 1

    def test_null_words_and_comments(self, tmp_path: Path) -> None:
        text = b'# of May\nu,t,p\n#a,1,/\nNULL,2,/\n"\\N",3,/\nb,4,NULL\n# end\nc,5,/\nd,x,/\n'
        (tmp_path / "a.csv").write_bytes(text)
        events, rejected, _ = read(tmp_path, input_format=InputFormat(null_values=("NULL", "\\N"), comment="#"))
        assert events.select(["user", "page"]).to_pylist() == [
            {"user": "b", "page": None},
            {"user": "c", "page": "/"},
        ]
        assert rejected["line_number"].to_pylist() == [4, 5, 9]


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson", "orc"])
def test_keys_of_partitions_are_columns(tmp_path: Path, kind: str) -> None:
    for user, name in (("user_id=u%201", "u 1"), ("user_id=__HIVE_DEFAULT_PARTITION__", None)):
        folder = tmp_path / "day=2026-03-02" / user
        folder.mkdir(parents=True)
        rows = pa.table({"t": [1, 2], "p": ["/x", name]})
        path = folder / f"a.{kind}"
        if kind == "parquet":
            pq.write_table(rows, path)
        elif kind == "orc":
            orc.write_table(rows, path)
        else:
            path.write_bytes(b"t,p\n1,/x\n2,\n" if kind == "csv" else b'{"t":1,"p":"/x"}\n{"t":2}\n')
    dialect = Dialect.mapping(user="user_id", time="t", page="day")
    events, rejected, _ = read(tmp_path, dialect=dialect)
    assert events.select(["user", "page", "event_time_ms"]).to_pylist() == [
        {"user": "u 1", "page": "2026-03-02", "event_time_ms": time} for time in (1, 2)
    ]
    assert rejected["reason"].to_pylist() == ["missing_user"] * 2
    if kind in ("csv", "ndjson"):
        assert rejected["raw"][0].as_py() == (b"1,/x" if kind == "csv" else b'{"t":1,"p":"/x"}')


def test_orc_and_avro_files(tmp_path: Path) -> None:
    orc.write_table(pa.table({"u": ["a", None], "t": [1, 2], "p": ["/", "/"]}), tmp_path / "a.orc")
    schema = {
        "type": "record",
        "name": "e",
        "fields": [{"name": n, "type": k} for n, k in zip("utp", ("string", "long", "string"), strict=True)],
    }
    with (tmp_path / "b.bin").open("wb") as file:
        fastavro.writer(file, schema, [{"u": "b", "t": t, "p": "/"} for t in (3, 4)])
    events, rejected, _ = read(tmp_path)
    assert times(events) == [1, 3, 4]
    assert rejected["line_number"].to_pylist() == [2]
    whole = (tmp_path / "b.bin").read_bytes()
    (tmp_path / "b.bin").write_bytes(whole[:-3])
    _, rejected, _ = read(tmp_path / "b.bin")
    assert rejected["reason"].to_pylist() == ["corrupt_avro"]
