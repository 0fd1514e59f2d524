"""Streams as they run without a terminal: stderr is lines of JSON; and an input that cannot be used is an error."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = Path(sys.executable).with_name("sessionize")
START_MS = 1_700_000_000_000
EVENTS = [json.dumps({"user_id": f"u{n % 5}", "timestamp": START_MS + 60_000 * n, "url": f"/{n}"}) for n in range(100)]


@pytest.fixture
def input_folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.ndjson").write_text("\n".join(EVENTS) + "\n")
    return tmp_path / "in"


def pipeline(folder: Path, dialect: str, kind: str = "directory") -> Path:
    path = folder / "p.toml"
    path.write_text(
        f'name = "p"\n[input]\nkind = "{kind}"\npaths = ["{folder / "in"}"]\ndialect = "{dialect}"\n'
        f'[stream]\nepoch = "200ms"\npoll = "20ms"\n[run]\nhome = "{folder / "home"}"\n'
    )
    return path


def lines_of(text: str) -> list[dict[str, Any]]:
    """Every line, which has to be JSON."""
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_is_json_from_the_first_epoch_to_the_totals(input_folder: Path, tmp_path: Path) -> None:
    command = [COMMAND, "run", pipeline(tmp_path, "clicks")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stderr is not None
            first = running.stderr.readline()
            while '"epoch_committed"' not in first:
                first += running.stderr.readline()
            running.send_signal(signal.SIGINT)
            out, rest = running.communicate(timeout=60)
        finally:
            running.kill()
    assert (running.returncode, out) == (0, "")
    lines = lines_of(first + rest)
    assert [line["event"] for line in lines if line["event"] != "epoch_committed"] == [
        "stream_started", "stream_stopping", "stream_stopped",
    ]  # fmt: skip
    assert "finishing this epoch" in next(line["then"] for line in lines if line["event"] == "stream_stopping")
    assert lines[-1]["accounting"]["consumed"] == 100
    assert lines[-1]["balanced"] is True
    assert str(tmp_path / "home") in lines[-1]["output"]


@pytest.mark.parametrize("kind", ["directory", "files"])
def test_nothing_usable_is_an_error_and_a_retry_brings_it_in(
    sessionize: Any, input_folder: Path, tmp_path: Path, kind: str
) -> None:
    wrong = pipeline(tmp_path, "user_activity", kind)
    done = sessionize("run", wrong, "--once", code=1)
    assert "error: none of the records could be used" in done.err
    assert "100 rejected: " in done.err
    assert "`sessionize rejected retry` brings them in" in done.err
    if kind == "directory":
        (told,) = [line for line in lines_of(done.err.partition("error:")[0]) if line["event"] == "all_rejected"]
        assert (told["level"], told["rejected_rows"], told["dialect"]) == ("error", 100, "user_activity")
        assert told["reason"] in done.err.partition("error:")[2]
        # all was committed: the next run has nothing to read, and nothing to complain about
        assert lines_of(sessionize("run", wrong, "--once").err)[-1]["accounting"]["rejected"] == 100
    mended = pipeline(tmp_path, "clicks", kind)
    sessionize("rejected", "retry", mended)
    sessionize("reconcile", mended)
    sql = "SELECT sum(event_count)::INT AS events FROM user_sessions"
    assert sessionize("query", sql, "--home", tmp_path / "home", "--json").rows == [{"events": 100}]


def test_a_bad_record_after_good_ones_is_no_error(sessionize: Any, input_folder: Path, tmp_path: Path) -> None:
    path = pipeline(tmp_path, "clicks")
    sessionize("run", path, "--once")
    (input_folder / "b.ndjson").write_text("broken\n")
    done = lines_of(sessionize("run", path, "--once").err)
    assert (done[-1]["event"], done[-1]["accounting"]["rejected"]) == ("stream_stopped", 1)
    assert "all_rejected" not in [line["event"] for line in done]
