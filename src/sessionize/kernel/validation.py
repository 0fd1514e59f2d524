"""What a table of events must look like before it is taken in: checked whole, so that a bad one changes nothing.

Whatever passes here never fails later: not while it is folded, nor in a snapshot, nor in any output.
"""

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.arrow import decoded_type
from sessionize.errors import InputError
from sessionize.kernel.interner import Interner
from sessionize.kernel.sums import MICROS
from sessionize.session import columns as col
from sessionize.session.expressions import word_of
from sessionize.session.limits import (
    TIME_MS_MAX,
    TIME_MS_MIN,
    USER_BYTES_MAX,
    VALUE_MAX,
    all_usable,
    is_utf8,
    text_ends,
)

_TEXTS = (col.USER, col.EVENT_ID, col.EVENT_TYPE, col.PAGE)
_SHOWN_CHARACTERS = 60
_FAR_MS = 1 << 62
_IDS_BYTES_MAX = 2_000_000_000
_KINDS = {
    "pandas": "pyarrow.Table.from_pandas(frame, preserve_index=False), or use sessionize.sessions(frame, user=, time=)",
    "polars": "frame.to_arrow(), or use sessionize.sessions(frame, user=, time=)",
    "builtins": 'for example pyarrow.table({"user": ["ann"], "event_time_ms": [1704067200000]}), or Table.from_pylist',
}


def accepted(events: object, *, called: Mapping[str, str] | None = None, fields: Iterable[str] = ()) -> pa.Table:
    """The events in the types that the core works with, after looking at all of them but the values.

    Text columns become string, large_string, or dictionaries of these with int32 indices. called: the columns' names
    where they come from, for the errors. fields: further columns that are looked at, whose text has to be UTF-8.
    Errors: InputError.
    """
    table, name_of = _as_table(events), called or {}
    _check_columns(table)
    _check_times(table[col.EVENT_TIME], name_of.get(col.EVENT_TIME, col.EVENT_TIME))
    for name in _TEXTS:
        if name in table.column_names:
            column = _plain_text(table[name], name_of.get(name, name))
            if name == col.EVENT_ID:  # hardly any repeats
                if column.nbytes > _IDS_BYTES_MAX:
                    raise InputError(
                        "the event ids of one push are too large",
                        detail=f"{column.nbytes:,} bytes, at most {_IDS_BYTES_MAX:,} are taken at once",
                        hint="push the events in smaller pieces",
                    )
                column = column.cast(pa.string())
            if column is not table[name]:
                table = table.set_column(table.schema.get_field_index(name), name, column)
            _check_utf8(column, name_of.get(name, name))
    for name in fields:
        if (
            name not in _TEXTS
            and table.column_names.count(name) == 1
            and word_of(decoded_type(table[name].type)) == "text"
        ):
            _check_utf8(_plain_text(table[name], name), name)
    _check_users(table[col.USER], name_of.get(col.USER, col.USER))
    return table


def times(table: pa.Table) -> npt.NDArray[np.int64]:
    """The event times of an accepted table, int64[n] ms."""
    time: npt.NDArray[np.int64] = table[col.EVENT_TIME].to_numpy()
    return time


def whole_ms(time_ms: object, name: str) -> int:
    """A time as a whole number of Python's, no further away than 64 bits go. Errors: InputError."""
    try:
        return max(-_FAR_MS, min(_FAR_MS, operator.index(time_ms)))  # type: ignore[arg-type]  # that is the question
    except TypeError:
        raise InputError(
            f"{name} must be a whole number of milliseconds",
            detail=f"{name} = {time_ms!r}",
            hint="times are milliseconds since 1970-01-01 UTC",
        ) from None


def as_users(users: Any) -> pa.Array | pa.ChunkedArray:
    """Users to be looked up, from an Arrow array or a list; what can be no user is no longer among them.

    Errors: InputError for what is no text.
    """
    if isinstance(users, list):
        # a lone surrogate of Python's is no text of anybody else's
        users = [user for user in users if not isinstance(user, str) or user.isascii() or _is_encodable(user)]
        try:
            return pa.array(users, pa.string())
        except (pa.ArrowTypeError, pa.ArrowInvalid):
            pass
    elif isinstance(users, pa.Array | pa.ChunkedArray):
        column = users if isinstance(users, pa.ChunkedArray) else pa.chunked_array([users])
        return _plain_text(column, "users")
    raise InputError("users must be text", detail=f"this is {users!r:.100}", hint="a user is a str")


def _is_encodable(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _as_table(events: object) -> pa.Table:
    if isinstance(events, pa.RecordBatch):
        return pa.Table.from_batches([events])
    if isinstance(events, pa.Table):
        return events
    kind = type(events)
    package = kind.__module__.partition(".")[0]
    raise InputError(
        "events must be a pyarrow Table or RecordBatch",
        detail=f"this is {kind.__module__}.{kind.__qualname__}".replace("builtins.", ""),
        hint=f"convert it first: {_KINDS.get(package, _KINDS['builtins'])}",
    )


def _check_columns(table: pa.Table) -> None:
    for name in (col.USER, col.EVENT_TIME):
        if name not in table.column_names:
            raise InputError(
                f"the events have no column {name}",
                detail=f"columns: {', '.join(table.column_names)}",
                hint=f"rename the column that holds it to {name}",
            )
    for name in (*_TEXTS, col.EVENT_TIME, col.VALUE):
        if table.column_names.count(name) > 1:
            raise InputError(f"the events have two columns {name}", hint="rename one of them")
    if col.VALUE in table.column_names:
        kind = table[col.VALUE].type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise InputError(f"{col.VALUE} must be a number", detail=f"it is {kind}", hint="cast it first")


def _check_times(column: pa.ChunkedArray, name: str) -> None:
    if column.type != pa.int64():
        raise InputError(f"{name} must be int64 milliseconds", detail=f"it is {column.type}", hint="cast it first")
    if column.null_count:
        raise InputError(
            f"{name} has nulls", detail=_nulls(column), hint="every event needs a time: drop these rows first"
        )
    time = column.to_numpy()
    if len(time) and (int(time.max()) > TIME_MS_MAX or int(time.min()) < TIME_MS_MIN):
        row = int(np.flatnonzero((time > TIME_MS_MAX) | (time < TIME_MS_MIN))[0])
        raise InputError(
            "an event time is out of range",
            detail=f"row {row}: {name} = {time[row]}, outside the years 1 to 9999",
            hint="times are milliseconds since 1970; is this one in micro- or nanoseconds?",
        )


def _plain_text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Errors: InputError for a column of no text."""
    kind = column.type
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(values) or pa.types.is_large_string(values):
        if values is kind:
            return column
        if kind.index_type == pa.int32() and not any(chunk.dictionary.null_count for chunk in column.chunks):
            return column
        return column.cast(values)  # a null may also be a value of the dictionary, and then it is one like others
    if pa.types.is_null(values):
        return column.cast(pa.string())
    if pa.types.is_string_view(values):
        return pa.chunked_array([_without_views(chunk) for chunk in column.chunks], pa.large_string())
    raise InputError(f"{name} must be text", detail=f"it is {kind}", hint="cast it to a string first")


def _without_views(chunk: pa.Array) -> pa.Array:
    if not isinstance(chunk, pa.DictionaryArray):
        return chunk.cast(pa.large_string())
    return pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary.cast(pa.large_string())).dictionary_decode()


def _values(chunk: pa.Array) -> pa.Array:
    """Plain text in which every value of the chunk occurs, maybe among others."""
    if not isinstance(chunk, pa.DictionaryArray):
        return chunk
    return chunk.dictionary if len(chunk.dictionary) <= len(chunk) else chunk.dictionary_decode()


def _check_utf8(column: pa.ChunkedArray, name: str) -> None:
    start = 0
    for chunk in column.chunks:
        if not is_utf8(_values(chunk)):
            texts = chunk.dictionary_decode() if isinstance(chunk, pa.DictionaryArray) else chunk
            raw = texts.cast(pa.large_binary()).to_pylist()
            for row, text in enumerate(raw):
                if text is not None and text.decode(errors="replace").encode() != text:
                    raise InputError(
                        f"{name} has bytes that are not UTF-8",
                        detail=f"row {start + row}: {text[:_SHOWN_CHARACTERS]!r}",
                        hint="decode them first, with the encoding that they have",
                    )
        start += len(chunk)


def _check_users(column: pa.ChunkedArray, name: str) -> None:
    if column.null_count:
        raise InputError(
            f"{name} has nulls", detail=_nulls(column), hint="every event needs a user: drop these rows first"
        )
    start = 0
    for chunk in column.chunks:
        if not all_usable(_values(chunk)):
            _refuse_users(chunk.dictionary_decode() if isinstance(chunk, pa.DictionaryArray) else chunk, start, name)
        start += len(chunk)


def _refuse_users(users: pa.Array, start: int, name: str) -> None:
    """Errors: InputError that names the first user who cannot be one, if there is any."""
    size = np.diff(text_ends(users))
    blank = pc.utf8_is_space(users).to_numpy(zero_copy_only=False)
    found = np.flatnonzero((size < 1) | (size > USER_BYTES_MAX) | blank)
    if not len(found):
        return
    row = int(found[0])
    user = users[row].as_py()
    shown = repr(user if len(user) <= _SHOWN_CHARACTERS else f"{user[:_SHOWN_CHARACTERS]}…")
    if size[row] > USER_BYTES_MAX:
        raise InputError(
            "a user is too long",
            detail=f"row {start + row}: {name} = {shown} has {size[row]:,} bytes, at most {USER_BYTES_MAX:,} may be",
            hint="is this the right column? A hash of it will do for a user",
        )
    raise InputError("a user is empty", detail=f"row {start + row}: {name} = {shown}", hint="drop these rows first")


def _nulls(column: pa.ChunkedArray) -> str:
    row = int(np.flatnonzero(column.is_null().to_numpy())[0])
    return f"{column.null_count} of {len(column)} rows, the first is row {row}"


def codes(names: Interner, table: pa.Table, column: str) -> npt.NDArray[np.int32]:
    """int32[n]: the codes of a text column, -1 for null, and everywhere where there is no such column."""
    if column not in table.column_names:
        return np.full(table.num_rows, -1, np.int32)
    return names.encode(table[column])


def amounts(
    table: pa.Table, converts: npt.NDArray[np.bool_] | None, *, called: str = col.VALUE
) -> npt.NDArray[np.int64]:
    """What each event adds to revenue, in whole millionths, so that sums never depend on the order of adding.

    converts: which events are conversions, None for none. called: the column's name where it comes from. Errors:
    InputError for a value that is not an amount.
    """
    if col.VALUE not in table.column_names or converts is None:
        return np.zeros(table.num_rows, np.int64)
    # what a double does not hold exactly is beyond what is allowed anyway
    numbers = table[col.VALUE].cast(pa.float64(), safe=False)
    value = np.where(converts, pc.fill_null(numbers, 0.0).to_numpy(), 0.0)
    fits = np.abs(value) <= VALUE_MAX  # NaN does not either
    if not fits.all():
        row = int(np.flatnonzero(~fits)[0])
        raise InputError(
            "an event's value is not usable as an amount",
            detail=f"row {row}: {called} = {table[col.VALUE][row]}",
            hint=f"leave it null, or keep it within ±{VALUE_MAX:g}",
        )
    made: npt.NDArray[np.int64] = np.rint(value * MICROS).astype(np.int64)
    return made
