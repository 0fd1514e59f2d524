"""One thing, two names: both in every command that has either, and a bare number means the same in both."""

import json

import pytest

PAIRS = [("--gap", "--inactivity-timeout"), ("--max-duration", "--max-session-duration")]
COMMANDS = ["batch", "label", "run", "explain"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_has_both_names_and_the_unit_of_a_number_alone(sessionize, command):
    text = sessionize(command, "--help").out
    words = " ".join(text.replace("│", " ").split())
    for pair in PAIRS:
        assert all(name in words for name in pair)
    assert "without a unit: minutes" in words
    assert "without a unit: hours" in words


@pytest.fixture
def events(tmp_path):
    rows = [{"uuid": "a", "event_timestamp": minute * 60_000} for minute in (0, 20, 40, 60, 80, 100, 120, 140, 300)]
    (tmp_path / "in.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("gap", PAIRS[0])
@pytest.mark.parametrize("limit", PAIRS[1])
@pytest.mark.parametrize("command", ["batch", "run"])
def test_a_number_alone_is_minutes_and_hours_and_is_echoed_with_its_unit(sessionize, events, command, gap, limit):
    where = {
        "batch": ("batch", "in.ndjson", "-o", "out.csv"),
        "run": ("run", "--input", "in.ndjson", "--set", "output.kind=csv", "--set", "output.path=out.csv"),
    }[command]
    done = sessionize(*where, gap, "30", limit, "1", "--json").json
    assert done["sessions"] == 4  # 0-59, 60-119, 120-140 and 300 minutes
    assert done["rules"].startswith("gap 30m (exclusive), at most 1h (anchored)")
    assert "gap 15m (exclusive), at most 1d6h (anchored)" in sessionize(*where, gap, "15", limit, "30").err


@pytest.mark.parametrize("limit", PAIRS[1])
@pytest.mark.parametrize("command", ["batch", "label", "run"])
def test_a_number_above_a_day_is_doubted(sessionize, events, command, limit):
    where = (command, "--input", "in.ndjson") if command == "run" else (command, "in.ndjson", "-o", "out.csv")
    warned = sessionize(*where, limit, "120", "--dry-run").err
    assert warned == "warning: --max-duration 120 is 120 hours; did you mean 120m?\n"
    for sure in ("120h", "24", "none", "90m"):
        assert sessionize(*where, limit, sure, "--dry-run").err == ""


@pytest.mark.parametrize("name", PAIRS[0])
def test_the_last_one_given_counts(sessionize, events, name):
    other = next(each for each in PAIRS[0] if each != name)
    done = sessionize("batch", "in.ndjson", "-o", "out.csv", other, "5", name, "30m", "--json")
    assert done.json["rules"].startswith("gap 30m")
