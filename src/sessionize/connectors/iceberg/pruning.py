"""What the partitions are worth: how many of a table's files a filter leaves to read, and how evenly users
spread.

Source: docs/spec/sessions.md, session columns (date, bucket). Planning reads metadata only, never a data
file.
"""

import datetime as dt
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table
from pyparsing import ParseException

from sessionize.errors import ConfigError
from sessionize.session.columns import BUCKET_COUNT, SESSION_DATE, USER, USER_HASH_BUCKET

_EPOCH = dt.date(1970, 1, 1)
# The parser lists its whole grammar before it says where it stopped.
_DETAIL_MAX = 200


@dataclass(frozen=True, slots=True)
class PruningRow:
    """One filter: the files that would be read against the files there, and the rows in them."""

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
    """What a scan with this filter would read. predicate: Iceberg's text form, such as "page = '/a'"; None:
    all.

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

    Without `date` or `bucket`, the one with the most rows is taken: the case in which pruning helps least.
    """
    largest = _largest_partition(table)
    if largest is None:
        return []
    day = largest[0] if date is None else date
    number = largest[1] if bucket is None else bucket
    on_date, on_bucket = f"{SESSION_DATE} = '{day}'", f"{USER_HASH_BUCKET} = {number}"
    return [planned(table, filter_) for filter_ in (None, on_date, on_bucket, f"{on_date} and {on_bucket}")]


def printed_rows(report: list[PruningRow]) -> list[tuple[str, str, str, str]]:
    """A report as cells: filter, "files planned / there", "rows planned / there", share of rows unread."""
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
    """How many distinct users each bucket has. Memory: the table's distinct users, a batch at a time."""
    seen = pa.table({user_name: pa.array([], pa.string()), USER_HASH_BUCKET: pa.array([], pa.int32())})
    for batch in table.scan(selected_fields=(user_name, USER_HASH_BUCKET)).to_arrow_batch_reader():
        rows = pa.table(batch).select(seen.column_names).cast(seen.schema)
        seen = pa.concat_tables([seen, rows]).group_by(seen.column_names).aggregate([])
    counted = pc.value_counts(seen.column(USER_HASH_BUCKET).drop_null())
    counts = np.zeros(BUCKET_COUNT, np.int64)
    counts[counted.field("values").to_numpy()] = counted.field("counts").to_numpy()
    return BucketSpread(seen.num_rows, int(counts.min()), float(np.median(counts)), int(counts.max()))


def _largest_partition(table: Table) -> tuple[dt.date, int] | None:
    """The date and the bucket with the most rows, by the partitions alone."""
    names = [field.name for field in table.spec().fields]
    if SESSION_DATE not in names or USER_HASH_BUCKET not in names:
        raise ConfigError(
            "a table is not partitioned by date and bucket",
            detail=f"{'.'.join(table.name())} is partitioned by {', '.join(names) or 'nothing'}",
        )
    dates: Counter[int] = Counter()
    buckets: Counter[int] = Counter()
    for task in table.scan().plan_files():
        day, bucket = (task.file.partition[names.index(name)] for name in (SESSION_DATE, USER_HASH_BUCKET))
        if day is not None and bucket is not None:
            dates[day] += task.file.record_count
            buckets[bucket] += task.file.record_count
    if not dates:
        return None
    return _EPOCH + dt.timedelta(days=dates.most_common(1)[0][0]), buckets.most_common(1)[0][0]
