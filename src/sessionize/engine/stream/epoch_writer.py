"""Work beside the caller's: on a daemon thread, so that what hangs in it never keeps the process from ending."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for

from sessionize.engine.retry import Retrier

_LOOK_EVERY_S = 0.05
_LEFT_S = 5.0  # how long a run that has failed waits for an epoch that is being written


def in_a_thread(name: str, work: Callable[[], None]) -> "Future[None]":
    """Begin the work. Not in a pool's thread: Python waits for those before it ends."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # raised where the result is asked for
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done


class EpochWriter:
    """One piece of work at a time beside the caller's. retrier: what the work calls servers through.

    Work that fails ends every pause of the retrier, also the caller's own.
    """

    def __init__(self, retrier: Retrier) -> None:
        self._retrier = retrier
        self._writing: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin; the piece before has to be through."""
        self._writing = in_a_thread("epoch writer", work)
        self._writing.add_done_callback(self._end_pauses)

    def look(self) -> None:
        """See how it is getting on, without waiting. Errors: what ended the work; those of Retrier.note_silence."""
        if self._writing is None:
            return
        if not self._writing.done():
            self._retrier.note_silence()
            return
        writing, self._writing = self._writing, None
        writing.result()

    def wait(self) -> None:
        """Until it is through. Errors: those of look."""
        while self._writing is not None:
            wait_for([self._writing], _LOOK_EVERY_S)
            self.look()

    def leave(self, error: BaseException) -> None:
        """The run ends by this error, which gets a note of what became of the work.

        What hangs is left behind, as if the process had been killed.
        """
        self._retrier.cancel()
        writing, self._writing = self._writing, None
        if writing is not None:
            left_s = 0.0 if isinstance(error, KeyboardInterrupt) else _LEFT_S
            if not wait_for([writing], left_s).done:
                error.add_note("and the epoch before is still being written: the next run repeats it")
            elif (another := writing.exception()) is not None:
                error.add_note(f"and the epoch before was not written: {another}")
        self._retrier.close()

    def _end_pauses(self, done: "Future[None]") -> None:
        if done.exception() is not None:
            self._retrier.cancel()
