import datetime as dt

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import StringType

from sessionize.connectors.iceberg import (
    Catalog,
    IcebergSink,
    TableLayout,
    events,
    open_table,
    rejected_events,
    user_sessions,
)
from sessionize.errors import ConfigError, OutputError
from sessionize.session.columns import REJECTED_SCHEMA, SESSION_COLUMNS
from sessionize.session.ids import user_hash_buckets


@given(st.lists(st.text(), min_size=1))
def test_buckets_are_those_of_the_iceberg_transform(users: list[str]) -> None:
    bucket = BucketTransform(100).transform(StringType())

    assert user_hash_buckets(pa.array(users)).to_pylist() == [bucket(user) for user in users]


def test_user_sessions_has_every_session_column(catalog: Catalog) -> None:
    table = open_table(catalog, "sessions", "user_sessions", user_sessions("uuid"))

    assert tuple(f.name for f in table.schema().fields) == ("uuid", *SESSION_COLUMNS[1:], "revision")
    assert [f.name for f in table.schema().fields if f.required] == ["uuid"]


def test_events_are_partitioned_by_date_and_sorted_by_bucket(catalog: Catalog) -> None:
    table = open_table(catalog, "sessions", "events", events())

    assert [f.name for f in table.spec().fields] == ["event_date"]
    order = [table.schema().find_column_name(f.source_id) for f in table.sort_order().fields]
    assert order == ["event_date", "user_hash_bucket"]
    assert [f.name for f in table.schema().fields if f.required] == ["user", "event_time_ms"]


def test_rejected_events_are_stored_as_they_are(catalog: Catalog) -> None:
    table = open_table(catalog, "sessions", "rejected_events", rejected_events())

    assert [f.name for f in table.schema().fields] == REJECTED_SCHEMA.names
    assert not table.spec().fields


@pytest.mark.parametrize("layout", [user_sessions(layout="date_bucket"), events(), rejected_events()])
def test_properties_of_the_tables(catalog: Catalog, layout: TableLayout) -> None:
    table = open_table(catalog, "sessions", "t", layout)

    assert table.metadata.format_version == 2
    assert table.properties["write.format.default"] == "parquet"
    assert table.properties["write.parquet.compression-codec"] == "zstd"
    assert table.properties["write.target-file-size-bytes"] == "134217728"
    assert table.properties["write.distribution-mode"] == "hash"


def test_derived_columns_of_events_before_and_after_1970(catalog: Catalog) -> None:
    sink = IcebergSink(catalog, events("uuid"), table="events")
    sink.write(
        pa.table(
            {
                "user": ["ann", "bob", "ann"],
                "event_time_ms": [-1, 0, -86_400_000],
                "page": pa.array(["/a", "/b", None]).dictionary_encode(),
            }
        )
    )
    sink.commit()

    rows = sink.table.scan().to_arrow().sort_by("event_time_ms").to_pylist()
    assert [(r["uuid"], r["event_date"], r["page"]) for r in rows] == [
        ("ann", dt.date(1969, 12, 31), None),
        ("ann", dt.date(1969, 12, 31), "/a"),
        ("bob", dt.date(1970, 1, 1), "/b"),
    ]
    bucket = BucketTransform(100).transform(StringType())
    assert [r["user_hash_bucket"] for r in rows] == [bucket("ann"), bucket("ann"), bucket("bob")]
    partitions = {str(task.file.partition[0]) for task in sink.table.scan().plan_files()}
    assert partitions == {"-1", "0"}


@pytest.mark.parametrize("time_ms", [253_402_300_800_000, 2**62, -(2**62), -62_135_596_800_001])
def test_a_date_outside_the_calendar_is_an_error(catalog: Catalog, time_ms: int) -> None:
    sink = IcebergSink(catalog, events(), table="events", buffer_bytes_max=1)

    with pytest.raises(OutputError, match=r"date cannot name a partition|cannot be derived"):
        sink.write(pa.table({"user": ["ann"], "event_time_ms": [time_ms]}))


def test_a_user_column_called_like_another_column() -> None:
    for layout in (user_sessions, events):
        with pytest.raises(ConfigError, match="same name"):
            layout("USER_HASH_BUCKET")


def test_a_table_made_with_another_user_column(catalog: Catalog) -> None:
    open_table(catalog, "sessions", "user_sessions", user_sessions("uuid"))

    with pytest.raises(OutputError, match="another user column") as caught:
        IcebergSink(catalog, user_sessions("user_id"), table="user_sessions")

    assert "'uuid'" in str(caught.value)
    assert "'user_id'" in str(caught.value)
    assert "another table or another --home" in str(caught.value)
