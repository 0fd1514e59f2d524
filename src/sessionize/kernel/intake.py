"""What a table of events must look like before it is taken in: checked whole, so that a bad one changes nothing."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.errors import InputError
from sessionize.kernel.interner import Interner
from sessionize.kernel.sums import MICROS
from sessionize.session import columns as col

TIME_MS_MAX = 8_640_000_000_000_000  # a hundred million days either side of 1970


def times(table: pa.Table) -> npt.NDArray[np.int64]:
    """The event times, int64[n] ms. Errors: InputError when they or the users cannot be read as such."""
    for name in (col.USER, col.EVENT_TIME):
        if name not in table.column_names:
            raise InputError(
                f"the events have no column {name}",
                detail=f"columns: {', '.join(table.column_names)}",
                hint=f"rename the column that holds it to {name}",
            )
    column = table[col.EVENT_TIME]
    if column.type != pa.int64():
        raise InputError(
            f"{col.EVENT_TIME} must be int64 milliseconds", detail=f"it is {column.type}", hint="cast it first"
        )
    if column.null_count:
        raise InputError(f"{col.EVENT_TIME} has nulls", detail=f"{column.null_count} of {len(column)}")
    time: npt.NDArray[np.int64] = column.to_numpy()
    if len(time) and (int(time.max()) > TIME_MS_MAX or int(time.min()) < -TIME_MS_MAX):
        bad = int(time[(time > TIME_MS_MAX) | (time < -TIME_MS_MAX)][0])
        raise InputError(
            "an event time is out of range",
            detail=f"{col.EVENT_TIME} = {bad}, allowed ±{TIME_MS_MAX}",
            hint="times are milliseconds since 1970; is this one in micro- or nanoseconds?",
        )
    return time


def _is_text(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain))


def check_optional(table: pa.Table) -> None:
    """Errors: InputError for an optional column of the wrong type."""
    for name in (col.EVENT_ID, col.EVENT_TYPE, col.PAGE, col.VALUE):
        if name in table.column_names:
            kind = table[name].type
            number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
            if not pa.types.is_null(kind) and not (number if name == col.VALUE else _is_text(kind)):
                wanted = "a number" if name == col.VALUE else "text"
                raise InputError(f"{name} must be {wanted}", detail=f"it is {kind}", hint="cast it first")


def check_users(table: pa.Table) -> None:
    """Errors: InputError for users that are not text, or null."""
    column = table[col.USER]
    if not _is_text(column.type):
        raise InputError("user must be text", detail=f"it is {column.type}", hint="cast it to a string first")
    if column.null_count:
        raise InputError("user has nulls", detail=f"{column.null_count} of {len(column)} rows", hint="drop them first")


def codes(names: Interner, table: pa.Table, column: str) -> npt.NDArray[np.int32]:
    """int32[n]: the codes of a text column, -1 for null, and everywhere where there is no such column."""
    if column not in table.column_names:
        return np.full(table.num_rows, -1, np.int32)
    return names.encode(table[column])


def amounts(table: pa.Table, converts: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int64]:
    """What each event adds to revenue, in whole millionths, so that sums never depend on the order of adding.

    converts: which events are conversions, None for none. Errors: InputError for a value that is not an amount.
    """
    if col.VALUE not in table.column_names or converts is None:
        return np.zeros(table.num_rows, np.int64)
    value = np.where(converts, pc.fill_null(table[col.VALUE].cast(pa.float64()), 0.0).to_numpy(), 0.0)
    if not np.all(np.abs(value) <= col.VALUE_MAX):  # also catches NaN
        bad = value[~(np.abs(value) <= col.VALUE_MAX)][0]
        raise InputError(
            "an event's value is not usable as an amount",
            detail=f"value = {bad}",
            hint=f"leave it null, or keep it within ±{col.VALUE_MAX:g}",
        )
    made: npt.NDArray[np.int64] = np.rint(value * MICROS).astype(np.int64)
    return made
