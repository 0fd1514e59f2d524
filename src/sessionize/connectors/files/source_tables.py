"""ORC and Avro files to decoded batches. Of a damaged file the rows before the damage are read."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from sessionize.connectors.files.notices import LOG
from sessionize.connectors.files.source_paths import InputFile
from sessionize.connectors.files.source_worker import DecoderSpec
from sessionize.connectors.files.unreadable import file_failure
from sessionize.errors import InputError
from sessionize.formats.rejects import CORRUPT_AVRO, CORRUPT_ORC, Fault, Rejects
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.validation import Decoded

_RECORDS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReader:
    """spec: the decoder's arguments. rows_max: of a batch, None for a stripe of ORC or a sensible number."""

    spec: DecoderSpec
    rows_max: int | None

    def orc(self, file: InputFile) -> Iterator[tuple[Decoded, int]]:
        """What is decoded of an ORC file, a stripe at a time, each with its share of the file's bytes.

        Errors: InputError if it cannot be read at all, or lacks a mapped column.
        """
        from pyarrow import orc

        spec, path = self.spec, file.path
        try:
            opened = orc.ORCFile(path)
            own: pa.Schema = opened.schema
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise file_failure(path, error) from error
            raise InputError(
                "an ORC file cannot be read", detail=f"{path}: {error}", hint="it is incomplete"
            ) from error
        keys = {name: text for name, text in file.keys if name not in own.names}
        schema = pa.schema([*own, *((name, pa.string()) for name in keys)])
        layout = Layout.of(schema, spec.dialect, source=path, columns=spec.columns, extras=spec.extras)
        tabular = Tabular(layout, spec.dialect, latest_ms=spec.latest_ms)
        read = [name for name in layout.read if name not in keys]
        columns = read if set(read) <= set(own.names) else None  # a field of a struct: all columns
        done, rows = 0, max(opened.nrows, 1)
        for number in range(opened.nstripes):
            try:
                stripe = pa.Table.from_batches([opened.read_stripe(number, columns=columns)])
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise file_failure(path, error) from error
                lost = max(opened.nrows - done, 1)
                fault = Fault(CORRUPT_ORC, f"{lost:,} rows cannot be read, from row {done + 1:,} on: {error}")
                LOG.warning("%s is damaged: %s", path, fault.detail)
                rejects = Rejects()
                rejects.add(None, source=path, line_number=done + 1, fault=fault)
                nothing = tabular.decode(_with(schema.empty_table(), {}), source=path, line_number=int)
                yield Decoded(nothing.events, rejects.take(), {CORRUPT_ORC: lost - 1}), 0
                return
            for start in range(0, len(stripe), self.rows_max or max(len(stripe), 1)):
                table = stripe.slice(start, self.rows_max)
                first = done + 1
                decoded = tabular.decode(_with(table, keys), source=path, line_number=lambda row, n=first: n + row)  # type: ignore[misc]
                done += len(table)
                yield decoded, file.size_bytes * len(table) // rows

    def avro(self, file: InputFile) -> Iterator[tuple[Decoded, int]]:
        """What is decoded of an Avro file; line numbers are those of its records. Errors: as orc."""
        from sessionize.formats.avro import json_records

        decoder = self.spec.decoder()
        limit = self.rows_max or _RECORDS
        with open(file.path, "rb") as opened:
            number, read_before = 1, 0
            texts: list[bytes] = []
            records = json_records(opened)
            while True:
                try:
                    text = next(records, None)
                except OSError as error:
                    raise file_failure(file.path, error) from error
                except Exception as error:  # damaged bytes can raise anything
                    fault = Fault(
                        CORRUPT_AVRO, f"record {number + len(texts):,} cannot be read, nor those after it: {error}"
                    )
                    LOG.warning("%s is damaged: %s", file.path, fault.detail)
                    decoder.add(
                        memoryview(b"\n".join([*texts, b""])), source=file.path, first_line=number, at_start=False
                    )
                    decoder.reject(None, source=file.path, line_number=number + len(texts), fault=fault)
                    yield decoder.take(), file.size_bytes - read_before
                    return
                if text is not None:
                    texts.append(text)
                if text is None or len(texts) >= limit:
                    data = memoryview(b"\n".join([*texts, b""]))
                    number += decoder.add(data, source=file.path, first_line=number, at_start=False) if texts else 0
                    texts = []
                    at = opened.tell()
                    yield decoder.take(), at - read_before
                    read_before = at
                if text is None:
                    return


def _with(table: pa.Table, keys: dict[str, str | None]) -> pa.Table:
    for name, text in keys.items():
        table = table.append_column(name, pa.repeat(pa.scalar(text, pa.string()), len(table)))
    return table
