"""Sessions as JSON lines on a stream, for people.

At least once: a stream of text keeps no record of epochs, so what an engine repeats after a crash is printed again.
Whoever needs each session once reads a table.
"""

import datetime as dt
import json
from typing import Any, TextIO

import pyarrow as pa

from sessionize.errors import OutputError
from sessionize.formats.sizes import in_pieces
from sessionize.ports import EpochId, EpochRows


class ConsoleSink:
    """Prints the sessions of each epoch (ports.EpochSink, but at least once after a restart).

    stream: stays open, it is not ours. Errors: OutputError when nobody reads it any more.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # An epoch that this process gave to the stream whole is not printed again, whichever sink asks for a retry.
        self._last: dict[str, int] = {}

    def write_epoch(self, epoch: EpochId, rows: EpochRows) -> None:
        """One line for each session, maps as objects."""
        if epoch.number <= self._last.get(epoch.writer, 0):
            return
        try:
            for piece in in_pieces(rows.sessions, rows_max=1_000):
                maps = [field.name for field in piece.schema if pa.types.is_map(field.type)]
                self._stream.writelines(_line(row, maps) for row in piece.to_pylist())
            self._stream.flush()
        except (OSError, UnicodeError) as error:
            raise OutputError(
                "sessions cannot be printed", detail=str(error), hint="whoever read the output is gone"
            ) from error
        self._last[epoch.writer] = epoch.number

    def last_epoch(self, writer: str) -> None:
        """Nobody knows what was printed before."""

    def close(self) -> None:
        """Nothing to release."""


def _line(row: dict[str, Any], maps: list[str]) -> str:
    for name in maps:
        if row[name] is not None:
            row[name] = dict(row[name])
    return json.dumps(row, ensure_ascii=False, default=_as_text) + "\n"


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, dt.date) else str(value)
