"""Which files a long run keeps: few, and still enough to survive whatever happens to any one of them."""

import random
import shutil
from pathlib import Path

import pytest

from sessionize import Policy, Sessionizer
from sessionize.engine.stream import checkpoint_plans
from sessionize.engine.stream import checkpoints as checkpoint
from sessionize.engine.stream.checkpoint_files import FileOperations
from sessionize.engine.stream.checkpoints import Checkpoints, Plan
from sessionize.kernel.snapshot import dump_tables
from sessionize.testing.comparison import events_table

POLICY = Policy(gap_ms=30)
OTHERS_MAX = 50  # files beside the deltas of the newest chain
LONG = 130  # epochs of the folder that is damaged: merges at 42, 83 and 124


def plan(epoch: int) -> Plan:
    return Plan(epoch=epoch, ranges={"t": (epoch * 9, epoch * 9 + 9)}, watermark_ms=epoch * 10, now_ms=epoch)


def step(core: Sessionizer, epoch: int):
    rng = random.Random(epoch)
    rows = [{"user": f"u{rng.randrange(5 + epoch % 60)}", "time": epoch * 10 + rng.randrange(15)} for _ in range(9)]
    core.push(events_table(rows))
    core.advance(epoch * 10)
    return core.changes()


def digest(core: Sessionizer) -> str:
    rows = [sorted(map(repr, table.to_pylist())) for table in dump_tables(core._held).values()]
    return repr((rows, core.counts, core.watermark_ms))


class Stopped(BaseException):
    """The process is no more."""


class StopsAt(FileOperations):
    """Everything from call number `at` on stops; what went before is on the disk."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls >= self.at > 0:
            raise Stopped

    def create(self, path: Path) -> int:
        self._count()
        return super().create(path)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self._count()
        super().remove(path)

    def fsync(self, descriptor: int) -> None:
        del descriptor  # the machine stays on

    def sync_folder(self, folder: Path) -> None:
        del folder


def go_on(folder: Path, epochs: int, files: FileOperations | None = None, **how) -> Sessionizer:
    """From what is there to this epoch, with the plans that were begun."""
    with Checkpoints(folder, writer="w", files=files or StopsAt(0), merge_in_background=False, **how) as store:
        found = store.recover()
        core, epoch = Sessionizer(POLICY, track_changes=True), 0
        if found is not None and found.state is not None:
            core = Sessionizer.restore_tables(found.state.header, found.state.tables, POLICY, track_changes=True)
            epoch = found.epoch
        for begun in found.plans if found is not None else ():
            assert begun == plan(begun.epoch)
        for at in range(epoch + 1, epochs + 1):
            store.write_plan(plan(at))
            store.commit(at, {"epoch": at}, step(core, at))
            assert store.merge_error is None
    return core


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def newest_base(folder: Path) -> int:
    return max(int(path.stem.split("-")[1]) for path in folder.glob("base-*.ckpt"))


@pytest.fixture(scope="module")
def expected() -> dict[int, str]:
    core = Sessionizer(POLICY, track_changes=True)
    made: dict[int, str] = {0: digest(core)}
    for epoch in range(1, LONG + 6):
        step(core, epoch)
        made[epoch] = digest(core)
    return made


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    go_on(folder, LONG, deltas_max=40)
    return folder


@pytest.mark.parametrize("restarts_every", [450, 37])
def test_the_number_of_files_is_bounded_whatever_the_number_of_epochs(tmp_path: Path, restarts_every: int) -> None:
    others, core = [], Sessionizer(POLICY, track_changes=True)
    for first in range(1, 451, restarts_every):
        with Checkpoints(tmp_path, writer="w", files=StopsAt(0), merge_in_background=False) as store:
            for epoch in range(first, min(first + restarts_every, 451)):
                store.write_plan(plan(epoch))
                store.commit(epoch, {}, step(core, epoch))
                newest = newest_base(tmp_path)
                chain = {f"delta-{at}.ckpt" for at in range(newest + 1, epoch + 1)}
                others.append(len(set(files_of(tmp_path)) - chain))
                if epoch == 299:
                    assert len(files_of(tmp_path)) < 150
    assert (newest_base(tmp_path), max(others) < OTHERS_MAX) == (403, True)


def test_the_chain_before_is_one_base_and_one_file_of_deltas(long_run: Path) -> None:
    assert sorted(path.name for path in long_run.glob("*.ckpt") if not path.name.startswith("delta-")) == [
        "base-124.ckpt",
        "base-83.ckpt",
        "deltas-84-124.ckpt",
    ]
    assert sorted(path.name for path in long_run.glob("delta-*")) == [f"delta-{at}.ckpt" for at in range(125, 131)]


def damaged_copies(folder: Path, where: Path):
    for name in files_of(folder):
        if name != "lock":
            copy = where / name
            shutil.copytree(folder, copy)
            data = bytearray((copy / name).read_bytes())
            data[len(data) // 2] ^= 1
            (copy / name).write_bytes(data)
            yield name, copy


def test_any_one_file_may_be_damaged(long_run: Path, tmp_path: Path, expected: dict[int, str]) -> None:
    """All epochs are there again: by checkpoints, or by repeating those whose plans are there."""
    for name, copy in damaged_copies(long_run, tmp_path):
        core = go_on(copy, LONG + 5, deltas_max=40)
        assert digest(core) == expected[LONG + 5], name


def test_both_ways_to_an_older_state_hold(long_run: Path, tmp_path: Path, expected: dict[int, str]) -> None:
    """The newest base and a delta long before the end are gone: the rest is repeated by plans out of the logs."""
    shutil.copytree(long_run, tmp_path / "copy")
    (tmp_path / "copy" / "base-124.ckpt").unlink()
    (tmp_path / "copy" / "deltas-84-124.ckpt").unlink()
    with Checkpoints(tmp_path / "copy", writer="w") as store:
        found = store.recover()
        assert found is not None
        assert (found.epoch, list(found.plans)) == (83, [plan(at) for at in range(84, LONG + 1)])
    assert digest(go_on(tmp_path / "copy", LONG + 5)) == expected[LONG + 5]


def test_a_folder_of_the_code_before_is_understood_and_cleaned_up(
    tmp_path: Path, expected: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It kept two files for the plan of every epoch, and each delta of the chain before."""
    with monkeypatch.context() as before:
        before.setattr(checkpoint_plans, "PLANS_MAX", 10**6)
        before.setattr(checkpoint, "PACKED_MIN", 10**6)
        go_on(tmp_path, 80, deltas_max=40)
        assert len(list(tmp_path.glob("plan-*"))) == 2 * 79
    assert digest(go_on(tmp_path, 81, deltas_max=40)) == expected[81]
    assert len(list(tmp_path.glob("plan-*"))) <= 2 * checkpoint_plans.PLANS_MAX
    assert digest(go_on(tmp_path, LONG, deltas_max=40)) == expected[LONG]
    assert len(files_of(tmp_path)) < OTHERS_MAX + 41


@pytest.mark.parametrize("start", [12, 25], ids=["first merge", "second merge"])
def test_stopping_at_every_step_leaves_something_to_go_on_from(
    tmp_path: Path, expected: dict[int, str], start: int
) -> None:
    """Also while plans go into their logs and the chain before becomes one file."""
    go_on(tmp_path / "start", start, deltas_max=12)
    shutil.copytree(tmp_path / "start", tmp_path / "whole")
    whole = StopsAt(0)
    go_on(tmp_path / "whole", start + 3, whole, deltas_max=12)
    assert len(list((tmp_path / "whole").glob("deltas-*"))) == 1
    assert list((tmp_path / "whole").glob("plans-*"))
    for at in range(1, whole.calls + 1):
        folder = tmp_path / str(at)
        shutil.copytree(tmp_path / "start", folder)
        with pytest.raises(Stopped):
            go_on(folder, start + 3, StopsAt(at), deltas_max=12)
        assert digest(go_on(folder, start + 5, deltas_max=12)) == expected[start + 5], at
        shutil.rmtree(folder)
