"""Two output tables that the product does not know, and checks that any EpochSink writes them, or passes over them.

They prove that a further table needs its spec and a destination, and no line in a sink.
"""

import base64
import datetime as dt
import decimal
import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pyarrow as pa
import pytest

from sessionize.errors import OutputError
from sessionize.ports import EpochOutput
from sessionize.session import columns as col
from sessionize.session.output_tables import OUTPUT_TABLES, TableSpec
from sessionize.testing.epoch_outputs import epoch_id, epoch_rows
from sessionize.testing.epoch_sinks import SinkUnderTest, tells_what_to_do

# An alert is raised, and later resolved under the same id.
ALERTS = TableSpec(
    name="alerts",
    schema=pa.schema(
        [
            pa.field(col.USER, pa.string(), nullable=False),
            pa.field("alert_id", pa.string(), nullable=False),
            pa.field("level", pa.int32()),
            pa.field("pages", pa.list_(pa.string())),
        ]
    ),
    user_column=col.USER,
    key=("alert_id",),
)
# Types that no table of the product has.
READINGS = TableSpec(
    name="readings",
    schema=pa.schema(
        [
            ("at", pa.timestamp("us", tz="UTC")),
            ("day", pa.date32()),
            ("time", pa.time64("us")),
            ("price", pa.decimal128(12, 3)),
            ("share", pa.float32()),
            ("small", pa.int16()),
            ("count", pa.uint32()),
            ("good", pa.bool_()),
            ("raw", pa.binary()),
            ("steps", pa.list_(pa.int64())),
            ("tags", pa.map_(pa.string(), pa.string())),
            ("place", pa.struct([("x", pa.float64()), ("name", pa.string())])),
        ]
    ),
)
FURTHER_TABLES = (ALERTS, READINGS, *OUTPUT_TABLES)


def alerts(**levels: int) -> pa.Table:
    """An alert of each of these ids."""
    rows = [{col.USER: f"u-{id}", "alert_id": id, "level": level, "pages": ["/a", "b"]} for id, level in levels.items()]
    return pa.Table.from_pylist(rows, schema=ALERTS.schema)


def readings(*numbers: int) -> pa.Table:
    """A reading of each of these numbers, and one of nulls."""
    rows: list[dict[str, Any]] = [
        {
            "at": dt.datetime(2026, 1, 5, 10, 0, number, 250_000, tzinfo=dt.UTC),
            "day": dt.date(1969, 12, 31),
            "time": dt.time(23, 59, number, 5),
            "price": decimal.Decimal("-12.340") * number,
            "share": 0.25 * number,
            "small": -number,
            "count": 2**32 - 1,
            "good": number % 2 == 0,
            "raw": bytes([0, 255, number]),
            "steps": [number, None, -1],
            "tags": [("é", str(number)), ("b", "")],
            "place": {"x": 0.5, "name": "here"},
        }
        for number in numbers
    ]
    return pa.Table.from_pylist([*rows, {}], schema=READINGS.schema)


def with_further(number: int, **levels: int) -> EpochOutput:
    """An epoch of the product's tables and of these two."""
    return epoch_rows(number).with_tables({ALERTS.name: alerts(**levels), READINGS.name: readings(number)})


def check_further_tables(place: SinkUnderTest) -> None:
    """They are written, once however often an epoch comes; a key that comes again is updated where a sink can do so."""
    first, second = with_further(1, a=1, b=1), with_further(2, a=2, c=1)
    with closing(_further(place, ALERTS.name, READINGS.name)) as sink:
        for _ in range(2):
            sink.write_epoch(epoch_id(1, writer=place.writer), first)
        _shows(place, [first])
    with closing(_further(place, ALERTS.name, READINGS.name)) as sink:
        assert sink.last_epoch(place.writer) == 1
        for number, output in ((1, first), (2, second), (1, first), (2, second)):
            sink.write_epoch(epoch_id(number, writer=place.writer), output)
    _shows(place, [first, second])


def check_a_table_without_a_destination(place: SinkUnderTest) -> None:
    """It is passed over, and so is a destination that gets no rows."""
    with closing(_further(place)) as sink:
        assert sink.known_tables == frozenset(spec.name for spec in FURTHER_TABLES)
        sink.write_epoch(epoch_id(1, writer=place.writer), with_further(1, a=1))
        place.shows(epoch_rows(1))
    with closing(_further(place, ALERTS.name)) as sink:
        sink.write_epoch(epoch_id(2, writer=place.writer), epoch_rows(2))
        sink.write_epoch(epoch_id(3, writer=place.writer), EpochOutput({ALERTS.name: alerts(z=1)}, 7))
        assert sink.last_epoch(place.writer) == 3
    place.shows(epoch_rows(1), epoch_rows(2))
    assert [row["alert_id"] for row in place.visible(ALERTS.name)] == ["z"]


def check_a_table_without_a_spec(place: SinkUnderTest) -> None:
    """It is refused before anything of its epoch is written."""
    with closing(place.make()) as sink:
        assert sink.known_tables == frozenset(spec.name for spec in OUTPUT_TABLES)
        with pytest.raises(OutputError, match="not known") as caught:
            sink.write_epoch(epoch_id(1, writer=place.writer), with_further(1, a=1))
        tells_what_to_do(caught.value)
        sink.write_epoch(epoch_id(1, writer=place.writer), epoch_rows(1))
    place.shows(epoch_rows(1))


FURTHER_CHECKS: tuple[Callable[[SinkUnderTest], None], ...] = (
    check_further_tables,
    check_a_table_without_a_destination,
    check_a_table_without_a_spec,
)


def _further(place: SinkUnderTest, *tables: str) -> Any:
    assert place.make_further is not None
    return place.make_further(tables)


def _shows(place: SinkUnderTest, epochs: list[EpochOutput]) -> None:
    place.shows(*epochs)
    for spec, key in ((ALERTS, "alert_id"), (READINGS, None)):
        rows = [row for output in epochs for row in output.tables[spec.name].to_pylist()]
        if key is not None and place.updates:
            rows = list({row[key]: row for row in rows}.values())
        seen = Counter(repr(_plain(spec, row)) for row in place.visible(spec.name))
        assert seen == Counter(repr(_plain(spec, row)) for row in rows), spec.name


def _plain(spec: TableSpec, row: dict[str, Any]) -> dict[str, object]:
    return {column.name: _value(column.type, row[column.name]) for column in spec.schema}


def _value(kind: pa.DataType, value: Any) -> object:
    """The value as Python has it, whatever text or number a sink keeps for it."""
    if value is None:
        return None
    if pa.types.is_nested(kind):
        value = json.loads(value) if isinstance(value, str) else value
        return sorted(dict(value).items()) if pa.types.is_map(kind) or isinstance(value, dict) else list(value)
    if pa.types.is_boolean(kind):
        return bool(value)
    if pa.types.is_decimal(kind):
        return decimal.Decimal(value)
    if pa.types.is_binary(kind):
        return base64.b64decode(value) if isinstance(value, str) else bytes(value)
    if isinstance(value, str):
        if pa.types.is_timestamp(kind):
            value = dt.datetime.fromisoformat(value)
        elif pa.types.is_date(kind):
            value = dt.date.fromisoformat(value)
        elif pa.types.is_time(kind):
            value = dt.time.fromisoformat(value)
    return value.astimezone(dt.UTC) if isinstance(value, dt.datetime) else value
