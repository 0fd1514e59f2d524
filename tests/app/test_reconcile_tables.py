"""Tables after reconciling, against a batch over everything that was archived; beside an engine that goes on."""

import errno
import fcntl
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.runs import plan
from sessionize.app.tables.reconcile import reconcile_tables
from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.iceberg import (
    EVENTS,
    LATE_EVENTS,
    USER_SESSIONS,
    IcebergEpochSink,
    load_table,
    open_catalog,
    user_sessions,
)
from sessionize.connectors.iceberg import reconcile_source as archive
from sessionize.connectors.iceberg.reconcile_source import NOTHING_FINAL
from sessionize.connectors.iceberg.row_rewrite import RowReplacer
from sessionize.engine.run_events.reports import Reconciled
from sessionize.errors import ConfigError, UnavailableError
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import EpochId
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.testing.comparison import sorted_rows
from sessionize.testing.epoch_outputs import output

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
# the days around a midnight, so that chains lie on both sides of it
NOON = 20_000 * DAY + DAY // 2
NOW_MS = NOON + 30 * DAY


def pipeline(home: Path, **settings: object) -> PipelineConfig:
    overrides = {"run.home": str(home), "input.dialect": "user-events", **settings}
    return load_pipeline("user_sessionization_pipeline", overrides=overrides)


def definition_of(config: PipelineConfig) -> SessionDefinition:
    dialect = config.dialect()
    return config.definition(dialect.columns, dialect.user_name)


def stored(config: PipelineConfig) -> pa.Table:
    return load_table(open_catalog(config.home), "sessions", USER_SESSIONS).scan().to_arrow()


def rows_in(config: PipelineConfig, table: pa.Table) -> list[Any]:
    definition = definition_of(config)
    return sorted_rows(table.select(definition.columns.schema(definition.user_name).names), definition.user_name)


def batch_of(config: PipelineConfig) -> list[Any]:
    """The sessions of all events that the tables have."""
    definition, catalog = definition_of(config), open_catalog(config.home)
    tables = [load_table(catalog, "sessions", name).scan().to_arrow() for name in (EVENTS, LATE_EVENTS)]
    everything = pa.concat_tables(tables, promote_options="permissive")
    names = [col.USER if name == definition.user_name else name for name in everything.column_names]
    sessionizer = Sessionizer.of(definition)
    canonical = {n: c.cast(col.EVENT_TYPES.get(n, c.type)) for n, c in zip(names, everything.columns, strict=True)}
    sessionizer.push(pa.table(canonical))
    return rows_in(config, sessionizer.flush())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rules.gap": "36h", "rules.max_duration": "none"},
        {"rules.session_ids": "sequential"},
        {"rules.end_events": ["LOGOUT"], "rules.max_duration_mode": "rolling"},
    ],
    ids=["as it is", "chains over days", "numbered", "rules"],
)
def test_tables_of_a_run_equal_a_batch_afterwards(tmp_path: Path, settings: dict[str, object]) -> None:
    generated = {"events": 1_500, "users": 30, "duration": "30h", "late_fraction": 0.05}
    made = {f"input.generator.{name}": value for name, value in generated.items()}
    config = pipeline(tmp_path, **{"input.kind": "generator", "rules.watermark": "maximum", **made, **settings})
    accounting = plan(config, now_ms=NOW_MS).run()
    assert accounting.late > 30
    assert rows_in(config, stored(config)) != batch_of(config)
    would = reconcile_tables(tmp_path, config, dry_run=True)
    done = reconcile_tables(tmp_path, config, users_max=15, rows_max=400)
    assert (would.late_events, would.users, would.replaced, would.added, would.unchanged) == (
        done.late_events,
        done.users,
        done.replaced,
        done.added,
        done.unchanged,
    )
    assert rows_in(config, stored(config)) == batch_of(config)
    assert done.late_events == accounting.late
    assert (done.waiting, done.incomplete_users) == (0, 0)
    assert done.commits > 2
    again = reconcile_tables(tmp_path, config)
    assert (again.replaced, again.added, again.commits) == (0, 0, 0)
    assert again.late_events == (accounting.late if "rules.session_ids" in settings else 0)


class Engine:
    """The tables as an engine writes them, epoch by epoch."""

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config
        self._definition = definition_of(config)
        self._sessionizer = self._new()
        self._number = 0

    def epoch(self, on_time: Sequence[tuple[str, float]], late: Sequence[tuple[str, float]], mark: float) -> None:
        """Events as (user, minutes after noon); the watermark in the same unit."""
        accepted = self._events(on_time)
        self._sessionizer.push(accepted)
        mark_ms = NOON + round(mark * MINUTE)
        self._write(accepted, self._events(late), self._sessionizer.advance(mark_ms), mark_ms)

    def drain(self) -> None:
        final, latest_ms = self._sessionizer.flush(), self._sessionizer.latest_ms
        self._sessionizer = self._new()
        assert latest_ms is not None
        self._write(
            self._events([]), self._events([]), final, latest_ms + self._definition.policy.longest_silence_ms + 1
        )

    def _new(self) -> Sessionizer:
        return Sessionizer.of(self._definition)

    def _events(self, rows: Sequence[tuple[str, float]]) -> pa.Table:
        columns = {name: pa.nulls(len(rows), kind) for name, kind in col.EVENT_TYPES.items()}
        columns[col.USER] = pa.array([user for user, _ in rows], pa.string())
        columns[col.EVENT_TIME] = pa.array([NOON + round(at * MINUTE) for _, at in rows], pa.int64())
        return pa.table(columns)

    def _write(self, accepted: pa.Table, late: pa.Table, sessions: pa.Table, mark_ms: int) -> None:
        self._number += 1
        rows = output(mark_ms, user_sessions=sessions, events=accepted, late_events=late)
        sink = IcebergEpochSink(open_catalog(self.config.home), user_name=self._definition.user_name)
        sink.write_epoch(EpochId("w", self._number, "plan"), rows)
        sink.close()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(pipeline(tmp_path))


def reconciled(engine: Engine, **options: Any) -> Reconciled:
    return reconcile_tables(engine.config.home, engine.config, **options)


def test_late_events_of_open_sessions_wait_until_they_are_final(engine: Engine) -> None:
    engine.epoch([("a", 0), ("b", 0), ("b", 190), ("a", 190)], [], 185)
    engine.epoch([], [("a", 20), ("b", 170)], 190)
    done = reconciled(engine)
    assert (done.late_events, done.users, done.replaced, done.added, done.waiting) == (2, 2, 1, 1, 1)
    assert done.horizon_ms == NOON + 185 * MINUTE
    engine.epoch([("c", 400)], [], 390)
    done = reconciled(engine)
    assert (done.late_events, done.replaced, done.added, done.unchanged, done.waiting) == (2, 1, 1, 1, 0)
    assert reconciled(engine).late_events == 0
    engine.drain()
    assert rows_in(engine.config, stored(engine.config)) == batch_of(engine.config)


def test_watermarks_outlive_snapshots_and_new_writers_hold_back(engine: Engine, tmp_path: Path) -> None:
    engine.epoch([("a", 0)], [("a", -90)], -5)
    done = reconciled(engine)
    assert (done.added, done.waiting, done.horizon_ms) == (0, 1, NOTHING_FINAL)
    engine.epoch([("z", 600)], [], 590)
    catalog = open_catalog(tmp_path)
    sessions = load_table(catalog, "sessions", USER_SESSIONS)
    newest = sessions.current_snapshot()
    assert newest is not None
    reconciled(engine)
    sessions = load_table(catalog, "sessions", USER_SESSIONS)
    sessions.maintenance.expire_snapshots().by_id(newest.snapshot_id).commit()
    engine.epoch([], [("z", 595)], 590)
    done = reconciled(engine)
    assert (done.waiting, done.horizon_ms) == (1, NOON + 590 * MINUTE)


def test_a_chain_over_many_days_is_read_as_a_whole(engine: Engine) -> None:
    marathon = [("a", float(at)) for at in range(0, 6 * 24 * 60, 25)]
    engine.epoch([*marathon, ("b", 20_000)], [], 19_000)
    engine.epoch([], [("a", 3 * 24 * 60 + 7), ("a", -20)], 19_000)
    assert reconciled(engine).replaced > 60
    engine.drain()
    assert rows_in(engine.config, stored(engine.config)) == batch_of(engine.config)


def test_a_drained_stream_that_goes_on_gets_other_ends(engine: Engine) -> None:
    engine.epoch([("a", 0), ("b", 5)], [], 0)
    engine.drain()
    assert reconciled(engine).users == 0
    engine.epoch([("c", 90)], [("a", 20)], 80)
    done = reconciled(engine)
    assert (done.users, done.replaced, done.added, done.waiting) == (2, 1, 1, 1)
    engine.epoch([("d", 700)], [], 690)
    done = reconciled(engine)
    assert (done.users, done.replaced, done.added, done.waiting) == (1, 1, 1, 0)
    engine.drain()
    assert rows_in(engine.config, stored(engine.config)) == batch_of(engine.config)


def test_a_window_looks_at_the_newest_alone_and_forgets_none(engine: Engine) -> None:
    engine.epoch([("a", 0), ("b", 600), ("c", 700)], [], 690)
    engine.epoch([], [("a", 10), ("b", 610)], 690)
    done = reconciled(engine, window_ms=3 * HOUR)
    assert (done.late_events, done.users, done.replaced) == (1, 1, 1)
    assert reconciled(engine).replaced == 1
    engine.drain()
    assert rows_in(engine.config, stored(engine.config)) == batch_of(engine.config)


def test_a_kill_between_two_groups_is_made_up_for(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [f"u{i}" for i in range(6)]
    engine.epoch([*[(user, 0.0) for user in users], ("z", 600)], [], 590)
    engine.epoch([], [(user, 10.0) for user in users], 590)
    real = RowReplacer.replace
    calls = []

    def dies(self: RowReplacer, *arguments: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(self, *arguments, **options)

    monkeypatch.setattr(RowReplacer, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        reconciled(engine, users_max=2)
    assert sorted(stored(engine.config)[col.EVENT_COUNT].to_pylist()) == [1, 1, 1, 1, 2, 2]
    done = reconciled(engine, users_max=2)
    assert (done.late_events, done.replaced, done.unchanged) == (6, 4, 2)


class Store:
    """A store that fails as often as told, and keeps what it got."""

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self.calls: list[tuple[Any, Any, str]] = []

    def replace(self, removed: pa.Table, added: pa.Table, *, token: str) -> None:
        if self._failures:
            self._failures -= 1
            raise UnavailableError("the store is not there")
        self.calls.append((removed.to_pylist(), added[col.EVENT_COUNT].to_pylist(), token))


def test_other_stores_get_the_same_replacements_once_they_are_there(engine: Engine) -> None:
    engine.epoch([("a", 0), ("z", 600)], [], 590)
    engine.epoch([], [("a", 10)], 590)
    store = Store(failures=1)
    with pytest.raises(UnavailableError):
        reconciled(engine, stores=[store])
    assert reconciled(engine, stores=[store]).replaced == 0
    assert reconciled(engine, stores=[store]).replaced == 0
    ((removed, counts, token),) = store.calls
    user_name = engine.config.dialect().user_name
    assert removed == [{user_name: "a", "session_id": f"a_{NOON}"}]
    assert counts == [2]
    table = load_table(open_catalog(engine.config.home), "sessions", USER_SESSIONS)
    assert RowReplacer(table, user_sessions(user_name)).was_committed(token)
    summary = table.current_snapshot().summary
    assert summary is not None
    assert summary["sessionize.operation"] == "reconcile"


def test_stores_hear_nothing_of_what_the_tables_did_not_take(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.epoch([("a", 0), ("z", 600)], [], 590)
    engine.epoch([], [("a", 10)], 590)
    store = Store(failures=0)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RowReplacer, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            reconciled(engine, stores=[store])
    reconciled(engine, stores=[store])
    assert [counts for _, counts, _ in store.calls] == [[2]]


def test_one_at_a_time(engine: Engine) -> None:
    engine.epoch([("a", 0)], [], 0)
    with open(engine.config.home / "reconcile.lock", "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UnavailableError, match="another reconciliation is running"):
            reconciled(engine)
    assert reconciled(engine).users == 0


@pytest.mark.parametrize("late_minute", [20, -90], ids=["in place of others", "for itself"])
def test_two_from_different_homes_never_add_a_session_twice(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, late_minute: int
) -> None:
    """Between looking and the commit somebody else, whom no lock of this home keeps out, does the very same."""
    engine.epoch([("a", 0), ("a", 40), ("z", 600)], [], 590)
    engine.epoch([], [("a", late_minute)], 590)
    real = RowReplacer.replace

    def late(self: RowReplacer, removed: pa.Table, added: pa.Table, **options: Any) -> None:
        monkeypatch.setattr(RowReplacer, "replace", real)
        real(self, removed, added, **{**options, "token": "somebody else"})
        real(self, removed, added, **options)

    monkeypatch.setattr(RowReplacer, "replace", late)
    with pytest.raises(UnavailableError, match="another reconciliation"):
        reconciled(engine)
    assert rows_in(engine.config, stored(engine.config)) == batch_of(engine.config)[:-1]  # z is open
    assert reconciled(engine).commits == 0


def test_storage_that_is_away_may_be_back_later(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.epoch([("a", 0), ("z", 600)], [], 590)
    engine.epoch([], [("a", 10)], 590)

    def no_answer() -> None:
        raise OSError(errno.ETIMEDOUT, "no answer in time")

    def unavailable(data: Any) -> Any:
        scanner = SimpleNamespace(to_batches=no_answer, projected_schema=None)
        return SimpleNamespace(schema=real(data).schema, scanner=lambda **_: scanner)

    real = archive._dataset
    with monkeypatch.context() as broken:
        broken.setattr(archive, "_dataset", unavailable)
        with pytest.raises(UnavailableError, match="no answer in time"):
            reconciled(engine)
    assert reconciled(engine).replaced == 1


def test_what_cannot_be_reconciled_says_why(tmp_path: Path, engine: Engine) -> None:
    with pytest.raises(ConfigError, match="no tables yet"):
        reconciled(engine)
    files = pipeline(tmp_path, **{"output.kind": "parquet", "output.path": "o.parquet"})
    with pytest.raises(ConfigError, match="only tables can be reconciled"):
        reconcile_tables(tmp_path, files)
    engine.epoch([("a", 0)], [], 0)
    other = load_pipeline("user_sessionization_pipeline", overrides={"run.home": str(tmp_path)})
    with pytest.raises(ConfigError, match="not made by this pipeline"):
        reconcile_tables(tmp_path, other)
    assert Warehouse(tmp_path).query("SELECT count(*) AS n FROM events")["n"].to_pylist() == [1]


def test_a_window_that_holds_everything_is_remembered(engine: Engine) -> None:
    engine.epoch([("a", 0), ("b", 600), ("c", 700)], [], 690)
    engine.epoch([], [("a", 10), ("b", 610)], 690)
    assert reconciled(engine, window_ms=3 * HOUR).late_events == 1
    assert reconciled(engine, window_ms=3 * HOUR).late_events == 1  # one is outside, so both stay in sight
    assert reconciled(engine, window_ms=24 * HOUR).late_events == 2
    assert reconciled(engine, window_ms=24 * HOUR).late_events == 0


def test_told_to_stop_it_ends_early_and_forgets_nothing(engine: Engine) -> None:
    users = [f"u{i}" for i in range(6)]
    engine.epoch([*[(user, 0.0) for user in users], ("z", 600)], [], 590)
    engine.epoch([], [(user, 10.0) for user in users], 590)
    asked: list[int] = []

    def after_two_groups() -> bool:
        asked.append(1)
        return len(asked) > 2

    done = reconciled(engine, users_max=1, stop=after_two_groups)
    assert (done.stopped, done.replaced) == (True, 2)
    done = reconciled(engine)
    assert (done.stopped, done.late_events, done.replaced, done.unchanged) == (False, 6, 4, 2)


def test_a_writer_that_holds_nothing_open_holds_nothing_back(engine: Engine) -> None:
    engine.epoch([("a", 0)], [("b", -90)], -5)
    assert reconciled(engine, closed={"somebody else"}).waiting == 1
    assert reconciled(engine, closed={"w"}, dry_run=True).horizon_ms is None
    assert reconciled(engine, closed={"w"}).waiting == 0


def test_a_replacement_is_known_after_its_snapshot_is_gone(engine: Engine) -> None:
    engine.epoch([("a", 0), ("z", 600)], [], 590)
    engine.epoch([], [("a", 10)], 590)
    store = Store(failures=1)
    with pytest.raises(UnavailableError):
        reconciled(engine, stores=[store])
    replaced = load_table(open_catalog(engine.config.home), "sessions", USER_SESSIONS).current_snapshot()
    assert replaced is not None
    engine.epoch([("y", 1200)], [], 1190)
    table = load_table(open_catalog(engine.config.home), "sessions", USER_SESSIONS)
    table.maintenance.expire_snapshots().by_id(replaced.snapshot_id).commit()
    reconciled(engine, stores=[store])
    assert [counts for _, counts, _ in store.calls] == [[2]]
