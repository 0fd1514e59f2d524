"""Arrow columns without their encoding: what readers and writers of columns need."""

import pyarrow as pa


def decoded_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values: a dictionary's values, any other type as it is."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    """Whether it is text, of whichever of Arrow's layouts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array; free where it is one chunk already."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
