"""[rules]: what a session is, every key with its default, meaning and example."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from sessionize.app.config import types as kinds
from sessionize.app.config.section import Section, key
from sessionize.app.config.types import refuse
from sessionize.errors import ConfigError
from sessionize.session.durations import parse_duration_ms
from sessionize.session.known_definitions import DEFINITIONS, DefinitionName
from sessionize.session.policy import Duplicates, GapBoundary, MaxDurationMode, Policy, SessionIds, WatermarkRule
from sessionize.session.rules import Rules

_LISTS = ("start_events", "end_events", "excluded_events", "split_on_change", "split_ignore")
# Which key a refused combination is about, by what the error names; max_duration_mode if none.
_BLAMED = (
    "gap_by", "day_start", "split_ignore", "min_events", "max_events", "min_duration", "bounce", "excluded",
    "duplicates_within",
)  # fmt: skip


class GapBySection(Section):
    """A gap of its own for each event: by a table over a field's values, or the field is the gap."""

    field: kinds.Text = key(..., "Event column that decides: a further field, or page, event_type, …", example="app")
    gaps: dict[kinds.Text, kinds.PositiveLength] = key(
        {}, "Gap by value of the field; other events have rules.gap. Empty: the value is the gap.", example={"tv": "4h"}
    )
    unit: Literal["ms", "s", "m", "h", "d"] = key(
        "ms", "Unit of a value that is a number. Only without gaps.", example="s"
    )
    longest: kinds.PositiveLength = key(
        "1d", "A longer gap of an event counts as this one. Only without gaps.", example="12h"
    )


class RulesSection(Section):
    """What a session is. Without conversion_events, the dialect defines conversions."""

    gap: kinds.PositiveLength = key("30m", "A longer time without events ends the session.", example="45m")
    gap_boundary: GapBoundary = key(
        "exclusive",
        "exclusive: exactly the gap continues the session; inclusive: it ends it.",
        example="inclusive",
    )
    max_duration: kinds.PositiveLengthOrNone = key(
        "2h", 'Longest duration of a session; "none": no limit.', example="4h"
    )
    max_duration_mode: MaxDurationMode = key(
        "anchored",
        "anchored: cut at multiples of max_duration after the first event; rolling: restart at each cut's event.",
        example="rolling",
    )
    session_ids: SessionIds = key(
        "start",
        "Form of the session id. start: user and time of the first event, the same in every run; sequential: "
        "user_session_<chain>_<piece>; running: user-<n>.",
        example="sequential",
    )
    lateness: kinds.Length = key(
        "10m",
        "How far behind the newest events an event may be and still be on time; beyond that it is late.",
        example="1h",
    )
    watermark: WatermarkRule = key(
        "confirmed",
        "What advances event time. confirmed: events of several users, so a wrong clock affects only its own events; "
        "maximum: the newest event of any user. Neither passes the present.",
        example="maximum",
    )
    max_future: kinds.LengthOrNone = key(
        "24h",
        'Events further in the future are rejected; "none" accepts any time and ignores the clock.',
        example="1h",
    )
    start_events: kinds.Texts = key((), "Event types that open a session.", example=["login"])
    end_events: kinds.Texts = key((), "Event types that close their session.", example=["logout"])
    excluded_events: kinds.Texts = key((), "Event types to ignore.", example=["heartbeat"])
    conversion_events: kinds.Texts = key(
        (),
        "Event types that set has_conversion and count as revenue; case-insensitive.",
        example=["purchase"],
    )
    boundary: kinds.FunctionName | None = key(
        None,
        'A Python function "module:function" that takes the events as an Arrow table and returns for each '
        "whether it opens a session. The module is searched beside the pipeline file first.",
        example="my_rules:after_logout",
    )

    definition: DefinitionName | None = key(
        None, "Sessions as another product defines them; the other keys of this section override it.", example="ga4"
    )
    split_on_change: kinds.Texts = key(
        (),
        "Fields: an event with another value than the last one opens a session; a missing value does not.",
        example=["utm_source", "utm_campaign"],
    )
    split_ignore: kinds.Texts = key(
        (),
        "Values that do not count for split_on_change, as if they were missing; * stands for any text.",
        example=["(direct)", "*.paypal.com*"],
    )
    day_start: kinds.Text | None = key(
        None, 'Time zone whose midnight opens a session; "none": no such rule.', example="Europe/Berlin"
    )
    gap_by: GapBySection | None = Field(default=None, description="A gap of its own for each event.")
    max_events: kinds.CountOrNone = key("none", 'Most events of a session; "none": no limit.', example=500)
    min_events: kinds.Count = key(1, "Sessions with fewer events are not written; they are counted.", example=2)
    min_duration: kinds.Length = key("0s", "Shorter sessions are not written; they are counted.", example="5s")
    bounce: kinds.Texts = key(
        (),
        "Conditions of the session column is_bounce, all of which must hold: one_event, one_page, no_conversion, or a "
        "duration that the session is shorter than. Default: no such column.",
        example=["one_page", "10s"],
    )
    duplicates: Duplicates = key(
        "user_time_id",
        "user_time_id: events with equal user, time and id count once; id: also events of a user with equal id at "
        "other times, as of retries.",
        example="id",
    )
    duplicates_within: kinds.PositiveLength = key(
        "1d",
        "How long after an event another one with its id is a duplicate. Only with duplicates = id.",
        example="1h",
    )

    @model_validator(mode="before")
    @classmethod
    def _by_definition(cls, values: Any) -> Any:
        name = values.get("definition") if isinstance(values, dict) else None
        if not isinstance(name, str) or name not in DEFINITIONS:
            return values
        defined = dict(DEFINITIONS[name].keys)
        if values.get("max_duration") == "none":
            defined.pop("max_duration_mode", None)
        if values.get("split_on_change") in ([], ()):
            defined.pop("split_ignore", None)
        return {**defined, **values}

    @model_validator(mode="after")
    def _is_a_policy(self) -> Self:
        try:
            self.policy()
            self.rules()
        except ConfigError as error:
            name = next((each for each in _BLAMED if each in error.message), "max_duration_mode")
            refuse(error.message, error.hint or "see docs/configuration.md", key=f"rules.{name}")
        return self

    @property
    def lateness_ms(self) -> int:
        """How far behind the newest events an event may be and still be on time."""
        return parse_duration_ms(self.lateness, name="duration")

    @property
    def max_future_ms(self) -> int | None:
        """How far in the future an event may lie; None for any time."""
        return None if self.max_future == "none" else parse_duration_ms(self.max_future, name="duration")

    def policy(self) -> Policy:
        """The numbers that decide where a session ends."""
        return Policy.of(
            gap=self.gap,
            gap_boundary=self.gap_boundary,
            max_duration=self.max_duration,
            max_duration_mode=self.max_duration_mode,
            session_ids=self.session_ids,
            gap_by=None if self.gap_by is None else self.gap_by.model_dump(),
            day_start=None if self.day_start in (None, "none") else self.day_start,
            max_events=self.max_events if isinstance(self.max_events, int) else None,
            min_events=self.min_events,
            min_duration=self.min_duration,
            bounce=self.bounce,
            duplicates=self.duplicates,
            duplicates_within=self.duplicates_within,
        )

    def lists(self) -> dict[str, tuple[str, ...]]:
        """The rules that are lists, but for conversions, sorted."""
        return {name: tuple(sorted(set(getattr(self, name)))) for name in _LISTS}

    def rules(self) -> Rules:
        """The rules about events, without a boundary and conversions of its own."""
        named: dict[str, Any] = {name: frozenset(values) for name, values in self.lists().items()}
        return Rules(**named)
