"""The stream that the checkpoints in format_1/ were made with, by the program that wrote format 1."""

import random
from typing import Any

from sessionize import Policy, Rules

MINUTE = 60_000

POLICIES = {
    "numbered": Policy(gap_ms=30 * MINUTE, max_duration_ms=120 * MINUTE, session_ids="sequential"),
    "rules": Policy(gap_ms=15 * MINUTE),
}
RULES = {
    "numbered": Rules(),
    "rules": Rules(
        start_events=frozenset({"login"}),
        end_events=frozenset({"logout"}),
        excluded_events=frozenset({"ping"}),
        conversion_events=frozenset({"purchase"}),
    ),
}
LATENESS_MS = 10 * MINUTE
KINDS = ["view", "view", "view", "click", "login", "logout", "purchase", "ping"]


def partitions(seed: int) -> list[list[dict[str, Any]]]:
    """Two partitions with ties, duplicates, late and broken records."""
    rng = random.Random(seed)
    made: list[list[dict[str, Any]]] = []
    for partition in range(2):
        rows: list[dict[str, Any]] = []
        for number in range(900):
            time = 1_700_000_000_000 + number * 20_000 - rng.randrange(0, 9 * MINUTE)
            if rng.random() < 0.03:
                time -= 60 * MINUTE
            kind = rng.choice(KINDS)
            rows.append(
                {
                    "user": f"ü{partition}-{rng.randrange(25)}",
                    "time": time,
                    "id": f"{partition}-{number}",
                    "page": rng.choice(["/", "/cart", "/product/ä", None]),
                    "type": kind,
                    "amount": rng.choice([19.99, 1e9, 0.1]) if kind == "purchase" else None,
                }
            )
            if rng.random() < 0.04:
                rows.append(dict(rows[-1]))
            if rng.random() < 0.02:
                rows.append({"broken": True})
        made.append(rows)
    return made
