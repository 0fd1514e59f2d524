"""CSV to columns, piece by piece, with the interface of JsonLines."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sessionize.formats.csv_text.amounts import as_written
from sessionize.formats.csv_text.parser import CsvRows, header_names
from sessionize.formats.dialects import Dialect
from sessionize.formats.input_format import AUTO, InputFormat
from sessionize.formats.lines import LINE_BYTES_MAX, LineIndex, without_bom
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.tabular_lines import TabularLines
from sessionize.session.columns import VALUE

_QUOTE = ord('"')


class CsvLines(TabularLines):
    """Decodes the rows of one CSV file below its header; `take` returns the rows collected so far."""

    def __init__(
        self,
        header: bytes | None,
        dialect: Dialect,
        *,
        source: str,
        delimiter: str = ",",
        input_format: InputFormat = AUTO,
        columns: frozenset[str] | None = None,
        extras: bool = False,
        latest_ms: int | None = None,
        line_bytes_max: int = LINE_BYTES_MAX,
        constants: Mapping[str, str | None] | None = None,
    ) -> None:
        """header: the first line, None where input_format names the columns. constants: as in TabularLines. The other
        arguments are those of JsonLines.

        Errors: InputError if the header cannot be read or lacks a mapped column.
        """
        super().__init__(source, line_bytes_max=line_bytes_max, constants=constants or {})
        self._is_headerless = header is None
        if header is None:
            names = list(input_format.columns)
        else:
            names = header_names(header, delimiter=delimiter, source=source)
        self._constants = {name: text for name, text in self._constants.items() if name not in names}
        schema = pa.schema([(name, pa.string()) for name in (*names, *self._constants)])
        layout = Layout.of(schema, dialect, source=source, columns=columns, extras=extras)
        read = [name for name in layout.read if name not in self._constants]
        self._rows = CsvRows(
            names,
            delimiter=delimiter,
            read=read,
            line_bytes_max=line_bytes_max,
            null_values=input_format.null_values,
        )
        self._use(Tabular(layout, dialect, latest_ms=latest_ms), layout)
        self._comment = ord(input_format.comment) if input_format.comment is not None else None
        self._decimal = input_format.decimal
        numbers = (VALUE, *(field.name for field in dialect.fields if field.type in ("number", "integer")))
        amounts = [path for name in numbers for path in layout.paths.get(name, ())] if self._decimal is not None else []
        self._amounts = list(dict.fromkeys(".".join(map(str, path)) for path in amounts))
        self._carry = b""
        self._carry_line = 0

    def add(self, data: memoryview | bytes, *, source: str, first_line: int = 2, at_start: bool = False) -> int:
        """Decode whole lines; returns their number. An unfinished row waits for the next piece.

        The arguments are those of JsonLines.add. A byte-order mark is part of the header, if there is one.
        """
        self._source = source
        data = memoryview(without_bom(data) if at_start and self._is_headerless else data)
        lines = LineIndex(data)
        if self._comment is None:
            self._add(data, first_line)
            return len(lines)
        at = 0
        for line in (*self._comments(lines), len(lines)):
            if line > at:
                end = int(lines.starts[line]) if line < len(lines) else len(data)
                self._add(data[int(lines.starts[at]) : end], first_line + at)
            at = line + 1
        return len(lines)

    def flush(self) -> None:
        """End an unfinished row: the file ends, or an overlong line follows."""
        if self._carry:
            self._decode(self._carry, self._carry_line, final=True)

    def _comments(self, lines: LineIndex) -> list[int]:
        """The lines that are comments; within quotes, a line that begins like one is text."""
        filled = lines.ends > lines.starts
        first = lines.text[np.minimum(lines.starts, len(lines.text) - 1)] if len(lines) else lines.text
        marked = np.flatnonzero(filled & (first == self._comment))
        if not len(marked):
            return []
        quotes = np.flatnonzero(lines.text == _QUOTE)
        before = np.searchsorted(quotes, lines.starts[marked]).tolist()
        within = np.searchsorted(quotes, lines.ends[marked]).tolist()
        found: list[int] = []
        passed = 1 if self._carry else 0  # quotes that open or close nothing: those of comments
        for line, start, end in zip(marked.tolist(), before, within, strict=True):
            if (start + passed) % 2 == 0:
                found.append(line)
                passed += end - start
        return found

    def _add(self, data: memoryview, first_line: int) -> None:
        if self._carry:
            self._decode(self._carry + bytes(data), self._carry_line, final=False)
        else:
            self._decode(data, first_line, final=False)

    def _decode(self, data: memoryview | bytes, first_line: int, *, final: bool) -> None:
        lines = LineIndex(memoryview(data))
        piece = self._rows.parse(lines, final=final)
        self._carry = bytes(lines.data[lines.starts[piece.rest] :]) if piece.rest < len(lines) else b""
        self._carry_line = first_line + piece.rest
        table = piece.table
        for name in self._amounts:
            if name in table.column_names:
                at = table.column_names.index(name)
                table = table.set_column(at, name, as_written(table.column(at), self._decimal or "."))
        self._decode_rows(table, lines, piece.first, piece.last, piece.faults, first_line)
