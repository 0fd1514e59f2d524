"""Opens an input by its content: what compression, what format, and the streams of text inside.

One way for files, pipes and the entries of archives: `probe` says what a file is, `texts` opens its text. Both work on
anything with `readinto`, so that other kinds of places need no more than a stream.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from sessionize.connectors.files.notices import LOG, UNKNOWN_ENTRY, skipped_files
from sessionize.errors import InputError
from sessionize.formats.content.compressed import (
    ENDINGS,
    MAGIC_BYTES,
    Compression,
    DecompressedStream,
    compression_of,
    decompressed,
    may_become,
)
from sessionize.formats.content.sniffing import HEAD_BYTES, Sniffed, sniff
from sessionize.formats.content.transcoding import PeekableStream, Utf8Stream
from sessionize.formats.content.zip_entries import ZipEntries
from sessionize.formats.input_format import BINARY, InputFormat
from sessionize.formats.lines import Readable
from sessionize.formats.rejects import Fault

_FORMATS = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".avro": "avro",
    ".orc": "orc",
}
KNOWN_ENDINGS = (
    "files end in .ndjson, .jsonl, .json, .csv, .tsv, .parquet, .orc or .avro, text also in .gz, .zst, .bz2, .xz, .zip"
)
_LAYERS_MAX = 4  # of compression around a text


@dataclass(frozen=True, slots=True)
class Named:
    """What the name of a file says. format: as in sniff; auto where only the compression is known."""

    format: str
    compression: Compression | None


@dataclass(frozen=True, slots=True)
class Probed:
    """What a file is by its content. sniffed: None if nothing tells; of zip, it is that of its entries' names."""

    compression: Compression | None
    sniffed: Sniffed | None


@dataclass(slots=True)
class Text:
    """An opened text. source: for its rejected records. damage: the compressed stream that it comes from."""

    source: str
    stream: Readable
    sniffed: Sniffed
    damage: DecompressedStream | None


def named(path: str) -> Named | None:
    """What the endings of a name say; None if they say nothing."""
    name = path.lower()
    inner, ending = os.path.splitext(name)
    compression = ENDINGS.get(ending)
    kind = _FORMATS.get(os.path.splitext(inner)[1] if compression else ending)
    if compression is None:
        return None if kind is None else Named(kind, None)
    return Named(kind or "auto", compression)


def probe(raw: Readable, asked: InputFormat, name: Named | None, *, size: int = HEAD_BYTES) -> Probed:
    """Look at the beginning of a file, which is read at most as far as needed."""
    compression, stream, _ = _layers(raw, name)
    if compression == "zip":
        return Probed(compression, None)
    head, whole = stream.peek(size)
    return Probed(compression, sniff(head, asked, named=name.format if name else None, whole=whole))


def texts(raw: Readable, asked: InputFormat, name: Named | None, *, source: str, pipe: bool = False) -> Iterator[Text]:
    """The text of a file, or those of an archive, one after the other; each has to be read before the next.

    pipe: its writer may wait, so no more is looked at than needed. Errors: InputError if the content is unknown.
    """
    compression, stream, damage = _layers(raw, name)
    if compression == "zip":
        yield from _entries(ZipEntries(stream), asked, source)
        return
    head, whole = stream.peek(HEAD_BYTES, line=pipe)
    sniffed = sniff(head, asked, named=name.format if name else None, whole=whole)
    if damage is None and name is not None and name.compression is not None and not (sniffed and sniffed.certain):
        raise _not_compressed(name.compression, source)
    if sniffed is None and (pipe or (damage is not None and damage.fault is not None)):
        sniffed = Sniffed("ndjson", certain=False)  # what cannot be told is rejected line by line
    if sniffed is None or sniffed.format in BINARY:
        raise unknown_content(source, sniffed, is_compressed=damage is not None, pipe=pipe)
    yield Text(source, _as_utf8(stream, sniffed), sniffed, damage)


def unknown_content(source: str, sniffed: Sniffed | None, *, is_compressed: bool, pipe: bool = False) -> InputError:
    """The error for a file that cannot be read as text."""
    if sniffed is None:
        return InputError(
            "unknown file name ending",
            detail=f"file {source}: its content does not tell its format either",
            hint=f"{KNOWN_ENDINGS}; or name the format",
        )
    kind = {"parquet": "Parquet", "orc": "ORC", "avro": "Avro"}[sniffed.format]
    if pipe:
        return InputError(
            f"{kind} cannot be read from a pipe", detail=source, hint=f"{kind} is read from a file: write it to one"
        )
    if is_compressed:
        return InputError(
            "unknown file name ending",
            detail=f"file {source}",
            hint=f"{kind} is compressed inside, unpack the file first",
        )
    return InputError("a file changed after it was found", detail=f"file {source}: it is {kind} now", hint="run again")


def _layers(raw: Readable, name: Named | None) -> tuple[Compression | None, PeekableStream, DecompressedStream | None]:
    """The compression, and the text under all layers of it; of zip, the archive."""
    outer: Compression | None = None
    damage: DecompressedStream | None = None
    stream = PeekableStream(raw)
    for _ in range(_LAYERS_MAX):
        begins, whole = stream.peek(MAGIC_BYTES)
        compression = compression_of(begins)
        if compression is None and outer is None and whole and name is not None and name.compression is not None:
            compression = name.compression if may_become(begins, name.compression) else None
        if compression is None:
            break
        if compression == "zip":
            return ("zip", stream, None) if outer is None else (outer, stream, damage)
        outer = outer or compression
        damage = decompressed(compression, stream, b"")
        stream = PeekableStream(damage)
    return outer, stream, damage


def _entries(entries: ZipEntries, asked: InputFormat, source: str) -> Iterator[Text]:
    count = 0
    for entry in entries:
        inner = os.path.basename(entry.name)
        if entry.is_folder or not inner or inner.startswith((".", "_")) or entry.name.startswith("__MACOSX/"):
            continue
        place = f"{source}/{entry.name}"
        count += 1
        if entry.is_damaged():
            yield Text(place, entry, Sniffed("ndjson", certain=False), entry)
            continue
        name = named(entry.name)
        compression, stream, damage = _layers(entry, name)
        head, whole = (b"", True) if compression == "zip" else stream.peek(HEAD_BYTES)
        sniffed = sniff(head, asked, named=name.format if name else None, whole=whole)
        if sniffed is None and entry.is_damaged():
            sniffed = Sniffed("ndjson", certain=False)
        if sniffed is None or sniffed.format in BINARY:
            LOG.warning("%s", skipped_files([place], UNKNOWN_ENTRY))
            continue
        yield Text(place, _as_utf8(stream, sniffed), sniffed, _Both(damage, entry) if damage is not None else entry)
    if entries.fault is not None:
        yield Text(source, _Nothing(), Sniffed("ndjson", certain=False), _Ended(entries))
    elif not count:
        LOG.warning("%s", f"1 archive has no file to read: {source}")


def _as_utf8(stream: Readable, sniffed: Sniffed) -> Readable:
    return stream if sniffed.encoding is None else Utf8Stream(stream, sniffed.encoding)


def _not_compressed(compression: Compression, source: str) -> InputError:
    ending = next(ending for ending, name in ENDINGS.items() if name == compression)
    return InputError(
        "a file named .gz is not gzipped" if ending == ".gz" else f"a file named {ending} is not {compression} data",
        detail=f"file {source}",
        hint=f"rename it without {ending}",
    )


class _Nothing:
    def readinto(self, buffer: memoryview) -> int:
        return 0


@dataclass(slots=True)
class _Ended:
    """The damage between the entries of an archive."""

    entries: ZipEntries

    @property
    def fault(self) -> Fault | None:
        return self.entries.fault

    @property
    def read_bytes(self) -> int:
        return self.entries.read_bytes

    def readinto(self, buffer: memoryview) -> int:
        return 0


@dataclass(slots=True)
class _Both:
    """A compressed entry of an archive."""

    inner: DecompressedStream
    entry: DecompressedStream

    @property
    def fault(self) -> Fault | None:
        return self.entry.fault or self.inner.fault

    @property
    def read_bytes(self) -> int:
        return self.entry.read_bytes

    def readinto(self, buffer: memoryview) -> int:
        return self.inner.readinto(buffer)
