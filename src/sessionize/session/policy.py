"""The policy: the numbers that decide where a session ends. Frozen, validated, and without running state.

One decision is defined here and used everywhere: whether a silence splits, and whether the watermark proves that it
will (`longest_silence_ms`). See docs/spec/sessions.md, rules 2 to 4.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from sessionize.errors import ConfigError
from sessionize.session.durations import Duration, format_duration, parse_duration_ms

GapBoundary = Literal["exclusive", "inclusive"]
MaxDurationMode = Literal["anchored", "rolling"]
SessionIds = Literal["start", "sequential", "running"]
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

    Raises
    ------
    ConfigError
        A duration is not positive, a value is unknown, or a mode is set without a maximum duration.

    Notes
    -----
    Source: docs/spec/sessions.md, rules 2, 3 and 6.

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
        if self.max_duration_ms is None and self.max_duration_mode != "anchored":
            raise ConfigError(
                "max_duration_mode has no effect without a maximum duration",
                detail=f"max_duration = none, max_duration_mode = {self.max_duration_mode}",
                hint="set max_duration or remove max_duration_mode",
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
    ) -> "Policy":
        """Build a policy from durations as people write them.

        Parameters
        ----------
        gap : str or timedelta
            The silence that ends a session: ``"30m"``, ``"1h30m"``, ``timedelta(minutes=30)``.
        max_duration : str, timedelta or None
            The longest duration of a session; None or ``"none"`` for no limit.
        gap_boundary, max_duration_mode, session_ids
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
        )

    @property
    def longest_silence_ms(self) -> int:
        """The longest silence that does not split: a session continues exactly while silence <= longest_silence_ms."""
        return self.gap_ms if self.gap_boundary == "exclusive" else self.gap_ms - 1

    @property
    def numbers_sessions(self) -> bool:
        """Whether chains are numbered, which needs permanent state for every user (bounded input only)."""
        return self.session_ids != "start"

    def describe(self) -> str:
        """One line for people: 'gap 30m (exclusive), at most 2h (anchored), ids start'."""
        limit = (
            "no maximum"
            if self.max_duration_ms is None
            else f"at most {format_duration(self.max_duration_ms)} ({self.max_duration_mode})"
        )
        return f"gap {format_duration(self.gap_ms)} ({self.gap_boundary}), {limit}, ids {self.session_ids}"


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"unknown {name}", detail=f"{name} = {value!r}", hint=f"one of {', '.join(allowed)}")
