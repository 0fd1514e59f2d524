"""Ctrl-C and SIGTERM: the first one asks a run to come to its end, the second one is for real.

A handler may interrupt whatever holds the lock that an event or a line of the log needs, so it only puts a word into a
queue; a thread does the rest.
"""

import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stopped_by_signals(what_follows: str, say: Callable[[str], None] | None = None) -> Iterator[threading.Event]:
    """An event that the first signal sets, saying what follows; at the second one KeyboardInterrupt.

    say: gets what follows, from another thread; None prints it on stderr.
    """
    stopping = threading.Event()
    signals: queue.SimpleQueue[bool] = queue.SimpleQueue()
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        signals.put(True)

    def obey() -> None:
        if signals.get():
            stopping.set()
            (say or _print)(what_follows)

    obeying = threading.Thread(target=obey, name="signals", daemon=True)
    obeying.start()
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signals.put(False)
        obeying.join()


def _print(what_follows: str) -> None:
    sys.stderr.write(f"stopping: {what_follows}\n")
