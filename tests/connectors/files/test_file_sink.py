"""Output files: nothing before commit, all of it after, in three formats."""

import csv
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize import ConfigError, OutputError, Policy, Sessionizer
from sessionize.connectors.files.sink import FileSink
from sessionize.session.columns import SessionColumns
from sessionize.testing.comparison import events_table

SCHEMA = SessionColumns().schema()
ROWS = [
    {"user": 'a,"b"\nc', "time": -1, "page": "home", "type": "view"},
    {"user": "é", "time": 5, "page": "x", "type": "purchase", "amount": 1.5},
    {"user": "é", "time": 6, "page": "y", "type": "view"},
]


def sessions():
    core = Sessionizer(Policy())
    core.push(events_table(ROWS))
    return core.flush()


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".ndjson", ".jsonl"])
def test_nothing_is_seen_before_commit(tmp_path, ending):
    path = tmp_path / f"out{ending}"
    path.write_text("before")
    sink = FileSink(path, SCHEMA)
    sink.write(sessions())
    assert path.read_text() == "before"
    sink.commit()
    assert path.read_bytes() != b"before"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".ndjson"])
def test_abort_leaves_no_trace(tmp_path, ending):
    sink = FileSink(tmp_path / f"out{ending}", SCHEMA)
    sink.write(sessions())
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_parquet(tmp_path):
    sink = FileSink(tmp_path / "out.parquet", SCHEMA)
    sink.write(sessions())
    sink.write(sessions().cast(SCHEMA))  # plain text columns after dictionary-encoded ones
    sink.commit()
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.cast(SCHEMA).to_pylist() == sessions().cast(SCHEMA).to_pylist() * 2


def test_csv(tmp_path):
    sink = FileSink(tmp_path / "out.csv", SCHEMA)
    sink.write(sessions())
    sink.commit()
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        rows = {row["user"]: row for row in csv.DictReader(file)}
    assert set(rows) == {'a,"b"\nc', "é"}
    assert json.loads(rows["é"]["pages_visited"]) == ["x", "y"]
    assert json.loads(rows["é"]["events_by_type"]) == {"purchase": 1, "view": 1}
    assert rows["é"]["session_date"] == "1970-01-01"


def test_ndjson(tmp_path):
    sink = FileSink(tmp_path / "out.ndjson", SCHEMA)
    sink.write(sessions())
    sink.commit()
    rows = {row["user"]: row for row in map(json.loads, (tmp_path / "out.ndjson").read_text().splitlines())}
    assert rows["é"]["events_by_type"] == {"purchase": 1, "view": 1}
    assert rows["é"]["revenue"] == 1.5
    assert rows['a,"b"\nc']["session_date"] == "1969-12-31"


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".ndjson"])
def test_no_rows_still_make_a_file(tmp_path, ending):
    path = tmp_path / f"out{ending}"
    FileSink(path, SCHEMA).commit()
    if ending == ".parquet":
        assert pq.read_schema(path).names == SCHEMA.names
    else:
        assert len(path.read_text().splitlines()) == (1 if ending == ".csv" else 0)


def test_a_folder_is_made(tmp_path):
    FileSink(tmp_path / "new" / "deep" / "out.csv", SCHEMA).commit()
    assert (tmp_path / "new" / "deep" / "out.csv").exists()


def test_unknown_ending(tmp_path):
    with pytest.raises(ConfigError, match="format"):
        FileSink(tmp_path / "out.xlsx", SCHEMA)


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OutputError, match="directory"):
        FileSink(tmp_path / "folder.csv", SCHEMA)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be written"):
        FileSink(tmp_path / "file" / "out.csv", SCHEMA)


def test_full_disk(tmp_path):
    """/dev/full takes nothing: the sink says so, and leaves nothing behind."""
    sink = FileSink(tmp_path / "out.ndjson", SCHEMA)
    partial = tmp_path / f".out.ndjson.{os.getpid()}.partial"
    partial.symlink_to("/dev/full")
    with pytest.raises(OutputError, match="can't be written"):
        sink.write(pa.concat_tables([sessions().cast(SCHEMA)] * 1000))
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_parquet_is_encoded_for_its_kind(tmp_path):
    rows = pa.table(
        {
            "user": pa.array(["a", "b", "a"]).dictionary_encode(),
            "event_count": pa.array([1, 2, 3], pa.int64()),
            "pages_visited": pa.array([["/a", "/b"], [], ["/a"]], pa.list_(pa.string())),
            "events_by_type": pa.array([[("x", 1)], [], [("y", 2)]], pa.map_(pa.string(), pa.int64())),
        }
    )
    sink = FileSink(tmp_path / "o.parquet")
    sink.write(rows)
    sink.commit()
    file = pq.ParquetFile(tmp_path / "o.parquet")
    group = file.metadata.row_group(0)
    chunks = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
    encodings = {name: set(chunk.encodings) for name, chunk in chunks.items()}
    for text in ("user", "pages_visited.list.element", "events_by_type.key_value.key"):
        assert "RLE_DICTIONARY" in encodings[text]
    assert "DELTA_BINARY_PACKED" in encodings["event_count"]
    assert (chunks["user"].statistics.min, chunks["event_count"].statistics.max) == ("a", 3)
    assert not chunks["pages_visited.list.element"].is_stats_set
    assert file.read().to_pylist() == rows.to_pylist()
