"""The first records of an input as plain values, for whoever wants to know what they look like.

Nothing is mapped or rejected here: a record is a dict of what is in it. A last line that was cut off is left out.
"""

import csv
import json
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from sessionize.errors import InputError
from sessionize.formats.content.sniffing import Sniffed
from sessionize.formats.csv_text.parser import header_names
from sessionize.formats.input_format import FormatName
from sessionize.formats.lines import LineIndex
from sessionize.formats.logs.combined import COLUMNS, CombinedSplitter

ROWS_MAX = 5_000
_WRONG = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_BLANK = " \t\r\n,[]"
_UNDEFINED = bytes(range(0x80, 0xA0))  # controls in latin-1, letters and quotes in cp1252


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The first records of a file. names: of the columns of a table. header: None where the format has none.

    unreadable: lines that are no records. read_bytes: how much was looked at; whole: that was everything.
    """

    source: str
    format: FormatName
    rows: Sequence[Mapping[str, Any]]
    compression: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    comment: str | None = None
    header: bool | None = None
    names: tuple[str, ...] = ()
    unreadable: int = 0
    read_bytes: int = 0
    whole: bool = True
    keys: tuple[str, ...] = field(default=())


@dataclass(slots=True)
class Parsed:
    """Records of a text, and what was found about it."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    unreadable: int = 0
    header: bool | None = None
    names: tuple[str, ...] = ()
    comment: str | None = None


def parsed(text: bytes, sniffed: Sniffed, *, whole: bool, source: str) -> Parsed:
    """The records at the beginning of a text in UTF-8. whole: it is not cut off."""
    text = text.removeprefix(BOM_UTF8)
    if sniffed.format == "json":
        return _json_values(text)
    if not whole:
        text = text[: text.rfind(b"\n") + 1]
    if sniffed.format == "csv":
        return _csv(text, sniffed.delimiter or ",", source)
    if sniffed.format in ("combined", "common"):
        return _combined(text)
    lines = [line for line in text.splitlines() if line.strip()]
    return _w3c(lines) if sniffed.format == "w3c" else _json_lines(lines)


def encoding_of(text: bytes) -> str | None:
    """The likely encoding of a text without a byte-order mark; None for UTF-8."""
    nulls = np.frombuffer(text[: len(text) & ~1], np.uint8).reshape(-1, 2) == 0
    if len(nulls) and nulls.mean() > 0.2:
        return "utf-16-le" if nulls[:, 1].sum() >= nulls[:, 0].sum() else "utf-16-be"
    odd = [line for line in text.split(b"\n")[:-1] or [text] if not line.isascii()]
    wrong = [line for line in odd if not _is_utf8(line)]
    if 2 * len(wrong) <= len(odd):
        return None
    marks = any(byte in _UNDEFINED for line in wrong for byte in line)
    return "cp1252" if marks else "latin-1"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _json_lines(lines: Sequence[bytes]) -> Parsed:
    made = Parsed()
    for line in lines[:ROWS_MAX]:
        try:
            value = msgspec.json.decode(line)
        except _WRONG:
            value = None
        _add(made, value)
    return made


def _json_values(text: bytes) -> Parsed:
    made = Parsed()
    for value in _values(text.decode("utf-8", "replace")):
        _add(made, value)
    return made


def _values(text: str) -> Iterator[Any]:
    """The records of an array, or one after the other, up to the first that is not whole."""
    decoder, at = json.JSONDecoder(), 0
    for _ in range(ROWS_MAX):
        while at < len(text) and text[at] in _BLANK:
            at += 1
        if at >= len(text):
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield value


def _add(made: Parsed, value: object) -> None:
    if isinstance(value, dict):
        made.rows.append(value)
    else:
        made.unreadable += 1


def _csv(text: bytes, delimiter: str, source: str) -> Parsed:
    lines = text.decode("utf-8", "replace").split("\n")
    made = Parsed(header=True)
    marked = [line.startswith("#") for line in lines if line.strip()]
    widths = [line.count(delimiter) for line in lines if line.strip()]
    is_name = sum(marked) == 1 and marked[0] and widths[0] == widths[-1] > 0  # which begins with #
    if any(marked[:20]) and not all(marked) and not is_name:
        made.comment = "#"
        lines = [line for line in lines if not line.startswith("#")]
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter)
    try:
        rows = [row for row, _ in zip(_rows(reader), range(ROWS_MAX + 1), strict=False)]
    except csv.Error:
        rows = []
    if not rows:
        return made
    first = rows[0]
    made.header = is_header(first, rows[1:])
    if made.header:
        try:
            made.names = tuple(header_names(_joined(first, delimiter), delimiter=delimiter, source=source))
        except InputError:
            made.names = tuple(f"column_{place}" for place in range(1, len(first) + 1))
    else:
        made.names = tuple(f"column_{place}" for place in range(1, len(first) + 1))
    for row in rows[1:] if made.header else rows:
        if len(row) == len(made.names):
            made.rows.append(dict(zip(made.names, (cell or None for cell in row), strict=True)))
        else:
            made.unreadable += 1
    return made


def _rows(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """The rows that are not blank, of lines that may end in a carriage return."""
    for row in reader:
        if row and any(cell.strip() for cell in row):
            yield row


def _joined(cells: Sequence[str], delimiter: str) -> bytes:
    return delimiter.join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in cells).encode()


def is_header(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns: all of them, mostly each otherwise, and none like a value."""
    cells = [cell.strip() for cell in first]
    if any(_is_value(cell) for cell in cells):
        return False
    named = [cell for cell in cells if cell]
    if (2 * len(set(named)) <= len(named) and len(named) > 1) or not named:
        return False
    return not any(cells == [cell.strip() for cell in other] for other in others[:100])


def _is_value(cell: str) -> bool:
    """A number, a time, a path or an address is no name."""
    if cell[:1] in ("/", "{", "[") or "://" in cell:
        return True
    digits = sum(char.isdigit() for char in cell)
    return digits > 0 and all(char in "0123456789+-.,:/TZeE $€£" for char in cell)


def _combined(text: bytes) -> Parsed:
    lines = LineIndex(memoryview(text))
    filled = [place for place in range(min(len(lines), ROWS_MAX)) if bytes(lines[place]).strip()]
    utf8 = [place for place in filled if _is_utf8(bytes(lines[place]))]
    table, _, faults = CombinedSplitter().split(lines, COLUMNS, np.array(utf8, np.int64))
    return Parsed(rows=table.to_pylist(), unreadable=len(faults) + len(filled) - len(utf8), names=COLUMNS)


def _w3c(lines: Sequence[bytes]) -> Parsed:
    made, names = Parsed(), list[str]()
    for line in lines[:ROWS_MAX]:
        text = line.decode("utf-8", "replace")
        if text.startswith("#Fields:"):
            names = text.removeprefix("#Fields:").split()
            made.names = tuple(dict.fromkeys((*made.names, *names)))
        elif not text.startswith("#"):
            values = text.split("\t") if "\t" in text else text.split()
            if names and len(values) == len(names):
                pairs = zip(names, values, strict=True)
                made.rows.append({name: None if value in ("-", "") else value for name, value in pairs})
            else:
                made.unreadable += 1
    return made
