"""Reconciling at the ends of what an event may be."""

from pathlib import Path

from sessionize.session.limits import TIME_MS_MAX, TIME_MS_MIN
from tests.app.test_reconcile_tables import MINUTE, NOON, Engine, batch_of, pipeline, reconciled, rows_in, stored


def test_late_events_at_the_ends_of_the_calendar(tmp_path: Path) -> None:
    """A time that was never set is the year 1 in some languages, and no day before it has a name."""
    engine = Engine(pipeline(tmp_path))
    first, last = (float((at - NOON) / MINUTE) for at in (TIME_MS_MIN, TIME_MS_MAX - 59_999))
    engine.epoch([("a", 0), ("z", last)], [], last)
    engine.epoch([], [("a", first), ("a", first + 20), ("a", last - 20), ("b", last)], last)
    engine.drain()
    done = reconciled(engine)
    assert (done.late_events, done.waiting) == (4, 0)
    made = rows_in(engine.config, stored(engine.config))
    assert made == batch_of(engine.config)
    assert {row["session_date"].year for row in made} == {1, 2024, 9999}
