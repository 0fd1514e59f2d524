"""The section [check] of the pipeline file: what `sessionize check` allows."""

from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import AfterValidator, Field, StrictFloat, StrictStr

from sessionize.app.config import types as kinds
from sessionize.app.config.section import Section, key
from sessionize.app.config.types import refuse


def _date(value: str) -> str:
    try:
        date.fromisoformat(value)
    except ValueError:
        refuse("not a date", 'write for example "2020-01-01"')
    return value


_Date = Annotated[StrictStr, AfterValidator(_date)]
_Times = Annotated[StrictFloat, Field(ge=0, le=1e6, allow_inf_nan=False)]


class CheckSection(Section):
    """What `sessionize check` allows."""

    max_rejected: kinds.Fraction = key(
        0.001,
        "Share of the records that may be rejected for a missing user or time, and for other reasons.",
        example=0.01,
    )
    required: kinds.Texts = key((), "Event columns that must have values.", example=["event_type", "page"])
    max_missing: kinds.Fraction = key(0.0, "Share of the events that may lack a required value.", example=0.02)
    max_duplicates: kinds.Fraction = key(0.01, "Share of the events that may be duplicates.", example=0.0)
    max_late: kinds.Fraction = key(
        0.05, "Share of the events that may be further behind the newest one than rules.lateness.", example=0.01
    )
    earliest: _Date = key("1990-01-01", "An event before this date (UTC) has a wrong clock.", example="2020-01-01")
    max_age: kinds.LengthOrNone = key("none", 'Greatest age of the newest event; "none": any age.', example="2h")
    min_volume: _Times = key(0.5, "Fewest events of a day, as a multiple of a usual day.", example=0.2)
    max_volume: _Times = key(2.0, "Most events of a day, as a multiple of a usual day.", example=5.0)
    min_accuracy: kinds.Fraction = key(
        1.0, "Share of the stored sessions that must equal a recomputation.", example=0.9995
    )

    @property
    def earliest_ms(self) -> int:
        """The beginning of `earliest`."""
        day = date.fromisoformat(self.earliest)
        return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
