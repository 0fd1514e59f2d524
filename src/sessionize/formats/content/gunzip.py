"""A gzip stream that returns all readable data: damage ends it and is reported, not raised."""

import zlib
from typing import Protocol

from sessionize.formats.rejects import CORRUPT_GZIP, TRUNCATED_GZIP, Fault

_CHUNK_BYTES = 1 << 18
_GZIP = 31  # zlib's name for "32 KiB window, with a gzip header and checksum"


class _Input(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


class GzipStream:
    """Reads one or more gzip members, in bounded memory however well they are compressed.

    begins: the bytes already read from the file. fault: after the end, the damage, None if there is none; an empty file
    is truncated. read_bytes: compressed bytes consumed so far.
    """

    __slots__ = ("_begun", "_ended", "_file", "_inflate", "_input", "fault", "read_bytes")

    def __init__(self, file: _Input, *, begins: bytes = b"") -> None:
        self.fault: Fault | None = None
        self.read_bytes = len(begins)
        self._file = file
        self._input = begins
        self._ended = False
        self._begun = False
        self._inflate = zlib.decompressobj(_GZIP)

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes of text; 0 at the end or where damage begins."""
        while not self._ended:
            if not self._input and not self._refill():
                self._ended = True
                if self._begun or not self.read_bytes:
                    self.fault = Fault(TRUNCATED_GZIP, f"the gzip data end early, after {self.read_bytes:,} bytes")
                break
            try:
                text = self._inflate.decompress(self._input, len(buffer))
            except zlib.error as error:
                self._ended = True
                self.fault = Fault(CORRUPT_GZIP, f"damaged gzip data, before byte {self.read_bytes:,}: {error}")
                break
            self._begun = True
            self._input = self._inflate.unconsumed_tail
            if self._inflate.eof:
                # Zeros may pad the file after a member; anything else is the next member.
                self._input = self._inflate.unused_data.lstrip(b"\0")
                self._inflate = zlib.decompressobj(_GZIP)
                self._begun = False
            if text:
                buffer[: len(text)] = text
                return len(text)
        return 0

    def _refill(self) -> bool:
        while data := self._file.read(_CHUNK_BYTES):
            self.read_bytes += len(data)
            self._input = data if self._begun else data.lstrip(b"\0")
            if self._input:
                return True
        return False
