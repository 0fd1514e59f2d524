"""Torn and flipped files: always noticed, and survived as long as anything whole is left."""

import random
import shutil
import struct
import zlib

import pytest

from sessionize import Policy, Sessionizer, StateError
from sessionize.engine.stream.checkpoint_format import DamagedError, read_checkpoint, read_plan
from sessionize.engine.stream.checkpoints import Checkpoints, Plan
from sessionize.testing.comparison import events_table

POLICY = Policy(gap_ms=10)
LAST_BYTES = 64 << 10


def steps(core, epochs, first=1, events=30):
    for epoch in range(first, first + epochs):
        rng = random.Random(epoch)
        rows = [{"user": f"u{rng.randrange(events)}", "time": epoch * 3 + rng.randrange(5), "page": f"p{i}"}
                for i in range(events)]  # fmt: skip
        core.push(events_table(rows))
        core.advance(epoch * 3)
        yield epoch, core.changes()


def plan(epoch):
    return Plan(epoch=epoch, ranges={"t": (epoch, epoch + 1)}, watermark_ms=epoch * 3, now_ms=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Base 1, merged base 4, deltas 2 to 6, and plan 7; users and counts by epoch."""
    folder = tmp_path_factory.mktemp("whole")
    counts = {0: None}
    with Checkpoints(folder, writer="w", deltas_max=2, merge_in_background=False) as store:
        for epoch, changes in steps(Sessionizer(POLICY, track_changes=True), 6):
            store.write_plan(plan(epoch))
            store.commit(epoch, {"epoch": epoch}, changes)
            counts[epoch] = changes.header["counts"]
        store.write_plan(plan(7))
    assert sorted(p.name for p in folder.glob("base-*")) == ["base-1.ckpt", "base-4.ckpt"]
    return folder, counts


def files(folder):
    return sorted(p for p in folder.iterdir() if p.name != "lock")


def noticed(path, data):
    try:
        (read_checkpoint if path.suffix == ".ckpt" else read_plan)(data)
    except DamagedError:
        return True
    return False


def test_every_bit_and_every_length_of_every_small_file_is_checked(whole):
    for path in files(whole[0]):
        data = bytearray(path.read_bytes())
        assert not noticed(path, data)
        stride = max(1, len(data) * 8 // 20_000)  # every bit of the plans, many of the larger files
        for bit in range(0, len(data) * 8, stride):
            data[bit // 8] ^= 1 << bit % 8
            assert noticed(path, data), f"{path.name}, bit {bit}"
            data[bit // 8] ^= 1 << bit % 8
        assert not noticed(path, data)
        view = memoryview(bytes(data))
        assert all(noticed(path, view[:size]) for size in range(len(data)))
        assert noticed(path, bytes(data) + b"\0")


def test_the_end_of_a_large_file_is_checked(tmp_path):
    with Checkpoints(tmp_path, writer="w") as store:
        for epoch, changes in steps(Sessionizer(POLICY, track_changes=True), 1, events=6000):
            store.commit(epoch, {}, changes)
    path = tmp_path / "base-1.ckpt"
    data = bytearray(path.read_bytes())
    assert len(data) > LAST_BYTES
    for at in range(len(data) - LAST_BYTES, len(data), 31):
        data[at] ^= 1 << at % 8
        assert noticed(path, data)
        data[at] ^= 1 << at % 8
    view = memoryview(bytes(data))
    assert all(noticed(path, view[:size]) for size in range(len(data) - LAST_BYTES, len(data)))


@pytest.mark.parametrize("name", ["base-1.ckpt", "base-4.ckpt", *(f"delta-{e}.ckpt" for e in range(2, 7)), "plan-7.a",
                                  "plan-7.b", "plan-5.a", "plan-6.b"])  # fmt: skip
def test_one_damaged_file_is_always_survived(whole, tmp_path, name):
    """Recovered: the same epoch or an earlier one, with the plans to go on up to the same end."""
    folder, counts = whole
    rng = random.Random(name)
    for attempt in range(8):
        copy = tmp_path / str(attempt)
        shutil.copytree(folder, copy)
        data = bytearray((copy / name).read_bytes())
        if attempt % 2:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data)) :]
        (copy / name).write_bytes(data)
        with Checkpoints(copy, writer="w") as store:
            found = store.recover()
            assert found.epoch == {"delta-5.ckpt": 4, "delta-6.ckpt": 5}.get(name, 6)
            assert (found.header, found.state.header["counts"]) == ({"epoch": found.epoch}, counts[found.epoch])
            assert [p.digest for p in found.plans] == [plan(e).digest for e in range(found.epoch + 1, 8)]
            seen = name in ("base-4.ckpt", "delta-5.ckpt", "delta-6.ckpt", "plan-7.a", "plan-7.b")
            assert [line.split(":")[0] for line in found.damaged] == ([name] if seen else [])
            core = Sessionizer.restore_tables(found.state.header, found.state.tables, POLICY, track_changes=True)
            for epoch, changes in steps(core, 7 - found.epoch, found.epoch + 1):
                store.write_plan(plan(epoch))
                store.commit(epoch, {"epoch": epoch}, changes)
                assert epoch == 7 or changes.header["counts"] == counts[epoch]
        with Checkpoints(copy, writer="w") as store:
            found = store.recover()
            assert (found.epoch, found.plans) == (7, ())


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_first_base_that_is_damaged_is_made_again_from_its_plan(tmp_path):
    with Checkpoints(tmp_path, writer="w") as store:
        for epoch, changes in steps(Sessionizer(POLICY, track_changes=True), 1):
            store.write_plan(plan(epoch))
            store.commit(epoch, {}, changes)
    flip(tmp_path / "base-1.ckpt")
    with Checkpoints(tmp_path, writer="w") as store:
        found = store.recover()
        assert (found.epoch, found.state, found.plans) == (0, None, (plan(1),))


def test_nothing_whole_left_is_an_error_that_says_which_and_stays_one(whole, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(whole[0], copy)
    for path in files(copy):
        flip(path)
    for _ in range(2):
        with Checkpoints(copy, writer="w") as store, pytest.raises(StateError) as error:
            store.recover()
        assert all(base in str(error.value) for base in ("base-1.ckpt", "base-4.ckpt"))


@pytest.mark.parametrize("gone", [["plan-7.a", "plan-7.b"], ["delta-6.ckpt", "plan-6.a", "plan-6.b"]])
@pytest.mark.parametrize("how", ["damaged", "removed"])
def test_an_epoch_that_was_begun_is_never_forgotten(whole, tmp_path, gone, how):
    """Sinks may have it: beginning it otherwise would be noticed by some and not by all."""
    copy = tmp_path / "copy"
    shutil.copytree(whole[0], copy)
    for name in gone:
        flip(copy / name) if how == "damaged" else (copy / name).unlink()
    with Checkpoints(copy, writer="w") as store:
        if how == "removed" and "plan-7.a" in gone:
            assert store.recover().plans == ()  # no trace of it is left
            return
        with pytest.raises(StateError, match="neither whole as a checkpoint nor as a plan"):
            store.recover()


def test_a_version_that_is_not_known_is_no_damage(whole, tmp_path):
    for name in ("delta-6.ckpt", "plan-7.b"):
        copy = tmp_path / name
        shutil.copytree(whole[0], copy)
        data = bytearray((copy / name).read_bytes())
        data[4:8] = struct.pack("<I", 3)
        data[-4:] = struct.pack("<I", zlib.crc32(data[:-4]))
        (copy / name).write_bytes(data)
        with Checkpoints(copy, writer="w") as store, pytest.raises(StateError, match="unknown version"):
            store.recover()
