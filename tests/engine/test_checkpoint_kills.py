"""kill -9 at random moments of a process that does nothing but commit: what was committed stays, nothing else appears.

Run as a program this file is the nest: it forks one such process for each line it reads, so that starting one is quick.
"""

import hashlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sessionize import Policy, Sessionizer
from sessionize.engine.stream.checkpoints import Checkpoints, Plan
from sessionize.kernel.snapshot import dump_tables
from sessionize.testing.comparison import events_table

KILLS = 40
POLICY = Policy(gap_ms=30)


def epoch_of(core, epoch):
    """The same every time: what an epoch pushes, how far it advances, and what changes."""
    rng = random.Random(epoch)
    users = [f"u{rng.randrange(30 + epoch)}" for _ in range(40)]
    core.push(events_table([{"user": u, "time": epoch * 10 + rng.randrange(15), "page": f"p{rng.randrange(9)}"}
                            for u in users]))  # fmt: skip
    core.advance(epoch * 10)
    return core.changes()


def plan(epoch):
    return Plan(epoch=epoch, ranges={"t": (epoch * 40, epoch * 40 + 40)}, watermark_ms=epoch * 10, now_ms=epoch)


def digest(core):
    rows = [sorted(map(repr, table.to_pylist())) for table in dump_tables(core._held).values()]
    return hashlib.sha256(repr((rows, core.counts, core.watermark_ms)).encode()).hexdigest()


def commit_for_ever(folder, out):
    """Goes on from what is there, says what that is, then says each epoch once it is done."""
    with Checkpoints(folder, writer="w", deltas_max=3) as store:
        found = store.recover()
        core, epoch, plans = Sessionizer(POLICY, track_changes=True), 0, list[Plan]()
        if found is not None:
            epoch, plans = found.epoch, list(found.plans)
            if found.state is not None:
                state = found.state
                core = Sessionizer.restore_tables(state.header, state.tables, POLICY, track_changes=True)
        planned = [p.digest == plan(p.epoch).digest for p in plans]
        damaged = [] if found is None else list(found.damaged)
        print(json.dumps({"from": epoch, "digest": digest(core), "plans": planned, "damaged": damaged}), file=out)
        while True:
            epoch += 1
            store.write_plan(plan(epoch))
            store.commit(epoch, {"epoch": epoch}, epoch_of(core, epoch))
            print(json.dumps({"done": epoch, "error": str(store.merge_error or "")}), file=out)


def nest(folder):
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            with os.fdopen(os.dup(1), "w", buffering=1) as out:
                commit_for_ever(folder, out)
        os.write(1, json.dumps({"pid": child}).encode() + b"\n")
        os.waitpid(child, 0)
        os.write(1, b'{"over": true}\n')


def lines(nest, until):
    """Reports of the nest, read until the given moment or, with None, until the process is over."""
    while until is None or time.monotonic() < until:
        wait = 60.0 if until is None else max(0.0, until - time.monotonic())
        if not select.select([nest.stdout], [], [], wait)[0]:
            assert until is not None, "the process does not end"
            return
        report = json.loads(nest.stdout.readline())
        yield report
        if "over" in report:
            return


def test_killed_at_random_moments_nothing_that_was_committed_is_lost(tmp_path):
    rng = random.Random(20)
    reports: list[dict[str, Any]] = []
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as process:
        for _ in range(KILLS):
            process.stdin.write(b"\n")
            process.stdin.flush()
            pid, started = None, False
            while pid is None or not started:
                report = json.loads(process.stdout.readline())
                reports.append(report)
                pid, started = report.get("pid", pid), started or "from" in report
                started = started or rng.random() < 0.05  # now and then before it has even recovered
            for _report in range(rng.randrange(6)) if "from" in report else ():
                reports.append(json.loads(process.stdout.readline()))
            # the moment is what is random here, so it is a time and no condition
            reports += lines(process, time.monotonic() + rng.random() * 0.05)
            os.kill(pid, signal.SIGKILL)
            reports += lines(process, None)
        process.stdin.close()
        assert process.wait(60) == 0
    core, known, committed = Sessionizer(POLICY, track_changes=True), {}, 0
    known[0] = digest(core)
    starts = 0
    for report in reports:
        if "from" in report:
            starts += 1
            while len(known) <= report["from"]:
                epoch_of(core, len(known))
                known[len(known)] = digest(core)
            assert report["digest"] == known[report["from"]]
            assert committed <= report["from"] <= committed + 1
            assert len(report["plans"]) <= 1
            assert all(report["plans"])
            assert report["damaged"] == []
            committed = report["from"]
        if "done" in report:
            assert report["done"] == committed + 1
            assert report["error"] == ""
            committed += 1
    assert starts >= 30
    assert committed > KILLS
    assert len(list(Path(tmp_path).glob("base-*"))) <= 3


if __name__ == "__main__":
    nest(sys.argv[1])
