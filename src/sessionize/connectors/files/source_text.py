"""Feeds text streams to a decoder, piece by piece: JSON, CSV or logs, plain, compressed or from stdin.

A damaged compressed file gives all rows before the damage; the rest becomes one rejected record.
"""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from sessionize.connectors.files.notices import LOG
from sessionize.errors import InputError
from sessionize.formats.content.compressed import DecompressedStream
from sessionize.formats.json_stream.values import JsonValues
from sessionize.formats.lines import LINE_BYTES_MAX, PIECE_BYTES, LongLine, Readable, blocks, pieces
from sessionize.formats.rejects import Fault
from sessionize.formats.validation import Decoded

_LOOK_BYTES = 1 << 16
_LINE_FEED = 10


class TextDecoder(Protocol):
    """The interface of JsonLines, CsvLines and the logs' decoders."""

    def add(self, data: memoryview, *, source: str, first_line: int, at_start: bool) -> int:
        """Decode whole lines; returns their number."""

    def flush(self) -> None:
        """End an unfinished record."""

    def reject(self, raw: bytes | None, *, source: str, line_number: int, fault: Fault) -> None:
        """Reject an invalid record."""

    def reject_long_line(self, head: bytes, size_bytes: int, *, source: str, line_number: int) -> None:
        """Reject an overlong line."""

    def take(self) -> Decoded:
        """Everything decoded since the last take."""


def feed(
    stream: Readable,
    decoder: TextDecoder,
    *,
    source: str,
    first_line: int = 1,
    at_start: bool = True,
    damage: DecompressedStream | None = None,
    lines_max: int | None = None,
) -> Generator[tuple[int, int], None, int]:
    """Add a whole stream to decoder; yields the bytes and lines of each piece, and returns the number of lines.

    first_line: the number of the first line. at_start: whether the stream starts at the beginning of its file. damage:
    the stream's source, if it is compressed. lines_max: of a piece.
    """
    line = first_line
    torn = b""
    for piece in blocks(stream) if isinstance(decoder, JsonValues) else pieces(stream):
        if isinstance(piece, LongLine):
            decoder.flush()
            decoder.reject_long_line(piece.head, piece.size_bytes, source=source, line_number=line)
            line += 1
            yield piece.size_bytes, 1
        elif not piece.ended and damage is not None and damage.fault is not None:
            torn = bytes(piece.data)
        else:
            for part in _parts(piece.data, lines_max):
                count = decoder.add(part, source=source, first_line=line, at_start=at_start)
                at_start = False
                line += count
                yield len(part), count
    if isinstance(decoder, JsonValues) and damage is not None and damage.fault is not None:
        torn = decoder.torn()
    decoder.flush()
    if damage is not None and damage.fault is not None:
        kept = f"{line - 1:,} whole lines before are read" if line > 1 else "it has no whole line"
        LOG.warning("%s is damaged: %s; %s", source, damage.fault.detail, kept)
        decoder.reject(torn, source=source, line_number=line, fault=damage.fault)
        yield max(len(torn), 1), 1
        line += 1
    return line - first_line


def _parts(data: memoryview, lines_max: int | None) -> Iterator[memoryview]:
    """Whole lines, lines_max at a time: the rejects of one-byte lines are a hundred times their size."""
    if lines_max is None or len(data) <= lines_max:
        yield data
        return
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == _LINE_FEED)[lines_max - 1 :: lines_max] + 1
    start = 0
    for end in (*ends.tolist(), len(data)):
        if end > start:
            yield data[start:end]
        start = end


class Header(NamedTuple):
    """The first line of a table that is not blank (b"" if there is none), its number, and the stream after it.

    ended: whether the stream ends with this line, without a line feed.
    """

    text: bytes
    line: int
    rest: Readable
    ended: bool


def split_header(stream: Readable, *, source: str, comment: str | None = None) -> Header:
    """The header of a stream, below lines that begin with the comment's character.

    Errors: InputError if the line is too long.
    """
    data = bytearray()
    number = 1
    piece = memoryview(bytearray(_LOOK_BYTES))
    while True:
        end = data.find(b"\n")
        if end >= 0:
            header = bytes(data[:end]).removeprefix(b"\xef\xbb\xbf")
            if header.strip(b"\r") and (comment is None or not header.startswith(comment.encode())):
                return Header(header, number, Prefixed(bytes(data[end + 1 :]), stream), ended=False)
            del data[: end + 1]
            number += 1
            continue
        if len(data) > LINE_BYTES_MAX:
            raise InputError(
                "the header is too long",
                detail=f"{source}, line {number}: more than {LINE_BYTES_MAX:,} bytes without a line feed",
                hint="is this really a CSV file?",
            )
        read = stream.readinto(piece)
        if not read:
            return Header(bytes(data), number, stream, ended=True)
        data += piece[:read]


class Prefixed:
    """A stream of bytes already read, followed by the rest of the stream."""

    def __init__(self, data: bytes, stream: Readable) -> None:
        self._data = data
        self._stream = stream

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes; 0 at the end."""
        if not self._data:
            return self._stream.readinto(buffer) or 0
        part = self._data[: len(buffer)]
        self._data = self._data[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


class ReadAhead:
    """Reads a stream in its own thread, two pieces ahead, so that inflating and decoding use two cores."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._pieces: queue.Queue[memoryview | Exception] = queue.Queue(maxsize=2)
        self._rest = memoryview(b"")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sessionize-read-ahead", daemon=True)
        self._thread.start()

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes; 0 at the end. Raises what reading the stream raised."""
        if self._stopped.is_set():
            return 0
        if not self._rest:
            piece = self._pieces.get()
            if isinstance(piece, Exception):
                self._stopped.set()
                raise piece
            if not piece:
                self._stopped.set()
            self._rest = piece
        read = min(len(buffer), len(self._rest))
        buffer[:read] = self._rest[:read]
        self._rest = self._rest[read:]
        return read

    def close(self) -> None:
        """End the thread at any point of its work."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._pieces.get(timeout=0.01)
            except queue.Empty:
                continue
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            buffer = memoryview(bytearray(PIECE_BYTES))
            try:
                read = self._stream.readinto(buffer) or 0
            except Exception as error:
                self._pieces.put(error)
                return
            self._pieces.put(buffer[:read])
            if not read:
                return
