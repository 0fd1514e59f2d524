"""A generator run as the input of a pipeline.

Records are written as lines and decoded like those of a file, so malformed records are rejected for the same reasons.
"""

from collections.abc import Iterable, Iterator

from sessionize.connectors.generator.settings import GeneratorSettings
from sessionize.connectors.generator.stream import Stream
from sessionize.errors import ConfigError
from sessionize.formats.dialects import DIALECTS, Field
from sessionize.formats.json_lines import JsonLines
from sessionize.ports import EventBatch
from sessionize.session.time import MS_PER_DAY

_NAME = "generator"
_SAMPLE_EVENTS = 500


class GeneratorSource:
    """A Source (ports/) of generated events, in the order of arrival.

    batch_rows: records in a batch, malformed ones included. columns: the canonical columns to build, None for all.
    extras: keep other fields too. max_future_ms: reject events later than now_ms plus this; None accepts any time (then
    the malformed records of kind time_2099 are events). now_ms: at least the end of the run, which is also the
    default. name: the source of rejected records. fields: further fields of the records as columns.
    Errors: ConfigError for a run without an end.
    """

    def __init__(
        self,
        settings: GeneratorSettings,
        *,
        batch_rows: int = 50_000,
        columns: frozenset[str] | None = None,
        extras: bool = True,
        max_future_ms: int | None = MS_PER_DAY,
        now_ms: int | None = None,
        name: str = _NAME,
        fields: Iterable[Field] = (),
    ) -> None:
        total, span_ms = settings.total_events, settings.span_ms
        if total is None or span_ms is None:
            raise ConfigError(
                "the generated input has no end",
                detail=f"rate_per_s = {settings.rate_per_s}, without events or duration_ms",
                hint="give the number of events or the duration",
            )
        if batch_rows < 1:
            raise ConfigError(
                "batches must hold at least one record", detail=f"batch_rows = {batch_rows}", hint="e.g. 50000"
            )
        self.settings = settings
        self._dialect = DIALECTS[settings.profile].with_fields(tuple(fields))
        self._batch_rows = batch_rows
        self._columns = columns
        self._extras = extras
        self._total = total
        self._name = name
        # A sparse run may last longer than planned, but by less than this.
        end_ms = settings.start_ms + 4 * round(span_ms)
        present_ms = end_ms if now_ms is None else max(now_ms, end_ms)
        self._latest_ms = None if max_future_ms is None else present_ms + max_future_ms
        self._size_bytes = total * _line_bytes_mean(settings)

    @property
    def size_bytes(self) -> int | None:
        """The approximate bytes of the records."""
        return self._size_bytes

    @property
    def event_columns(self) -> frozenset[str]:
        """The canonical columns of the profile's records."""
        return frozenset(self._dialect.columns_for(self._columns))

    @property
    def user_name(self) -> str:
        """The records' name of the user column."""
        return self._dialect.user_name

    def batches(self) -> Iterator[EventBatch]:
        """Generate and decode; read_bytes is proportional to the events and adds up to size_bytes."""
        lines = JsonLines(self._dialect, columns=self._columns, extras=self._extras, latest_ms=self._latest_ms)
        rows, line_number, events, read_bytes = 0, 1, 0, 0

        def batch() -> EventBatch:
            nonlocal read_bytes
            before, read_bytes = read_bytes, self._size_bytes * events // self._total
            decoded = lines.take()
            return EventBatch(decoded.events, decoded.rejected, read_bytes - before)

        for block in Stream(self.settings).blocks():
            start = 0
            while start < len(block):
                stop = min(len(block), start + self._batch_rows - rows)
                lines.add(block.text(start, stop), source=self._name, first_line=line_number)
                rows += stop - start
                line_number += stop - start
                events += block.event_count(start, stop)
                start = stop
                if rows == self._batch_rows:
                    yield batch()
                    rows = 0
        if rows:
            yield batch()


def _line_bytes_mean(settings: GeneratorSettings) -> int:
    """The mean bytes of a record, from a sample."""
    few = GeneratorSettings(
        profile=settings.profile, users=settings.users, events=_SAMPLE_EVENTS, start_ms=settings.start_ms
    )
    sizes = [(block.text(0, len(block)).nbytes, len(block)) for block in Stream(few).blocks()]
    return sum(size for size, _ in sizes) // sum(count for _, count in sizes)
