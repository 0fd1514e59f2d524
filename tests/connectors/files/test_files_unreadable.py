"""A disk that fails while a file is read is no damage in the file: nothing is rejected, and reading goes on."""

import errno
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.connectors.files import source_lines, source_ranges
from sessionize.connectors.files.directory_source import PARTITION, DirectorySource
from sessionize.connectors.files.source_text import feed
from sessionize.errors import InputError, UnavailableError
from sessionize.ports import StreamBatch
from tests.connectors.files.reading import OWN, lines, read, read_parquet, times

FAILURES = [(errno.EIO, UnavailableError), (errno.ESTALE, UnavailableError), (errno.ENOENT, InputError)]


def failing(code: int, *, calls: int = 1, then: Callable[..., Any]) -> Callable[..., Any]:
    """Fails as often as told, and does what it should then."""
    left = [calls]

    def call(*args: Any, **more: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(code, os.strerror(code))
        return then(*args, **more)

    return call


def parquet(path: Path) -> list[int]:
    """A file of three row groups; its times."""
    pq.write_table(pa.table({"u": ["a"] * 300, "t": range(300), "p": ["/"] * 300}), path, row_group_size=100)
    return list(range(300))


@pytest.mark.parametrize(("code", "kind"), FAILURES)
@pytest.mark.parametrize(("group_rows_max", "call"), [(10**6, "read_row_group"), (10, "iter_batches")])
def test_a_row_group_that_cannot_be_had_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_rows_max: int, call: str, code: int, kind: type[Exception]
) -> None:
    expected = parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(pq.ParquetFile, call, failing(code, then=getattr(pq.ParquetFile, call)))
    with pytest.raises(kind, match=os.strerror(code)):
        read_parquet(tmp_path / "a.parquet", OWN, group_rows_max=group_rows_max)
    events, rejected, _ = read_parquet(tmp_path / "a.parquet", OWN, group_rows_max=group_rows_max)
    assert (times(events), rejected.num_rows) == (expected, 0)


@pytest.mark.parametrize(("code", "kind"), FAILURES)
@pytest.mark.parametrize(("name", "module"), [("a.ndjson", source_ranges), ("a.ndjson.gz", source_lines)])
def test_text_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: Any, code: int, kind: type[Exception]
) -> None:
    (tmp_path / name).write_bytes(gzip.compress(lines(3)) if name.endswith(".gz") else lines(3))
    monkeypatch.setattr(module, "feed", failing(code, then=feed))
    with pytest.raises(kind, match=rf"(?s){name}.*{os.strerror(code)}"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.ndjson", "a.parquet"])
def test_a_followed_file_is_read_on_when_the_disk_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    if path.suffix == ".parquet":
        expected = parquet(path)
        monkeypatch.setattr(pq.ParquetFile, "iter_batches", failing(errno.EIO, then=pq.ParquetFile.iter_batches))
    else:
        expected = list(range(300))
        path.write_bytes(lines(300))
        monkeypatch.setattr(source_lines, "feed", failing(errno.EIO, then=feed))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    following = DirectorySource([tmp_path / "in"], dialect=OWN, log_path=tmp_path / "state" / "book", batch_records=50)
    with pytest.raises(UnavailableError, match="cannot be read now"):
        following.poll(timeout_s=0, now_ms=1_700_000_000_000)
    batches: list[StreamBatch] = []
    while PARTITION not in following.caught_up():
        batches += following.poll(timeout_s=0, now_ms=1_700_000_000_000)
    assert [time for batch in batches for time in times(batch.events)] == expected
    assert sum(batch.rejected.num_rows for batch in batches) == 0
