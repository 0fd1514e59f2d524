"""Aggregates as data: the session columns of one's own, folded with the built-in ones in the same pass.

Each settled event brings an input to each column: its value where the condition holds, nothing otherwise. A carried row
brings what the state has, so a column is folded over a session's rows alike, whether the session is new or goes on.
Text is kept as codes. State columns are called "own <column>" and "own <column> <part>".
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.kernel.distinct_counts import Codes, DistinctCounts, bounded
from sessionize.kernel.interner import Interner
from sessionize.kernel.sums import MICROS, quotients, sums
from sessionize.kernel.text_arrays import ranks
from sessionize.session.expression_values import computed, field_values
from sessionize.session.expressions import names_in
from sessionize.session.own_columns import NUMBER_MAX, RESULT_TYPES, BoundColumn, OwnColumns

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
Field = Callable[[str], "pa.Array | pa.ChunkedArray"]

PREFIX = "own "
HIGH = " high"  # behind the name of a sum: what is beyond 62 bits
_DTYPES: dict[str, type[np.generic]] = {
    "text": np.int32,
    "number": np.float64,
    "integer": np.int64,
    "boolean": np.bool_,
}


class OwnAggregates:
    """What folds the own columns of a run. names: the texts behind codes. tallies: of the distinct values, by key."""

    def __init__(self, own: OwnColumns) -> None:
        self.own = own
        self.names = Interner(few=True)
        self._folds = [_FOLDS[each.kind](PREFIX + each.name, each, self.names) for each in own.aggregates]

    @property
    def state_types(self) -> dict[str, type[np.generic]]:
        """The state columns beside those of OpenSessions, by name."""
        return {name: kind for fold in self._folds for name, kind in fold.state.items()}

    @property
    def coded(self) -> tuple[str, ...]:
        """The state columns that hold codes of `names`, -1 for none."""
        return tuple(fold.key for fold in self._folds if fold.is_coded)

    def new_tallies(self) -> dict[str, DistinctCounts]:
        """An empty tally for each column of distinct values."""
        return {fold.key: DistinctCounts(fold.limit) for fold in self._folds if isinstance(fold, _Distinct)}

    def inputs(self, field: Field, rows: int) -> dict[str, Array]:
        """The inputs of these events: an array for each state column or tally. field: gives a column of theirs."""
        fields = {name: field_values(field(name)) for name, _ in self.own.fields}
        made: dict[str, Array] = {}
        results: dict[tuple[str | None, str | None], pa.Array] = {}
        for fold in self._folds:
            column = fold.column
            asked = (column.of, column.definition.where)
            if asked not in results:
                results[asked] = _argument(*asked, fields, rows)
            made |= fold.inputs(results[asked])
        return made

    def folded(
        self, data: Mapping[str, Array], first: IntArray, last: IntArray, high: Mapping[str, Array]
    ) -> dict[str, Array]:
        """The state columns of each session. data: the inputs in order, carried rows among them; first, last: its rows.

        high: by session, what a carried row has of a sum beyond 62 bits.
        """
        made: dict[str, Array] = {}
        for fold in self._folds:
            made |= fold.folded(data, first, last, high)
        return made

    def result(self, name: str, columns: Mapping[str, Array], seen: Mapping[str, Codes], rows: int) -> pa.Array:
        """An aggregate of closed sessions."""
        fold = next(each for each in self._folds if each.column.name == name)
        return fold.result(columns, seen, rows)


def _argument(of: str | None, where: str | None, fields: Mapping[str, Any], rows: int) -> pa.Array:
    """What each event brings, null for nothing: the value, or true for an event that counts."""
    counts = None if where is None else _computed(where, fields, rows)
    if of is None:
        counts = pa.repeat(pa.scalar(True), rows) if counts is None else counts
        return pc.if_else(counts, True, pa.scalar(None, pa.bool_()))
    value = _computed(of, fields, rows)
    return value if counts is None else pc.if_else(counts, value, pa.scalar(None, value.type))


def _computed(text: str, fields: Mapping[str, Any], rows: int) -> Any:
    return computed(text, {name: fields[name] for name in names_in(text, "")}, rows)


def _numpy(values: Any, kind: type[np.generic], fill: object) -> Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    filled = pc.fill_null(values, fill) if values.null_count else values
    made: Array = filled.to_numpy(zero_copy_only=False)
    return made.astype(kind, copy=False)


def _valid(values: Any) -> npt.NDArray[np.bool_]:
    if not values.null_count:
        return np.ones(len(values), bool)
    made: npt.NDArray[np.bool_] = pc.is_valid(values).to_numpy(zero_copy_only=False)
    return made.astype(bool, copy=False)


class _Fold:
    """One column. key: of its inputs and state; state: its state columns with their types."""

    is_coded = False
    limit: int | None = None

    def __init__(self, key: str, column: BoundColumn, names: Interner) -> None:
        self.key, self.column, self.names = key, column, names
        self.state: dict[str, type[np.generic]] = {}

    def inputs(self, values: Any) -> dict[str, Array]:
        raise NotImplementedError

    def folded(
        self, data: Mapping[str, Array], first: IntArray, last: IntArray, high: Mapping[str, Array]
    ) -> dict[str, Array]:
        raise NotImplementedError

    def result(self, columns: Mapping[str, Array], seen: Mapping[str, Codes], rows: int) -> pa.Array:
        raise NotImplementedError


class _One(_Fold):
    """One value of those there are: the first, the last, the smallest, the largest."""

    def __init__(self, key: str, column: BoundColumn, names: Interner) -> None:
        super().__init__(key, column, names)
        self.is_coded = column.type == "text"
        self._has = f"{key} has"
        self.state = {key: _DTYPES[column.type]}
        if not self.is_coded:
            self.state[self._has] = np.bool_

    def inputs(self, values: Any) -> dict[str, Array]:
        if self.is_coded:
            return {self.key: self.names.encode(values)}
        dtype = _DTYPES[self.column.type]
        made = _numpy(values, dtype, dtype(0).item())
        return {self.key: made, self._has: _valid(values)}

    def folded(
        self, data: Mapping[str, Array], first: IntArray, last: IntArray, high: Mapping[str, Array]
    ) -> dict[str, Array]:
        value = data[self.key]
        has = value >= 0 if self.is_coded else data[self._has]
        fold = self._at_an_end if self.column.kind in ("first", "last") else self._extreme
        value, any_of = fold(value, has, first, last)
        return (
            {self.key: np.where(any_of, value, np.int32(-1))} if self.is_coded else {self.key: value, self._has: any_of}
        )

    def _at_an_end(self, value: Array, has: Array, first: IntArray, last: IntArray) -> tuple[Array, Array]:
        """The value of the first or last row that has one, and whether there is one."""
        n = len(value)
        if self.column.kind == "first":
            at = np.minimum.accumulate(np.where(has, np.arange(n), n)[::-1])[::-1][first]
            return value[np.minimum(at, n - 1)], at <= last
        at = np.maximum.accumulate(np.where(has, np.arange(n), -1))[last]
        return value[np.maximum(at, 0)], at >= first

    def _extreme(self, value: Array, has: Array, first: IntArray, last: IntArray) -> tuple[Array, Array]:
        """The smallest or largest value, and whether there is one; texts by their places in alphabetical order."""
        smallest = self.column.kind == "min"
        best = np.minimum if smallest else np.maximum
        any_of = np.logical_or.reduceat(has, first)
        if not self.is_coded:
            limits = np.finfo(np.float64) if value.dtype == np.float64 else np.iinfo(np.int64)
            nothing = (
                (np.inf if smallest else -np.inf)
                if value.dtype == np.float64
                else limits.max
                if smallest
                else limits.min
            )
            return best.reduceat(np.where(has, value, value.dtype.type(nothing)), first), any_of
        seen = np.zeros(len(self.names) + 1, bool)
        seen[value] = True
        codes = np.flatnonzero(seen[:-1])
        place = np.full(len(seen), len(codes) if smallest else -1, np.int64)  # the last one is that of no value
        place[codes] = ranks(self.names.values(codes))
        found = best.reduceat(place[value], first)
        by_place = np.full(len(codes) + 1, -1, np.int64)
        by_place[place[codes]] = codes
        return by_place[found].astype(np.int32), any_of

    def result(self, columns: Mapping[str, Array], seen: Mapping[str, Codes], rows: int) -> pa.Array:
        if self.is_coded:
            return self.names.values(columns[self.key])
        return pa.array(columns[self.key], RESULT_TYPES[self.column.type], mask=~columns[self._has])


class _Sum(_Fold):
    """A sum or a mean: exact in whole millionths (integers: in ones), and how many values there were."""

    def __init__(self, key: str, column: BoundColumn, names: Interner) -> None:
        super().__init__(key, column, names)
        self._high, self._count = f"{key}{HIGH}", f"{key} count"
        self.state = {key: np.int64, self._high: np.int64, self._count: np.int64}
        self._unit = 1 if column.type == "integer" else MICROS

    def inputs(self, values: Any) -> dict[str, Array]:
        has = _valid(values)
        if self._unit == 1:
            amount = _numpy(values, np.int64, 0)
        else:
            number = _numpy(values, np.float64, 0.0)
            has &= np.abs(number) <= NUMBER_MAX
            amount = np.rint(np.where(has, number, 0.0) * MICROS).astype(np.int64)
        return {self.key: amount, self._count: has.astype(np.int64)}

    def folded(
        self, data: Mapping[str, Array], first: IntArray, last: IntArray, high: Mapping[str, Array]
    ) -> dict[str, Array]:
        low, more = sums(data[self.key], first, high.get(self._high))
        return {self.key: low, self._high: more, self._count: np.add.reduceat(data[self._count], first)}

    def result(self, columns: Mapping[str, Array], seen: Mapping[str, Codes], rows: int) -> pa.Array:
        count = columns[self._count]
        divisor = np.full(rows, self._unit, np.int64)
        if self.column.kind == "mean":
            divisor *= np.maximum(count, 1)
        return pa.array(quotients(columns[self.key], columns[self._high], divisor), mask=count == 0)


class _Count(_Fold):
    """How many events, or values."""

    def __init__(self, key: str, column: BoundColumn, names: Interner) -> None:
        super().__init__(key, column, names)
        self.state = {key: np.int64}

    def inputs(self, values: Any) -> dict[str, Array]:
        return {self.key: _valid(values).astype(np.int64)}

    def folded(
        self, data: Mapping[str, Array], first: IntArray, last: IntArray, high: Mapping[str, Array]
    ) -> dict[str, Array]:
        return {self.key: np.add.reduceat(data[self.key], first)}

    def result(self, columns: Mapping[str, Array], seen: Mapping[str, Codes], rows: int) -> pa.Array:
        return pa.array(columns[self.key])


class _Distinct(_Fold):
    """Distinct values in the order of the first time, as text, or how many."""

    def __init__(self, key: str, column: BoundColumn, names: Interner) -> None:
        super().__init__(key, column, names)
        self.limit = column.definition.limit if column.kind == "distinct" else None

    def inputs(self, values: Any) -> dict[str, Array]:
        return {self.key: self.names.encode(values if self.column.type == "text" else values.cast(pa.string()))}

    def folded(
        self, data: Mapping[str, Array], first: IntArray, last: IntArray, high: Mapping[str, Array]
    ) -> dict[str, Array]:
        return {}

    def result(self, columns: Mapping[str, Array], seen: Mapping[str, Codes], rows: int) -> pa.Array:
        codes = seen[self.key]
        if self.limit is None:
            return pa.array(np.bincount(codes.owner, minlength=rows).astype(np.int64))
        codes = bounded(codes, self.limit)
        texts = self.names.values(codes.code)
        return pa.ListArray.from_arrays(pa.array(codes.offsets(rows)), texts)


_FOLDS: dict[str, type[_Fold]] = {
    **dict.fromkeys(("first", "last", "min", "max"), _One),
    **dict.fromkeys(("sum", "mean"), _Sum),
    "count": _Count,
    **dict.fromkeys(("distinct", "count_distinct"), _Distinct),
}
