"""A gap of its own for each event: by a table over the values of a field, or the field's value itself.

See docs/spec/sessions.md, rule 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from sessionize.errors import ConfigError
from sessionize.session.durations import MS_OF_UNIT, Duration, Unit, format_duration, parse_duration_ms

LONGEST_MS = MS_OF_UNIT["d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GapBy:
    """Which gap an event has; an event without one has the policy's.

    Parameters
    ----------
    field : str
        The event column that decides: a canonical one or a further field.
    gaps : mapping of str to int, or pairs of them
        The gap in ms by value of the field, compared as text. Empty: the value itself is the gap.
    unit : {"ms", "s", "m", "h", "d"}
        The unit of a value that is a number. Only without `gaps`.
    longest_ms : int
        A longer gap counts as this one. Only without `gaps`. Default: a day.

    Raises
    ------
    ConfigError
        A gap is not positive, or a value is unknown.

    Notes
    -----
    Source: docs/spec/sessions.md, rule 2.

    Examples
    --------
    >>> from sessionize import GapBy
    >>> GapBy.of(field="app", gaps={"tv": "4h", "web": "30m"}).describe()
    'gap by app (tv 4h, web 30m)'
    """

    field: str
    gaps: tuple[tuple[str, int], ...] = ()
    unit: Unit = "ms"
    longest_ms: int = LONGEST_MS

    def __post_init__(self) -> None:
        pairs = self.gaps.items() if isinstance(self.gaps, Mapping) else self.gaps
        object.__setattr__(self, "gaps", tuple(sorted((str(value), int(ms)) for value, ms in pairs)))
        if not self.field:
            raise ConfigError("gap_by needs a field", hint='for example { field = "app", gaps = { tv = "4h" } }')
        for value, ms in (*self.gaps, ("longest", self.longest_ms)):
            if ms <= 0:
                raise ConfigError(
                    "a gap must be longer than zero", detail=f"gap_by {value} = {ms}", hint="for example 4h"
                )
        if self.unit not in get_args(Unit):
            raise ConfigError(
                "unknown unit of gap_by", detail=f"unit = {self.unit!r}", hint=f"one of {', '.join(get_args(Unit))}"
            )
        if self.gaps and (self.unit != "ms" or self.longest_ms != LONGEST_MS):
            raise ConfigError(
                "gap_by has a table of gaps, so unit and longest have no effect",
                detail=f"unit = {self.unit}, longest = {format_duration(self.longest_ms)}",
                hint="remove them, or remove gaps",
            )

    @classmethod
    def of(
        cls, *, field: str, gaps: Mapping[str, Duration] | None = None, unit: Unit = "ms", longest: Duration = "1d"
    ) -> "GapBy":
        """Build one from durations such as ``"4h"``.

        Examples
        --------
        >>> from sessionize import GapBy
        >>> GapBy.of(field="timeout", unit="s", longest="12h").longest_ms
        43200000
        """
        return cls(
            field=field,
            gaps=tuple((value, parse_duration_ms(gap, name=f"gap_by {value}")) for value, gap in (gaps or {}).items()),
            unit=unit,
            longest_ms=parse_duration_ms(longest, name="gap_by longest"),
        )

    @property
    def most_ms(self) -> int:
        """The longest gap that an event can get from it."""
        return max((ms for _, ms in self.gaps), default=self.longest_ms)

    @property
    def least_ms(self) -> int:
        """The shortest gap that an event can get from it."""
        return min((ms for _, ms in self.gaps), default=1)

    def of_text(self, value: str | None, default_ms: int) -> int:
        """The gap of an event whose field has this text, in ms."""
        if self.gaps:
            return dict(self.gaps).get(value or "", default_ms)
        try:
            ms = parse_duration_ms(value or "", name=self.field, bare_unit=self.unit)
        except ConfigError:
            return default_ms
        return min(ms, self.longest_ms) if ms >= 1 else default_ms

    def describe(self) -> str:
        """In a few words, for people."""
        if self.gaps:
            listed = ", ".join(f"{value} {format_duration(ms)}" for value, ms in self.gaps)
            return f"gap by {self.field} ({listed})"
        return f"gap from {self.field} ({self.unit}, at most {format_duration(self.longest_ms)})"
