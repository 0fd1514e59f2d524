"""Splits lines of the combined and common log formats into columns, a whole piece at a time.

Where the delimiters of all lines stand is found at once, so an ordinary line costs no regular expression. What is not
ordinary (a backslash, a user with blanks) is matched by one; both give the same columns.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.formats.lines import LineIndex
from sessionize.formats.logs.times import LENGTH, Bools, Bytes, Ints, times_of_logs
from sessionize.formats.rejects import INVALID_TIME, NO_MATCH, Fault, Faults, preview

COLUMNS = (
    *("ip", "ident", "auth_user", "time", "method", "page", "protocol", "status", "bytes", "referrer", "user_agent"),
)
TIME = "time"
TIME_TYPE = pa.timestamp("ms", "UTC")
_SPACE, _QUOTE, _BACKSLASH, _OPEN, _CLOSE, _DASH, _QUESTION = b' "\\[]-?'
_QUOTED = r'[^"\\]*(?:\\.[^"\\]*)*'
_WORD = r'[^ "\\]*(?:\\.[^ "\\]*)*'
PATTERN = (
    r'^(?P<ip>[^ "]+) (?P<ident>[^ "]+) (?P<auth_user>[^\["]*[^\[" ]) \[(?P<time>[^\]]*)\] '
    rf'"(?P<method>{_WORD})(?: (?P<page>{_WORD})(?: (?P<protocol>{_QUOTED}))?)?" '
    r'(?P<status>[0-9]{3}|-) (?P<bytes>[^ "]+)'
    rf'(?: "(?P<referrer>{_QUOTED})" "(?P<user_agent>{_QUOTED})"(?: .*)?)?$'
)
Spans = Mapping[str, tuple[Ints, Ints]]  # by column: where each value begins and ends; an end before it is no value


class CombinedSplitter:
    """Splits into the requested of COLUMNS; time is a timestamp, the others are text."""

    names = COLUMNS

    def __init__(self, *, page_query: bool = True) -> None:
        self._page_query = page_query

    def split(self, lines: LineIndex, wanted: Sequence[str], places: Ints) -> tuple[pa.Table, Ints, Faults]:
        """The rows of the lines at these places, the places of those that are rows, and the faults of the others."""
        text, starts = lines.text, lines.starts[places]
        ends = lines.ends[places]
        ends = ends - ((ends > starts) & (text[np.maximum(ends - 1, 0)] == ord("\r")))
        spans, regular, times = self._regular(text, starts, ends)
        columns: dict[str, pa.Array] = {}
        for name in wanted:
            if name == TIME:
                columns[name] = pa.array(times[regular]).cast(TIME_TYPE)
            else:
                begin, end = spans[name]
                columns[name] = _texts(text, begin[regular], end[regular])
        table, rows = pa.table(columns), places[regular]
        if regular.all():
            return table, rows, {}
        rest = places[~regular]
        others, good, faults = self._matched(lines, wanted, rest)
        order = np.argsort(np.concatenate([rows, good]), kind="stable")
        return pa.concat_tables([table, others]).take(order), np.concatenate([rows, good])[order], faults

    def _regular(self, text: Bytes, starts: Ints, ends: Ints) -> tuple[Spans, Bools, Ints]:
        """Where the values of regular lines are, which lines those are, and their times."""
        size = len(text)
        spaces = np.concatenate([np.flatnonzero(text == _SPACE), np.full(4, size)])
        quotes = np.concatenate([np.flatnonzero(text == _QUOTE), np.full(8, size)])

        def byte(at: Ints) -> Bytes:
            return text[np.minimum(at, size - 1)]

        at = np.searchsorted(spaces[:-3], starts)
        first, second, third = spaces[at], spaces[at + 1], spaces[at + 2]
        opening = third + LENGTH + 4
        ok = (opening < ends) & (first > starts) & (second > first + 1) & (third > second + 1)
        ok &= (byte(third + 1) == _OPEN) & (byte(third + LENGTH + 2) == _CLOSE) & (byte(third + LENGTH + 3) == _SPACE)
        q = np.searchsorted(quotes[:-7], starts)
        closing = quotes[q + 1]
        ok &= (quotes[q] == opening) & (closing < ends) & (byte(closing + 1) == _SPACE)
        s = np.searchsorted(spaces[:-3], closing)
        before_status, before_bytes, after_bytes = spaces[s], spaces[s + 1], spaces[s + 2]
        ok &= (before_status == closing + 1) & (before_bytes == closing + 5) & (before_bytes < ends)
        for place in (2, 3, 4):
            ok &= (byte(closing + place) >= ord("0")) & (byte(closing + place) <= ord("9"))
        referrer, after_referrer, agent, after_agent = (quotes[q + n] for n in (2, 3, 4, 5))
        is_common = (referrer >= ends) & (after_bytes >= ends) & (ends > before_bytes + 1)
        is_combined = (after_bytes == referrer - 1) & (after_bytes > before_bytes + 1) & (agent == after_referrer + 2)
        is_combined &= (byte(after_referrer + 1) == _SPACE) & (after_agent < ends)
        is_combined &= (after_agent + 1 == ends) | (byte(after_agent + 1) == _SPACE)
        ok &= is_common | is_combined
        escaped = np.flatnonzero(text == _BACKSLASH)
        ok &= np.searchsorted(escaped, starts) == np.searchsorted(escaped, ends)
        brackets = np.append(np.flatnonzero(text == _OPEN), size)
        ok &= brackets[np.searchsorted(brackets[:-1], starts)] == third + 1  # a user with a bracket is not regular
        times = np.zeros(len(starts), np.int64)
        rows = np.flatnonzero(ok)
        times[rows], valid = times_of_logs(text[third[rows][:, None] + np.arange(2, LENGTH + 2)])
        ok[rows[~valid]] = False
        r = np.searchsorted(spaces[:-3], opening)
        after_method, after_page = np.minimum(spaces[r], closing), np.minimum(spaces[r + 1], closing)
        page_end = after_page
        if not self._page_query:
            marks = np.append(np.flatnonzero(text == _QUESTION), size)
            page_end = np.minimum(after_page, marks[np.searchsorted(marks[:-1], after_method)])
        none = np.zeros_like(starts)
        spans = {
            "ip": (starts, first),
            "ident": (first + 1, second),
            "auth_user": (second + 1, third),
            "method": (opening + 1, after_method),
            "page": (after_method + 1, page_end),
            "protocol": (after_page + 1, closing),
            "status": (before_status + 1, before_bytes),
            "bytes": (before_bytes + 1, np.where(is_common, ends, after_bytes)),
            "referrer": (referrer + 1, np.where(is_common, none, after_referrer)),
            "user_agent": (agent + 1, np.where(is_common, none, after_agent)),
        }
        return spans, ok, times

    def _matched(self, lines: LineIndex, wanted: Sequence[str], places: Ints) -> tuple[pa.Table, Ints, Faults]:
        """The same by the pattern."""
        raw = [bytes(lines[place]).removesuffix(b"\r") for place in places.tolist()]
        found = pc.extract_regex(pa.array(raw, pa.binary()).cast(pa.string()), PATTERN)
        faults: Faults = {}
        good, times = [], []
        for row, value in enumerate(found.field("time").to_pylist() if len(found) else ()):
            place = int(places[row])
            if not found[row].is_valid:
                faults[place] = no_match("combined", raw[row])
                continue
            packed = np.frombuffer(value.encode().ljust(LENGTH)[:LENGTH], np.uint8).reshape(1, LENGTH)
            ms, valid = times_of_logs(packed)
            if not valid[0] or len(value) != LENGTH:
                faults[place] = Fault(INVALID_TIME, f"time = {preview(value)}: not like 03/Oct/2016:03:20:11 -0400")
                continue
            good.append(row)
            times.append(int(ms[0]))
        kept = found.take(pa.array(good, pa.int64()))
        columns: dict[str, Any] = {}
        for name in wanted:
            if name == TIME:
                columns[name] = pa.array(times, pa.int64()).cast(TIME_TYPE)
                continue
            values = kept.field(name)
            if name == "page" and not self._page_query:
                values = pc.replace_substring_regex(values, r"\?.*", "")
            values = pc.replace_substring_regex(values, r'\\(["\\])', r"\1")
            columns[name] = without_dashes(values)
        return pa.table(columns), places[np.array(good, np.int64)], faults


def no_match(name: str, line: bytes) -> Fault:
    """The fault of a line that is no line of the log."""
    return Fault(NO_MATCH, f"not a line of the format {name}: {preview(line[:1000])}")


def without_dashes(values: pa.Array) -> pa.Array:
    """Text without what stands for a missing value in a log: nothing, and "-"."""
    return without_words(values, pa.array(["-", ""]))


def without_words(values: pa.Array | pa.ChunkedArray, words: pa.Array) -> pa.Array | pa.ChunkedArray:
    """Text with null in place of these words."""
    return pc.if_else(pc.is_in(values, words), pa.scalar(None, pa.string()), values) if len(words) else values


def _texts(text: Bytes, begin: Ints, end: Ints) -> pa.Array:
    """The values between these places; null where there is none, or a "-" alone."""
    lengths = np.maximum(end - begin, 0)
    lengths[(lengths == 1) & (text[np.minimum(begin, len(text) - 1)] == _DASH)] = 0
    offsets = np.zeros(len(begin) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    valid = lengths > 0
    if 4 * int(offsets[-1]) < len(text):
        values = text[np.repeat(begin - offsets[:-1], lengths) + np.arange(offsets[-1])]
    else:  # the values are much of the piece: it is quicker to leave out the rest
        steps = np.zeros(len(text) + 1, np.int8)
        steps[begin[valid]] = 1
        steps[(begin + lengths)[valid]] = -1
        values = text[np.cumsum(steps[:-1], dtype=np.int8).view(bool)]
    bits = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(
        pa.string(), len(begin), [bits, pa.py_buffer(offsets), pa.py_buffer(values)], len(valid) - int(valid.sum())
    )
