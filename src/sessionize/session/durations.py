"""Parses durations as people write them to whole milliseconds.

"30m", "2h", "1h30m", "500ms", "1.5h", "7d", a timedelta, or a bare number in the caller's unit (such as the unit in a
command-line option's documentation).
"""

import re
from datetime import timedelta
from typing import Any, Literal

from sessionize.errors import ConfigError

Duration = str | timedelta | int | float
Unit = Literal["ms", "s", "m", "h", "d"]

MS_OF_UNIT: dict[str, int] = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MS_MAX = 100 * 365 * MS_OF_UNIT["d"]
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|m|h|d)")


def parse_duration_ms(value: Duration, *, name: str, bare_unit: Unit | None = None) -> int:
    """Convert a duration to whole milliseconds.

    name: the caller's name of the value, for the error. bare_unit: the unit of a number without one; None refuses such
    numbers. Errors: ConfigError for a value that is not a duration, is negative, is finer than a millisecond, or is
    longer than a hundred years.
    """
    ms = _to_ms(value, name, bare_unit)
    if not 0 <= ms <= MS_MAX:
        raise _refuse(name, value, "must be between 0 and 100 years")
    if ms != int(ms):
        raise _refuse(name, value, "finer than a millisecond")
    return int(ms)


def format_duration(ms: int) -> str:
    """Format milliseconds as parse_duration_ms reads them: 5400000 -> '1h30m'."""
    if ms == 0:
        return "0s"
    parts, rest = [], abs(ms)
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, MS_OF_UNIT[unit])
        if count:
            parts.append(f"{count}{unit}")
    return ("-" if ms < 0 else "") + "".join(parts)


def _to_ms(value: Duration, name: str, bare_unit: Unit | None) -> float:
    if isinstance(value, timedelta):
        return value / timedelta(milliseconds=1)
    if isinstance(value, bool):
        raise _refuse(name, value, "a boolean is not a duration")
    if isinstance(value, int | float):
        return _bare(value, value, name, bare_unit)
    if type(value).__name__ == "timedelta64":  # numpy's, which is no timedelta
        return _of_numpy(value, name)
    if not isinstance(value, str):
        raise _refuse(name, value, "not a duration")
    text = value.strip().lower().replace(" ", "")
    try:
        number = float(text)
    except ValueError:
        parts = _PART.findall(text)
        if not parts or "".join(n + u for n, u in parts) != text:
            raise _refuse(name, value, "not a duration") from None
        ms = sum(float(n) * MS_OF_UNIT["m" if u == "min" else u] for n, u in parts)
        # 0.1h is 360000.00000000006 in binary; values within a thousandth of a whole millisecond are rounded to it.
        return round(ms, 3)
    return _bare(number, value, name, bare_unit)


def _of_numpy(value: Any, name: str) -> float:
    try:
        ms = float(value / type(value)(1, "ms"))
    except TypeError:  # months and years have no fixed length
        raise _refuse(name, value, "not a duration of fixed length") from None
    if ms != ms:
        raise _refuse(name, value, "not a duration")
    return ms


def _bare(number: float, value: Duration, name: str, bare_unit: Unit | None) -> float:
    if number != number or number in (float("inf"), float("-inf")):
        raise _refuse(name, value, "not a finite number")
    if bare_unit is None and number != 0:
        raise _refuse(name, value, "missing unit")
    return round(number * MS_OF_UNIT[bare_unit or "ms"], 3)


def _refuse(name: str, value: object, why: str) -> ConfigError:
    return ConfigError(
        f"invalid {name}: {why}",
        detail=f"{name} = {value!r}",
        hint="for example 30m, 2h, 1h30m, 45s or 500ms",
    )
