"""The store of checkpoints: what is committed comes back, old files go, and nobody else's files are touched."""

import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sessionize import Policy, Sessionizer, StateError
from sessionize.engine.stream.checkpoints import Checkpoints, Plan
from sessionize.kernel.snapshot import dump_tables

POLICY = Policy(gap_ms=3000, session_ids="start")


class Stream:
    """A stream of random events that is the same every time: step() is one epoch."""

    def __init__(self, core=None, epoch=0, users=40):
        self.core = core or Sessionizer(POLICY, track_changes=True)
        self.epoch, self.users = epoch, users

    def plan(self):
        span = {"t-0": (self.epoch * 60, self.epoch * 60 + 60)}
        return Plan(epoch=self.epoch + 1, ranges=span, watermark_ms=self.epoch * 1000, now_ms=self.epoch)

    def step(self):
        rng = np.random.default_rng(self.epoch)
        users = rng.integers(0, 10 * self.users, 60) % (self.users + 3 * self.epoch)
        self.core.push(
            pa.table(
                {
                    "user": [f"user-{u}" for u in users],
                    "event_time_ms": self.epoch * 1000 + rng.integers(0, 1500, 60),
                    "event_id": [str(i) for i in rng.integers(0, 50, 60)],
                    "page": [f"/{i}" for i in rng.integers(0, 9, 60)],
                    "event_type": ["view"] * 60,
                }
            )
        )
        self.core.advance(self.epoch * 1000)
        self.epoch += 1
        return self.core.changes()

    @property
    def header(self):
        return {"positions": {"t-0": self.epoch * 60}, "watermark": self.core.watermark_ms}


def digest(core):
    """One word for a state, whatever the order of its rows."""
    rows = [sorted(map(repr, table.to_pylist())) for table in dump_tables(core._held).values()]
    return hashlib.sha256(repr((rows, core.counts, core.watermark_ms, core.latest_ms)).encode()).hexdigest()


def digests(epochs):
    stream = Stream()
    made = {0: digest(stream.core)}
    for _ in range(epochs):
        stream.step()
        made[stream.epoch] = digest(stream.core)
    return made


def resumed(found):
    if found is None or found.state is None:
        return Stream()
    core = Sessionizer.restore_tables(found.state.header, found.state.tables, POLICY, track_changes=True)
    return Stream(core, found.epoch)


def run(store, stream, epochs):
    for _ in range(epochs):
        store.write_plan(stream.plan())
        changes = stream.step()
        store.commit(stream.epoch, stream.header, changes)


def names(folder, kind):
    return sorted(int(p.stem.split("-")[1]) for p in Path(folder).glob(f"{kind}-*") if p.suffix != ".b")


def test_an_empty_folder_has_nothing_to_go_on_from(tmp_path):
    with Checkpoints(tmp_path / "new" / "folder", writer="w") as store:
        assert store.recover() is None
        assert store.recover() is None


def test_what_was_committed_comes_back_at_every_epoch(tmp_path):
    """Across restarts, first base, deltas and merged bases."""
    expected = digests(30)
    stream, at = Stream(), 0
    for epochs in (1, 2, 5, 9, 13):
        with Checkpoints(tmp_path, writer="w", deltas_max=4) as store:
            found = store.recover()
            assert (found.epoch if found else 0) == at
            stream = resumed(found)
            assert digest(stream.core) == expected[at]
            if found:
                assert (found.header, found.plans, found.damaged) == (stream.header, (), ())
            run(store, stream, epochs)
            at += epochs
            assert digest(stream.core) == expected[at]
            assert store.merge_error is None
    assert len(names(tmp_path, "base")) == 2


def test_a_merged_base_is_the_live_state(tmp_path):
    with Checkpoints(tmp_path, writer="w", deltas_max=6, merge_in_background=False) as store:
        stream = Stream()
        run(store, stream, 8)
    assert names(tmp_path, "base") == [1, 8]
    (tmp_path / "base-1.ckpt").unlink()
    for delta in tmp_path.glob("delta-*"):
        delta.unlink()
    with Checkpoints(tmp_path, writer="w") as store:
        found = store.recover()
    assert (found.epoch, digest(resumed(found).core)) == (8, digest(stream.core))


def test_the_base_before_stays_with_all_that_came_after_it(tmp_path):
    with Checkpoints(tmp_path, writer="w", deltas_max=4, merge_in_background=False) as store:
        run(store, Stream(), 17)
    assert names(tmp_path, "base") == [11, 16]
    assert names(tmp_path, "delta") == [12, 13, 14, 15, 16, 17]
    assert names(tmp_path, "plan") == [12, 13, 14, 15, 16, 17]
    (tmp_path / "base-16.ckpt").write_bytes(b"torn")
    with Checkpoints(tmp_path, writer="w", deltas_max=4) as store:
        found = store.recover()
        assert (found.epoch, digest(resumed(found).core)) == (17, digests(17)[17])
        assert found.damaged == ("base-16.ckpt: 4 bytes are too few",)
    with Checkpoints(tmp_path, writer="w") as store:
        assert store.recover().damaged == ()  # it was moved out of the way


def test_deltas_that_outweigh_the_base_are_merged(tmp_path):
    with Checkpoints(tmp_path, writer="w", deltas_bytes_min=1, merge_in_background=False) as store:
        run(store, Stream(), 30)
    newest, before = names(tmp_path, "base")[1], names(tmp_path, "base")[0]
    assert 1 < before < newest
    lag = sum((tmp_path / f"delta-{e}.ckpt").stat().st_size for e in range(newest + 1, 31))
    assert lag <= (tmp_path / f"base-{newest}.ckpt").stat().st_size


def test_commits_go_on_while_a_base_is_merged(tmp_path):
    """The merge is held up until later commits are done; they stay deltas of the new base."""
    go, begun = threading.Event(), threading.Event()

    class Slow(Checkpoints):
        def _read(self, name):
            if threading.current_thread().name == "checkpoint-merge":
                begun.set()
                assert go.wait(30)
            return super()._read(name)

    with Slow(tmp_path, writer="w", deltas_max=2) as store:
        stream = Stream()
        run(store, stream, 4)
        assert begun.wait(30)
        run(store, stream, 3)
        assert names(tmp_path, "base") == [1]
        go.set()
        store.wait()
        assert names(tmp_path, "base") == [1, 4]
        run(store, stream, 1)  # three deltas had been committed meanwhile, so the next base is due
        store.wait()
        assert (names(tmp_path, "base"), store.merge_error) == ([4, 8], None)
    (tmp_path / "base-4.ckpt").unlink()
    with Checkpoints(tmp_path, writer="w") as store:
        assert digest(resumed(store.recover()).core) == digest(stream.core)


def test_a_planned_epoch_is_repeated_as_planned(tmp_path):
    stream = Stream()
    extra = {"partitions": ["0", "é"], "idle": None}
    with Checkpoints(tmp_path, writer="w") as store:
        first = Plan(epoch=1, ranges={"t-0": (0, 60), "t-1": (7, 7)}, watermark_ms=None, now_ms=5, extra=extra)
        store.write_plan(first)
    with Checkpoints(tmp_path, writer="w") as store:  # begun, and nothing was ever committed
        found = store.recover()
        assert (found.epoch, found.state, found.plans, found.damaged) == (0, None, (first,), ())
        assert found.plans[0].digest == first.digest
        store.write_plan(found.plans[0])
        other = Plan(epoch=1, ranges={"t-0": (0, 61)}, watermark_ms=None, now_ms=5)
        assert other.digest != first.digest
        with pytest.raises(StateError, match="another plan"):
            store.write_plan(other)
        store.commit(1, {}, stream.step())
        with pytest.raises(StateError, match="out of turn"):
            store.write_plan(first)
        store.write_plan(stream.plan())
    with Checkpoints(tmp_path, writer="w") as store:
        found = store.recover()
        assert (found.epoch, found.plans) == (1, (stream.plan(),))


def test_epochs_are_committed_in_turn(tmp_path):
    with Checkpoints(tmp_path, writer="w") as store:
        stream = Stream()
        changes = stream.step()
        with pytest.raises(StateError, match="out of turn"):
            store.commit(2, {}, changes)
        store.commit(1, {}, changes)
        with pytest.raises(StateError, match="out of turn"):
            store.commit(1, {}, changes)


def test_one_process_at_a_time(tmp_path):
    first = Checkpoints(tmp_path, writer="w")
    with pytest.raises(StateError, match="another process") as error:
        Checkpoints(tmp_path, writer="w")
    assert str(tmp_path) in str(error.value)
    first.close()
    first.close()
    Checkpoints(tmp_path, writer="w").close()


def test_another_writers_checkpoints_are_refused(tmp_path):
    with Checkpoints(tmp_path, writer="w") as store:
        run(store, Stream(), 1)
    with Checkpoints(tmp_path, writer="v") as store, pytest.raises(StateError, match="another writer"):
        store.recover()


def test_a_course_of_events_that_was_given_up_never_joins_the_chain(tmp_path):
    """Epoch 3 is damaged and done again, otherwise; epoch 4 of before verifies, and must not follow the new one."""
    with Checkpoints(tmp_path, writer="w") as store:
        run(store, Stream(), 4)
    path = tmp_path / "delta-3.ckpt"
    path.write_bytes(path.read_bytes()[:-1])
    with Checkpoints(tmp_path, writer="w") as store:
        found = store.recover()
        assert (found.epoch, [plan.epoch for plan in found.plans]) == (2, [3, 4])
        stream = resumed(found)
        store.write_plan(found.plans[0])
        changes = stream.step()
        store.commit(3, {"again": True}, changes)
    with Checkpoints(tmp_path, writer="w") as store:
        found = store.recover()
        assert (found.epoch, found.header, [plan.epoch for plan in found.plans]) == (3, {"again": True}, [4])
        assert "does not build on" in found.damaged[0]
        run(store, resumed(found), 1)
        assert digest(resumed(store.recover()).core) == digests(4)[4]


def test_the_benchmark_runs_and_checks_what_it_measures(tmp_path):
    script = Path(__file__).parents[2] / "benchmarks" / "checkpoint.py"
    command = [sys.executable, str(script), "--users", "2000", "--events", "500", "--epochs", "2"]
    done = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "restart" in done.stdout
    assert list(tmp_path.iterdir()) == []
