"""The entries of a zip archive, one after the other, as they come: from a pipe too, and of a torn archive those before.

The directory at the archive's end is not needed: each entry has a header of its own. What a header alone does not
decide is refused by the entry: encryption, and stored data of unknown size.
"""

import struct
import zlib
from collections.abc import Iterator

from sessionize.formats.content.compressed import Raw, corrupt, truncated
from sessionize.formats.rejects import CORRUPT_COMPRESSION, TRUNCATED_COMPRESSION, Fault

_HEADER = struct.Struct("<4sHHHHHIIIHH")
_LOCAL, _DESCRIPTOR = b"PK\x03\x04", b"PK\x07\x08"
_ENDS = (b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06")
_ENCRYPTED, _SIZE_BEHIND, _UTF8 = 1, 8, 1 << 11
_STORED, _DEFLATED = 0, 8
_UNKNOWN = 0xFFFFFFFF
_ZIP64 = 1
_CHUNK_BYTES = 1 << 18


class ZipEntries:
    """Iterates over the entries; each has to be read, or is skipped, before the next one.

    fault: after the end, the damage between the entries, None if there is none. read_bytes: compressed bytes so far.
    """

    def __init__(self, raw: Raw, begins: bytes = b"") -> None:
        self.fault: Fault | None = None
        self._raw, self._data = raw, begins
        self._read_bytes = len(begins)

    @property
    def read_bytes(self) -> int:
        """Bytes of the archive that were read."""
        return self._read_bytes

    def __iter__(self) -> Iterator["ZipEntry"]:
        while self.fault is None:
            head = self.take(_HEADER.size)
            if head[:4] in _ENDS:
                return
            if len(head) < _HEADER.size:
                self.fault = truncated("zip", self.read_bytes)
                return
            magic, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _HEADER.unpack(head)
            if magic != _LOCAL:
                self.fault = Fault(CORRUPT_COMPRESSION, f"damaged zip data, before byte {self.read_bytes:,}: no entry")
                return
            name = self.take(name_length)
            extra = self.take(extra_length)
            is_large = packed == _UNKNOWN or size == _UNKNOWN
            if is_large:
                packed = _packed_of(extra, has_size=size == _UNKNOWN, packed=packed)
            text = name.decode("utf-8" if flags & _UTF8 else "cp437", "replace")
            entry = ZipEntry(self, text, flags, method, crc, packed, is_large=is_large)
            if len(extra) < extra_length:
                self.fault = truncated("zip", self.read_bytes)
                return
            yield entry
            entry.skip()
            if entry.is_lost:  # it has the fault; where the next entry begins is unknown
                return

    def more(self) -> bytes:
        """Some of the next bytes, b"" at the end."""
        data, self._data = self._data, b""
        if not data:
            data = self._raw.read(_CHUNK_BYTES) or b""
            self._read_bytes += len(data)
        return data

    def give_back(self, data: bytes) -> None:
        """Take back what was read too far."""
        self._data = data + self._data if self._data else data

    def take(self, count: int) -> bytes:
        """So many bytes, fewer at the end."""
        parts, left = [], count
        while left and (data := self.more()):
            parts.append(data[:left])
            if len(data) > left:
                self.give_back(data[left:])
            left -= len(parts[-1])
        return b"".join(parts)


class ZipEntry:
    """One entry, as a stream of text; see compressed.DecompressedStream. name: as in the archive."""

    def __init__(
        self, archive: ZipEntries, name: str, flags: int, method: int, crc: int, packed: int, *, is_large: bool
    ) -> None:
        self.name = name
        self.fault: Fault | None = None
        self.is_lost = False
        self._archive, self._is_large = archive, is_large
        self._size_behind = bool(flags & _SIZE_BEHIND)
        self._left = None if self._size_behind and not packed else packed  # of its bytes; None: its own end decides
        self._crc, self._sum = crc, 0
        self._inflate = zlib.decompressobj(-15) if method == _DEFLATED else None
        self._input = b""
        self._ended = False
        why = None
        if flags & _ENCRYPTED:
            why = "it is encrypted"
        elif method not in (_STORED, _DEFLATED):
            why = f"it has the compression method {method}"
        elif method == _STORED and self._left is None:
            why = "it is stored without its size"
        if why is not None:
            self._fail(Fault(CORRUPT_COMPRESSION, f"{name} cannot be unpacked: {why}"))

    @property
    def is_folder(self) -> bool:
        """Whether it is none of the files."""
        return self.name.endswith("/")

    @property
    def read_bytes(self) -> int:
        """Bytes of the archive that were read."""
        return self._archive.read_bytes

    def readinto(self, buffer: memoryview) -> int:
        """See compressed.DecompressedStream."""
        while not self._ended:
            data = self._stored(len(buffer)) if self._inflate is None else self._inflated(self._inflate, len(buffer))
            self._sum = zlib.crc32(data, self._sum)
            if self._is_over() and not self.is_damaged():
                self._verify()
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0

    def is_damaged(self) -> bool:
        """Whether it has a fault by now."""
        return self.fault is not None

    def _is_over(self) -> bool:
        return self._ended

    def skip(self) -> None:
        """Read on to the end of the entry, and drop it."""
        sink = memoryview(bytearray(_CHUNK_BYTES))
        while self.readinto(sink):
            pass
        if self.fault is not None:
            while self._left and self._packed():
                pass

    def _packed(self) -> bytes:
        """Some of the entry's own bytes; b"" at their end."""
        if self._left == 0:
            return b""
        data = self._archive.more()
        if self._left is not None:
            if len(data) > self._left:
                self._archive.give_back(data[self._left :])
                data = data[: self._left]
            self._left -= len(data)
        return data

    def _stored(self, size: int) -> bytes:
        data = self._packed()
        if len(data) > size:
            self._archive.give_back(data[size:])
            assert self._left is not None
            self._left += len(data) - size
            data = data[:size]
        if self._left == 0:
            self._ended = True
        elif not data:
            self._fail(truncated("zip", self.read_bytes))
        return data

    def _inflated(self, inflate: "zlib._Decompress", size: int) -> bytes:
        given = self._input or self._packed()
        try:
            data = inflate.decompress(given, size)
        except zlib.error as error:
            self._fail(corrupt("zip", self.read_bytes, error))
            return b""
        self._input = inflate.unconsumed_tail
        if inflate.eof:
            self._ended = True
            if self._left is None:
                self._archive.give_back(inflate.unused_data)
        elif not given and not data:
            self._fail(truncated("zip", self.read_bytes))
        return data

    def _fail(self, fault: Fault) -> None:
        """End with a fault; without a known size the beginning of the next entry is unknown."""
        self.fault, self._ended = fault, True
        self.is_lost = self._left is None or (fault.reason == TRUNCATED_COMPRESSION and self._left > 0)

    def _verify(self) -> None:
        if self._size_behind:
            size = 20 if self._is_large else 12
            behind = self._archive.take(4)
            behind = self._archive.take(size) if behind == _DESCRIPTOR else behind + self._archive.take(size - 4)
            self._crc = int.from_bytes(behind[:4], "little")
            if len(behind) < size:
                self._fail(truncated("zip", self.read_bytes))
                return
        if self._crc != self._sum:
            self.fault = Fault(CORRUPT_COMPRESSION, f"damaged zip data in {self.name}: the checksum does not match")


def _packed_of(extra: bytes, *, has_size: bool, packed: int) -> int:
    """The compressed size of an entry beyond 4 GB."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _ZIP64:
            values = extra[at + 4 : at + 4 + length]
            start = 8 if has_size else 0
            if packed == _UNKNOWN and len(values) >= start + 8:
                return int.from_bytes(values[start : start + 8], "little")
        at += 4 + length
    return packed
