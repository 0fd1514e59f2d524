"""Runs of the local engine over hostile records (sessionize.testing.hostile), into whichever outputs."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sessionize import Policy, Rules
from sessionize.connectors.sql_store.text import original_text, stored_key
from sessionize.engine.stream.checkpoints import Checkpoints
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.options import StreamOptions, StreamOutputs
from sessionize.formats.records import JsonRecords
from sessionize.ports import EpochSink, Positions, Ranges, StreamBatch
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.testing.comparison import EVENT_FIELDS, expected_sessions
from sessionize.testing.hostile import HOSTILE
from sessionize.testing.observers import Calls
from sessionize.testing.streams import InMemoryEpochSink
from sessionize.testing.tables import COMPARED, session_row
from tests.engine.stream_runs import Crash, Steps

Row = dict[str, Any]
COLUMNS = col.SessionColumns.made_of(HOSTILE.columns)
RULES = Rules(start_events={"\0"}, end_events={"view"}, excluded_events={"NULL"}, conversion_events={"purchase", "ß"})


class Lines:
    """A StreamSource of lines in memory, a partition for each list."""

    event_columns = HOSTILE.columns
    user_name = HOSTILE.user_name

    def __init__(self, parts: Sequence[Sequence[bytes]], *, size: int) -> None:
        self._parts, self._size = {f"p{n}": part for n, part in enumerate(parts)}, size
        self._at = dict.fromkeys(self._parts, 0)

    def partitions(self) -> frozenset[str]:
        return frozenset(self._parts)

    def seek(self, positions: Positions) -> None:
        self._at = {name: positions.get(name, 0) for name in self._parts}

    def poll(self, *, timeout_s: float, now_ms: int) -> list[StreamBatch]:
        spans = {name: (at, min(at + self._size, len(self._parts[name]))) for name, at in self._at.items()}
        return [self._batch(name, start, end) for name, (start, end) in spans.items() if start < end]

    def read(self, ranges: Ranges, *, now_ms: int) -> Iterator[StreamBatch]:
        for name, (start, end) in ranges.items():
            for at in range(start, end, self._size):
                yield self._batch(name, at, min(at + self._size, end))

    def caught_up(self) -> frozenset[str]:
        return frozenset(name for name, part in self._parts.items() if self._at[name] >= len(part))

    def lag(self) -> int | None:
        return sum(len(part) - self._at[name] for name, part in self._parts.items())

    def close(self) -> None:
        pass

    def _batch(self, name: str, start: int, end: int) -> StreamBatch:
        self._at[name] = end
        decoder = JsonRecords(HOSTILE, extras=True)
        made = decoder.decode(self._parts[name][start:end], np.arange(start, end), source=name, latest_ms=None)
        return StreamBatch(name, {name: (start, end)}, made.events, made.rejected)


def run(
    folder: Path,
    parts: Sequence[Sequence[bytes]],
    opened: Callable[[], dict[str, EpochSink]],
    policy: Policy,
    *,
    size: int,
    crash_at: int,
    writer: str = "w",
    epoch_rows: int = 8,
) -> LocalEngine:
    """Run to the end, so many lines at a poll, after a crash at some step; the sinks are opened for each try."""
    source, crashes = Lines(parts, size=size), iter((crash_at, None))
    while True:
        sinks = opened()
        engine = LocalEngine(
            source,
            StreamOutputs(sinks=sinks, enrich=True),
            SessionDefinition(policy=policy, rules=RULES, columns=COLUMNS, user_name="u"),
            Checkpoints(folder / "state", writer=writer),
            lateness_ms=20,
            options=StreamOptions(epoch_rows_max=epoch_rows, poll_s=0, once=True),
            writer=writer,
            observer=Calls(step=Steps(next(crashes))),
        )
        try:
            engine.run()
            return engine
        except Crash:
            continue
        finally:
            engine.close()
            for sink in sinks.values():
                sink.close()


def accepted(kept: InMemoryEpochSink) -> list[Row]:
    """The events that were in time, as the reference knows them."""
    return [
        {
            EVENT_FIELDS["user" if name == "u" else name]: row[name]
            for name in row
            if name == "u" or name in EVENT_FIELDS
        }
        for row in events_of(kept, "events")
    ]


def events_of(kept: InMemoryEpochSink, table: str) -> list[Row]:
    return [row for rows in kept.rows(table) if rows.num_rows for row in rows.to_pylist()]


def expected_of(kept: InMemoryEpochSink, policy: Policy) -> list[Row]:
    """The sessions of the reference."""
    events = accepted(kept)
    end_ms = max((row["time"] for row in events), default=0)
    return [dict(row) for row in expected_sessions(events, policy, RULES, end_ms=end_ms)]


def check_store(
    ask: Callable[[str], Sequence[Sequence[Any]]], expected: Sequence[Row], late: Sequence[Row], rejected: int
) -> None:
    """ask: the answer of a database to a query. A store writes NUL as another character, long keys by their digest."""
    names = ("u", *COMPARED)
    rows = [dict(zip(names, row, strict=True)) for row in ask(f"SELECT {', '.join(names)} FROM user_sessions")]
    for row in rows:
        for name in ("entry_page", "exit_page"):
            row[name] = None if row[name] is None else original_text(row[name])
        row["pages_visited"] = [original_text(page) for page in _parsed(row["pages_visited"])]
        kinds = _parsed(row["events_by_type"])
        row["events_by_type"] = {original_text(kind): count for kind, count in kinds.items()}
    wanted = [{**row, "u": stored_key(row["user"]), "session_id": stored_key(row["session_id"])} for row in expected]
    assert Counter(session_row(row["u"], row) for row in rows) == Counter(session_row(row["u"], row) for row in wanted)
    pages = Counter(None if page is None else original_text(page) for (page,) in ask("SELECT page FROM late_events"))
    assert pages == Counter(row["page"] for row in late)
    assert [tuple(row) for row in ask("SELECT count(*) FROM rejected_events")] == [(rejected,)]


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value
