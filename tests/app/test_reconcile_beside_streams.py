"""Several processes of one home, each of which would reconcile: one does, the others leave it to that one."""

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessionize.app.config.pipeline import load_pipeline
from sessionize.app.locks import Turn
from sessionize.app.streams import reconcile as stream_reconciling
from sessionize.app.streams.logs import StreamLog
from sessionize.app.streams.reconcile import StreamReconciler
from sessionize.engine.accounting import Accounting
from sessionize.engine.run_events.reports import Reconciled
from sessionize.errors import BusyError

GUARD_S = 60.0


class Process:
    """One that runs a stream, and what it logs."""

    def __init__(self, home: Path, name: str) -> None:
        self.log, self.end = io.StringIO(), threading.Event()
        overrides = {"run.home": str(home), "input.kind": "kafka", "input.kafka.topic": "t"}
        self._reconciler = StreamReconciler(
            load_pipeline("kafka_stream", overrides=overrides),
            name,
            every_s=0.01,
            stopping=threading.Event(),
            observer=StreamLog(name, to=self.log),
        )
        self._running = threading.Thread(target=lambda: self._reconciler.around(self._stream))
        self._running.start()

    def _stream(self) -> Accounting:
        assert self.end.wait(GUARD_S)
        return Accounting()

    def close(self) -> None:
        self.end.set()
        self._running.join(GUARD_S)

    def lines(self, event: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.log.getvalue().splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in found if line["event"] == event]

    def until(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        wait = threading.Event()
        for _ in range(int(GUARD_S / 0.01)):
            if len(self.lines(event)) >= count:
                return self.lines(event)
            wait.wait(0.01)
        raise AssertionError(self.log.getvalue())


def reconciling(monkeypatch: pytest.MonkeyPatch, work: Callable[[], None] = lambda: None) -> None:
    def reconcile(*_: Any, **__: Any) -> Reconciled:
        work()
        return Reconciled()

    monkeypatch.setattr(stream_reconciling, "reconcile_tables", reconcile)


def test_one_process_of_a_home_reconciles_and_another_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciling(monkeypatch)
    first = Process(tmp_path, "first")
    first.until("reconcile_finished")
    second = Process(tmp_path, "second")
    (skipped,) = second.until("reconcile_skipped")
    assert (skipped["level"], skipped["reason"]) == ("info", "another process of this home reconciles")
    first.until("reconcile_finished", len(first.lines("reconcile_finished")) + 5)
    assert len(second.lines("reconcile_skipped")) == 1
    assert second.lines("reconcile_finished") == second.lines("reconcile_failed") == []
    first.close()
    second.until("reconcile_finished")
    second.close()


def test_meeting_another_reconciliation_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meetings = [BusyError("another reconciliation is running"), BusyError("another reconciliation has changed …")]

    def work() -> None:
        if meetings:
            raise meetings.pop(0)

    reconciling(monkeypatch, work)
    process = Process(tmp_path, "only")
    process.until("reconcile_finished")
    assert [line["reason"] for line in process.lines("reconcile_skipped")] == [
        "another reconciliation is running",
        "another reconciliation has changed …",
    ]
    assert process.lines("reconcile_failed") == []
    process.close()


def test_a_turn_is_one_process_s_until_it_is_given_back(tmp_path: Path) -> None:
    mine, other = Turn(tmp_path / "home", "reconciler"), Turn(tmp_path / "home", "reconciler")
    assert [mine.is_mine(), mine.is_mine(), other.is_mine()] == [True, True, False]
    mine.give_back()
    mine.give_back()
    assert [other.is_mine(), mine.is_mine()] == [True, False]
    other.give_back()
