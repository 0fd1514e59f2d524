"""Parquet as a source: row groups in slices, users that stay plain text, and threads that end."""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.connectors.files.source import FileSource
from sessionize.errors import InputError
from sessionize.formats.dialects import Dialect
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
