"""Loads that are not in: a retry leaves what is theirs, and of two homes one alone loads the same files."""

import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.tables.maintain import MaintenanceSettings
from sessionize.app.tables.retry_rejected import retry_rejected
from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.iceberg import IcebergSink, maintain_table, open_catalog
from sessionize.connectors.iceberg.row_rewrite import RowReplacer
from sessionize.errors import InputError, StateError
from sessionize.testing.services.postgres import PostgresServer
from tests.app.loads import NOW_MS, ONCE, KilledError, counts, killed_after, pipeline, records, run, two_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As two_files."""
    return two_files(tmp_path)


LATER = {"input.mapping.time_format": "auto"}
READABLE_LATER = '{"user_id": "cid", "timestamp": "2024-01-01T00:00:00Z"}'


def strict(folder: Path, *inputs: str) -> PipelineConfig:
    return pipeline(folder, *inputs, **{"input.mapping.time_format": "ms"})


def killed_before_its_sessions(monkeypatch: pytest.MonkeyPatch, config: PipelineConfig) -> None:
    with monkeypatch.context() as patched:
        killed_after(patched, 4)
        with pytest.raises(KilledError):
            run(config)


@pytest.mark.parametrize("commits", [1, 2, 3, 4])
def test_tables_that_were_half_replaced_take_another_replacement_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    """Sessions of the old files and events of the new ones: what was added to them was there for ever."""
    run(pipeline(folder))
    (folder / "cid.ndjson").write_text(records("cid", 3))
    (folder / "dora.ndjson").write_text(records("dora", 3))
    replacing = {"output.mode": "overwrite"}
    with monkeypatch.context() as patched:
        killed_after(patched, commits)
        with pytest.raises(KilledError):
            run(pipeline(folder, "cid.ndjson", **replacing))
    for name in ("cid.ndjson", "dora.ndjson") if commits > 1 else ():
        with pytest.raises(StateError, match=r"was interrupted[\s\S]*events[\s\S]*overwrite"):
            run(pipeline(folder, name))
    if commits == 1:  # the load was noted, and nothing else
        run(pipeline(folder, "dora.ndjson"))
        assert counts(folder) == (3, 9, 3)
    run(pipeline(folder, "cid.ndjson", **replacing))
    assert counts(folder) == (1, 3, 1)
    run(pipeline(folder, "dora.ndjson"))
    assert counts(folder) == (2, 6, 2)


def test_a_retry_leaves_records_of_a_load_that_was_cut_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sessions of the load are missing: if it counted as in, no run would make them."""
    (folder / "cid.ndjson").write_text(records("cid", 3).replace("broken", READABLE_LATER))
    killed_before_its_sessions(monkeypatch, strict(folder, "cid.ndjson"))
    now = pipeline(folder, "cid.ndjson", **LATER)
    for dry_run in (True, False):
        done = retry_rejected(folder / "home", now, now_ms=NOW_MS, dry_run=dry_run)
        assert (done.usable, done.looked_at, done.cut_off) == (0, 0, {f"{folder}/cid.ndjson": 1})
    assert not Warehouse(folder / "home").query("FROM loads WHERE is_in").num_rows
    run(now)
    assert counts(folder) == (2, 4, 0)
    assert retry_rejected(folder / "home", now, now_ms=NOW_MS).looked_at == 0


def test_a_retry_tells_records_of_one_path_apart_by_their_load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same record stands on the same line of another day's file, whose load was cut off."""
    path = folder / "cid.ndjson"
    path.write_text(records("cid", 3).replace("broken", READABLE_LATER))
    run(strict(folder, "cid.ndjson"))
    path.write_text(records("dora", 3).replace("broken", READABLE_LATER))
    killed_before_its_sessions(monkeypatch, strict(folder, "cid.ndjson"))
    now = pipeline(folder, "cid.ndjson", **LATER)
    done = retry_rejected(folder / "home", now, now_ms=NOW_MS)
    assert (done.usable, done.cut_off) == (1, {str(path): 1})
    assert counts(folder) == (1, 6, 1)
    run(now)
    assert counts(folder) == (3, 7, 0)


def test_a_retry_goes_by_the_path_where_loads_cannot_be_told_apart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(pipeline(folder, "in/ann.ndjson"))
    (folder / "cid.ndjson").write_text(records("cid", 3).replace("broken", READABLE_LATER))
    killed_before_its_sessions(monkeypatch, strict(folder, "cid.ndjson"))
    maintain_table(open_catalog(folder / "home"), "sessions", "rejected_events", MaintenanceSettings(keep_s=0))
    done = retry_rejected(folder / "home", pipeline(folder, **LATER), now_ms=NOW_MS)
    assert (done.usable, done.looked_at, done.cut_off) == (0, 1, {f"{folder}/cid.ndjson": 1})
    assert counts(folder) == (1, 6, 2)


def test_a_retry_brings_in_no_load_but_that_of_its_records(folder: Path) -> None:
    """Two days of one path: of the first one every record was rejected, of the second one one."""
    path = folder / "cid.ndjson"
    first = records("cid", 3).replace("timestamp", "when")
    path.write_text(first)
    with pytest.raises(InputError):
        run(strict(folder, "cid.ndjson"))
    path.write_text(records("dora", 3).replace("broken", READABLE_LATER))
    run(strict(folder, "cid.ndjson"))
    done = retry_rejected(folder / "home", pipeline(folder, **LATER), reason="invalid_time", now_ms=NOW_MS)
    assert (done.usable, done.cut_off) == (1, {})
    path.write_text(first)
    run(pipeline(folder, "cid.ndjson", **{"input.mapping.time": "when"}))
    assert counts(folder) == (2, 6, 1)


def test_a_killed_retry_leaves_nothing_that_another_run_would_double(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError):
        run(pipeline(folder, **{"input.mapping.time": "when"}))
    for commits in range(2):
        with monkeypatch.context() as patched:
            killed_after(patched, commits)
            if not commits:
                with pytest.raises(KilledError):
                    retry_rejected(folder / "home", pipeline(folder), now_ms=NOW_MS)
            else:
                patched.setattr(RowReplacer, "replace", lambda *_, **__: (_ for _ in ()).throw(KilledError()))
                with pytest.raises(KilledError):
                    retry_rejected(folder / "home", pipeline(folder), now_ms=NOW_MS)
        with pytest.raises(StateError, match="already"):
            run(pipeline(folder))
    assert retry_rejected(folder / "home", pipeline(folder), now_ms=NOW_MS).finished == 6
    rows = Warehouse(folder / "home").query("SELECT count(*) AS n FROM late_events").to_pylist()
    assert (rows, counts(folder)) == ([{"n": 6}], (0, 0, 2))


@pytest.fixture
def server_catalog(folder: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A catalog of the test's own that any home can name."""
    monkeypatch.setenv("CATALOG_PASSWORD", postgres.password)
    database = f"t{uuid.uuid4().hex[:12]}"
    with postgres.connect() as admin:
        admin.execute(f"CREATE DATABASE {database}")
    return {
        "output.catalog.kind": "postgres",
        "output.catalog.uri": f"postgresql://sessionize@127.0.0.1:{postgres.port}/{database}",
        "output.catalog.settings": ["password=env:CATALOG_PASSWORD"],
        "output.catalog.warehouse": str(folder / "warehouse"),
    }


class Meeting:
    """Stops one run at a point until the other one, begun then, is at its own; then the first one runs to its end.

    A run's points: 2 * n before its n-th commit, 2 * n + 1 after it. The commits: loads, rejected, late, events and
    sessions.
    """

    def __init__(self, first: int, second: int) -> None:
        self._stops, self._passed = {"first": first, "second": second}, {"first": 0, "second": 0}
        self._first_waits, self._second_waits, self._first_ended = (threading.Event() for _ in range(3))

    def reached(self) -> None:
        """A run is at its next point."""
        name = threading.current_thread().name
        if name not in self._stops:
            return
        here, self._passed[name] = self._passed[name], self._passed[name] + 1
        if here != self._stops[name]:
            return
        if name == "first":
            self._first_waits.set()
            assert self._second_waits.wait(60)
        else:
            self._second_waits.set()
            assert self._first_ended.wait(60)

    def run(self, name: str, config: PipelineConfig, failed: dict[str, str]) -> None:
        """One of the two."""
        try:
            if name == "second":
                assert self._first_waits.wait(60)
            run(config)
        except StateError as error:
            failed[name] = str(error)
        finally:
            (self._first_ended if name == "first" else self._second_waits).set()


@pytest.mark.parametrize(("first", "second"), [(1, 0), (1, 1), (1, 2), (2, 2), (6, 1), (6, 6), (8, 0), (8, 2), (8, 8)])
def test_two_homes_with_one_catalog_load_the_same_files_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, server_catalog: dict[str, object], first: int, second: int
) -> None:
    """Nothing tells a load that is under way in another home from one that was cut off."""
    run(pipeline(folder, "in/ann.ndjson", **server_catalog))
    meeting, commit = Meeting(first, second), IcebergSink.commit
    failed: dict[str, str] = {}

    def watched(sink: IcebergSink, **more: Any) -> None:
        meeting.reached()
        commit(sink, **more)
        meeting.reached()

    monkeypatch.setattr(IcebergSink, "commit", watched)
    homes = {"first": "home", "second": "other"}
    configs = {
        name: pipeline(folder, "in/bob.ndjson", **server_catalog, **{"run.home": str(folder / homes[name])})
        for name in homes
    }
    threads = [threading.Thread(target=meeting.run, name=name, args=(name, configs[name], failed)) for name in homes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loser = "second" if second < 2 else "first"  # from point 2 on it has replaced the other one
    assert list(failed) == [loser]
    assert ("has replaced this one" if loser == "first" else "already") in failed[loser]
    assert counts(folder, Warehouse.of(configs["first"])) == ONCE
    is_in = Warehouse.of(configs["first"]).query("SELECT count(*) AS n FROM loads WHERE is_in").to_pylist()
    assert is_in == [{"n": 2}]
    with pytest.raises(StateError, match="already"):
        run(pipeline(folder, **server_catalog))
