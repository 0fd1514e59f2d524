"""Boundary functions of the user's that fail or hang: reported by name, and never taken for the end of the run."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FILES = '[input]\nkind = "files"\npaths = ["in"]\n[output]\nkind = "ndjson"\npath = "out.ndjson"\n'
STREAM = '[input]\nkind = "directory"\npaths = ["in"]\n[output]\nkind = "iceberg"\n'
RULES = '[rules]\nboundary = "rules_here:at_logout"\n'


@pytest.fixture
def pipeline(tmp_path):
    """Writes the pipeline, its events and the function's body."""

    def write(sections, body):
        (tmp_path / "in").mkdir(exist_ok=True)
        events = [
            {"uuid": "ann", "event_timestamp": str(1_704_082_500_000 + at), "page_name": page}
            for at, page in enumerate(["home", "logout", "home"])
        ]
        (tmp_path / "in" / "a.ndjson").write_text("".join(json.dumps(event) + "\n" for event in events))
        (tmp_path / "my.toml").write_text(sections.replace("[output]", 'dialect = "clickstream"\n[output]', 1) + RULES)
        (tmp_path / "rules_here.py").write_text(
            f"import os, sys, time\nimport pyarrow.compute as pc\ndef at_logout(events):\n    {body}\n"
        )

    return write


@pytest.mark.parametrize("body", ["sys.exit(0)", "raise KeyboardInterrupt", "return events['page'].no_such()"])
def test_a_function_that_fails_over_files(sessionize, pipeline, tmp_path, body):
    pipeline(FILES, body)
    done = sessionize("run", "my.toml", "--once", code=1)
    assert "the boundary function at_logout failed" in done.err
    assert f"{tmp_path}/rules_here.py, line 4" in done.err
    assert not (tmp_path / "out.ndjson").exists()


def test_a_function_that_fails_in_a_stream_and_is_mended(sessionize, pipeline):
    pipeline(STREAM, "sys.exit(0)")
    done = sessionize("run", "my.toml", "--once", code=1)
    assert "the boundary function at_logout failed" in done.err
    assert "SystemExit: 0" in done.err
    pipeline(STREAM, "return pc.equal(events['page'], 'logout')")
    assert sessionize("run", "my.toml", "--once", "--json").json["sessions"] == 2


def test_ctrl_c_ends_a_function_that_hangs(pipeline, tmp_path):
    """The first one asks the run to come to its end; the second one is heard wherever the function is."""
    pipeline(STREAM, "open('asked', 'w').close()\n    while True:\n        time.sleep(0.01)")
    command = [Path(sys.executable).with_name("sessionize"), "run", "my.toml"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (tmp_path / "asked").exists():
            pass
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while process.poll() is None and b"stream_stopping" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"boundary" not in err
