"""The policy: the numbers that decide where a session ends. Frozen, validated, and without running state.

One decision is defined here and used everywhere: whether a silence splits, and whether the watermark proves that it
will (`longest_silence_ms`). See docs/spec/sessions.md, rules 2 to 4.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from sessionize.errors import ConfigError
from sessionize.session.bounce import bounce_conditions
from sessionize.session.durations import Duration, format_duration, parse_duration_ms
from sessionize.session.gap_by import GapBy
from sessionize.session.time import MS_PER_DAY

GapBoundary = Literal["exclusive", "inclusive"]
MaxDurationMode = Literal["anchored", "rolling"]
SessionIds = Literal["start", "sequential", "running"]
Duplicates = Literal["user_time_id", "id"]
# What advances event time in a stream (rule 8); not part of a Policy, because it changes no session.
WatermarkRule = Literal["confirmed", "maximum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What ends a session, and how sessions are named.

    A Policy is frozen and validated. `Policy.of` builds one from durations such as ``"30m"``.

    Parameters
    ----------
    gap_ms : int
        The silence between two events of a user that ends the session, in ms. Default 30 minutes.
    gap_boundary : {"exclusive", "inclusive"}
        ``"exclusive"`` splits when the silence is longer than the gap, ``"inclusive"`` also when it equals the gap.
    max_duration_ms : int or None
        The longest duration of a session, in ms; None for no limit. Default 2 hours.
    max_duration_mode : {"anchored", "rolling"}
        ``"anchored"`` cuts at the start of the chain of events + k * max_duration. ``"rolling"`` cuts at the start of
        each session + max_duration.
    session_ids : {"start", "sequential", "running"}
        ``"start"`` names a session by user and start time, which needs no memory of the user. The two others number
        the sessions of a user; a stream then keeps state for every user it has seen.
    gap_by : GapBy or None
        Gives each event a gap of its own, by a field. Default: `gap_ms` is the gap of every event.
    day_start : str or None
        An IANA time zone: an event of another calendar day than the event before it opens a session.
    max_events : int or None
        The most events of a session; None for no limit.
    min_events, min_duration_ms : int
        Sessions with fewer events or a shorter duration are not written. Default: all are.
    bounce : tuple of str
        The conditions of the session column ``is_bounce``, all of which must hold: ``"one_event"``, ``"one_page"``,
        ``"no_conversion"``, or a duration that the session must be shorter than. Default: no such column.
    duplicates : {"user_time_id", "id"}
        ``"user_time_id"``: an event is a duplicate of one with equal user, time and id. ``"id"``: also of the one
        before it of its user with its id, at another time.
    duplicates_within_ms : int
        With ``"id"``: how long after the one before such a duplicate may be. Default one day.

    Raises
    ------
    ConfigError
        A duration is not positive, a value is unknown, or a setting has no effect without another one.

    Notes
    -----
    Source: docs/spec/sessions.md, rules 1, 2, 3, 4, 6 and 11.

    Examples
    --------
    >>> from sessionize import Policy
    >>> Policy.of(gap="15m", max_duration=None).describe()
    'gap 15m (exclusive), no maximum, ids start'
    """

    gap_ms: int = 1_800_000
    gap_boundary: GapBoundary = "exclusive"
    max_duration_ms: int | None = 7_200_000
    max_duration_mode: MaxDurationMode = "anchored"
    session_ids: SessionIds = "start"
    gap_by: GapBy | None = None
    day_start: str | None = None
    max_events: int | None = None
    min_events: int = 1
    min_duration_ms: int = 0
    bounce: tuple[str, ...] = ()
    duplicates: Duplicates = "user_time_id"
    duplicates_within_ms: int = MS_PER_DAY

    def __post_init__(self) -> None:
        if self.gap_ms <= 0:
            raise ConfigError(
                "the gap must be longer than zero", detail=f"gap_ms = {self.gap_ms}", hint="for example 30m"
            )
        if self.max_duration_ms is not None and self.max_duration_ms <= 0:
            raise ConfigError(
                "the maximum duration must be longer than zero",
                detail=f"max_duration_ms = {self.max_duration_ms}",
                hint='"none" turns the limit off',
            )
        _one_of("gap_boundary", self.gap_boundary, get_args(GapBoundary))
        _one_of("max_duration_mode", self.max_duration_mode, get_args(MaxDurationMode))
        _one_of("session_ids", self.session_ids, get_args(SessionIds))
        _one_of("duplicates", self.duplicates, get_args(Duplicates))
        if self.max_duration_ms is None and self.max_duration_mode != "anchored":
            raise ConfigError(
                "max_duration_mode has no effect without a maximum duration",
                detail=f"max_duration = none, max_duration_mode = {self.max_duration_mode}",
                hint="set max_duration or remove max_duration_mode",
            )
        self._check_further()

    def _check_further(self) -> None:
        given: object = self.gap_by
        if isinstance(given, Mapping):  # as it was stored
            object.__setattr__(self, "gap_by", GapBy(**given))
        object.__setattr__(self, "bounce", bounce_conditions(self.bounce))
        if self.day_start is not None:
            from sessionize.session.local_days import check_zone

            check_zone(self.day_start, key="day_start")
        for name, value, least in (
            ("max_events", self.max_events, 1),
            ("min_events", self.min_events, 1),
            ("min_duration_ms", self.min_duration_ms, 0),
            ("duplicates_within_ms", self.duplicates_within_ms, 1),
        ):
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}", detail=f"{name} = {value}")
        if self.max_events is not None and self.min_events > self.max_events:
            raise ConfigError(
                "no session can have as many events as min_events",
                detail=f"min_events = {self.min_events}, max_events = {self.max_events}",
                hint="lower min_events, or raise max_events",
            )
        if self.duplicates != "id" and self.duplicates_within_ms != MS_PER_DAY:
            raise ConfigError(
                "duplicates_within has no effect unless duplicates are found by the id alone",
                detail=f"duplicates = {self.duplicates}, duplicates_within_ms = {self.duplicates_within_ms}",
                hint='set duplicates to "id", or remove duplicates_within',
            )

    @classmethod
    def of(
        cls,
        *,
        gap: Duration = "30m",
        gap_boundary: GapBoundary = "exclusive",
        max_duration: Duration | None = "2h",
        max_duration_mode: MaxDurationMode = "anchored",
        session_ids: SessionIds = "start",
        gap_by: "GapBy | Mapping[str, Any] | None" = None,
        day_start: str | None = None,
        max_events: int | None = None,
        min_events: int = 1,
        min_duration: Duration = 0,
        bounce: Iterable[str] = (),
        duplicates: Duplicates = "user_time_id",
        duplicates_within: Duration = "1d",
    ) -> "Policy":
        """Build a policy from durations as people write them.

        Parameters
        ----------
        gap : str or timedelta
            The silence that ends a session: ``"30m"``, ``"1h30m"``, ``timedelta(minutes=30)``.
        max_duration : str, timedelta or None
            The longest duration of a session; None or ``"none"`` for no limit.
        gap_by : GapBy or mapping, optional
            A `GapBy`, or the options of `GapBy.of`.
        min_duration : str or timedelta
            Shorter sessions are not written.
        duplicates_within : str or timedelta
            With ``duplicates="id"``: how long after an event another one with its id is a duplicate.
        gap_boundary, max_duration_mode, session_ids, day_start, max_events, min_events, bounce, duplicates
            As in `Policy`.

        Returns
        -------
        Policy

        Raises
        ------
        ConfigError
            A duration cannot be read, or `Policy` refuses a value.

        Examples
        --------
        >>> from sessionize import Policy
        >>> Policy.of(gap="90s").gap_ms
        90000
        """
        unlimited = max_duration is None or (isinstance(max_duration, str) and max_duration.strip().lower() == "none")
        return cls(
            gap_ms=parse_duration_ms(gap, name="gap"),
            gap_boundary=gap_boundary,
            max_duration_ms=None if unlimited else parse_duration_ms(max_duration or 0, name="max_duration"),
            max_duration_mode=max_duration_mode,
            session_ids=session_ids,
            gap_by=GapBy.of(**gap_by) if isinstance(gap_by, Mapping) else gap_by,
            day_start=day_start,
            max_events=max_events,
            min_events=min_events,
            min_duration_ms=parse_duration_ms(min_duration, name="min_duration"),
            bounce=tuple(bounce),
            duplicates=duplicates,
            duplicates_within_ms=parse_duration_ms(duplicates_within, name="duplicates_within"),
        )

    @property
    def longest_silence_ms(self) -> int:
        """The longest silence that may not split, whatever gaps the events have."""
        longest_ms = self.gap_ms if self.gap_by is None else max(self.gap_ms, self.gap_by.most_ms)
        return longest_ms - self.inclusive_ms

    @property
    def shortest_silence_ms(self) -> int:
        """The longest silence that never splits, whatever gaps the events have."""
        shortest_ms = self.gap_ms if self.gap_by is None else min(self.gap_ms, self.gap_by.least_ms)
        return shortest_ms - self.inclusive_ms

    @property
    def inclusive_ms(self) -> int:
        """How much shorter than its gap the longest silence after an event is that does not split."""
        return 0 if self.gap_boundary == "exclusive" else 1

    @property
    def repeats_ids(self) -> bool:
        """Whether an event may be a duplicate of one at another time (rule 1)."""
        return self.duplicates == "id"

    @property
    def reach_ms(self) -> int:
        """How long before an event there may be another one that decides about it."""
        return max(self.longest_silence_ms, self.duplicates_within_ms if self.repeats_ids else 0)

    @property
    def drops_short(self) -> bool:
        """Whether some sessions are too short to be written (rule 11)."""
        return self.min_events > 1 or self.min_duration_ms > 0

    def keeps(self, count: Any, duration_ms: Any) -> Any:
        """Whether sessions of so many events and this duration are written: a bool, or bool[n] for arrays."""
        return (count >= self.min_events) & (duration_ms >= self.min_duration_ms)

    @property
    def numbers_sessions(self) -> bool:
        """Whether chains are numbered, which needs permanent state for every user (bounded input only)."""
        return self.session_ids != "start"

    def record(self) -> dict[str, Any]:
        """The fields as JSON-able values, without later ones that have their default: `Policy(**record)` is equal."""
        fields = asdict(self)
        first = ("gap_ms", "gap_boundary", "max_duration_ms", "max_duration_mode", "session_ids")
        return {name: value for name, value in fields.items() if name in first or value != getattr(_DEFAULT, name)}

    def describe(self) -> str:
        """One line for people: 'gap 30m (exclusive), at most 2h (anchored), ids start'."""
        limit = (
            "no maximum"
            if self.max_duration_ms is None
            else f"at most {format_duration(self.max_duration_ms)} ({self.max_duration_mode})"
        )
        parts = [f"gap {format_duration(self.gap_ms)} ({self.gap_boundary})"]
        parts += [] if self.gap_by is None else [self.gap_by.describe()]
        parts += [limit]
        parts += [] if self.max_events is None else [f"at most {self.max_events:,} events"]
        parts += [] if self.day_start is None else [f"a new session each day ({self.day_start})"]
        parts += [f"ids {self.session_ids}"]
        parts += [] if not self.repeats_ids else [f"one event of an id in {format_duration(self.duplicates_within_ms)}"]
        parts += [] if self.min_events == 1 else [f"at least {self.min_events:,} events"]
        parts += [] if not self.min_duration_ms else [f"at least {format_duration(self.min_duration_ms)}"]
        parts += [] if not self.bounce else [f"bounce: {' and '.join(self.bounce)}"]
        return ", ".join(parts)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"unknown {name}", detail=f"{name} = {value!r}", hint=f"one of {', '.join(allowed)}")


_DEFAULT = Policy()
