"""Keeps unmapped fields as columns of their own, or as JSON text in `properties`.

Scalars become columns with the input's names; their type is inferred for each batch. Fields that are nested, have an
invalid name or come after the first 200 names go to `properties`, with their text unchanged. The names are learned
from the records: a typed decoder reads whole pieces until a new name appears, then records are read one by one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.formats.lines import LineIndex
from sessionize.formats.validation import EXTRA_COLUMNS_MAX
from sessionize.session.columns import EVENT_TYPES, PROPERTIES

_Scalar = str | int | float | bool | None
_Fields = dict[str, msgspec.Raw]

_ABSENT = msgspec.Raw()
_NESTED = (b"{", b"[")
# Characters in names that a typed decoder cannot read, or that SQL has to quote.
_INVALID_NAME = re.compile(r'["\\\x00-\x1f]')
_UNNAMEABLE_BATCHES = 64
_ERRORS = (msgspec.MsgspecError, RecursionError)


@dataclass(frozen=True, slots=True)
class _Piece:
    """scalars: by name, a value for each record. rest: JSON objects as text, null if there is no other field."""

    record_count: int
    scalars: dict[str, list[Any]]
    rest: pa.StringArray


class Extras:
    """Collects the unmapped fields of a batch of records."""

    __slots__ = (
        "_as_text",
        "_attributes",
        "_batches_to_wait",
        "_decoder",
        "_fields",
        "_mapped",
        "_pieces",
        "_reserved",
        "_scalar",
        "_slots",
        "_unnameable",
    )

    def __init__(self, mapped: frozenset[str], *, taken: frozenset[str]) -> None:
        """mapped: the top-level fields with a column. taken: the names of the user column and of further fields; no
        other field can have a column of that name.
        """
        self._mapped = mapped
        self._reserved = frozenset(name.casefold() for name in (*EVENT_TYPES, *taken))
        self._as_text: dict[str, bool] = {}  # field name -> whether it may be anything but a scalar
        self._attributes: dict[str, str] = {}  # field name -> attribute of the typed decoder's records
        self._unnameable = False  # too many names, or names that differ only in case
        self._batches_to_wait = 0  # until the names are reset and learned again
        self._decoder: msgspec.json.Decoder[Any] | None = None
        self._fields = msgspec.json.Decoder(_Fields)
        self._scalar: msgspec.json.Decoder[_Scalar] = msgspec.json.Decoder(_Scalar)
        self._pieces: list[_Piece] = []
        self._slots: dict[str, str] = {}  # the columns of this batch: casefolded name -> name

    def add(self, lines: LineIndex, wanted: Sequence[int] | None) -> None:
        """Add the records of a piece. wanted: the lines that are events, None for all lines."""
        records = self._records(lines, wanted)
        if records is None:
            self._pieces.append(self._field_by_field(self._all_fields(lines, wanted)))
        else:
            self._pieces.append(self._column_by_column(records))

    def take(self) -> dict[str, pa.Array]:
        """The extra columns of all records since the last take, ordered by name."""
        pieces, self._pieces = self._pieces, []
        names, self._slots = sorted(self._slots.values()), {}
        if self._unnameable:
            self._batches_to_wait -= 1
            if not self._batches_to_wait:
                self._unnameable, self._as_text, self._decoder = False, {}, None
        columns: dict[str, pa.Array] = {}
        for name in names:
            values: list[Any] = []
            for piece in pieces:
                values += piece.scalars.get(name) or [None] * piece.record_count
            columns[name] = _column(values)
        rest = pa.chunked_array([piece.rest for piece in pieces], pa.string())
        if rest.null_count < len(rest):
            columns[PROPERTIES] = rest.combine_chunks()
        return columns

    def _records(self, lines: LineIndex, wanted: Sequence[int] | None) -> list[Any] | None:
        """The records as structs; None if they must be read field by field."""
        for _ in range(2):
            if self._unnameable:
                return None
            if self._decoder is not None:
                try:
                    if wanted is None:
                        return self._decoder.decode_lines(lines.data)
                    return [self._decoder.decode(lines[line]) for line in wanted]
                except _ERRORS:
                    pass
            self._learn(self._all_fields(lines, wanted))
        return None

    def _all_fields(self, lines: LineIndex, wanted: Sequence[int] | None) -> list[_Fields]:
        found = []
        for line in range(len(lines)) if wanted is None else wanted:
            try:
                found.append(self._fields.decode(lines[line]))
            except _ERRORS:  # nested right at the limit: decodes as an event, and is kept whole
                found.append({"": msgspec.Raw(bytes(lines[line]))})
        return found

    def _learn(self, many: list[_Fields]) -> None:
        for fields in many:
            if len(fields) > 2 * EXTRA_COLUMNS_MAX:
                continue  # an unusual record: its piece is read field by field
            if len(self._as_text) > EXTRA_COLUMNS_MAX:
                break
            for name, raw in fields.items():
                if name in self._mapped or self._as_text.get(name) or _INVALID_NAME.search(name):
                    continue  # a piece with an invalid name is read field by field
                self._as_text[name] = not (name and name.casefold() not in self._reserved) or isinstance(
                    self._value(bytes(raw)), bytes
                )
        folded = {name.casefold() for name in self._as_text}
        self._unnameable = len(folded) < len(self._as_text) or len(self._as_text) > EXTRA_COLUMNS_MAX
        if self._unnameable:
            self._batches_to_wait, self._decoder = _UNNAMEABLE_BATCHES, None
            return
        self._attributes = {name: f"f{number}" for number, name in enumerate(self._as_text)}
        members: list[tuple[str, Any, Any]] = [
            (place, msgspec.Raw if self._as_text[name] else _Scalar, _ABSENT if self._as_text[name] else None)
            for name, place in self._attributes.items()
        ]
        names = {place: name for name, place in self._attributes.items()}
        for number, name in enumerate(self._mapped):  # declared, so that only new fields are unknown
            members.append((f"m{number}", msgspec.Raw, _ABSENT))
            names[f"m{number}"] = name
        struct = msgspec.defstruct("Extras", members, rename=names, gc=False, forbid_unknown_fields=True)
        self._decoder = msgspec.json.Decoder(struct)

    def _column_by_column(self, records: list[Any]) -> _Piece:
        scalars: dict[str, list[Any]] = {}
        left: list[tuple[str, pa.Array]] = []
        for name in sorted(self._as_text):
            values = list(map(attrgetter(self._attributes[name]), records))
            if self._as_text[name]:
                texts, values = self._split(name, values)
                left.append((name, texts))
            if values.count(None) < len(values):
                scalars[name] = values
                self._slots.setdefault(name.casefold(), name)
        return _Piece(len(records), scalars, _joined(left, len(records)))

    def _split(self, name: str, raws: list[msgspec.Raw]) -> tuple[pa.Array, list[Any]]:
        """The values of one field that stay text (null elsewhere), and its scalars (None elsewhere)."""
        texts: list[bytes | None] = list(map(bytes, raws))
        array = pa.array(texts, pa.string())
        first = pc.utf8_slice_codeunits(array, 0, 1)
        if name and name.casefold() not in self._reserved:
            stays = pc.is_in(first, pa.array(["{", "["]))
        else:
            stays = pc.invert(pc.is_in(first, pa.array(["n", ""])))  # null or absent
        values: list[Any] = [None] * len(raws)
        for row in np.flatnonzero(pc.invert(stays).to_numpy(zero_copy_only=False)):
            raw = texts[row]
            if raw and name and name.casefold() not in self._reserved:
                value = self._value(raw)
                values[row] = value.decode() if isinstance(value, bytes) else value
        return pc.if_else(stays, array, None), values

    def _field_by_field(self, many: list[_Fields]) -> _Piece:
        """As _column_by_column, for any names: the first names that need a column get one."""
        scalars: dict[str, list[Any]] = {}
        rest: list[str | None] = []
        for row, fields in enumerate(many):
            left: dict[str, str] = {}
            for name, raw in fields.items():
                text = bytes(raw)
                if name in self._mapped or text == b"null":
                    continue
                if text.startswith(_NESTED) or not self._has_slot(name):
                    left[name] = text.decode()
                    continue
                value = self._value(text)
                scalars.setdefault(name, [None] * len(many))[row] = (
                    value.decode() if isinstance(value, bytes) else value
                )
            rest.append(_object(left) if left else None)
        return _Piece(len(many), scalars, pa.array(rest, pa.string()))

    def _has_slot(self, name: str) -> bool:
        """Whether this name is a column of this batch; makes it one if possible."""
        folded = name.casefold()
        if not name or folded in self._reserved or _INVALID_NAME.search(name):
            return False
        if folded not in self._slots and len(self._slots) < EXTRA_COLUMNS_MAX:
            self._slots[folded] = name
        return self._slots.get(folded) == name

    def _value(self, text: bytes) -> _Scalar | bytes:
        """A scalar, or the text of a nested value or of a number that fits no machine type."""
        try:
            return self._scalar.decode(text)
        except msgspec.ValidationError:
            return text


def _joined(left: list[tuple[str, pa.Array]], count: int) -> pa.StringArray:
    """One object per row of the fields that are not null: string[count], null for an empty object."""
    left = [(name, texts) for name, texts in left if texts.null_count < count]
    if not left:
        return pa.nulls(count, pa.string())
    # null_handling="skip" would lose the rows in which all fields are null.
    members = [pc.binary_join_element_wise(f"{_quoted(name)}:", texts, ",", "").fill_null("") for name, texts in left]
    inner = pc.utf8_rtrim(pc.binary_join_element_wise(*members, ""), characters=",")
    whole = pc.binary_join_element_wise("{", inner, "}", "")
    return pc.if_else(pc.equal(pc.binary_length(inner), 0), pa.scalar(None, pa.string()), whole)


def _object(fields: dict[str, str]) -> str:
    return "{" + ",".join(f"{_quoted(name)}:{fields[name]}" for name in sorted(fields)) + "}"


def _quoted(name: str) -> str:
    return msgspec.json.encode(name).decode()


def _column(values: list[Any]) -> pa.Array:
    """Booleans, integers or numbers; mixed values and those that do not fit become text."""
    kinds = set(map(type, values)) - {type(None)}
    try:
        if kinds == {bool}:
            return pa.array(values, pa.bool_())
        if kinds == {int}:
            return pa.array(values, pa.int64())
        if kinds <= {int, float}:
            return pa.array(values, pa.float64())
        if kinds == {str}:
            return pa.array(values, pa.string())
    except (pa.ArrowInvalid, OverflowError):
        pass  # an integer beyond 64 bits, or beyond what a double holds exactly
    return pa.array([value if value is None else _text(value) for value in values], pa.string())


def _text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
