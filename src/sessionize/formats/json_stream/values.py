"""JSON arrays of records, and records that span lines, as a stream of records: nothing is read whole.

What stands between two records becomes a line feed, and line feeds inside a record become blanks, so that the decoder
of lines does the rest, at its speed. Where records begin is found for a whole piece at once; only where brackets or
quotes do not match, token by token (tokens.py).
"""

from codecs import BOM_UTF8
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from sessionize.formats.json_errors import too_large
from sessionize.formats.json_lines import JsonLines
from sessionize.formats.json_stream.tokens import NEXT, Scan, scan
from sessionize.formats.lines import LINE_BYTES_MAX, PIECE_BYTES
from sessionize.formats.rejects import INVALID_JSON, RAW_BYTES_MAX, Fault, preview
from sessionize.formats.times import Ints
from sessionize.formats.validation import Decoded
from sessionize.session.columns import REJECTED_SCHEMA

_BETWEEN = b" \t\r\n,]"
_QUOTE, _BACKSLASH, _FEED, _COMMA, _OPEN_ARRAY, _CLOSE_ARRAY, _OPEN, _CLOSE = b'"\\\n,[]{}'
_STEP = np.zeros(256, np.int8)
_STEP[[_OPEN, _OPEN_ARRAY]], _STEP[[_CLOSE, _CLOSE_ARRAY]] = 1, -1
_IS_BLANK = np.zeros(256, bool)
_IS_BLANK[list(b" \t\r\n")] = True


class JsonValues:
    """Decodes records inside arrays or one after the other, with the interface of JsonLines."""

    def __init__(self, lines: JsonLines, *, value_bytes_max: int = LINE_BYTES_MAX) -> None:
        """lines: decodes the records."""
        self._lines = lines
        self._value_bytes_max = value_bytes_max
        self._rest = b""  # an unfinished record
        self._rest_line = 1  # where it begins
        self._awaited_bytes = 0  # bytes of it that are awaited
        self._in_array = self._skips = False  # skips: what follows belongs to a rejected record
        self._large: _Open | None = None  # what is open of a record that is too large, of which more follows
        self._numbers: list[Ints] = []  # the line of each record that was passed on since the last take
        self._count = 0
        self._source = ""

    def add(self, data: memoryview | bytes, *, source: str, first_line: int = 1, at_start: bool = False) -> int:
        """Decode text that may end anywhere; returns its number of line feeds. An unfinished record waits for more."""
        self._source = source
        new = bytes(data)
        if at_start:
            new = new.removeprefix(BOM_UTF8)
        count = new.count(b"\n")
        if not self._rest:
            self._rest_line = first_line
        text = self._behind_damage(self._behind_large(self._rest + new))
        # a long record is not looked at again for each piece
        if len(text) < min(self._awaited_bytes, self._value_bytes_max):
            self._rest = text
            return count
        found = None if len(self._rest) > PIECE_BYTES else _split(text, in_array=self._in_array)
        if found is None:
            self._scan(text, final=False)
        else:
            self._pass_on(found)
            self._in_array = found.in_array
            self._rest_line += text.count(b"\n", 0, found.rest)
            self._rest = text[found.rest :]
        self._awaited_bytes = 2 * len(self._rest) if len(self._rest) > PIECE_BYTES else 0
        if len(self._rest) > self._value_bytes_max:
            fault = too_large(len(self._rest), self._value_bytes_max)
            self.reject(self._rest[:RAW_BYTES_MAX], source=source, line_number=self._rest_line, fault=fault)
            self._large, self._awaited_bytes = _Open(), 0
            self._rest = self._behind_large(self._rest)
        return count

    def torn(self) -> bytes:
        """Take the unfinished record, which the end of a damaged stream cut."""
        if self._rest:
            self._scan(self._rest, final=False)
        torn, self._rest = self._rest.strip(_BETWEEN), b""
        return torn

    def _behind_large(self, text: bytes) -> bytes:
        """The text behind the rest of a record that is too large: what is nested in it is no record."""
        if self._large is None:
            return text
        end = self._large.end_in(text)
        if end is None:
            end = len(text)
        else:
            self._skips, self._large = self._large.is_damaged, None
        self._rest_line += text.count(b"\n", 0, end)
        return text[end:]

    def _behind_damage(self, text: bytes) -> bytes:
        """The text without what belongs to a rejected record."""
        if not self._skips:
            return text
        found = NEXT.search(text)
        end = len(text) if found is None else found.end()
        self._skips = found is None
        self._rest_line += text.count(b"\n", 0, end)
        return text[end:]

    def flush(self) -> None:
        """The stream ends, or an overlong line follows: what is unfinished is no record."""
        if self._rest.strip(_BETWEEN):
            self._scan(self._rest, final=True)
        self._rest, self._awaited_bytes = b"", 0
        self._skips, self._large = False, None

    def reject(self, raw: bytes | None, *, source: str, line_number: int, fault: Fault) -> None:
        """Reject a record that its reader found invalid."""
        self._lines.reject(raw, source=source, line_number=self._numbered(line_number), fault=fault)

    def reject_long_line(self, head: bytes, size_bytes: int, *, source: str, line_number: int) -> None:
        """Reject a line that is too long to be held in memory."""
        number = self._numbered(line_number)
        self._lines.reject_long_line(head, size_bytes, source=source, line_number=number)

    def take(self) -> Decoded:
        """Everything decoded since the last take."""
        decoded = self._lines.take()
        rejected = decoded.rejected
        if len(rejected):
            at = REJECTED_SCHEMA.get_field_index("line_number")
            lines = np.concatenate(self._numbers)[rejected["line_number"].to_numpy()]
            rejected = rejected.set_column(at, REJECTED_SCHEMA.field(at), pa.array(lines))
        self._numbers, self._count = [], 0
        return replace(decoded, rejected=rejected)

    def _numbered(self, line_number: int) -> int:
        """The number under which a record of this line waits for take."""
        self._numbers.append(np.array([line_number], np.int64))
        self._count += 1
        return self._count - 1

    def _pass_on(self, found: "_Split") -> None:
        if len(found.lines):
            self._lines.add(found.text, source=self._source, first_line=self._count)
            self._numbers.append(self._rest_line + found.lines)
            self._count += len(found.lines)

    def _scan(self, text: bytes, *, final: bool) -> None:
        """Token by token: records go on to the decoder, and what is none is rejected."""
        found: Scan = scan(text, in_array=self._in_array, final=final)
        good: list[bytes] = []
        lines: list[int] = []
        line = at = 0

        def pass_on() -> None:
            if good:
                self._pass_on(_Split(b"\n".join([*good, b""]), np.array(lines, np.int64), 0, in_array=False))
                good.clear()
                lines.clear()

        for start, end, is_record in found.parts:
            line, at = line + text.count(b"\n", at, start), start
            if is_record:
                good.append(text[start:end].replace(b"\n", b" "))
                lines.append(line)
                continue
            pass_on()
            raw = text[start:end].rstrip(_BETWEEN)
            fault = Fault(INVALID_JSON, f"the brackets or quotes of a record do not match: {preview(raw[:200])}")
            number = self._rest_line + line
            self.reject(raw[:RAW_BYTES_MAX], source=self._source, line_number=number, fault=fault)
        pass_on()
        self._in_array, self._skips = found.in_array, found.skips
        self._rest_line += text.count(b"\n", 0, found.rest)
        self._rest = text[found.rest :]


@dataclass(slots=True)
class _Open:
    """How much of a value is open: containers, a string, and whether a backslash in it came last."""

    depth: int = 0
    in_string: bool = False
    escaped: bool = False
    is_damaged: bool = False

    def end_in(self, data: bytes) -> int | None:
        """Where the value ends in the bytes that follow; None if it goes on. A string that a line cuts ends it too."""
        before = (b'"\\' if self.escaped else b'"') if self.in_string else b""
        data = before + data
        text = np.frombuffer(data, np.uint8)
        if not len(text):
            return None
        mask = np.zeros(len(text), np.int8)
        mask[_unescaped(text, np.flatnonzero(text == _QUOTE))] = 1
        inside = np.bitwise_xor.accumulate(mask)
        steps = np.where(inside, 0, _STEP[text])
        depth = self.depth + np.cumsum(steps, dtype=np.int64)
        # the last byte of the value: a bracket, or the quote of a value that is a string
        ends = np.flatnonzero((depth == 0) & ((steps < 0) | (mask.astype(bool) & (inside == 0))))
        cuts = np.flatnonzero(inside & (text == _FEED))
        end = int(ends[0]) + 1 if len(ends) else None
        if len(cuts) and (end is None or cuts[0] < end):
            self.is_damaged = True
            return int(cuts[0]) - len(before)
        if end is None:
            self.depth, self.in_string = int(depth[-1]), bool(inside[-1])
            self.escaped = self.in_string and (len(data) - len(data.rstrip(b"\\"))) % 2 == 1
            if not self.depth and not self.in_string:  # a number, or none of JSON's values
                self.is_damaged = True
                return len(data) - len(before)
            return None
        return end - len(before)


@dataclass(frozen=True, slots=True)
class _Split:
    """text: a record a line, or a blank line. lines: for each, the line feeds before it. rest: where the text's rest
    begins. in_array: whether an array is open there.
    """

    text: bytes
    lines: Ints
    rest: int
    in_array: bool


def _split(data: bytes, *, in_array: bool) -> _Split | None:
    """Split text into records; None if its brackets or quotes do not match."""
    text = np.frombuffer(data, np.uint8)
    quotes = _unescaped(text, np.flatnonzero(text == _QUOTE))
    in_string = np.zeros(len(text), np.int8)
    in_string[quotes] = 1
    in_string = np.bitwise_xor.accumulate(in_string) if len(text) else in_string
    feeds = np.flatnonzero(text == _FEED)
    if in_string[feeds].any():
        return None  # no string spans lines: a quote is missing
    steps = np.where(in_string, 0, _STEP[text])
    at = np.flatnonzero(steps)
    kinds, depth = text[at], int(in_array) + np.cumsum(steps[at], dtype=np.int64)
    if len(depth) and depth.min() < 0:
        return None
    # the containers at the top: arrays, whose elements are records, and objects, which are records
    opens = (depth == 1) & (steps[at] > 0)
    closes = depth == 0
    top_at = np.concatenate([[-1] if in_array else [], at[opens]]).astype(np.int64)
    top_kind = np.concatenate([[_OPEN_ARRAY] if in_array else [], kinds[opens]]).astype(np.uint8)
    if (kinds[closes] - top_kind[: int(closes.sum())] != 2).any():  # ] is [ + 2, and } is { + 2
        return None
    commas = np.flatnonzero(text == _COMMA)
    commas = commas[in_string[commas] == 0]
    between = _depth_at(commas, at, depth, int(in_array)) == 1
    commas = commas[between]
    commas = commas[top_kind[np.searchsorted(top_at, commas) - 1] == _OPEN_ARRAY] if len(top_at) else commas[:0]
    outside = feeds[_depth_at(feeds, at, depth, int(in_array)) == 0]
    arrays = at[(opens & (kinds == _OPEN_ARRAY)) | (closes & (kinds == _CLOSE_ARRAY))]
    objects = at[closes & (kinds == _CLOSE)]
    out = text.copy()
    out[feeds] = ord(" ")
    cuts = np.concatenate([commas, outside, arrays])
    out[cuts] = _FEED
    # where lines end: a cut is their line feed, an object's end is followed by one
    ends = np.sort(np.concatenate([cuts, objects]))
    if not len(ends):
        return _Split(b"", ends, 0, in_array)
    rest = int(ends[-1]) + 1
    out = np.insert(out[:rest], objects + 1, _FEED)
    starts = np.concatenate([[0], ends[:-1] + 1])
    filled = np.append(np.flatnonzero(~_IS_BLANK[text]), len(text))
    lines = np.searchsorted(feeds, filled[np.searchsorted(filled, starts)])
    is_open = bool(len(top_at) and len(top_at) > closes.sum() and top_kind[-1] == _OPEN_ARRAY)
    return _Split(out.tobytes(), lines, rest, is_open)


def _unescaped(text: "np.ndarray[tuple[int], np.dtype[np.uint8]]", quotes: Ints) -> Ints:
    """The quotes that an even number of backslashes precedes."""
    if not len(quotes) or not (text == _BACKSLASH).any():
        return quotes
    others = np.flatnonzero(text != _BACKSLASH)
    before = np.searchsorted(others, quotes) - 1
    last = np.where(before >= 0, others[np.maximum(before, 0)], -1)
    found: Ints = quotes[(quotes - last - 1) % 2 == 0]
    return found


def _depth_at(places: Ints, at: Ints, depth: Ints, base: int) -> Ints:
    """How many containers are open at these places."""
    found: Ints = np.concatenate([[base], depth])[np.searchsorted(at, places)]
    return found
