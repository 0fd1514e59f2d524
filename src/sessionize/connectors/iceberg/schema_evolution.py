"""Schema evolution: the changes a table needs for new rows, and the rows in the table's schema.

A table gets only new nullable columns and wider types, so existing files stay unchanged.
"""

from collections.abc import Mapping

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema, index_by_name, sanitize_column_names
from pyiceberg.table import Transaction
from pyiceberg.types import IcebergType

from sessionize.connectors.iceberg.tables import TableLayout
from sessionize.connectors.iceberg.types import FieldIds, fits, iceberg_type, wider
from sessionize.errors import OutputError
from sessionize.formats.properties import ARROWS_OWN, moved_to_properties
from sessionize.session.columns import USER

# The metadata has every column of every past schema, and each commit writes all of it.
COLUMNS_MAX = 1_000


def complete(rows: pa.Table, layout: TableLayout) -> pa.Table:
    """The rows with the table's user column name and with derived columns.

    Columns without a type (all null) are left out: the table's type, or no column, means the same.
    """
    if layout.user_name is not None and layout.user_name not in rows.column_names and USER in rows.column_names:
        rows = rows.rename_columns([layout.user_name if name == USER else name for name in rows.column_names])
    repeated = {name for name in rows.column_names if rows.column_names.count(name) > 1}
    if repeated:
        raise OutputError("rows have two columns of the same name", detail=f"column {sorted(repeated)[0]!r}")
    rows = rows.drop_columns([column.name for column in rows.schema if pa.types.is_null(column.type)])
    for derived in layout.derived:
        if derived.name not in rows.column_names and derived.source in rows.column_names:
            try:
                values = derived.compute(rows.column(derived.source))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise OutputError(
                    "a column cannot be derived",
                    detail=f"column {derived.name!r} from {derived.source!r}: {error}",
                    hint="give the source column the expected type and range",
                ) from error
            rows = rows.append_column(derived.name, values)
    return rows


def changes_needed(schema: Schema, rows: pa.Schema, fixed: frozenset[str]) -> dict[str, IcebergType]:
    """The columns that the table must add or widen for these rows, by name.

    fixed: columns whose type never changes (partition columns); rows are converted to it instead.
    Errors: OutputError for a conflict of types, naming the column and both types.
    """
    names = {column.name: column.field_type for column in schema.fields}
    lower = {name.lower(): name for name in names}
    changes: dict[str, IcebergType] = {}
    for column in rows:
        new = iceberg_type(column.type, column.name, FieldIds())
        old = names.get(column.name)
        if old is None:
            twin = lower.setdefault(column.name.lower(), column.name)
            if twin != column.name:
                raise OutputError(
                    "two columns differ only in upper and lower case",
                    detail=f"the rows have {column.name!r}, the table has {twin!r}",
                    hint="rename one of them; SQL cannot distinguish them",
                )
            changes[column.name] = new
            continue
        both = wider(old, new)
        if both is None:
            raise OutputError(
                "a column's type does not fit the table",
                detail=f"column {column.name!r} is {old} in the table and {new} in the rows",
                hint="write to another table, or convert the column",
            )
        if both is not old and column.name not in fixed:
            changes[column.name] = both
    return changes


def claims_to_properties(rows: pa.Table, layout: TableLayout) -> pa.Table:
    """The events without fields named like a derived column: the table's, such as the user's bucket, or its readers'.

    The values move to `properties`: readers find rows by these columns, so input must not fill them.
    """
    taken = (*(derived.name for derived in layout.derived), *ARROWS_OWN)
    claimed = [name for name in taken if name in rows.column_names]
    return moved_to_properties(rows, claimed) if claimed else rows


def misfits_to_properties(rows: pa.Table, schema: Schema, own: frozenset[str]) -> pa.Table:
    """The rows with only those extra columns that fit the table; the values of others move to `properties`.

    own: as in misfits.
    """
    names = misfits(rows.schema, schema, own)
    return moved_to_properties(rows, names) if names else rows


def misfits(columns: pa.Schema, schema: Schema, own: frozenset[str]) -> list[str]:
    """The columns that a table of this schema cannot take.

    A field may be a number in one record and text in the next; that must neither stop a run nor lose a value. The same
    holds for unlimited names: a table has at most COLUMNS_MAX. own: the columns of the layout, which must fit.
    """
    types = {column.name: column.field_type for column in schema.fields}
    lower = {name.lower(): name for name in types}
    found, room = [], max(0, COLUMNS_MAX - len(types))
    for column in columns:
        if column.name in own:
            continue
        twin = lower.setdefault(column.name.lower(), column.name)
        is_known = column.name in types
        if twin != column.name or not _fits(column, types.get(column.name)) or not (is_known or room):
            found.append(column.name)
        elif not is_known:
            room -= 1
    return found


def same_columns(files: Schema, table: Schema) -> bool:
    """Whether files of that schema can be read by this one: the same ids, and types that hold theirs."""
    now = index_by_name(table)
    if any(now.get(name) != field_id for name, field_id in index_by_name(files).items()):
        return False
    return all(fits(field.field_type, table.find_type(field.field_id)) for field in files.fields)


def _fits(column: pa.Field, old: IcebergType | None) -> bool:
    """Whether the column fits the table. old: its type there, None for a new column."""
    try:
        new = iceberg_type(column.type, column.name, FieldIds())
    except OutputError:
        return False
    return old is None or wider(old, new) is not None


def apply_changes(transaction: Transaction, changes: Mapping[str, IcebergType]) -> Schema:
    """Stage the changes in a transaction, without a commit; returns the new schema with its field ids."""
    if changes:
        known = {column.name for column in transaction.table_metadata.schema().fields}
        with transaction.update_schema() as update:
            for name, type_ in changes.items():
                if name in known:
                    update.update_column((name,), field_type=type_)
                else:
                    update.add_column((name,), field_type=type_)
    return transaction.table_metadata.schema()


def file_schema(schema: Schema) -> Schema:
    """The schema in Parquet files, where characters invalid in Avro names are escaped."""
    return sanitize_column_names(schema)


def file_names(schema: Schema) -> dict[str, str]:
    """The table's name of each column in its files."""
    pairs = zip(file_schema(schema).fields, schema.fields, strict=True)
    return {in_file.name: in_table.name for in_file, in_table in pairs}


def aligned(rows: pa.Table, schema: Schema) -> pa.Table:
    """The rows with exactly the table's columns, order and types; missing columns are null.

    Errors: OutputError if a required column is missing or has a null, or a value does not fit its type.
    """
    target = schema_to_pyarrow(file_schema(schema))
    columns = []
    for column, field in zip(schema.fields, target, strict=True):
        if column.name not in rows.column_names:
            if column.required:
                raise OutputError(
                    "a required column is missing",
                    detail=f"column {column.name!r}; the rows have {', '.join(rows.column_names)}",
                    hint="map it in the input's dialect, or write to another table",
                )
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        values = rows.column(column.name)
        try:
            values = values.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise OutputError(
                "a value does not fit the table",
                detail=f"column {column.name!r}, from {values.type} to {column.field_type}: {error}",
            ) from error
        if column.required and values.null_count:
            raise OutputError("a required column has an empty value", detail=f"column {column.name!r}")
        columns.append(values)
    return pa.table(columns, schema=target)
