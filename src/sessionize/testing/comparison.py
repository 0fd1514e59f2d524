"""Events and sessions in the forms that tests compare: dicts for the reference, Arrow tables for everything else."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from sessionize.arrow import decoded_type
from sessionize.kernel.reference import reference_sessions
from sessionize.kernel.sums import MICROS
from sessionize.session import columns as col
from sessionize.session.durations import MS_OF_UNIT, parse_duration_ms
from sessionize.session.expressions import FIELD_TYPES
from sessionize.session.own_columns import OwnColumns
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.testing.own_columns import own_values, tie_of

Row = Mapping[str, Any]

# Canonical column -> what the reference calls it.
EVENT_FIELDS = {
    col.USER: "user",
    col.EVENT_TIME: "time",
    col.EVENT_ID: "id",
    col.EVENT_TYPE: "type",
    col.PAGE: "page",
    col.VALUE: "amount",
}


def events_table(rows: Sequence[Row], fields: Mapping[str, str] | None = None) -> pa.Table:
    """Canonical events from dicts with the keys user, time, id, type, page, amount; other keys are further fields.

    fields: their types as words, where these are not to be guessed from the values.
    """
    columns = {name: pa.array([r.get(key) for r in rows], col.EVENT_TYPES[name]) for name, key in EVENT_FIELDS.items()}
    further = dict.fromkeys(key for r in rows for key in r if key not in EVENT_FIELDS.values())
    types: dict[str, pa.DataType | None] = {**further, **{n: FIELD_TYPES[kind] for n, kind in (fields or {}).items()}}
    return pa.table({**columns, **{key: pa.array([r.get(key) for r in rows], kind) for key, kind in types.items()}})


def expected_sessions(
    rows: Iterable[Row],
    policy: Policy,
    rules: Rules,
    *,
    end_ms: int | None = None,
    short_too: bool = False,
    own: OwnColumns | None = None,
) -> list[Row]:
    """What the reference says of the same dicts: session rows with every column, sorted by user and start.

    short_too: also those that are too short to be written (rule 11). own: columns of one's own beside the others.
    """
    own = own or OwnColumns()
    flagged = [{**_flagged(row, policy, rules), "fields": tie_of(row, own)} for row in rows]
    if end_ms is None:
        end_ms = max((r["time"] for r in flagged), default=0)
    kept = [r for r in flagged if r["type"] not in rules.excluded_events]
    made = reference_sessions(kept, policy, expects_end=bool(rules.end_events), end_ms=end_ms)
    written = [s for s in made if short_too or _is_written(s, policy)]
    rows_of = [(s, _columns(s, policy, made)) for s in written]
    return [{**row, **own_values(row, s["events"], own)} for s, row in rows_of]


def expected_labels(rows: Sequence[Row], policy: Policy, rules: Rules) -> list[str | None]:
    """What the reference says of each of the dicts: the id of its session, None for an excluded one.

    A duplicate has the id of the event that it repeats.
    """
    flagged = [{**_flagged(row, policy, rules), "at": at} for at, row in enumerate(rows)]
    kept = [r for r in flagged if r["type"] not in rules.excluded_events]
    made = reference_sessions(kept, policy, expects_end=bool(rules.end_events))
    found: dict[int, str] = {}
    first: dict[tuple[Any, ...], list[tuple[int, str]]] = {}
    for session in made:
        name = _columns(session, policy, made)[col.SESSION_ID]
        for event in session["events"]:
            found[event["at"]] = name
            first.setdefault((event["user"], event.get("id")), []).append((event["time"], name))
    # a duplicate is the last one that counts of its id, up to its time
    again = {
        r["at"]: max(each for each in first[r["user"], r["id"]] if each[0] <= r["time"])[1]
        for r in kept
        if r["at"] not in found
    }
    return [found.get(at, again.get(at)) for at in range(len(rows))]


def sorted_rows(table: pa.Table, user_name: str = col.USER) -> list[Row]:
    """The rows of a session table in the order of expected_sessions."""
    rows = table.cast(_plain_schema(table)).to_pylist()
    for row in rows:
        if col.EVENTS_BY_TYPE in row:
            row[col.EVENTS_BY_TYPE] = dict(row[col.EVENTS_BY_TYPE])
    return sorted(rows, key=lambda r: (r[user_name], r[col.SESSION_START], r[col.SESSION_END], r[col.SESSION_ID]))


def _plain_schema(table: pa.Table) -> pa.Schema:
    return pa.schema([(f.name, col.SESSION_TYPES.get(f.name, _plain(f.type))) for f in table.schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.list_(decoded_type(kind.value_type)) if pa.types.is_list(kind) else decoded_type(kind)


def _is_written(s: Row, policy: Policy) -> bool:
    events = s["events"]
    lasts_ms = events[-1]["time"] - events[0]["time"]
    return len(events) >= policy.min_events and lasts_ms >= policy.min_duration_ms


def _value(row: Row, field: str) -> Any:
    return row.get(EVENT_FIELDS.get(field, field))


def _split_value(row: Row, field: str, rules: Rules) -> str | None:
    """The value that counts for split_on_change, None for one that is missing or ignored."""
    value = _value(row, field)
    if value is None or value == "":
        return None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    for pattern in rules.split_ignore:
        if re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), text, re.DOTALL):
            return None
    return text


def _gap_ms(row: Row, policy: Policy) -> int:
    """The event's own gap (rule 2)."""
    by = policy.gap_by
    value = None if by is None else _value(row, by.field)
    if by is None or value is None:
        return policy.gap_ms
    if by.gaps or isinstance(value, str):
        return by.of_text(value, policy.gap_ms)
    ms = value * MS_OF_UNIT[by.unit]
    return policy.gap_ms if not ms >= 1 else int(min(ms, by.longest_ms))


def _flagged(row: Row, policy: Policy, rules: Rules) -> dict[str, Any]:
    kind = row.get("type")
    converts = kind is not None and kind.lower() in {c.lower() for c in rules.conversion_events}
    starts = "start_events" if kind in rules.start_events else None
    if rules.boundary is not None and rules.boundary(events_table([row])).to_pylist()[0]:  # type: ignore[attr-defined]
        starts = rules.boundary_name
    return {
        **row,
        "type": kind,
        "starts": starts,
        "ends": "end_events" if kind in rules.end_events else None,
        "converts": converts,
        "gap_ms": _gap_ms(row, policy),
        "split": tuple(_split_value(row, field, rules) for field in rules.split_fields),
        "value": round((row.get("amount") or 0.0) * MICROS) if converts else 0,
    }


def _columns(s: Row, policy: Policy, all_sessions: Sequence[Row]) -> Row:
    from datetime import UTC, datetime, timedelta

    from sessionize.session.ids import user_hash_buckets

    events, user = s["events"], s["user"]
    end = events[-1]["time"]
    pages = [e["page"] for e in events if e.get("page") is not None]
    kinds = [e["type"] for e in events if e["type"] is not None]
    earlier = [o for o in all_sessions if o["user"] == user and o["start"] == s["start"] and o["number"] < s["number"]]
    ids = {
        "start": f"{user}_{s['start']}" + (f".{len(earlier)}" if earlier else ""),
        "sequential": f"{user}_session_{s['chain']}_{s['piece']}",
        "running": f"{user}-{s['number']}",
    }
    bounce = {
        "one_event": len(events) == 1,
        "one_page": len(pages) <= 1,
        "no_conversion": not any(e["converts"] for e in events),
    }
    holds = [
        bounce[word] if word in bounce else end - s["start"] < parse_duration_ms(word, name="")
        for word in policy.bounce
    ]
    row = {
        col.USER: user,
        col.SESSION_ID: ids[policy.session_ids],
        col.SESSION_START: s["start"],
        col.SESSION_END: end,
        col.SESSION_DURATION: (end - s["start"]) / 1000.0,
        col.EVENT_COUNT: len(events),
        col.PAGES_VISITED: list(dict.fromkeys(pages)),
        col.ENTRY_PAGE: pages[0] if pages else None,
        col.EXIT_PAGE: pages[-1] if pages else None,
        col.EVENTS_BY_TYPE: {k: kinds.count(k) for k in sorted(set(kinds))},
        col.HAS_CONVERSION: any(e["converts"] for e in events),
        col.REVENUE: sum(e["value"] for e in events) / MICROS,
        col.START_REASON: s["start_reason"],
        col.END_REASON: s["end_reason"],
        col.SESSION_DATE: (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=s["start"])).date(),
        col.USER_HASH_BUCKET: user_hash_buckets(pa.array([user]))[0].as_py(),
    }
    return {**row, col.IS_BOUNCE: all(holds)} if policy.bounce else row
