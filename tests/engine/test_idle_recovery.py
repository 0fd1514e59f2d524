"""Recovery where partitions of few users go idle: what the silence of a partition changed is repeated as well."""

import threading
from pathlib import Path
from typing import Any

import pytest

from sessionize.engine.run_events.reports import EpochReport
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.options import StreamOptions
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource
from tests.engine.stream_runs import Crash, engine

NOW_MS = 10**12
TEMPO = StreamOptions(epoch_rows_max=3, epoch_s=1, poll_s=0, idle_after_s=0.5)
ADDED_AFTER, LAST = 20, 24  # epochs


class Ticking:
    """A clock that goes on by 50 ms whenever it is looked at."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        self.now_s += 0.05
        return self.now_s

    def now_ms(self) -> int:
        return NOW_MS + int(self.now_s * 1000)


class Chains:
    """One busy partition, and one with a single user who is silent for a while and then brings an old event."""

    def __init__(self, folder: Path) -> None:
        busy = [{"user": f"u{n % 5}", "time": NOW_MS - 3_600_000 + n * 10, "id": f"a{n}"} for n in range(400)]
        self.quiet: list[dict[str, Any]] = [{"user": "x", "time": NOW_MS - 1_000, "id": "b0"}]
        self.source = InMemoryStreamSource([busy, self.quiet], piece_min=1, piece_max=1)
        self.kept, self.folder = InMemoryEpochSink(), folder
        self._clock, self._stopping = Ticking(), threading.Event()

    def run(self, *, until: int, crash_at: tuple[int, str] | None = None) -> LocalEngine:
        """crash_at: (epoch, step)."""
        self._stopping.clear()
        begun = LAST + 1 if crash_at is None else 0

        def committed(report: EpochReport) -> None:
            if report.epoch >= ADDED_AFTER and len(self.quiet) == 1:
                self.quiet.append({"user": "x", "time": NOW_MS - 60_000, "id": "b1"})
            if report.epoch >= until:
                self._stopping.set()

        def step(name: str) -> None:
            nonlocal begun
            begun += name == "plan"
            if (begun, name) == crash_at:
                raise Crash

        made = engine(
            self.folder,
            self.source,
            {"kept": self.kept},
            lateness=10_000,
            options=TEMPO,
            clock=self._clock,
            stopping=self._stopping,
            on_epoch=committed,
            on_step=step,
        )
        try:
            made.run()
        finally:
            made.close()
        return made

    def check(self, made: LocalEngine) -> None:
        """The tables have what the accounting says, and the old event is late as it would be without any fault."""
        accounting = made.accounting
        assert accounting.balanced
        assert (self.kept.count("late_events"), self.kept.count("events")) == (
            accounting.late,
            accounting.settled + accounting.pending,
        )
        assert [row["event_id"] for table in self.kept.rows("late_events") for row in table.to_pylist()] == ["b1"]


@pytest.mark.parametrize("damaged", range(2, LAST, 3))
def test_epochs_that_are_repeated_in_a_row_judge_as_they_did(tmp_path: Path, damaged: int) -> None:
    runs = Chains(tmp_path)
    runs.check(runs.run(until=LAST))
    file = tmp_path / f"delta-{damaged}.ckpt"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    runs.check(runs.run(until=LAST + 3))


@pytest.mark.parametrize("epoch", range(1, LAST, 2))
@pytest.mark.parametrize("step", ["plan", "planned", "commit"])
def test_a_crash_at_any_step_of_an_epoch(tmp_path: Path, epoch: int, step: str) -> None:
    runs = Chains(tmp_path)
    with pytest.raises(Crash):
        runs.run(until=LAST, crash_at=(epoch, step))
    runs.check(runs.run(until=LAST + 3))
