"""Forked commands end like commands of a shell: code, streams, folder, environment; and none disturbs the next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked_commands import ForkedCommands

EVENTS = b'{"u": "a", "t": 0}\n{"u": "a", "t": 1000}\n'
BATCH = ["batch", "-", "--user", "u", "--time", "t", "-o", "out.csv"]


@pytest.fixture(scope="module")
def commands():
    with ForkedCommands() as started:
        yield started


def in_a_shell(arguments, folder, environment, stdin):
    command = [Path(sys.executable).with_name("sessionize"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, input=stdin, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [(BATCH, EVENTS), (BATCH, b"no json\n"), (["batch"], b""), (["init", "clickstream"], b""), (["--version"], b"")],
    ids=["rows", "nothing usable", "wrong use", "another command", "version"],
)
def test_the_same_as_in_a_shell(commands, tmp_path, arguments, stdin):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100"}
    forked = commands.run(arguments, folder=here, environment=environment, stdin=stdin)
    shell = in_a_shell(arguments, there, environment, stdin)
    assert (forked.code, forked.out) == (shell.returncode, shell.stdout)
    assert len(forked.err.splitlines()) == len(shell.stderr.splitlines())
    assert {f.name: f.read_bytes() for f in here.iterdir()} == {f.name: f.read_bytes() for f in there.iterdir()}


def test_more_input_than_a_pipe_holds(commands, tmp_path):
    done = commands.run(BATCH, folder=tmp_path, environment=os.environ, stdin=EVENTS * 20_000)
    assert (done.code, len((tmp_path / "out.csv").read_text().splitlines())) == (0, 2)


def test_what_one_leaves_the_next_does_not_see(commands, tmp_path):
    asked = {**os.environ, "SESSIONIZE_HOME": str(tmp_path / "nowhere")}
    assert commands.run(["query", "select 1"], folder=tmp_path, environment=asked).code != 0
    assert commands.run(BATCH, folder=tmp_path, environment=os.environ, stdin=EVENTS).code == 0
    assert not (tmp_path / "nowhere").exists()


def test_a_server_that_was_killed_is_an_error(tmp_path):
    with ForkedCommands() as started:
        started.close()
        with pytest.raises((TimeoutError, BrokenPipeError, ValueError)):
            started.run(["--version"], folder=tmp_path, environment=os.environ)
