"""Policy: the numbers that decide where a session ends. Frozen, validated, free of any running state.

One decision is written here once and used everywhere: whether a silence splits, and whether the watermark proves
that it will (`longest_silence_ms`). See docs/spec/sessions.md, rules 2 to 4.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from sessionize.errors import ConfigError
from sessionize.session.durations import Duration, format_duration, parse_duration_ms

GapBoundary = Literal["exclusive", "inclusive"]
MaxDurationMode = Literal["anchored", "rolling"]
SessionIds = Literal["start", "sequential", "running"]
# What moves the front of event time in a stream (rule 8); no part of a Policy, as it changes no session.
WatermarkRule = Literal["confirmed", "maximum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a session is.

    gap_ms: the silence that ends a session. gap_boundary: "exclusive" splits when the silence is longer than the gap,
    "inclusive" already when it equals it. max_duration_ms: the longest a session may last, None for no limit.
    max_duration_mode: "anchored" cuts a chain at its start + k * max_duration; "rolling" cuts at each session's own
    start + max_duration. session_ids: how sessions are named (session/ids.py).
    """

    gap_ms: int = 1_800_000
    gap_boundary: GapBoundary = "exclusive"
    max_duration_ms: int | None = 7_200_000
    max_duration_mode: MaxDurationMode = "anchored"
    session_ids: SessionIds = "start"

    def __post_init__(self) -> None:
        if self.gap_ms <= 0:
            raise ConfigError("the gap must be longer than zero", detail=f"gap_ms = {self.gap_ms}", hint="e.g. 30m")
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
                hint="set max_duration or leave max_duration_mode out",
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
        """Build a policy from durations as people write them; max_duration None or "none" means no limit."""
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
        """The longest silence that does not split: a session goes on exactly while silence <= longest_silence_ms."""
        return self.gap_ms if self.gap_boundary == "exclusive" else self.gap_ms - 1

    @property
    def numbers_sessions(self) -> bool:
        """Whether chains are numbered, so that a user must be remembered for ever (bounded input only)."""
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
        raise ConfigError(f"{name} is not known", detail=f"{name} = {value!r}", hint=f"one of {', '.join(allowed)}")
