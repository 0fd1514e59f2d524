"""Streams that recode text to UTF-8, and that can be peeked at.

What cannot be decoded becomes a byte that is not UTF-8 either, so that only its line is rejected.
"""

import codecs

from sessionize.formats.lines import Readable

_CHUNK_BYTES = 1 << 18
_LOOK_BYTES = 1 << 16
_INVALID = "sessionize-invalid"


def _invalid(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return "\udcff", error.end
    raise error


codecs.register_error(_INVALID, _invalid)


class Utf8Stream:
    """A stream in another encoding, read as UTF-8 without a byte-order mark."""

    def __init__(self, stream: Readable, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(_INVALID)
        self._text = memoryview(b"")
        self._chunk = memoryview(bytearray(_CHUNK_BYTES))
        self._started = self._ended = False

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes; 0 at the end."""
        while not self._text and not self._ended:
            read = self._stream.readinto(self._chunk) or 0
            self._ended = not read
            text = self._decoder.decode(bytes(self._chunk[:read]), final=self._ended)
            if text and not self._started:
                text, self._started = text.removeprefix("\ufeff"), True
            self._text = memoryview(_encoded(text))
        count = min(len(buffer), len(self._text))
        buffer[:count] = self._text[:count]
        self._text = self._text[count:]
        return count


class PeekableStream:
    """A stream whose first bytes can be peeked at before they are read."""

    def __init__(self, stream: Readable, begins: bytes = b"") -> None:
        self._stream, self._head = stream, begins
        self._ended = False

    def peek(self, size: int, *, line: bool = False) -> tuple[bytes, bool]:
        """The first bytes, at most size, and whether that is all. line: two lines are enough: a writer may wait."""
        if self._ended or len(self._head) >= size:
            return self._head[:size], self._ended and len(self._head) <= size
        room = memoryview(bytearray(_LOOK_BYTES))
        while len(self._head) < size and not (line and self._head.count(b"\n") > 1):
            read = self._stream.readinto(room)
            if not read:
                self._ended = True
                return self._head, True
            self._head += room[:read]
        return self._head[:size], False

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes; 0 at the end."""
        if not self._head:
            if self._ended:
                return 0
            return self._stream.readinto(buffer) or 0
        part = self._head[: len(buffer)]
        self._head = self._head[len(part) :]
        buffer[: len(part)] = part
        return len(part)

    def read(self, size: int) -> bytes:
        """At most so many bytes; b"" at the end."""
        room = memoryview(bytearray(size))
        return bytes(room[: self.readinto(room)])


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair, as UTF-7 may spell it: no UTF-8 either
        return text.encode("utf-8", "surrogatepass")
