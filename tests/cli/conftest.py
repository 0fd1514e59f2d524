"""The command as a user types it: a process of its own, in an empty folder."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("sessionize")


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


@pytest.fixture
def sessionize(tmp_path):
    """Runs `sessionize ARGUMENTS` in the test's folder and returns how it ended."""

    def run(*arguments, stdin=b"", environ=None, code=0):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SESSIONIZE_")}
        done = subprocess.run(
            [COMMAND, *map(str, arguments)],
            cwd=tmp_path,
            input=stdin,
            env={**clean, "COLUMNS": "200", "NO_COLOR": "1", **(environ or {})},
            capture_output=True,
            timeout=120,
            check=False,
        )
        result = Done(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert result.code == code, result
        assert "Traceback" not in result.err, result.err
        return result

    return run
