"""Where a run's rows go, and how they become visible: each sink whole or not at all, in a fixed order."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from sessionize.engine.event_columns import with_user_name
from sessionize.ports import Sink


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """The sinks of a run; None where rows are not kept. events: every accepted event, as it came.

    retried: rejected records can be tried again from where they are kept, without another run.
    """

    sessions: Sink
    events: Sink | None = None
    late: Sink | None = None
    rejected: Sink | None = None
    retried: bool = False

    def _all(self) -> list[Sink]:
        return [sink for sink in (self.rejected, self.late, self.events, self.sessions) if sink is not None]

    @contextmanager
    def aborted_on_error(self) -> Iterator[None]:
        """On any error in this block, also before `committed` begins, drop what is not committed."""
        try:
            yield
        except BaseException as error:
            abort_all(self._all(), error)
            raise

    @contextmanager
    def committed(self) -> Iterator[None]:
        """Commit every sink at the end; on any error before that, abort them all.

        Sessions come last, so that whoever sees them finds their events. Each commit is atomic, all of them together
        are not: when one fails, those before it stay. Every sink not yet committed is aborted, and the first error is
        raised.
        """
        waiting = self._all()
        try:
            yield
            while waiting:
                waiting[0].commit()
                waiting.pop(0)
        except BaseException as error:
            abort_all(waiting, error)
            raise


def abort_all(sinks: list[Sink], error: BaseException) -> None:
    """Abort them all; one that can't even do that is noted on the error that led here."""
    for sink in sinks:
        try:
            sink.abort()
        except Exception as second:
            error.add_note(f"and an output could not be cleaned up: {second}")


def write_events(sink: Sink | None, events: pa.Table, user_name: str) -> None:
    """Write events, the user column under the input's name for it."""
    if sink is not None and events.num_rows:
        sink.write(with_user_name(events, user_name))
