"""Decompresses by content what is readable: damage ends a stream and is reported, not raised.

Every stream gives at most as much as is asked for, so a small file that holds gigabytes takes no more memory than
another. gzip has a module of its own (gunzip.py), and so has zip, whose entries are files (zip_entries.py).
"""

import bz2
import lzma
from typing import IO, Any, Literal, Protocol, cast

from sessionize.formats.content.gunzip import GzipStream
from sessionize.formats.rejects import CORRUPT_COMPRESSION, TRUNCATED_COMPRESSION, Fault

Compression = Literal["gzip", "zstd", "bzip2", "xz", "zip"]

MAGIC_BYTES = 6
_MAGIC: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
)
ENDINGS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz", ".zip": "zip"}
_CHUNK_BYTES = 1 << 18
_AT_ONCE_BYTES = 1 << 16  # what a call to bz2 or lzma gives at most: damage costs no more than that
_ZSTD_BYTES = 1 << 13  # pyarrow drops what it had read when it finds damage
_XZ_MEMORY_MAX = 1 << 28  # the largest preset takes 65 MB; a header may ask for gigabytes


class Raw(Protocol):
    """A file, or what stands for one."""

    def read(self, size: int, /) -> bytes | None:
        """At most so many bytes; b"" at the end."""


class DecompressedStream(Protocol):
    """A decompressed stream, which ends where damage begins, and then has the fault."""

    @property
    def fault(self) -> Fault | None:
        """The damage; after the end, None if there is none."""

    @property
    def read_bytes(self) -> int:
        """Compressed bytes consumed so far."""

    def readinto(self, buffer: memoryview, /) -> int:
        """The next bytes; 0 at the end, or where damage begins."""


def compression_of(begins: bytes) -> Compression | None:
    """The compression of what begins with these bytes (MAGIC_BYTES, or all of a shorter file)."""
    for magic, name in _MAGIC:
        if begins.startswith(magic) and (name != "bzip2" or begins[3:4].isdigit()):
            return name
    return None


def may_become(begins: bytes, compression: Compression) -> bool:
    """Whether a file of fewer bytes than the magic ones may be the beginning of a compressed one."""
    return any(name == compression and magic.startswith(begins) for magic, name in _MAGIC)


def decompressed(compression: Compression, raw: Raw, begins: bytes) -> DecompressedStream:
    """The text of a compressed stream. begins: what was read of it already. Not for zip."""
    if compression == "gzip":
        return GzipStream(raw, begins=begins)
    if compression == "zstd":
        return ZstdStream(raw, begins)
    return MemberStream(compression, raw, begins)


class MemberStream:
    """bzip2 or xz: one or more streams, one after the other, perhaps with zeros between. See DecompressedStream."""

    __slots__ = ("_begun", "_ended", "_inflate", "_input", "_name", "_raw", "fault", "read_bytes")

    def __init__(self, compression: Compression, raw: Raw, begins: bytes) -> None:
        self.fault: Fault | None = None
        self.read_bytes = len(begins)
        self._name: Compression = compression
        self._raw, self._input = raw, begins
        self._begun = self._ended = False
        self._inflate = self._member()

    def _member(self) -> Any:
        if self._name == "bzip2":
            return bz2.BZ2Decompressor()
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_MAX)

    def readinto(self, buffer: memoryview) -> int:
        """See DecompressedStream."""
        while not self._ended:
            needs = not self._begun or self._inflate.needs_input
            if needs and not self._input and not self._refill():
                self._ended = True
                if self._begun or not self.read_bytes:
                    self.fault = truncated(self._name, self.read_bytes)
                break
            try:
                text = self._inflate.decompress(self._input, max_length=min(len(buffer), _AT_ONCE_BYTES))
            except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
                self._ended = True
                self.fault = corrupt(self._name, self.read_bytes, error)
                break
            self._begun, self._input = True, b""
            if self._inflate.eof:
                self._input = self._inflate.unused_data.lstrip(b"\0")
                self._inflate, self._begun = self._member(), False
            if text:
                buffer[: len(text)] = text
                return len(text)
        return 0

    def _refill(self) -> bool:
        while data := self._raw.read(_CHUNK_BYTES):
            self.read_bytes += len(data)
            self._input = data if self._begun else data.lstrip(b"\0")
            if self._input:
                return True
        return False


class ZstdStream:
    """Zstandard: one or more frames. See DecompressedStream."""

    __slots__ = ("_counted", "_ended", "_stream", "fault")

    def __init__(self, raw: Raw, begins: bytes) -> None:
        import pyarrow as pa

        self.fault: Fault | None = None
        self._ended = False
        self._counted = _Counted(raw, begins)
        self._stream = pa.CompressedInputStream(pa.PythonFile(cast(IO[Any], self._counted), mode="r"), "zstd")

    @property
    def read_bytes(self) -> int:
        """See DecompressedStream."""
        return self._counted.read_bytes

    def readinto(self, buffer: memoryview) -> int:
        """See DecompressedStream."""
        if self._ended:
            return 0
        try:
            data = self._stream.read(min(len(buffer), _ZSTD_BYTES))
        except OSError as error:
            if error.errno is not None or self._counted.error is not None:  # the disk's, not zstd's
                raise self._counted.error or error from None
            data = b""
            text = str(error).lower()
            cut = "truncated" in text or "unexpected end" in text
            self.fault = truncated("zstd", self.read_bytes) if cut else corrupt("zstd", self.read_bytes, error)
        if not data:
            self._ended = True
            if not self.read_bytes:
                self.fault = truncated("zstd", 0)
        buffer[: len(data)] = data
        return len(data)


class _Counted:
    """A file that counts, and keeps the error that pyarrow turns into one of its own."""

    closed = False

    def __init__(self, raw: Raw, begins: bytes) -> None:
        self.read_bytes = 0
        self.error: OSError | None = None
        self._raw, self._begins = raw, begins

    def read(self, size: int = -1) -> bytes:
        if self._begins:
            data, self._begins = self._begins[:size], self._begins[size:]
        else:
            try:
                data = self._raw.read(size) or b""
            except OSError as error:
                self.error = error
                raise
        self.read_bytes += len(data)
        return data

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """The file is the caller's."""


def truncated(name: str, read_bytes: int) -> Fault:
    """The fault of data that end early."""
    return Fault(TRUNCATED_COMPRESSION, f"the {name} data end early, after {read_bytes:,} bytes")


def corrupt(name: str, read_bytes: int, error: Exception) -> Fault:
    """The fault of damaged data."""
    return Fault(CORRUPT_COMPRESSION, f"damaged {name} data, before byte {read_bytes:,}: {error}")
