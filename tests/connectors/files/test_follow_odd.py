"""A followed directory with links in it, and on a machine that has run out of something."""

import gzip
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.errors import UnavailableError
from tests.connectors.files.following import NOW_MS, everything, expected, lines, put, source, users


def test_links_that_lead_out_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "in" / "day" / "a.ndjson", lines("a", 3))
    put(tmp_path / "secret.txt", b"password=hunter2\n")
    (tmp_path / "in" / "out.ndjson").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "in" / "inside.ndjson").symlink_to(tmp_path / "in" / "day" / "a.ndjson")
    batches = list(everything(source(tmp_path)))
    assert users(batches) == expected(("a", 3))
    assert sum(batch.rejected.num_rows for batch in batches) == 0
    assert [record.getMessage() for record in caplog.records if "link" in record.getMessage()] != []


def test_a_link_that_is_named_itself_is_read(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere.ndjson", lines("a", 3))
    (tmp_path / "named.ndjson").symlink_to(tmp_path / "elsewhere.ndjson")
    assert users(list(everything(source(tmp_path, tmp_path / "named.ndjson")))) == expected(("a", 3))


def test_folders_that_are_links_lead_nowhere_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "in" / "day" / "a.ndjson", lines("a", 3))
    put(tmp_path / "secret" / "b.ndjson", lines("b", 3))
    (tmp_path / "in" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "day" / "again").symlink_to(tmp_path / "in" / "day")
    pattern = tmp_path / "in" / "**" / "*.ndjson"
    assert users(list(everything(source(tmp_path, pattern)))) == expected(("a", 3))
    assert "out/b.ndjson leads by a link to a file outside" in caplog.text


def test_a_link_to_a_file_that_is_not_followed_itself_is_read(tmp_path: Path) -> None:
    """As folders are exchanged as a whole, by one link to a hidden one."""
    put(tmp_path / "real" / "in" / "..data" / "a.ndjson", lines("a", 3))
    (tmp_path / "real" / "in" / "a.ndjson").symlink_to(Path("..data") / "a.ndjson")
    (tmp_path / "in").symlink_to(tmp_path / "real" / "in")
    following = source(tmp_path)
    assert users(list(everything(following))) == expected(("a", 3))
    put(tmp_path / "in" / "b.ndjson", lines("b", 2))
    (tmp_path / "in" / "current.ndjson").symlink_to("b.ndjson")
    assert users(list(everything(following))) == []  # what the last look found is asked first
    assert users(following.poll(timeout_s=20, now_ms=NOW_MS)) == expected(("b", 2))
    assert list(everything(following)) == []


@contextmanager
def no_more_files() -> Iterator[None]:
    """This process cannot open any."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("ending", ["ndjson", "csv.gz", "parquet"])
@pytest.mark.parametrize("polls", [0, 2])
def test_a_file_is_not_at_fault_for_what_the_machine_lacks(tmp_path: Path, ending: str, polls: int) -> None:
    """However old it is; neither when it is taken up, nor in the middle."""
    rows = [(f"a-{n}", NOW_MS + n, "x") for n in range(200)]
    if ending == "parquet":
        out = pa.BufferOutputStream()
        table = pa.table(dict(zip(("user_id", "timestamp", "url"), zip(*rows, strict=True), strict=True)))
        pq.write_table(table, out, row_group_size=20)
        data = bytes(out.getvalue())
    elif ending == "csv.gz":
        data = gzip.compress(b"user_id,timestamp,url\n" + b"".join(b"%s,%d,x\n" % (u.encode(), t) for u, t, _ in rows))
    else:
        data = lines("a", 200)
    put(tmp_path / "in" / f"a.{ending}", data)
    following = source(tmp_path)
    batches = [batch for _ in range(polls) for batch in following.poll(timeout_s=0, now_ms=NOW_MS)]
    with no_more_files():
        for _ in range(3):
            with suppress(UnavailableError):
                batches += following.poll(timeout_s=0, now_ms=NOW_MS)
    batches += everything(following)
    assert users(batches) == expected(("a", 200))
    assert sum(batch.rejected.num_rows for batch in batches) == 0
    following.close()
