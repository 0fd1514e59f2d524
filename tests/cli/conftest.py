"""The command as a user types it: a process of its own, in an empty folder."""

import json
import os
from dataclasses import dataclass

import pytest

from tests.forked_commands import ForkedCommands


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def rows(self):
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture(scope="session")
def forked_commands():
    with ForkedCommands() as commands:
        yield commands


@pytest.fixture
def sessionize(tmp_path, forked_commands):
    """Runs `sessionize ARGUMENTS` in the test's folder and returns how it ended."""

    def run(*arguments, stdin=b"", environ=None, code=0):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SESSIONIZE_")}
        done = forked_commands.run(
            list(map(str, arguments)),
            folder=tmp_path,
            environment={**clean, "COLUMNS": "200", "NO_COLOR": "1", **(environ or {})},
            stdin=stdin,
        )
        result = Done(done.code, done.out.decode(), done.err.decode())
        assert result.code == code, result
        assert "Traceback" not in result.err, result.err
        return result

    return run
