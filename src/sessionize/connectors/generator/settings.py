"""The settings and the totals of a generator run: plain values, validated on construction.

A run has a size: a number of events, a rate, a duration, or two of them. All other settings have defaults. Equal
settings always give the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

from sessionize.errors import ConfigError
from sessionize.session.time import MS_PER_DAY

ProfileName = Literal["clickstream", "user-events", "user_activity", "clicks", "ecommerce"]
PROFILE_NAMES: tuple[ProfileName, ...] = get_args(ProfileName)

START_MS_DEFAULT = 1_767_571_200_000  # 2026-01-05T00:00:00Z, a Monday
START_MS_MAX = 4_102_444_800_000  # 2100-01-01T00:00:00Z
DURATION_MS_MAX = 3_660 * MS_PER_DAY
DELAY_MS_MAX = 30 * MS_PER_DAY
USERS_MAX = 10_000_000
EVENTS_MAX = 10**12
RATE_PER_S_MAX = 10_000_000.0
SKEW_MAX = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSettings:
    """One run of the generator.

    Size: events alone are spread over a day; rate_per_s alone has no end; of events, rate_per_s and
    duration_ms, two give the third. A rate, in events per second of event time, is constant; without one the
    events follow the time of day. A run of few visits may end early.

    users: the number of users. skew: user-n is active in proportion to n ** -skew; 0 makes all equal.
    start_ms: the earliest arrival (ms since 1970, UTC). seed: any integer from 0.

    late_fraction: the share of events that arrive late_by_ms after they happened. out_of_order_ms: every event
    arrives up to this time after it happened, so the first arrivals may have happened before start_ms.
    duplicate_fraction: the share of events that are delivered twice, in the same bytes. broken_fraction: for this
    share of events one malformed record is added. Neither of these two changes the events.

    Errors: ConfigError for a value out of range, or a size that is missing or given twice.
    """

    profile: ProfileName = "clickstream"
    users: int = 1_000
    events: int | None = None
    rate_per_s: float | None = None
    duration_ms: int | None = None
    start_ms: int = START_MS_DEFAULT
    seed: int = 0
    late_fraction: float = 0.0
    late_by_ms: int = 180_000
    out_of_order_ms: int = 0
    duplicate_fraction: float = 0.0
    broken_fraction: float = 0.0
    skew: float = 0.0

    def __post_init__(self) -> None:
        if self.profile not in PROFILE_NAMES:
            raise ConfigError(
                "unknown generator profile",
                detail=f"profile = {self.profile!r}",
                hint=f"one of {', '.join(PROFILE_NAMES)}",
            )
        self._check_numbers()
        self._check_size()

    @property
    def total_events(self) -> int | None:
        """Events of the run, without duplicates and malformed records; None if it has no end."""
        if self.events is not None:
            return self.events
        if self.rate_per_s is None or self.duration_ms is None:
            return None
        return max(1, round(self.rate_per_s * self.duration_ms / 1_000))

    @property
    def span_ms(self) -> float | None:
        """The event time that the run covers, None if it has no end."""
        if self.duration_ms is not None:
            return float(self.duration_ms)
        if self.events is None:
            return None
        return float(MS_PER_DAY) if self.rate_per_s is None else self.events / self.rate_per_s * 1_000

    @property
    def mean_rate_per_s(self) -> float:
        """Events per second of event time, averaged over the run."""
        if self.rate_per_s is not None:
            return self.rate_per_s
        if self.events is None or self.span_ms is None:
            raise AssertionError("a run without a rate has events, hence a span")
        return self.events / self.span_ms * 1_000

    def _check_numbers(self) -> None:
        whole: dict[str, tuple[int, int]] = {
            "users": (1, USERS_MAX),
            "events": (1, EVENTS_MAX),
            "duration_ms": (1, DURATION_MS_MAX),
            "start_ms": (0, START_MS_MAX),
            "seed": (0, 2**64 - 1),
            "late_by_ms": (0, DELAY_MS_MAX),
            "out_of_order_ms": (0, DELAY_MS_MAX),
        }
        real: dict[str, tuple[float, float]] = {
            "rate_per_s": (1e-6, RATE_PER_S_MAX),
            "late_fraction": (0.0, 1.0),
            "duplicate_fraction": (0.0, 1.0),
            "broken_fraction": (0.0, 1.0),
            "skew": (0.0, SKEW_MAX),
        }
        for name, (least, most) in whole.items():
            _check_number(name, getattr(self, name), least, most, whole=True)
        for name, (low, high) in real.items():
            _check_number(name, getattr(self, name), low, high, whole=False)

    def _check_size(self) -> None:
        if self.events is None and self.rate_per_s is None:
            raise ConfigError(
                "the size of the generated input is missing",
                detail=f"events = None, rate_per_s = None, duration_ms = {self.duration_ms}",
                hint="give a number of events, or a rate",
            )
        if self.events is not None and self.rate_per_s is not None and self.duration_ms is not None:
            raise ConfigError(
                "the size of the generated input is given twice",
                detail=f"{self.events} events, {self.rate_per_s} a second, for {self.duration_ms} ms",
                hint="leave one of the three out",
            )
        if not 1e-6 <= self.mean_rate_per_s <= RATE_PER_S_MAX:
            raise ConfigError(
                "the rate of the generated input is out of range",
                detail=f"{self.mean_rate_per_s:g} events a second of event time",
                hint=f"keep it between 0.000001 and {RATE_PER_S_MAX:.0f}",
            )


# None is allowed only where the default is None.
_OPTIONAL = {field.name for field in fields(GeneratorSettings) if field.default is None}


def _check_number(name: str, value: object, least: float, most: float, *, whole: bool) -> None:
    if value is None and name in _OPTIONAL:
        return
    kinds = (int,) if whole else (int, float)
    # A bool is an int in Python; NaN fails every comparison, which this order of the test rejects.
    if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(
            f"invalid {name}",
            detail=f"{name} = {value!r}",
            hint=f"a {'whole ' if whole else ''}number from {least:g} to {most:g}",
        )


@dataclass(frozen=True, slots=True)
class GeneratedTotals:
    """The counts of a run. A complete reader counts `good` valid records and `broken` malformed ones.

    events: distinct events. late: the delayed ones of them. duplicates: re-deliveries of an event. broken:
    malformed records, by_kind their kinds. users: distinct users of the events. first_ms, last_ms: the smallest
    and largest event time, None without events. complete: False if the reader disconnected or a user stopped the
    run.
    """

    events: int
    late: int
    duplicates: int
    broken: int
    by_kind: Mapping[str, int]
    users: int
    first_ms: int | None
    last_ms: int | None
    size_bytes: int
    complete: bool

    @property
    def good(self) -> int:
        """Valid records."""
        return self.events + self.duplicates

    @property
    def records(self) -> int:
        """All records, valid and malformed."""
        return self.good + self.broken
