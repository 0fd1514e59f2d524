"""How tables are divided into files, and that every reader sees the same rows of all of them."""

import datetime as dt
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from pyiceberg.table import Table

from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.iceberg import (
    Catalog,
    IcebergEpochSink,
    IcebergSink,
    TableLayout,
    events,
    load_table,
    open_table,
    planned,
    pruning_report,
    readable,
    user_sessions,
)
from sessionize.connectors.iceberg.layouts import LAYOUTS, LayoutName, layout_of
from sessionize.connectors.iceberg.row_rewrite import RowReplacer
from sessionize.errors import ConfigError
from sessionize.testing.epoch_sinks import epoch_id, epoch_rows
from tests.connectors.iceberg.writing import DAY_MS, sessions

SPECS = {
    "auto": ["session_date: identity"],
    "date": ["session_date: identity"],
    "date_bucket": ["session_date: identity", "user_hash_bucket: identity"],
    "month": ["session_date_month: month"],
    "none": [],
}


def spec_of(table: Table) -> list[str]:
    return [f"{field.name}: {field.transform}" for field in table.spec().fields]


def write(catalog: Catalog, rows: pa.Table, layout: TableLayout | None = None) -> Table:
    sink = IcebergSink(catalog, layout or user_sessions(), table="user_sessions")
    sink.write(rows)
    sink.commit()
    return sink.table


def files_by(table: Table) -> "Counter[str]":
    """How many files there are by each partition spec."""
    names = {number: "+".join(field.name for field in spec.fields) for number, spec in table.specs().items()}
    return Counter(names[task.file.spec_id] for task in table.scan().plan_files())


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_the_layouts_are(catalog: Catalog, name: LayoutName) -> None:
    table = open_table(catalog, "sessions", "user_sessions", user_sessions(layout=name))
    assert spec_of(table) == SPECS[name]
    assert layout_of(table) == name
    by_time = open_table(catalog, "sessions", "events", events(layout=name))
    expected = [field.replace("session", "event") for field in SPECS[name] if not field.startswith("user")]
    assert spec_of(by_time) == expected


def test_buckets_hold_the_same_number_of_values_each(catalog: Catalog) -> None:
    table = write(catalog, sessions(2_000), user_sessions(layout="date_bucket", buckets=10))

    assert spec_of(table) == ["session_date: identity", "user_hash_bucket_trunc: truncate[10]"]
    assert sorted(task.file.partition[1] for task in table.scan().plan_files()) == list(range(0, 100, 10))
    rows = table.scan().to_arrow()
    assert set(rows["user_hash_bucket"].to_pylist()) == set(range(100))
    report = pruning_report(table, bucket=42)
    assert [row.files_planned for row in report] == [10, 10, 1, 1]
    seen = readable(table).data
    assert len(list(seen.get_fragments(ds.field("user_hash_bucket") == 42))) == 1
    mine = seen.to_table(filter=ds.field("user_hash_bucket") == 42)
    assert mine.num_rows == pc.sum(pc.equal(rows["user_hash_bucket"], 42)).as_py() > 0


@pytest.mark.parametrize("buckets", [0, 1, 3, 101, -10])
def test_buckets_that_would_differ_in_size(buckets: int) -> None:
    with pytest.raises(ConfigError, match="number of buckets"):
        user_sessions(layout="date_bucket", buckets=buckets)


@pytest.mark.parametrize(
    ("rows", "days", "expected"),
    [
        (20, 2, {"session_date": 2}),
        (310, 31, {"session_date": 31}),
        (320, 32, {"session_date_month": 2}),
        (4_000, 400, {"session_date_month": 14}),
        (4_000, 2_000, {"": 1}),
        (66_000, 2_000, {"session_date_month": 66}),
    ],
)
def test_auto_makes_few_files_or_files_that_are_worth_it(
    catalog: Catalog, rows: int, days: int, expected: dict[str, int]
) -> None:
    table = write(catalog, sessions(rows, days=days))

    assert files_by(table) == expected
    assert table.scan().count() == rows
    assert [layout.layout for layout in (user_sessions().partitions, events().partitions) if layout] == ["auto"] * 2


def test_an_epoch_of_many_dates_is_few_files_in_each_table(catalog: Catalog) -> None:
    wide = sessions(4_000, days=2_000)
    spread = pa.table({"user": wide["user"], "event_time_ms": wide["session_start_time_ms"]})
    sink = IcebergEpochSink(catalog)
    sink.write_epoch(
        epoch_id(1), epoch_rows(1).with_tables({"user_sessions": wide, "events": spread, "late_events": spread})
    )
    sink.write_epoch(epoch_id(2), epoch_rows(2))

    for name in ("user_sessions", "events", "late_events"):
        table = load_table(catalog, "sessions", name)
        assert [task.file.record_count for task in table.scan().plan_files() if not task.file.partition] == [4_000]
        assert sum(files_by(table).values()) == 2


def divided(catalog: Catalog) -> Table:
    """A table with files of every partition spec that there can be: three layouts, one after the other."""
    write(catalog, sessions(40, days=2), user_sessions(layout="date_bucket", buckets=5))
    write(catalog, sessions(100, days=3), user_sessions(layout="month"))
    write(catalog, sessions(320, days=32), user_sessions(layout="auto"))
    write(catalog, sessions(300, days=300))
    return write(catalog, sessions(10, days=2))


def test_every_reader_sees_the_rows_of_all_specs(catalog: Catalog, tmp_path: Path) -> None:
    table = divided(catalog)
    assert set(files_by(table)) == {
        "session_date+user_hash_bucket_trunc",
        "session_date_month",
        "session_date",
    }
    rows = table.scan().to_arrow()
    assert rows.num_rows == 770
    data = readable(table).data
    assert data.to_table().num_rows == 770
    for day, bucket in ((0, 42), (1, 7), (31, 99), (299, 0)):
        date = dt.date(1970, 1, 1) + dt.timedelta(days=day)
        dated = pc.equal(rows["session_date"], pa.scalar(date))
        both = pc.and_(dated, pc.equal(rows["user_hash_bucket"], bucket))
        expected = [pc.sum(dated).as_py(), pc.sum(both).as_py()]
        filters = [ds.field("session_date") == date, ds.field("user_hash_bucket") == bucket]
        assert data.to_table(filter=filters[0]).num_rows == expected[0]
        assert data.to_table(filter=filters[0] & filters[1]).num_rows == expected[1]
        query = f"SELECT count(*) AS n FROM user_sessions WHERE session_date = '{date}'"
        assert Warehouse(tmp_path).query(query)["n"].to_pylist() == expected[:1]
        assert len(list(data.get_fragments(filters[0]))) == planned(table, f"session_date = '{date}'").files_planned
    assert pruning_report(table)[0].rows_there == 770


def test_rows_in_files_of_all_specs_are_replaced(catalog: Catalog) -> None:
    table = divided(catalog)
    before = Counter(map(repr, table.scan(selected_fields=("user", "session_id")).to_arrow().to_pylist()))
    start = 299 * DAY_MS
    removed = pa.table({"user": ["user-299", "user-0"], "session_id": [f"user-299_{start}", "user-0_0"]})
    added = pa.table({"user": ["user-299"], "session_id": ["new"]})

    replacer = RowReplacer(table, user_sessions())
    dated = added.append_column("session_start_time_ms", pa.array([start]))
    replacer.replace(removed, dated, token="t", start_ms=pa.array([start, 0]))

    gone = [repr(row) for row in removed.to_pylist()]
    expected = (
        before
        - Counter({row: before[row] for row in gone})
        + Counter([repr({"user": "user-299", "session_id": "new"})])
    )
    after = load_table(catalog, "sessions", "user_sessions").scan(selected_fields=("user", "session_id")).to_arrow()
    assert Counter(map(repr, after.to_pylist())) == expected
    assert before[gone[1]] == 5


def test_a_table_keeps_its_layout_until_another_one_is_asked_for(catalog: Catalog) -> None:
    told: list[str] = []
    first = write(catalog, sessions(40), user_sessions(layout="date_bucket"))
    buckets = set(first.scan().to_arrow()["user_hash_bucket"].to_pylist())

    again = write(catalog, sessions(40), user_sessions())
    assert spec_of(again) == SPECS["date_bucket"]
    assert len(list(again.scan().plan_files())) == 2 * len(buckets)

    for _ in range(2):
        changed = open_table(catalog, "sessions", "user_sessions", user_sessions(layout="auto"), on_change=told.append)
    assert spec_of(changed) == SPECS["auto"]
    (change,) = told
    assert "sessions.user_sessions is auto from now on, it was date_bucket" in change
    assert "maintain" in change
    changed = write(catalog, sessions(40, days=2))
    assert files_by(changed) == {"session_date+user_hash_bucket": 2 * len(buckets), "session_date": 2}

    back = write(catalog, sessions(3), user_sessions(layout="date_bucket"))
    assert spec_of(back) == SPECS["date_bucket"]
    assert back.scan().count() == 123


def test_a_table_made_before_layouts_had_names_stays_as_it_is(catalog: Catalog) -> None:
    table = open_table(catalog, "sessions", "user_sessions", user_sessions(layout="date_bucket"))
    with table.transaction() as change:
        change.remove_properties("sessionize.layout")
    told: list[str] = []
    for layout in (user_sessions(), user_sessions(layout="date_bucket")):
        same = open_table(catalog, "sessions", "user_sessions", layout, on_change=told.append)
        assert spec_of(same) == SPECS["date_bucket"]
        assert "sessionize.layout" not in same.properties
    assert told == []
    assert layout_of(same) == "session_date+user_hash_bucket"
