"""A disk that refuses, and a process that stops, at every single step: the checkpoint before stays, a retry works."""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from sessionize import OutputError, Policy, SessionizeError, Sessionizer
from sessionize.engine.stream.checkpoint_files import FileOperations
from sessionize.engine.stream.checkpoint_format import INSTEAD_OF
from sessionize.engine.stream.checkpoints import Checkpoints, Plan
from sessionize.errors import StateError, UnavailableError
from sessionize.testing.comparison import events_table

POLICY = Policy(gap_ms=10)
EPOCHS = 6
STEPS = ("create", "write", "fsync", "close", "rename", "sync_folder", "remove")


class Stopped(BaseException):
    """The process is no more: nothing after this may touch the disk."""


class Faulty(FileOperations):
    """Does one thing instead of the call number `at`; after a stop everything stops."""

    def __init__(self, at, instead, torn=False):
        self.at, self.instead, self.torn, self.calls = at, instead, torn, []

    def _call(self, name, *args):
        self.calls.append(name)
        number = len(self.calls)
        if number == self.at or (number > self.at >= 0 and isinstance(self.instead, Stopped)):
            if self.torn and name == "write" and number == self.at:
                FileOperations.write(self, args[0], args[1][: len(args[1]) // 2])
            if name == "close":
                FileOperations.close(self, *args)
            raise self.instead
        # the machine stays on: what the system has taken in needs no disk to outlive this process
        return None if name in ("fsync", "sync_folder") else getattr(FileOperations, name)(self, *args)


for step in STEPS:
    setattr(Faulty, step, lambda self, *args, _name=step: self._call(_name, *args))


def plan(epoch):
    return Plan(epoch=epoch, ranges={"t": (epoch, epoch + 1)}, watermark_ms=epoch * 3, now_ms=0)


def all_changes():
    core = Sessionizer(POLICY, track_changes=True)
    made = []
    for epoch in range(1, EPOCHS + 1):
        core.push(events_table([{"user": f"u{i % (7 + epoch)}", "time": epoch * 3 + i % 5} for i in range(12)]))
        core.advance(epoch * 3)
        made.append(core.changes())
    return made


CHANGES = all_changes()


def run(folder, files, *, retry):
    """All epochs, merging every third; returns the errors and the last epoch that was committed."""
    errors, done = [], 0
    store = Checkpoints(folder, writer="w", files=files, deltas_max=1, merge_in_background=False)
    try:
        for epoch in range(1, EPOCHS + 1):
            for action in (lambda e=epoch: store.write_plan(plan(e)),
                           lambda e=epoch: store.commit(e, {"epoch": e}, CHANGES[e - 1])):  # fmt: skip
                try:
                    action()
                except SessionizeError as error:
                    errors.append(error)
                    if retry:
                        action()
            done = epoch
            errors += [store.merge_error] if store.merge_error else []
    except Stopped:
        pass
    finally:
        store.close()
    return errors, done


def check(folder, at_least):
    with Checkpoints(folder, writer="w") as store:
        found = store.recover()
        if found is None:
            assert at_least == 0
            return
        assert found.damaged == ()
        assert at_least <= found.epoch <= at_least + 1  # the step that failed may have been the one after the rename
        assert [p.epoch for p in found.plans] == list(range(found.epoch + 1, found.epoch + 1 + len(found.plans)))
        assert len(found.plans) <= 1
        if found.epoch:
            assert found.header == {"epoch": found.epoch}
            assert found.state.header["counts"] == CHANGES[found.epoch - 1].header["counts"]
            Sessionizer.restore_tables(found.state.header, found.state.tables, POLICY)  # adds up


def calls_of_a_whole_run(folder):
    files = Faulty(-1, Stopped())
    errors, done = run(folder, files, retry=False)
    assert (errors, done) == ([], EPOCHS)
    return files.calls


def test_stopping_at_every_step_leaves_something_to_go_on_from(tmp_path):
    calls = calls_of_a_whole_run(tmp_path / "whole")
    assert set(calls) == set(STEPS)
    for at in range(1, len(calls) + 1):
        folder = tmp_path / str(at)
        _, done = run(folder, Faulty(at, Stopped(), torn=at % 2 == 0), retry=False)
        check(folder, done)
        shutil.rmtree(folder)


@pytest.mark.parametrize(("code", "stride"), [(errno.ENOSPC, 1), (errno.EIO, 7), (errno.EACCES, 5)])
def test_an_error_at_every_step_is_told_and_a_retry_works(tmp_path, code, stride):
    kind = OutputError if code == errno.EACCES else UnavailableError
    calls = calls_of_a_whole_run(tmp_path / "whole")
    for at in range(1, len(calls) + 1, stride):
        folder = tmp_path / str(at)
        files = Faulty(at, OSError(code, os.strerror(code)), torn=True)
        errors, done = run(folder, files, retry=True)
        assert done == EPOCHS
        assert errors, f"call {at}, {calls[at - 1]}"
        assert isinstance(errors[0], kind)
        assert os.strerror(code) in str(errors[0])
        assert str(folder) in str(errors[0])
        check(folder, EPOCHS)
        shutil.rmtree(folder)


def test_a_failed_merge_is_tried_again(tmp_path):
    with Checkpoints(tmp_path, writer="w", deltas_max=2, merge_in_background=False) as store:
        for epoch in range(1, 4):
            store.commit(epoch, {}, CHANGES[epoch - 1])
        (tmp_path / "base-4.ckpt").mkdir()  # nothing can be renamed to it
        store.commit(4, {}, CHANGES[3])
        assert isinstance(store.merge_error, OutputError)
        store.commit(5, {}, CHANGES[4])  # not tried at once: that would cost a merge for each commit
        assert not (tmp_path / "base-5.ckpt").exists()
        store._merge_again_at = 0
        store.commit(6, {}, CHANGES[5])
        assert (tmp_path / "base-6.ckpt").is_file()
        assert getattr(store, "merge_error", "unset") is None


def test_a_file_that_may_not_grow_any_more(tmp_path):
    """A real limit of the system: the write is cut short, then refused; without the limit the same commit works."""
    script = f"""
import resource, signal, sys
sys.path.insert(0, {str(os.path.dirname(__file__))!r})
import test_checkpoint_faults as t
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = t.Checkpoints({str(tmp_path)!r}, writer="w")
store.commit(1, {{}}, t.CHANGES[0])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    store.commit(2, {{}}, t.CHANGES[1])
except t.OutputError as error:
    print(error.detail)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert store.recover().epoch == 1
store.commit(2, {{}}, t.CHANGES[1])
assert store.recover().epoch == 2
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"writing {tmp_path / 'delta-2.ckpt.tmp'}: File too large"


def test_a_disk_that_is_full(tmp_path):
    """/dev/full refuses every write as a full disk does."""

    class Full(FileOperations):
        full = True

        def create(self, path):
            return os.open("/dev/full", os.O_WRONLY) if self.full else super().create(path)

    files = Full()
    with Checkpoints(tmp_path, writer="w", files=files) as store:
        with pytest.raises(UnavailableError, match="No space left"):
            store.commit(1, {}, CHANGES[0])
        files.full = False
        store.commit(1, {}, CHANGES[0])
        assert store.recover().epoch == 1


@pytest.mark.parametrize("at", range(1, 20))
def test_a_plan_takes_the_place_of_another_whatever_step_stops_it(tmp_path, at):
    first = plan(1)
    anew = replace(first, extra={INSTEAD_OF: first.digest})
    with Checkpoints(tmp_path, writer="w") as store:
        store.write_plan(first)
    files = Faulty(at, Stopped())
    store = Checkpoints(tmp_path, writer="w", files=files)
    stopped = True
    try:
        store.write_plan(anew)
        stopped = False
    except Stopped:
        pass
    finally:
        store.close()
    with Checkpoints(tmp_path, writer="w") as store:
        (found,) = store.recover().plans
        assert found in ((first, anew) if stopped else (anew,))
        store.write_plan(found)
        store.write_plan(replace(found, extra={INSTEAD_OF: found.digest, "again": True}))
        with pytest.raises(StateError, match="another plan"):
            store.write_plan(first)
