"""The shared broker: one for all its users, and gone with the last of them, however it went."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sessionize.testing.services import java_parts
from sessionize.testing.services.java_parts import ServiceMissing, java, server_jars
from sessionize.testing.services.kafka import KafkaServers

USER = """
import sys
from pathlib import Path
from sessionize.testing.services.shared_broker import shared_broker
with shared_broker(Path(sys.argv[1])) as servers:
    print(servers, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module", autouse=True)
def _parts() -> None:
    try:
        server_jars("kafka")
        java()
    except ServiceMissing as missing:
        pytest.skip(str(missing))


def processes_of(folder: Path) -> list[int]:
    """Everything that runs with this folder in its command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder) in (process / "cmdline").read_text(errors="replace"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def wait_until(condition, deadline_s: float = 60.0) -> None:
    until = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)  # between two looks


def test_two_users_share_a_broker_that_ends_with_the_last_even_when_killed(tmp_path):
    folder = tmp_path / "shared"
    command = [sys.executable, "-c", USER, str(folder)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as two,
    ):
        try:
            assert one.stdout is not None
            assert two.stdout is not None
            servers = one.stdout.readline().strip()
            assert two.stdout.readline().strip() == servers
            assert sum(b"kafka.Kafka" in Path(f"/proc/{p}/cmdline").read_bytes() for p in processes_of(folder)) == 1
            one.communicate("done\n")
            assert KafkaServers(servers).answers()
            two.send_signal(signal.SIGKILL)
            two.wait()
            wait_until(lambda: processes_of(folder) == [])
        finally:
            one.kill()
            two.kill()


def test_a_broker_dies_with_the_process_that_started_it(tmp_path):
    code = (
        "import sys; from pathlib import Path; from sessionize.testing.services.kafka import KafkaBroker\n"
        "broker = KafkaBroker(Path(sys.argv[1])); broker.start(); print('up', flush=True); sys.stdin.readline()"
    )
    folder = tmp_path / "own"
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        try:
            assert starter.stdout is not None
            assert starter.stdout.readline() == "up\n"
            assert len(processes_of(folder)) == 2
        finally:
            os.kill(starter.pid, signal.SIGKILL)
    wait_until(lambda: processes_of(folder) == [])


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(java_parts, "_CACHE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServiceMissing, match="no Maven"):
        server_jars("kafka")
    monkeypatch.setattr(java_parts, "_POMS", tmp_path)
    with pytest.raises(ServiceMissing, match="from a checkout"):
        server_jars("kafka")


def test_java_comes_from_a_wheel_where_the_system_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    runtime = java.__wrapped__()
    assert (
        "openjdk" in subprocess.run([runtime, "--version"], capture_output=True, text=True, check=True).stdout.lower()
    )
    monkeypatch.setattr(java_parts, "_JDK_WHEEL", "no_such_wheel")
    with pytest.raises(ServiceMissing, match="no java at all"):
        java.__wrapped__()
