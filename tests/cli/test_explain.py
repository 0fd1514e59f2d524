"""`explain` as a command: sessions first, a line each; events on demand, and no boundary is ever left out."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.runs import plan
from sessionize.app.tables.reconcile import reconcile_tables
from sessionize.app.tables.rules import by_the_tables
from sessionize.cli.declared import for_typer
from sessionize.cli.explain import explain
from sessionize.connectors.iceberg import IcebergEpochSink, load_table, open_catalog
from sessionize.connectors.iceberg import reconcile_source as archive
from sessionize.errors import ConfigError, InputError
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import EpochId
from sessionize.session import columns as col
from sessionize.testing.epoch_outputs import output

commands = typer.Typer()
commands.command("explain")(for_typer(explain))
MINUTE = 60_000
NOON = 1_785_585_600_000  # 2026-08-01 12:00 UTC
PRESET = "user_sessionization_pipeline"


def told(*arguments: str | Path, code: int = 0) -> tuple[str, str]:
    """Output and warnings."""
    done = CliRunner().invoke(commands, [str(each) for each in arguments], env={"COLUMNS": "80"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return str(done.stdout), str(done.stderr)


def in_json(*arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(told(*arguments, "--json")[0])
    return found


def pipeline(home: Path, **settings: object) -> PipelineConfig:
    return load_pipeline(PRESET, overrides={"run.home": str(home), **settings})


Events = list[tuple[str, float]]  # user, minutes after noon


def rows(events: Events) -> pa.Table:
    """As canonical events."""
    return pa.table(
        {
            "user": pa.array([user for user, _ in events], pa.string()),
            "event_time_ms": pa.array([NOON + round(at * MINUTE) for _, at in events], pa.int64()),
            "event_id": [str(number) for number in range(len(events))],
            "event_type": pa.array(["view"] * len(events), pa.string()),
            "page": [f"/{number % 3}" for number in range(len(events))],
        }
    )


def stream(
    config: PipelineConfig, on_time: list[tuple[str, float]], late: list[tuple[str, float]] | None = None
) -> None:
    """The tables as an engine leaves them after a drain."""
    from sessionize.app.tables.rules import owner_of

    definition = config.definition(config.dialect().columns, config.dialect().user_name)
    core = Sessionizer.of(definition)
    core.push(rows(on_time))
    final = core.flush()
    assert core.latest_ms is not None
    sink = IcebergEpochSink(open_catalog(config.home), user_name=definition.user_name, owner=owner_of(config))
    written = output(
        core.latest_ms + 2 * definition.policy.gap_ms,
        user_sessions=final,
        events=rows(on_time),
        late_events=rows(late or []),
        rejected_events=col.REJECTED_SCHEMA.empty_table(),
    )
    sink.write_epoch(EpochId("w", 1, "plan"), written)
    sink.close()


ANN = [("ann", at) for at in (0, 20, 40, 60, 80, 100, 119, 121, 160)]


def test_sessions_come_first_a_line_each(tmp_path: Path) -> None:
    stream(pipeline(tmp_path), [*ANN, ("bob", 400)])
    out, err = told("ann", "--home", tmp_path)
    lines = out.splitlines()
    assert lines[:3] == [
        "ann: 9 events, 3 sessions",
        "gap 30m (exclusive), at most 2h (anchored), ids start; times are UTC",
        "",
    ]
    assert [line.split() for line in lines[3:]] == [
        ["#", "start", "end", "lasts", "events", "pages", "began", "ended"],
        ["1", "2026-08-01", "12:00:00", "13:59:00", "1h59m", "7", "3", "inactivity", "max_duration"],
        ["2", "2026-08-01", "14:01:00", "14:01:00", "0s", "1", "1", "max_duration", "inactivity"],
        ["3", "2026-08-01", "14:40:00", "14:40:00", "0s", "1", "1", "inactivity", "inactivity"],
    ]
    assert all(len(line) <= 80 for line in lines)
    assert err == "to show events: --events for all sessions, --session 1 for the first\n"


def test_events_on_demand_with_the_rules_that_decided(tmp_path: Path) -> None:
    stream(pipeline(tmp_path), [*ANN, ("bob", 400)])
    out, err = told("ann", "--home", tmp_path, "--events")
    assert err == ""
    assert "began  inactivity: no earlier event of this user" in out
    assert "ended  max_duration: the chain reaches a multiple of 2h" in out
    assert "ended  inactivity: silence 39m > gap 30m\n" in out
    assert "ended  inactivity: silence 4h > gap 30m, no later event of this user" in out
    assert out.count("2026-08-01 1") == 9 + 3
    assert "+39m 2026-08-01 14:40:00.000Z view" in out
    one, _ = told("ann", "--home", tmp_path, "--session", "2")
    assert one.count("    began  ") == 1
    by_id, _ = told("ann", "--home", tmp_path, "--session", f"ann_{NOON + 121 * MINUTE}")
    assert by_id == one
    for wrong in ("4", "0", "nothing"):
        with pytest.raises(ConfigError, match=r"no such session[^$]*a number from 1 to 3"):
            told("ann", "--home", tmp_path, "--session", wrong)


def test_a_long_session_shows_both_its_ends_and_the_longest_silence(tmp_path: Path) -> None:
    """1,564 events of which sixty were shown, and no boundary: that must not be."""
    busy = [("bot", at * 0.05) for at in range(1_000)] + [("bot", 60 + at * 0.05) for at in range(564)]
    stream(pipeline(tmp_path), busy)
    out, _ = told("bot", "--home", tmp_path, "--events")
    assert "bot: 1,564 events, 1 session\n" in out
    assert "1,564     3 inactivity end_of_input" in out
    assert (
        out.index("began  ")
        < out.index("1,504 more events, the longest silence 10m3s; --limit N shows")
        < out.index("ended  ")
    )
    assert out.count("Z view") == 60
    all_of_them, _ = told("bot", "--home", tmp_path, "--events", "--limit", "2000")
    assert all_of_them.count("Z view") == 1_564
    assert "more events" not in all_of_them
    found = in_json("bot", "--home", tmp_path)
    assert (len(found["events"]), len(found["sessions"])) == (1_564, 1)


PHONE = [("phone", at) for at in (-600, -590, -580, -300, -290)]


def test_late_events_are_explained_before_and_after_they_are_reconciled(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    stream(config, [("n0", 0), ("n0", 10)], late=[*PHONE, ("n0", 5)])
    out, _ = told("phone", "--home", tmp_path)
    assert "phone: 5 events (5 of them late), 2 sessions" in out
    assert out.count("not in the table") == 2
    before = in_json("n0", "--home", tmp_path)
    (one,) = before["sessions"]
    assert (one["event_count"], one["stored"], one["in_table"]["event_count"]) == (3, "otherwise", 2)
    assert "in the table: 2 events until 2026-08-01 12:10:00" in told("n0", "--home", tmp_path)[0]
    reconcile_tables(tmp_path, config)
    out, _ = told("phone", "--home", tmp_path, "--events")
    assert "not in the table" not in out
    assert out.count(" late\n") == 5
    found = in_json("phone", "--home", tmp_path)
    assert [(s["event_count"], s["stored"]) for s in found["sessions"]] == [(3, "yes"), (2, "yes")]
    assert [event["late"] for event in found["events"]] == [True] * 5
    assert "revision 1" in told("n0", "--home", tmp_path)[0]


def test_what_only_the_table_has_is_named(tmp_path: Path) -> None:
    stream(pipeline(tmp_path), ANN)
    out, err = told("ann", "--home", tmp_path, "--gap", "5m")
    assert err.startswith(
        "warning: the sessions of the table were made with other rules: rules.gap: 30m there, 5m here\n"
    )
    assert "gap 5m (exclusive)" in out
    assert f"only in the table: ann_{NOON + 160 * MINUTE}" not in out
    found = in_json("ann", "--home", tmp_path, "--gap", "3h", "--max-duration", "none")
    assert [row["session_id"] for row in found["only_in_table"]] == [f"ann_{NOON + at * MINUTE}" for at in (121, 160)]
    assert found["sessions"][0]["stored"] == "otherwise"


def test_the_rules_are_those_of_the_tables(tmp_path: Path) -> None:
    stream(pipeline(tmp_path, **{"rules.gap": "15m", "rules.end_events": ["logout"]}), ANN)
    out, err = told("ann", "--home", tmp_path)
    assert "gap 15m (exclusive)" in out
    assert "warning" not in err
    assert len(in_json("ann", "--home", tmp_path)["sessions"]) == 8
    out, err = told("ann", "--home", tmp_path, "--pipeline", PRESET)
    assert "gap 15m (exclusive)" in out
    assert (
        "the pipeline's rules differ from those of the tables; using those of the tables: rules.gap: 15m there, 30m"
        in err
    )
    with pytest.raises(ConfigError, match="not made by this pipeline"):
        told("ann", "--home", tmp_path, "--pipeline", "kafka_stream")


def test_tables_of_before_say_nothing_of_their_rules(tmp_path: Path) -> None:
    stream(pipeline(tmp_path), ANN)
    for name in ("user_sessions", "events"):
        table = load_table(open_catalog(tmp_path), "sessions", name)
        ours = {"sessionize.pipeline", "sessionize.sessions", "sessionize.spec"}
        with table.transaction() as change:
            change.remove_properties(*(ours & table.properties.keys()))
    out, err = told("ann", "--home", tmp_path)
    assert "ann: 9 events, 3 sessions" in out
    assert "do not record their rules" in err
    assert "using gap 30m" in err


def test_the_newest_time_is_taken_from_the_bounds_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream(pipeline(tmp_path), [*ANN, ("bob", 165)])
    monkeypatch.setattr(archive, "_read_largest", pytest.fail)
    assert in_json("ann", "--home", tmp_path)["sessions"][-1]["end_reason"] == "end_of_input"
    assert "the last event of all users came 5m later" in told("ann", "--home", tmp_path, "--events")[0]


def test_what_cannot_be_explained_is_said(tmp_path: Path) -> None:
    stream(pipeline(tmp_path), ANN)
    with pytest.raises(InputError, match=r"sessions\.events and \.late_events"):
        told("nobody", "--home", tmp_path)
    with pytest.raises(ConfigError, match=r"no events to explain[^$]*--input FILE"):
        told("ann", "--home", tmp_path, "--iceberg-database", "other")


def test_a_boundary_function_is_looked_for_beside_the_pipeline(tmp_path: Path) -> None:
    (tmp_path / "own_rules.py").write_text(
        "import pyarrow.compute as pc\ndef at_two(events):\n    return pc.equal(events['page'], '/2')\n"
    )
    text = f'name = "mine"\n[rules]\nboundary = "own_rules:at_two"\n[run]\nhome = "{tmp_path}/home"\n'
    (tmp_path / "mine.toml").write_text(text)
    config = load_pipeline(str(tmp_path / "mine.toml"), overrides={"input.dialect": "clickstream"})
    stream(config, ANN)
    with pytest.raises(ConfigError, match="--pipeline FILE: its functions"):
        told("ann", "--home", tmp_path / "home")
    without = tmp_path / "without.toml"
    without.write_text(text.replace('boundary = "own_rules:at_two"', ""))
    sys.modules.pop("own_rules", None)
    for command in (told, in_json):
        with pytest.raises(ConfigError, match="that the pipeline does not name"):
            command("ann", "--pipeline", without)
    with pytest.raises(ConfigError, match="that the pipeline does not name"):
        by_the_tables(
            load_pipeline(str(without), overrides={"input.dialect": "clickstream"}), warn=lambda text: None
        ).event_rules()  # what reconcile and rejected retry go by
    assert "own_rules" not in sys.modules  # tables choose no code
    found = in_json("ann", "--pipeline", tmp_path / "mine.toml")
    assert [s["start_reason"] for s in found["sessions"]].count("rule:at_two") == 2
    assert {s["stored"] for s in found["sessions"]} == {"yes"}


def test_from_files(tmp_path: Path) -> None:
    lines = [{"uuid": user, "event_timestamp": NOON + at * MINUTE, "page_name": "/a"} for user, at in ANN]
    (tmp_path / "in.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out, _ = told("ann", "--input", tmp_path / "in.ndjson", "--gap", "45m", "--max-duration", "none")
    assert "ann: 9 events, 1 session\n" in out
    assert "not in the table" not in out
    assert in_json("ann", "--input", tmp_path / "in.ndjson")["sessions"][0]["stored"] is None


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_no_line_is_longer_than_the_terminal(tmp_path: Path, columns: int) -> None:
    stream(pipeline(tmp_path), [("n0", at) for at in (700, 710, 725)], late=[("n0", 705), ("n0", 735)])
    done = CliRunner().invoke(commands, ["n0", "--home", str(tmp_path)], env={"COLUMNS": str(columns)})
    lines = done.stdout.splitlines()[2:]
    assert max(map(len, lines)) <= columns
    words = " ".join(done.stdout.split())
    assert "in the table: 3 events until 2026-08-02 00:05:00" in words
    assert "max_duration" in words or "end_of_input" in words or "inactivity" in words


def test_what_is_read_by_a_program_has_a_line_for_each_session(tmp_path: Path) -> None:
    stream(pipeline(tmp_path), [("n0", at) for at in (700, 710, 725)], late=[("n0", 705), ("n0", 735)])
    done = CliRunner().invoke(commands, ["n0", "--home", str(tmp_path)], env={"COLUMNS": None})
    (line,) = done.stdout.splitlines()[4:]
    assert line.endswith("in the table: 3 events until 2026-08-02 00:05:00")


def test_events_that_count_in_no_session_are_counted_apart(tmp_path: Path) -> None:
    lines = [
        json.dumps({"u": "ann", "t": NOON + at * MINUTE, "id": str(at), "k": kind})
        for at, kind in ((0, "view"), (1, "view"), (1, "view"), (2, "ping"))
    ]
    (tmp_path / "in.ndjson").write_text("\n".join(lines))
    fields = ("--user", "u", "--time", "t", "--event-id", "id", "--event-type", "k", "--excluded-events", "ping")
    arguments = ("ann", "--input", tmp_path / "in.ndjson", *fields)
    out = told(*arguments)[0]
    assert out.startswith("ann: 4 events (1 of them duplicates, 1 of them excluded), 1 session\n")
    found = in_json(*arguments)
    assert found["counts"] == {"events": 4, "late": 0, "duplicate": 1, "excluded": 1}
    assert sum(each["event_count"] for each in found["sessions"]) == 2


def test_a_session_that_is_stored_more_than_once_is_named(tmp_path: Path) -> None:
    lines = [json.dumps({"uuid": "ann", "event_timestamp": NOON + at * MINUTE, "event_id": str(at)}) for at in (0, 9)]
    (tmp_path / "in.ndjson").write_text("\n".join(lines))
    files = {"input.kind": "files", "input.paths": [str(tmp_path / "in.ndjson")], "input.known_files": "again"}
    seen = []
    for _ in range(3):
        plan(pipeline(tmp_path / "home", **files), now_ms=NOON + 60 * MINUTE).run()
        seen.append((*told("ann", "--home", tmp_path / "home"), in_json("ann", "--home", tmp_path / "home")))
    (once, quiet, _), (twice, err, found), (thrice, _, _) = seen
    assert "stored" not in once + quiet
    assert "stored twice in the table" in twice
    assert "the same events were loaded again (see table `loads`)\n" in err
    assert "stored 3 times in the table" in thrice
    assert [(each["stored"], each["times_stored"]) for each in found["sessions"]] == [("yes", 2)]
    assert found["only_in_table"] == []
    alone = in_json("ann", "--home", tmp_path / "home", "--session-ids", "sequential")
    assert [row["times_stored"] for row in alone["only_in_table"]] == [3]
    assert (
        ", 2 events from 2026-08-01 12:00:00, stored 3 times\n"
        in told("ann", "--home", tmp_path / "home", "--session-ids", "sequential")[0]
    )
