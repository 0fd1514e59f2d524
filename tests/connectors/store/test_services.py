"""The servers that tests start go away with whoever started them."""

import shutil
import socket
import subprocess
import sys
import time

import pytest

STARTER = """
import sys
from sessionize.testing.services.{module} import {name}
server = {name}()
server.start()
print(server.port, server._folder, flush=True)
sys.stdin.read()
"""
TIMEOUT_S = 60


@pytest.mark.parametrize(("module", "name"), [("postgres", "PostgresServer"), ("valkey", "ValkeyServer")])
def test_a_server_ends_with_a_killed_process(module: str, name: str) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER.format(module=module, name=name)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    port, folder = starter.stdout.readline().split()
    try:
        assert answers(int(port))
        starter.kill()
        starter.communicate(timeout=TIMEOUT_S)
        until = time.monotonic() + TIMEOUT_S
        while answers(int(port)):
            assert time.monotonic() < until
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
