"""The fields that no canonical column takes: kept as columns of their own, or as JSON text in `properties`.

Scalars become columns named as in the input, their type found for each batch; what is nested, has no usable name, or
comes after the first 200 names goes to `properties`, nested values letter by letter as they were written.
"""

from itertools import chain
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.formats.judging import EXTRA_COLUMNS_MAX
from sessionize.formats.lines import LineIndex
from sessionize.session.columns import EVENT_TYPES, PROPERTIES

_Value = str | int | float | bool | list[msgspec.Raw] | dict[str, msgspec.Raw] | None
_Fields = dict[str, Any]

_RESERVED = frozenset(EVENT_TYPES)


class Extras:
    """Gathers the unmapped fields of the records of a batch."""

    __slots__ = ("_decoder", "_mapped", "_records")

    def __init__(self, mapped: frozenset[str]) -> None:
        """mapped: top-level fields that have a canonical column; an object is not among them when a field of it is."""
        self._mapped = mapped
        self._decoder = msgspec.json.Decoder(dict[str, _Value])
        self._records: list[_Fields] = []

    def add(self, lines: LineIndex, places: npt.NDArray[np.int64] | None, keep: npt.NDArray[np.bool_] | None) -> None:
        """The records of a piece, whose bytes stay as they are until take.

        places: the line of each record, None when every line is one. keep: which records are events, None for all.
        """
        if places is None and keep is None:
            try:
                self._records.extend(self._decoder.decode_lines(lines.data))
                return
            except (msgspec.MsgspecError, RecursionError):
                pass
        rows = np.arange(len(lines)) if places is None else places
        for line in (rows if keep is None else rows[keep]).tolist():
            self._records.append(self._fields_of(lines[line]))

    def take(self) -> dict[str, pa.Array]:
        """The extra columns of everything added since the last take, in order of first appearance."""
        records, self._records = self._records, []
        columns: dict[str, pa.Array] = {}
        rest: list[_Fields] = [{} for _ in records]
        seen = {name.casefold() for name in _RESERVED}
        for name in dict.fromkeys(chain.from_iterable(records)):
            if name in self._mapped:
                continue
            usable = bool(name) and name.casefold() not in seen and len(columns) < EXTRA_COLUMNS_MAX
            values = [record.get(name) for record in records]
            kinds = set(map(type, values)) - {type(None)}
            if not usable or kinds & {list, dict}:
                for row, value in enumerate(values):
                    if value is not None and (not usable or isinstance(value, list | dict)):
                        rest[row][name] = value
                        values[row] = None
                kinds -= {list, dict}
            if usable and kinds:
                seen.add(name.casefold())
                columns[name] = _column(values, kinds)
        if any(rest):
            encode = msgspec.json.Encoder().encode
            columns[PROPERTIES] = pa.array(
                [encode(fields).decode() if fields else None for fields in rest], pa.string()
            )
        return columns

    def _fields_of(self, line: memoryview) -> _Fields:
        try:
            return self._decoder.decode(line)
        except (msgspec.MsgspecError, RecursionError):
            # Only a number that fits no machine type can be the reason: the line has been decoded before.
            raw = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
            return {name: _lenient(value) for name, value in raw.items()}


def _lenient(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw, type=_Value)
    except msgspec.ValidationError:
        return bytes(raw).decode()


def _column(values: list[Any], kinds: set[type]) -> pa.Array:
    """kinds: the types among the values. One type, or integers with fractions, else text."""
    try:
        if kinds == {bool}:
            return pa.array(values, pa.bool_())
        if kinds == {int}:
            return pa.array(values, pa.int64())
        if kinds <= {int, float}:
            return pa.array(values, pa.float64())
    except (pa.ArrowInvalid, OverflowError):
        pass  # an integer beyond 64 bits, or beyond what a double holds exactly
    return pa.array([value if value is None else _text(value) for value in values], pa.string())


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
