"""Writes rows to one file: Parquet, CSV or NDJSON, written beside the target and renamed into place on commit."""

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from sessionize.arrow import decoded_type
from sessionize.connectors.local_paths import check_local
from sessionize.durable import sync_file, sync_folder
from sessionize.errors import ConfigError, OutputError
from sessionize.formats.sizes import in_pieces
from sessionize.session.columns import SESSION_TYPES

_ROW_GROUP_BYTES_MAX = 1 << 30
ENDINGS = (".parquet", ".csv", ".ndjson", ".jsonl")


class FileSink:
    """One output file; its ending selects the format. Commit replaces an existing file atomically.

    schema: of the rows, for a file without any; None to take it from the first rows. Text columns may be
    dictionary-encoded.
    Errors: ConfigError for an unknown ending or an address; OutputError if the path can't be written or the disk is
    full.
    """

    def __init__(self, path: Path, schema: pa.Schema | None = None) -> None:
        self._path = path
        self._schema = schema
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._writer: _Writer | None = None
        check_local(path, name="the output")
        if path.suffix not in ENDINGS:
            raise ConfigError("unknown output format", detail=str(path), hint=f"end the name in {', '.join(ENDINGS)}")
        if path.is_dir():
            raise OutputError("the output is a directory", detail=str(path), hint="name a file in it")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._partial.touch()  # an unwritable path fails now; the first rows create the file again
        except OSError as error:
            raise _unwritable(path, error) from error
        finally:
            with suppress(OSError):
                self._partial.unlink()

    def write(self, rows: pa.Table) -> None:
        """Add rows."""
        try:
            # a piece becomes a row group of a Parquet file, so it is as large as possible
            limit = _ROW_GROUP_BYTES_MAX if self._path.suffix == ".parquet" else None
            for piece in in_pieces(rows, bytes_max=limit):
                self._open(rows.schema).write(piece)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def commit(self) -> None:
        """Close the file, sync it to the disk, and rename it into place."""
        try:
            self._open(self._schema or pa.schema([])).close()
            sync_file(self._partial)
            os.replace(self._partial, self._path)
            self._writer = None
            sync_folder(self._path.parent)
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def abort(self) -> None:
        """Remove the unfinished file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abandon()
        self._partial.unlink(missing_ok=True)

    def _open(self, schema: pa.Schema) -> "_Writer":
        if self._writer is None:
            make: dict[str, Callable[[Path, pa.Schema], _Writer]] = {".parquet": _Parquet, ".csv": _Csv}
            self._writer = make.get(self._path.suffix, _Ndjson)(self._partial, schema)
        return self._writer


class StdoutSink:
    """Rows as NDJSON on stdout, as they come: what reads them may end at any time."""

    def write(self, rows: pa.Table) -> None:
        """Add rows. Errors: OutputError; BrokenPipeError when nobody reads on."""
        for piece in in_pieces(rows):
            _Ndjson(sys.stdout.buffer, piece.schema).write(piece)

    def commit(self) -> None:
        """Pass on all rows. Errors: those of write."""
        sys.stdout.flush()

    def abort(self) -> None:
        """Do nothing: what is written cannot be taken back."""


class _Writer(Protocol):
    def write(self, rows: pa.Table) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


class _Parquet:
    """zstd level 1; dictionary-encoded columns stay encoded, integers are delta-encoded.

    Lists and maps get no statistics: those would cover single elements, and cost as much as writing them.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        whole = [f.name for f in schema if pa.types.is_integer(f.type)]
        coded = [f.name for f in schema if f.name not in whole and not pa.types.is_floating(f.type)]
        self._file = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[_leaf(schema.field(name)) for name in coded if name != "session_id"],
            column_encoding=dict.fromkeys(whole, "DELTA_BINARY_PACKED"),
            write_statistics=[f.name for f in schema if not pa.types.is_nested(f.type)],
            store_schema=False,
        )

    def write(self, rows: pa.Table) -> None:
        self._file.write_table(rows if rows.schema == self._schema else rows.cast(self._schema))

    def close(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        self._file.close()


def _leaf(field: pa.Field) -> str:
    """Parquet's name of the column with a field's text."""
    if pa.types.is_map(field.type):
        return f"{field.name}.key_value.key"
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


class _Text:
    """A text file of lines, one per row."""

    def __init__(self, to: Path | IO[bytes], schema: pa.Schema) -> None:
        self._schema = _plain_schema(schema)
        self._file: IO[bytes] = open(to, "wb") if isinstance(to, Path) else to  # noqa: SIM115 - see close

    def close(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        self._file.close()


class _Csv(_Text):
    """RFC 4180 with a header; lists and maps are written as JSON."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        from pyarrow import csv

        super().__init__(path, schema)
        self._schema = pa.schema([(f.name, pa.string() if _needs_json(f.type) else f.type) for f in self._schema])
        self._csv = csv.CSVWriter(self._file, self._schema)

    def write(self, rows: pa.Table) -> None:
        flat = [_flat(column) for column in rows.columns]
        self._csv.write_table(pa.table(flat, names=rows.column_names).cast(self._schema))

    def close(self) -> None:
        self._csv.close()
        super().close()

    def abandon(self) -> None:
        self._csv.close()
        super().abandon()


class _Ndjson(_Text):
    """One JSON object a line; maps are objects, dates ISO 8601."""

    def write(self, rows: pa.Table) -> None:
        plain = rows.cast(self._schema)
        columns = [_as_json(column) for column in plain.columns]
        names = plain.column_names
        dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
        lines = (dump(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True))
        self._file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))


def _as_json(column: pa.ChunkedArray) -> list[Any]:
    values = column.to_pylist()
    if pa.types.is_binary(column.type):
        # a byte that is not UTF-8 becomes a backslash, x and two digits, the rest stays text
        return [None if v is None else v.decode("utf-8", "backslashreplace") for v in values]
    return [None if v is None else dict(v) for v in values] if pa.types.is_map(column.type) else values


def _needs_json(kind: pa.DataType) -> bool:
    """Whether CSV has no form for the type, so that it is written as JSON."""
    return bool(pa.types.is_nested(kind) or pa.types.is_binary(kind))


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    if pa.types.is_nested(column.type):
        return _json_text(column)
    return pa.array(_as_json(column), pa.string()) if pa.types.is_binary(column.type) else column


def _json_text(column: pa.ChunkedArray) -> pa.Array:
    dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
    return pa.array([None if v is None else dump(v) for v in _as_json(column)], pa.string())


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([(f.name, SESSION_TYPES.get(f.name, _plain_type(f.type))) for f in schema])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return pa.list_(decoded_type(kind.value_type)) if pa.types.is_list(kind) else decoded_type(kind)


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError("the output can't be written", detail=f"{path}: {error.strerror or error}", hint=None)
