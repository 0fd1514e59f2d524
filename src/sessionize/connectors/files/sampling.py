"""Reads the first records of files, a bounded part of each: text of any compression, pipes, Parquet, ORC, Avro."""

import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import pyarrow as pa

from sessionize.connectors.files.opening import Text, named, texts
from sessionize.connectors.files.places import open_bytes, transport_failure
from sessionize.connectors.files.source_paths import STDIN, InputFile
from sessionize.connectors.files.unreadable import file_failure
from sessionize.connectors.local_paths import is_address
from sessionize.errors import InputError, SessionizeError
from sessionize.formats.content.samples import ROWS_MAX, Sample, encoding_of, parsed
from sessionize.formats.content.sniffing import HEAD_BYTES, Sniffed, sniff
from sessionize.formats.content.transcoding import Utf8Stream
from sessionize.formats.input_format import AUTO, BINARY, FormatName, InputFormat
from sessionize.formats.lines import Readable

RAW_BYTES_MAX = 4 << 20
TEXT_BYTES_MAX = 1 << 20
_ENTRIES_MAX = 8  # of an archive


def samples(file: InputFile) -> Iterator[Sample]:
    """The beginning of a file, or of each entry of an archive.

    Errors: InputError if the content is unknown or cannot be read; UnavailableError if the disk fails.
    """
    keys = dict(file.keys)
    try:
        found = _table(file) if file.format in BINARY else islice(_texts(file), _ENTRIES_MAX)
        for each in found:
            new = {name: text for name, text in keys.items() if not any(name in row for row in each.rows[:1])}
            yield replace(each, rows=[{**row, **new} for row in each.rows], keys=tuple(new)) if new else each
    except OSError as error:
        raise file_failure(file.path, error) from error


def _texts(file: InputFile) -> Iterator[Sample]:
    data, whole = _beginning(file)
    compression: str | None = file.compression
    for text in texts(io.BytesIO(data), AUTO, named(file.path), source=file.path):
        content, ended = _content(text.stream)
        if text.damage is not None and compression is None:
            compression = _of_pipe(data)
        if text.damage is None and not whole:
            ended = False
        yield _sampled(text, content, ended=ended, compression=compression, read_bytes=len(data))


def _sampled(text: Text, content: bytes, *, ended: bool, compression: str | None, read_bytes: int) -> Sample:
    sniffed = text.sniffed
    encoding = sniffed.encoding
    if encoding is None:
        encoding = encoding_of(content)
        if encoding is not None:
            content, _ = _content(Utf8Stream(io.BytesIO(content), encoding))
            if encoding.startswith("utf-16"):
                again = next(texts(io.BytesIO(content), AUTO, named("x.csv"), source=text.source))
                sniffed = again.sniffed
    else:
        encoding = None  # its byte-order mark tells
    if sniffed.format == "csv" and content.startswith(b"#"):  # the delimiter is that of the lines below comments
        sniffed = sniff(content[:HEAD_BYTES], InputFormat(comment="#"), named="csv", whole=ended) or sniffed
    cut = text.damage is not None and text.damage.fault is not None
    found = parsed(content, sniffed, whole=ended and not cut, source=text.source)
    return Sample(
        source=text.source,
        format=sniffed.format,
        rows=found.rows,
        compression=compression,
        encoding=encoding,
        delimiter=sniffed.delimiter,
        comment=found.comment,
        header=found.header,
        names=found.names,
        unreadable=found.unreadable,
        read_bytes=read_bytes,
        whole=ended and not cut and len(found.rows) < ROWS_MAX,
    )


def _beginning(file: InputFile) -> tuple[bytes, bool]:
    """The first bytes, and whether they are all."""
    if file.path == STDIN:
        buffered = sys.stdin.buffer
        return _head(cast(Readable, getattr(buffered, "raw", buffered)), RAW_BYTES_MAX)
    with open_bytes(file.path) as raw:
        return _head(raw, RAW_BYTES_MAX)


def _content(stream: Readable) -> tuple[bytes, bool]:
    return _head(stream, TEXT_BYTES_MAX)


def _head(stream: Readable, size: int) -> tuple[bytes, bool]:
    room = memoryview(bytearray(1 << 16))
    data = bytearray()
    while len(data) < size:
        read = stream.readinto(room)
        if not read:
            return bytes(data), True
        data += room[:read]
    return bytes(data), False


def _of_pipe(data: bytes) -> str | None:
    from sessionize.formats.content.compressed import MAGIC_BYTES, compression_of

    return compression_of(data[:MAGIC_BYTES])


def _table(file: InputFile) -> Iterator[Sample]:
    """The first rows of a file with a schema."""
    read = {"parquet": _parquet, "orc": _orc, "avro": _avro}[file.format]
    rows, names, whole = read(file.path)
    yield Sample(
        source=file.path,
        format=cast(FormatName, file.format),
        rows=rows,
        names=names,
        read_bytes=file.size_bytes if whole else 0,
        whole=whole,
    )


_Found = tuple[list[dict[str, Any]], tuple[str, ...], bool]


def _parquet(path: str) -> _Found:
    import pyarrow.parquet as pq  # slow to import

    try:
        with pq.ParquetFile(open_bytes(path, random=True) if is_address(path) else path) as file:
            count = file.metadata.num_rows
            batch = next(file.iter_batches(ROWS_MAX, use_threads=False), None)
            names = tuple(file.schema_arrow.names)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _damaged("a Parquet file", path, error) from error
    return ([] if batch is None else _plain(batch)), names, count <= ROWS_MAX


def _orc(path: str) -> _Found:
    from pyarrow import orc

    try:
        file = orc.ORCFile(open_bytes(path, random=True) if is_address(path) else path)
        batch = file.read_stripe(0).slice(0, ROWS_MAX) if file.nstripes else None
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _damaged("an ORC file", path, error) from error
    names = tuple(file.schema.names)
    return ([] if batch is None else _plain(batch)), names, file.nrows <= ROWS_MAX


def _avro(path: str) -> _Found:
    from sessionize.formats.avro import json_records

    with open_bytes(path, random=True) if is_address(path) else open(path, "rb") as opened:
        try:
            texts = list(islice(json_records(opened), ROWS_MAX + 1))
        except OSError:
            raise
        except Exception as error:  # damaged bytes can raise anything
            raise _damaged("an Avro file", path, error) from error
    rows = parsed(b"\n".join(texts), Sniffed("ndjson"), whole=True, source=path).rows
    return rows, tuple(rows[0]) if rows else (), len(texts) <= ROWS_MAX


def _damaged(what: str, path: str, error: Exception) -> SessionizeError:
    failure = transport_failure(path, error)
    return failure or InputError(f"{what} cannot be read", detail=f"{path}: {error}", hint="is it complete?")


def _plain(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows; times of a finer unit than Python's are cut."""
    columns: dict[str, list[Any]] = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            column = column.cast(pa.timestamp("us", field.type.tz), safe=False)
        columns[field.name] = column.to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
