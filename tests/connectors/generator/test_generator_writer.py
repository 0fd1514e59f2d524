"""Writing records: in real time, to files, and to readers that go away."""

import errno
import gzip
import io
import json
import subprocess
import sys

import pytest

from sessionize.connectors.generator import GeneratorSettings, LateRecord, Timer, open_output, write_lines
from sessionize.errors import OutputError


class Clock:
    """Time that passes only by sleeping; each look at it takes a microsecond."""

    def __init__(self):
        self.now_s = 1_000.0

    def timer(self, oversleep_s=0.0):
        def sleep(seconds):
            assert seconds > 0
            self.now_s += seconds + oversleep_s

        def now():
            self.now_s += 1e-6
            return self.now_s

        return Timer(now_s=now, sleep_s=sleep)


class Pipe(io.BytesIO):
    """Remembers when what was written; fails at the n-th write."""

    def __init__(self, clock=None, error=None, fails_at=None):
        super().__init__()
        self.clock, self.error, self.fails_at = clock, error, fails_at
        self.writes = []

    def write(self, data):
        if self.error is not None and len(self.writes) == self.fails_at:
            raise self.error
        self.writes.append((self.clock.now_s if self.clock else 0.0, bytes(data)))
        return super().write(data)


def due_s(line, run):
    return 1_000.0 + (int(json.loads(line)["event_timestamp"]) - run.start_ms) / 1_000


@pytest.mark.parametrize("oversleep_s", [0.0, 0.05])
def test_in_real_time_each_record_is_written_when_it_happens(oversleep_s):
    clock = Clock()
    out = Pipe(clock)
    run = GeneratorSettings(users=20, rate_per_s=40, duration_ms=30_000)
    write_lines(run, out, realtime=True, timer=clock.timer(oversleep_s))
    assert len(out.writes) > 300
    for written_s, lines in out.writes:
        for line in lines.splitlines():
            assert -0.006 < written_s - due_s(line, run) < oversleep_s + 0.006
    assert out.writes[-1][0] - 1_000 == pytest.approx(30, rel=0.1)


def test_a_dense_stream_is_written_many_records_at_a_time():
    clock = Clock()
    out = Pipe(clock)
    write_lines(GeneratorSettings(users=500, rate_per_s=20_000, events=20_000), out, realtime=True, timer=clock.timer())
    assert 100 < len(out.writes) < 400


def test_a_slow_writer_catches_up():
    clock = Clock()
    out = Pipe(clock)
    run = GeneratorSettings(users=20, rate_per_s=40, duration_ms=30_000)
    timer = clock.timer()
    stall = iter([5.0])

    def progress(events):
        if events > 200:
            clock.now_s += next(stall, 0.0)

    write_lines(run, out, realtime=True, timer=timer, progress=progress)
    written_s, lines = out.writes[-1]
    assert written_s - due_s(lines.splitlines()[-1], run) < 0.006


def per_second(out, began_s=1_000.0):
    """Records written in each whole second since the first one."""
    counts: dict[int, int] = {}
    for written_s, lines in out.writes:
        second = int(written_s - began_s)
        counts[second] = counts.get(second, 0) + lines.count(b"\n")
    return [counts.get(second, 0) for second in range(max(counts) + 1)]


@pytest.mark.parametrize("profile", ["clickstream", "user_activity"])
@pytest.mark.parametrize("trouble", [{}, {"late_fraction": 0.05}, {"out_of_order_ms": 60_000}])
def test_the_rate_is_kept_in_every_second(profile, trouble):
    clock = Clock()
    out = Pipe(clock)
    run = GeneratorSettings(profile=profile, users=50, rate_per_s=500, duration_ms=250_000, **trouble)
    write_lines(run, out, realtime=True, timer=clock.timer())
    seconds = per_second(out, out.writes[0][0])
    assert len(seconds) >= 250
    assert all(490 <= count <= 510 for count in seconds[:249]), seconds


def test_after_a_stall_it_catches_up_at_twice_the_rate():
    clock = Clock()
    out = Pipe(clock)
    run = GeneratorSettings(users=50, rate_per_s=500, duration_ms=40_000)
    stalls = {5_000: 0.9, 7_500: 8.0, 9_000: 3.0}  # after so many events, for so long; the last while catching up

    def progress(events):
        for at in [at for at in stalls if at <= events]:
            clock.now_s += stalls.pop(at)

    write_lines(run, out, realtime=True, timer=clock.timer(), progress=progress)
    assert not stalls
    counts = per_second(out)
    behind_at_once, catching_up = counts[:15], counts[15:]
    assert max(behind_at_once) <= 1_000
    assert max(catching_up) <= 1_020, counts
    assert counts[28:36] == pytest.approx([1_000] * 8, rel=0.05), counts
    assert counts[38:] == pytest.approx([500] * len(counts[38:]), rel=0.05), counts
    assert out.writes[-1][0] - 1_000 == pytest.approx(40, abs=0.1)
    assert sum(counts) == 20_000


def test_a_run_may_be_dated_by_the_moment_its_writing_starts():
    clock = Clock()
    out = Pipe(clock)
    run = GeneratorSettings(users=50, rate_per_s=500, events=1_000)
    timer = clock.timer()

    def wall_ms():
        return 5_000_000_000_000 + round(1_000 * (clock.now_s - 1_000.0))

    accounting = write_lines(
        run, out, realtime=True, timer=Timer(now_s=timer.now_s, sleep_s=timer.sleep_s, wall_ms=wall_ms)
    )
    for written_s, lines in out.writes:
        for line in lines.splitlines():
            happened_s = (int(json.loads(line)["event_timestamp"]) - 5_000_000_000_000) / 1_000
            assert -0.002 < written_s - 1_000 - happened_s < 0.01
    assert accounting.first_ms == int(json.loads(out.writes[0][1].splitlines()[0])["event_timestamp"])


def test_progress_counts_events():
    seen: list[int] = []
    run = GeneratorSettings(users=100, events=20_000, duplicate_fraction=0.1, broken_fraction=0.1)
    write_lines(run, io.BytesIO(), progress=seen.append)
    assert seen[-1] == 20_000
    assert sorted(seen) == seen
    assert len(seen) > 2


def test_late_records_are_reported():
    seen: list[LateRecord] = []
    run = GeneratorSettings(users=100, events=5_000, late_fraction=0.05, duplicate_fraction=0.2, broken_fraction=0.2)
    out = io.BytesIO()
    accounting = write_lines(run, out, on_late=seen.append)
    assert len(seen) == accounting.late > 200
    lines = set(out.getvalue().splitlines(keepends=True))
    for record in seen:
        assert record.line in lines
        told = json.loads(record.line)
        assert (told["uuid"], int(told["event_timestamp"])) == (record.user, record.time_ms)
        assert record.arrival_ms - record.time_ms == run.late_by_ms


@pytest.mark.parametrize("error", [BrokenPipeError(), KeyboardInterrupt()])
def test_a_run_ends_quietly_when_the_reader_goes_away_or_a_person_stops_it(error):
    clock = Clock()
    out = Pipe(clock, error=error, fails_at=10)
    run = GeneratorSettings(users=20, rate_per_s=40, late_fraction=0.1, broken_fraction=0.1)  # without an end
    accounting = write_lines(run, out, realtime=True, timer=clock.timer())
    assert not accounting.complete
    assert accounting.records == out.getvalue().count(b"\n") >= 10
    assert accounting.size_bytes == len(out.getvalue())


def test_a_full_disk_is_an_error():
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OutputError) as refused:
        write_lines(GeneratorSettings(events=50_000), Pipe(error=full, fails_at=1))
    assert "No space left" in str(refused.value)
    assert refused.value.hint


def test_a_closed_pipe_ends_the_process_quietly():
    code = (
        "import sys; from sessionize.connectors.generator import *;"
        "t = write_lines(GeneratorSettings(rate_per_s=100_000.0), sys.stdout.buffer);"
        "print(t.complete, file=sys.stderr); sys.stdout = None"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["uuid"].startswith("user-")
        process.stdout.close()
        assert process.stderr.read().splitlines()[0] == b"False"


def test_files_are_plain_or_gzipped_by_their_ending(tmp_path):
    run = GeneratorSettings(users=20, events=2_000, broken_fraction=0.1)
    for name in ("a.ndjson", "a.ndjson.gz", "b.ndjson.gz"):
        with open_output(tmp_path / name) as out:
            write_lines(run, out)
    plain = (tmp_path / "a.ndjson").read_bytes()
    packed = (tmp_path / "a.ndjson.gz").read_bytes()
    assert plain.count(b"\n") > 2_000
    assert gzip.decompress(packed) == plain
    assert packed[4:8] == bytes(4)  # no time of writing, or two files of the same records would differ
    assert packed == (tmp_path / "b.ndjson.gz").read_bytes()


def test_a_file_that_cannot_be_made_is_an_error(tmp_path):
    with (
        pytest.raises(OutputError, match="the file for the generated records cannot be created") as refused,
        open_output(tmp_path / "no" / "a.ndjson"),
    ):
        pass
    assert str(tmp_path) in (refused.value.detail or "")
