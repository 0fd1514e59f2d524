import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.types import DoubleType, LongType, StringType

from sessionize.connectors.iceberg import (
    Catalog,
    IcebergSink,
    events,
    load_table,
    open_catalog,
    readable,
    user_sessions,
)
from sessionize.connectors.iceberg import schema_evolution as alignment
from sessionize.errors import OutputError


def write(catalog: Catalog, *parts: dict[str, object], buffer_bytes_max: int = 1 << 20) -> IcebergSink:
    sink = IcebergSink(catalog, events(), table="events", buffer_bytes_max=buffer_bytes_max)
    for part in parts:
        sink.write(pa.table(part))
    sink.commit()
    return sink


def stored(catalog: Catalog, *columns: str) -> list[tuple[object, ...]]:
    """The rows by time, as pyiceberg reads them; the dataset that queries use must say the same."""
    table = load_table(catalog, "sessions", "events")
    rows = table.scan().to_arrow().sort_by("event_time_ms").select(list(columns))
    read = readable(table)
    data = read.data if isinstance(read.data, pa.Table) else read.data.to_table()
    by_time = data.rename_columns(list(read.names)).sort_by("event_time_ms")
    assert by_time.select(list(columns)).to_pylist() == rows.to_pylist()
    return [tuple(row.values()) for row in rows.to_pylist()]


def files(catalog: Catalog) -> dict[str, bytes]:
    tasks = load_table(catalog, "sessions", "events").scan().plan_files()
    paths = [task.file.file_path.removeprefix("file://") for task in tasks]
    return {path: Path(path).read_bytes() for path in paths}


def test_a_new_column_reaches_the_table_without_a_rewrite(catalog: Catalog) -> None:
    write(catalog, {"user": ["ann"], "event_time_ms": [1]})
    old_files = files(catalog)
    commits = len(load_table(catalog, "sessions", "events").metadata.metadata_log)

    sink = write(catalog, {"user": ["bob"], "event_time_ms": [2], "campaign": ["spring"], "score": [0.5]})

    assert stored(catalog, "user", "campaign", "score") == [("ann", None, None), ("bob", "spring", 0.5)]
    assert old_files.items() <= files(catalog).items()
    assert not sink.table.schema().find_field("campaign").required
    assert len(sink.table.metadata.metadata_log) == commits + 1
    assert len(sink.table.snapshots()) == 2


def test_a_column_that_appears_in_the_middle_of_a_run(catalog: Catalog) -> None:
    for buffer_bytes_max in (1, 1 << 20):
        write(
            catalog,
            {"user": ["ann"], "event_time_ms": [1]},
            {"user": ["bob"], "event_time_ms": [2], f"tags_{buffer_bytes_max}": [["a", "b"]]},
            {"user": ["cid"], "event_time_ms": [3]},
            buffer_bytes_max=buffer_bytes_max,
        )

        got = stored(catalog, "user", f"tags_{buffer_bytes_max}")[-6:]
        assert [row for row in got if row[1]] == [("bob", ["a", "b"])]
    assert len(load_table(catalog, "sessions", "events").snapshots()) == 2


def test_nothing_of_a_new_column_is_seen_before_commit_or_after_abort(catalog: Catalog) -> None:
    sink = IcebergSink(catalog, events(), table="events", buffer_bytes_max=1)
    sink.write(pa.table({"user": ["bob"], "event_time_ms": [2], "campaign": ["spring"]}))
    assert "campaign" not in load_table(catalog, "sessions", "events").schema().column_names

    sink.abort()
    sink.write(pa.table({"user": ["bob"], "event_time_ms": [2]}))
    sink.commit()

    assert "campaign" not in load_table(catalog, "sessions", "events").schema().column_names


@pytest.mark.parametrize(
    ("narrow", "wide", "type_"),
    [
        (pa.int32(), pa.int64(), LongType()),
        (pa.int8(), pa.uint32(), LongType()),
        (pa.float32(), pa.float64(), DoubleType()),
    ],
)
def test_types_widen_and_narrow_rows_still_fit(
    catalog: Catalog, narrow: pa.DataType, wide: pa.DataType, type_: object
) -> None:
    for time, of in enumerate((narrow, wide, narrow)):
        write(catalog, {"user": ["ann"], "event_time_ms": [time], "n": pa.array([time + 1], of)})

    assert stored(catalog, "n") == [(1,), (2,), (3,)]
    table = load_table(catalog, "sessions", "events")
    assert table.schema().find_field("n").field_type == type_
    assert table.scan(row_filter="n = 2").to_arrow()["event_time_ms"].to_pylist() == [1]


def test_a_type_that_widens_in_the_middle_of_a_run(catalog: Catalog) -> None:
    write(
        catalog,
        {"user": ["ann"], "event_time_ms": [1], "n": pa.array([1], pa.int32())},
        {"user": ["ann"], "event_time_ms": [2], "n": pa.array([2**40], pa.int64())},
        {"user": ["ann"], "event_time_ms": [3], "n": pa.array([3], pa.int32())},
        buffer_bytes_max=1,
    )

    assert stored(catalog, "n") == [(1,), (2**40,), (3,)]


def test_a_conflict_names_the_column_and_both_types(catalog: Catalog) -> None:
    """For the columns of the layout itself; the input's further fields are set aside instead."""
    write(catalog, {"user": ["ann"], "event_time_ms": [1]})
    before = files(catalog)

    with pytest.raises(OutputError, match="does not fit the table") as caught:
        write(catalog, {"user": ["ann"], "event_time_ms": [1], "page": [0.5]})

    assert "column 'page' is string in the table and double in the rows" in str(caught.value)
    assert files(catalog) == before


@pytest.mark.parametrize(
    "values",
    [
        pa.array([["a"]]),
        pa.array([1.5]),
        pa.array([b"x"]),
        pa.array([True]),
        pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string())),
    ],
)
def test_no_value_is_bent_into_another_type(catalog: Catalog, values: pa.Array) -> None:
    with pytest.raises(OutputError, match="does not fit the table"):
        write(catalog, {"user": ["ann"], "event_time_ms": [1], "page": values})


@pytest.mark.parametrize("type_", [pa.uint64(), pa.duration("s"), pa.timestamp("ns"), pa.list_(pa.null())])
def test_a_type_that_iceberg_does_not_have(catalog: Catalog, type_: pa.DataType) -> None:
    """Of a column that the table needs it is an error; a further field is kept as text."""
    with pytest.raises(OutputError, match="cannot be stored") as caught:
        write(catalog, {"user": ["ann"], "event_time_ms": [1], "page": pa.nulls(1, type_)})
    assert "'page'" in str(caught.value)

    value = [None] if pa.types.is_list(type_) else 5
    write(catalog, {"user": ["ann"], "event_time_ms": [1], "odd": pa.array([value], type_)})
    ((text,),) = stored(catalog, "properties")
    said = "1970-01-01 00:00:00.000000005" if type_ == pa.timestamp("ns") else value
    assert json.loads(str(text)) == {"odd": said}


def test_a_column_of_nulls_without_a_type_changes_nothing(catalog: Catalog) -> None:
    write(catalog, {"user": ["ann"], "event_time_ms": [1], "page": pa.nulls(1), "unknown": pa.nulls(1)})

    assert stored(catalog, "page") == [(None,)]
    assert "unknown" not in load_table(catalog, "sessions", "events").schema().column_names


def test_partition_columns_keep_their_type(catalog: Catalog) -> None:
    sink = IcebergSink(catalog, user_sessions(), table="user_sessions")
    with pytest.raises(OutputError, match="'session_date' is date in the table and string"):
        sink.write(pa.table({"user": ["ann"], "session_start_time_ms": [2], "session_date": ["1970-01-04"]}))
    sink.abort()


def test_columns_that_differ_only_in_case_are_set_aside(catalog: Catalog) -> None:
    """SQL could not tell them apart; the second one's values are kept in properties."""
    write(catalog, {"user": ["ann"], "event_time_ms": [1], "Page": ["/a"]})
    write(catalog, {"user": ["ann"], "event_time_ms": [2], "New": ["a"], "new": ["b"]})

    assert stored(catalog, "New", "properties") == [(None, '{"Page":"/a"}'), ("a", '{"new":"b"}')]


def test_two_columns_of_one_name_are_refused(catalog: Catalog) -> None:
    rows = pa.table([["ann"], [1], ["a"], ["b"]], names=["user", "event_time_ms", "x", "x"])

    with pytest.raises(OutputError, match="same name"):
        IcebergSink(catalog, events(), table="events").write(rows)


@pytest.mark.parametrize("name", ["user.id", "my column", "größe", "1st", "a/b"])
def test_names_that_files_cannot_hold_come_back(catalog: Catalog, name: str) -> None:
    write(catalog, {"user": ["ann"], "event_time_ms": [1], name: ["x"]})

    assert stored(catalog, name) == [("x",)]


def test_a_column_that_somebody_renamed_keeps_its_old_rows(catalog: Catalog) -> None:
    sink = write(catalog, {"user": ["ann"], "event_time_ms": [1], "page": ["/a"]})
    with sink.table.update_schema() as update:
        update.rename_column("page", "url")
    write(catalog, {"user": ["bob"], "event_time_ms": [2], "url": ["/b"]})

    assert stored(catalog, "user", "url") == [("ann", "/a"), ("bob", "/b")]


def test_a_column_that_was_dropped_and_came_back_is_a_new_column(catalog: Catalog) -> None:
    sink = write(catalog, {"user": ["ann"], "event_time_ms": [1], "page": ["/a"]})
    with sink.table.update_schema() as update:
        update.delete_column("page")
    write(catalog, {"user": ["bob"], "event_time_ms": [2], "page": ["/b"]})

    assert stored(catalog, "user", "page") == [("ann", None), ("bob", "/b")]


def test_two_writers_that_learn_different_columns_at_once(catalog: Catalog) -> None:
    """Both think the next field id is theirs; one's files must not pass for the other's column."""
    first = IcebergSink(catalog, events(), table="events", buffer_bytes_max=1)
    second = IcebergSink(catalog, events(), table="events", buffer_bytes_max=1)
    first.write(pa.table({"user": ["ann"], "event_time_ms": [1], "campaign": ["spring"]}))
    second.write(pa.table({"user": ["bob"], "event_time_ms": [2], "browser": ["lynx"]}))
    first.commit()
    second.commit()

    assert stored(catalog, "user", "campaign", "browser") == [("ann", "spring", None), ("bob", None, "lynx")]
    assert second.table.schema().find_field("browser").field_type == StringType()


def test_two_writers_that_learn_one_column_with_two_types(catalog: Catalog) -> None:
    first = IcebergSink(catalog, events(), table="events")
    second = IcebergSink(catalog, events(), table="events")
    first.write(pa.table({"user": ["ann"], "event_time_ms": [1], "n": ["one"]}))
    second.write(pa.table({"user": ["bob"], "event_time_ms": [2], "n": [2]}))
    first.commit()

    with pytest.raises(OutputError, match="column 'n' is string in the table and long"):
        second.commit()
    second.abort()

    assert stored(catalog, "user", "n") == [("ann", "one")]


def test_a_field_whose_type_changes_goes_to_properties(tmp_path: Path) -> None:
    """One record with text where the table has numbers neither stops a run nor loses the text."""
    catalog = open_catalog(tmp_path)
    base = {"user": ["a"], "event_time_ms": [1]}
    for extra in (
        {"n": pa.array([1])},
        {"n": pa.array(["one"]), "properties": pa.array(['{"x": [1]}'])},
        {"N": pa.array([2])},
    ):
        sink = IcebergSink(catalog, events(), table="events")
        sink.write(pa.table({**base, **extra}))
        sink.commit()

    rows = load_table(catalog, "sessions", "events").scan().to_arrow().to_pylist()
    found = sorted((row["n"] or 0, row["properties"] or "") for row in rows)
    assert found == [(0, '{"N":2}'), (0, '{"x":[1],"n":"one"}'), (1, "")]


def test_nobody_else_fills_the_columns_that_readers_find_rows_by(catalog: Catalog) -> None:
    """An input may have fields of these names: believed, they hid the rows from whoever looks in the right bucket."""
    honest = {"user": ["ann", "bob"], "event_time_ms": [1, 2]}
    write(catalog, honest)
    write(catalog, {**honest, "event_time_ms": [3, 4], "user_hash_bucket": [77, None], "event_date": ["x", None]})

    rows = stored(catalog, "user", "user_hash_bucket", "event_date", "properties")
    assert [row[:3] for row in rows[2:]] == [row[:3] for row in rows[:2]]
    assert [row[3] for row in rows[2:]] == ['{"event_date":"x","user_hash_bucket":77}', None]


def test_a_field_called_like_a_column_of_arrows_own_leaves_the_table_readable(catalog: Catalog) -> None:
    write(catalog, {"user": ["ann"], "event_time_ms": [1], "__filename": ["x"], "__batch_index": [1]})
    assert stored(catalog, "user", "properties") == [("ann", '{"__filename":"x","__batch_index":1}')]


def test_names_without_end_do_not_become_columns_without_end(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    write(catalog, {"user": ["ann"], "event_time_ms": [1]})
    there = len(load_table(catalog, "sessions", "events").schema().fields)
    monkeypatch.setattr(alignment, "COLUMNS_MAX", there + 2)
    write(catalog, {"user": ["ann"], "event_time_ms": [2], "a0": [0], "b0": [0]})
    for n in (1, 2):
        write(catalog, {"user": ["ann"], "event_time_ms": [2 + n], f"a{n}": [n], f"b{n}": [n], "a0": [7]})

    assert len(load_table(catalog, "sessions", "events").schema().fields) == there + 2
    rows = [(None, None, None), (0, 0, None), (7, None, '{"a1":1,"b1":1}'), (7, None, '{"a2":2,"b2":2}')]
    assert stored(catalog, "a0", "b0", "properties") == rows
