"""A streaming loop of your own: events in, final sessions out, state saved and restored after each batch.

python examples/own_loop.py
"""

import pyarrow as pa

from sessionize import Policy, Sessionizer

LATENESS_MS = 60_000
MINUTE = 60_000


def batches() -> list[pa.Table]:
    """Three small batches, the second one out of order."""
    rows = [
        [("ann", 0 * MINUTE, "home"), ("bob", 1 * MINUTE, "home")],
        [("ann", 9 * MINUTE, "search"), ("ann", 8 * MINUTE, "offers")],
        [("bob", 75 * MINUTE, "home")],
    ]
    names = ("user", "event_time_ms", "page")
    return [pa.table(dict(zip(names, zip(*batch, strict=True), strict=True))) for batch in rows]


def main() -> None:
    """Push, advance and save each batch; flush at the end."""
    policy = Policy.of(gap="30m", max_duration="2h")
    core = Sessionizer(policy)
    latest = 0
    for batch in batches():
        late = core.push(batch)
        latest = max(latest, max(batch["event_time_ms"].to_pylist()))
        final = core.advance(latest - LATENESS_MS)
        print(
            f"{batch.num_rows} events, {late.num_rows} late, {final.num_rows} sessions final, {core.open_sessions} open"
        )
        core = Sessionizer.restore(core.snapshot(), policy)
    for row in core.flush().to_pylist():
        print(row["session_id"], row["event_count"], "events, ended by", row["end_reason"])


if __name__ == "__main__":
    main()
