"""Columns of tables in every type that Arrow has, with values that few can hold: each is stored by every output."""

import csv
import decimal
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize import Sessionizer
from sessionize.connectors.console import ConsoleSink
from sessionize.connectors.files.sink import FileSink
from sessionize.connectors.iceberg import IcebergEpochSink, open_catalog
from sessionize.connectors.parquet_lake import ParquetLakeSink
from sessionize.connectors.sql_store import StoreSink
from sessionize.connectors.sql_store.sqlite import SqliteDatabase
from sessionize.engine.stream.epoch import event_rows
from sessionize.formats.dialects import Dialect
from sessionize.formats.json_rows import json_rows
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.ports import EpochId, EpochSink
from sessionize.session import columns as col
from sessionize.testing.epoch_outputs import output
from sessionize.testing.tables import iceberg_rows

DIALECT = Dialect.mapping(
    user="u", time="t", event_id="id", event_type="type", page="page", value="value", time_format="ms"
)
BASE = {
    "u": ["a", "b"],
    "t": [1, 2],
    "id": ["1", "2"],
    "type": ["purchase"] * 2,
    "page": ["x", "y"],
    "value": [1.0, 2.0],
}
WITHOUT_A_VALUE = {"null", "float64", "list of null", "map of null", "object of null"}  # NaN is null to JSON
FAR = 2**62
UNITS = ("s", "ms", "us", "ns")


def plain_columns() -> dict[str, pa.Array]:
    """Two values each."""
    made: dict[str, pa.Array] = {}
    for unit in UNITS:
        made[f"timestamp {unit}"] = pa.array([-FAR, 1], pa.timestamp(unit))
        made[f"timestamp {unit} UTC"] = pa.array([FAR, 1], pa.timestamp(unit, "UTC"))
        made[f"timestamp {unit} New York"] = pa.array([1, 123_456_789], pa.timestamp(unit, "America/New_York"))
        made[f"duration {unit}"] = pa.array([FAR, -FAR], pa.duration(unit))
    made |= {
        "unknown zone": pa.array([0, 1], pa.timestamp("us", "Not/AZone")),
        "offset": pa.array([0, 1], pa.timestamp("us", "+05:30")),
        "date32": pa.array([2**31 - 1, -(2**31)], pa.date32()),
        "date64": pa.array([86_400_000 * 2**30, None], pa.date64()),
        "time32": pa.array([1, 86_399], pa.time32("s")),
        "time64": pa.array([1, 86_399_999_999_999], pa.time64("ns")),
        "time64 beyond a day": pa.array([FAR, -1], pa.int64()).view(pa.time64("us")),
        "decimal128": pa.array([decimal.Decimal("9" * 38), None], pa.decimal128(38, 0)),
        "decimal256": pa.array([decimal.Decimal("9" * 76), None], pa.decimal256(76, 0)),
        "decimal of thousands": pa.array([decimal.Decimal("1E+5"), None], pa.decimal128(5, -3)),
        "binary": pa.array([b"\xff\x00", b""]),
        "fixed binary": pa.array([b"\xff\xfe", b"ab"], pa.binary(2)),
        "large binary": pa.array([b"\xff", None], pa.large_binary()),
        "binary view": pa.array([b"\xff", None], pa.binary_view()),
        "float16": pa.array(np.array([np.nan, np.inf], np.float16)),
        "float32": pa.array([float("inf"), 1.0], pa.float32()),
        "float64": pa.array([float("nan"), -float("inf")]),
        "uint64": pa.array([2**64 - 1, 0], pa.uint64()),
        "int64": pa.array([2**63 - 1, -(2**63)]),
        "bool": pa.array([True, None]),
        "string view": pa.array(["\0", "x"], pa.string_view()),
        "large string": pa.array(["\0", "␀"], pa.large_string()),
        "interval": pa.array([pa.MonthDayNano([1, 2, 3]), None], pa.month_day_nano_interval()),
        "coded numbers": pa.array([FAR, 5]).dictionary_encode(),
        "coded times": pa.array([FAR, 5], pa.timestamp("us")).dictionary_encode(),
        "coded bytes": pa.array([b"\xff", b"a"]).dictionary_encode(),
        "null": pa.nulls(2),
    }
    uuids = pa.array([b"\xff" * 16, b"a" * 16], pa.binary(16))
    return {**made, "uuid": pa.ExtensionArray.from_storage(pa.uuid(), uuids)}


def nested_columns(plain: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Each of them inside a list, an object and a map."""
    offsets, made = pa.array([0, 1, 2], pa.int32()), dict[str, pa.Array]()
    for name, array in plain.items():
        if name in ("uuid", "time64 beyond a day"):  # Arrow takes the second one for damage
            continue
        made[f"list of {name}"] = pa.ListArray.from_arrays(offsets, array)
        made[f"object of {name}"] = pa.StructArray.from_arrays([array], ["field"])
        made[f"map of {name}"] = pa.MapArray.from_arrays(offsets, pa.array(["k", "l"]), array)
    return made


PLAIN = plain_columns()
NESTED = nested_columns(PLAIN)


@dataclass(frozen=True)
class Outputs:
    """Every output that needs no server, in a folder."""

    folder: Path

    def epochs(self) -> dict[str, EpochSink]:
        return {
            "iceberg": IcebergEpochSink(open_catalog(self.folder), user_name="u"),
            "sqlite": StoreSink(SqliteDatabase(self.folder / "store.sqlite"), user_name="u"),
            "lake": ParquetLakeSink(self.folder / "lake"),
            "console": ConsoleSink(io.StringIO()),
        }

    def write(self, events: pa.Table, rejected: pa.Table, number: int) -> None:
        sessions = col.SessionColumns.made_of(DIALECT.columns).schema("u").empty_table()
        rows = output(user_sessions=sessions, events=events, late_events=events, rejected_events=rejected)
        for sink in self.epochs().values():
            sink.write_epoch(EpochId("w", number, "plan"), rows)
            sink.close()
        assert len(json_rows(events)) == events.num_rows  # as they go to topics
        assert len(json_rows(rejected, opaque=["raw"])) == rejected.num_rows
        for ending in ("csv", "ndjson", "parquet"):
            file = FileSink(self.folder / f"events.{ending}")
            file.write(events)
            file.commit()


def decoded(columns: dict[str, Any]) -> tuple[pa.Table, pa.Table]:
    """Events with canonical names, and rejected records, of two rows."""
    table = pa.table({**BASE, **columns})
    layout = Layout.of(table.schema, DIALECT, source="f", columns=None, extras=True)
    made = Tabular(layout, DIALECT, latest_ms=None).decode(table, source="f", line_number=int)
    return made.events, made.rejected


@pytest.mark.parametrize("shape", ["plain", "list", "object", "map"])
def test_further_columns_of_any_type_are_stored_everywhere(tmp_path: Path, shape: str):
    """As the first of their names, then beside a batch in which they are text, then as that text alone."""
    columns = PLAIN if shape == "plain" else {n: c for n, c in NESTED.items() if n.startswith(shape)}
    events, rejected = decoded(columns)
    texts, _ = decoded({name: ["text", "2"] for name in columns})
    assert (events.num_rows, rejected.num_rows) == (2, 0)
    outputs = Outputs(tmp_path)
    for number, batches in enumerate([[events], [events, texts], [texts], [events]], start=1):
        outputs.write(event_rows(batches, "u"), rejected, number)
    stored = iceberg_rows(tmp_path, "events")
    assert len(stored) == 2 + 4 + 2 + 2
    for row in stored:
        known = {**json.loads(row["properties"] or "{}"), **{n: v for n, v in row.items() if v is not None}}
        assert set(columns) - set(known) <= WITHOUT_A_VALUE | {n for n, c in columns.items() if c.null_count}
    assert pq.read_table(tmp_path / "events.parquet").num_rows == 2
    assert len(list(csv.reader(io.StringIO((tmp_path / "events.csv").read_text())))) == 3
    assert len([json.loads(line) for line in (tmp_path / "events.ndjson").read_text().splitlines()]) == 2


@pytest.mark.parametrize("field", ["u", "t", "id", "page", "type", "value"])
@pytest.mark.parametrize("name", PLAIN)
def test_a_mapped_column_of_any_type_is_an_event_or_rejected(name: str, field: str):
    events, rejected = decoded({field: PLAIN[name]})
    assert events.num_rows + rejected.num_rows == 2
    core = Sessionizer()
    core.push(events)
    assert sum(core.flush()["event_count"].to_pylist()) + core.counts.duplicate == events.num_rows
    json_rows(rejected, opaque=["raw"])
