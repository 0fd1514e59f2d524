"""Parquet as a source: row groups in slices, users that stay plain text, and threads that end."""

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.connectors.files.directory_source import PARTITION, DirectorySource
from sessionize.connectors.files.source import FileSource
from sessionize.connectors.files.source_parquet import ParquetReader
from sessionize.errors import InputError
from sessionize.formats.dialects import Dialect
from sessionize.formats.sizes import decoded_bytes
from tests.connectors.files.reading import OWN, lines, read, read_parquet, times


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
        assert events["user"].type == pa.string()
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


def test_a_file_that_cannot_be_reached_is_no_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"u": ["a"] * 50, "t": range(50), "p": ["x"] * 50}), path, row_group_size=2)
    batches = FileSource(path, dialect=OWN).batches()
    next(batches)
    path.rename(tmp_path / "away")
    with pytest.raises(InputError, match="a file cannot be read") as caught:
        list(batches)
    assert "No such file" in str(caught.value.detail)


def test_damage_that_leaves_no_text_is_rejected_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    users, pages = [f"u{n}\u00e9" for n in range(40)], ["x"] * 40
    table = pa.table({"u": users, "t": range(40), "p": pages, "n\u00e4me": pages})
    pq.write_table(table, path, row_group_size=20, compression="none", store_schema=False)
    good = path.read_bytes()

    def refused_or_rejected(text: str) -> list[int]:
        """How many are rejected when a byte of the text is wrong, for each place where it stands; -1: refused."""
        found = []
        for at in (m.start() for m in re.finditer(text.encode(), good)):
            path.write_bytes(good[:at] + b"\xff" + good[at + 1 :])
            try:
                batches = list(FileSource(path, dialect=OWN, extras=True).batches())
            except InputError:
                found.append(-1)
            else:
                found.append(sum(batch.rejected.num_rows for batch in batches))
        return found

    assert refused_or_rejected("\u00e9").count(1) >= 40
    assert -1 in refused_or_rejected("\u00e4me")


_DAMAGE = """
import random, sys
import pyarrow as pa, pyarrow.parquet as pq
from sessionize.connectors.files.source import FileSource
from sessionize.errors import InputError
from sessionize.formats.dialects import Dialect
path, dialect = sys.argv[1], Dialect.mapping(user="u", time="t", page="p")
table = pa.table({"u": [f"u{n}\u00e9" for n in range(60)], "t": range(60), "p": ["x"] * 60, "d": [{"x": "y"}] * 60})
pq.write_table(table, path, row_group_size=20)
good = open(path, "rb").read()
footer = int.from_bytes(good[-8:-4], "little") + 8
for seed in range(500):
    damage, data = random.Random(seed), bytearray(good)
    for _ in range(damage.choice([1, 1, 2, 5])):
        data[damage.randrange(len(data) - footer, len(data) - 8)] = damage.randrange(256)
    open(path, "wb").write(data)
    try:
        for batch in FileSource([path], dialect=dialect, extras=True).batches():
            batch.events.validate(full=True)
    except InputError:
        pass
print("all of them")
"""


def test_no_damaged_footer_ends_the_process(tmp_path: Path) -> None:
    """In a process of its own, because pyarrow may end it."""
    command = [sys.executable, "-c", _DAMAGE, str(tmp_path / "a.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "all of them\n", "")


class TestPieces:
    """A value that many rows share is in a file once; what comes out of a followed file is bounded all the same."""

    ROWS = 2_000

    def followed(self, tmp_path: Path, **options: object) -> DirectorySource:
        (tmp_path / "in").mkdir(exist_ok=True)
        big = pa.array(["x" * 100_000, "y"])
        same = pa.DictionaryArray.from_arrays(pa.array([n % 2 for n in range(self.ROWS)], pa.int32()), big)
        users = [f"u{n % 5}" for n in range(self.ROWS)]
        table = pa.table({"u": users, "t": range(self.ROWS), "p": same, "extra": same, "n": range(self.ROWS)})
        path = tmp_path / "in" / "a.parquet"
        pq.write_table(table, path, store_schema=False)
        os.utime(path, (1_700_000_000, 1_700_000_000))
        assert path.stat().st_size < 500_000
        return DirectorySource(
            [tmp_path / "in"], dialect=OWN, log_path=tmp_path / "book", extras=True, batch_bytes=500_000, **options
        )

    def test_batches_are_bounded_by_what_they_unfold_to(self, tmp_path: Path) -> None:
        source, seen, largest = self.followed(tmp_path), list[int](), 0
        while PARTITION not in source.caught_up():
            for batch in source.poll(timeout_s=0, now_ms=1_700_000_000_000):
                assert batch.events["extra"].type == pa.string()
                largest = max(largest, decoded_bytes(batch.events))
                seen += times(batch.events)
        assert seen == list(range(self.ROWS))
        assert 1_000_000 < largest < 4 * 500_000 + 2 * 100_000 + 10_000
        source.close()

    def test_reading_goes_on_in_the_same_pieces(self, tmp_path: Path) -> None:
        first = self.followed(tmp_path)
        batches = [batch for _ in range(9) for batch in first.poll(timeout_s=0, now_ms=1_700_000_000_000)]
        first.close()
        position = batches[-1].ranges[PARTITION][1]
        again = self.followed(tmp_path)
        again.seek({PARTITION: position})
        seen = [time for batch in batches for time in times(batch.events)]
        while PARTITION not in again.caught_up():
            seen += [t for batch in again.poll(timeout_s=0, now_ms=1_700_000_000_000) for t in times(batch.events)]
        assert seen == list(range(self.ROWS))
        again.close()

    def test_wide_rows_are_read_some_at_a_time(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pages = [f"{n}-" + "x" * 20_000 for n in range(3_000)]
        pq.write_table(pa.table({"u": ["a"] * 3_000, "t": range(3_000), "p": pages}), path)
        reader = ParquetReader(
            dialect=OWN, columns=None, extras=True, latest_ms=None, slice_rows=50_000, piece_bytes_max=1_000_000
        )
        found = [decoded.events for decoded, _ in reader.batches(str(path), 1_000)]
        assert [t for events in found for t in times(events)] == list(range(3_000))
        assert max(events.num_rows for events in found) <= 51
