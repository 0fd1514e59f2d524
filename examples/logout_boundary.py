"""A custom boundary: the page "logout" opens a session, as the usual gap does.

python examples/logout_boundary.py
sessionize run my.toml --set rules.boundary=logout_boundary:opens_at_logout     # my.toml beside this file
"""

import pyarrow as pa
import pyarrow.compute as pc

import sessionize


def opens_at_logout(events: pa.Table) -> pa.Array:
    """One truth value per event: whether it opens a session."""
    return pc.fill_null(pc.equal(events["page"], "logout"), False)


def main() -> None:
    """Five events without a gap, so only the logout cuts."""
    events = pa.table(
        {
            "user": ["ann"] * 5,
            "time": [0, 60_000, 120_000, 180_000, 240_000],
            "page": ["home", "search", "logout", "home", "search"],
        }
    )
    rules = sessionize.Rules(boundary=opens_at_logout)
    sessions = sessionize.sessions(events, user="user", time="time", page="page", rules=rules)
    for row in sessions.to_pylist():
        print(row["session_id"], row["pages_visited"], row["start_reason"], "→", row["end_reason"])


if __name__ == "__main__":
    main()
