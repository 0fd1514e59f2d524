"""An operator that nothing in the program knows, beside the sessions: exact through crashes, restarts and merged state.

It counts events by hour, user and product, which sessions do not carry. Engine, checkpoints and sinks know operators by
their Protocol alone (docs/adr/0014-operators.md).
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessionize import Policy, Rules, StateError
from sessionize.engine.run_events import OperatorDropped
from sessionize.engine.stream.checkpoints import Checkpoints
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.options import StreamOptions
from sessionize.kernel.changes import Changes
from sessionize.kernel.operator import Append, StateDelta, TableDelta, Upsert
from sessionize.kernel.processor import EventProcessor
from sessionize.ports import Ranges, StreamBatch
from sessionize.session.definition import SessionDefinition
from sessionize.session.output_tables import OUTPUT_TABLES
from sessionize.testing.observers import RecordedEvents
from sessionize.testing.oracle import judged
from sessionize.testing.strategies import policies, rules
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource
from tests.engine.stream_runs import VISITS, Crash, Steps, check, dealt, engine, run, some_events
from tests.kernel.counting import Counts, Prices, Seen

Rows = list[dict[str, Any]]
WINDOW_MS = 10
BY_TEN = StreamOptions(epoch_rows_max=15, poll_s=0, once=True)


def product_of(user: str | None, time: int) -> str | None:
    return None if time % 7 == 0 else f"{user}-{time // 3 % 3}"


class WithProducts(InMemoryStreamSource):
    """Every event has a product, and a price, which no dialect knows."""

    def poll(self, *, timeout_s: float, now_ms: int) -> list[StreamBatch]:
        return [self._with_products(batch) for batch in super().poll(timeout_s=timeout_s, now_ms=now_ms)]

    def read(self, ranges: Ranges, *, now_ms: int) -> Iterator[StreamBatch]:
        for batch in super().read(ranges, now_ms=now_ms):
            yield self._with_products(batch)

    @staticmethod
    def _with_products(batch: StreamBatch) -> StreamBatch:
        users, times = (batch.events[name].to_pylist() for name in ("user", "event_time_ms"))
        made = pa.array([product_of(*pair) for pair in zip(users, times, strict=True)], pa.string())
        events = batch.events.drop_columns([n for n in ("product", "price") if n in batch.events.column_names])
        return StreamBatch(
            batch.partition,
            batch.ranges,
            events.append_column("product", made).append_column("price", made),
            batch.rejected,
        )


def group_by(
    partitions: Sequence[Rows], rule: Rules, lateness: int, window_ms: int = WINDOW_MS, policy: Policy | None = None
) -> Counter[Any]:
    """What an SQL GROUP BY over the on-time events gives, each event once."""
    last, counts = dict[Any, int](), Counter[Any]()
    within_ms = 0 if policy is None or not policy.repeats_ids else policy.duplicates_within_ms
    for rows in partitions:
        on_time = judged((row for row in rows if "user" in row), lateness)[0]
        for row in sorted(on_time, key=lambda row: row["time"]):
            if row.get("type") in rule.excluded_events:
                continue
            key = (row["user"], row.get("id"))
            before, last[key] = last.get(key), row["time"]
            if row.get("id") is None or before is None or row["time"] - before > within_ms:
                counts[row["time"] // window_ms * window_ms, row["user"], product_of(row["user"], row["time"])] += 1
    return counts


def by_window_and_user(counts: Counter[Any]) -> Counter[Any]:
    """Whatever the product: that of events which were pending when nobody asked for it is not known."""
    totals = Counter[Any]()
    for (start, user, _), count in counts.items():
        totals[start, user] += count
    return totals


def counts_of(sink: InMemoryEpochSink) -> Counter[Any]:
    rows = [row for table in sink.rows("event_counts") for row in table.to_pylist()]
    found = {(row["window_start_ms"], row["user"], row["product"]): row["count"] for row in rows}
    assert len(found) == len(rows), "a window came out twice"
    return Counter(found)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    some_events,
    policies(),
    rules(),
    st.integers(1, 4),
    st.sampled_from([0, 40, 1000]),
    st.integers(0, 10**6),
    st.sampled_from([1, 200]),
)
def test_crashes_at_any_step_change_no_row(
    tmp_path_factory: pytest.TempPathFactory,
    rows: Rows,
    policy: Policy,
    rule: Rules,
    partitions: int,
    lateness: int,
    seed: int,
    deltas_max: int,
) -> None:
    """With any arrival, cut and epochs; with deltas_max 1 the base is merged again and again."""
    folder, chance, sink = tmp_path_factory.mktemp("state"), random.Random(seed), InMemoryEpochSink()
    parts = dealt(rows, partitions)

    def make() -> LocalEngine:
        return engine(
            folder,
            WithProducts(parts, cut=chance.randint(0, 9)),
            {"kept": sink},
            policy=policy,
            rule=rule,
            lateness=lateness,
            deltas_max=deltas_max,
            operators=[Counts(), Seen()],
            options=StreamOptions(epoch_rows_max=chance.choice([1, 15, 40]), poll_s=0, once=True),
            on_step=Steps(chance.randint(1, 25)),
        )

    made = run(make, crashes=True)
    check(sink, made, parts, policy, rule, lateness)
    expected = group_by(parts, rule, lateness, policy=policy)
    assert counts_of(sink) == expected
    assert sink.count("seen_events") == expected.total() == made.accounting.settled


def test_every_step_can_be_the_last_one(tmp_path: Path) -> None:
    steps = Steps()
    run(lambda: visits(tmp_path / "whole", InMemoryEpochSink(), on_step=steps))
    expected = group_by([VISITS], Rules(), 0, 50_000)
    assert len(expected) > 50
    for at in range(1, len(steps.seen) + 1):
        sink, todo = InMemoryEpochSink(), [at]

        def make(at: int = at, sink: InMemoryEpochSink = sink, todo: list[int] = todo) -> LocalEngine:
            return visits(tmp_path / str(at), sink, on_step=Steps(todo.pop() if todo else None))

        run(make, crashes=True)
        assert counts_of(sink) == expected


def visits(folder: Path, sink: InMemoryEpochSink, *, operators: Any = None, **more: Any) -> LocalEngine:
    counts = [Counts(window_ms=50_000)] if operators is None else operators
    return engine(folder, WithProducts([VISITS]), {"kept": sink}, operators=counts, **more)


def interrupted(folder: Path, sink: InMemoryEpochSink, *, epochs: int = 4, **more: Any) -> None:
    """A run that crashes in the plan of this epoch."""
    seen = list[str]()

    def step(name: str) -> None:
        seen.append(name)
        if seen.count("plan") == epochs:
            raise Crash(name)

    made = visits(folder, sink, on_step=step, **more)
    with pytest.raises(Crash):
        made.run()
    made.close()


def test_a_restart_brings_its_state_back_from_the_checkpoint(tmp_path: Path) -> None:
    sink = InMemoryEpochSink()
    interrupted(tmp_path, sink)
    with Checkpoints(tmp_path, writer="w") as store:
        found = store.recover()
    assert found is not None
    assert found.state is not None
    assert found.state.deltas["counts"].tables["open"].rows.num_rows > 0
    again = Counts(window_ms=50_000)
    run(lambda: visits(tmp_path, sink, operators=[again]))
    assert counts_of(sink) == group_by([VISITS], Rules(), 0, 50_000)


def test_rows_come_out_under_the_name_of_its_table_and_of_no_other(tmp_path: Path) -> None:
    sink = InMemoryEpochSink()
    run(lambda: visits(tmp_path, sink))
    known = {spec.name for spec in OUTPUT_TABLES}
    assert {name for _, output in sink.epochs for name in output.tables} - known == {"event_counts"}
    assert all("product" not in table.column_names for table in sink.rows("user_sessions"))


def test_an_operator_of_another_definition_ends_the_run_before_anything_is_written(tmp_path: Path) -> None:
    sink = InMemoryEpochSink()
    interrupted(tmp_path, sink)
    before = len(sink.epochs)
    with pytest.raises(StateError, match="other windows"):
        run(lambda: visits(tmp_path, sink, operators=[Counts(window_ms=60_000)]))
    assert len(sink.epochs) == before


def test_an_operator_that_is_left_out_is_dropped_with_a_warning_and_comes_back_as_new(tmp_path: Path) -> None:
    sink, events = InMemoryEpochSink(), RecordedEvents()
    interrupted(tmp_path, sink, epochs=4)
    interrupted(tmp_path, sink, epochs=4, operators=[], observer=events)
    assert [event.operator for event in events.of(OperatorDropped)] == ["counts"]
    told = RecordedEvents()
    run(lambda: visits(tmp_path, sink, observer=told))
    assert told.of(OperatorDropped) == []
    found, expected = counts_of(sink), group_by([VISITS], Rules(), 0, 50_000)
    assert found != expected
    assert by_window_and_user(found) <= by_window_and_user(expected)  # nothing twice, and no more than there is
    starts = sorted({start for start, _, _ in expected})
    whole = {key: count for key, count in expected.items() if key[0] in (starts[0], starts[-1])}
    assert {key: found[key] for key in whole} == whole  # before it was left out, and well after it came back
    assert sum(table.num_rows for table in sink.rows("user_sessions")) == 7


def test_an_operator_that_is_new_to_a_pipeline_begins_at_the_watermark(tmp_path: Path) -> None:
    sink = InMemoryEpochSink()
    interrupted(tmp_path, sink, epochs=6, operators=[])
    with Checkpoints(tmp_path, writer="w") as store:
        state = store.recover()
    assert state is not None
    assert state.state is not None
    watermark_ms = state.state.header["watermark_ms"]
    run(lambda: visits(tmp_path, sink))
    found, expected = counts_of(sink), group_by([VISITS], Rules(), 0, 50_000)
    assert 0 < found.total() < expected.total()
    assert min(start for start, _, _ in found) >= watermark_ms // 50_000 * 50_000
    later = {key: count for key, count in expected.items() if key[0] > watermark_ms + 50_000}
    assert later
    assert {key: found[key] for key in later} == later


@pytest.mark.parametrize("deltas_max", [1, 200])
def test_a_state_stays_readable_when_operators_ask_for_a_column_in_another_type(
    tmp_path: Path, deltas_max: int
) -> None:
    """Events are pending in one type, then in another, in a base and deltas that are merged or not."""
    sink, settings = InMemoryEpochSink(), {"deltas_max": deltas_max, "lateness": 100_000}
    for kind in (pa.float64(), pa.string(), pa.int64()):
        interrupted(tmp_path, sink, epochs=3, operators=[Prices(kind)], **settings)
    last = run(lambda: visits(tmp_path, sink, operators=[Prices(pa.string())], **settings))
    assert last.accounting.settled == len(VISITS)
    assert sum(table.num_rows for table in sink.rows("prices")) == len(VISITS)
    with Checkpoints(tmp_path, writer="w") as store:
        assert store.recover() is not None


ENDS = Rules(end_events=frozenset({"end"}), excluded_events=frozenset({"beat"}))
LONG_MS = 1_000_000  # a window that ends after all records


def test_what_only_an_operator_holds_comes_out_in_a_drain_without_records(tmp_path: Path) -> None:
    """Every session has ended and no event is pending, so the state of the operator is all that is left."""
    beats = [{"user": f"u{i}", "time": 300_000 + i, "id": None, "type": "beat"} for i in range(9)]
    rows: Rows = [*({**row, "type": "end"} for row in VISITS), *beats]
    sink = InMemoryEpochSink()

    def make(*, drain: bool) -> LocalEngine:
        options = StreamOptions(epoch_rows_max=15, poll_s=0, once=True, drain=drain)
        operators = [Counts(window_ms=LONG_MS)]
        more: dict[str, Any] = {"rule": ENDS, "options": options, "operators": operators}
        return engine(tmp_path, WithProducts([rows]), {"kept": sink}, **more)

    first = run(lambda: make(drain=False))
    held = first.holds_state, first.open_sessions, first.accounting.pending
    assert (held, counts_of(sink)) == ((True, 0, 0), Counter())
    second = run(lambda: make(drain=True))
    assert counts_of(sink) == group_by([rows], ENDS, 0, LONG_MS)
    assert not second.holds_state
    epochs = len(sink.epochs)
    run(lambda: make(drain=True))
    assert len(sink.epochs) == epochs  # nothing is held, so no epoch is made


class OtherForm(Counts):
    """Its state has another form from a delta on."""

    def __init__(self, form: Callable[[StateDelta], StateDelta], after: int) -> None:
        super().__init__(window_ms=50_000)
        self._form, self._after = form, after

    def delta(self) -> StateDelta:
        self._after -= 1
        return super().delta() if self._after >= 0 else self._form(super().delta())


def with_float_counts(delta: StateDelta) -> StateDelta:
    table = delta.tables["open"]
    at = table.rows.column_names.index("count")
    rows = table.rows.set_column(at, "count", table.rows["count"].cast(pa.float64()))
    return replace(delta, tables={"open": replace(table, rows=rows)})


def with_one_more_table(delta: StateDelta) -> StateDelta:
    more = TableDelta(rows=pa.table({"v": [1]}), merge=Append())
    return replace(delta, tables={**delta.tables, "more": more})


def without_its_table(delta: StateDelta) -> StateDelta:
    return replace(delta, tables={})


def with_another_key(delta: StateDelta) -> StateDelta:
    table = delta.tables["open"]
    return replace(delta, tables={"open": replace(table, merge=Upsert(("user",)))})


@pytest.mark.parametrize("form", [with_float_counts, with_one_more_table, without_its_table, with_another_key])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_state_that_could_not_be_read_is_never_committed(
    tmp_path: Path, form: Callable[[StateDelta], StateDelta], restarted: bool
) -> None:
    sink = InMemoryEpochSink()
    if restarted:
        interrupted(tmp_path, sink)
    before = len(sink.epochs)
    with pytest.raises(StateError, match="does not fit") as caught:
        run(lambda: visits(tmp_path, sink, operators=[OtherForm(form, 0 if restarted else 3)]))
    assert "operator counts" in caught.value.detail
    assert len(sink.epochs) == (before if restarted else 3)
    run(lambda: visits(tmp_path, sink))
    assert counts_of(sink) == group_by([VISITS], Rules(), 0, 50_000)


@pytest.mark.parametrize("deltas_max", [1, 200])
def test_a_new_version_of_an_operator_that_gives_everything_goes_on(tmp_path: Path, deltas_max: int) -> None:
    class Everything(OtherForm):
        def delta(self) -> StateDelta:
            if self._after == 0:  # the first delta after the restart
                self._changed = set(self._open)
                delta = super().delta()
                return replace(delta, whole=True)
            return super().delta()

    sink = InMemoryEpochSink()
    interrupted(tmp_path, sink, deltas_max=deltas_max)
    more: dict[str, Any] = {"operators": [Everything(with_one_more_table, 0)], "deltas_max": deltas_max}
    interrupted(tmp_path, sink, **more)
    with Checkpoints(tmp_path, writer="w") as store:
        found = store.recover()
    assert found is not None
    assert found.state is not None
    assert set(found.state.deltas["counts"].tables) == {"open", "more"}
    run(lambda: visits(tmp_path, sink, operators=[OtherForm(with_one_more_table, 0)]))
    assert counts_of(sink) == group_by([VISITS], Rules(), 0, 50_000)


def test_an_operator_whose_state_cannot_be_read_can_be_taken_out(tmp_path: Path) -> None:
    interrupted(tmp_path, InMemoryEpochSink())
    with Checkpoints(tmp_path, writer="w") as store:
        found = store.recover()
        assert found is not None
        assert found.state is not None
        assert found.header is not None
        definition, operators = SessionDefinition(policy=Policy()), [Counts(window_ms=50_000)]
        changes = EventProcessor.restore(found.state, definition, operators, track_changes=True).changes()
        odd = with_one_more_table(changes.deltas["counts"])
        store.commit(found.epoch + 1, found.header, Changes({**changes.deltas, "counts": odd}))
    with pytest.raises(StateError, match="do not fit together"):
        run(lambda: visits(tmp_path, InMemoryEpochSink()))
    events = RecordedEvents()
    last = run(lambda: visits(tmp_path, InMemoryEpochSink(), operators=[], observer=events))
    assert [event.operator for event in events.of(OperatorDropped)] == ["counts"]
    assert last.accounting.settled == len(VISITS)


def test_nothing_that_ships_knows_it() -> None:
    source = Path(__file__).parents[2] / "src" / "sessionize"
    for path in source.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "event_counts" not in text, path
        assert "seen_events" not in text, path
