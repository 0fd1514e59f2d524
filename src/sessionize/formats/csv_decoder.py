"""CSV to columns, piece by piece, with the interface of JsonLines."""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from sessionize.formats.csv_parser import CsvRows, header_names
from sessionize.formats.dialects import Dialect
from sessionize.formats.json_errors import too_large
from sessionize.formats.lines import LINE_BYTES_MAX, LineIndex
from sessionize.formats.rejects import RAW_BYTES_MAX, TOO_LARGE, Fault, Rejects
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.validation import Decoded


class CsvLines:
    """Decodes the rows of one CSV file below its header; `take` returns the rows collected so far."""

    __slots__ = (
        "_carry",
        "_carry_line",
        "_events",
        "_line_bytes_max",
        "_local_times",
        "_nothing",
        "_nulled",
        "_rejects",
        "_rows",
        "_source",
        "_tabular",
        "row_count",
    )

    def __init__(
        self,
        header: bytes,
        dialect: Dialect,
        *,
        source: str,
        delimiter: str = ",",
        columns: frozenset[str] | None = None,
        extras: bool = False,
        latest_ms: int | None = None,
        line_bytes_max: int = LINE_BYTES_MAX,
    ) -> None:
        """header: the first line. The other arguments are those of JsonLines.

        Errors: InputError if the header cannot be read or lacks a mapped column.
        """
        names = header_names(header, delimiter=delimiter, source=source)
        schema = pa.schema([(name, pa.string()) for name in names])
        layout = Layout.of(schema, dialect, source=source, columns=columns, extras=extras)
        self._rows = CsvRows(names, delimiter=delimiter, read=layout.read, line_bytes_max=line_bytes_max)
        self._tabular = Tabular(layout, dialect, latest_ms=latest_ms)
        self._source = source
        self._line_bytes_max = line_bytes_max
        empty = pa.table([pa.array([], pa.string())] * len(layout.read), names=layout.read)
        self._nothing = self._tabular.decode(empty, source=source, line_number=int)
        self._events = [self._nothing.events]
        self._rejects = [self._nothing.rejected]
        self._nulled = Counter[str]()
        self._local_times = 0
        self.row_count = 0
        self._carry = b""
        self._carry_line = 0

    def add(self, data: memoryview | bytes, *, source: str, first_line: int = 2, at_start: bool = False) -> int:
        """Decode whole lines; returns their number. An unfinished row waits for the next piece.

        The arguments are those of JsonLines.add. A byte-order mark is part of the header, so at_start has no effect.
        """
        self._source = source
        count = len(LineIndex(memoryview(data)))
        if self._carry:
            self._decode(self._carry + bytes(data), self._carry_line, final=False)
        else:
            self._decode(data, first_line, final=False)
        return count

    def flush(self) -> None:
        """End an unfinished row: the file ends, or an overlong line follows."""
        if self._carry:
            self._decode(self._carry, self._carry_line, final=True)

    def reject(self, raw: bytes | None, *, source: str, line_number: int, fault: Fault) -> None:
        """Reject a record that its reader found invalid."""
        self._rejects.append(_rejected([(raw, line_number, fault)], source))

    def reject_long_line(self, head: bytes, size_bytes: int, *, source: str, line_number: int) -> None:
        """Reject a line that is too long to be held in memory."""
        fault = too_large(size_bytes, self._line_bytes_max)
        self.reject(head, source=source, line_number=line_number, fault=fault)

    def take(self) -> Decoded:
        """Everything decoded since the last take."""
        events = pa.concat_tables(self._events, promote_options="default").combine_chunks()
        rejected = pa.concat_tables(self._rejects)
        self._events, self._rejects = [self._nothing.events], [self._nothing.rejected]
        self.row_count = 0
        nulled, self._nulled = self._nulled, Counter()
        local_times, self._local_times = self._local_times, 0
        return Decoded(events, rejected, nulled=nulled, local_times=local_times)

    def _decode(self, data: memoryview | bytes, first_line: int, *, final: bool) -> None:
        lines = LineIndex(memoryview(data))
        piece = self._rows.parse(lines, final=final)
        self._carry = bytes(lines.data[lines.starts[piece.rest] :]) if piece.rest < len(lines) else b""
        self._carry_line = first_line + piece.rest

        def raw(row: int) -> bytes:
            return bytes(lines.data[lines.starts[piece.first[row]] : lines.ends[piece.last[row]]])

        decoded = self._tabular.decode(
            piece.table, source=self._source, line_number=lambda row: first_line + int(piece.first[row]), raw=raw
        )
        rejected = decoded.rejected
        if piece.faults:
            records = [(_kept(lines[line], fault), first_line + line, fault) for line, fault in piece.faults.items()]
            rejected = pa.concat_tables([rejected, _rejected(records, self._source)]).sort_by("line_number")
        self._events.append(decoded.events)
        self._nulled.update(decoded.nulled)
        self._local_times += decoded.local_times
        self._rejects.append(rejected)
        self.row_count += len(decoded.events)


def _kept(line: memoryview, fault: Fault) -> bytes:
    return bytes(line[:RAW_BYTES_MAX] if fault.reason == TOO_LARGE else line)


def _rejected(records: Sequence[tuple[bytes | None, int, Fault]], source: str) -> pa.Table:
    rejects = Rejects()
    for raw, line_number, fault in records:
        rejects.add(raw, source=source, line_number=line_number, fault=fault)
    return rejects.take()
