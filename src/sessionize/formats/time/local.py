"""Local times to UTC. The hour that happens twice is the earlier one; a time that never happens is no time.

Source: the IANA database, by name, for example Europe/Berlin.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.formats.rejects import INVALID_TIME, TIME_OUT_OF_RANGE, Fault, Faults
from sessionize.session.limits import TIME_MS_MAX, TIME_MS_MIN

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def zone_fault(zone: str) -> str | None:
    """Why this is not the name of a time zone; None if it is one."""
    try:
        _assumed(np.zeros(1, np.int64), zone)
    except pa.ArrowException:
        return f"no time zone of the IANA database is called {zone!r}"
    return None


def in_utc(ms: Ints, local: Bools, zone: str, *, field: str) -> tuple[Ints, Faults]:
    """ms with the rows that are local times of the zone in UTC, and the faults of those that never happen."""
    rows = np.flatnonzero(local)
    if zone == "UTC" or not len(rows):
        return ms, {}
    stamps = _assumed(ms[rows], zone)
    there = pc.local_timestamp(stamps).cast(pa.int64()).to_numpy()
    converted: Ints = stamps.cast(pa.int64()).to_numpy()
    faults = {
        int(rows[at]): Fault(INVALID_TIME, f"{field} = {_shown(int(ms[rows[at]]))}: no such local time in {zone}")
        for at in np.flatnonzero(there != ms[rows])
    }
    outside = (converted < TIME_MS_MIN) | (converted > TIME_MS_MAX)
    for at in np.flatnonzero(outside):
        faults[int(rows[at])] = Fault(TIME_OUT_OF_RANGE, f"{field}: outside the years 0001 to 9999 in UTC")
    made = ms.copy()
    made[rows] = np.where(outside, 0, converted)
    return made, faults


def _assumed(ms: Ints, zone: str) -> pa.Array:
    times = pa.array(ms, pa.timestamp("ms"))
    return pc.assume_timezone(times, zone, ambiguous="earliest", nonexistent="earliest")


def _shown(ms: int) -> str:
    return str(np.datetime64(ms, "ms")).replace("T", " ").removesuffix(".000")
