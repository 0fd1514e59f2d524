"""What is no plain file: pipes are read as streams, anything else is refused or passed over with a word."""

import fcntl
import gzip
import logging
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.connectors.files.source import FileSource
from sessionize.errors import InputError
from sessionize.formats.dialects import dialect_named
from tests.connectors.files.following import NOW_MS, everything, expected, put, source, users
from tests.connectors.files.following import lines as clicks
from tests.connectors.files.reading import OWN, lines, read, times

CSV = b"u,t,p\n" + b"".join(b"u%d,%d,/\n" % (n % 7, n) for n in range(300))
COMMAND = Path(sys.executable).with_name("sessionize")


def unread(pipe: int) -> int:
    """How many bytes wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), "little")


def waits(pid: int) -> bool:
    """Whether a thread of the process waits for a named pipe to be opened, or for standard input."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        call = (task / "syscall").read_text().split()
        # openat or read of descriptor 0, by their numbers on x86-64 and ARM
        if call[0] in ("257", "56") or (call[0] in ("0", "63") and call[1] == "0x0"):
            return True
    return False


def fed(path: Path, data: bytes) -> threading.Thread:
    """A named pipe that somebody writes to, slowly."""
    os.mkfifo(path)

    def write() -> None:
        with open(path, "wb", buffering=0) as pipe:
            for start in range(0, len(data), 1000):
                pipe.write(data[start : start + 1000])

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    return writing


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.ndjson", lines(300)),
        ("a.csv", CSV),
        ("a.ndjson.gz", gzip.compress(lines(300))),
        ("a.csv.gz", gzip.compress(CSV)),
        ("no-ending", lines(300)),
    ],
)
def test_a_named_pipe_is_read_as_a_stream(tmp_path: Path, name: str, data: bytes) -> None:
    writing = fed(tmp_path / name, data)
    events, rejected, _ = read(tmp_path / name)
    writing.join(60)
    assert (times(events), rejected.num_rows) == (list(range(300)), 0)
    assert FileSource([tmp_path / name], dialect=OWN).size_bytes is None


@pytest.mark.parametrize("stdin", ["a file", "a pipe"])
def test_standard_input_by_its_path(tmp_path: Path, stdin: str) -> None:
    (tmp_path / "a.ndjson").write_bytes(lines(300))
    program = (
        "from sessionize.connectors.files.source import FileSource; from sessionize.formats.dialects import Dialect;"
        "source = FileSource('/dev/stdin', dialect=Dialect.mapping(user='u', time='t', page='p'));"
        "print(sum(batch.events.num_rows for batch in source.batches()))"
    )
    with open(tmp_path / "a.ndjson", "rb") as file:
        given = {"stdin": file} if stdin == "a file" else {"input": lines(300)}
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=60, check=True, **given)
    assert done.stdout == b"300\n"


def test_parquet_needs_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="Parquet cannot be read from a pipe"):
        FileSource([tmp_path / "a.parquet"], dialect=OWN)


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the whole path may be too long for a socket's
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("a.ndjson")
        with pytest.raises(InputError, match="only files and pipes can be read"):
            FileSource(["a.ndjson"], dialect=OWN)


def odd_ones(folder: Path, data: Callable[[str], bytes]) -> None:
    """What has no place among data, and one file that has."""
    folder.mkdir(exist_ok=True)
    for name in ["a.log", "notes.txt", "b.ndjson.bak", "no-ending"]:
        (folder / name).write_bytes(b"x")
    for name in [".hidden.ndjson", "_SUCCESS", "c.ndjson.tmp"]:
        (folder / name).write_bytes(b"x")
    os.mkfifo(folder / "pipe.ndjson")
    put(folder / "good.ndjson", data("good"))


def test_what_is_passed_over_in_a_folder_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "in"
    odd_ones(folder, lambda name: lines(3))
    (folder / "empty.ndjson").touch()
    with caplog.at_level(logging.WARNING, "sessionize.input"):
        events, _, _ = read(folder)
    assert times(events) == [0, 1, 2]
    names = ", ".join(str(folder / name) for name in ["a.log", "b.ndjson.bak", "no-ending", "notes.txt"])
    assert [record.getMessage() for record in caplog.records] == [
        f"4 files are not read (unknown file name ending): {names}",
        f"1 file is not read (pipes, sockets or devices): {folder / 'pipe.ndjson'}",
        f"1 file is empty: {folder / 'empty.ndjson'}",
    ]


@pytest.mark.parametrize("followed", [False, True])
def test_a_link_to_a_folder_elsewhere_is_named(
    tmp_path: Path, followed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not entered; one to a folder that is read anyway is nothing to tell of."""
    put(tmp_path / "elsewhere" / "a.ndjson", clicks("a", 2))
    put(tmp_path / "in" / "below" / "b.ndjson", clicks("b", 2))
    (tmp_path / "in" / "2023").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "below")
    (tmp_path / "in" / "nowhere").symlink_to(tmp_path / "gone")
    with caplog.at_level(logging.WARNING, "sessionize.input"):
        if followed:
            following = source(tmp_path)
            assert users(list(everything(following))) == expected(("b", 2))
            following.close()
        else:
            assert len(list(FileSource([tmp_path / "in"], dialect=dialect_named("clicks")).batches())) == 1
    link = tmp_path / "in" / "2023"
    told = [record.getMessage() for record in caplog.records]
    assert f"1 file is not read (links to folders; name the folders themselves): {link}" in told


def test_a_followed_folder_names_once_what_it_passes_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "in"
    odd_ones(folder, lambda name: clicks(name, 3))
    following = source(tmp_path)
    with caplog.at_level(logging.WARNING, "sessionize.input"):
        batches = [batch for _ in range(5) for batch in following.poll(timeout_s=0, now_ms=NOW_MS)]
        told = [record.getMessage() for record in caplog.records]
        for n in range(3):
            (folder / f"more-{n}.log").touch()
        batches += [batch for _ in range(5) for batch in following.poll(timeout_s=0, now_ms=NOW_MS)]
        assert len(caplog.records) == len(told)  # there are not twice as many yet
        (folder / "more-3.log").touch()
        following.poll(timeout_s=0, now_ms=NOW_MS)
    assert users(batches) == expected(("good", 3))
    assert [text.split(" (")[0] for text in told] == ["4 files are not read", "1 file is not read"]
    assert caplog.records[-1].getMessage().startswith("8 files are not read")
    following.close()


def test_what_the_pipeline_writes_below_a_followed_folder_is_not_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in" / "home").mkdir(parents=True)
    (tmp_path / "in" / "home" / "metadata.avro").touch()
    following = source(tmp_path, exclude=[tmp_path / "in" / "home"])
    with caplog.at_level(logging.WARNING, "sessionize.input"):
        following.poll(timeout_s=0, now_ms=NOW_MS)
    assert caplog.records == []
    following.close()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ["-", "a.ndjson", "a.csv.gz"])
@pytest.mark.parametrize("opened", [False, True], ids=["nobody writes", "somebody could write"])
def test_a_pipe_that_brings_nothing_can_be_interrupted(
    tmp_path: Path, name: str, stop: signal.Signals, opened: bool
) -> None:
    pipe = tmp_path / name if name != "-" else tmp_path / "stdin"
    os.mkfifo(pipe)
    command: list[str | Path] = [COMMAND, "batch", name if name == "-" else str(pipe), "-o", "out.csv"]
    command += ["--user", "u", "--time", "t"]
    stdin = os.open(pipe, os.O_RDWR) if name == "-" else None
    run = subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL if stdin is None else stdin, stderr=subprocess.PIPE
    )
    writer = None
    try:
        until = time.monotonic() + 60
        while not opened and not waits(run.pid):
            assert run.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        while opened and writer is None and time.monotonic() < until:
            try:
                writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads yet
                time.sleep(0.02)
        if writer is not None:
            os.write(writer, b"\x1f" if name.endswith(".gz") else b"\n")
            while unread(writer) and time.monotonic() < until:
                time.sleep(0.02)
        run.send_signal(stop)
        assert run.wait(60) == 128 + stop
        assert list(tmp_path.glob("*out.csv*")) + list(tmp_path.glob(".*out.csv*")) == []
    finally:
        run.kill()
        run.communicate()
        for descriptor in (writer, stdin):
            if descriptor is not None:
                os.close(descriptor)


def test_a_followed_folder_goes_on_beside_a_file_that_may_not_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Tests may run as root, whom nobody denies anything."""
    import builtins

    really, denied = open, [True]

    def guarded(path: object, *how: object, **more: object) -> object:
        if denied[0] and str(path).endswith("private.ndjson"):
            raise PermissionError(13, "Permission denied", str(path))
        return really(path, *how, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(builtins, "open", guarded)
    put(tmp_path / "in" / "private.ndjson", clicks("private", 2))
    put(tmp_path / "in" / "good.ndjson", clicks("good", 3), age=5)
    following = source(tmp_path)
    with caplog.at_level(logging.WARNING, "sessionize.input"):
        batches = [batch for _ in range(5) for batch in following.poll(timeout_s=0, now_ms=NOW_MS)]
    assert users(batches) == expected(("good", 3))
    assert following.caught_up()  # silence is not put off for it
    (told,) = [record.getMessage() for record in caplog.records]
    assert "private.ndjson cannot be opened, retrying until its permissions allow it" in told
    denied[0] = False
    batches += [batch for _ in range(5) for batch in following.poll(timeout_s=0, now_ms=NOW_MS)]
    assert users(batches) == expected(("good", 3), ("private", 2))
    denied[0] = True
    once = source(tmp_path, log_path=tmp_path / "other", bounded=True)
    with pytest.raises(InputError, match="cannot be read"):
        list(everything(once))
    once.close()
    following.close()


def test_one_folder_that_cannot_be_listed_does_not_take_the_others_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    really, denied = os.scandir, [True]

    def guarded(path: object) -> object:
        if denied[0] and str(path).endswith("private"):
            raise PermissionError(13, "Permission denied", str(path))
        return really(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", guarded)
    put(tmp_path / "in" / "private" / "a.ndjson", clicks("private", 2))
    put(tmp_path / "in" / "good.ndjson", clicks("good", 3), age=5)
    following = source(tmp_path)
    with caplog.at_level(logging.WARNING, "sessionize.input"):
        batches = [batch for _ in range(5) for batch in following.poll(timeout_s=0, now_ms=NOW_MS)]
    assert users(batches) == expected(("good", 3))
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.endswith("private cannot be listed, its files are not read: Permission denied")
    denied[0] = False
    batches += [batch for _ in range(5) for batch in following.poll(timeout_s=0, now_ms=NOW_MS)]
    assert users(batches) == expected(("good", 3), ("private", 2))
    following.close()


@pytest.mark.parametrize("name", ["a.parquet", "a.ndjson.gz", "a.csv.gz"])
def test_a_file_without_content_that_should_have_some_waits_and_is_set_aside(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "in" / name, b"")
    waits = source(tmp_path, broken_after_s=10**10)
    with caplog.at_level(logging.WARNING, "sessionize.input"):
        assert waits.poll(timeout_s=0, now_ms=NOW_MS) == []
    assert "cannot be read yet" in caplog.text
    (tmp_path / "in" / name).write_bytes(b"")
    if name == "a.parquet":
        pq.write_table(pa.table({"user_id": ["a"], "timestamp": [NOW_MS], "url": ["x"]}), tmp_path / "in" / name)
    else:
        text = clicks("a", 1) if name == "a.ndjson.gz" else b"user_id,timestamp,url\na,%d,x\n" % NOW_MS
        (tmp_path / "in" / name).write_bytes(gzip.compress(text))
    os.utime(tmp_path / "in" / name, (1_700_000_000, 1_700_000_001))
    waits.close()
    again = source(tmp_path, settle_s=0)
    batches = [batch for _ in range(5) for batch in again.poll(timeout_s=0, now_ms=NOW_MS)]
    assert len(users(batches)) == 1
    again.close()
    put(tmp_path / "in" / f"b-{name}", b"")
    again = source(tmp_path)
    again.seek(batches[-1].ranges and {"files": batches[-1].ranges["files"][1]})
    (batch,) = [batch for _ in range(5) for batch in again.poll(timeout_s=0, now_ms=NOW_MS)]
    assert batch.rejected["reason"].to_pylist() == ["unreadable_file"]
    again.close()


def test_empty_text_files_are_told_of_now_and_then(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(6):
        put(tmp_path / "in" / f"{n}.ndjson", b"", age=n)
    following = source(tmp_path)
    with caplog.at_level(logging.WARNING, "sessionize.input"):
        for _ in range(20):
            following.poll(timeout_s=0, now_ms=NOW_MS)
    assert [record.getMessage() for record in caplog.records] == [
        "1 file is empty: 0.ndjson",
        "2 files are empty: 1.ndjson",
        "4 files are empty: 3.ndjson",
    ]
    following.close()
