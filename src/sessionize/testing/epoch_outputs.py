"""Output of epochs for tests of sinks: each number has other rows, the same ones every time."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from sessionize.ports import EpochId, EpochOutput
from sessionize.session import columns as col
from sessionize.session.ids import user_hash_buckets
from sessionize.session.output_tables import EVENTS, LATE_EVENTS, REJECTED_EVENTS, SESSIONS

Row = dict[str, Any]


def sessions(users: Sequence[str], *, start_ms: int = 1_700_000_000_000, pages: Sequence[str] = ("home",)) -> pa.Table:
    """One session of two minutes for each user, with every session column."""
    rows = [
        {
            col.USER: user,
            col.SESSION_ID: f"{user}_{start_ms}",
            col.SESSION_START: start_ms,
            col.SESSION_END: start_ms + 120_000,
            col.SESSION_DURATION: 120.0,
            col.EVENT_COUNT: 3,
            col.PAGES_VISITED: list(pages),
            col.ENTRY_PAGE: pages[0] if pages else None,
            col.EXIT_PAGE: pages[-1] if pages else None,
            col.EVENTS_BY_TYPE: [("purchase", 1), ("view", 2)],
            col.HAS_CONVERSION: True,
            col.REVENUE: 12.5,
            col.START_REASON: "first",
            col.END_REASON: "inactivity",
            col.SESSION_DATE: start_ms // 86_400_000,
            col.USER_HASH_BUCKET: bucket,
        }
        for user, bucket in zip(users, user_hash_buckets(pa.array(users, pa.string())).to_pylist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=col.SessionColumns().schema())


def events(users: Sequence[str], *, time_ms: int = 1_700_000_000_000, page: str = "home") -> pa.Table:
    """One event for each user, with every event column."""
    some: Row = {col.EVENT_TYPE: "view", col.PAGE: page, col.VALUE: 0.5, col.PROPERTIES: '{"a": 1}'}
    rows = [{**some, col.USER: user, col.EVENT_TIME: time_ms, col.EVENT_ID: f"{user}-{time_ms}"} for user in users]
    return pa.Table.from_pylist(rows, schema=pa.schema(list(col.EVENT_TYPES.items())))


def rejected(raws: Sequence[bytes]) -> pa.Table:
    """One rejected record for each of these bytes."""
    rows = [
        {"raw": raw, "source": "topic/0", "line_number": line, "reason": "bad_json", "detail": "not JSON"}
        for line, raw in enumerate(raws)
    ]
    return pa.Table.from_pylist(rows, schema=col.REJECTED_SCHEMA)


def epoch_rows(number: int, users: Sequence[str] = ("a", "b"), *, pages: Sequence[str] = ("home",)) -> EpochOutput:
    """An epoch with a session and a late event for each user, other ones for each number, and two rejected records."""
    start_ms = 1_700_000_000_000 + number * 3_600_000
    return EpochOutput(
        {
            SESSIONS.name: sessions(users, start_ms=start_ms, pages=pages),
            EVENTS.name: events(users, time_ms=start_ms),
            LATE_EVENTS.name: events(users, time_ms=start_ms - 86_400_000, page=pages[0] if pages else ""),
            REJECTED_EVENTS.name: rejected([f"{number}".encode(), b"\x00\xff\\"]),
        },
        watermark_ms=start_ms,
    )


def epoch_id(number: int, *, writer: str = "writer", plan: str | None = None) -> EpochId:
    """The epoch's name; its plan's digest follows from the number unless it is given."""
    return EpochId(writer, number, f"plan-{number}" if plan is None else plan)


def empty_rows() -> EpochOutput:
    """An epoch that adds nothing."""
    none = {
        SESSIONS.name: sessions([]),
        EVENTS.name: events([]),
        LATE_EVENTS.name: events([]),
        REJECTED_EVENTS.name: rejected([]),
    }
    return EpochOutput(none, watermark_ms=None)


def keys(rows: pa.Table) -> pa.Table:
    """The user and session_id of sessions, as `replace` wants them."""
    return rows.select([col.USER, col.SESSION_ID])


def with_revision(rows: pa.Table, revision: int) -> pa.Table:
    """Sessions with this revision."""
    return rows.append_column(col.REVISION, pa.array([revision] * rows.num_rows, pa.int32()))


def output(watermark_ms: int | None = None, **tables: pa.Table) -> EpochOutput:
    """An epoch's output of these tables, by their names."""
    return EpochOutput(tables, watermark_ms)
