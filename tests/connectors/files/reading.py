"""Records in files, and how the tests read them."""

from pathlib import Path

import pyarrow as pa

from sessionize.connectors.files.source import FileSource
from sessionize.connectors.files.source_parquet import ParquetReader
from sessionize.formats.dialects import Dialect
from sessionize.ports import EventBatch

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
