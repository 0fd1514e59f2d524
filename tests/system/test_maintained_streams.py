"""A stream whose tables are looked after while it runs: few files, the same rows, and nothing of it in the way."""

import io
import json
import threading
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.locks import exclusive
from sessionize.app.streams.logs import StreamLog
from sessionize.app.streams.maintain import stream_maintainer
from sessionize.app.streams.run import open_stream
from sessionize.app.tables import maintain as maintaining
from sessionize.connectors.iceberg import MaintenanceSettings, load_table, open_catalog
from sessionize.errors import BusyError, UnavailableError
from sessionize.testing.runs import BackgroundRun
from tests.system.test_directory_pipeline import lines, pipeline, put, rows_of


class Told:
    """A log, line by line."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self.log = StreamLog("p", level="INFO", to=self._text)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self._text.getvalue().splitlines()) if line["event"] == event]


def stream(config: PipelineConfig, told: Told) -> BackgroundRun:
    return BackgroundRun(open_stream, config, observer=told.log)


def events_files(config: PipelineConfig) -> tuple[int, int]:
    """How many files the table of the events has, and how many lie on the disk."""
    table = load_table(open_catalog(config.home), "sessions", "events")
    files = len(list(table.scan().plan_files()))
    return files, len(list((config.home / "warehouse/sessions/events").rglob("*.parquet")))


def test_a_running_stream_keeps_few_files_and_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # nobody reads these tables, so what is replaced may go at once
    monkeypatch.setattr(maintaining, "MaintenanceSettings", lambda: MaintenanceSettings(keep_s=0))
    config, told = pipeline(tmp_path, stream__maintain="50ms", stream__epoch="20ms"), Told()
    with stream(config, told) as running:
        for number in range(12):
            put(config, f"{number}.ndjson", lines(rows_of(number)), age_s=number)
            running.wait_for(partial(running.has_read, (number + 1) * 61), f"file {number}")

        def packed() -> bool:
            return any(line["compacted"] and line["table"] == "events" for line in told.of("maintenance_finished"))

        running.wait_for(packed, "maintenance that packs events")
        # one for each of the two dates, and no other left on the disk
        running.wait_for(lambda: events_files(config) == (2, 2), "few files")
        accounting = running.end(stop=True)
    assert accounting.balanced
    rows = load_table(open_catalog(config.home), "sessions", "events").scan().to_arrow()
    late = load_table(open_catalog(config.home), "sessions", "late_events").scan().to_arrow()
    found = Counter(rows["event_id"].to_pylist()) + Counter(late["event_id"].to_pylist())
    assert set(found) == {row["id"] for number in range(12) for row in rows_of(number)}
    assert {line["table"] for line in told.of("maintenance_finished")} == {
        *("user_sessions", "events", "late_events", "rejected_events"),
    }
    assert told.of("maintenance_failed") == []


def test_one_process_of_a_home_does_it_and_the_others_pass_it_over(tmp_path: Path) -> None:
    config, told = pipeline(tmp_path, stream__maintain="10ms"), Told()
    with stream(config, told) as running:
        put(config, "1.ndjson", lines(rows_of(1)), age_s=1)
        running.wait_for_epochs(1)
        running.wait_for(lambda: told.of("maintenance_finished"), "maintenance")
        with ExitStack() as held:

            def taken() -> bool:
                try:
                    held.enter_context(exclusive(config.home, "maintain", "maintenance"))
                except BusyError:  # the stream's own maintenance, which takes a moment
                    return False
                return True

            running.wait_for(taken, "the lock")
            before = len(told.of("maintenance_finished"))
            put(config, "2.ndjson", lines(rows_of(2)), age_s=2)
            running.wait_for_epochs(2)
            # what was under way when the lock was taken cannot be, as it holds the lock itself
            assert len(told.of("maintenance_finished")) == before
        running.wait_for(lambda: len(told.of("maintenance_finished")) > before, "maintenance")
        running.end(stop=True)
    assert told.of("maintenance_failed") == []


def test_what_fails_is_a_line_in_the_log_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [UnavailableError("the catalog is asleep"), ValueError("a mistake")]
    maintain = maintaining.maintain

    def at_first_failing(*arguments: Any, **options: Any) -> Any:
        if problems:
            raise problems.pop(0)
        return maintain(*arguments, **options)

    monkeypatch.setattr(maintaining, "maintain", at_first_failing)
    config, told = pipeline(tmp_path, stream__maintain="10ms"), Told()
    with stream(config, told) as running:
        put(config, "1.ndjson", lines(rows_of(1)), age_s=1)
        running.wait_for(lambda: told.of("maintenance_finished"), "maintenance")
        running.end(stop=True)
    failed = [(line["level"], line["problem"]) for line in told.of("maintenance_failed")]
    assert failed == [("warning", "the catalog is asleep"), ("error", "ValueError: a mistake")]


@pytest.mark.parametrize(
    ("options", "does"),
    [
        ({}, True),
        ({"stream__maintain": "none"}, False),
        ({"run__once": True}, False),
    ],
    ids=["by default", "none", "once"],
)
def test_when_a_stream_looks_after_its_tables(tmp_path: Path, options: dict[str, object], does: bool) -> None:
    maintainer = stream_maintainer(pipeline(tmp_path, **options), stopping=threading.Event())
    assert (maintainer is not None) == does


def test_of_processes_that_share_a_catalog_on_a_server_one_does_it(tmp_path: Path) -> None:
    def does(**options: object) -> bool:
        made = pipeline(tmp_path, input__kind="kafka", input__kafka__instances=2, **options)
        return stream_maintainer(made, stopping=threading.Event()) is not None

    server: dict[str, object] = {"output__catalog__kind": "rest", "output__catalog__uri": "http://127.0.0.1:1"}
    assert does(input__kafka__instance=0, **server)
    assert not does(input__kafka__instance=1, **server)
    assert does(input__kafka__instance=1)


def test_the_end_of_a_run_does_not_wait_for_the_interval(tmp_path: Path) -> None:
    config, told = pipeline(tmp_path, stream__maintain="1h"), Told()
    with stream(config, told) as running:
        put(config, "1.ndjson", lines(rows_of(1)), age_s=1)
        running.wait_for_epochs(1)
        running.end(stop=True)
    assert told.of("maintenance_finished") == told.of("maintenance_unfinished") == []
