"""A reader of reports decides nothing; a result that cannot be written is an error."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sessionize.app.tables.warehouse import Warehouse
from sessionize.cli.standard_streams import Reports
from sessionize.errors import SessionizeError

COMMAND = str(Path(sys.executable).with_name("sessionize"))
EVENTS = "".join(
    json.dumps({"user_id": f"u{n % 5}", "timestamp": 1_700_000_000_000 + 60_000 * n, "url": f"/{n}"}) + "\n"
    for n in range(100)
)
STREAM = """
name = "p"
[input]
kind = "directory"
paths = ["in"]
dialect = "clicks"
[rules]
lateness = "7d"
[stream]
epoch = "200ms"
poll = "10ms"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.ndjson").write_text(EVENTS)
    (tmp_path / "p.toml").write_text(STREAM)
    return tmp_path


def in_shell(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A command with the shell's redirections, as a user types them; $S is sessionize."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**os.environ, "S": COMMAND}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-"])
def test_reports_that_cannot_be_written_change_nothing(folder: Path, redirected: str) -> None:
    done = in_shell(f"$S batch in -o out.parquet --dialect clicks --json {redirected}", folder)
    assert (done.returncode, json.loads(done.stdout)["consumed"]) == (0, 100)
    done = in_shell(f"$S run p.toml --once --json {redirected}", folder)
    assert (done.returncode, json.loads(done.stdout)["consumed"]) == (0, 100)
    assert json.loads(done.stdout)["log_lines_dropped"] >= 1


def test_a_log_without_a_reader_from_the_start_changes_nothing(folder: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [COMMAND, "run", "p.toml", "--once", "--json"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=write_end, timeout=120, check=False)
    os.close(write_end)
    assert (done.returncode, json.loads(done.stdout)["consumed"]) == (0, 100)
    assert json.loads(done.stdout)["log_lines_dropped"] >= 1


@pytest.mark.parametrize("redirected", [">&- 2>&-", "<&- >&- 2>&-", ">&-"])
def test_closed_descriptors_are_no_place_for_reports(folder: Path, redirected: str) -> None:
    """A file that is opened later must not get their numbers."""
    assert in_shell(f"$S batch in -o out.ndjson --dialect clicks {redirected}", folder).returncode == 0
    assert {"session_id"} <= set(json.loads((folder / "out.ndjson").read_text().splitlines()[0]))
    assert all(json.loads(line)["user_id"] for line in (folder / "out.ndjson").read_text().splitlines())
    assert in_shell(f"$S run p.toml --once {redirected}", folder).returncode == 0


@pytest.mark.parametrize("redirected", [">/dev/full", ">&-"])
@pytest.mark.parametrize("command", ["init kafka_stream", "produce --events 5000", "batch in -o o.csv --json", "init"])
def test_a_result_that_cannot_be_written_is_an_error(folder: Path, command: str, redirected: str) -> None:
    done = in_shell(f"$S {command} {'--dialect clicks' if 'batch' in command else ''} {redirected}", folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("error: ") == 1
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize("command", ["init kafka_stream", "produce --events 100000 -q"])
def test_a_reader_of_results_who_has_enough_ends_it_in_silence(folder: Path, command: str) -> None:
    done = in_shell(f"{{ $S {command}; echo $? >code; }} | head -c 10", folder)
    assert (len(done.stdout), done.stderr) == (10, "")
    assert (folder / "code").read_text() in ("0\n", "1\n")  # small results may be out before the reader is gone


def test_a_stream_goes_on_when_its_log_has_no_reader_any_more(folder: Path) -> None:
    with stream(folder, stderr=subprocess.PIPE) as running:
        assert running.stderr is not None
        assert [json.loads(running.stderr.readline())["event"] for _ in range(2)] == [
            "stream_started",
            "epoch_committed",
        ]
        running.stderr.close()
        (folder / "in" / "b.ndjson").write_text(EVENTS)
        wait_for_events(folder, running, 200)
        accounting = ended(running)
    assert accounting["consumed"] == 200
    assert accounting["log_lines_dropped"] > 0


def test_a_stream_goes_on_when_the_reader_of_its_log_stops_reading(folder: Path) -> None:
    """A pager, a stopped terminal: nobody reads, and nobody is gone either."""
    read_end, write_end = os.pipe()
    fill(write_end)
    with stream(folder, stderr=write_end) as running:
        os.close(write_end)
        wait_for_events(folder, running, 100)
        (folder / "in" / "b.ndjson").write_text(EVENTS)
        wait_for_events(folder, running, 200)
        accounting = ended(running)
    os.close(read_end)
    assert accounting["consumed"] == 200
    assert accounting["log_lines_dropped"] > 0


def fill(descriptor: int) -> None:
    """Until a pipe takes nothing more."""
    os.set_blocking(descriptor, False)
    try:
        while True:
            os.write(descriptor, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(descriptor, True)


def wait_for_events(folder: Path, running: "subprocess.Popen[Any]", count: int) -> None:
    """Until so many are in the archive."""
    while running.poll() is None:
        try:
            home = folder / "sessionize-data" / "p"
            found = Warehouse(home).query("SELECT count(*) AS n FROM events")["n"][0].as_py()
        except SessionizeError:  # it has not been made yet
            continue
        if found >= count:
            return
    raise AssertionError(f"the stream ended with {running.returncode}")


@contextmanager
def stream(folder: Path, **streams: Any) -> "Iterator[subprocess.Popen[Any]]":
    """A stream in a process of its own, which ends with the test."""
    command = [COMMAND, "run", "p.toml", "--json"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, **streams) as running:
        try:
            yield running
        finally:
            running.kill()


def ended(running: "subprocess.Popen[Any]") -> Any:
    """What a stream that was told to end printed as its result."""
    running.send_signal(signal.SIGTERM)
    assert running.stdout is not None
    out = running.stdout.read()
    assert running.wait(timeout=60) == 0
    return json.loads(out)


# ---- the writer itself ----


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def test_lines_go_out_whole(pipe: tuple[int, int]) -> None:
    reports = Reports(pipe[1], encoding="utf-8")
    print("a", "ü\udcff", file=reports)
    reports.write("no end")
    assert os.read(pipe[0], 1000) == "a ü\\udcff\n".encode()
    reports.flush()
    assert os.read(pipe[0], 1000) == b"no end"
    assert reports.dropped == 0


def test_what_a_stopped_reader_missed_is_counted_and_what_follows_is_whole(pipe: tuple[int, int]) -> None:
    reports = Reports(pipe[1], encoding="utf-8")
    reports.wait_max_s = 0.0
    written = 0
    while not reports.dropped:
        reports.write(f"{written:05}" + "x" * 3000 + "\n")
        written += 1
    reports.write("lost too\n")
    assert reports.dropped == 2
    drained = b""
    os.set_blocking(pipe[0], False)
    try:
        while True:
            drained += os.read(pipe[0], 65536)
    except BlockingIOError:
        pass
    reports.write("here again\n")
    lines = (drained + os.read(pipe[0], 1000)).decode().splitlines()
    assert lines[-1] == "here again"
    assert [line[:5] for line in lines[: written - 1]] == [f"{n:05}" for n in range(written - 1)]


def test_a_descriptor_that_never_waits_is_waited_for(pipe: tuple[int, int]) -> None:
    """Whoever shares a terminal may make it one."""
    os.set_blocking(pipe[1], False)
    reports = Reports(pipe[1], encoding="utf-8")
    got: list[bytes] = []

    def read() -> None:
        while data := os.read(pipe[0], 65536):
            got.append(data)

    reading = threading.Thread(target=read)
    reading.start()
    for _ in range(300):
        reports.write("x" * 2000 + "\n")
    os.close(pipe[1])
    reading.join()
    assert (len(b"".join(got)), reports.dropped) == (300 * 2001, 0)


def test_a_signal_may_interrupt_a_report_with_one_of_its_own(pipe: tuple[int, int]) -> None:
    reports = Reports(pipe[1], encoding="utf-8")

    class Interrupted(str):
        __slots__ = ()

        def __contains__(self, what: Any) -> bool:
            reports.write("from the handler\n")
            return str.__contains__(self, what)

    reports.write(Interrupted("x"))
    assert b"from the handler\n" in os.read(pipe[0], 1000)
