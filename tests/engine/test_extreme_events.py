"""Events at the ends of what is accepted, through the engines: they stop nobody, with crashes on the way or without."""

from pathlib import Path
from typing import Any

import pytest

from sessionize import Policy, Rules
from sessionize.engine.accounting import Accounting
from sessionize.engine.batch.options import BatchOptions
from sessionize.engine.batch.sessions import sessions_of
from sessionize.engine.stream.options import StreamOptions
from sessionize.session.definition import SessionDefinition
from sessionize.testing.comparison import events_table, expected_sessions, sorted_rows
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource
from tests.engine.stream_runs import Steps, check, engine, run

DAY = Policy(gap_ms=86_400_000, max_duration_ms=None)


def with_a_whale() -> list[dict[str, Any]]:
    """One user's purchases of a billion each, more than 64 bits hold in millionths, and another user beside."""
    whale = [{"user": "whale", "time": i * 10, "id": str(i), "type": "purchase", "amount": 1e9} for i in range(9_400)]
    return [*whale, {"user": "anna", "time": 94_000, "id": "a", "type": "purchase", "amount": 0.3}]


@pytest.mark.parametrize("spilled", [False, True])
def test_a_batch_with_more_revenue_than_64_bits_hold(spilled: bool) -> None:
    rows = with_a_whale()
    options = BatchOptions(memory_bytes_max=0 if spilled else 1 << 30)
    made_of = SessionDefinition(policy=DAY)
    made = [
        row
        for table, _ in sessions_of([events_table(rows)], made_of, Accounting(), options)
        for row in sorted_rows(table)
    ]
    assert sorted(made, key=lambda row: row["user"]) == expected_sessions(rows, DAY, Rules())
    assert {row["user"]: row["revenue"] for row in made} == {"anna": 0.3, "whale": 9.4e12}


def test_a_stream_with_more_revenue_than_64_bits_hold(tmp_path: Path) -> None:
    """Killed before each kind of step in turn: the sum is in the checkpoints, too."""
    rows, sink = with_a_whale(), InMemoryEpochSink()
    options = StreamOptions(epoch_rows_max=1_500, poll_s=0, once=True)
    crashes = iter((4, 9, 13))
    made = run(
        lambda: engine(
            tmp_path,
            InMemoryStreamSource([rows], piece_max=1_000),
            {"kept": sink},
            policy=DAY,
            options=options,
            on_step=Steps(next(crashes, None)),
        ),
        crashes=True,
    )
    check(sink, made, [rows], DAY, Rules(), 0)
