"""The forms of a time: the names of units, and strptime patterns. This module imports nothing heavy.

    %d/%b/%Y:%H:%M:%S %z     03/Oct/2016:03:20:11 -0400
    %d.%m.%Y %H:%M           13.01.2021 10:00

Directives: %Y %y %m %b %B %d %e %j %H %I %p %M %S %f %z %Z %a %A %s %T %R %F %D %%. Months and days have English
names, short or long, in any case. %z is +0100, +01:00, +01 or Z; %Z is only UTC, GMT or Z: other names have several
meanings. %s is seconds since 1970, %f a fraction of any length. Blanks around the text do not matter.
"""

import re
from functools import lru_cache

TimeFormat = str  # a name of UNITS, or a pattern
UNITS = ("auto", "ms", "s", "us", "ns", "iso8601")
_SHORT = {"%T": "%H:%M:%S", "%R": "%H:%M", "%F": "%Y-%m-%d", "%D": "%m/%d/%y", "%e": "%d"}
_GROUPS = {
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "m": r"\d{1,2}",
    "b": r"[A-Za-z]{3,9}\.?",
    "B": r"[A-Za-z]{3,9}\.?",
    "d": r" ?\d{1,2}",
    "j": r"\d{1,3}",
    "H": r" ?\d{1,2}",
    "I": r" ?\d{1,2}",
    "p": r"[AaPp]\.?[Mm]\.?",
    "M": r"\d{2}",
    "S": r"\d{2}",
    "f": r"\d{1,18}",
    "z": r"[Zz]|[+-]\d{2}(?::?\d{2})?",
    "Z": r"[A-Za-z]{1,5}",
    "s": r"-?\d{1,12}",
}
_UNNAMED = {"a": r"[A-Za-z]{2,9}\.?", "A": r"[A-Za-z]{2,9}\.?", "%": "%"}


def is_pattern(time_format: str) -> bool:
    """Whether it is a pattern, not the name of a unit."""
    return "%" in time_format


def pattern_fault(pattern: str) -> str | None:
    """Why this is not a usable pattern; None if it is one."""
    try:
        _, names = compiled(pattern)
    except ValueError as error:
        return str(error)
    if "s" in names:
        return None
    day = "j" in names or ("d" in names and ("m" in names or "b" in names or "B" in names))
    if not (day and ("Y" in names or "y" in names)):
        return "it has no date: year, month and day, or %s"
    return None


@lru_cache(maxsize=32)
def compiled(pattern: str) -> tuple[str, tuple[str, ...]]:
    """The regular expression, for RE2, and the names of its groups. Errors: ValueError."""
    for short, long in _SHORT.items():
        pattern = pattern.replace(short, long)
    parts: list[str] = []
    names: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char != "%":
            parts.append(r"\s+" if char.isspace() else re.escape(char))
            at += 1
            continue
        name = pattern[at + 1 : at + 2]
        if name in _UNNAMED:
            parts.append(_UNNAMED[name])
        elif name not in _GROUPS:
            raise ValueError(f"%{name} is not known")
        elif name in names:
            raise ValueError(f"%{name} occurs twice")
        else:
            names.append(name)
            parts.append(f"(?P<{name}>{_GROUPS[name]})")
        at += 2
    return r"^\s*" + "".join(parts) + r"\s*$", tuple(names)


def form_fault(time_format: str) -> str | None:
    """Why this is no time format; None if it is one."""
    if time_format in UNITS:
        return None
    if not is_pattern(time_format):
        return f"one of {', '.join(UNITS)}, or a pattern, for example %d/%b/%Y:%H:%M:%S %z"
    return pattern_fault(time_format)
