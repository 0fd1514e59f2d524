"""Users, times and amounts of a frame by the rules of files; what a file would reject is an error here.

A frame has no place for rejected rows, so the error names the first row and the line of code that mends the frame.
"""

import warnings

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.arrow import is_text, one_chunk
from sessionize.errors import ConfigError, InputError
from sessionize.formats.further_fields import field_of_array
from sessionize.formats.rejects import Fault, Faults
from sessionize.formats.storable import storable
from sessionize.formats.time.forms import form_fault
from sessionize.formats.time.local import zone_fault
from sessionize.formats.times import times_of_array

# Whole numbers between them are hardly milliseconds (of early 1970), but seconds since 1973.
_SECONDS = (100_000_000, 7_776_000_000)


def check_time_options(time_format: str, time_zone: str | None) -> None:
    """Errors: ConfigError."""
    fault = form_fault(time_format)
    if fault is not None:
        raise ConfigError("unknown time format", detail=f"time_format = {time_format!r}", hint=fault)
    if time_zone is not None and (fault := zone_fault(time_zone)) is not None:
        raise ConfigError("unknown time zone", detail=fault, hint="for example Europe/Berlin")


def frame_users(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Text, or a dictionary of text. Integers become text, also those that are floats. Errors: InputError."""
    if not len(column):
        return pa.chunked_array([pa.array([], pa.string())])
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_floating(kind):
        numbers = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(numbers), None, numbers)  # pandas writes NaN for null
    _no_nulls(column, name)
    if pa.types.is_string(kind):
        return column
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.chunked_array([storable(chunk) for chunk in column.chunks])
    elif pa.types.is_floating(kind):
        whole = pc.equal(column, pc.floor(column))
        if not pc.all(whole).as_py():
            row = pc.index(whole, False).as_py()
            raise _refused(name, {row: Fault("", f"{column[row].as_py()} is no whole number")}, "astype(str)")
        column = column.cast(pa.decimal128(38, 0))
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or (pa.types.is_decimal(kind) and kind.scale == 0)
    ):
        raise InputError(
            "users must be text or integers",
            detail=f"column {name!r} is {column.type}",
            hint=f'frame["{name}"].astype(str), in pandas',
        )
    return column.cast(pa.string())


def frame_times(column: pa.ChunkedArray, name: str, *, time_format: str, time_zone: str | None) -> pa.ChunkedArray:
    """int64 ms UTC. Errors: InputError for the first value that is no time; a warning for what looks like seconds."""
    if not len(column):
        return pa.chunked_array([pa.array([], pa.int64())])
    _no_nulls(column, name)
    if time_format == "auto" and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        bounds = pc.min_max(column).as_py()
        if _SECONDS[0] <= bounds["min"] and bounds["max"] < _SECONDS[1]:
            warnings.warn(
                f"column {name!r}: all event times are in early 1970. Numbers are read as milliseconds; if they are "
                "seconds, use time_format='s'",
                UserWarning,
                stacklevel=4,
            )
    array = one_chunk(column)
    if not _may_be_time(array.type):
        raise InputError(
            "event times must be numbers, text or timestamps",
            detail=f"column {name!r} is {column.type}",
            hint="convert the column first",
        )
    times = times_of_array(array, time_format, field=name).in_zone(time_zone, field=name)
    if times.faults:
        raise _refused(name, times.faults, "", f"drop these rows first, or name their form: time_format=… ({name!r})")
    return pa.chunked_array([pa.array(times.ms)])


def frame_amounts(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """float64. Errors: InputError for the first text that is no number."""
    array = one_chunk(column)
    if pa.types.is_nested(array.type):
        raise InputError("amounts must be numbers", detail=f"column {name!r} is {array.type}", hint="convert it first")
    numbers, faults = field_of_array(array, "number", name)
    if faults and pa.types.is_floating(array.type):
        return column.cast(pa.float64())  # infinity: refused where it counts
    if faults:
        raise _refused(name, faults, "", f'pandas.to_numeric(frame["{name}"], errors="coerce") makes null of them')
    return pa.chunked_array([numbers])


def _may_be_time(kind: pa.DataType) -> bool:
    text = is_text(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    coded = pa.types.is_dictionary(kind) and _may_be_time(kind.value_type)
    return bool(text or number or coded or pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _refused(name: str, faults: Faults, code: str, hint: str = "") -> InputError:
    row = min(faults)
    return InputError(
        f"column {name!r} has values that cannot be used",
        detail=f"row {row}: {faults[row].detail}; {len(faults)} such rows",
        hint=hint or f'frame["{name}"].{code}, in pandas',
    )


def _no_nulls(column: pa.ChunkedArray, name: str) -> None:
    if column.null_count:
        raise InputError(
            "every event needs a user and a time",
            detail=f"column {name!r} has {column.null_count} null(s) in {len(column)} rows",
            hint=f'drop or fill them first: frame.dropna(subset=["{name}"]) in pandas',
        )
