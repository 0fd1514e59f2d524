"""Iceberg and Delta tables as input: the same sessions as from the same rows in a Parquet file."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from sessionize.app.config.pipeline import load_pipeline
from sessionize.app.inputs import Reading, open_input
from sessionize.app.options import FileOptions, RecordOptions
from sessionize.app.table_inputs import check_input
from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.iceberg import CatalogSettings, open_catalog
from sessionize.errors import ConfigError, InputError, StateError
from sessionize.formats.dialects import Dialect
from tests.app.loads import NOW_MS, run

USERS = 7
MAPPING = {"input.mapping.user": "uid", "input.mapping.time": "at"}
RECORDS = RecordOptions(user="uid", time="at", page="ctx.page", fields=["country=geo[0].code"])


def events(count: int = 300) -> pa.Table:
    rows = pa.table(
        {
            "uid": [f"user {n % USERS}" for n in range(count)],
            "at": pa.array([NOW_MS - n * 500_000 for n in range(count)], pa.timestamp("ms", "UTC")),
            "ctx": [{"page": f"/p{n % 5}"} for n in range(count)],
            "geo": [[{"code": f"c{n % 3}"}] for n in range(count)],
            "Odd name": list(range(count)),
            "day": [f"d{n % 2}" for n in range(count)],
        }
    )
    return rows if count else events(1).slice(1)


def delta(folder: Path, rows: pa.Table, **how: Any) -> str:
    write_deltalake(folder / "lake", rows, **how)
    return f"delta:{folder / 'lake'}"


def iceberg(folder: Path, rows: pa.Table, *, home: str = "home") -> str:
    catalog = open_catalog(folder / home)
    catalog.create_namespace_if_not_exists("db")
    catalog.create_table_if_not_exists("db.ev", rows.schema).append(rows)
    return "iceberg:db.ev"


MAKERS: list[Callable[[Path, pa.Table], str]] = [delta, iceberg]


def sessions(folder: Path, *inputs: str, records: RecordOptions = RECORDS, rejected: int = 0) -> list[dict[str, Any]]:
    output = folder / "out.parquet"
    options = FileOptions(inputs=list(inputs), output=str(output), records=records, home=folder / "home")
    accounting = options.plan("sessions", now_ms=NOW_MS, warn=pytest.fail).run()
    assert accounting.rejected == rejected
    return sorted(pq.read_table(output).to_pylist(), key=lambda row: str(row["session_id"]))


def expected(folder: Path, rows: pa.Table) -> list[dict[str, Any]]:
    pq.write_table(rows, folder / "rows.parquet")
    return sessions(folder, str(folder / "rows.parquet"))


@pytest.mark.parametrize("make", MAKERS)
def test_a_table_gives_the_sessions_of_its_rows(tmp_path: Path, make: Callable[[Path, pa.Table], str]) -> None:
    name = make(tmp_path, events())
    assert sessions(tmp_path, name) == expected(tmp_path, events())


def test_a_folder_with_a_delta_log_is_a_table_and_not_its_files(tmp_path: Path) -> None:
    delta(tmp_path, events(), partition_by=["day"])
    DeltaTable(tmp_path / "lake").delete("uid = 'user 3'")  # the old files are still there
    left = events().filter(pc.not_equal(events()["uid"], "user 3"))
    assert sessions(tmp_path, str(tmp_path / "lake")) == expected(tmp_path, left)


def test_a_delta_table_below_a_folder_is_not_read_as_files(tmp_path: Path) -> None:
    delta(tmp_path, events(3))
    with pytest.raises(InputError, match="a folder has a Delta table in it") as caught:
        sessions(tmp_path, str(tmp_path))
    assert caught.value.hint == f"name it: delta:{tmp_path / 'lake'}"


def test_rows_that_a_deletion_vector_takes_out_are_not_read(tmp_path: Path) -> None:
    name = delta(tmp_path, events(300))
    _delete_by_vector(tmp_path / "lake", [0, 1, 299])
    assert sessions(tmp_path, name) == expected(tmp_path, events(300).slice(2, 297))


def _delete_by_vector(table: Path, rows: list[int]) -> None:
    """Commit what engines with deletion vectors write: the file again, with an inline bitmap of its deleted rows."""
    log = table / "_delta_log"
    (add,) = (json.loads(line)["add"] for line in (log / f"{0:020}.json").read_text().splitlines() if '"add"' in line)
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *rows)
    data = struct.pack("<iqi", 1681511377, 1, 0) + bitmap
    data += b"\0" * (-len(data) % 4)
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    numbers = struct.unpack(f">{len(data) // 4}I", data)
    text = "".join(digits[number // 85**place % 85] for number in numbers for place in (4, 3, 2, 1, 0))
    vector = {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": len(rows)}
    feature = ["deletionVectors"]
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": feature, "writerFeatures": feature}
    remove = {"path": add["path"], "dataChange": True, "deletionTimestamp": 0}
    actions = [{"protocol": protocol}, {"remove": remove}, {"add": {**add, "deletionVector": vector}}]
    (log / f"{1:020}.json").write_text("".join(f"{json.dumps(action)}\n" for action in actions))


def test_an_iceberg_table_that_has_changed(tmp_path: Path) -> None:
    """Columns renamed, added and moved, rows deleted: the table's columns count, not those of its files."""
    name = iceberg(tmp_path, events(100).drop_columns(["Odd name"]))
    table = open_catalog(tmp_path / "home").load_table("db.ev")
    with table.update_schema() as update:
        update.rename_column("uid", "old")
        update.add_column("uid2", _string())
        update.rename_column("day", "uid")
    table.append(pa.table({"old": ["x"], "at": events(1)["at"], "uid": ["d9"]}))
    table.delete("old = 'user 1'")
    kept = events(100).filter(pc.not_equal(events(100)["uid"], "user 1"))
    rows = kept.drop_columns(["uid", "Odd name"]).rename_columns({"day": "uid"})
    new = pa.table({"at": events(1)["at"], "uid": ["d9"]})
    assert sessions(tmp_path, name) == expected(tmp_path, pa.concat_tables([rows, new], promote_options="default"))


def _string() -> Any:
    from pyiceberg.types import StringType

    return StringType()


@pytest.mark.parametrize("make", MAKERS)
def test_labels_keep_the_columns_of_a_table(tmp_path: Path, make: Callable[[Path, pa.Table], str]) -> None:
    options = FileOptions(
        inputs=[make(tmp_path, events(20))],
        output=str(tmp_path / "o.parquet"),
        records=RecordOptions(user="uid", time="at"),
        home=tmp_path / "home",
    )
    options.plan("labels", now_ms=NOW_MS, warn=pytest.fail).run()
    found = pq.read_table(tmp_path / "o.parquet")
    assert sorted(found["Odd name"].to_pylist()) == list(range(20))
    assert json.loads(found["properties"][0].as_py())["geo"] == [{"code": "c0"}]


def test_files_and_tables_are_one_input(tmp_path: Path) -> None:
    rows = events()
    pq.write_table(rows.slice(0, 100), tmp_path / "a.parquet")
    inputs = [str(tmp_path / "a.parquet"), delta(tmp_path, rows.slice(100, 100)), iceberg(tmp_path, rows.slice(200))]
    assert sessions(tmp_path, *inputs, inputs[1]) == expected(tmp_path, rows)


def test_bad_rows_are_rejected_with_their_number(tmp_path: Path) -> None:
    rows = events(10).set_column(0, "uid", pa.array(["a", None, *"bcdefghi"]))
    name = delta(tmp_path, rows)
    (batch,) = _opened(tmp_path, name).batches()
    assert batch.rejected.select(["source", "line_number"]).to_pylist() == [{"source": name, "line_number": 2}]


@pytest.mark.parametrize("make", MAKERS)
def test_a_table_without_rows(tmp_path: Path, make: Callable[[Path, pa.Table], str]) -> None:
    source = _opened(tmp_path, make(tmp_path, events(0)))
    assert not source.has_records(source.files[0])
    assert sessions(tmp_path, source.files[0].path) == []


@pytest.mark.parametrize("make", MAKERS)
def test_the_progress_comes_to_the_size_of_the_files(tmp_path: Path, make: Callable[[Path, pa.Table], str]) -> None:
    source = _opened(tmp_path, make(tmp_path, events(1000)))
    assert source.size_bytes
    assert sum(batch.read_bytes for batch in source.batches()) == source.size_bytes


@pytest.mark.parametrize("make", MAKERS)
def test_a_run_reads_the_version_of_its_start(tmp_path: Path, make: Callable[[Path, pa.Table], str]) -> None:
    source = _opened(tmp_path, make(tmp_path, events(50)))
    if make is delta:
        write_deltalake(tmp_path / "lake", events(30), mode="append")
    else:
        iceberg(tmp_path, events(30))
    assert sum(batch.events.num_rows for batch in source.batches()) == 50
    (again,) = _opened(tmp_path, source.files[0].path).files
    (before,) = source.files
    assert again.version != before.version
    assert str(again.version).partition("@")[0] == str(before.version).partition("@")[0]


def _opened(folder: Path, name: str) -> Any:
    how = Reading(
        warehouse=lambda database, table: Warehouse(folder / "home"),
        dialect=Dialect.mapping(user="uid", time="at", time_format="auto"),
    )
    return open_input([name], how)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("damage", ["garbage", "gone", "torn"])
def test_a_damaged_file_is_an_error_that_names_the_table(
    tmp_path: Path, make: Callable[[Path, pa.Table], str], damage: str
) -> None:
    name = make(tmp_path, events())
    (file,) = (path for path in tmp_path.rglob("*.parquet"))
    data = file.read_bytes()
    file.unlink() if damage == "gone" else file.write_bytes(b"x" * 500 if damage == "garbage" else data[:-200])
    (tmp_path / "out.parquet").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"^a (Delta )?table cannot be read") as caught:
        sessions(tmp_path, name)
    assert file.name in str(caught.value)
    assert ("gone" in (caught.value.hint or "")) == (damage == "gone")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("make", MAKERS)
def test_a_column_that_is_not_there(tmp_path: Path, make: Callable[[Path, pa.Table], str]) -> None:
    with pytest.raises(InputError, match=r"no column for the user[^$]*no column 'udi'; the columns are: uid, at"):
        sessions(tmp_path, make(tmp_path, events()), records=RecordOptions(user="udi", time="at"))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("iceberg:db", "needs a database and a table"),
        ("iceberg:db.none", "a table does not exist"),
        ("delta:none", "a Delta table|there is no Delta table"),
        ("delta:", "needs a folder"),
    ],
)
def test_no_such_table(tmp_path: Path, name: str, what: str) -> None:
    iceberg(tmp_path, events(1))
    with pytest.raises((ConfigError, InputError), match=what):
        sessions(tmp_path, name)
    assert not (tmp_path / "out.parquet").exists()


def test_a_folder_that_is_no_home_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are no tables yet"):
        sessions(tmp_path, "iceberg:db.ev")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", MAKERS)
def test_the_same_version_is_loaded_once_and_a_changed_table_is_refused(
    tmp_path: Path, make: Callable[[Path, pa.Table], str]
) -> None:
    name, told = make(tmp_path, events(50)), list[str]()
    config = lambda **more: _pipeline(tmp_path, name, **more)  # noqa: E731
    assert run(config()).consumed == 50
    with pytest.raises(StateError, match=f"files are in the tables already[^$]*1 of 1: {name} "):
        run(config())
    assert run(config(**{"input.known_files": "skip"}), told.append).consumed == 0
    assert len(told) == 1
    make(tmp_path, events(10)) if make is iceberg else write_deltalake(tmp_path / "lake", events(10), mode="append")
    with pytest.raises(StateError, match=f"tables have changed[^$]*another version of {name} is in the tables"):
        run(config())
    assert run(config(**{"input.known_files": "again"})).consumed == 60


def _pipeline(folder: Path, name: str, **settings: object) -> Any:
    (folder / "mine.toml").write_text('name = "mine"\n')
    fixed = {"input.kind": "files", "input.paths": [name], "run.home": str(folder / "home"), **MAPPING}
    return load_pipeline(str(folder / "mine.toml"), overrides={**fixed, **settings})


def test_the_catalog_of_the_input_may_be_another_one(tmp_path: Path) -> None:
    name = _in_other_warehouse(tmp_path, events(50))
    settings = {
        "input.catalog.kind": "sqlite",
        "input.catalog.warehouse": str(tmp_path / "elsewhere"),
        "output.kind": "csv",
        "output.path": str(tmp_path / "o.csv"),
    }
    assert run(_pipeline(tmp_path, name, **settings)).consumed == 50


def _in_other_warehouse(folder: Path, rows: pa.Table) -> str:
    catalog = open_catalog(folder / "home", settings=CatalogSettings(warehouse=str(folder / "elsewhere")))
    catalog.create_namespace("db")
    catalog.create_table("db.ev", rows.schema).append(rows)
    return "iceberg:db.ev"


def test_a_catalog_of_the_input_without_an_address_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"input\.catalog\.uri"):
        _pipeline(tmp_path, "iceberg:db.ev", **{"input.catalog.kind": "rest"})


def test_the_output_may_not_lie_in_the_table_that_is_read(tmp_path: Path) -> None:
    name = delta(tmp_path, events(5))
    options = FileOptions(inputs=[name], output=str(tmp_path / "lake" / "o.parquet"), records=RECORDS)
    with pytest.raises(ConfigError, match="the output would overwrite an input"):
        options.plan("sessions", now_ms=NOW_MS, warn=pytest.fail).run()


@pytest.mark.parametrize("name", ["delta:https://me:hunter2@host/t", "delta:s3://key:hunter2@b/t"])
def test_no_secret_is_shown(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_input(name, name="the input")
    assert "hunter2" not in str(caught.value)
