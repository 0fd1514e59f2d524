"""What the reading of files warns of, for people: a line each on stderr, after the progress bar."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_SHOWN_MAX = 10


@contextmanager
def input_warnings() -> Iterator[None]:
    """In this block warnings of inputs are gathered, and shown when it ends, however that is."""
    gathered = _Gathered()
    inputs = logging.getLogger("sessionize.input")
    inputs.addHandler(gathered)
    try:
        yield
    finally:
        inputs.removeHandler(gathered)
        gathered.show()


class _Gathered(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts, self._more = list[str](), 0

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._texts) < _SHOWN_MAX:
            self._texts.append(record.getMessage())
        else:
            self._more += 1

    def show(self) -> None:
        from sessionize.cli.output import print_warning

        for text in self._texts:
            print_warning(text)
        if self._more:
            print_warning(f"{self._more:,} more about the input")
