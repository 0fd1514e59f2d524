import datetime as dt
from dataclasses import replace

import pyarrow as pa
import pytest

from sessionize.connectors.iceberg import (
    BucketSpread,
    Catalog,
    IcebergSink,
    PruningRow,
    bucket_spread,
    events,
    planned,
    printed_rows,
    pruning_report,
    user_sessions,
)
from sessionize.errors import ConfigError
from tests.connectors.iceberg.writing import sessions


def grid(catalog: Catalog) -> IcebergSink:
    """Three days, four buckets; day d and bucket b hold (d + 1) * (b + 1) rows: twelve files, sixty rows."""
    rows = [
        {"user": f"user-{b}-{i}", "session_date": dt.date(2024, 1, 15 + d), "user_hash_bucket": b * 10}
        for d in range(3)
        for b in range(4)
        for i in range((d + 1) * (b + 1))
    ]
    types = pa.schema([("user", pa.string()), ("session_date", pa.date32()), ("user_hash_bucket", pa.int32())])
    sink = IcebergSink(catalog, user_sessions(layout="date_bucket"), table="user_sessions")
    sink.write(pa.Table.from_pylist(rows, schema=types))
    sink.commit()
    return sink


def test_filters_on_date_on_bucket_and_on_both_leave_exactly_their_files(catalog: Catalog) -> None:
    report = pruning_report(grid(catalog).table, date=dt.date(2024, 1, 16), bucket=20)

    assert report == [
        PruningRow("none", 12, 12, 60, 60),
        PruningRow("session_date = '2024-01-16'", 4, 12, 20, 60),
        PruningRow("user_hash_bucket = 20", 3, 12, 18, 60),
        PruningRow("session_date = '2024-01-16' and user_hash_bucket = 20", 1, 12, 6, 60),
    ]


def test_without_a_choice_the_largest_date_and_bucket_are_taken(catalog: Catalog) -> None:
    last = pruning_report(grid(catalog).table)[-1]

    assert last == PruningRow("session_date = '2024-01-17' and user_hash_bucket = 30", 1, 12, 12, 60)


def test_a_date_that_is_not_there_leaves_nothing(catalog: Catalog) -> None:
    report = pruning_report(grid(catalog).table, date=dt.date(1969, 12, 31))

    assert (report[1].files_planned, report[1].rows_planned) == (0, 0)


def test_any_filter_can_be_planned(catalog: Catalog) -> None:
    table = grid(catalog).table

    assert planned(table, "session_date >= '2024-01-16' and user_hash_bucket in (0, 10)").files_planned == 4
    for wrong in ("nosuch = 1", "session_date =", "session_date = 'soon'"):
        with pytest.raises(ConfigError, match="filter cannot be applied"):
            planned(table, wrong)


def test_a_report_as_cells(catalog: Catalog) -> None:
    cells = printed_rows(pruning_report(grid(catalog).table, date=dt.date(2024, 1, 16), bucket=20))

    assert cells[0] == ("none", "12 / 12", "60 / 60", "0.0%")
    assert cells[3] == ("session_date = '2024-01-16' and user_hash_bucket = 20", "1 / 12", "6 / 60", "90.0%")


def test_an_empty_table_has_an_empty_report(catalog: Catalog) -> None:
    table = IcebergSink(catalog, user_sessions(), table="user_sessions").table

    assert pruning_report(table) == []
    assert bucket_spread(table) == BucketSpread(0, 0, 0.0, 0)


def test_a_bucket_is_found_by_row_groups_where_files_are_by_date(catalog: Catalog) -> None:
    layout = user_sessions()
    small = replace(layout, properties={**layout.properties, "write.parquet.row-group-limit": "500"})
    sink = IcebergSink(catalog, small, table="user_sessions")
    sink.write(sessions(20_000, days=2))
    sink.commit()

    report = pruning_report(sink.table, date=dt.date(1970, 1, 2), bucket=7)

    assert [(row.files_planned, row.files_there) for row in report] == [(2, 2), (1, 2), (2, 2), (1, 2)]
    assert report[1].rows_planned == 10_000
    # a bucket has some 200 of 20,000 rows: one or two row groups of 500 in each file
    assert 1_000 <= report[2].rows_planned <= 2_000
    assert 500 <= report[3].rows_planned <= 1_000


def test_a_table_that_is_not_of_sessions_has_no_report(catalog: Catalog) -> None:
    with pytest.raises(ConfigError, match="no date and bucket of sessions"):
        pruning_report(IcebergSink(catalog, events(), table="events").table)


def test_a_user_counts_once_in_its_bucket(catalog: Catalog) -> None:
    spread = bucket_spread(grid(catalog).table)

    # Bucket b * 10 has the users of its largest day, 3 * (b + 1); the other 96 buckets have none.
    assert spread == BucketSpread(users=3 + 6 + 9 + 12, users_min=0, users_median=0.0, users_max=12)


def test_users_spread_evenly_over_the_buckets(catalog: Catalog) -> None:
    users = [f"user-{i:06d}" for i in range(20_000)]
    sink = IcebergSink(catalog, user_sessions("uuid"), table="user_sessions")
    sink.write(pa.table({"uuid": users, "session_start_time_ms": [0] * len(users)}))
    sink.commit()

    spread = bucket_spread(sink.table, user_name="uuid")

    # 200 users a bucket on average; five standard deviations of chance are about 70.
    assert spread.users == len(users)
    assert 130 < spread.users_min <= spread.users_median <= spread.users_max < 270
    assert abs(spread.users_median - 200) < 10
