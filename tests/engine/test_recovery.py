"""The local engine after a crash: whatever was begun is done once, and what is damaged is told."""

import io
import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessionize import Policy, Rules
from sessionize.app.streams.logs import StreamLog
from sessionize.engine.run_events import CheckpointDamaged, CheckpointMergeFailed
from sessionize.engine.stream.checkpoints import Checkpoints
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.options import StreamOptions, StreamOutputs
from sessionize.errors import StateError
from sessionize.session.definition import SessionDefinition
from sessionize.testing.comparison import expected_sessions
from sessionize.testing.observers import RecordedEvents
from sessionize.testing.strategies import policies, rules
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource
from tests.engine.stream_runs import (
    VISITS,
    Crash,
    Steps,
    check,
    dealt,
    engine,
    half_way,
    order,
    run,
    sessions_of,
    some_events,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    some_events,
    policies(),
    rules(),
    st.integers(1, 4),
    st.sampled_from([0, 40, 1000]),
    st.integers(0, 10**6),
    st.sampled_from(["confirmed", "maximum"]),
)
def test_crashes_at_any_step_change_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    policy: Policy,
    rule: Rules,
    partitions: int,
    lateness: int,
    seed: int,
    watermark: Any,
) -> None:
    folder, chance = tmp_path_factory.mktemp("state"), random.Random(seed)
    parts, first, second = dealt(rows, partitions), InMemoryEpochSink(), InMemoryEpochSink()

    def make() -> LocalEngine:
        return engine(
            folder,
            InMemoryStreamSource(parts, cut=chance.randint(0, 9)),
            {"first": first, "second": second},
            policy=policy,
            rule=rule,
            lateness=lateness,
            options=StreamOptions(epoch_rows_max=15, poll_s=0, once=True, watermark=watermark),
            on_step=Steps(chance.randint(1, 25)),
        )

    made = run(make, crashes=True)
    for sink in (first, second):
        check(sink, made, parts, policy, rule, lateness, watermark)


def test_every_named_step_can_be_the_last_one(tmp_path: Path) -> None:
    steps = Steps()
    run(
        lambda: engine(tmp_path / "whole", InMemoryStreamSource([VISITS]), {"kept": InMemoryEpochSink()}, on_step=steps)
    )
    assert set(steps.seen) == {"recover", "plan", "planned", "write kept", "commit", "committed"}
    for at in range(1, len(steps.seen) + 1):
        sink, todo = InMemoryEpochSink(), [at]

        def make(at: int = at, sink: InMemoryEpochSink = sink, todo: list[int] = todo) -> LocalEngine:
            crash = Steps(todo.pop() if todo else None)
            return engine(tmp_path / str(at), InMemoryStreamSource([VISITS]), {"kept": sink}, on_step=crash)

        made = run(make, crashes=True)
        check(sink, made, [VISITS], Policy(), Rules(), 0)


def damage(path: Path) -> bytes:
    """Flip a bit in the middle; the bytes that were there."""
    whole = path.read_bytes()
    torn = bytearray(whole)
    torn[len(torn) // 2] ^= 1
    path.write_bytes(torn)
    return whole


@pytest.mark.parametrize("copy", ["a", "b"])
def test_a_damaged_copy_of_a_plan_is_told_and_mended_before_the_epoch_is_repeated(tmp_path: Path, copy: str) -> None:
    sink, events = InMemoryEpochSink(), RecordedEvents()
    half_way(tmp_path, sink, "write kept")
    path = tmp_path / f"plan-4.{copy}"
    whole = damage(path)

    def step(name: str) -> None:
        if name == "write kept":
            raise Crash(name)

    made = engine(
        tmp_path,
        InMemoryStreamSource([VISITS]),
        {"kept": sink},
        on_step=step,
        observer=events,
    )
    with pytest.raises(Crash):
        made.run()
    made.close()
    assert path.read_bytes() == whole
    (damaged,) = events.of(CheckpointDamaged)
    assert damaged.problem.split(":")[0] == path.name
    made = run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"kept": sink}, observer=events))
    check(sink, made, [VISITS], Policy(), Rules(), 0)
    assert events.of(CheckpointDamaged) == [damaged]


def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_it_used(tmp_path: Path) -> None:
    sink, events = InMemoryEpochSink(), RecordedEvents()
    half_way(tmp_path, sink, "write kept")
    damage(tmp_path / "delta-3.ckpt")
    steps = Steps()
    made = run(
        lambda: engine(
            tmp_path,
            InMemoryStreamSource([VISITS], cut=3),
            {"kept": sink},
            on_step=steps,
            observer=events,
        )
    )
    check(sink, made, [VISITS], Policy(), Rules(), 0)
    assert steps.seen.count("repeat") == 2  # epochs 3 and 4
    assert sink.repeated == 1  # the sink has epoch 3 already
    assert [event.problem.split(":")[0] for event in events.of(CheckpointDamaged)] == ["delta-3.ckpt"]


def test_a_merge_that_fails_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "base-3.ckpt").mkdir()  # nothing can be renamed to it
    sink, log = InMemoryEpochSink(), io.StringIO()
    made = LocalEngine(
        InMemoryStreamSource([VISITS]),
        StreamOutputs(sinks={"kept": sink}),
        SessionDefinition(policy=Policy(), rules=Rules()),
        Checkpoints(tmp_path, writer="w", deltas_max=1, merge_in_background=False),
        lateness_ms=0,
        options=StreamOptions(epoch_rows_max=15, poll_s=0, once=True),
        writer="w",
        observer=StreamLog("visits", level="WARNING", to=log),
    )
    made.run()
    made.close()
    check(sink, made, [VISITS], Policy(), Rules(), 0)
    (line,) = map(json.loads, log.getvalue().splitlines())
    assert (line["event"], line["level"], line["pipeline"]) == ("checkpoint_merge_failed", "warning", "visits")
    assert "base-3.ckpt" in line["problem"]


def test_a_merge_that_ends_as_nobody_foresaw_ends_the_run_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, ended = InMemoryEpochSink(), threading.Event()

    def merging(checkpoints: Checkpoints, *_: object) -> None:
        try:
            raise RuntimeError("no such thing")
        finally:
            ended.set()

    def step(name: str) -> None:
        if name == "commit" and len(sink.epochs) == 3:  # the merge of epochs 1 and 2 is under way
            assert ended.wait(60)

    options = StreamOptions(epoch_rows_max=5, poll_s=0, once=True)
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "_merge", merging)
        made = engine(
            tmp_path, InMemoryStreamSource([VISITS]), {"kept": sink}, options=options, on_step=step, deltas_max=0
        )
        with pytest.raises(StateError, match="RuntimeError: no such thing") as caught:
            made.run()
        made.close()
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "nothing was lost" in str(caught.value.hint)
    assert len(sink.epochs) in (3, 4)
    again = run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"kept": sink}, options=options))
    check(sink, again, [VISITS], Policy(), Rules(), 0)
    assert sink.repeated == 1


def test_an_unforeseen_end_of_the_last_merge_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def merging(checkpoints: Checkpoints, *_: object) -> None:
        assert in_the_end.wait(60)
        raise RuntimeError("no such thing")

    monkeypatch.setattr(Checkpoints, "_merge", merging)
    sink, events, in_the_end = InMemoryEpochSink(), RecordedEvents(), threading.Event()
    made = engine(
        tmp_path,
        InMemoryStreamSource([VISITS]),
        {"kept": sink},
        deltas_max=0,
        observer=events,
    )
    last = made._checkpoints.wait

    def wait() -> None:
        if made._checkpoints._merging is not None:
            in_the_end.set()
        last()

    monkeypatch.setattr(made._checkpoints, "wait", wait)
    made.run()
    made.close()
    check(sink, made, [VISITS], Policy(), Rules(), 0)
    assert len(events.of(CheckpointMergeFailed)) == 1


def test_a_second_run_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    rows, sink = VISITS[:100], InMemoryEpochSink()
    options = StreamOptions(epoch_rows_max=15, poll_s=0, once=True, drain=False)
    run(lambda: engine(tmp_path, InMemoryStreamSource([rows]), {"kept": sink}, options=options))
    assert sink.count("user_sessions") == 0  # all still open
    run(lambda: engine(tmp_path, InMemoryStreamSource([VISITS]), {"kept": sink}))
    assert sessions_of(sink) == sorted(expected_sessions(VISITS, Policy(), Rules()), key=order)
