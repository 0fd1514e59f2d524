"""Damage inside of files: what is whole is read, every record that is lost counts, and somebody is told."""

import gzip
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize import Policy, Rules
from sessionize.connectors.files.directory_source import DirectorySource
from sessionize.connectors.files.source import FileSource
from sessionize.engine.accounting import Accounting
from sessionize.engine.batch.outputs import Outputs
from sessionize.engine.batch.sessions import run_batch
from sessionize.ports import EventBatch
from sessionize.session.definition import SessionDefinition
from sessionize.testing.streams import InMemoryEpochSink
from tests.connectors.files.reading import OWN, lines, read_parquet, times
from tests.engine.stream_runs import Crash, engine, run

ROWS, GROUP = 15_000, 5_000


def damaged_parquet(path: Path, *, group: int = 1, at: float = 0.5) -> None:
    """Three row groups of 5,000 rows in several pages; a byte of the user column of one of them is flipped."""
    users = [f"user-{n:05}" for n in range(ROWS)]
    table = pa.table({"u": users, "t": range(ROWS), "p": ["/"] * ROWS})
    pq.write_table(
        table, path, row_group_size=GROUP, use_dictionary=False, data_page_size=4_000, write_page_checksum=True
    )
    column = pq.read_metadata(path).row_group(group).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + int(at * column.total_compressed_size)] ^= 0xFF
    path.write_bytes(data)


class Nowhere:
    def __init__(self) -> None:
        self.rows = 0

    def write(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows

    def commit(self) -> None: ...

    def abort(self) -> None: ...


def batched(*paths: Path) -> tuple[Accounting, Nowhere]:
    rejects = Nowhere()
    source = FileSource(list(paths), dialect=OWN)
    accounting = run_batch(source, Outputs(sessions=Nowhere(), rejected=rejects), SessionDefinition(policy=Policy()))
    return accounting, rejects


@pytest.mark.parametrize("at", [0.02, 0.3, 0.97])
def test_every_row_of_a_damaged_row_group_counts(tmp_path: Path, at: float, caplog: pytest.LogCaptureFixture) -> None:
    damaged_parquet(tmp_path / "a.parquet", at=at)
    with caplog.at_level(logging.WARNING, "sessionize.input"):
        accounting, rejects = batched(tmp_path / "a.parquet")
    lost = accounting.rejected_by_reason["corrupt_parquet"]
    assert (accounting.consumed, accounting.settled + lost, accounting.rejected, rejects.rows) == (ROWS, ROWS, lost, 1)
    assert accounting.balanced
    assert 0 < lost <= GROUP
    assert f"{tmp_path / 'a.parquet'} is damaged: {lost:,} rows of row group 1 cannot be read" in caplog.text


@pytest.mark.parametrize("group_rows_max", [10**6, 10])
def test_the_rows_before_the_damage_are_read_whether_in_slices_or_not(tmp_path: Path, group_rows_max: int) -> None:
    damaged_parquet(tmp_path / "a.parquet", at=0.5)
    events, rejected, _ = read_parquet(tmp_path / "a.parquet", OWN, group_rows_max=group_rows_max)
    (record,) = rejected.to_pylist()
    first_lost = record["line_number"] - 1
    assert times(events) == [*range(first_lost), *range(2 * GROUP, ROWS)]
    assert events["user"].to_pylist() == [f"user-{n:05}" for n in times(events)]
    assert GROUP + 1_000 < first_lost < 2 * GROUP - 1_000  # the damage is in the middle of the row group
    assert f"{2 * GROUP - first_lost:,} rows of row group 1 cannot be read" in record["detail"]


@pytest.mark.parametrize("followed", [False, True])
def test_rows_that_pyarrow_leaves_out_without_an_error_count_as_lost(tmp_path: Path, followed: bool) -> None:
    """A page of a kind that it does not know is passed over: in slices that looks like the end of the row group."""
    path = tmp_path / "a.parquet"
    table = pa.table({"u": ["a"] * 600, "t": range(600), "p": [f"x{n % 7}" for n in range(600)]})
    pq.write_table(table, path, row_group_size=200)
    data = bytearray(path.read_bytes())
    page = pq.read_metadata(path).row_group(1).column(1).data_page_offset
    assert data[page : page + 2] == b"\x15\x00"  # the first field of a page's header, its kind
    data[page + 1] = 12
    path.write_bytes(data)
    source = FileSource([path], dialect=OWN, **({"batch_records": 50} if followed else {}))
    batches = list(source.batches())
    assert sum(batch.consumed for batch in batches) == 600
    assert [time for batch in batches for time in times(batch.events)] == [*range(200), *range(400, 600)]
    (record,) = [record for batch in batches for record in batch.rejected.to_pylist()]
    assert record["detail"].startswith("200 rows of row group 1 cannot be read, from row 201 of the file on")


def test_a_followed_file_counts_the_same_also_when_the_epoch_is_repeated(tmp_path: Path) -> None:
    folder, sink, crashes = tmp_path / "in", InMemoryEpochSink(), ["write kept", "commit", "planned", "write kept"]
    folder.mkdir()
    damaged_parquet(folder / "a.parquet")
    expected, _ = batched(folder / "a.parquet")

    def step(name: str) -> None:
        if crashes and name == crashes[0]:
            raise Crash(crashes.pop(0))

    made = run(
        lambda: engine(
            tmp_path / "state",
            DirectorySource(
                [folder], dialect=OWN, log_path=tmp_path / "state" / "book", bounded=True, settle_s=0, batch_records=700
            ),
            {"kept": sink},
            rule=Rules(),
            lateness=10**9,
            on_step=step,
        ),
        crashes=True,
    )
    assert crashes == []
    assert made.accounting.balanced
    assert (made.accounting.consumed, made.accounting.rejected_by_reason) == (ROWS, expected.rejected_by_reason)
    assert (sink.count("events"), sink.count("rejected_events")) == (expected.settled, 1)


def test_an_epoch_reports_the_rows_that_were_lost(tmp_path: Path) -> None:
    folder, told = tmp_path / "in", list[tuple[int, dict[str, int], bool]]()
    folder.mkdir()
    damaged_parquet(folder / "a.parquet", at=0.01)
    source = DirectorySource([folder], dialect=OWN, log_path=tmp_path / "book", bounded=True, settle_s=0)
    run(
        lambda: engine(
            tmp_path / "state",
            source,
            {"kept": InMemoryEpochSink()},
            on_epoch=lambda report: told.append((report.rejected, report.reasons, report.accounting.balanced)),
        )
    )
    assert sum(rejected for rejected, _, _ in told) == sum(r.get("corrupt_parquet", 0) for _, r, _ in told) > 1
    assert all(balanced for _, _, balanced in told)


def one_batch(path: Path) -> EventBatch:
    (batch,) = FileSource([path], dialect=OWN).batches()
    return batch


@pytest.mark.parametrize("content", [b"", b"\x1f", b"\x1f\x8b", gzip.compress(lines(3), mtime=0)[:12]])
@pytest.mark.parametrize("name", ["a.ndjson.gz", "a.csv.gz"])
def test_a_gzip_file_without_a_whole_line_is_one_rejected_record(
    tmp_path: Path, name: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_bytes(content)
    with caplog.at_level(logging.WARNING, "sessionize.input"):
        batch = one_batch(tmp_path / name)
    assert batch.events.num_rows == 0
    assert [(r["reason"], r["line_number"]) for r in batch.rejected.to_pylist()] == [("truncated_gzip", 1)]
    assert "is damaged" in caplog.text
    assert "it has no whole line" in caplog.text


def test_a_damaged_gzip_file_is_told_with_what_was_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(gzip.compress(lines(200_000), 1))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.ndjson.gz").write_bytes(data)
    with caplog.at_level(logging.WARNING, "sessionize.input"):
        batches = list(FileSource([tmp_path / "a.ndjson.gz"], dialect=OWN).batches())
    lost = [record for batch in batches for record in batch.rejected.to_pylist()]
    assert lost[-1]["reason"] in ("corrupt_gzip", "truncated_gzip")
    whole = lost[-1]["line_number"] - 1
    assert f"a.ndjson.gz is damaged: {lost[-1]['detail']}; {whole:,} whole lines before are read" in caplog.text


def test_a_header_that_is_cut_off_does_not_pass_for_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"u,t,p\n" + b"a,1,/\n" * 10_000, 0)[:14])
    batch = one_batch(tmp_path / "a.csv.gz")
    assert [(r["reason"], r["raw"]) for r in batch.rejected.to_pylist()] == [("truncated_gzip", None)]
