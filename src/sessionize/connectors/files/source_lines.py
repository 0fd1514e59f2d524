"""Reads the text of one input: opens it by its content, chooses the decoder, and returns what is decoded in batches."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from sessionize.connectors.files.notices import LOG, skipped_files
from sessionize.connectors.files.opening import Text, named, texts
from sessionize.connectors.files.places import open_bytes, transport_failure
from sessionize.connectors.files.source_paths import STDIN, InputFile
from sessionize.connectors.files.source_text import Prefixed, ReadAhead, TextDecoder, feed, split_header
from sessionize.connectors.files.source_worker import DecoderSpec
from sessionize.connectors.files.unreadable import file_failure
from sessionize.errors import InputError
from sessionize.formats.input_format import LOGS, InputFormat
from sessionize.formats.json_lines import JsonLines
from sessionize.formats.lines import Readable
from sessionize.formats.validation import Decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReader:
    """Reads text files and pipes. spec: the decoder's arguments. batch_bytes, batch_records: as in FileSource."""

    spec: DecoderSpec
    input_format: InputFormat
    batch_bytes: int
    batch_records: int | None

    def batches(self, file: InputFile) -> Iterator[tuple[Decoded, int]]:
        """What is decoded of one file, each with the bytes that were read for it.

        Errors: InputError if it cannot be read, or lacks a mapped column; UnavailableError if the disk fails.
        """
        try:
            if file.path == STDIN:
                buffered = sys.stdin.buffer
                yield from self._texts(file, cast(Readable, getattr(buffered, "raw", buffered)))
                return
            with open_bytes(file.path) as raw:
                yield from self._texts(file, raw)
        except OSError as error:
            raise transport_failure(file.path, error) or file_failure(file.path, error) from error

    def _texts(self, file: InputFile, raw: Readable) -> Iterator[tuple[Decoded, int]]:
        read_before = 0
        for text in texts(raw, self.input_format, named(file.path), source=file.path, pipe=file.pipe):
            try:
                first_line, decoder, stream = self._decoder(text, dict(file.keys))
            except InputError as error:
                if not (file.guessed and file.in_folder):
                    raise
                LOG.warning("%s", skipped_files([file.path], f"{error.message}: {error.detail}"))
                continue
            if text.damage is None or file.pipe:  # a thread that waits for a pipe cannot be stopped
                steps = self._fed(text, decoder, stream, first_line)
            else:
                steps = self._fed_ahead(text, decoder, stream, first_line)
            for decoded, size_bytes in steps:
                if text.damage is not None:
                    size_bytes, read_before = text.damage.read_bytes - read_before, text.damage.read_bytes
                yield decoded, size_bytes

    def _fed_ahead(
        self, text: Text, decoder: TextDecoder | None, stream: Readable, first_line: int
    ) -> Iterator[tuple[Decoded, int]]:
        ahead = ReadAhead(stream)
        try:
            yield from self._fed(text, decoder, ahead, first_line)
        finally:
            ahead.close()

    def _fed(
        self, text: Text, decoder: TextDecoder | None, stream: Readable, first_line: int
    ) -> Iterator[tuple[Decoded, int]]:
        damage = text.damage
        if decoder is None:
            return
        gathered = lines = 0
        lines_max = self.batch_records
        steps = feed(stream, decoder, source=text.source, first_line=first_line, damage=damage, lines_max=lines_max)
        for size_bytes, line_count in steps:
            gathered += size_bytes
            lines += line_count
            if gathered >= self.batch_bytes or (lines_max is not None and lines >= lines_max):
                yield decoder.take(), gathered
                gathered = lines = 0
        rest = decoder.take()
        # the end decides about a last line without a line feed, or with an unclosed quote
        if gathered or rest.events.num_rows or rest.rejected.num_rows:
            yield rest, gathered

    def _decoder(self, text: Text, keys: dict[str, str | None]) -> tuple[int, TextDecoder | None, Readable]:
        """The number of the first line, what decodes it and the lines after it (None: there are none), and those."""
        kind = text.sniffed.format
        spec = self.spec
        if kind == "csv":
            return self._csv(text, keys)
        if kind in LOGS:
            return 1, spec.log_decoder(kind, source=text.source, keys=keys), text.stream
        lines = JsonLines(spec.dialect, columns=spec.columns, extras=spec.extras, latest_ms=spec.latest_ms)
        if keys:
            from sessionize.formats.json_stream.keyed import KeyedJsonLines

            lines = cast(JsonLines, KeyedJsonLines(lines, keys))
        if kind == "json":
            from sessionize.formats.json_stream.values import JsonValues

            return 1, JsonValues(lines), text.stream
        return 1, lines, text.stream

    def _csv(self, text: Text, keys: dict[str, str | None]) -> tuple[int, TextDecoder | None, Readable]:
        # pyarrow.csv is only needed here
        from sessionize.formats.csv_text.decoder import CsvLines
        from sessionize.formats.csv_text.parser import header_names

        header, line, stream, input_format = None, 0, text.stream, self.input_format
        if not self.input_format.columns:
            found = split_header(stream, source=text.source, comment=self.input_format.comment)
            fault = None if text.damage is None else text.damage.fault
            if found.ended and fault is not None:
                LOG.warning("%s is damaged: %s; it has no whole line", text.source, fault.detail)
                damaged = self.spec.decoder()  # of any kind: it has nothing but this record
                damaged.reject(found.text or None, source=text.source, line_number=found.line, fault=fault)
                text.damage = None
                return found.line + 1, damaged, found.rest
            if not found.text:
                return found.line, None, found.rest
            header, line, stream = found.text, found.line, found.rest
            own = self.spec.dialect.header
            names = header_names(header, delimiter=text.sniffed.delimiter or ",", source=text.source)
            if own and len(names) == len(own) and not set(names) & set(own):  # it is a row
                header, stream = None, Prefixed(found.text + b"\n", stream)
                line, input_format = line - 1, replace(input_format, columns=own)
        decoder = CsvLines(
            header,
            self.spec.dialect,
            source=text.source,
            delimiter=text.sniffed.delimiter or ",",
            input_format=input_format,
            columns=self.spec.columns,
            extras=self.spec.extras,
            latest_ms=self.spec.latest_ms,
            constants=keys,
        )
        return line + 1, decoder, stream
