"""Ctrl-C and SIGTERM while files are turned into sessions: nothing is committed, unless all of it is."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path
from termios import FIONREAD

import pytest

from sessionize.cli.signals import Abortable, aborted_by_signals
from sessionize.engine.accounting import Accounting, ignore

COMMAND = Path(sys.executable).with_name("sessionize")
EVENTS = 400_000
# A process that runs the command, and at a point of our choosing sends itself signals.
RUN = """
import os, signal, sys
from sessionize.cli import main
from sessionize.engine.batch import sessions as batch
from sessionize.engine.batch import outputs
{patch}
sys.argv = ["sessionize", *sys.argv[1:]]
main()
"""
WHILE_WRITING = """
from sessionize.connectors.iceberg.sink import IcebergSink
from sessionize.connectors.files.sink import FileSink
def interrupting(write):
    def written(self, rows):
        write(self, rows)
        os.kill(os.getpid(), signal.{name})
    return written
for sink in (IcebergSink, FileSink):
    sink.write = interrupting(sink.write)
"""
WHILE_COMMITTING = """
from sessionize.connectors.iceberg.sink import IcebergSink
from sessionize.connectors.files.sink import FileSink
def interrupting(commit):
    def committed(self, *args, **kw):
        os.kill(os.getpid(), signal.{name})
        commit(self, *args, **kw)
    return committed
calls = []
for sink in (IcebergSink, FileSink):
    sink.commit = interrupting(sink.commit)
"""
WHILE_ABORTING = (
    WHILE_WRITING
    + """
calls = []
def again(abort):
    def aborted(self):
        calls or os.kill(os.getpid(), signal.{name})
        calls.append(1)
        abort(self)
    return aborted
for sink in (IcebergSink, FileSink):
    sink.abort = again(sink.abort)
"""
)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("events") / "events.ndjson"
    subprocess.run([COMMAND, "produce", "--events", str(EVENTS), "-o", path, "-q"], check=True, timeout=120)
    return path


def commands(events: Path) -> dict[str, list[str]]:
    return {
        "batch": ["batch", str(events), "-o", "out.parquet", "--rejects", "bad.ndjson"],
        "batch into iceberg": ["batch", str(events), "-o", "iceberg:sessions.user_sessions"],
        "label": ["label", str(events), "-o", "out.csv"],
        "run": ["run", "user_sessionization_pipeline", "--input", str(events)],
        "run into a file": ["run", "batch_file_processor", "--input", str(events), "--set", "output.kind=csv",
                            "--set", "output.path=out.csv"],
    }  # fmt: skip


def patched(patch: str, name: str, arguments: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    code = RUN.format(patch=patch.format(name=name))
    command = [sys.executable, "-c", code, *arguments]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SESSIONIZE_")}
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=120, check=False)


def outputs_in(folder: Path) -> list[str]:
    """Every file that holds rows or was to hold some."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in files if "metadata" not in name and not name.endswith(("catalog.db", ".lock")))


def workers_of(pid: int) -> list[str]:
    """The processes that a process has started."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread may end meanwhile
            found += path.read_text().split()
    return found


def rows_of(folder: Path) -> list[int]:
    """The number of rows in each table."""
    if not (folder / "sessionize-data").exists():
        return []
    sql = "SELECT (SELECT count(*) FROM user_sessions) AS s, (SELECT count(*) FROM events) AS e"
    done = subprocess.run([COMMAND, "query", sql, "--json"], cwd=folder, capture_output=True, text=True, check=False)
    return list(json.loads(done.stdout).values()) if done.returncode == 0 else []


@pytest.mark.parametrize(("name", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
@pytest.mark.parametrize("which", list(commands(Path())))
def test_a_signal_while_rows_are_written_aborts(
    events: Path, tmp_path: Path, which: str, name: str, code: int, word: str
) -> None:
    done = patched(WHILE_WRITING, name, commands(events)[which], tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (code, [word]), done
    assert "Traceback" not in done.stderr
    assert outputs_in(tmp_path) == []
    assert sum(rows_of(tmp_path)) == 0


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_second_signal_waits_for_the_abort(events: Path, tmp_path: Path, name: str) -> None:
    done = patched(WHILE_ABORTING, name, commands(events)["run"], tmp_path)
    assert done.returncode == {"SIGINT": 130, "SIGTERM": 143}[name], done
    assert "removing unfinished output" in done.stderr
    assert outputs_in(tmp_path) == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("which", ["run", "batch"])
def test_a_signal_during_the_commit_lets_it_end(events: Path, tmp_path: Path, which: str, name: str) -> None:
    """Half of the tables with rows, and half without, would be worse than either."""
    once = WHILE_COMMITTING.replace(
        "os.kill(os.getpid(), signal.{name})", "calls or os.kill(os.getpid(), signal.{name}); calls.append(1)"
    )
    done = patched(once, name, commands(events)[which], tmp_path)
    assert done.returncode == 0, done
    assert "committing the results" in done.stderr
    assert "all results are committed" in done.stderr
    if which == "run":
        assert rows_of(tmp_path)[1] > 0.9 * EVENTS
    else:
        assert outputs_in(tmp_path) == ["bad.ndjson", "out.parquet"]


def test_a_second_signal_during_the_commit_ends_it(events: Path, tmp_path: Path) -> None:
    done = patched(WHILE_COMMITTING, "SIGINT", commands(events)["run"], tmp_path)
    assert done.returncode == 130, done
    assert "committing the results" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("which", ["batch", "run"])
def test_a_signal_while_workers_decode(events: Path, tmp_path: Path, which: str, name: str) -> None:
    """As typed: its workers are there, and it is told to end."""
    with subprocess.Popen(
        [COMMAND, *commands(events)[which]], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        while running.poll() is None and not workers_of(running.pid):
            pass
        running.send_signal(getattr(signal, name))
        _, err = running.communicate(timeout=60)
    assert running.returncode == {"SIGINT": 130, "SIGTERM": 143}[name], err
    assert "Traceback" not in err
    assert outputs_in(tmp_path) == []


def test_a_signal_while_it_waits_for_standard_input(tmp_path: Path) -> None:
    command = [COMMAND, "batch", "-", "-o", "out.ndjson"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None
        running.stdin.write('{"uuid": "u", "event_timestamp": 1}\n')
        running.stdin.flush()
        while running.poll() is None and int.from_bytes(ioctl(running.stdin, FIONREAD, b"1234"), sys.byteorder):
            pass  # until it has taken all there is
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        assert running.stderr.read() == "interrupted\n"  # without an end of the input
        assert running.wait(timeout=60) == 130
    assert outputs_in(tmp_path) == []


IN_A_FINALIZER = """
class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        for _ in range(1000):
            pass  # the handler runs here, and what it raises is ignored
from sessionize.connectors.iceberg.sink import IcebergSink
from sessionize.connectors.files.sink import FileSink
calls = []
def interrupting(write):
    def written(self, rows):
        if not calls:
            calls.append(1)
            Interrupted()
        write(self, rows)
    return written
for sink in (IcebergSink, FileSink):
    sink.write = interrupting(sink.write)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("which", ["run", "batch"])
def test_a_signal_that_meets_a_finalizer_is_not_lost(events: Path, tmp_path: Path, which: str, name: str) -> None:
    """Python ignores what is raised in a finalizer; the run would go on to its end."""
    done = patched(IN_A_FINALIZER, name, commands(events)[which], tmp_path)
    assert done.returncode == {"SIGINT": 130, "SIGTERM": 143}[name], done
    assert done.stderr in ("interrupted\n", "terminated\n")
    assert outputs_in(tmp_path) == []


WHILE_GENERATING = """
from sessionize.connectors.generator.stream import RecordCounts
def interrupting(add):
    def added(self, *args):
        add(self, *args)
        os.kill(os.getpid(), signal.{name})
    return added
RecordCounts.add = interrupting(RecordCounts.add)
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("file", ["sample.ndjson", "sample.ndjson.gz"])
@pytest.mark.parametrize("there", [True, False], ids=["over an earlier file", "new"])
def test_a_sample_that_is_cut_off_leaves_what_was_there(
    tmp_path: Path, there: bool, file: str, name: str, code: int
) -> None:
    if there:
        (tmp_path / file).write_text("earlier\n")
    done = patched(WHILE_GENERATING, name, ["produce", "--events", "300000", "-o", file], tmp_path)
    assert done.returncode == code, done
    assert [path.name for path in tmp_path.iterdir()] == ([file] if there else [])
    assert not there or (tmp_path / file).read_text() == "earlier\n"


def test_a_demo_that_is_cut_off_leaves_the_records_of_the_one_before(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    home.mkdir()
    (home / "clickstream.ndjson").write_text("earlier\n")
    done = patched(WHILE_GENERATING, "SIGINT", ["demo", "--home", "demo"], tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (130, ["interrupted"])
    assert [(path.name, path.read_text()) for path in home.iterdir()] == [("clickstream.ndjson", "earlier\n")]


def test_a_signal_before_the_command_begins(tmp_path: Path) -> None:
    patch = """
from sessionize.cli import standard_streams
standard_streams.install = lambda: os.kill(os.getpid(), signal.{name})
"""
    done = patched(patch, "SIGINT", ["--version"], tmp_path)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_the_third_signal_is_for_good() -> None:
    """In a process of its own: it would end this one."""
    code = (
        "import signal\nfrom sessionize.cli.signals import aborted_by_signals\n"
        "with aborted_by_signals():\n"
        " try:\n  signal.raise_signal(signal.SIGINT)\n"
        " except KeyboardInterrupt:\n"
        "  signal.raise_signal(signal.SIGINT)\n  print('still here', flush=True)\n"
        "  signal.raise_signal(signal.SIGINT)\n  print('not here', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (130, "still here\n")


def test_signals_are_handled_as_before_after_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with aborted_by_signals() as run:
        assert isinstance(run, Abortable)
        run.watching(ignore)("commit", 0, Accounting())
        signal.raise_signal(signal.SIGTERM)
        assert run.interrupted
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert "all results are committed" in capsys.readouterr().err
