"""The partitioning of a table's files: by date, by date and bucket of users, by month, or none.

`auto`, the layout of new tables, is by date; rows of many dates with few rows each are written by month instead, or
into one file. Such a table has a partition spec for each of the three, and every file records its own. Reasons and
costs: docs/adr/0012.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.sorting import NullOrder
from pyiceberg.transforms import IdentityTransform, MonthTransform, Transform, TruncateTransform

from sessionize.errors import ConfigError
from sessionize.session.columns import BUCKET_COUNT

LayoutName = Literal["auto", "date", "date_bucket", "month", "none"]
LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)

# Table property: the layout's name, because `auto` does not follow from the partition spec.
LAYOUT = "sessionize.layout"

# A flush may always write this many files; beyond, each must hold enough rows to be worth its 3 ms.
_FILES_FREE = 31
_ROWS_WORTH_A_DATE = 10_000
_ROWS_WORTH_A_MONTH = 1_000


@dataclass(frozen=True, slots=True)
class Partitions:
    """The partitioning of a table. date: the date column. bucket: the bucket column, None for a table without.

    name: None keeps the layout of an existing table, and gives a new one `auto`. buckets: their number in the layout
    date_bucket, a divisor of 100, so that each holds equally many of the column's values 0 to 99.
    Errors: ConfigError.
    """

    date: str
    bucket: str | None = None
    name: LayoutName | None = None
    buckets: int = BUCKET_COUNT

    def __post_init__(self) -> None:
        if self.name is not None and self.name not in LAYOUTS:
            raise ConfigError("unknown layout", detail=repr(self.name), hint=f"one of {', '.join(LAYOUTS)}")
        if self.buckets < 2 or BUCKET_COUNT % self.buckets:
            raise ConfigError(
                "invalid number of buckets",
                detail=str(self.buckets),
                hint=f"a divisor of {BUCKET_COUNT}: {', '.join(str(n) for n in divisors())}",
            )

    @property
    def layout(self) -> LayoutName:
        """The layout of a new table. Without a bucket column, date_bucket is date."""
        name = self.name or "auto"
        return "date" if name == "date_bucket" and self.bucket is None else name

    def specs(self) -> "list[list[_Field]]":
        """The table's partition specs, the coarsest last."""
        date = _Field(self.date, IdentityTransform())
        if self.layout == "auto":
            return [[], [_Field(self.date, MonthTransform())], [date]]
        if self.layout == "date_bucket":
            width = BUCKET_COUNT // self.buckets
            by_bucket = IdentityTransform[int]() if width == 1 else TruncateTransform[int](width)
            return [[date, _Field(str(self.bucket), by_bucket)]]
        return [{"date": [date], "month": [_Field(self.date, MonthTransform())], "none": []}[self.layout]]


def divisors() -> list[int]:
    """The valid numbers of buckets."""
    return [n for n in range(2, BUCKET_COUNT + 1) if BUCKET_COUNT % n == 0]


@dataclass(frozen=True, slots=True)
class _Field:
    """A column and the transform to its partition."""

    column: str
    transform: Transform[Any, Any]

    @property
    def name(self) -> str:
        """The name that other engines use."""
        if isinstance(self.transform, IdentityTransform):
            return self.column
        return f"{self.column}_{'month' if isinstance(self.transform, MonthTransform) else 'trunc'}"


def layout_of(table: Table) -> str:
    """The name of a table's layout, also for tables from before layouts had names."""
    name = table.properties.get(LAYOUT)
    return name if name is not None else "+".join(_shape(table.spec(), table.schema())) or "none"


def divide(transaction: Transaction, partitions: Partitions) -> None:
    """Stage the partition specs of a layout; existing ones are reused."""
    for wanted in partitions.specs():
        schema, now = transaction.table_metadata.schema(), transaction.table_metadata.spec()
        shape = {_text(field.column, field.transform): field for field in wanted}
        if list(shape) == _shape(now, schema):
            continue
        with transaction.update_spec() as update:
            for old, text in zip(now.fields, _shape(now, schema), strict=True):
                if text not in shape:
                    update.remove_field(old.name)
            for text, field in shape.items():
                if text not in _shape(now, schema):
                    update.add_field(field.column, field.transform, field.name)


def evolve(
    transaction: Transaction, partitions: Partitions, sort_by: Sequence[str], properties: dict[str, str]
) -> None:
    """Stage the change of a table to another layout; files change only when they are compacted."""
    divide(transaction, partitions)
    with transaction.update_sort_order() as order:
        for column in sort_by:
            order.asc(column, IdentityTransform(), NullOrder.NULLS_LAST)
    transaction.set_properties(properties)


def differs(table: Table, partitions: Partitions) -> bool:
    """Whether the requested layout differs from the table's."""
    if partitions.name is None:
        return False
    texts = [_text(field.column, field.transform) for field in partitions.specs()[-1]]
    same_name = table.properties.get(LAYOUT, partitions.layout) == partitions.layout
    is_auto = partitions.layout == "auto" and LAYOUT not in table.properties
    return texts != _shape(table.spec(), table.schema()) or not same_name or is_auto


def specs_to_choose(metadata: TableMetadata) -> list[PartitionSpec]:
    """The partition specs for new rows, the finest first."""
    default = metadata.spec()
    if metadata.properties.get(LAYOUT) != "auto":
        return [default]
    others = [spec for spec in metadata.partition_specs if spec.spec_id != default.spec_id]
    months = [s for s in others if len(s.fields) == 1 and isinstance(s.fields[0].transform, MonthTransform)]
    return [default, *months[:1], *[spec for spec in others if not spec.fields][:1]]


def chosen(specs: Sequence[PartitionSpec], rows: pa.Table, schema: Schema) -> PartitionSpec:
    """The finest spec that gives few files or large enough ones for these rows. Columns as in the schema."""
    for spec in specs[:-1]:
        files = 1
        for field in spec.fields:
            files *= max(1, pc.count_distinct(partition_values(field, rows, schema), mode="all").as_py())
        if files <= _FILES_FREE or rows.num_rows >= files * _rows_worth(spec):
            return spec
    return specs[-1]


def partition_values(field: PartitionField, rows: pa.Table, schema: Schema) -> pa.Array:
    """The partition's value for each row."""
    source = schema.find_field(field.source_id)
    column = rows.column(schema.fields.index(source))
    return field.transform.pyarrow_transform(source.field_type)(column.combine_chunks())


def partition_columns(metadata: TableMetadata) -> frozenset[str]:
    """The partition columns of any spec; their types never change."""
    schema = metadata.schema()
    fields: Iterable[PartitionField] = (field for spec in metadata.partition_specs for field in spec.fields)
    names = (schema.find_column_name(field.source_id) for field in fields)
    return frozenset(name for name in names if name is not None)


def _rows_worth(spec: PartitionSpec) -> int:
    is_month = any(isinstance(field.transform, MonthTransform) for field in spec.fields)
    return _ROWS_WORTH_A_MONTH if is_month else _ROWS_WORTH_A_DATE


def _shape(spec: PartitionSpec, schema: Schema) -> list[str]:
    return [_text(schema.find_column_name(field.source_id) or "", field.transform) for field in spec.fields]


def _text(column: str, transform: Transform[Any, Any]) -> str:
    return column if isinstance(transform, IdentityTransform) else f"{transform}({column})"
