"""A followed directory on a machine that has run out of something."""

import gzip
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.errors import InputError, OutputError, UnavailableError
from tests.connectors.files.following import NOW_MS, everything, expected, lines, put, source, users


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
    """However old it is, it is not set aside; neither when it is taken up, nor in the middle."""
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
            with suppress(InputError, OutputError, UnavailableError):
                batches += following.poll(timeout_s=0, now_ms=NOW_MS)
    with suppress(InputError, OutputError, UnavailableError):  # of what was read ahead it is told now
        batches += following.poll(timeout_s=0, now_ms=NOW_MS)
    batches += everything(following)
    assert users(batches) == expected(("a", 200))
    assert sum(batch.rejected.num_rows for batch in batches) == 0
    following.close()
