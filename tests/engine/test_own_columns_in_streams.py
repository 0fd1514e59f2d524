"""Session columns of one's own in a stream: crashes, recovery, a drain, other columns afterwards, and late repair."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessionize import Policy, Rules
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.options import StreamOptions
from sessionize.errors import StateError
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.session.columns import SessionColumns
from sessionize.testing.comparison import sorted_rows
from sessionize.testing.own_column_examples import OWN, columns_of
from sessionize.testing.strategies import events, policies, rules, with_further_fields
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource
from tests.engine.stream_runs import Crash, Steps, check, dealt, engine, run, sessions_of

Rows = list[dict[str, Any]]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(with_further_fields(events(max_size=40)), policies(), rules(), st.sampled_from([0, 40]), st.integers(0, 10**6))
def test_crashes_at_any_step_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, rows: Rows, policy: Policy, rule: Rules, lateness: int, seed: int
) -> None:
    folder, chance = tmp_path_factory.mktemp("state"), random.Random(seed)
    parts, sink = dealt(rows, 2), InMemoryEpochSink()

    def make() -> LocalEngine:
        return engine(
            folder,
            InMemoryStreamSource(parts, cut=chance.randint(0, 9)),
            {"kept": sink},
            policy=policy,
            rule=rule,
            lateness=lateness,
            columns=OWN,
            deltas_max=2,
            options=StreamOptions(epoch_rows_max=10, poll_s=0, once=True),
            on_step=Steps(chance.randint(1, 25)),
        )

    made = run(make, crashes=True)
    check(sink, made, parts, policy, rule, lateness, own=OWN.own)


def visits(start_ms: int) -> Rows:
    return [{"user": "u", "time": start_ms + at, "id": f"{start_ms + at}", "source": f"s{at}"} for at in range(5)]


def test_a_drained_stream_goes_on_with_other_columns(tmp_path: Path) -> None:
    source, sink = InMemoryStreamSource([visits(0)]), InMemoryEpochSink()
    before, after = columns_of({"a": {"first": "source"}}), columns_of({"a": {"count": True}, "b": {"last": "source"}})
    run(lambda: engine(tmp_path, source, {"kept": sink}, columns=before))
    source = InMemoryStreamSource([visits(0) + visits(10**7)])
    run(lambda: engine(tmp_path, source, {"kept": sink}, columns=after))
    # its state is that of the new columns: a crash later on starts from it
    source = InMemoryStreamSource([visits(0) + visits(10**7) + visits(2 * 10**7)])
    run(lambda: engine(tmp_path, source, {"kept": sink}, columns=after))
    made = [{name: row.get(name) for name in ("a", "b")} for row in sessions_of(sink)]
    assert made == [{"a": "s0", "b": None}, *[{"a": 5, "b": "s4"}] * 2]


def test_a_stream_with_open_sessions_keeps_its_columns(tmp_path: Path) -> None:
    source, sink, steps = InMemoryStreamSource([visits(0)], piece_max=2), InMemoryEpochSink(), Steps()
    before, small = columns_of({"a": {"first": "source"}}), StreamOptions(epoch_rows_max=2, poll_s=0, once=True)
    run(lambda: engine(tmp_path / "whole", source, {"kept": sink}, columns=before, on_step=steps, options=small))
    source, last = InMemoryStreamSource([visits(0)], piece_max=2), Steps(len(steps.seen) - 1)
    made = engine(tmp_path, source, {"kept": InMemoryEpochSink()}, columns=before, on_step=last, options=small)
    with pytest.raises(Crash):
        made.run()
    made.close()
    for other in (SessionColumns(), columns_of({"a": {"last": "source"}})):
        again = engine(tmp_path, InMemoryStreamSource([visits(0)]), {"kept": InMemoryEpochSink()}, columns=other)
        with pytest.raises(StateError, match="other session columns"):
            again.run()
        again.close()


def test_an_older_checkpoint_opens_without_own_columns() -> None:
    """The header of a state without own columns is what it was before there were any."""
    core = Sessionizer(track_changes=True)
    assert "own_columns" not in core.changes().header
    assert sorted_rows(core.flush()) == []
