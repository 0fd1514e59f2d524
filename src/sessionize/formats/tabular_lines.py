"""What decoders of lines with columns share: they turn pieces into tables, and collect what is decoded of them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from sessionize.formats.json_errors import too_large
from sessionize.formats.lines import LINE_BYTES_MAX, LineIndex
from sessionize.formats.rejects import RAW_BYTES_MAX, TOO_LARGE, Fault, Faults, Rejects
from sessionize.formats.tabular import Tabular, encoded
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.times import Ints
from sessionize.formats.validation import Decoded


class TabularLines:
    """The part of a TextDecoder (source_text.py) that does not depend on the format."""

    def __init__(
        self, source: str, *, line_bytes_max: int = LINE_BYTES_MAX, constants: Mapping[str, str | None]
    ) -> None:
        """constants: columns with the same text in every row."""
        self.row_count = 0
        self._source = source
        self._line_bytes_max = line_bytes_max
        self._constants = dict(constants)
        self._tabular: Tabular
        self._nothing: Decoded
        self._events: list[pa.Table] = []
        self._rejects: list[pa.Table] = []
        self._nulled = Counter[str]()
        self._local_times = 0

    def flush(self) -> None:
        """End an unfinished record."""

    def reject(self, raw: bytes | None, *, source: str, line_number: int, fault: Fault) -> None:
        """Reject a record that its reader found invalid."""
        self._rejects.append(_rejected([(raw, line_number, fault)], source))

    def reject_long_line(self, head: bytes, size_bytes: int, *, source: str, line_number: int) -> None:
        """Reject a line that is too long to be held in memory."""
        fault = too_large(size_bytes, self._line_bytes_max)
        self.reject(head, source=source, line_number=line_number, fault=fault)

    def take(self) -> Decoded:
        """Everything decoded since the last take."""
        # encoded only now: dictionaries of each piece would have to be made one
        events = encoded(pa.concat_tables([self._nothing.events, *self._events], promote_options="default"))
        rejected = pa.concat_tables([self._nothing.rejected, *self._rejects])
        self._events, self._rejects = [], []
        self.row_count = 0
        nulled, self._nulled = self._nulled, Counter()
        local_times, self._local_times = self._local_times, 0
        return Decoded(events.combine_chunks(), rejected, nulled=nulled, local_times=local_times)

    def _use(self, tabular: Tabular, layout: Layout) -> None:
        """Decode the tables that follow in this way."""
        own = [name for name in layout.read if name not in self._constants]
        empty = self._with_constants(pa.table([pa.array([], pa.string())] * len(own), names=own))
        self._tabular = tabular
        self._nothing = tabular.decode(empty, source=self._source, line_number=int, plain=True)

    def _with_constants(self, table: pa.Table) -> pa.Table:
        for name, text in self._constants.items():
            table = table.append_column(name, pa.repeat(pa.scalar(text, pa.string()), len(table)))
        return table

    def _decode_rows(
        self, table: pa.Table, lines: LineIndex, first: Ints, last: Ints, faults: Faults, first_line: int
    ) -> None:
        """Decode the rows of a piece. first, last: the lines (from 0) of each row. faults: by line."""

        def raw(row: int) -> bytes:
            return bytes(lines.data[lines.starts[first[row]] : lines.ends[last[row]]])

        line_number: Callable[[int], int] = lambda row: first_line + int(first[row])  # noqa: E731
        decoded = self._tabular.decode(
            self._with_constants(table), source=self._source, line_number=line_number, raw=raw, plain=True
        )
        rejected = decoded.rejected
        if faults:
            records = [(_kept(lines[line], fault), first_line + line, fault) for line, fault in faults.items()]
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
