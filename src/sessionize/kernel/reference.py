"""The truth: what a session is, in plain loops over plain rows. Everything faster must equal it exactly.

Events are dicts: user, time (ms), id, type, page, value (whole millionths), starts and ends (name of the rule that cuts
before / after the event, or None), converts, gap_ms (the event's own gap), split (the values of the fields of
split_on_change in their order, None for one that does not count), fields (what of its further fields decides between
ties). Missing keys count as None. Source: docs/spec/sessions.md.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sessionize.session.local_days import local_day
from sessionize.session.policy import Policy

Row = Mapping[str, Any]


def order_key(e: Row) -> tuple[Any, ...]:
    """Rule 1: time, then event id, then the rest of the event, so that arrival order never matters."""
    words = [(e.get(name) is not None, e.get(name) or "") for name in ("id", "starts", "ends", "page", "type")]
    split = [(value is not None, value or "") for value in e.get("split") or ()]
    fields = e.get("fields") or ()
    return (e["time"], *words[:3], *split, e.get("gap_ms") or 0, *words[3:], e.get("value") or 0, *fields)


def rule_before(before: Row, e: Row, policy: Policy) -> str | None:
    """Rule 4: the name of the rule that cuts between two neighbours, whatever came before them."""
    if policy.day_start is None or before.get("ends") or e.get("starts"):
        return before.get("ends") or e.get("starts")
    same_day = local_day(before["time"], policy.day_start) == local_day(e["time"], policy.day_start)
    return None if same_day else "day_start"


def reference_sessions(
    events: Iterable[Row], policy: Policy, *, expects_end: bool = False, end_ms: int | None = None
) -> list[dict[str, Any]]:
    """Sessions of bounded input, sorted by user and time. end_ms: when the input ended (default: its last event)."""
    rows, done = list(events), list[dict[str, Any]]()
    end_ms = max((e["time"] for e in rows), default=0) if end_ms is None else end_ms
    silence_reason = "timeout" if expects_end else "inactivity"
    for user in sorted({e["user"] for e in rows}):
        seen, chain, piece, number, anchor = dict[str, int](), 0, 0, 0, 0  # seen: the time of the last event by id
        before: Row | None = None
        reach, known = 0, dict[int, str]()  # of the run: the last moment without a silence, the last value by field
        for e in sorted((e for e in rows if e["user"] == user), key=order_key):
            if e.get("id") is not None:
                last, seen[e["id"]] = seen.get(e["id"]), e["time"]
                if last is not None and e["time"] - last <= (policy.duplicates_within_ms if policy.repeats_ids else 0):
                    continue
            silent = before is not None and e["time"] > reach
            rule = None if before is None else rule_before(before, e, policy)
            new_run = before is None or silent or rule is not None
            known = {} if new_run else known
            values = {at: value for at, value in enumerate(e.get("split") or ()) if value is not None}
            changed = any(known.get(at, value) != value for at, value in values.items())
            until = e["time"] + (e.get("gap_ms") or policy.gap_ms) - policy.inclusive_ms
            reach, known = until if new_run else max(reach, until), {**known, **values}
            why = None
            if before is None:
                why = "first" if policy.numbers_sessions else "inactivity"
            elif silent:
                why = "inactivity"
            elif rule is not None or changed:
                why = f"rule:{rule or 'split_on_change'}"
            elif policy.max_duration_ms is not None:
                zero = anchor if policy.max_duration_mode == "anchored" else done[-1]["start"]
                pieces = [(t - zero) // policy.max_duration_ms for t in (before["time"], e["time"])]
                why = "max_duration" if pieces[0] != pieces[1] else None
            if why is None and policy.max_events is not None and len(done[-1]["events"]) >= policy.max_events:
                why = "max_events"
            if why is not None:
                if before is not None and done[-1]["end_reason"] is None:
                    done[-1]["end_reason"] = silence_reason if why == "inactivity" else why
                if why in ("max_duration", "max_events"):
                    piece += 1
                else:
                    chain, piece, anchor = chain + 1, 0, e["time"]
                number += 1
                session = {"user": user, "chain": chain, "piece": piece, "number": number, "start": e["time"]}
                done.append({**session, "events": [], "start_reason": why, "end_reason": None})
            done[-1]["events"].append(e)
            done[-1]["end_reason"] = f"rule:{e['ends']}" if e.get("ends") else None
            before = e
        if before is not None and done[-1]["end_reason"] is None:
            done[-1]["end_reason"] = silence_reason if end_ms > reach else "end_of_input"
    return done
