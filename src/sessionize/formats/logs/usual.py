"""Finds the values in the usual lines of the combined and common formats from where their quotes stand.

A usual line has an address, two dashes, a time, a request that ends with its protocol, a status, a number of bytes, and
then either nothing or two quoted texts; nothing in it is escaped. To find every blank of a piece takes longer than the
rest together, and here none has to be found.
"""

import numpy as np

from sessionize.formats.lines import LineIndex
from sessionize.formats.logs.spans import Span, Spans, contain, page_ends
from sessionize.formats.logs.times import LENGTH, Bytes, Ints, times_of_logs

_SPACE, _QUOTE, _BACKSLASH, _OPEN, _CLOSE, _DASH, _ZERO, _NINE = b' "\\[]-09'
_BEFORE_REQUEST = 34  # bytes of ` - - [03/Oct/2016:03:20:11 -0400] `, up to the request's quote
_FIXED = ((34, _SPACE), (33, _DASH), (32, _SPACE), (31, _DASH), (30, _SPACE), (29, _OPEN), (2, _CLOSE), (1, _SPACE))
_TIME = np.arange(-LENGTH - 2, -2)[:, None]
_COMMON, _COMBINED = 2, 6  # quotes of a line
_METHOD_MAX = 7
_PROTOCOLS = (8, 6)  # bytes of HTTP/1.1 and of HTTP/2


def usual_lines(lines: LineIndex, starts: Ints, ends: Ints, *, page_query: bool) -> tuple[Spans, Ints, Ints]:
    """Where the values of the usual lines are, which of the given lines those are, and their times.

    starts, ends: of lines in their order. Where a condition fails, the places of the later ones still lie in the line.
    """
    text = lines.text
    quotes, at, count = _quotes(text, starts, ends)
    usual = ((count == _COMBINED) | (count == _COMMON)) & (quotes[at] - starts > _BEFORE_REQUEST)
    escaped = np.flatnonzero(text == _BACKSLASH)
    if len(escaped):
        usual &= np.searchsorted(escaped, starts) == np.searchsorted(escaped, ends)
    rows = np.flatnonzero(usual)
    starts, ends, at = starts[rows], ends[rows], at[rows]
    is_common = count[rows] == _COMMON
    request, closing = quotes[at], quotes[at + 1]
    last = len(text) - 1
    ok = closing + 6 < ends
    for before, byte in _FIXED:
        ok &= text[request - before] == byte
    for after, low, high in ((1, _SPACE, _SPACE), (5, _SPACE, _SPACE), *((n, _ZERO, _NINE) for n in (2, 3, 4))):
        found = text[np.minimum(closing + after, last)]
        ok &= (found >= low) & (found <= high)
    after_method, after_page = _request(text, request, closing)
    ok &= (after_method > request + 1) & (after_page > after_method)
    bytes_end = ends
    referrer, after_referrer, agent, after_agent = (quotes[at + n] for n in (2, 3, 4, 5))
    if not is_common.all():
        tail = (text[np.minimum(referrer - 1, last)] == _SPACE) & (agent == after_referrer + 2)
        tail &= text[np.minimum(after_referrer + 1, last)] == _SPACE
        tail &= (after_agent + 1 == ends) | (text[np.minimum(after_agent + 1, last)] == _SPACE)
        ok &= is_common | tail
        bytes_end = np.where(is_common, ends, referrer - 1)
    ok &= bytes_end > closing + 6
    times, valid = times_of_logs(text[request + _TIME].T)
    ok &= valid
    none = np.zeros_like(starts)
    spans: dict[str, Span] = {
        "ip": (starts, request - 34),
        "ident": (request - 33, request - 32),
        "auth_user": (request - 31, request - 30),
        "method": (request + 1, after_method),
        "page": (after_method + 1, after_page),
        "protocol": (after_page + 1, closing),
        "status": (closing + 2, closing + 5),
        "bytes": (closing + 6, bytes_end),
        "referrer": (referrer + 1, np.where(is_common, none, after_referrer)),
        "user_agent": (agent + 1, np.where(is_common, none, after_agent)),
    }
    for name in ("ip", "page", "bytes"):
        ok &= ~contain(text, spans[name], starts, _SPACE)
    if not page_query:
        spans["page"] = (after_method + 1, page_ends(text, after_method, after_page))
    if ok.all():
        return spans, rows, times
    return {name: (begin[ok], end[ok]) for name, (begin, end) in spans.items()}, rows[ok], times[ok]


def _quotes(text: Bytes, starts: Ints, ends: Ints) -> tuple[Ints, Ints, Ints]:
    """All quotes, with some beyond the end; of each line the number of its first one, and how many it has."""
    quotes = np.flatnonzero(text == _QUOTE)
    padded = np.concatenate([quotes, np.full(_COMBINED, len(text))])
    for count in (_COMBINED, _COMMON):
        if len(quotes) == count * len(starts):  # the same number in each line?
            each = quotes.reshape(-1, count)
            if (each[:, 0] >= starts).all() and (each[:, -1] < ends).all():
                return padded, np.arange(0, len(quotes), count), np.full(len(starts), count)
    at = np.searchsorted(quotes, starts)
    return padded, at, np.searchsorted(quotes, ends) - at


def _request(text: Bytes, opening: Ints, closing: Ints) -> tuple[Ints, Ints]:
    """Where the method ends and where the page ends, if neither has a blank; no page lies between where that fails."""
    after_method = closing
    for length in range(_METHOD_MAX, -1, -1):
        place = opening + length + 1
        after_method = np.where(text[np.minimum(place, closing)] == _SPACE, place, after_method)
    after_page = opening
    for length in _PROTOCOLS:
        place = closing - length - 1
        after_page = np.where(text[place] == _SPACE, place, after_page)
    return after_method, after_page
