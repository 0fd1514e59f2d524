"""Files of every kind as a source: what is found, what is read, and what is rejected."""

import gzip
import io
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.connectors.files.source import FileSource
from sessionize.errors import ConfigError, InputError
from sessionize.formats.dialects import DIALECTS
from sessionize.ports import Source
from tests.connectors.files.reading import OWN, lines, read, read_parquet, times


class TestFormats:
    def test_ndjson(self, tmp_path: Path) -> None:
        for name in ["a.ndjson", "b.jsonl", "c.JSON"]:
            (tmp_path / name).write_bytes(lines(3) + b"broken\n")
            events, rejected, batches = read(tmp_path / name)
            assert times(events) == [0, 1, 2]
            assert rejected.to_pylist()[0]["source"] == str(tmp_path / name)
            assert rejected["line_number"].to_pylist() == [4]
            assert sum(b.read_bytes for b in batches) == os.path.getsize(tmp_path / name)

    def test_ndjson_gz(self, tmp_path: Path) -> None:
        path = tmp_path / "a.ndjson.gz"
        path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + lines(5) + b"x") + gzip.compress(b"y\n" + lines(2, start=5)))
        events, rejected, batches = read(path)
        assert times(events) == list(range(7))
        assert rejected["raw"].to_pylist() == [b"xy"]
        assert sum(b.read_bytes for b in batches) == os.path.getsize(path)

    @pytest.mark.parametrize("ending", ["csv", "csv.gz", "tsv", "TSV.GZ"])
    def test_csv(self, tmp_path: Path, ending: str) -> None:
        text = "\ufeff\nu,t,p\na,1,/x\nb,2\nc,3,\n".replace(",", "\t" if ending.lower().startswith("tsv") else ",")
        path = tmp_path / f"a.{ending}"
        path.write_bytes(gzip.compress(text.encode()) if ending.lower().endswith("gz") else text.encode())
        events, rejected, _ = read(path)
        assert events.to_pylist() == [
            {"user": "a", "event_time_ms": 1, "page": "/x"},
            {"user": "c", "event_time_ms": 3, "page": None},
        ]
        assert [(r["line_number"], r["reason"]) for r in rejected.to_pylist()] == [(4, "wrong_column_count")]

    def test_parquet(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        table = pa.table({"u": ["a", None, "c"] * 4, "t": range(12), "p": ["/x", "/y", None] * 4, "n": range(12)})
        pq.write_table(table, path, row_group_size=5)
        events, rejected, batches = read(path, extras=True)
        assert times(events) == [n for n in range(12) if n % 3 != 1]
        assert events["n"].to_pylist() == times(events)
        assert events["user"].to_pylist() == ["a", "c"] * 4
        assert rejected["line_number"].to_pylist() == [2, 5, 8, 11]
        assert json.loads(rejected["raw"][1].as_py()) == {"u": None, "t": 4, "p": "/y", "n": 4}
        assert len(batches) == 3

    def test_empty_files_are_no_error(self, tmp_path: Path) -> None:
        for name in ["a.ndjson", "b.csv"]:
            (tmp_path / name).write_bytes(b"")
        (tmp_path / "e.ndjson.gz").write_bytes(gzip.compress(b""))
        (tmp_path / "f.csv.gz").write_bytes(gzip.compress(b""))
        (tmp_path / "g.csv").write_bytes(b"u,t,p\n")
        (tmp_path / "h.ndjson").write_bytes(b"\n \n\r\n")
        assert read(tmp_path)[2] == []

    def test_stdin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines(3) + b"{}")))
        events, rejected, _ = read("-")
        assert times(events) == [0, 1, 2]
        assert rejected.to_pylist()[0]["source"] == "-"
        assert FileSource("-", dialect=OWN).size_bytes is None

    def test_a_file_between_others_is_read_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "1.ndjson").write_bytes(lines(2))
        (tmp_path / "2.csv").write_bytes(b"u,t,p\na,2,\n")
        (tmp_path / "3.ndjson").write_bytes(lines(2, start=3))
        pq.write_table(pa.table({"u": ["a"], "t": [5], "p": ["x"]}), tmp_path / "4.parquet")
        assert times(read(tmp_path)[0]) == [0, 1, 2, 3, 4, 5]

    def test_large_text_comes_in_several_batches(self, tmp_path: Path) -> None:
        for name, header in [("a.ndjson.gz", b""), ("b.csv.gz", b"u,t,p\n")]:
            body = lines(60_000) if not header else b"".join(b"a,%d,/some/page\n" % n for n in range(60_000))
            body += b"x" * 3_000_000 + b"\n" + (lines(1) if not header else b"a,1,p\n")
            (tmp_path / name).write_bytes(gzip.compress(header + body, 1))
            events, rejected, batches = read(tmp_path / name, batch_bytes=1)
            assert times(events)[:-1] == list(range(60_000))
            assert len(batches) > 1
            assert sum(b.read_bytes for b in batches) == os.path.getsize(tmp_path / name)
            assert rejected["line_number"].to_pylist() == [60_001 + bool(header)]


class TestFinding:
    def test_directories_are_read_in_the_order_of_names_without_hidden_and_temporary_files(
        self, tmp_path: Path
    ) -> None:
        for n, name in enumerate(["a.ndjson", "b/a.ndjson", "b/c/x.ndjson", "b/d.ndjson", "c.ndjson"]):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(lines(1, start=n))
        for name in [".hidden.ndjson", "_SUCCESS", "x.ndjson.tmp", "y.ndjson~", ".git/a.ndjson", "_temporary/a.ndjson"]:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(lines(1, start=99))
        (tmp_path / "README.md").write_text("x")
        source = FileSource(tmp_path, dialect=OWN)
        assert [t for batch in source.batches() for t in times(batch.events)] == [0, 1, 2, 3, 4]
        assert source.skipped == (str(tmp_path / "README.md"),)

    def test_globs(self, tmp_path: Path) -> None:
        for n, name in enumerate(["a-1.ndjson", "a-2.ndjson", "b.ndjson", "deep/a-3.ndjson"]):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(lines(1, start=n))
        assert times(read(str(tmp_path / "a-*.ndjson"))[0]) == [0, 1]
        assert times(read(str(tmp_path / "**" / "a-*.ndjson"))[0]) == [0, 1, 3]

    def test_a_file_with_a_star_in_its_name(self, tmp_path: Path) -> None:
        (tmp_path / "a*.ndjson").write_bytes(lines(1))
        (tmp_path / "ab.ndjson").write_bytes(lines(2))
        assert times(read(str(tmp_path / "a*.ndjson"))[0]) == [0]

    def test_a_file_named_twice_is_read_once(self, tmp_path: Path) -> None:
        path = tmp_path / "a.ndjson"
        path.write_bytes(lines(2))
        (tmp_path / "link.ndjson").symlink_to(path)
        assert times(read([path, tmp_path, str(tmp_path / "*"), path])[0]) == [0, 1]

    def test_the_order_is_that_of_the_arguments(self, tmp_path: Path) -> None:
        (tmp_path / "a.ndjson").write_bytes(lines(1))
        (tmp_path / "b.ndjson").write_bytes(lines(1, start=1))
        assert times(read([tmp_path / "b.ndjson", tmp_path / "a.ndjson"])[0]) == [1, 0]

    def test_what_the_port_promises(self, tmp_path: Path) -> None:
        (tmp_path / "a.ndjson").write_bytes(lines(1))
        (tmp_path / "b.csv").write_bytes(b"u,t,p\n")
        source: Source = FileSource(tmp_path, dialect=OWN, columns=frozenset({"page", "value"}))
        assert source.size_bytes == len(lines(1)) + 6
        assert source.event_columns == {"user", "event_time_ms", "page"}
        assert source.user_name == "u"


class TestErrors:
    @pytest.mark.parametrize(
        ("paths", "words"),
        [
            ([], ["nothing to read"]),
            ("evens.ndjson", ["does not exist", "did you mean", "events.ndjson"]),
            ("nowhere/at/all.csv", ["does not exist"]),
            ("*.csv", ["matches no file", "*.csv"]),
            ("empty", ["no file to read", "empty"]),
            ("odd", ["no file to read", "notes.txt", ".ndjson"]),
            ("odd/notes.txt", ["unknown file name ending", "notes.txt", ".ndjson"]),
            ("zip.parquet.gz", ["Parquet is compressed inside"]),
            ("dangling.ndjson", ["cannot be read", "dangling.ndjson"]),
        ],
    )
    def test_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths, words: list[str]) -> None:
        monkeypatch.chdir(tmp_path)
        Path("events.ndjson").write_bytes(lines(1))
        Path("empty").mkdir()
        Path("odd").mkdir()
        Path("odd/notes.txt").write_text("x")
        Path("zip.parquet.gz").write_bytes(b"")
        Path("dangling.ndjson").symlink_to("gone")
        with pytest.raises(InputError) as caught:
            FileSource(paths, dialect=OWN)
        assert all(word in str(caught.value) for word in words)
        assert caught.value.hint

    def test_no_process_at_all(self) -> None:
        with pytest.raises(ConfigError):
            FileSource("-", dialect=OWN, processes=0)

    @pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
    def test_a_missing_column_names_the_columns_present(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        if name == "a.parquet":
            pq.write_table(pa.table({"u": ["a"], "when": [1], "p": ["x"]}), path)
        else:
            path.write_bytes(gzip.compress(b"u,when,p\na,1,x\n") if name.endswith("gz") else b"u,when,p\na,1,x\n")
        with pytest.raises(InputError) as caught:
            read(path)
        assert "u, when, p" in str(caught.value)
        assert str(path) in str(caught.value)

    def test_json_without_the_mapped_field_is_rejected_record_by_record(self, tmp_path: Path) -> None:
        (tmp_path / "a.ndjson").write_bytes(lines(3))
        _, rejected, _ = read(tmp_path, dialect=DIALECTS["clickstream"])
        assert rejected["reason"].to_pylist() == ["missing_user"] * 3

    def test_a_file_that_vanishes(self, tmp_path: Path) -> None:
        for name in ["a.ndjson", "a.csv"]:
            (tmp_path / name).write_bytes(lines(1))
            source = FileSource(tmp_path / name, dialect=OWN)
            (tmp_path / name).unlink()
            with pytest.raises(InputError) as caught:
                list(source.batches())
            assert name in str(caught.value)

    @pytest.mark.parametrize("cut", [0.3, 0.9, 0.999])
    def test_a_truncated_gzip_gives_all_rows_before_the_cut(self, tmp_path: Path, cut: float) -> None:
        whole = gzip.compress(lines(20_000))
        path = tmp_path / "a.ndjson.gz"
        path.write_bytes(whole[: int(len(whole) * cut)])
        events, rejected, _ = read(path)
        count = events.num_rows
        assert 2_000 < count < 20_000
        assert times(events) == list(range(count))
        (record,) = rejected.to_pylist()
        assert (record["reason"], record["line_number"]) == ("truncated_gzip", count + 1)
        readable = zlib.decompressobj(wbits=31).decompress(path.read_bytes())
        assert record["raw"] == readable.rpartition(b"\n")[2]
        assert record["source"] == str(path)

    def test_a_gzip_cut_at_the_end_of_a_line(self, tmp_path: Path) -> None:
        compressor = zlib.compressobj(wbits=31)
        data = compressor.compress(lines(10)) + compressor.flush(zlib.Z_SYNC_FLUSH)
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"u,t,p\na,1,b\n")[:-3])
        (tmp_path / "a.ndjson.gz").write_bytes(data)
        events, rejected, _ = read(tmp_path)
        assert times(events) == [1, *range(10)]
        assert rejected["reason"].to_pylist() == ["truncated_gzip"] * 2
        assert rejected["raw"].to_pylist() == [b"", b""]
        assert rejected["line_number"].to_pylist() == [3, 11]

    def test_a_file_that_is_only_called_gz(self, tmp_path: Path) -> None:
        (tmp_path / "a.ndjson.gz").write_bytes(lines(1))  # the content counts
        assert times(read(tmp_path)[0]) == [0]
        (tmp_path / "a.ndjson.gz").write_bytes(b"neither gzip nor JSON")
        with pytest.raises(InputError, match=r"a file named \.gz is not gzipped"):
            read(tmp_path)

    @pytest.mark.parametrize("data", [b"PAR1", b"PAR1PAR1", b"x" * 100])
    def test_parquet_without_a_footer(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "a.parquet").write_bytes(data)
        with pytest.raises(InputError) as caught:
            read(tmp_path)
        assert "a.parquet" in str(caught.value)

    def test_a_torn_parquet_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"u": ["a"] * 100, "t": range(100), "p": ["x"] * 100}), path)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(InputError, match="cannot be read"):
            read(path)

    @pytest.mark.parametrize("group_rows_max", [10**6, 10])
    def test_a_damaged_row_group_costs_only_itself(self, tmp_path: Path, group_rows_max: int) -> None:
        path = tmp_path / "a.parquet"
        table = pa.table({"u": [f"user-{n}" for n in range(300)], "t": range(300), "p": ["x"] * 300})
        pq.write_table(table, path, row_group_size=100, compression="zstd", write_page_checksum=True)
        chunk = pq.read_metadata(path).row_group(1).column(0)
        data = bytearray(path.read_bytes())
        middle = chunk.data_page_offset + chunk.total_compressed_size // 3
        data[middle : middle + 8] = b"\xff" * 8
        path.write_bytes(data)
        events, rejected, _ = read_parquet(path, OWN, group_rows_max=group_rows_max)
        assert times(events) == [*range(100), *range(200, 300)]
        (record,) = rejected.to_pylist()
        assert (record["reason"], record["line_number"], record["raw"]) == ("corrupt_parquet", 101, None)
        assert "100 rows of row group 1" in record["detail"]


@pytest.mark.parametrize("last", [b"a,5,x", b'a,5,"x', b'a,5,"x\n\n', b"a,5,x\n\n"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_the_end_of_a_csv_file_is_read_wherever_its_batches_end(tmp_path: Path, name: str, last: bytes) -> None:
    data = b"u,t,p\n" + b"".join(b"a,%d,x\n" % n for n in range(5)) + last
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    whole = read(tmp_path / name)
    assert len(whole[0]) + len(whole[1]) == 6
    for size in range(1, len(data)):
        cut = read(tmp_path / name, batch_bytes=size)
        assert (cut[0].to_pylist(), cut[1].to_pylist()) == (whole[0].to_pylist(), whole[1].to_pylist())
    for count in range(1, 9):
        source = FileSource(tmp_path / name, dialect=OWN, batch_records=count)
        assert sum(batch.consumed for batch in source.batches()) == 6


def test_a_byte_order_mark_within_a_csv_file_is_text_wherever_its_batches_end(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"u,t,p\n" + b"".join(b"\xef\xbb\xbfa,%d,x\n" % n for n in range(5)))
    for size in (1, 40, 1_000):
        for count in (1, 2, 100):
            source = FileSource(path, dialect=OWN, batch_bytes=size, batch_records=count)
            users = [user for batch in source.batches() for user in batch.events["user"].to_pylist()]
            assert users == ["\ufeffa"] * 5


def test_events_from_the_future(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(lines(4))
    (tmp_path / "b.csv").write_bytes(b"u,t,p\na,1,\na,9,\n")
    pq.write_table(pa.table({"u": ["a"] * 2, "t": [2, 3], "p": ["x"] * 2}), tmp_path / "c.parquet")
    events, rejected, _ = read(tmp_path, now_ms=0, max_future_ms=2)
    assert times(events) == [0, 1, 2, 1, 2]
    assert rejected["reason"].to_pylist() == ["future_timestamp"] * 3
    far = json.dumps({"u": "a", "t": (time.time_ns() // 1_000_000) + 3_600_000}).encode()
    (tmp_path / "a.ndjson").write_bytes(far)
    assert read(tmp_path / "a.ndjson", max_future_ms=60_000)[1].num_rows == 1
    assert read(tmp_path / "a.ndjson", max_future_ms=7_200_000)[1].num_rows == 0


def test_batches_is_an_iterator(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(lines(1))
    assert isinstance(FileSource(tmp_path, dialect=OWN).batches(), Iterator)


class TestBegun:
    """Reading that has begun before anybody asks."""

    def test_the_same_batches(self, tmp_path):
        (tmp_path / "a.ndjson").write_bytes(lines(300) + b"{broken\n")
        pq.write_table(pa.table({"u": ["x"], "t": [1], "p": ["/"]}), tmp_path / "b.parquet")
        source = FileSource(tmp_path, dialect=OWN, batch_bytes=1000, processes=1)
        with source.begun():
            ahead = list(source.batches())
        plain = list(source.batches())
        assert len(plain) > 3
        assert [(b.events, b.rejected, b.read_bytes) for b in ahead] == [
            (b.events, b.rejected, b.read_bytes) for b in plain
        ]

    def test_nobody_asks(self, tmp_path):
        (tmp_path / "a.ndjson").write_bytes(lines(3000))
        source = FileSource(tmp_path, dialect=OWN, batch_bytes=1000, processes=2)
        with source.begun():
            pass
        assert sum(b.events.num_rows for b in source.batches()) == 3000

    def test_no_rows(self, tmp_path):
        (tmp_path / "a.ndjson").write_bytes(b"")
        source = FileSource(tmp_path, dialect=OWN)
        with source.begun():
            assert list(source.batches()) == []

    def test_errors_are_for_who_asks(self, tmp_path):
        (tmp_path / "a.parquet").write_bytes(b"PAR1 torn")
        source = FileSource(tmp_path, dialect=OWN)
        with source.begun(), pytest.raises(InputError, match="a Parquet file cannot be read"):
            next(source.batches())
