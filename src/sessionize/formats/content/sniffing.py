"""Finds the format of an input in its first bytes: the content decides, then what was said, then the name.

The result is data (Sniffed), for readers and for whoever wants to show it. `certain`: the content alone tells; a file
whose name says nothing is read only then.
"""

import codecs
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import msgspec

from sessionize.formats.input_format import BINARY, FORMATS, FormatName, InputFormat

HEAD_BYTES = 1 << 16
DELIMITERS = ",;\t|"

_MAGIC: tuple[tuple[bytes, FormatName], ...] = ((b"PAR1", "parquet"), (b"Obj\x01", "avro"), (b"ORC", "orc"))
_MARKS = (
    (codecs.BOM_UTF8, None),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BLANK = b" \t\r\n"
_LOG_LINE = re.compile(rb'\S+ \S+ \S+ \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "')
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_LINES_MAX = 50
_SHARE_MIN = 0.8  # of the lines that have as many columns as the header


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What an input is. encoding: None for UTF-8. delimiter: of CSV."""

    format: FormatName
    encoding: str | None = None
    delimiter: str | None = None
    certain: bool = True


def sniff(head: bytes, asked: InputFormat, *, named: str | None, whole: bool) -> Sniffed | None:
    """The format of an input that begins with head; None if nothing tells.

    named: what the file's name says: a FormatName, tsv, auto or None. whole: head is all of it.
    """
    for magic, binary in _MAGIC:
        if head.startswith(magic) and asked.format in ("auto", binary):
            return Sniffed(binary)
    encoding = asked.encoding if asked.encoding not in (None, "utf-8") else _marked(head)
    text = _as_utf8(head, encoding)
    lines = _lines(text, whole=whole)
    if asked.format != "auto":
        return _as_asked(asked.format, lines, asked, encoding, named)
    name = cast(FormatName | None, named if named in FORMATS and named != "auto" else None)
    if name in BINARY and text.lstrip(_BLANK)[:1] not in (b"{", b"["):
        return Sniffed(name, certain=False)  # a torn one
    json = _json(text, lines, named)
    if json is not None:
        return Sniffed(json, encoding)
    log = _log(lines)
    if log is not None:
        return Sniffed(log, encoding)
    if name == "ndjson":
        return Sniffed("ndjson", encoding, certain=False)
    delimiter, share, width = _delimiter(lines, asked, named)
    certain = len(lines) > 1 and width > 1 and share >= _SHARE_MIN and not _CONTROL.search(text)
    if named in ("csv", "tsv") or asked.columns or asked.delimiter or certain:
        return Sniffed("csv", encoding, delimiter, certain=certain)
    return None


def _marked(head: bytes) -> str | None:
    """The encoding by the byte-order mark."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), None)


def _as_utf8(head: bytes, encoding: str | None) -> bytes:
    if encoding is None:
        return head.removeprefix(codecs.BOM_UTF8)
    return codecs.getincrementaldecoder(encoding)("replace").decode(head).encode("utf-8", "replace")


def _lines(text: bytes, *, whole: bool) -> list[bytes]:
    """The first whole lines that are not blank."""
    lines = text.split(b"\n", _LINES_MAX)
    if len(lines) > _LINES_MAX or (len(lines) > 1 and not whole):
        lines.pop()
    return [line.rstrip(b"\r") for line in lines if line.strip(_BLANK)]


def _as_asked(
    name: FormatName, lines: Sequence[bytes], asked: InputFormat, encoding: str | None, named: str | None
) -> Sniffed:
    if name in BINARY:
        return Sniffed(name)
    return Sniffed(name, encoding, _delimiter(lines, asked, named)[0] if name == "csv" else None)


def _json(text: bytes, lines: Sequence[bytes], named: str | None) -> FormatName | None:
    start = text.lstrip(_BLANK)[:256]
    if start[:1] == b"[":
        return "json" if start[1:].lstrip(_BLANK)[:1] in (b"{", b"]", b"") and _spans(start, lines, named) else None
    if start[:1] != b"{" or not lines:
        return None
    if lines[0].strip(_BLANK) == b"{":
        return "json"
    if named in (None, "auto", "ndjson"):
        return "ndjson"
    try:  # a table whose first column has a strange name, or records under a wrong name
        return "ndjson" if isinstance(msgspec.json.decode(lines[0]), dict) else None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _spans(start: bytes, lines: Sequence[bytes], named: str | None) -> bool:
    """Whether a [ opens an array of records; in a file of lines a first line may be a whole, wrong one."""
    if named != "ndjson" or len(lines) < 2:
        return True
    try:
        msgspec.json.decode(lines[0])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return True
    return False


def _log(lines: Sequence[bytes]) -> FormatName | None:
    if lines and lines[0].startswith(b"#"):
        return "w3c" if any(line.startswith(b"#Fields:") for line in lines) else None
    matching = sum(1 for line in lines if _LOG_LINE.match(line))
    return "combined" if matching and 2 * matching >= len(lines) else None


def _delimiter(lines: Sequence[bytes], asked: InputFormat, named: str | None) -> tuple[str, float, int]:
    """The delimiter, the share of lines with as many columns as the first one has, and that number."""
    comment = (asked.comment or "\0").encode()
    texts = [line.decode("utf-8", "replace") for line in lines if not line.startswith(comment)]
    usual = "\t" if named == "tsv" else ","
    if asked.delimiter is not None:
        return asked.delimiter, *_fit(texts, asked.delimiter)
    found = {each: _fit(texts, each) for each in (usual, *DELIMITERS)}
    able = [each for each in found if found[each][1] > 1]
    if not able or (named == "tsv" and usual in able):
        return usual, *found[usual]
    best = max(able, key=lambda each: (found[each], each == usual))
    return best, *found[best]


def _fit(texts: Sequence[str], delimiter: str) -> tuple[float, int]:
    if not texts or delimiter not in texts[0]:
        return 0.0, 1
    try:
        widths = [len(row) for row in csv.reader(texts, delimiter=delimiter) if row]
    except csv.Error:
        return 0.0, 1
    if not widths:
        return 0.0, 1
    return sum(1 for width in widths if width == widths[0]) / len(widths), widths[0]
