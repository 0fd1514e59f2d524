"""`tune`: how long the silences in files of events are, and which gap they support."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionize.app.config.values import minutes_or_duration
from sessionize.errors import ConfigError
from sessionize.session.durations import parse_duration_ms

if TYPE_CHECKING:
    import pyarrow as pa

    from sessionize.analytics.silences import SilenceCounts
    from sessionize.analytics.tune import Tuning
    from sessionize.app.inputs import EventInput
    from sessionize.app.questions.user_parts import EventFiles
    from sessionize.engine.accounting import Accounting, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRun:
    """An opened question. excluded_events: types that do not count. gaps_ms: to look at beside the candidates."""

    files: "EventFiles"
    source: "EventInput"
    excluded_events: frozenset[str]
    gaps_ms: tuple[int, ...]

    @property
    def size_bytes(self) -> int | None:
        """How much there is to read; None when unknown."""
        return self.source.size_bytes

    def run(self, progress: "Progress") -> "tuple[Tuning, Accounting]":
        """Read everything and answer. Errors: InputError, also where every record is rejected."""
        with self.source.begun():
            from sessionize.analytics.tune import counts_to_fill, tuning
            from sessionize.app.questions.user_parts import check_usable, of_each_part, read_events, users_and_times
            from sessionize.engine.accounting import Accounting
            from sessionize.session.rules import Rules

            accounting, counts, rules = (
                Accounting(),
                counts_to_fill(self.gaps_ms),
                Rules(excluded_events=self.excluded_events),
            )

            def work(events: "pa.Table") -> "SilenceCounts":
                return counts.counted(*users_and_times(events, rules))

            tables = read_events(self.source, accounting, progress)
            for its in of_each_part(work, tables, self.files.options(), accounting):
                counts.add(its)
                progress("write", its.events, accounting)
        check_usable(accounting, self.files.dialect())
        return tuning(counts, self.gaps_ms), accounting


def open_tune(
    files: "EventFiles", *, gaps: list[str] | None, excluded_events: list[str] | None, now_ms: int
) -> TuneRun:
    """Look at the input. gaps: durations as text. Errors: ConfigError, InputError."""
    from sessionize.session import columns as col

    asked = tuple(parse_duration_ms(minutes_or_duration(text, name="--gap"), name="--gap") for text in gaps or ())
    if any(gap <= 0 for gap in asked):
        raise ConfigError("the gap must be longer than zero", detail="--gap 0", hint="for example 30m")
    excluded = frozenset(excluded_events or ())
    columns = frozenset({col.USER, col.EVENT_TIME} | ({col.EVENT_TYPE} if excluded else set()))
    return TuneRun(files=files, source=files.open(columns, now_ms=now_ms), excluded_events=excluded, gaps_ms=asked)
