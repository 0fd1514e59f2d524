"""The gap of each event of a table, by a GapBy: each distinct text is looked up once, numbers are computed as one."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.errors import ConfigError
from sessionize.session.durations import MS_OF_UNIT
from sessionize.session.gap_by import GapBy

IntArray = npt.NDArray[np.int64]


def event_gaps_ms(events: pa.Table, by: GapBy, default_ms: int) -> IntArray:
    """int64[n]: the gap of each event in ms. Errors: ConfigError where the events lack the field."""
    if not events.num_rows:
        return np.zeros(0, np.int64)
    if by.field not in events.column_names:
        raise ConfigError(
            "gap_by needs a field that the events lack",
            detail=f"field {by.field!r}; columns: {', '.join(events.column_names)}",
            hint="map the field, or remove gap_by",
        )
    return np.concatenate([_of_chunk(chunk, by, default_ms) for chunk in events[by.field].chunks])


def _of_chunk(values: pa.Array, by: GapBy, default_ms: int) -> IntArray:
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not by.gaps and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        plain = values.dictionary_decode() if isinstance(values, pa.DictionaryArray) else values
        return _of_numbers(plain, by, default_ms)
    coded = values if isinstance(values, pa.DictionaryArray) else values.dictionary_encode()
    found = [by.of_text(value, default_ms) for value in coded.dictionary.cast(pa.string()).to_pylist()]
    # one more element at the end, for the index -1 of null
    table = np.array([*found, default_ms], np.int64)
    gaps: IntArray = table[pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)]
    return gaps


def _of_numbers(values: pa.Array, by: GapBy, default_ms: int) -> IntArray:
    number = pc.fill_null(values.cast(pa.float64(), safe=False), 0.0).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore", over="ignore"):
        ms = np.minimum(number * MS_OF_UNIT[by.unit], float(by.longest_ms))
        usable = ms >= 1  # NaN is not
    return np.where(usable, np.where(usable, ms, 1.0).astype(np.int64), default_ms)
