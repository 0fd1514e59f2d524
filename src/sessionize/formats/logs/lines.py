"""Lines of a log to columns: combined, common, or any other by a pattern with named groups.

A line becomes a row of a table with named columns, so everything that maps the columns of CSV maps these. A line that
does not match is rejected alone.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.errors import ConfigError
from sessionize.formats.dialects import Dialect
from sessionize.formats.input_format import InputFormat
from sessionize.formats.json_errors import invalid_utf8, too_large
from sessionize.formats.lines import LINE_BYTES_MAX, LineIndex, without_bom
from sessionize.formats.logs.combined import TIME, TIME_TYPE, CombinedSplitter, no_match, without_dashes, without_words
from sessionize.formats.logs.times import Ints
from sessionize.formats.rejects import Faults
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.tabular_lines import TabularLines

_BLANK = b" \t\r"


class Splitter(Protocol):
    """Splits lines into columns."""

    @property
    def names(self) -> Sequence[str]:
        """All columns."""

    def split(self, lines: LineIndex, wanted: Sequence[str], places: Ints) -> tuple[pa.Table, Ints, Faults]:
        """The rows of the lines at these places, the places of those that are rows, and the faults of the others."""


class LogLines(TabularLines):
    """Decodes the lines of one log, with the interface of JsonLines."""

    def __init__(
        self,
        dialect: Dialect,
        input_format: InputFormat,
        *,
        source: str,
        columns: frozenset[str] | None = None,
        extras: bool = False,
        latest_ms: int | None = None,
        line_bytes_max: int = LINE_BYTES_MAX,
        constants: Mapping[str, str | None] | None = None,
    ) -> None:
        """input_format: a pattern, or combined. constants: as in TabularLines. Errors: ConfigError, InputError."""
        super().__init__(source, line_bytes_max=line_bytes_max, constants=constants or {})
        self._null_values = pa.array(input_format.null_values, pa.string())
        self._splitter: Splitter = (
            PatternSplitter(input_format)
            if input_format.pattern is not None
            else CombinedSplitter(page_query=input_format.page_query)
        )
        schema = pa.schema([(n, TIME_TYPE if self._is_time(n) else pa.string()) for n in self._splitter.names])
        self._constants = {name: text for name, text in self._constants.items() if name not in schema.names}
        schema = pa.schema([*schema, *((name, pa.string()) for name in self._constants)])
        layout = Layout.of(schema, dialect, source=source, columns=columns, extras=extras)
        self._wanted = [name for name in layout.read if name not in self._constants]
        self._use(Tabular(layout, dialect, latest_ms=latest_ms), layout)

    def add(self, data: memoryview | bytes, *, source: str, first_line: int = 1, at_start: bool = False) -> int:
        """Decode whole lines; returns their number."""
        self._source = source
        if at_start:
            data = without_bom(data)
        lines = LineIndex(memoryview(data))
        places, faults = self._usable(lines)
        table, rows, more = self._splitter.split(lines, self._wanted, places)
        if len(self._null_values):
            for at, field in enumerate(table.schema):
                if pa.types.is_string(field.type):
                    table = table.set_column(at, field, without_words(table.column(at), self._null_values))
        self._decode_rows(table, lines, rows, rows, faults | more, first_line)
        return len(lines)

    def _is_time(self, name: str) -> bool:
        return name == TIME and isinstance(self._splitter, CombinedSplitter)

    def _usable(self, lines: LineIndex) -> tuple[Ints, Faults]:
        """The lines that are neither blank, nor too long, nor of another encoding; the latter with their faults."""
        lengths = lines.ends - lines.starts
        usable = lengths > 0
        faults: Faults = {}
        first = lines.text[np.minimum(lines.starts, len(lines.text) - 1)] if len(lines) else lines.text
        for place in np.flatnonzero(usable & (first <= ord(" "))).tolist():
            usable[place] = bool(bytes(lines[place]).strip(_BLANK))
        if lines.longest > self._line_bytes_max:
            for place in np.flatnonzero(lengths > self._line_bytes_max).tolist():
                faults[place] = too_large(int(lengths[place]), self._line_bytes_max)
        if not lines.is_utf8():
            for place in np.flatnonzero(usable).tolist():
                line = bytes(lines[place])
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    faults.setdefault(place, invalid_utf8(line, error))
        usable[np.fromiter(faults, np.int64, len(faults))] = False
        return np.flatnonzero(usable), faults


class PatternSplitter:
    """Splits by a pattern: each named group is a column; "" and "-" are no values."""

    def __init__(self, input_format: InputFormat) -> None:
        """Errors: ConfigError for a pattern that RE2 does not read."""
        self.names = input_format.group_names
        self._pattern = input_format.re2_pattern
        try:
            pc.extract_regex(pa.array([""]), self._pattern)
        except pa.ArrowInvalid as error:
            raise ConfigError(
                "the pattern cannot be read",
                detail=f"{input_format.pattern}: {error}",
                hint="patterns are RE2's: without references and without looking ahead or behind",
            ) from None

    def split(self, lines: LineIndex, wanted: Sequence[str], places: Ints) -> tuple[pa.Table, Ints, Faults]:
        """See Splitter."""
        raw = [bytes(lines[place]).removesuffix(b"\r") for place in places.tolist()]
        found = pc.extract_regex(pa.array(raw, pa.binary()).cast(pa.string()), self._pattern)
        faults: Faults = {}
        if found.null_count:
            for row in np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False)).tolist():
                faults[int(places[row])] = no_match("regex", raw[row])
            good = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
            found, places = found.take(pa.array(good)), places[good]
        return pa.table({name: without_dashes(found.field(name)) for name in wanted}), places, faults
