"""Calendar days in a time zone: which day each event lies in, where the clock of the zone decides.

The zone's changes of clock are looked up once a year of events, from Python's database of zones, so a day costs what a
binary search costs. See docs/spec/sessions.md, rule 4.
"""

from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from sessionize.errors import ConfigError
from sessionize.session.time import MS_PER_DAY

IntArray = npt.NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Near the ends of the calendar the offset of two days further in counts: local times stay within it.
_BEGIN, _END = datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


def check_zone(name: str, *, key: str) -> None:
    """Errors: ConfigError for a name that is no IANA zone."""
    try:
        _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"unknown time zone in {key}",
            detail=f"{key} = {name!r}",
            hint="a name of the IANA database, such as Europe/Berlin or UTC",
        ) from error


def local_day(time_ms: int, zone: str) -> int:
    """The day in which an instant lies by the clock of the zone, counted from 1970-01-01."""
    return (time_ms + _offset_ms(time_ms, zone)) // MS_PER_DAY


def local_days(times_ms: IntArray, zone: str) -> IntArray:
    """`local_day` of each of them."""
    if not len(times_ms):
        return np.zeros(0, np.int64)
    ends = np.array([times_ms.min(), times_ms.max()], "datetime64[ms]").astype("datetime64[Y]").astype(np.int64)
    years = np.arange(ends[0], ends[1] + 1)
    if len(years) > len(times_ms):
        years = np.unique(times_ms.astype("datetime64[ms]").astype("datetime64[Y]").astype(np.int64))
    known = [_changes_of_year(zone, int(year) + 1970) for year in years]
    since = np.array([at for year in known for at, _ in year], np.int64)
    offset = np.array([ms for year in known for _, ms in year], np.int64)
    days: IntArray = (times_ms + offset[np.searchsorted(since, times_ms, side="right") - 1]) // MS_PER_DAY
    return days


@lru_cache(maxsize=4096)
def _changes_of_year(zone: str, year: int) -> tuple[tuple[int, int], ...]:
    """(instant, offset from then on) of a year in UTC, its beginning included."""
    start = _ms_of(datetime(year, 1, 1, tzinfo=UTC))
    end = _ms_of(datetime(year, 12, 31, tzinfo=UTC)) + MS_PER_DAY
    found = [(start, _offset_ms(start, zone))]
    for day in range(start, end, MS_PER_DAY):
        low, high = day, min(day + MS_PER_DAY, end - 1)
        while _offset_ms(high, zone) != found[-1][1]:
            # the first instant in (low, high] whose offset is not the one so far
            before, at = low, high
            while at - before > 1:
                middle = (before + at) // 2
                before, at = (middle, at) if _offset_ms(middle, zone) == found[-1][1] else (before, middle)
            found.append((at, _offset_ms(at, zone)))
            low = at
    return tuple(found)


def _offset_ms(time_ms: int, zone: str) -> int:
    """How far the zone's clock is ahead of UTC."""
    at = min(max(_EPOCH + timedelta(milliseconds=time_ms), _BEGIN), _END)
    ahead = at.astimezone(_zone(zone)).utcoffset() or timedelta()
    return ahead // timedelta(milliseconds=1)


def _ms_of(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
