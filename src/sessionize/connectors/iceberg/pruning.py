"""Reports the benefit of the layout: the files and rows that a filter still reads, and the spread of users.

Source: docs/spec/sessions.md, session columns (date, bucket). A filter skips files by the table's metadata, and row
groups of the other files by the statistics in their footers.
"""

import datetime as dt
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyiceberg.table import Table
from pyparsing import ParseException

from sessionize.connectors.iceberg.dataset import readable
from sessionize.errors import ConfigError
from sessionize.session.columns import BUCKET_COUNT, SESSION_DATE, USER, USER_HASH_BUCKET

# The parser lists its whole grammar before the position of the error.
_DETAIL_MAX = 200


@dataclass(frozen=True, slots=True)
class PruningRow:
    """One filter: the files it reads of all files, and the rows in the parts that it reads."""

    filter: str
    files_planned: int
    files_there: int
    rows_planned: int
    rows_there: int


@dataclass(frozen=True, slots=True)
class BucketSpread:
    """Distinct users in each of the 100 buckets; a bucket without users counts as 0."""

    users: int
    users_min: int
    users_median: float
    users_max: int


def planned(table: Table, predicate: str | None) -> PruningRow:
    """The files that a scan with this filter reads, and all rows in them. predicate: Iceberg's text form, such as
    "page = '/a'"; None: all.

    Errors: ConfigError for a filter that does not parse or names an unknown column.
    """
    every = [task.file.record_count for task in table.scan().plan_files()]
    if predicate is None:
        return PruningRow("none", len(every), len(every), sum(every), sum(every))
    try:
        some = [task.file.record_count for task in table.scan(row_filter=predicate).plan_files()]
    except (ParseException, ValueError, TypeError) as error:
        raise ConfigError("a filter cannot be applied", detail=f"{predicate}: {str(error)[-_DETAIL_MAX:]}") from error
    return PruningRow(predicate, len(some), len(every), sum(some), sum(every))


def pruning_report(table: Table, *, date: dt.date | None = None, bucket: int | None = None) -> list[PruningRow]:
    """Rows for: no filter, a filter on the date, on the bucket, on both. Empty for a table without rows.

    Rows are counted by row group, as `query` reads them.

    `date` and `bucket` default to the ones with the most rows: the case in which pruning helps least.
    """
    largest = _largest(table)
    if largest is None:
        return []
    day = largest[0] if date is None else date
    number = largest[1] if bucket is None else bucket
    on_date, on_bucket = f"{SESSION_DATE} = '{day}'", f"{USER_HASH_BUCKET} = {number}"
    dated, of_bucket = ds.field(SESSION_DATE) == pa.scalar(day, pa.date32()), ds.field(USER_HASH_BUCKET) == number
    filters = ((on_date, dated), (on_bucket, of_bucket), (f"{on_date} and {on_bucket}", dated & of_bucket))
    data = readable(table).data
    return [planned(table, None), *(_read_by(planned(table, text), data, keep) for text, keep in filters)]


def _read_by(plan: PruningRow, data: ds.Dataset | pa.Table, keep: ds.Expression) -> PruningRow:
    """The plan with only the rows of row groups that can match the filter."""
    if isinstance(data, pa.Table):
        return plan
    groups = (
        group
        for fragment in data.get_fragments(keep)
        for part in fragment.split_by_row_group(keep, data.schema)
        for group in part.row_groups
    )
    return replace(plan, rows_planned=sum(group.num_rows for group in groups))


def printed_rows(report: list[PruningRow]) -> list[tuple[str, str, str, str]]:
    """A report as cells: filter, "files planned / total", "rows planned / total", share of rows unread."""
    return [
        (
            row.filter,
            f"{row.files_planned:,} / {row.files_there:,}",
            f"{row.rows_planned:,} / {row.rows_there:,}",
            f"{1 - row.rows_planned / row.rows_there:.1%}" if row.rows_there else "–",
        )
        for row in report
    ]


def bucket_spread(table: Table, *, user_name: str = USER) -> BucketSpread:
    """The number of distinct users in each bucket. Memory: the table's distinct users, and a batch."""
    seen = pa.table({user_name: pa.array([], pa.string()), USER_HASH_BUCKET: pa.array([], pa.int32())})
    for batch in table.scan(selected_fields=(user_name, USER_HASH_BUCKET)).to_arrow_batch_reader():
        rows = pa.table(batch).select(seen.column_names).cast(seen.schema)
        seen = pa.concat_tables([seen, rows]).group_by(seen.column_names).aggregate([])
    counted = pc.value_counts(seen.column(USER_HASH_BUCKET).drop_null())
    counts = np.zeros(BUCKET_COUNT, np.int64)
    counts[counted.field("values").to_numpy()] = counted.field("counts").to_numpy()
    return BucketSpread(seen.num_rows, int(counts.min()), float(np.median(counts)), int(counts.max()))


def _largest(table: Table) -> tuple[dt.date, int] | None:
    """The date and the bucket with the most rows."""
    if not {SESSION_DATE, USER_HASH_BUCKET} <= set(table.schema().column_names):
        raise ConfigError(
            "a table has no date and bucket of sessions",
            detail=f"{'.'.join(table.name())} has {', '.join(table.schema().column_names)}",
            hint="give a table of sessions",
        )
    dates: Counter[dt.date] = Counter()
    buckets: Counter[int] = Counter()
    for batch in table.scan(selected_fields=(SESSION_DATE, USER_HASH_BUCKET)).to_arrow_batch_reader():
        for name, counts in ((SESSION_DATE, dates), (USER_HASH_BUCKET, buckets)):
            found = pc.value_counts(batch.column(name).drop_null())
            counts.update(dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)))
    if not dates or not buckets:
        return None
    return dates.most_common(1)[0][0], buckets.most_common(1)[0][0]
