"""Sessions, or rows of other tables, as JSON lines on a stream, for people.

At least once: a stream of text keeps no record of epochs, so what an engine repeats after a crash is printed again.
Whoever needs each session once reads a table.
"""

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any, TextIO

import pyarrow as pa

from sessionize.errors import OutputError
from sessionize.formats.sizes import in_pieces
from sessionize.ports import EpochId, EpochOutput
from sessionize.session.output_tables import OUTPUT_TABLES, SESSIONS, Destinations, TableSpec

# What is printed where nobody says otherwise: sessions alone, in lines that do not name the table.
DESTINATIONS = {SESSIONS.name: ""}


class ConsoleSink:
    """Prints the rows of each epoch (ports.EpochSink, but at least once after a restart).

    stream: stays open, it is not ours. destinations: output table -> what its lines have as "table" before the columns,
    nothing for ""; DESTINATIONS by default. specs: the tables that an output may have. Errors: OutputError when nobody
    reads the stream any more.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        destinations: Mapping[str, str] | None = None,
        specs: tuple[TableSpec, ...] = OUTPUT_TABLES,
    ) -> None:
        self._stream = stream
        self._to = Destinations(DESTINATIONS if destinations is None else destinations, specs)
        # An epoch that this process gave to the stream whole is not printed again, whichever sink asks for a retry.
        self._last: dict[str, int] = {}

    @property
    def known_tables(self) -> frozenset[str]:
        """The tables whose specs it was given."""
        return self._to.names

    def write_epoch(self, epoch: EpochId, output: EpochOutput) -> None:
        """One line for each row, maps as objects."""
        given = self._to.rows(output.tables)
        if epoch.number <= self._last.get(epoch.writer, 0):
            return
        try:
            for to, rows in given:
                label = {"table": to.to} if to.to else {}
                for piece in in_pieces(rows, rows_max=1_000):
                    maps = [field.name for field in piece.schema if pa.types.is_map(field.type)]
                    self._stream.writelines(_line({**label, **row}, maps) for row in piece.to_pylist())
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
