"""Guesses how the values of a field are times: which unit, which pattern, and whether they name a zone."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from sessionize.analytics.inspection.fields import number_of
from sessionize.formats.rejects import Fault
from sessionize.formats.time.forms import compiled
from sessionize.formats.time.single import is_local, time_of
from sessionize.formats.times import times_of_array
from sessionize.session.limits import LIKELY_TIME_MS

_LOOKED_AT = 1_000
_SHARE_MIN = 0.6
_TRIED = 7
_LONGEST, _DIGITS_MIN = 64, 3
UNITS = {"auto": "milliseconds", "s": "seconds", "us": "microseconds", "ns": "nanoseconds"}
_DAYS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%y", "%d/%m/%y",
         "%m/%d/%y", "%d %b %Y", "%d-%b-%Y", "%b %d %Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y")  # fmt: skip
_CLOCKS = (" %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", ", %H:%M", ", %H:%M:%S",
           ", %I:%M:%S %p", " %H:%M:%S %z", "")  # fmt: skip
PATTERNS = (
    "%d/%b/%Y:%H:%M:%S %z",
    "%d/%b/%Y:%H:%M:%S",
    "%Y%m%d%H%M%S",
    "%Y%m%d %H%M%S",
    "%Y%m%d%H%M",
    "%Y%m%d",
    "%a, %d %b %Y %H:%M:%S %Z",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a %b %d %H:%M:%S %Y",
    "%a %b %d %H:%M:%S %Z %Y",
    *(f"{day}{clock}" for day in _DAYS for clock in _CLOCKS),
)
_ONLY_DAY = re.compile(r"\d{4}-?\d\d-?\d\d|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}")
_ONLY_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?( ?[AaPp][Mm])?")


@dataclass(frozen=True, slots=True)
class TimeGuess:
    """form: as time_format says it. share: of the values that fit. local: how many name no zone.

    early: how many lie before 1990. others: values of other units, by unit. alternatives: forms that fit as well, and
    mean other times. span_ms: from the first to the last. number: whether the values are numbers.
    """

    form: str
    share: float
    local: int = 0
    early: int = 0
    others: tuple[tuple[str, int], ...] = ()
    alternatives: tuple[str, ...] = ()
    span_ms: int = 0
    number: bool = False

    @property
    def said(self) -> str:
        """The form in words."""
        if self.number and self.form in UNITS:
            return f"{UNITS[self.form]} since 1970"
        return "ISO 8601" if self.form == "auto" else self.form


def guess_time(values: Sequence[Any]) -> TimeGuess | None:
    """How these values are times; None if most of them are none."""
    values = values[:_LOOKED_AT]
    if not values:
        return None
    stamps = [value for value in values if isinstance(value, date)]
    if 2 * len(stamps) > len(values):
        local = sum(1 for value in stamps if not isinstance(value, datetime) or value.tzinfo is None)
        return TimeGuess("auto", len(stamps) / len(values), local=local)
    values = [value for value in values if isinstance(value, str | int | float) and not isinstance(value, bool)]
    if not values:
        return None
    by_unit = Counter[str]()
    numbers = 0
    for value in values:
        if number_of(value) is not None:
            numbers += 1
            by_unit.update(unit for unit in UNITS if _is_likely(time_of(value, unit, field="")))
    iso = [value for value in values if isinstance(value, str) and number_of(value) is None]
    read = [time_of(value, "auto", field="") for value in iso]
    good = [ms for ms in read if not isinstance(ms, Fault)]
    found = [_of_patterns(values)]
    if good:
        local = sum(1 for value in iso if is_local(value, "auto"))
        early = sum(1 for ms in good if ms < LIKELY_TIME_MS[0])
        share = (len(good) + by_unit["auto"]) / len(values)
        others = tuple((unit, count) for unit, count in by_unit.items() if unit != "auto")
        found.append(TimeGuess("auto", share, local, early, others, span_ms=max(good) - min(good)))
    elif by_unit:
        unit, count = max(by_unit.items(), key=lambda item: (item[1], item[0] == "auto"))
        early = numbers - sum(by_unit.values())
        others = tuple((other, n) for other, n in by_unit.items() if other != unit)
        found.append(TimeGuess(unit, count / len(values), early=max(early, 0), others=others, number=True))
    usable = [each for each in found if each is not None and each.share >= _SHARE_MIN]
    return max(usable, key=lambda each: each.share, default=None)


def _is_likely(ms: int | Fault) -> bool:
    return isinstance(ms, int) and LIKELY_TIME_MS[0] <= ms < LIKELY_TIME_MS[1]


def _of_patterns(values: Sequence[Any]) -> TimeGuess | None:
    """The pattern that most of the values fit; of several, the one whose times lie closest together."""
    tried = [text for text in map(str, values[:: len(values) // _TRIED + 1]) if _may_be_time(text)]
    if not tried:
        return None
    texts = pa.array([str(value) for value in values], pa.string())
    fits: dict[str, tuple[int, int, int, tuple[int, ...]]] = {}
    for pattern in PATTERNS:
        if not any(_fits(pattern, text) for text in tried):
            continue
        parsed = times_of_array(texts, pattern, field="")
        good = [ms for row, ms in enumerate(parsed.ms.tolist()) if row not in parsed.faults and _is_likely(ms)]
        if good:
            fits[pattern] = (len(good), max(good) - min(good), parsed.local_count, tuple(good))
    if not fits:
        return None
    best = min(fits, key=lambda pattern: (-fits[pattern][0], fits[pattern][1]))
    count, span, local, times = fits[best]
    same = [pattern for pattern, fit in fits.items() if fit[0] == count and fit[3] != times]
    return TimeGuess(best, count / len(values), local=local, alternatives=tuple(same), span_ms=span)


def _may_be_time(text: str) -> bool:
    return len(text) <= _LONGEST and sum(char.isdigit() for char in text) >= _DIGITS_MIN


def _fits(pattern: str, text: str) -> bool:
    """Whether one text has the form; the signs first, as that is quicker."""
    if any(sign in pattern and sign not in text for sign in "/.,:"):
        return False
    return re.match(compiled(pattern)[0], text.strip()) is not None


def is_day(values: Sequence[Any]) -> bool:
    """Whether these are days without a time of day."""
    return bool(values) and all(isinstance(value, str) and _ONLY_DAY.fullmatch(value.strip()) for value in values[:100])


def is_clock(values: Sequence[Any]) -> bool:
    """Whether these are times of day without a day."""
    texts = [value for value in values[:100] if isinstance(value, str)]
    return (
        bool(texts) and len(texts) == len(values[:100]) and all(_ONLY_CLOCK.fullmatch(text.strip()) for text in texts)
    )
