"""Where the values of a log's lines begin and end, and the values themselves."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sessionize.formats.logs.times import Bools, Bytes, Ints
from sessionize.session.limits import text_ends

Span = tuple[Ints, Ints]  # where each value begins and ends; an end before it is no value
Spans = Mapping[str, Span]  # by column
_DASH, _QUESTION = b"-?"


def texts(text: Bytes, span: Span, starts: Ints) -> pa.Array:
    """The values; null where there is none, or a "-" alone. starts: of the lines, in their order."""
    begin, end = span
    valid = (end > begin) & ((end != begin + 1) | (text[np.minimum(begin, len(text) - 1)] != _DASH))
    return _picked(text, (np.where(valid, begin, starts), np.where(valid, end, starts)), None if valid.all() else valid)


def contain(text: Bytes, span: Span, starts: Ints, byte: int) -> Bools:
    """Whether the values contain this byte."""
    begin, end = span
    is_value = end > begin
    values = _picked(text, (np.where(is_value, begin, starts), np.where(is_value, end, starts)), None)
    offsets = text_ends(values)
    places = np.flatnonzero(np.frombuffer(values.buffers()[2] or b"", np.uint8)[: offsets[-1]] == byte)
    found = np.zeros(len(starts), bool)
    found[np.searchsorted(offsets, places, side="right") - 1] = True
    return found


def page_ends(text: Bytes, begin: Ints, end: Ints) -> Ints:
    """Where the pages end that begin and end there, without their query."""
    marks = np.append(np.flatnonzero(text == _QUESTION), len(text))
    ends: Ints = np.minimum(end, marks[np.searchsorted(marks[:-1], begin)])
    return ends


def _picked(text: Bytes, span: Span, valid: Bools | None) -> pa.Array:
    """The text between these places, which are in order: every other one of strings that lie side by side."""
    count = len(span[0])
    offsets = np.empty(2 * count + 1, np.int32)
    offsets[0:-1:2], offsets[1::2] = span
    offsets[-1] = offsets[-2] if count else 0
    beside = pa.Array.from_buffers(pa.string(), 2 * count, [None, pa.py_buffer(offsets), pa.py_buffer(text)])
    places = np.arange(0, 2 * count, 2, dtype=np.int32)
    return beside.take(pa.array(places, mask=None if valid is None else ~valid))
