"""Times of a strptime pattern, a whole column at a time; formats/time/forms.py says what a pattern may hold."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.formats.time.forms import compiled
from sessionize.session.limits import TIME_MS_MAX, TIME_MS_MIN
from sessionize.session.time import MS_PER_DAY

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_ZONES = ("utc", "gmt", "z")
_NO_YEAR, _PIVOT = 1900, 69


def times_of_pattern(array: pa.Array, pattern: str) -> tuple[Ints, Bools, Bools, bool]:
    """(ms, whether the text has the form, whether such a time exists, whether the times are local): n rows.

    array: string without nulls. ms is 0 where a row has another form or there is no such time.
    """
    expression, names = compiled(pattern)
    found = pc.extract_regex(array, pattern=expression)
    fits = found.is_valid().to_numpy(zero_copy_only=False)
    part = {name: pc.struct_field(found, name) for name in names}

    def number(name: str, default: int) -> Ints:
        if name not in part:
            return np.full(len(array), default, np.int64)
        text = pc.utf8_trim_whitespace(pc.fill_null(part[name], str(default)))
        numbers: Ints = text.cast(pa.int64()).to_numpy()
        return numbers

    if "s" in part:
        return number("s", 0) * 1000 + _fraction(part, len(array)), fits, np.ones(len(array), bool), False
    year, month, day = number("Y", _NO_YEAR), number("m", 1), number("d", 1)
    if "y" in part:
        short = number("y", 0)
        year = short + np.where(short < _PIVOT, 2000, 1900)
    for name in ("b", "B"):
        if name in part:
            three = pc.utf8_slice_codeunits(pc.utf8_lower(pc.fill_null(part[name], "jan")), 0, 3)
            month = pc.fill_null(pc.index_in(three, pa.array(_MONTHS)), 12).to_numpy().astype(np.int64) + 1
    hour, minute, second = number("H", 0), number("M", 0), number("S", 0)
    exists = (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (hour <= 23) & (minute <= 59) & (second <= 59)
    if "I" in part:
        hour = number("I", 12)
        exists &= (hour >= 1) & (hour <= 12)
        late = pc.starts_with(pc.utf8_lower(pc.fill_null(part["p"], "a")), "p") if "p" in part else None
        hour = hour % 12 + (0 if late is None else 12 * late.to_numpy(zero_copy_only=False))
    months = (np.clip(year, 1, 9999) - 1970) * 12 + np.clip(month, 1, 12) - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    length = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) - first
    if "j" in part:
        year_length = 365 + ((year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0)))
        day = number("j", 1)
        exists &= (day >= 1) & (day <= year_length)
    else:
        exists &= day <= length
    ms = (first + day - 1) * MS_PER_DAY + hour * 3_600_000 + minute * 60_000 + second * 1000
    ms += _fraction(part, len(array))
    if "z" in part:
        ms -= _offset_ms(part["z"])
    if "Z" in part:
        exists &= pc.is_in(pc.utf8_lower(pc.fill_null(part["Z"], "z")), pa.array(_ZONES)).to_numpy(zero_copy_only=False)
    exists &= (ms >= TIME_MS_MIN) & (ms <= TIME_MS_MAX)
    return np.where(fits & exists, ms, 0), fits, exists, "z" not in part and "Z" not in part


def _fraction(part: dict[str, pa.Array], count: int) -> Ints:
    """int64[count]: the milliseconds, floored."""
    if "f" not in part:
        return np.zeros(count, np.int64)
    three = pc.utf8_slice_codeunits(pc.utf8_rpad(pc.fill_null(part["f"], "0"), 3, "0"), 0, 3)
    ms: Ints = three.cast(pa.int64()).to_numpy()
    return ms


def _offset_ms(texts: pa.Array) -> Ints:
    """int64[n]: how far local time is ahead of UTC."""
    digits = pc.replace_substring_regex(pc.fill_null(texts, "Z"), r"[Zz:+-]", "")
    padded = pc.utf8_rpad(digits, 4, "0")
    hours = pc.utf8_slice_codeunits(padded, 0, 2).cast(pa.int64()).to_numpy()
    minutes = pc.utf8_slice_codeunits(padded, 2, 4).cast(pa.int64()).to_numpy()
    behind = pc.starts_with(pc.fill_null(texts, "Z"), "-").to_numpy(zero_copy_only=False)
    offset: Ints = (hours * 60 + minutes) * 60_000 * np.where(behind, -1, 1)
    return offset
