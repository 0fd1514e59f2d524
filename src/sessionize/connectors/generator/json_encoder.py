"""Encodes columns of events as lines of JSON, without a loop over events.

The parts of a record that depend only on activity and product are written once for all combinations; ids and times
are written digit by digit as columns of bytes; pyarrow joins the parts. The result's buffer is the text itself.
"""

from itertools import product as combinations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.connectors.generator.behaviour import Steps, mixed
from sessionize.connectors.generator.catalogue import PRODUCT_COUNT, PRODUCTS
from sessionize.connectors.generator.journeys import Ints
from sessionize.connectors.generator.profiles import Field, Profile, Text
from sessionize.session.time import MS_PER_DAY

Bytes = npt.NDArray[np.uint8]

_HEX_PAIRS = np.frombuffer("".join(f"{n:02x}" for n in range(256)).encode(), dtype=np.uint8).reshape(256, 2)
_ID_GROUPS = ((0, 4), (4, 8), (8, 12), (12, 16))  # 0123-4567-89ab-cdef
_ZERO = ord("0")


def user_name(user: int) -> str:
    """The name of user number `user` (from 0)."""
    return f"user-{user + 1}"


class LineWriter:
    """Writes the records of one profile. salt makes the event ids of different runs different."""

    def __init__(self, profile: Profile, *, salt: np.uint64) -> None:
        self._profile = profile
        self._salt = salt
        self._tables = {part: _table(profile, part) for part in profile.line if callable(part)}
        self._is_conversion = np.array([a.name in profile.conversions for a in profile.activities])

    def lines(self, steps: Steps, time_ms: Ints) -> pa.BinaryArray:
        """One record of JSON for each event, with its line feed: binary[n]. time_ms: ms since 1970."""
        if not len(steps):
            return pa.array([], pa.binary())
        combination = pa.array(steps.activity.astype(np.int32) * PRODUCT_COUNT + steps.product)
        event_id = self._event_ids(steps)
        parts: list[pa.Array | pa.Scalar] = []
        for part in self._profile.line:
            if isinstance(part, str):
                parts.append(pa.scalar(part, pa.string()))
            elif isinstance(part, Field):
                parts.append(self._field(part, steps, time_ms, event_id))
            else:
                parts.append(self._tables[part].take(combination))
        return pc.binary_join_element_wise(*parts, "").cast(pa.binary())

    def _field(self, field: Field, steps: Steps, time_ms: Ints, event_id: Bytes) -> pa.Array:
        match field:
            case Field.EVENT_ID:
                return _as_strings(event_id)
            case Field.REFERENCE:
                converts = pa.array(self._is_conversion[steps.activity])
                return pc.if_else(converts, _as_strings(np.ascontiguousarray(event_id[:, :4])), "")
            case Field.USER:
                number = pa.array(steps.user.astype(np.int64) + 1).cast(pa.string())
                return pc.binary_join_element_wise("user-", number, "")
            case Field.TIME_MS:
                return pa.array(time_ms).cast(pa.string())
            case Field.TIME_ISO:
                return _as_strings(iso_times(time_ms))

    def _event_ids(self, steps: Steps) -> Bytes:
        number = mixed(steps.number, self._salt).astype(">u8").view(np.uint8).reshape(-1, 8)
        digits = _HEX_PAIRS[number].reshape(-1, 16)
        text = np.full((len(steps), 19), ord("-"), dtype=np.uint8)
        for group, (start, stop) in enumerate(_ID_GROUPS):
            text[:, start + group : stop + group] = digits[:, start:stop]
        return text


def iso_times(time_ms: Ints) -> Bytes:
    """ms since 1970 as 2026-01-05T10:00:00.000Z: int64[n] in, uint8[n, 24] out; years 0 to 9999."""
    day, rest = np.divmod(time_ms, MS_PER_DAY)
    days, which = np.unique(day, return_inverse=True)
    dates = np.datetime_as_string(days.astype("M8[D]"), unit="D").astype("S10").view(np.uint8).reshape(-1, 10)
    text = np.empty((len(time_ms), 24), dtype=np.uint8)
    text[:, :10] = dates[which]
    text[:, 10:] = np.frombuffer(b"T00:00:00.000Z", dtype=np.uint8)
    for column, unit_ms, base in (
        (11, 36_000_000, 10),
        (12, 3_600_000, 10),
        (14, 600_000, 6),
        (15, 60_000, 10),
        (17, 10_000, 6),
        (18, 1_000, 10),
        (20, 100, 10),
        (21, 10, 10),
        (22, 1, 10),
    ):
        text[:, column] = _ZERO + rest // unit_ms % base
    return text


def _table(profile: Profile, text: Text) -> pa.Array:
    """The text of every activity with every product: string[activities * PRODUCT_COUNT]."""
    return pa.array([text(a.name, p) for a, p in combinations(profile.activities, PRODUCTS)], pa.string())


def _as_strings(text: Bytes) -> pa.Array:
    """Rows of bytes, all of one width, as strings."""
    rows, width = text.shape
    offsets = np.arange(rows + 1, dtype=np.int32) * width
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(text))
