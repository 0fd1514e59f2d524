"""Splits lines of the combined and common log formats into columns, a whole piece at a time.

Most lines are usual (usual.py). Where the delimiters of the others stand is found at once, so that a regular line
costs no regular expression. What is not regular either (a backslash, a user with blanks) is matched by one. All three
give the same columns.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.formats.lines import LineIndex
from sessionize.formats.logs.spans import Spans, page_ends, texts
from sessionize.formats.logs.times import LENGTH, Bools, Bytes, Ints, times_of_logs
from sessionize.formats.logs.usual import usual_lines
from sessionize.formats.rejects import INVALID_TIME, NO_MATCH, Fault, Faults, preview

COLUMNS = (
    *("ip", "ident", "auth_user", "time", "method", "page", "protocol", "status", "bytes", "referrer", "user_agent"),
)
TIME = "time"
TIME_TYPE = pa.timestamp("ms", "UTC")
_SPACE, _QUOTE, _BACKSLASH, _OPEN, _CLOSE = b' "\\[]'
_QUOTED = r'[^"\\]*(?:\\.[^"\\]*)*'
_WORD = r'[^ "\\]*(?:\\.[^ "\\]*)*'
PATTERN = (
    r'^(?P<ip>[^ "]+) (?P<ident>[^ "]+) (?P<auth_user>[^\["]*[^\[" ]) \[(?P<time>[^\]]*)\] '
    rf'"(?P<method>{_WORD})(?: (?P<page>{_WORD})(?: (?P<protocol>{_QUOTED}))?)?" '
    r'(?P<status>[0-9]{3}|-) (?P<bytes>[^ "]+)'
    rf'(?: "(?P<referrer>{_QUOTED})" "(?P<user_agent>{_QUOTED})"(?: .*)?)?$'
)


class CombinedSplitter:
    """Splits into the requested of COLUMNS; time is a timestamp, the others are text."""

    names = COLUMNS

    def __init__(self, *, page_query: bool = True) -> None:
        self._page_query = page_query

    def split(self, lines: LineIndex, wanted: Sequence[str], places: Ints) -> tuple[pa.Table, Ints, Faults]:
        """The rows of the lines at these places, the places of those that are rows, and the faults of the others."""
        starts, ends = _ends(lines, places)
        spans, rows, times = usual_lines(lines, starts, ends, page_query=self._page_query)
        table = _columns(lines.text, spans, starts[rows], times, wanted)
        if len(rows) == len(places):
            return table, places, {}
        rest = np.delete(places, rows)
        others, good, faults = self._unusual(LineIndex(memoryview(b"\n".join(lines[n] for n in rest.tolist()))), wanted)
        found = np.concatenate([places[rows], rest[good]])
        order = np.argsort(found, kind="stable")
        table = pa.concat_tables([table, others]).combine_chunks().take(order)
        return table, found[order], {int(rest[n]): fault for n, fault in faults.items()}

    def _unusual(self, lines: LineIndex, wanted: Sequence[str]) -> tuple[pa.Table, Ints, Faults]:
        """The same of all lines."""
        places = np.arange(len(lines))
        starts, ends = _ends(lines, places)
        spans, ok, times = self._regular(lines.text, starts, ends)
        table = _columns(lines.text, {n: (b[ok], e[ok]) for n, (b, e) in spans.items()}, starts[ok], times[ok], wanted)
        if ok.all():
            return table, places, {}
        others, good, faults = self._matched(lines, wanted, places[~ok])
        found = np.concatenate([places[ok], good])
        order = np.argsort(found, kind="stable")
        return pa.concat_tables([table, others]).take(order), found[order], faults

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
        page_end = after_page if self._page_query else page_ends(text, after_method, after_page)
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
        texts_of_times = found.field("time").to_pylist()
        packed = b"".join(text.encode().ljust(LENGTH)[:LENGTH] for text in texts_of_times)
        times, valid = times_of_logs(np.frombuffer(packed, np.uint8).reshape(-1, LENGTH))
        valid &= np.array([len(text) == LENGTH for text in texts_of_times], bool)
        is_line = found.is_valid().to_numpy(zero_copy_only=False)
        faults: Faults = {}
        for row in np.flatnonzero(~(valid & is_line)).tolist():
            why = f"time = {preview(texts_of_times[row])}: not like 03/Oct/2016:03:20:11 -0400"
            faults[int(places[row])] = Fault(INVALID_TIME, why) if is_line[row] else no_match("combined", raw[row])
        good = np.flatnonzero(valid & is_line)
        kept = found.take(pa.array(good))
        columns: dict[str, Any] = {}
        for name in wanted:
            if name == TIME:
                columns[name] = pa.array(times[good]).cast(TIME_TYPE)
                continue
            values = kept.field(name)
            if name == "page" and not self._page_query:
                values = pc.replace_substring_regex(values, r"\?.*", "")
            values = pc.replace_substring_regex(values, r'\\(["\\])', r"\1")
            columns[name] = without_dashes(values)
        return pa.table(columns), places[good], faults


def no_match(name: str, line: bytes) -> Fault:
    """The fault of a line that is no line of the log."""
    return Fault(NO_MATCH, f"not a line of the format {name}: {preview(line[:1000])}")


def without_dashes(values: pa.Array) -> pa.Array:
    """Text without what stands for a missing value in a log: nothing, and "-"."""
    return without_words(values, pa.array(["-", ""]))


def without_words(values: pa.Array | pa.ChunkedArray, words: pa.Array) -> pa.Array | pa.ChunkedArray:
    """Text with null in place of these words."""
    return pc.if_else(pc.is_in(values, words), pa.scalar(None, pa.string()), values) if len(words) else values


def _ends(lines: LineIndex, places: Ints) -> tuple[Ints, Ints]:
    """Where lines begin and end, without a carriage return."""
    starts, ends = lines.starts[places], lines.ends[places]
    return starts, ends - ((ends > starts) & (lines.text[np.maximum(ends - 1, 0)] == ord("\r")))


def _columns(text: Bytes, spans: Spans, starts: Ints, times: Ints, wanted: Sequence[str]) -> pa.Table:
    return pa.table(
        {n: pa.array(times).cast(TIME_TYPE) if n == TIME else texts(text, spans[n], starts) for n in wanted}
    )
