"""The times of web servers' logs, [03/Oct/2016:03:20:11 -0400], many at once."""

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

LENGTH = 26  # of the text between the brackets
_MARKS = ((2, "/"), (6, "/"), (11, ":"), (14, ":"), (17, ":"), (20, " "))
_DIGITS = (0, 1, 7, 8, 9, 10, 12, 13, 15, 16, 18, 19, 22, 23, 24, 25)
_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_CODES = np.array([int.from_bytes(name.encode(), "big") for name in _NAMES])
_BY_CODE = np.argsort(_CODES)


def times_of_logs(texts: Bytes) -> tuple[Ints, Bools]:
    """uint8[n, LENGTH] -> int64[n] (ms, UTC) and bool[n]: which of them are times; the others are 0."""
    n = len(texts)
    columns = texts.T
    numbers = columns - np.uint8(ord("0"))  # what is less than 0 wraps to more than 9
    valid = np.ones(n, bool)
    for place, mark in _MARKS:
        valid &= columns[place] == ord(mark)
    for place in _DIGITS:
        valid &= numbers[place] <= 9
    east, west = columns[21] == ord("+"), columns[21] == ord("-")
    valid &= east | west
    code = (columns[3].astype(np.int64) << 16) | (columns[4].astype(np.int64) << 8) | columns[5]
    place = np.minimum(np.searchsorted(_CODES, code, sorter=_BY_CODE), len(_CODES) - 1)
    month = _BY_CODE[place]
    valid &= _CODES[month] == code

    def two(at: int) -> Ints:
        pair: Ints = (numbers[at] * np.uint8(10) + numbers[at + 1]).astype(np.int64)
        return pair

    day, year = two(0), two(7) * 100 + two(9)
    hour, minute, second, offset = two(12), two(15), two(18), two(22) * 60 + two(24)
    is_leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    valid &= (day >= 1) & (day <= _DAYS[month] + (is_leap & (month == 1))) & (year >= 1)
    valid &= (hour < 24) & (minute < 60) & (second < 60) & (two(22) < 24) & (two(24) < 60)
    seconds = _days(year, month + 1, day) * 86_400 + hour * 3_600 + minute * 60 + second
    seconds -= np.where(west, -offset, offset) * 60
    return np.where(valid, seconds * 1000, 0), valid


def _days(year: Ints, month: Ints, day: Ints) -> Ints:
    """Days since 1970 of dates in the proleptic Gregorian calendar, counted in years that begin in March."""
    year = year - (month <= 2)
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days: Ints = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return days
