"""Splits bytes into pieces that end at a line end, in bounded memory.

A piece is about as large as a second-level cache, where decoding is a third faster. For a line beyond the limit only
the head is kept and the rest is skipped. A range of a file holds the lines that begin in it, so that several
processes can share a file.
"""

import io
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.formats.rejects import RAW_BYTES_MAX

PIECE_BYTES = 1 << 20
LINE_BYTES_MAX = 8 << 20
_LOOK_BYTES = 1 << 16
_LINE_FEED = 10


class Readable(Protocol):
    """An object with readinto: a raw file, a FileRange, a GzipStream."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill buffer with the available bytes, at least one; 0 or None at the end."""


def without_bom(data: memoryview | bytes) -> memoryview | bytes:
    """The beginning of a text without its byte-order mark."""
    return data[len(BOM_UTF8) :] if bytes(data[: len(BOM_UTF8)]) == BOM_UTF8 else data


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines. ended: the last one has its line feed; False only at the end of the stream.

    data is valid only until the next piece is requested, because its buffer is reused.
    """

    data: memoryview
    ended: bool


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line beyond the limit. head: its first RAW_BYTES_MAX bytes. size_bytes: its full length."""

    head: bytes
    size_bytes: int
    ended: bool


def pieces(
    stream: Readable, *, piece_bytes: int = PIECE_BYTES, line_bytes_max: int = LINE_BYTES_MAX
) -> Iterator[Lines | LongLine]:
    """Everything in the stream, in order. Holds at most line_bytes_max or one piece, whichever is larger."""
    buffer = bytearray(piece_bytes)
    have = 0
    while True:
        cut = buffer.rfind(b"\n", 0, have) + 1
        if cut:
            view = memoryview(buffer)
            yield Lines(view[:cut], ended=True)
            have -= cut
            if len(buffer) > piece_bytes >= have:  # grown for one long line
                buffer = bytearray(piece_bytes)
            buffer[:have] = view[cut : cut + have]
            continue
        if have == len(buffer):
            if have > line_bytes_max:
                line, rest = _read_past(stream, buffer)
                yield line
                have = len(rest)
                buffer[:have] = rest
                continue
            larger = bytearray(min(2 * have, line_bytes_max + 1))
            larger[:have] = buffer
            buffer = larger
        read = stream.readinto(memoryview(buffer)[have:])
        if not read:
            break
        have += read
    if have:
        yield Lines(memoryview(buffer)[:have], ended=False)


def blocks(stream: Readable) -> Iterator[Lines]:
    """Everything in the stream, in order, cut anywhere: for records that have nothing to do with lines."""
    buffer = memoryview(bytearray(PIECE_BYTES))
    while read := stream.readinto(buffer):
        yield Lines(buffer[:read], ended=True)


def _read_past(stream: Readable, buffer: bytearray) -> tuple[LongLine, bytes]:
    """The long line that fills buffer, and the bytes read after its end."""
    head = bytes(buffer[:RAW_BYTES_MAX])
    size_bytes = len(buffer)
    while read := stream.readinto(memoryview(buffer)):
        end = buffer.find(b"\n", 0, read)
        if end >= 0:
            return LongLine(head, size_bytes + end, ended=True), bytes(memoryview(buffer)[end + 1 : read])
        size_bytes += read
    return LongLine(head, size_bytes, ended=False), b""


class LineIndex:
    """Where the lines of a piece begin and end. A last line without a line feed counts too.

    data: the piece. text: the same as uint8. starts, ends: int64, line n is data[starts[n]:ends[n]]. A caller that
    knows the offsets of all line feeds can give them.
    """

    __slots__ = ("data", "ends", "starts", "text")

    def __init__(self, data: memoryview, ends: npt.NDArray[np.int64] | None = None) -> None:
        self.data = data
        self.text = np.frombuffer(data, np.uint8)
        if ends is None:
            ends = _line_feeds(self.text)
            if len(data) and data[-1] != _LINE_FEED:
                ends = np.append(ends, len(data))
        self.ends = ends
        self.starts = np.empty_like(ends)
        self.starts[:1] = 0
        self.starts[1:] = ends[:-1] + 1

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, line: int) -> memoryview:
        return self.data[self.starts[line] : self.ends[line]]

    @property
    def longest(self) -> int:
        """Bytes of the longest line."""
        return int((self.ends - self.starts).max(initial=0))

    def is_utf8(self) -> bool:
        """Whether the whole piece is valid UTF-8; pure ASCII is detected at once."""
        if not len(self.data) or self.text.view(np.int8).min() >= 0:
            return True
        offsets = pa.py_buffer(np.array([0, len(self.data)], np.int64))
        try:
            pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(self.data)).validate(full=True)
        except pa.ArrowInvalid:
            return False
        return True


def _line_feeds(text: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The offsets of all line feeds, found with one bit per byte: most 64-bit words are zero."""
    hits = text == _LINE_FEED
    bits = np.packbits(hits, bitorder="little")
    words = np.zeros(-(-len(bits) // 8), "<u8")
    words.view(np.uint8)[: len(bits)] = bits
    found = np.flatnonzero(words)
    values = words[found]
    if (values & (values - np.uint64(1))).any():  # lines shorter than 64 bytes share a word
        return np.flatnonzero(hits)
    # A power of two is exact in a double, and its exponent is the number of the bit.
    return found * 64 + np.frexp(values.astype(np.float64))[1] - 1


class FileRange:
    """The lines of a file that begin at offsets start <= offset < end, as a stream."""

    __slots__ = ("_at", "_end", "_file", "_in_line")

    def __init__(self, file: io.RawIOBase, start: int, end: int) -> None:
        """file: opened unbuffered for reading; from now on only this object may move its position."""
        self._file = file
        self._end = end
        self._at = start
        self._in_line = False
        if start > 0:
            # The byte before start shows whether a line begins there.
            self._at = self._after_line_feed(start - 1)
        file.seek(self._at)

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes; 0 after the last line of the range."""
        if self._at < self._end:
            read = self._file.readinto(buffer[: self._end - self._at]) or 0
            self._at += read
            self._in_line = read > 0 and buffer[read - 1] != _LINE_FEED
            return read
        if not self._in_line:
            return 0
        # The last line extends beyond the range, usually by much less than a piece.
        read = self._file.readinto(buffer[:_LOOK_BYTES]) or 0
        end = bytes(buffer[:read]).find(b"\n") + 1
        self._in_line = read > 0 and end == 0
        return end or read

    def _after_line_feed(self, at: int) -> int:
        """The offset after the first line feed at or after `at`, else the end of the range."""
        self._file.seek(at)
        while at < self._end and (piece := self._file.read(_LOOK_BYTES)):
            found = piece.find(b"\n")
            if found >= 0:
                return at + found + 1
            at += len(piece)
        return self._end
