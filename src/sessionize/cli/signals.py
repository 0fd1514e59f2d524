"""Ctrl-C and SIGTERM: a stream comes to its end at the first one, a run over files is aborted by it.

A handler may interrupt whatever holds the lock that an event or a line of the log needs, so it only puts a word into a
queue; a thread does the rest.
"""

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sessionize.engine.accounting import Accounting, Progress

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TerminatedError(SystemExit):
    """The process is asked to end; a plain SystemExit might come from a function of the user's."""


def terminate(number: int, frame: object) -> NoReturn:
    """A signal's handler: like Ctrl-C, so that temporary files are removed on the way out."""
    raise TerminatedError(128 + number)


class Swallowed:
    """Interrupts that were raised where Python ignores every error, as in a finalizer, and so have to be raised again.

    It is sys.unraisablehook; a handler asks it whether the signal is the one before, sent again.
    """

    _AGAIN_AFTER_S = 0.02  # by then the finalizer has ended

    def __init__(self) -> None:
        self._sent_again = False

    def __call__(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Send the signal again; other errors are shown as ever."""
        error = unraisable.exc_value
        if not isinstance(error, KeyboardInterrupt | TerminatedError):
            sys.__unraisablehook__(unraisable)
            return
        self._sent_again = True
        number = signal.SIGTERM if isinstance(error, TerminatedError) else signal.SIGINT
        again = threading.Timer(self._AGAIN_AFTER_S, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    def taken(self) -> bool:
        """Whether a signal was sent again; asked once."""
        sent, self._sent_again = self._sent_again, False
        return sent


swallowed = Swallowed()


@contextmanager
def stopped_by_signals(
    what_follows: str, say: Callable[[str], None] | None = None, *, stopping: threading.Event | None = None
) -> Iterator[threading.Event]:
    """An event that the first signal sets, saying what follows; at the second one KeyboardInterrupt.

    say: gets what follows, from another thread; None prints it on stderr. stopping: the event; None for a new one.
    """
    stopping = stopping or threading.Event()
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if swallowed.taken() or asked:
            raise KeyboardInterrupt
        asked = True
        words.put(what_follows)

    def obey(word: str) -> None:
        stopping.set()
        (say or _print)(word)

    with _words_passed_on(obey) as words, _handled(ask):
        yield stopping


class Abortable:
    """A run that the first signal aborts, unless it is being committed: then the commit is finished first.

    interrupted: a signal came while the results were committed; they are there, whole.
    """

    def __init__(self, words: "queue.SimpleQueue[str | None]") -> None:
        self.interrupted = False
        self._words = words
        self._committing = self._warned = False
        self._aborting: int | None = None  # by which signal

    def watching(self, progress: "Progress") -> "Progress":
        """The same Progress; from the commit on, the first signal no longer aborts."""

        def watched(phase: str, done: int, accounting: "Accounting") -> None:
            if self._aborting is not None:  # the error was lost on its way, and the run goes on
                self._abort(self._aborting, None)
            self._committing = phase == "commit"
            progress(phase, done, accounting)

        return watched

    def handle(self, number: int, frame: object) -> None:
        """What a signal does."""
        if swallowed.taken():
            self._abort(number, frame)
        elif self._committing and not self.interrupted:
            self.interrupted = True
            self._words.put("committing the results (press Ctrl-C again to abort; some may then be missing)")
        elif self._aborting is None:
            self._abort(number, frame)
        elif not self._warned:
            self._warned = True
            self._words.put(
                "removing unfinished output (press Ctrl-C again to exit at once; temporary files may remain)"
            )
        else:
            os._exit(128 + number)

    def _abort(self, number: int, frame: object) -> NoReturn:
        """Raise what the signal means."""
        self._aborting = number
        if number == signal.SIGTERM:
            terminate(number, frame)
        raise KeyboardInterrupt


@contextmanager
def aborted_by_signals() -> Iterator[Abortable]:
    """In this block the first signal raises KeyboardInterrupt (SIGTERM: SystemExit 143), further ones let that end."""
    swallowed.taken()  # of a time before
    with _words_passed_on(_print) as words:
        run = Abortable(words)
        with _handled(run.handle):
            yield run
    if run.interrupted:
        _print("too late, all results are committed")


@contextmanager
def _handled(handler: Callable[[int, object], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def _words_passed_on(act: Callable[[str], None]) -> "Iterator[queue.SimpleQueue[str | None]]":
    """A queue for a handler; another thread calls act with each word that is put into it."""
    words: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def pass_on() -> None:
        while (word := words.get()) is not None:
            act(word)

    passing = threading.Thread(target=pass_on, name="signals", daemon=True)
    passing.start()
    try:
        yield words
    finally:
        words.put(None)
        passing.join()


def _print(what_follows: str) -> None:
    sys.stderr.write(f"stopping: {what_follows}\n")
