"""JSON lines with fields that stand in the file's path: each record gets them, unless it has them itself."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from sessionize.formats.json_lines import JsonLines
from sessionize.formats.rejects import Fault
from sessionize.formats.validation import Decoded
from sessionize.session.columns import REJECTED_SCHEMA

_RECORD = re.compile(rb'^([ \t]*\{)(?=[ \t]*")', re.MULTILINE)


class KeyedJsonLines:
    """JsonLines for records with further fields; those of a record itself come later in it, and count."""

    def __init__(self, lines: JsonLines, fields: Mapping[str, str | None]) -> None:
        self._lines = lines
        self._text = b"".join(
            json.dumps(name, ensure_ascii=False).encode() + b":" + json.dumps(value, ensure_ascii=False).encode() + b","
            for name, value in fields.items()
        )

    @property
    def row_count(self) -> int:
        """The records since the last take."""
        return self._lines.row_count

    def add(self, data: memoryview | bytes, *, source: str, first_line: int = 1, at_start: bool = False) -> int:
        """See JsonLines."""
        given = _RECORD.sub(lambda found: found.group(1) + self._text, bytes(data))
        return self._lines.add(given, source=source, first_line=first_line, at_start=at_start)

    def flush(self) -> None:
        """See JsonLines."""

    def reject(self, raw: bytes | None, *, source: str, line_number: int, fault: Fault) -> None:
        """See JsonLines."""
        self._lines.reject(raw, source=source, line_number=line_number, fault=fault)

    def reject_long_line(self, head: bytes, size_bytes: int, *, source: str, line_number: int) -> None:
        """See JsonLines."""
        self._lines.reject_long_line(head, size_bytes, source=source, line_number=line_number)

    def take(self) -> Decoded:
        """See JsonLines; the bytes of rejected records are the file's own."""
        decoded = self._lines.take()
        rejected = decoded.rejected
        if not len(rejected):
            return decoded
        own = [None if raw is None else raw.replace(self._text, b"", 1) for raw in rejected["raw"].to_pylist()]
        at = REJECTED_SCHEMA.get_field_index("raw")
        own_bytes = pa.array(own, REJECTED_SCHEMA.field(at).type)
        return replace(decoded, rejected=rejected.set_column(at, REJECTED_SCHEMA.field(at), own_bytes))
