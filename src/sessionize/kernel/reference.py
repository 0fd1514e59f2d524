"""The truth: what a session is, in plain loops over plain rows. Everything faster must equal it exactly.

Events are dicts: user, time (ms), id, type, page, value (whole millionths), starts and ends (name of the rule that cuts
before / after the event, or None), converts. Missing keys count as None. Source: docs/spec/sessions.md.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sessionize.session.policy import Policy

Row = Mapping[str, Any]


def order_key(e: Row) -> tuple[Any, ...]:
    """Rule 1: time, then event id, then the rest of the event, so that arrival order never matters."""
    words = [(e.get(name) is not None, e.get(name) or "") for name in ("id", "starts", "ends", "page", "type")]
    return (e["time"], *words, e.get("value") or 0)


def reference_sessions(
    events: Iterable[Row], policy: Policy, *, expects_end: bool = False, end_ms: int | None = None
) -> list[dict[str, Any]]:
    """Sessions of bounded input, sorted by user and time. end_ms: when the input ended (default: its last event)."""
    rows, done = list(events), list[dict[str, Any]]()
    end_ms = max((e["time"] for e in rows), default=0) if end_ms is None else end_ms
    silence_reason = "timeout" if expects_end else "inactivity"
    for user in sorted({e["user"] for e in rows}):
        seen, before, chain, piece, number, anchor = set(), None, 0, 0, 0, 0
        for e in sorted((e for e in rows if e["user"] == user), key=order_key):
            if e.get("id") is not None and (e["time"], e["id"]) in seen:
                continue
            seen.add((e["time"], e.get("id")))
            why = None
            if before is None:
                why = "first" if policy.numbers_sessions else "inactivity"
            elif e["time"] - before["time"] > policy.longest_silence_ms:
                why = "inactivity"
            elif before.get("ends") or e.get("starts"):
                why = f"rule:{before.get('ends') or e.get('starts')}"
            elif policy.max_duration_ms is not None:
                zero = anchor if policy.max_duration_mode == "anchored" else done[-1]["start"]
                pieces = [(t - zero) // policy.max_duration_ms for t in (before["time"], e["time"])]
                why = "max_duration" if pieces[0] != pieces[1] else None
            if why is not None:
                if before is not None and done[-1]["end_reason"] is None:
                    done[-1]["end_reason"] = silence_reason if why == "inactivity" else why
                if why == "max_duration":
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
            silent = end_ms - before["time"] > policy.longest_silence_ms
            done[-1]["end_reason"] = silence_reason if silent else "end_of_input"
    return done
