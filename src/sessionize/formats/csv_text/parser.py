"""Parses CSV lines into a table of strings; an invalid line costs only itself.

Without quotes each line is a row, and pyarrow parses whole pieces. With quotes Python's reader parses them, because
it reports how many lines a row took. A row may span several lines; if that gives a wrong number of columns, the quote
is stray and only its line is rejected.
"""

import csv
import io
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.csv

from sessionize.errors import InputError
from sessionize.formats.json_errors import invalid_utf8, too_large
from sessionize.formats.lines import LineIndex
from sessionize.formats.rejects import INVALID_CSV, WRONG_COLUMN_COUNT, Fault, Faults, preview
from sessionize.formats.times import Ints

_QUOTE, _RETURN = b'"\r'
_LONE_RETURN = re.compile(r"\r(?!\n)")

ROW_LINES_MAX = 200


@dataclass(frozen=True, slots=True)
class CsvPiece:
    """The rows of some lines.

    table: the requested columns as strings, empty ones null. first, last: the lines (from 0) of each row. faults: by
    line. rest: the line at which an unfinished row begins, the number of lines if there is none.
    """

    table: pa.Table
    first: Ints
    last: Ints
    faults: Faults
    rest: int


class CsvRows:
    """Reads the rows below one header."""

    __slots__ = ("_delimiter", "_line_bytes_max", "_null_values", "_places", "_read", "names")

    def __init__(
        self,
        names: Sequence[str],
        *,
        delimiter: str,
        read: Sequence[str],
        line_bytes_max: int,
        null_values: Sequence[str] = (),
    ) -> None:
        """names: all columns. read: those to build. null_values: texts that are read as null, beside the empty one."""
        self.names = list(names)
        self._read = list(read)
        place_of = {name: place for place, name in enumerate(self.names)}
        self._places = [place_of[name] for name in self._read]
        self._delimiter = delimiter
        self._line_bytes_max = line_bytes_max
        self._null_values = frozenset(("", *null_values))

    def parse(self, lines: LineIndex, *, final: bool) -> CsvPiece:
        """final: no more lines follow, so the last row is finished."""
        if lines.longest <= self._line_bytes_max and lines.is_utf8():
            if not (lines.text == _QUOTE).any():
                piece = self._without_quotes(lines)
                if piece is not None:
                    return piece
            piece = self._row_by_line(lines)
            if piece is not None:
                return piece
        return self._line_by_line(lines, final=final)

    def _without_quotes(self, lines: LineIndex) -> CsvPiece | None:
        """One row for each non-empty line; None if pyarrow would split the rows differently."""
        if bytes(lines.data[: len(BOM_UTF8)]) == BOM_UTF8:
            return None  # pyarrow drops a byte-order mark at the start of any piece; only the header's is not data
        returns = np.zeros(len(lines), np.int64)
        filled = lines.ends > lines.starts
        returns[filled] = lines.text[lines.ends[filled] - 1] == _RETURN
        if np.count_nonzero(lines.text == _RETURN) != returns.sum():
            return None  # pyarrow treats a lone carriage return as the end of a line
        places = np.flatnonzero(lines.ends - returns > lines.starts)
        if not len(places):
            return CsvPiece(self._table([]), places, places, {}, len(lines))
        irregular: list[tuple[int, int]] = []

        def skip(row: pyarrow.csv.InvalidRow) -> str:
            irregular.append((row.number - 1, row.actual_columns))
            return "skip"

        try:
            table = pyarrow.csv.read_csv(
                pa.BufferReader(pa.py_buffer(lines.data)),
                read_options=pyarrow.csv.ReadOptions(
                    column_names=self.names, use_threads=False, block_size=len(lines.data) + 1
                ),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=self._delimiter, quote_char=False, invalid_row_handler=skip
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(self.names, pa.string()),
                    include_columns=self._read,
                    null_values=sorted(self._null_values),
                    strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid:
            return None
        if len(places) != len(table) + len(irregular):
            return None
        faults = {int(places[row]): self._wrong_count(count, lines[int(places[row])]) for row, count in irregular}
        places = np.delete(places, np.array([row for row, _ in irregular], np.int64))
        return CsvPiece(table, places, places, faults, len(lines))

    def _row_by_line(self, lines: LineIndex) -> CsvPiece | None:
        """The piece if every line is one row."""
        texts = io.StringIO(str(lines.data, "utf-8"), newline="\n")
        try:
            with _long_fields(self._line_bytes_max):
                # An empty line after the last one is a row, unless the last row is unfinished.
                *rows, behind = csv.reader(chain(texts, ("",)), delimiter=self._delimiter)
        except csv.Error:
            return None
        if behind or len(rows) != len(lines):
            return None
        width = len(self.names)
        good = [number for number, row in enumerate(rows) if len(row) == width]
        faults = {
            number: self._wrong_count(len(row), lines[number])
            for number, row in enumerate(rows)
            if row and len(row) != width
        }
        places = np.array(good, np.int64)
        return CsvPiece(self._table([rows[number] for number in good]), places, places, faults, len(lines))

    def _line_by_line(self, lines: LineIndex, *, final: bool) -> CsvPiece:
        rows: list[list[str]] = []
        spans: list[tuple[int, int]] = []
        texts, faults = self._texts(lines)
        at, end = 0, len(lines)
        with _long_fields(self._line_bytes_max):
            while at < end:
                if at in faults:
                    at += 1
                    continue
                row, used = self._next_row(texts, at)
                is_spoilt = used == 0
                if is_spoilt:  # by a lone carriage return, perhaps: how far would the row reach without it?
                    row, used = self._next_row(texts, at, lone_return=" ")
                if at + used > end and not final and len(lines.data) - lines.starts[at] <= self._line_bytes_max:
                    end = at  # it may continue in the next piece
                    break
                fault = self._fault(row, at, used, lines, faults)
                if fault is not None:
                    used = 1
                if is_spoilt:  # all lines of the row are one record
                    fault = _not_csv(lines[at])
                if fault is not None:
                    faults[at] = fault
                elif row:
                    rows.append(row)
                    spans.append((at, at + used - 1))
                at += used
        places = np.array(spans, np.int64).reshape(-1, 2)
        faults = {line: fault for line, fault in faults.items() if line < end}
        return CsvPiece(self._table(rows), places[:, 0], places[:, 1], faults, end)

    def _fault(self, row: list[str], at: int, used: int, lines: LineIndex, faults: Faults) -> Fault | None:
        """The fault of the row that starts at line `at`, if it has one."""
        if used == 0:
            return _not_csv(lines[at])
        width = len(self.names)
        if used == 1:
            return None if not row or len(row) == width else self._wrong_count(len(row), lines[at])
        behind = range(at + 1, at + used)
        ended = at + used <= len(lines) and lines.ends[at + used - 1] - lines.starts[at] <= self._line_bytes_max
        if not ended or len(row) != width or any(line in faults for line in behind):
            return Fault(INVALID_CSV, f"a quote is not closed: {preview(bytes(lines[at]))}")
        return None

    def _texts(self, lines: LineIndex) -> tuple[list[str], Faults]:
        """Each line with its line feed; a line that is not UTF-8 becomes empty and has a fault."""
        texts: list[str] = []
        faults: Faults = {}
        for number in range(len(lines)):
            line = lines[number]
            text = ""
            if len(line) > self._line_bytes_max:
                faults[number] = too_large(len(line), self._line_bytes_max)
            else:
                try:
                    text = str(line, "utf-8")
                except UnicodeDecodeError as error:
                    faults[number] = invalid_utf8(bytes(line), error)
            texts.append(text + "\n")
        return texts, faults

    def _next_row(self, texts: list[str], at: int, *, lone_return: str | None = None) -> tuple[list[str], int]:
        """The row that begins at line `at` and its number of lines: one too many if it never ends, 0 for no row.

        lone_return: what to read for a carriage return that ends no line, with which there is no row. A row has at most
        ROW_LINES_MAX lines, so that a stray quote is not read to the end of the file.
        """
        stop = min(len(texts), at + ROW_LINES_MAX)
        for strict in (False, True):
            own = (texts[line] for line in range(at, stop))
            rest = chain(own if lone_return is None else (_LONE_RETURN.sub(lone_return, text) for text in own), ("",))
            reader = csv.reader(rest, delimiter=self._delimiter, strict=strict)
            try:
                row = next(reader)
            except csv.Error:
                return [], 0
            # Several lines only if all quotes are regular: a stray one would take in the lines up to the next quote.
            if reader.line_num == 1 or at + reader.line_num > len(texts):
                break
            if at + reader.line_num > stop:
                return [], 0
        return row, reader.line_num

    def _table(self, rows: list[list[str]]) -> pa.Table:
        nulls = self._null_values
        arrays = [
            pa.array([None if row[place] in nulls else row[place] for row in rows], pa.string())
            for place in self._places
        ]
        return pa.table(arrays, names=self._read)

    def _wrong_count(self, count: int, line: memoryview) -> Fault:
        return Fault(
            WRONG_COLUMN_COUNT, f"{count} columns, the header has {len(self.names)}: {preview(bytes(line[:1000]))}"
        )


def _not_csv(line: memoryview) -> Fault:
    return Fault(INVALID_CSV, f"not CSV: {preview(bytes(line))}")


def header_names(line: bytes, *, delimiter: str, source: str) -> list[str]:
    """The column names in the first line; a repeated name gets a number.

    Errors: InputError if the line is not UTF-8 or not CSV.
    """
    try:
        names = next(csv.reader([str(line, "utf-8-sig")], delimiter=delimiter, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            "the header cannot be read",
            detail=f"{source}, line 1: {error}: {preview(line[:1000])}",
            hint="the first line of a CSV file names its columns; for other text than UTF-8 give its encoding "
            "(--encoding latin-1 (batch, label), or input.encoding)",
        ) from None
    unique: dict[str, None] = {}
    for place, text in enumerate(names, start=1):
        name = text.strip() or f"column_{place}"
        unique[name if name not in unique else f"{name}_{place}"] = None
    return list(unique)


@contextmanager
def _long_fields(bytes_max: int) -> Iterator[None]:
    """Raise the limit of Python's CSV reader for one field, 128 KiB by default and set per process."""
    before = csv.field_size_limit(max(bytes_max, csv.field_size_limit()))
    try:
        yield
    finally:
        csv.field_size_limit(before)
