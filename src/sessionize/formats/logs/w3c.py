"""W3C extended logs to columns (IIS, CloudFront): the file names its fields, and may name others further down.

Beside the fields under their own names there are columns with the names that the combined format has: ip, user_agent,
page and so on. `time` is date and time together, in UTC, as the format's specification says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.arrow import one_chunk
from sessionize.errors import InputError
from sessionize.formats.csv_text.parser import CsvRows
from sessionize.formats.dialects import Dialect
from sessionize.formats.further_fields import FIELD_TYPES
from sessionize.formats.input_format import InputFormat
from sessionize.formats.lines import LINE_BYTES_MAX, LineIndex, without_bom
from sessionize.formats.logs.combined import without_dashes, without_words
from sessionize.formats.rejects import NO_MATCH, Fault
from sessionize.formats.tabular import Tabular
from sessionize.formats.tabular_layout import Layout
from sessionize.formats.tabular_lines import TabularLines
from sessionize.formats.validation import DECODED_TYPES, Decoded
from sessionize.session.columns import EVENT_TIME, REJECTED_SCHEMA

_HASH = ord("#")
_DATE, _TIME, _PAGE, _AGENT = "date", "time", "page", "user_agent"
_STEM, _QUERY = "cs-uri-stem", "cs-uri-query"
_ALIASES = {
    "ip": "c-ip",
    _AGENT: "cs(User-Agent)",
    "referrer": "cs(Referer)",
    "method": "cs-method",
    "status": "sc-status",
    "bytes": "sc-bytes",
    "protocol": "cs-version",
    "auth_user": "cs-username",
}
_NO_FIELDS = Fault(NO_MATCH, "no #Fields line that names the columns comes before")


def _with_our_time(dialect: Dialect) -> Dialect:
    """The dialect for rows whose `time` is date and time already, where it would join them itself."""
    if EVENT_TIME not in dialect.joined or dialect.event_time_ms != (_DATE, _TIME):
        return dialect
    return replace(dialect, event_time_ms=(_TIME,), joined=dialect.joined - {EVENT_TIME})


class W3cLines(TabularLines):
    """Decodes one W3C extended log, with the interface of JsonLines. Lines that begin with # are no records."""

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
        super().__init__(source, line_bytes_max=line_bytes_max, constants=constants or {})
        self._dialect, self._format = _with_our_time(dialect), input_format
        self._columns, self._extras, self._latest_ms = columns, extras, latest_ms
        self._null_values = pa.array(input_format.null_values, pa.string())
        self._fields: list[str] = []
        self._rows: CsvRows | None = None
        self._wanted: Sequence[str] = ()
        self._date: str | None = None
        self._fault = _NO_FIELDS
        self._has_begun = False
        types = DECODED_TYPES | {name: FIELD_TYPES[kind] for name, kind in dialect.field_types.items()}
        empty = pa.table({name: pa.array([], types[name]) for name in sorted(dialect.columns_for(columns))})
        self._nothing = Decoded(empty, REJECTED_SCHEMA.empty_table())  # until the fields are named

    def add(self, data: memoryview | bytes, *, source: str, first_line: int = 1, at_start: bool = False) -> int:
        """Decode whole lines; returns their number."""
        self._source = source
        data = memoryview(without_bom(data) if at_start else data)
        lines = LineIndex(data)
        if not len(lines):
            return 0
        filled = lines.ends > lines.starts
        marked = np.flatnonzero(filled & (lines.text[np.minimum(lines.starts, len(data) - 1)] == _HASH)).tolist()
        at = 0
        for line in (*marked, len(lines)):
            if line > at:
                end = int(lines.starts[line]) if line < len(lines) else len(data)
                self._add_rows(data[int(lines.starts[at]) : end], first_line + at)
            if line < len(lines):
                self._directive(bytes(lines[line]).decode("utf-8", "replace").strip())
            at = line + 1
        return len(lines)

    def _directive(self, text: str) -> None:
        name, _, value = text[1:].partition(":")
        words = value.split()
        if name.strip().lower() == "date" and words:
            self._date = words[0]
        elif name.strip().lower() == "fields" and words:
            self._fields, self._rows = words, None
            dialect = replace(self._dialect, exact=False) if self._has_begun else self._dialect
            try:
                self._lay_out(words, dialect)
            except InputError as error:
                if not self._has_begun:
                    raise
                self._fields = []  # its lines are rejected, and those of the next fields are read
                self._fault = Fault(NO_MATCH, f"{error.message}: {error.detail}")
            self._has_begun = True

    def _lay_out(self, fields: Sequence[str], dialect: Dialect) -> None:
        """Errors: InputError if a required column is missing."""
        own = {name: text for name, text in self._constants.items() if name not in fields}
        schema = pa.schema([(name, pa.string()) for name in dict.fromkeys((*fields, *_derived(fields), *own))])
        layout = Layout.of(schema, dialect, source=self._source, columns=self._columns, extras=self._extras)
        self._constants = own
        self._wanted = [name for name in layout.read if name not in own]
        self._use(Tabular(layout, dialect, latest_ms=self._latest_ms), layout)

    def _add_rows(self, data: memoryview, first_line: int) -> None:
        lines = LineIndex(data)
        places = np.flatnonzero(lines.ends > lines.starts)
        if not self._fields:
            for place in places.tolist():
                raw = bytes(lines[place])
                if raw.strip():
                    self.reject(raw, source=self._source, line_number=first_line + place, fault=self._fault)
            return
        if self._rows is None and len(places):
            first = bytes(lines[int(places[0])])
            delimiter = self._format.delimiter or ("\t" if b"\t" in first else " ")
            names = list(dict.fromkeys(self._fields))
            self._rows = CsvRows(
                self._fields if len(names) == len(self._fields) else _numbered(self._fields),
                delimiter=delimiter,
                read=names,
                line_bytes_max=self._line_bytes_max,
            )
        if self._rows is not None:
            piece = self._rows.parse(lines, final=True)
            self._decode_rows(self._table(piece.table), lines, piece.first, piece.last, piece.faults, first_line)

    def _table(self, raw: pa.Table) -> pa.Table:
        """The wanted columns of rows."""
        cache: dict[str, pa.Array] = {}

        def field(name: str) -> pa.Array | None:
            if name not in raw.column_names:
                return None
            if name not in cache:
                cache[name] = without_words(without_dashes(one_chunk(raw[name])), self._null_values)
            return cache[name]

        def column(name: str) -> Any:
            if name == _TIME:
                return self._times(field(_DATE), field(_TIME), len(raw))
            if name == _PAGE and _PAGE not in raw.column_names:
                return self._pages(field(_STEM), field(_QUERY), len(raw))
            found = field(name) if name in raw.column_names else field(_ALIASES.get(name, ""))
            if found is None:
                return pa.nulls(len(raw), pa.string())
            return pc.replace_substring(found, "+", " ") if _ALIASES[_AGENT] in (name, _ALIASES.get(name)) else found

        return pa.table({name: column(name) for name in self._wanted})

    def _times(self, dates: pa.Array | None, times: pa.Array | None, count: int) -> pa.Array:
        if times is None:
            return pa.nulls(count, pa.string())
        if dates is None:
            dates = pa.repeat(pa.scalar(self._date, pa.string()), count)
        return pc.binary_join_element_wise(pc.binary_join_element_wise(dates, times, " "), "Z", "")

    def _pages(self, stems: pa.Array | None, queries: pa.Array | None, count: int) -> pa.Array:
        if stems is None or queries is None or not self._format.page_query:
            return stems if stems is not None else pa.nulls(count, pa.string())
        return pc.coalesce(pc.binary_join_element_wise(stems, queries, "?"), stems)


def _derived(fields: Sequence[str]) -> list[str]:
    """The columns beside the fields."""
    names = [alias for alias, field in _ALIASES.items() if field in fields]
    return [*names, *([_PAGE] if _STEM in fields else []), *([_TIME] if _TIME in fields else [])]


def _numbered(fields: Sequence[str]) -> list[str]:
    """The fields with a number where a name comes again: the first one counts."""
    seen: set[str] = set()
    names = []
    for place, name in enumerate(fields, 1):
        names.append(f"{name}_{place}" if name in seen else name)
        seen.add(name)
    return names
