"""Ctrl-C and SIGTERM: the first one asks a run to come to its end, the second one is for real."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stopped_by_signals(what_follows: str) -> Iterator[threading.Event]:
    """An event that the first signal sets, saying what follows; at the second one KeyboardInterrupt."""
    stopping = threading.Event()

    def ask(number: int, frame: object) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()
        sys.stderr.write(f"stopping: {what_follows}\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
