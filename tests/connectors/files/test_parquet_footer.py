"""The numbers that are taken from a footer without pyarrow are those that pyarrow has."""

import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.connectors.files.parquet_footer import ChunkSize, first_chunk_sizes


def written(path: Path, columns: int, **options: object) -> pq.FileMetaData:
    texts = {f"c{n}": [f"{n}-{row}" * (n % 5) for row in range(300)] for n in range(columns)}
    more = {"number": range(300), "flag": [True] * 300, "list": [[1, 2]] * 300, "nothing": [None] * 300}
    pq.write_table(pa.table({**more, **texts}), path, row_group_size=100, **options)
    return pq.read_metadata(path)


@pytest.mark.parametrize("columns", [1, 20, 200])
@pytest.mark.parametrize(
    "options", [{}, {"store_schema": False, "use_dictionary": False}, {"write_page_index": True, "version": "1.0"}]
)
def test_they_are_those_of_pyarrow(tmp_path: Path, columns: int, options: dict[str, object]) -> None:
    metadata = written(tmp_path / "a.parquet", columns, **options)
    group = metadata.row_group(0)
    for place in range(metadata.num_columns):
        chunk = group.column(place)
        expected = ChunkSize(chunk.num_values, chunk.total_uncompressed_size)
        assert first_chunk_sizes(str(tmp_path / "a.parquet"), frozenset({place}), metadata.num_columns) == [expected]


def test_nothing_where_nothing_can_be_known(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    metadata = written(path, 3)
    assert first_chunk_sizes(str(path), frozenset(), metadata.num_columns) == []
    assert first_chunk_sizes(str(path), frozenset({1}), 10**6) == []
    assert first_chunk_sizes(str(path), frozenset({99}), metadata.num_columns) == []
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), path)
    assert len(first_chunk_sizes(str(path), frozenset({0}), 1)) <= 1
    for content in (b"", b"PAR1", b"\xff\xff\xff\xffPAR1", b"x" * 100):
        path.write_bytes(content)
        assert first_chunk_sizes(str(path), frozenset({0}), 1) == []


def test_damage_gives_numbers_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = written(path, 5).num_columns
    good = path.read_bytes()
    footer = int.from_bytes(good[-8:-4], "little") + 8
    for seed in range(2_000):
        damage, data = random.Random(seed), bytearray(good)
        for _ in range(damage.choice([1, 2, 9])):
            data[damage.randrange(len(data) - footer, len(data) - 8)] = damage.randrange(256)
        path.write_bytes(data)
        found = first_chunk_sizes(str(path), frozenset({0, 4}), columns)
        assert all(isinstance(chunk.num_values, int) for chunk in found)


_HISTOGRAM = """
import random, sys
import pyarrow as pa, pyarrow.parquet as pq
from sessionize.connectors.files.source import FileSource
from sessionize.formats.dialects import Dialect
path = sys.argv[1]
users = [f"user-{n:020d}" for n in range(600)]
table = pa.table({"u": users, "t": range(600), "p": ["x"] * 600, "d": [{"x": "y"}] * 600})
pq.write_table(table, path, row_group_size=200, use_dictionary=["p"], store_schema=False)
data = bytearray(open(path, "rb").read())
footer = int.from_bytes(data[-8:-4], "little") + 8
damage = random.Random(5985)
for _ in range(damage.choice([1, 1, 2, 5, 9])):
    data[damage.randrange(len(data) - footer, len(data) - 8)] = damage.randrange(256)
open(path, "wb").write(data)
source = FileSource([path], dialect=Dialect.mapping(user="u", time="t", page="p"), plain_users=True)
batches = list(source.batches())
print(sum(batch.consumed for batch in batches))
"""


def test_a_footer_with_which_pyarrow_ended_the_process(tmp_path: Path) -> None:
    """Its sizes of the user column were asked for, and two of them did not fit each other."""
    command = [sys.executable, "-c", _HISTOGRAM, str(tmp_path / "a.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "600\n"), done.stderr
