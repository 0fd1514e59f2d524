"""Operators that only tests know: counts of events by window and a column, events that stay a while, and a column."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sessionize import StateError
from sessionize.kernel.operator import Append, StateDelta, TableDelta, Upsert
from sessionize.kernel.reorder import SettledEvents

Key = tuple[int, str, str | None]


class Counts:
    """Events by window, user and a column, which are final once the watermark has passed the window."""

    def __init__(
        self,
        column: str = "product",
        window_ms: int = 10,
        name: str = "counts",
        tables: Sequence[str] = ("event_counts",),
    ) -> None:
        self.tables, self.name = tables, name
        self._column, self._window_ms = column, window_ms
        self.columns = {column: pa.string()}
        self._open: Counter[Key] = Counter()
        self._changed: set[Key] = set()

    @property
    def holds_state(self) -> bool:
        return bool(self._open)

    def take(self, events: SettledEvents) -> None:
        table = events.table(self.columns)
        assert table.schema == pa.schema(
            [("user", pa.string()), ("event_time_ms", pa.int64()), (self._column, pa.string())]
        )
        for user, time, value in zip(*(column.to_pylist() for column in table.columns), strict=True):
            key = (time // self._window_ms * self._window_ms, user, value)
            self._open[key] += 1
            self._changed.add(key)

    def advance(self, watermark_ms: int) -> Mapping[str, pa.Table]:
        return self._closed(lambda start: start + self._window_ms <= watermark_ms)

    def flush(self, end_ms: int | None) -> Mapping[str, pa.Table]:
        return self._closed(lambda start: True)

    def _closed(self, ends: Any) -> Mapping[str, pa.Table]:
        keys = sorted((key for key in self._open if ends(key[0])), key=repr)
        self._changed.update(keys)
        return {"event_counts": _table(self._column, [(*key, self._open.pop(key)) for key in keys])}

    def delta(self) -> StateDelta:
        changed, self._changed = sorted(self._changed, key=repr), set()
        rows = _table(self._column, [(*key, self._open[key]) for key in changed if key in self._open])
        removed = _table(self._column, [(*key, 0) for key in changed if key not in self._open])
        keys = ("window_start_ms", "user", self._column)
        table = TableDelta(rows=rows, merge=Upsert(keys), removed=removed.select(list(keys)))
        return StateDelta(header={"window_ms": self._window_ms}, tables={"open": table})

    def restore(self, state: StateDelta) -> None:
        if state.header["window_ms"] != self._window_ms:
            raise StateError("the state was made with other windows", detail=str(state.header), hint="start anew")
        for start, user, value, count in zip(*(c.to_pylist() for c in state.tables["open"].rows.columns), strict=True):
            self._open[start, user, value] = count


def _table(column: str, rows: list[tuple[Any, ...]]) -> pa.Table:
    names = {"window_start_ms": pa.int64(), "user": pa.string(), column: pa.string(), "count": pa.int64()}
    return pa.table({name: pa.array([row[i] for row in rows], kind) for i, (name, kind) in enumerate(names.items())})


class Seen:
    """Every settled event once more, when the watermark is an hour past it: rows that are only added, and leave."""

    name, tables, columns = "seen", ("seen_events",), {"value": pa.float64(), "event_type": pa.string()}
    _SCHEMA = pa.schema([("user", pa.string()), ("event_time_ms", pa.int64()), *columns.items()])

    def __init__(self, keep_ms: int = 20) -> None:
        self._keep_ms = keep_ms
        self._kept, self._cleared = self._SCHEMA.empty_table(), False
        self._new: list[pa.Table] = []
        self._until_ms: int | None = None

    @property
    def holds_state(self) -> bool:
        return self._kept.num_rows > 0

    def take(self, events: SettledEvents) -> None:
        rows = events.table(self.columns).cast(self._SCHEMA)
        self._kept = pa.concat_tables([self._kept, rows])
        self._new.append(rows)

    def advance(self, watermark_ms: int) -> Mapping[str, pa.Table]:
        until_ms = watermark_ms - self._keep_ms
        self._until_ms = until_ms if self._until_ms is None else max(until_ms, self._until_ms)
        return self._left(pa.compute.less(self._kept["event_time_ms"], until_ms))

    def flush(self, end_ms: int | None) -> Mapping[str, pa.Table]:
        self._cleared, self._new = True, []
        return self._left(pa.array([True] * self._kept.num_rows, pa.bool_()))

    def _left(self, leaves: Any) -> Mapping[str, pa.Table]:
        left = self._kept.filter(leaves)
        self._kept = self._kept.filter(pa.compute.invert(leaves))
        return {"seen_events": left}

    def delta(self) -> StateDelta:
        rows = pa.concat_tables([self._SCHEMA.empty_table(), *self._new])
        if self._until_ms is not None:
            rows = rows.filter(pa.compute.greater_equal(rows["event_time_ms"], self._until_ms))
        merge = Append("event_time_ms", self._until_ms, self._cleared)
        self._new, self._cleared = [], False
        return StateDelta(header={}, tables={"kept": TableDelta(rows=rows, merge=merge)})

    def restore(self, state: StateDelta) -> None:
        self._kept = state.tables["kept"].rows.select(self._SCHEMA.names).cast(self._SCHEMA)
        merge = state.tables["kept"].merge
        assert isinstance(merge, Append)
        self._until_ms = merge.until_ms


class Prices:
    """The price of every settled event as it is, in the type that is asked for; it keeps no state."""

    tables = ("prices",)

    def __init__(self, kind: pa.DataType) -> None:
        self.name, self.columns = f"prices_{kind}", {"price": kind}
        self._rows: list[pa.Table] = []

    @property
    def holds_state(self) -> bool:
        return bool(self._rows)

    def take(self, events: SettledEvents) -> None:
        self._rows.append(events.table(self.columns))

    def advance(self, watermark_ms: int) -> dict[str, pa.Table]:
        rows, self._rows = self._rows, []
        return {"prices": pa.concat_tables(rows)} if rows else {}

    def flush(self, end_ms: int | None) -> dict[str, pa.Table]:
        return self.advance(0)

    def delta(self) -> StateDelta:
        return StateDelta(header={}, tables={})

    def restore(self, state: StateDelta) -> None:
        pass
