"""Files of every kind as a source: what is found, what is read, what is rejected, and in how many processes."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.connectors.files import source_workers
from sessionize.connectors.files.source import FileSource
from sessionize.connectors.files.source_parquet import ParquetReader
from sessionize.connectors.files.source_paths import input_files
from sessionize.connectors.files.source_ranges import Done, decode, divide
from sessionize.connectors.files.source_worker import Recipe
from sessionize.errors import ConfigError, InputError
from sessionize.formats.dialects import DIALECTS, Dialect
from sessionize.ports import EventBatch, Source

OWN = Dialect.mapping(user="u", time="t", page="p")


def lines(count: int, *, start: int = 0) -> bytes:
    return b"".join(
        b'{"u":"u%d","t":%d,"p":"/%d","n":%d}\n' % (n % 7, n, n % 3, n) for n in range(start, start + count)
    )


def read(paths, *, dialect: Dialect = OWN, **options) -> tuple[pa.Table, pa.Table, list[EventBatch]]:
    source = FileSource(paths, dialect=dialect, **options)
    batches = list(source.batches())
    assert all(batch.consumed for batch in batches)
    assert all(source.event_columns <= set(batch.events.column_names) for batch in batches)
    if not batches:
        return pa.table({}), pa.table({}), []
    events = pa.concat_tables([b.events for b in batches], promote_options="default")
    return events, pa.concat_tables([b.rejected for b in batches]), batches


def read_parquet(path: Path, dialect: Dialect, *, group_rows_max: int) -> tuple[pa.Table, pa.Table, list[int]]:
    """Row groups beyond group_rows_max in slices of seven rows; the file counts as 1000 bytes."""
    reader = ParquetReader(
        dialect=dialect, columns=None, extras=False, latest_ms=None, group_rows_max=group_rows_max, slice_rows=7
    )
    found = list(reader.batches(str(path), 1000))
    rejected = pa.concat_tables([decoded.rejected for decoded, _ in found])
    return pa.concat_tables([decoded.events for decoded, _ in found]), rejected, [size for _, size in found]


def times(events: pa.Table) -> list[int]:
    return events["event_time_ms"].to_pylist()


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
        for name in ["a.ndjson", "b.csv", "c.parquet", "d.ndjson.gz"]:
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
            ("odd/notes.txt", ["not known from its name", "notes.txt", ".ndjson"]),
            ("events", ["not known from its name"]),
            ("zip.parquet.gz", ["Parquet is compressed inside"]),
            ("dangling.ndjson", ["cannot be read", "dangling.ndjson"]),
        ],
    )
    def test_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths, words: list[str]) -> None:
        monkeypatch.chdir(tmp_path)
        Path("events.ndjson").write_bytes(lines(1))
        Path("events").write_bytes(lines(1))
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
        (tmp_path / "a.ndjson.gz").write_bytes(lines(1))
        with pytest.raises(InputError, match="not gzipped"):
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


class TestParquetSlices:
    @pytest.mark.parametrize("group_rows_max", [1, 10**6])
    def test_slices_and_groups_give_the_same(self, tmp_path: Path, group_rows_max: int) -> None:
        path = tmp_path / "a.parquet"
        users = [None if n % 10 == 3 else f"u{n % 5}" for n in range(50)]
        table = pa.table({"u": users, "t": range(50), "d": [{"p": f"/{n % 4}"} for n in range(50)]})
        pq.write_table(table, path, row_group_size=20)
        dialect = Dialect.mapping(user="u", time="t", page="d.p")
        events, rejected, sizes = read_parquet(path, dialect, group_rows_max=group_rows_max)
        assert times(events) == [n for n in range(50) if n % 10 != 3]
        assert events["page"].to_pylist() == [f"/{n % 4}" for n in range(50) if n % 10 != 3]
        assert rejected["line_number"].to_pylist() == [4, 14, 24, 34, 44]
        assert len(sizes) == (8 if group_rows_max == 1 else 3)
        assert 900 < sum(sizes) <= 1000

    def test_stopping_early_leaves_no_threads(self, tmp_path: Path) -> None:
        import threading

        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"u": ["a"] * 50, "t": range(50), "p": ["x"] * 50}), path, row_group_size=5)
        batches = FileSource(path, dialect=OWN).batches()
        next(batches)
        batches.close()  # type: ignore[attr-defined]
        (tmp_path / "b.ndjson.gz").write_bytes(gzip.compress(lines(100_000), 1))
        feed = FileSource(tmp_path / "b.ndjson.gz", dialect=OWN).batches()
        next(feed)
        feed.close()  # type: ignore[attr-defined]
        assert [t.name for t in threading.enumerate() if t.name.startswith("sessionize")] == []


class TestProcesses:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        parts = []
        for n in range(40):
            parts.append(lines(25, start=25 * n))
            parts.append(
                [b"broken\n", b"\n", b'{"u":"x"}\r\n', b"\xff\n", b'{"u":"long","t":1,"p":"' + b"x" * 5_000][n % 5]
            )
            if n % 5 == 4:
                parts.append(b'"}\n')
        path = tmp_path / "a.ndjson"
        path.write_bytes(b"\xef\xbb\xbf" + b"".join(parts) + b'{"u":"last","t":7}')
        return path

    @pytest.mark.parametrize("extras", [False, True])
    def test_two_processes_give_what_one_gives(self, path: Path, extras: bool) -> None:
        one, two, three = (read(path, batch_bytes=2_000, processes=n, extras=extras) for n in (1, 2, 3))
        assert len(one[2]) > 15
        assert [b.events.equals(a.events) for a, b in zip(one[2], two[2], strict=True)] == [True] * len(one[2])
        for other in (two, three):
            assert other[0].equals(one[0])
            assert other[1].equals(one[1])
            assert [b.read_bytes for b in other[2]] == [b.read_bytes for b in one[2]]
        numbers = {line: n for n, line in enumerate(path.read_bytes().split(b"\n"), start=1)}
        for record in one[1].to_pylist():
            assert path.read_bytes().split(b"\n")[record["line_number"] - 1] == record["raw"]
        assert one[0].num_rows + one[1].num_rows == sum(map(bool, path.read_bytes().split(b"\n")))
        assert len(numbers) > 1000

    def test_a_byte_order_mark_where_a_range_begins_is_a_broken_line(self, tmp_path: Path) -> None:
        line = b'{"u":"a","t":1,"p":"' + b"x" * 70 + b'"}\n'
        marked = b"\xef\xbb\xbf" + line[:-6] + line[-3:]
        assert len(marked) == len(line)
        (tmp_path / "a.ndjson").write_bytes(line + marked + line)
        events, rejected, _ = read(tmp_path / "a.ndjson", batch_bytes=len(line), processes=1)
        assert events.num_rows == 2
        assert rejected["line_number"].to_pylist() == [2]

    def test_ranges_and_a_stream_give_the_same(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        in_ranges = read(path, batch_bytes=2_000, processes=1)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
        as_stream = read("-")
        assert as_stream[0].to_pylist() == in_ranges[0].to_pylist()
        assert as_stream[1].drop_columns(["source"]).equals(in_ranges[1].drop_columns(["source"]))

    def test_many_small_files_share_batches(self, tmp_path: Path) -> None:
        for n in range(30):
            (tmp_path / f"{n:02}.ndjson").write_bytes(lines(10, start=10 * n) + b"bad\n")
        one, two = read(tmp_path, batch_bytes=2_000, processes=1), read(tmp_path, batch_bytes=2_000, processes=2)
        assert two[0].equals(one[0])
        assert two[1].equals(one[1])
        assert times(one[0]) == list(range(300))
        assert one[1]["line_number"].to_pylist() == [11] * 30
        assert 3 < len(one[2]) < 15

    def test_a_large_file_behind_small_ones(self, path: Path) -> None:
        small = path.with_name("0.ndjson")
        small.write_bytes(lines(5) + b"bad\n")
        _, rejected, _ = read([small, path, path.with_name("0.ndjson")], batch_bytes=2_000, processes=2)
        alone = read(path, batch_bytes=2_000, processes=1)[1]
        assert rejected.slice(1).equals(alone)

    def test_a_worker_gives_what_this_process_would(self, path: Path) -> None:
        work = divide(input_files([path])[0], range_bytes=2_000)[:5]
        recipe = Recipe(dialect=OWN, columns=None, extras=True, latest_ms=500)
        done: dict[int, Done | None] = {}
        with source_workers._Team(recipe, 1) as team:
            given = 0
            while len(done) < len(work):
                given = team.hand_out(work, given, len(work))
                assert given <= len(done) + 2
                done |= team.results(wait=True)
        for number, piece in enumerate(work):
            result, own = done[number], decode(piece, recipe.decoder())
            assert result is not None
            assert result.decoded.events.equals(own.decoded.events)
            assert result.decoded.events.schema == own.decoded.events.schema
            assert result.decoded.rejected.equals(own.decoded.rejected)
            assert result.line_count == own.line_count

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
    def test_a_worker_that_dies_is_not_missed(self, path: Path, how: signal.Signals) -> None:
        expected = read(path, batch_bytes=2_000, processes=1)
        source = FileSource(path, dialect=OWN, batch_bytes=2_000, processes=3)
        batches = source.batches()
        found = [next(batches)]
        for process in children():
            os.kill(process, how)
        found += list(batches)
        assert pa.concat_tables([b.events for b in found]).equals(expected[0])
        assert pa.concat_tables([b.rejected for b in found]).equals(expected[1])

    def test_a_worker_that_cannot_start_is_not_missed(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = read(path, batch_bytes=2_000, processes=1)
        for executable in ["/nonexistent/python", "/bin/true", ""]:
            monkeypatch.setattr(sys, "executable", executable)
            assert read(path, batch_bytes=2_000, processes=2)[0].equals(expected[0])

    def test_nothing_is_left_behind(self, path: Path) -> None:
        before = open_files()
        batches = FileSource(path, dialect=OWN, batch_bytes=2_000, processes=3).batches()
        next(batches)
        assert len(children()) == 2
        batches.close()  # type: ignore[attr-defined]
        assert children() == []
        list(FileSource(path, dialect=OWN, batch_bytes=2_000, processes=3).batches())
        assert children() == []
        assert open_files() == before

    def test_the_error_of_a_worker_is_raised_here(self, path: Path) -> None:
        batches = FileSource(path, dialect=OWN, batch_bytes=2_000, processes=2).batches()
        next(batches)
        path.unlink()
        with pytest.raises(InputError, match="cannot be read"):
            list(batches)
        assert children() == []


SCRIPT = """
import sys, time
from sessionize.connectors.files import source
from sessionize.formats.dialects import Dialect
if __name__ == "__main__":
    dialect = Dialect.mapping(user="u", time="t")
    batches = source.FileSource(sys.argv[1], dialect=dialect, batch_bytes=2_000, processes=3).batches()
    next(batches)
    print("reading", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_parent_leaves_no_children(tmp_path: Path, how: signal.Signals) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(lines(2_000))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(script), str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"reading\n"
        workers = children(parent.pid)
        assert len(workers) == 2
        parent.send_signal(how)
        parent.wait()
    wait_for(lambda: not any(is_running(worker) for worker in workers))


def children(parent: int | None = None) -> list[int]:
    """The processes that this one (or another) has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == (parent or os.getpid()) and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_batches_is_an_iterator(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(lines(1))
    assert isinstance(FileSource(tmp_path, dialect=OWN).batches(), Iterator)


class TestPlainUsers:
    """Users that Parquet holds one by one may stay plain text."""

    def of(self, tmp_path: Path, users: list[str | None], **options: bool) -> tuple[pa.Table, pa.Table]:
        path = tmp_path / "e.parquet"
        pq.write_table(pa.table({"u": users, "t": list(range(len(users))), "p": ["/"] * len(users)}), path, **options)
        events, rejected, _ = read(path, plain_users=True)
        return events, rejected

    def test_of_one_length(self, tmp_path):
        users = [f"user-{n:020d}" for n in range(50)]
        events, _ = self.of(tmp_path, users, use_dictionary=False)
        assert events["user"].type == pa.string()
        assert events["user"].to_pylist() == users

    def test_of_different_lengths(self, tmp_path):
        users = [f"user-with-a-long-name-{n}" for n in range(50)]
        events, _ = self.of(tmp_path, users, use_dictionary=False)
        assert events["user"].type == pa.dictionary(pa.int32(), pa.string())
        assert events["user"].to_pylist() == users

    def test_few_users(self, tmp_path):
        users = [f"user-{n % 2:020d}" for n in range(5000)]
        events, _ = self.of(tmp_path, users)
        assert pa.types.is_dictionary(events["user"].type)
        assert events["user"].to_pylist() == users

    def test_bad_users_are_rejected(self, tmp_path):
        users = [None, " " * 25, *(f"user-{n:020d}" for n in range(50))]
        events, rejected = self.of(tmp_path, users, use_dictionary=False)
        assert events["user"].to_pylist() == users[2:]
        assert events["user"].type == pa.string()
        assert list(zip(rejected["line_number"].to_pylist(), rejected["reason"].to_pylist(), strict=True)) == [
            (1, "missing_user"),
            (2, "empty_user"),
        ]


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
