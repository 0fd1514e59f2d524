"""The columns of a decoded batch and the validation of user and time, shared by all formats.

NDJSON, CSV and Parquet all use it, so that the same record is accepted or rejected for the same reason in each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.formats.rejects import (
    EMPTY_USER,
    FUTURE_TIMESTAMP,
    MISSING_USER,
    USER_TOO_LONG,
    Fault,
    Faults,
    preview,
)
from sessionize.formats.times import Ints, ParsedTimes
from sessionize.session.columns import (
    CATEGORY,
    EVENT_ID,
    EVENT_TIME,
    EVENT_TYPE,
    PAGE,
    PRODUCT,
    PROPERTIES,
    USER,
    VALUE,
)
from sessionize.session.limits import USER_BYTES_MAX, all_usable, text_ends

EXTRA_COLUMNS_MAX = 200

DICTIONARY = pa.dictionary(pa.int32(), pa.string())
# The types of decoded columns: repeated text is a dictionary.
DECODED_TYPES: dict[str, pa.DataType] = {
    USER: DICTIONARY,
    EVENT_TIME: pa.int64(),
    EVENT_ID: pa.string(),
    EVENT_TYPE: DICTIONARY,
    PAGE: DICTIONARY,
    PRODUCT: DICTIONARY,
    CATEGORY: DICTIONARY,
    VALUE: pa.float64(),
    PROPERTIES: pa.string(),
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """events: the canonical columns, as DECODED_TYPES, and further fields. rejected: REJECTED_SCHEMA.

    lost, nulled, local_times: as in ports.EventBatch.
    """

    events: pa.Table
    rejected: pa.Table
    lost: Mapping[str, int] = field(default_factory=dict)
    nulled: Mapping[str, int] = field(default_factory=dict)
    local_times: int = 0


def validate(
    user: pa.Array,
    times: ParsedTimes,
    *,
    user_faults: Faults,
    latest_ms: int | None,
    user_field: str,
    time_field: str,
) -> Faults:
    """The invalid rows, each with its first fault: the user's before the time's.

    user: string or dictionary of strings, n rows. user_faults: from the conversion to text. latest_ms: reject later
    events as future ones; None accepts all.
    """
    faults = _future_faults(times.ms, latest_ms, time_field)
    faults.update(times.faults)
    faults.update(_user_faults(user, user_field))
    faults.update(user_faults)
    return faults


def without_empty(ids: pa.StringArray) -> pa.StringArray:
    """Null for empty event ids: "" identifies nothing, so events that have it are not duplicates."""
    if not len(ids) or np.diff(text_ends(ids)).min() > 0:
        return ids
    return pc.if_else(pc.equal(pc.binary_length(ids), 0), pa.scalar(None, pa.string()), ids)


def _future_faults(ms: Ints, latest_ms: int | None, field: str) -> Faults:
    if latest_ms is None or not len(ms) or ms.max() <= latest_ms:
        return {}
    return {
        int(row): Fault(
            FUTURE_TIMESTAMP,
            f"{field} is {(int(ms[row]) - latest_ms) / 1000:,.0f} s after the latest accepted time",
        )
        for row in np.flatnonzero(ms > latest_ms)
    }


def _user_faults(user: pa.Array, field: str) -> Faults:
    if not isinstance(user, pa.DictionaryArray):
        return _text_faults(user, field)
    of_value = _text_faults(user.dictionary, field)
    missing = Fault(MISSING_USER, f"the user ({field}) is missing or null")
    faults = {int(row): missing for row in np.flatnonzero(user.indices.is_null())} if user.null_count else {}
    if of_value:
        codes = user.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        bad = np.isin(codes, np.fromiter(of_value, np.int64, len(of_value)))
        faults.update((int(row), of_value[int(codes[row])]) for row in np.flatnonzero(bad))
    return faults


def _text_faults(user: pa.StringArray, field: str) -> Faults:
    """Null, empty, blank and overlong users. Costs almost nothing if there are none."""
    if all_usable(user):
        return {}
    lengths = np.diff(text_ends(user))
    faults: Faults = {}
    for row, value in enumerate(user.to_pylist()):
        if value is None:
            faults[row] = Fault(MISSING_USER, f"the user ({field}) is missing or null")
        elif not value or value.isspace():
            faults[row] = Fault(EMPTY_USER, f"{field} = {preview(value)}: the user is empty")
        elif lengths[row] > USER_BYTES_MAX:
            faults[row] = Fault(
                USER_TOO_LONG,
                f"{field} = {preview(value)}: {lengths[row]} bytes, at most {USER_BYTES_MAX} are allowed",
            )
    return faults
