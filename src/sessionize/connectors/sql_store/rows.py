"""Arrow rows as plain columns that any database takes: numbers, text, dates, bytes, and JSON as text.

Everything is done by whole columns; only distinct texts are looked at one by one.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.connectors.sql_store.tables import Column, TableShape
from sessionize.connectors.sql_store.text import stored_keys, stored_text, stored_texts
from sessionize.errors import OutputError
from sessionize.formats.properties import moved_to_properties
from sessionize.formats.sizes import decoded_sizes, in_pieces

# PostgreSQL's JSONB has room for 256 MB of texts, and for as many elements as fit into this.
JSON_BYTES_MAX = 64 << 20

_PLAIN: dict[str, pa.DataType] = {
    "text": pa.string(),
    "bigint": pa.int64(),
    "integer": pa.int32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "bytes": pa.binary(),
}


def to_storable(rows: pa.Table, shape: TableShape) -> Iterator[pa.Table]:
    """Rows with exactly the columns of the table, in its order, a piece at a time; what they lack is null, or 0.

    Errors: OutputError for a value that does not fit, a required one that is missing, or two rows of one key.
    """
    if shape.key:
        keys = [_plain_column(rows, column, is_key=True) for column in shape.columns if column.name in shape.key]
        _check_distinct(
            pa.Table.from_arrays(keys, names=[c.name for c in shape.columns if c.name in shape.key]), shape.name
        )
    for piece in in_pieces(rows):
        columns = [_plain_column(piece, column, is_key=column.name in shape.key) for column in shape.columns]
        yield pa.Table.from_arrays(columns, names=list(shape.column_names))


def plain_keys(rows: pa.Table, shape: TableShape) -> pa.Table:
    """The columns of rows by which they are removed."""
    kinds = {column.name: column for column in shape.columns}
    columns = [_plain_column(rows, kinds[name], is_key=name in shape.key) for name in shape.removed_by]
    return pa.Table.from_arrays(columns, names=list(shape.removed_by))


def further_fields_in_properties(events: pa.Table, shape: TableShape) -> pa.Table:
    """Events whose fields without a column of the table are in `properties`, a JSON text.

    A field may be a number today and text tomorrow, so it gets no column.
    """
    further = [name for name in events.column_names if name not in shape.column_names]
    return moved_to_properties(events, further) if further else events


def _plain_column(rows: pa.Table, column: Column, *, is_key: bool) -> pa.Array:
    if column.name not in rows.column_names:
        if column.required and not column.zero and rows.num_rows:
            raise OutputError(
                "rows lack a column that the store needs",
                detail=f"column {column.name!r}; the rows have {', '.join(rows.column_names)}",
                hint="leave it among the session columns",
            )
        kind = _PLAIN.get(column.kind, pa.string())
        return pa.repeat(pa.scalar(0, kind), rows.num_rows) if column.zero else pa.nulls(rows.num_rows, kind)
    values = _whole(rows[column.name])
    try:
        plain = json_texts(values) if column.kind == "json" else values.cast(_PLAIN[column.kind])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise OutputError(
            "a value does not fit the store",
            detail=f"column {column.name!r}, from {values.type} to {column.kind}: {error}",
            hint="convert the column, or leave it out",
        ) from error
    if column.required and plain.null_count:
        raise OutputError(
            "a column that the store needs has an empty value",
            detail=f"column {column.name!r}",
            hint="every session has a user, an id and times; look at what made these rows",
        )
    if column.kind != "text":
        return plain
    return stored_keys(plain) if is_key else stored_texts(plain)


def _whole(values: pa.ChunkedArray) -> pa.Array:
    """One array without dictionaries."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values.combine_chunks()


def json_texts(values: pa.Array) -> pa.Array:
    """Each value as JSON text, null for null: lists of texts, maps of text to integers, anything else as it goes.

    Of a list or map of more than JSON_BYTES_MAX the first elements are kept.
    """
    if pa.types.is_nested(values.type) and decoded_sizes(pa.table({"": values})).max(initial=0) > JSON_BYTES_MAX:
        return _dumped(_first(value, JSON_BYTES_MAX) for value in values.to_pylist())
    type_ = values.type
    if pa.types.is_list(type_) and pa.types.is_string(type_.value_type):
        return _joined(values, _quoted(values.values), "[", "]")
    if pa.types.is_map(type_) and pa.types.is_string(type_.key_type) and pa.types.is_integer(type_.item_type):
        counts = pc.fill_null(pc.cast(values.items, pa.string()), "null")
        pairs = pc.binary_join_element_wise(_quoted(values.keys), counts, ": ")
        return _joined(values, pairs, "{", "}")
    if pa.types.is_map(type_):
        return _dumped(None if pairs is None else dict(pairs) for pairs in values.to_pylist())
    return _dumped(values.to_pylist())


def _first(value: Any, bytes_max: int) -> Any:
    """As many elements of a list, or pairs of a map, as have room."""
    if not isinstance(value, list):
        return value
    room, kept = bytes_max, []
    for element in value:
        room -= len(str(element).encode())
        if room < 0:
            break
        kept.append(element)
    return dict(kept) if kept and isinstance(kept[0], tuple) else kept


def _joined(lists: pa.Array, inner: pa.Array, before: str, after: str) -> pa.Array:
    texts = pc.binary_join(pa.ListArray.from_arrays(lists.offsets, inner), ", ")
    framed = pc.binary_join_element_wise(before, texts, after, "")
    return pc.if_else(lists.is_null(), pa.scalar(None, pa.string()), framed)


def _quoted(texts: pa.Array) -> pa.Array:
    encoded = texts.dictionary_encode()
    words = [json.dumps(stored_text(word), ensure_ascii=False) for word in encoded.dictionary.to_pylist()]
    return pc.fill_null(pa.array(words, pa.string()).take(encoded.indices), "null")


def _dumped(values: Iterable[object]) -> pa.Array:
    texts = [
        None if value is None else json.dumps(_storable(value), ensure_ascii=False, default=str) for value in values
    ]
    return pa.array(texts, pa.string())


def _storable(value: object) -> object:
    if isinstance(value, str):
        return stored_text(value)
    if isinstance(value, dict):
        return {stored_text(str(name)): _storable(inner) for name, inner in value.items()}
    return [_storable(inner) for inner in value] if isinstance(value, list) else value


def _check_distinct(keys: pa.Table, table: str) -> None:
    if keys.num_rows < 2:
        return
    counted = keys.group_by(keys.column_names).aggregate([([], "count_all")])
    if counted.num_rows < keys.num_rows:
        twice = counted.filter(pc.greater(counted["count_all"], 1)).slice(0, 1).to_pylist()[0]
        raise OutputError(
            "two rows to be written are the same row",
            detail=f"table {table}: " + ", ".join(f"{name} {twice[name]!r}" for name in keys.column_names),
            hint="session ids have to differ within a user; look at what made these rows",
        )
