"""The worker process: takes work from stdin, puts results in shared memory, reports them on stdout."""

import json
import os
import pickle
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sessionize.connectors.files.quick_start import without_pandas
from sessionize.connectors.files.source_ranges import Work, decode
from sessionize.connectors.files.source_text import TextDecoder
from sessionize.formats.dialects import Dialect
from sessionize.formats.input_format import AUTO, LOGS, InputFormat
from sessionize.formats.json_lines import JsonLines

COUNTS = b"counts"  # the counts of Decoded, in the metadata of the rejects
MESSAGE = struct.Struct("=qqq")  # bytes of the events, bytes of the rejects, lines


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSpec:
    """The arguments of a decoder of lines. input_format: of a log, or AUTO for JSON lines."""

    dialect: Dialect
    columns: frozenset[str] | None
    extras: bool
    latest_ms: int | None
    input_format: InputFormat = AUTO

    def decoder(self) -> TextDecoder:
        """A new decoder for this process. Errors: InputError if the log has no such field."""
        if self.input_format.format in LOGS:
            name = self.input_format.format
            return self.log_decoder(name, source=f"logs of the format {name}", keys={})
        return JsonLines(self.dialect, columns=self.columns, extras=self.extras, latest_ms=self.latest_ms)

    def log_decoder(self, kind: str, *, source: str, keys: Mapping[str, str | None]) -> TextDecoder:
        """A new decoder of logs. keys: columns with the same text in every row. Errors: as decoder."""
        from sessionize.formats.logs.lines import LogLines
        from sessionize.formats.logs.w3c import W3cLines

        make = W3cLines if kind == "w3c" else LogLines
        return make(
            self.dialect,
            self.input_format,
            source=source,
            columns=self.columns,
            extras=self.extras,
            latest_ms=self.latest_ms,
            constants=keys,
        )


def main() -> None:
    """Work until stdin ends. Errors are not printed: the parent repeats failed work and raises the error itself."""
    without_pandas()
    slots, spec = pickle.load(sys.stdin.buffer)
    decoder = spec.decoder()
    try:
        while True:
            slot, work = pickle.load(sys.stdin.buffer)
            _work(decoder, work, slots[slot])
    except (EOFError, BrokenPipeError):
        os._exit(0)
    except Exception:
        os._exit(1)


def _work(decoder: TextDecoder, work: Work, slot: int) -> None:
    done = decode(work, decoder)
    at = 0
    sizes = []
    counts = {COUNTS: json.dumps([dict(done.decoded.nulled), done.decoded.local_times])}
    for table in (done.decoded.events, done.decoded.rejected.replace_schema_metadata(counts)):
        data = _as_ipc(table)
        sizes.append(len(data))
        while len(data):
            written = os.pwrite(slot, data, at)
            at += written
            data = data[written:]
    os.write(sys.stdout.fileno(), MESSAGE.pack(*sizes, done.line_count))


def _as_ipc(table: Any) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())
