"""Streams that nobody wishes for, through whole pipelines: jumping clocks, nothing, only late records, full disks."""

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize import Policy, Rules
from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.engine.accounting import Accounting
from sessionize.engine.run_events.reports import EpochReport
from sessionize.engine.stream.checkpoints import Checkpoints
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.options import StreamOptions, StreamOutputs
from sessionize.errors import InputError, OutputError, UnavailableError
from sessionize.ports import EpochId, EpochOutput, Positions, Ranges, StreamBatch
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.testing.observers import Calls
from sessionize.testing.oracle import Oracle
from sessionize.testing.records import FAR_OFF_MS, by_user, clickstream
from sessionize.testing.services.kafka import KafkaServers
from sessionize.testing.tables import check_run, iceberg_rows
from tests.system.whole_runs import Crash, crash_before, event, filled_topic, oracle_of, run

START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


def pipeline(folder: Path, text: str, **overrides: object) -> PipelineConfig:
    path = folder / "p.toml"
    path.write_text(f'name = "p"\n{text}')
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    fixed = {
        "run.once": True,
        "run.home": str(folder / "home"),
        "rules.lateness": "5m",
        "stream.poll": "20ms",
        "stream.reconcile": "none",
    }
    return load_pipeline(str(path), overrides={**fixed, **keys}, environ={})


def from_topic(folder: Path, kafka: KafkaServers, parts: list[list[bytes]], **overrides: object) -> PipelineConfig:
    topic = filled_topic(kafka, parts)
    text = f'[input]\nkind = "kafka"\n[input.kafka]\nservers = "{kafka.servers}"\ntopic = "{topic}"\n'
    return pipeline(folder, text, **{"output__sqlite__path": "store.sqlite", **overrides})


def check(config: PipelineConfig, parts: list[list[bytes]], accounting: Accounting) -> Oracle:
    oracle = oracle_of(config, parts)
    check_run(config.home, oracle, config.policy(), config.event_rules(), accounting, user="uuid")
    return oracle


def test_a_wall_clock_that_jumps(tmp_path: Path, kafka: KafkaServers) -> None:
    """Back and forward by hours, with crashes in between: what is too far in the future is decided once."""

    class Jumping:
        def __init__(self) -> None:
            self.calls, self.s = 0, 0.0

        def now_ms(self) -> int:
            self.calls += 1
            return START_MS + (0, 5, -7, 3)[self.calls % 4] * HOUR_MS

        def monotonic_s(self) -> float:
            self.s += 0.001
            return self.s

    records = [event(f"u{i % 9}", START_MS + (i % 50) * 1_000 + (i % 4) * 2 * HOUR_MS) for i in range(400)]
    config = from_topic(
        tmp_path,
        kafka,
        [records[::2], records[1::2]],
        stream__epoch_rows=40,
        rules__max_future="1h",
        rules__lateness="9h",
    )
    for _ in range(4):
        with pytest.raises(Crash):
            run(config, clock=Jumping(), on_step=crash_before("commit", 2))
    accounting = run(config, clock=Jumping())
    accepted = iceberg_rows(config.home, "events") + iceberg_rows(config.home, "late_events")
    rejected = iceberg_rows(config.home, "rejected_events")
    ids = Counter(row["event_id"] for row in accepted)
    ids.update(json.loads(row["raw"])["event_id"] for row in rejected)
    assert ids == Counter(json.loads(record)["event_id"] for record in records)
    assert 0 < accounting.rejected == len(rejected) < 400
    assert {row["reason"] for row in rejected} == {"future_timestamp"}
    kept = {row["event_id"] for row in accepted}
    oracle = Oracle.of_json(
        [[r for r in part if json.loads(r)["event_id"] in kept] for part in (records[::2], records[1::2])],
        config.dialect(),
        lateness_ms=config.rules.lateness_ms,
        watermark=config.rules.watermark,
    )
    oracle = replace(oracle, rejected=len(rejected))
    check_run(config.home, oracle, config.policy(), config.event_rules(), accounting, user="uuid")


def test_an_empty_topic_then_only_rejected_then_only_late(tmp_path: Path, kafka: KafkaServers) -> None:
    config = from_topic(tmp_path, kafka, [[], []])
    topic = config.input.kafka.topic
    check(config, [[], []], run(config))
    parts: list[list[bytes]] = [[b"not json", b"{}", b"[1]"], [event("f", FAR_OFF_MS + 1)]]
    for number, part in enumerate(parts):
        kafka.send(topic, part, partition=number)
    with pytest.raises(InputError, match="none of the records could be used"):
        run(config)
    assert check(config, parts, run(config)).rejected == 4  # told after all was written
    on_time = [event(f"u{i}", START_MS + i * 1_000) for i in range(5)]
    kafka.send(topic, on_time)
    accounting = run(config)
    assert (accounting.settled, accounting.late) == (5, 0)
    late = [event(f"u{i}", START_MS - HOUR_MS) for i in range(7)]
    kafka.send(topic, late)
    accounting = run(config)
    assert (accounting.settled, accounting.late, accounting.rejected) == (5, 7, 4)
    check(config, [parts[0] + on_time + late, parts[1]], accounting)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5])
def test_poison(tmp_path: Path, kafka: KafkaServers, share: float) -> None:
    parts = by_user(clickstream(3_000, seed=11, broken_fraction=share), 3)
    config = from_topic(tmp_path, kafka, parts, stream__epoch_rows=700)
    assert check(config, parts, run(config)).rejected > 0


def test_one_user_with_a_million_events(tmp_path: Path) -> None:
    count, step_ms = 1_000_000, 100
    (tmp_path / "in").mkdir()
    rows = pa.table({"user": pa.array(["bot"] * count), "ts": START_MS + np.arange(count, dtype=np.int64) * step_ms})
    pq.write_table(rows, tmp_path / "in" / "bot.parquet", row_group_size=100_000)
    text = f'[input]\nkind = "directory"\npaths = ["{tmp_path / "in"}"]\n[input.mapping]\nuser = "user"\ntime = "ts"\n'
    config = pipeline(tmp_path, text, stream__epoch_rows=200_000)
    accounting = run(config)
    assert accounting.balanced
    assert (accounting.consumed, accounting.settled, accounting.late, accounting.rejected) == (count, count, 0, 0)
    per_piece = 2 * HOUR_MS // step_ms
    sizes = sorted(row["event_count"] for row in iceberg_rows(config.home, "user_sessions"))
    assert sizes == sorted([*[per_piece] * (count // per_piece), count % per_piece])


class OneShotUsers:
    """A source of users who come once and never again, made up as it is read."""

    event_columns = frozenset((col.USER, col.EVENT_TIME))
    user_name = col.USER

    def __init__(self, count: int, *, step_ms: int, batch: int = 5_000) -> None:
        self._count, self._step_ms, self._batch, self._at = count, step_ms, batch, 0

    def partitions(self) -> frozenset[str]:
        return frozenset({"0"})

    def seek(self, positions: Positions) -> None:
        self._at = positions.get("0", 0)

    def poll(self, *, timeout_s: float, now_ms: int) -> list[StreamBatch]:
        start, end = self._at, min(self._at + self._batch, self._count)
        self._at = end
        if start == end:
            return []
        numbers = np.arange(start, end, dtype=np.int64)
        users = pa.array([f"user-{n:08d}-{n * 2_654_435_761 % 2**32:08x}" for n in numbers.tolist()])
        table = pa.table({col.USER: users, col.EVENT_TIME: START_MS + numbers * self._step_ms})
        return [StreamBatch("0", {"0": (start, end)}, table, col.REJECTED_SCHEMA.empty_table())]

    def read(self, ranges: Ranges, *, now_ms: int) -> Iterator[StreamBatch]:
        raise NotImplementedError

    def caught_up(self) -> frozenset[str]:
        return frozenset({"0"}) if self._at == self._count else frozenset()

    def lag(self) -> int | None:
        return self._count - self._at

    def close(self) -> None:
        pass


class Counting:
    """A sink that keeps nothing but a count."""

    def __init__(self) -> None:
        self.sessions = 0

    known_tables = None

    def write_epoch(self, epoch: EpochId, rows: EpochOutput) -> None:
        self.sessions += rows.tables["user_sessions"].num_rows

    def last_epoch(self, writer: str) -> None:
        pass

    def close(self) -> None:
        pass


def test_memory_follows_open_sessions_and_not_users_ever_seen(tmp_path: Path) -> None:
    """In a process of its own: what other tests leave in the allocator would be measured as well."""
    code = f"import pathlib, runpy; runpy.run_path({__file__!r})['one_shot_users'](pathlib.Path({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]


def one_shot_users(tmp_path: Path) -> None:
    count = 1_000_000
    resident: list[int] = []
    most_open = 0

    def measure(report: EpochReport) -> None:
        nonlocal most_open
        most_open = max(most_open, report.open_sessions)
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))

    sink = Counting()
    engine = LocalEngine(
        OneShotUsers(count, step_ms=100),
        StreamOutputs(sinks={"counting": sink}),
        SessionDefinition(policy=Policy(), rules=Rules()),
        # merged often, so that what a merge takes for a while is in every third
        Checkpoints(tmp_path / "state", writer="w", deltas_max=5),
        lateness_ms=60_000,
        options=StreamOptions(epoch_rows_max=20_000, poll_s=0, once=True),
        writer="w",
        observer=Calls(epoch=measure),
    )
    try:
        accounting = engine.run()
    finally:
        engine.close()
    assert sink.sessions == accounting.sessions == accounting.settled == accounting.consumed == count
    assert most_open < 45_000  # those of the gap, the lateness and an epoch
    third = len(resident) // 3
    grown = max(resident[-third:]) - max(resident[: 2 * third])
    assert grown < 48 << 20, f"{grown >> 20} MB more"


def full_disk(monkeypatch: pytest.MonkeyPatch, home: Path, call: str, after: int) -> None:
    """From the n-th call on that touches the home, the disk is full."""
    real: Callable[..., Any] = getattr(os, call)
    seen = 0

    def limited(first: Any, *more: Any, **named: Any) -> Any:
        nonlocal seen
        path = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else os.fspath(first)
        if str(path).startswith(str(home)):
            seen += 1
            if seen >= after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(first, *more, **named)

    monkeypatch.setattr(os, call, limited)


@pytest.mark.parametrize("after", [1, 4, 11])
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_disk_that_is_full_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: int) -> None:
    parts, config = on_disk(tmp_path, stream__outage="100ms")
    with monkeypatch.context() as broken:
        full_disk(broken, config.home, call, after)
        with pytest.raises(UnavailableError) as caught:
            run(config)
    assert caught.value.hint
    assert "No space left" in str(caught.value)
    check(config, parts, run(config))


def test_a_small_disk(tmp_path: Path) -> None:
    """A real one where it can be mounted; elsewhere the one above has to do."""
    disk = tmp_path / "home"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True, check=False
    )
    parts, config = on_disk(tmp_path, stream__outage="100ms")
    try:
        if mounted.returncode == 0:
            for size in ("300k", "600k", "900k"):
                subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)
                with pytest.raises((UnavailableError, OutputError)) as caught:
                    run(config)
                assert caught.value.hint
            subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        check(config, parts, run(config))
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", disk], check=True)


def on_disk(folder: Path, **overrides: object) -> tuple[list[list[bytes]], PipelineConfig]:
    records = clickstream(1_500, seed=5)
    (folder / "in").mkdir()
    for number in range(3):
        path = folder / "in" / f"{number}.ndjson"
        path.write_bytes(b"\n".join(records[number::3]) + b"\n")
        os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number))
    text = f'[input]\nkind = "directory"\npaths = ["{folder / "in"}"]\n[output.lake]\npath = "lake"\n'
    config = pipeline(folder, text, **{"output__sqlite__path": "store.sqlite", "stream__epoch_rows": 200, **overrides})
    return [[record for number in range(3) for record in records[number::3]]], config
