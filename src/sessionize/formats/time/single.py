"""One raw time to milliseconds since 1970-01-01 UTC, or its fault; formats/times.py does the same to whole columns."""

import re
from datetime import date

from sessionize.formats.rejects import INVALID_TIME, MISSING_TIME, TIME_OUT_OF_RANGE, Fault, preview
from sessionize.formats.time.forms import is_pattern
from sessionize.session.limits import LIKELY_TIME_MS, TIME_MS_MAX, TIME_MS_MIN
from sessionize.session.time import EPOCH_DATE, MS_PER_DAY

# Factor from the unit to milliseconds: (times, divided by).
SCALE: dict[str, tuple[int, int]] = {
    "auto": (1, 1),
    "ms": (1, 1),
    "s": (1000, 1),
    "us": (1, 1000),
    "ns": (1, 1_000_000),
}
_UNIT_NAME = {
    "auto": "milliseconds",
    "ms": "milliseconds",
    "s": "seconds",
    "us": "microseconds",
    "ns": "nanoseconds",
}

_DIGITS = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_ISO = re.compile(
    r"(?P<year>\d{4})(?P<dash>-?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
    r"(?:[Tt ](?P<hour>\d\d)(?:(?P<colon>:?)(?P<minute>\d\d)(?:(?P=colon)(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?)?"
    r" ?(?P<zone>[Zz]|UTC|GMT|(?P<sign>[+-])(?P<zone_hour>\d\d)(?::?(?P<zone_minute>\d\d))?(?: UTC| GMT)?)?)?",
    re.ASCII | re.IGNORECASE,
)
_LONGEST_TIME = 64  # characters; nothing longer can be a time of the years 1 to 9999
_EPOCH_DAY = EPOCH_DATE.toordinal()


def time_of(value: object, time_format: str, *, field: str) -> int | Fault:
    """One raw time to ms UTC, or its fault. The whole-column paths give the same results."""
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return missing(field)
        if time_format == "iso8601":
            return _iso_of(text, value, field)
        if _DIGITS.fullmatch(text):
            number: float | int = int(text) if len(text) <= _LONGEST_TIME else float("inf")
        elif _NUMBER.fullmatch(text):
            number = float(text)
        elif time_format == "auto":
            return _iso_of(text, value, field)
        else:
            return invalid(value, field, f"not a number of {_UNIT_NAME[time_format]}")
        if number in (float("inf"), float("-inf")):
            return out_of_range(value, field)
        return _number_of(number, value, time_format, field)
    if value is None:
        return missing(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return invalid(value, field, "not a time")
    if is_pattern(time_format):
        return invalid(value, field, f"not of the form {time_format}")
    if time_format == "iso8601":
        return invalid(value, field, "a number, not an ISO 8601 time")
    return _number_of(value, value, time_format, field)


def _number_of(number: float | int, value: object, time_format: str, field: str) -> int | Fault:
    times, divided_by = SCALE[time_format]
    if isinstance(number, float) and not number.is_integer():
        if number != number or number in (float("inf"), float("-inf")):
            return invalid(value, field, "not a finite number")
        in_us = divided_by == 1 and abs(number) < 1e18
        ms = round(number * (times * 1000.0)) // 1000 if in_us else int(number // 1) * times // divided_by
    else:
        ms = int(number) * times // divided_by
    return ms if TIME_MS_MIN <= ms <= TIME_MS_MAX else out_of_range(value, field)


def _iso_of(text: str, value: object, field: str) -> int | Fault:
    match = _ISO.fullmatch(text) if len(text) <= _LONGEST_TIME else None
    if match is None:
        return invalid(value, field, "not an ISO 8601 time")
    year, month, day = int(match["year"]), int(match["month"]), int(match["day"])
    hour, minute, second = (int(match[part] or 0) for part in ("hour", "minute", "second"))
    zone_hour, zone_minute = int(match["zone_hour"] or 0), int(match["zone_minute"] or 0)
    if hour > 23 or minute > 59 or second > 59 or zone_hour > 23 or zone_minute > 59:
        return invalid(value, field, "there is no such time of day")
    if year == 0:
        return out_of_range(value, field)
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        return invalid(value, field, "there is no such day")
    ms = days * MS_PER_DAY + hour * 3_600_000 + minute * 60_000 + second * 1_000
    ms += int((match["fraction"] or "")[:3].ljust(3, "0"))
    ms -= (zone_hour * 60 + zone_minute) * 60_000 * (-1 if match["sign"] == "-" else 1)
    return ms if TIME_MS_MIN <= ms <= TIME_MS_MAX else out_of_range(value, field)


def missing(field: str) -> Fault:
    """There is no time."""
    return Fault(MISSING_TIME, f"the time ({field}) is missing, null or empty")


def invalid(value: object, field: str, why: str) -> Fault:
    """The value is no time."""
    return Fault(INVALID_TIME, f"{field} = {preview(value)}: {why}")


def out_of_range(value: object, field: str) -> Fault:
    """The value is a time that no event can have."""
    return Fault(TIME_OUT_OF_RANGE, f"{field} = {preview(value)}: outside the years 0001 to 9999{_finer_unit(value)}")


def _finer_unit(value: object) -> str:
    """The unit in which a number is a time of today."""
    text = str(value).strip()
    if _DIGITS.fullmatch(text) and len(text) <= _LONGEST_TIME:
        for unit in ("us", "ns"):
            ms = int(text) // SCALE[unit][1]
            if LIKELY_TIME_MS[0] <= ms < LIKELY_TIME_MS[1]:
                return f"; in {_UNIT_NAME[unit]} it is in {date.fromordinal(_EPOCH_DAY + ms // MS_PER_DAY).year}"
    return ""


def is_local(text: str, time_format: str) -> bool:
    """Whether it is an ISO 8601 time that names no zone."""
    text = text.strip()
    match = _ISO.fullmatch(text) if len(text) <= _LONGEST_TIME else None
    return match is not None and match["zone"] is None and (time_format == "iso8601" or not _NUMBER.fullmatch(text))
