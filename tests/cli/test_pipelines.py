"""`run`, `init`, `query`, `explain`, `produce`, `pruning` and `demo` as a user types them."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COUNTS = (
    "SELECT (SELECT count(*) FROM user_sessions) AS sessions, (SELECT count(*) FROM events) AS events,"
    " (SELECT count(*) FROM late_events) AS late, (SELECT count(*) FROM rejected_events) AS rejected"
)
SMALL = ("--set", "input.generator.events=3000", "--set", "input.generator.users=40")


def clickstream(user, at_minutes, page="home", **more):
    return {
        "uuid": user,
        "event_timestamp": str(1_704_082_500_000 + round(at_minutes * 60_000)),
        "page_name": page,
        "event_id": f"{user}-{at_minutes}-{page}",
        "event_details": {"event_type": "user-action"},
        **more,
    }


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_preset_runs_as_it_is(sessionize):
    dense = ("--set", "input.generator.duration=2h")  # few events of a day are confirmed late, and nobody is late then
    done = sessionize("run", "user_sessionization_pipeline", "--once", "--json", *SMALL, *dense).json
    parts = ("settled", "pending", "late", "duplicate", "excluded", "rejected")
    assert done["consumed"] == sum(done[name] for name in parts)
    assert done["late"] > 0
    assert done["duplicate"] > 0
    assert done["rejected"] > 0
    found = sessionize("query", COUNTS, "--json").rows[0]
    assert found == {
        "sessions": done["sessions"],
        "events": done["settled"] + done["duplicate"],
        "late": done["late"],
        "rejected": done["rejected"],
    }


def test_the_same_rows_as_batch_and_again(sessionize, tmp_path):
    """From one input: run, batch and a second run give the same sessions, row for row."""
    rows = [clickstream(f"u{i % 7}", i * 3.7, page=f"p{i % 3}") for i in range(200)]
    write(tmp_path / "in.ndjson", rows)
    sessionize("run", "--input", "in.ndjson", "--once", "--home", "one")
    sessionize("run", "--input", "in.ndjson", "--once", "--home", "two", "--set", "rules.lateness=1h")
    sessionize(
        "batch", "in.ndjson", "--dialect", "clickstream", "-o", "iceberg:sessions.user_sessions", "--home", "three"
    )
    sql = "SELECT * FROM user_sessions ORDER BY session_id"
    one, two, three = (sessionize("query", sql, "--json", "--home", home).rows for home in ("one", "two", "three"))
    assert len(one) > 20
    assert one == two == three


def test_options_and_units(sessionize):
    done = sessionize(
        "run", "user_sessionization_pipeline", "--inactivity-timeout", "45", "--max-session-duration", "4",
        "--iceberg-database", "analytics", "--iceberg-table", "visits", "--lateness", "5m", "--dry-run", "--json",
    ).json  # fmt: skip
    assert done["rules.gap"]["value"] == '"45m"'
    assert done["rules.max_duration"]["value"] == '"4h"'
    assert done["output.database"] == {"value": '"analytics"', "from": "option"}
    done = sessionize("run", "--max-session-duration", "120", "--dry-run")
    assert "did you mean 120m" in done.err


def test_a_file_output_without_rejects_leaves_one_file(sessionize, tmp_path):
    (tmp_path / "in.ndjson").write_text('{"user_id": "u", "timestamp": 1}\nbroken\n')
    sessionize("run", "batch_file_processor", "--input", "in.ndjson", "--set", "output.path=out/s.csv",
               "--set", "output.kind=csv", "--set", "input.dialect=clicks",
               "--set", "output.rejected=false")  # fmt: skip
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["s.csv"]


def test_test_mode_leaves_nothing_behind(sessionize, tmp_path):
    done = sessionize("run", "user_sessionization_pipeline", "--test-mode")
    assert "session_id" in done.out
    assert "records read" in done.err
    assert list(tmp_path.iterdir()) == []


def test_init_copy_edit_run(sessionize, tmp_path):
    text = sessionize("init", "user_sessionization_pipeline").out
    (tmp_path / "my.toml").write_text(
        text.replace('gap = "30m"', 'gap = "5m"').replace("events = 200_000", "events = 500")
    )
    done = sessionize("run", "my.toml", "--once", "--json").json
    assert done["sessions"] > 0
    plan = sessionize("run", "my.toml", "--dry-run", "--json").json
    assert plan["rules.gap"]["value"] == '"5m"'
    assert "my.toml" in plan["rules.gap"]["from"]


def test_a_boundary_function_beside_the_pipeline(sessionize, tmp_path):
    (tmp_path / "rules.py").write_text(
        "import pyarrow.compute as pc\ndef at_logout(events):\n    return pc.equal(events['page'], 'logout')\n"
    )
    (tmp_path / "my.toml").write_text(
        '[input]\nkind = "files"\npaths = ["in.ndjson"]\ndialect = "clickstream"\n'
        '[rules]\nboundary = "rules:at_logout"\n[output]\nkind = "ndjson"\npath = "out.ndjson"\n'
    )
    write(tmp_path / "in.ndjson", [clickstream("a", 0), clickstream("a", 1, "logout"), clickstream("a", 2)])
    sessionize("run", "my.toml", "--once")
    made = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()]
    assert [(s["event_count"], s["start_reason"]) for s in made] == [(1, "inactivity"), (2, "rule:at_logout")]


def test_explain_says_which_rule(sessionize, tmp_path):
    write(tmp_path / "in.ndjson", [clickstream("ann", at) for at in (0, 20, 40, 60, 80, 100, 119, 121, 160)])
    sessionize("run", "--input", "in.ndjson", "--once")
    done = sessionize("explain", "ann")
    assert "max_duration inactivity" in done.out
    done = sessionize("explain", "ann", "--events")
    assert "no earlier event" in done.out
    assert "inactivity: silence 39m > gap 30m" in done.out
    assert "max_duration: the chain reaches a multiple of 2h" in done.out
    told = sessionize("explain", "ann", "--input", "in.ndjson", "--dialect", "clickstream", "--json").json
    assert [s["end_reason"] for s in told["sessions"]] == ["max_duration", "inactivity", "end_of_input"]
    assert len(told["events"]) == 9
    assert "nobody" in sessionize("explain", "nobody", code=1).err


def test_explain_by_the_rules_of_a_pipeline(sessionize, tmp_path):
    write(tmp_path / "in.ndjson", [clickstream("ann", at) for at in (0, 20, 40)])
    text = sessionize("init", "user_sessionization_pipeline").out
    (tmp_path / "my.toml").write_text(text.replace('gap = "30m"', 'gap = "10m"'))
    made = sessionize("run", "my.toml", "--input", "in.ndjson", "--once", "--json").json
    for named in ((), ("--pipeline", "my.toml"), ("--pipeline", "user_sessionization_pipeline")):
        told = sessionize("explain", "ann", *named, "--json").json
        assert len(told["sessions"]) == made["sessions"] == 3


def test_a_new_field_becomes_a_column(sessionize, tmp_path):
    write(tmp_path / "a.ndjson", [clickstream("a", 0)])
    write(tmp_path / "b.ndjson", [clickstream("b", 0, campaign="spring")])
    sessionize("run", "--input", "a.ndjson", "--once")
    files = set((tmp_path / "sessionize-data").rglob("*.parquet"))
    sessionize("run", "--input", "b.ndjson", "--once")
    assert files <= set((tmp_path / "sessionize-data").rglob("*.parquet"))
    rows = sessionize("query", "SELECT uuid, campaign FROM events ORDER BY uuid", "--json").rows
    assert rows == [{"uuid": "a", "campaign": None}, {"uuid": "b", "campaign": "spring"}]


def test_pruning_is_shown(sessionize):
    sessionize("run", "--once", *SMALL)
    report = sessionize("pruning", "--json").json
    filters = report["filters"]
    assert all(row["files_planned"] <= row["files_there"] for row in filters)
    assert filters[-1]["files_planned"] < filters[-1]["files_there"]
    assert "files to read" in sessionize("pruning").out


def test_query_output_for_people_and_programs(sessionize):
    sessionize("run", "--once", *SMALL)
    assert "event_count" in sessionize("query", "SELECT event_count FROM user_sessions LIMIT 2").out
    rows = sessionize("query", "SELECT events_by_type, pages_visited FROM user_sessions LIMIT 2", "--json").rows
    assert isinstance(rows[0]["events_by_type"], dict)
    assert "user_sessions" in sessionize("query", "SELECT * FROM user_session", code=2).err
    assert sessionize("query", "DROP TABLE user_sessions", code=2).err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "user_sessionisation_pipeline"], 2, "user_sessionization_pipeline"),
        (["run", "missing.toml"], 2, "missing.toml"),
        (["run", "--set", "rules.gapp=30m"], 2, "rules.gap"),
        (["run", "--set", "nonsense"], 2, "KEY=VALUE"),
        (["run", "--inactivity-timeout", "soon"], 2, "soon"),
        (["run", "--lateness", "10"], 2, "lateness"),
        (["run", "batch_file_processor"], 2, "--input"),
        (["run", "--input", "missing.ndjson", "--once"], 1, "missing.ndjson"),
        (["query", "SELECT 1", "--home", "nowhere"], 2, "nowhere"),
        (["explain", "ann", "--home", "nowhere"], 2, "nowhere"),
        (["init", "nothing"], 2, "nothing"),
        (["produce", "--profile", "clickstrem", "--events", "1"], 2, "clickstream"),
        (["produce", "--events", "0"], 2, "events"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_wrong_use_is_told(sessionize, arguments, code, says):
    assert says in sessionize(*arguments, code=code).err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--set", "output.postgres.password={}"],
        ["run", "--set", "output.postgres.dsn=host=127.0.0.1 password={}"],
        ["run", "--set", "output.postgres.dsn=host=127.0.0.1", "x", "password={}"],  # the shell has split it
        ["run", "--set", "output.postgres.password", "{}"],
        ["run", "--set", "output.postgres.password {}"],
        ["run", "--set", "output.redis.url=redis://me:{}@127.0.0.1:1/0"],
        ["run", "--set", 'input.kafka.settings=["sasl.password={}"]'],
        ["run", "--set", "input.kafka.settings=sasl.password={}"],
        ["run", "--kafka-servers", "me:{}@127.0.0.1:1", "--topic", "t"],
        ["run", "--set", "output.kafka.servers=me:{}@127.0.0.1:1"],
        ["run", "postgresql://me:{}@127.0.0.1/db"],
        ["run", "kafka_stream", "output.postgres.password={}"],
        ["run", "--password={}"],
        ["run", "--settt", "output.postgres.password={}"],
        ["reconcile", "kafka_stream", "output.postgres.password={}"],
        ["rejected", "retry", "kafka_stream", "password={}"],
        ["produce", "--kafka-servers", "me:{}@127.0.0.1:1", "--topic", "t"],
        ["produce", "--set", "sasl.password={}"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_told_without_secrets(sessionize, arguments):
    done = sessionize(*(word.format("hunter2") for word in arguments), code=2)
    assert done.err
    assert "hunter2" not in done.err + done.out


def test_produce(sessionize, tmp_path):
    sample = sessionize("produce", "--sample", "--profile", "user-events").rows
    assert {"userId", "eventType", "timestamp"} <= set(sample[0])
    once = sessionize("produce", "--events", "500", "--seed", "3")
    again = sessionize("produce", "--events", "500", "--seed", "3")
    assert once.out == again.out
    assert len(once.rows) == 500
    sessionize("produce", "--events", "500", "--seed", "3", "-o", "made.ndjson.gz", "--quiet")
    done = sessionize("batch", "made.ndjson.gz", "-o", "o.csv", "--json").json
    assert (done["consumed"], done["rejected"]) == (500, 0)


@pytest.mark.parametrize("profile", ["clickstream", "user-events", "user_activity", "clicks", "ecommerce"])
def test_each_profile_is_its_dialect(sessionize, profile):
    made = sessionize("produce", "--profile", profile, "--events", "300", "--quiet")
    done = sessionize("batch", "-", "--dialect", profile, "-o", "o.parquet", "--json", stdin=made.out.encode()).json
    assert (done["consumed"], done["rejected"]) == (300, 0)
    assert done["sessions"] > 0


def test_produce_in_real_time_tells_late_ones_and_stops_when_told(tmp_path):
    command = [Path(sys.executable).with_name("sessionize"), "produce", "--rate", "500", "--num-users", "50",
               "--late-fraction", "0.3", "--duration", "60"]  # fmt: skip
    with (
        open(tmp_path / "out.ndjson", "wb") as out,
        subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=subprocess.PIPE) as process,
    ):
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"LATE")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    records = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()]
    assert records
    assert all("uuid" in record for record in records)
    assert b"records of" in err


def test_ctrl_c_finishes_what_was_read(tmp_path):
    """The first Ctrl-C ends the input, not the work: sessions so far are committed and the books balance."""
    binary = Path(sys.executable).with_name("sessionize")
    command = [binary, "run", "--once", "--json", "--set", "input.generator.events=3000000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        warehouse = tmp_path / "sessionize-data"
        while process.poll() is None and not any(warehouse.rglob("*.parquet")):
            pass  # until the first rows are on the disk, so that there is work to finish
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    accounting = json.loads(out)
    assert 0 < accounting["consumed"] < 3_000_000
    assert accounting["cut_short"] is True
    assert b"stopping" in err


def test_the_demo(sessionize):
    done = sessionize("demo", "--events", "20000")
    assert "every record is accounted for" in done.err
    assert "session_id" in done.out
    assert re.search(r"    began  (inactivity|max_duration): .*\n +(\+\S+ )?2026-", done.out)
    assert re.search(
        r"    ended  (inactivity: silence \S+ > gap 30m|max_duration: the chain reaches a multiple of 2h)", done.out
    )


def test_an_interrupted_demo_says_so(tmp_path):
    command = [Path(sys.executable).with_name("sessionize"), "demo", "--events", "5000000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        made = tmp_path / "sessionize-demo" / "clickstream.ndjson"
        while process.poll() is None and not any(made.parent.glob("*clickstream*")):
            pass  # until it is being made
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err.endswith(b"interrupted\n")
    assert b"does not add up" not in err


def test_version_and_help(sessionize):
    assert sessionize("--version").out.startswith("sessionize ")
    for command in ("run", "batch", "label", "produce", "query", "explain", "pruning", "init", "demo"):
        assert command in sessionize("--help").out
        assert sessionize(command, "--help").out


def test_homes_of_several_pipelines_are_kept_apart_and_listed(sessionize, tmp_path):
    write(tmp_path / "in.ndjson", [clickstream("ann", 0)])
    sessionize("run", "batch_file_processor", "--input", "in.ndjson")
    assert sessionize("query", "SELECT uuid FROM user_sessions", "--json").rows == [{"uuid": "ann"}]
    sessionize("batch", "in.ndjson", "-o", "iceberg:mine.s")
    told = sessionize("query", "FROM user_sessions", code=2).err
    assert "--home sessionize-data/batch_file_processor or --home sessionize-data/mine" in told
    assert sessionize("query", "SELECT uuid FROM s", "--home", "sessionize-data/mine", "--json").rows == [
        {"uuid": "ann"}
    ]
    named = sessionize("query", "SELECT uuid FROM user_sessions", "--pipeline", "batch_file_processor", "--json")
    assert named.rows == [{"uuid": "ann"}]


def test_a_table_of_batch_is_found_at_once(sessionize, tmp_path):
    write(tmp_path / "in.ndjson", [clickstream("ann", 0)])
    done = sessionize("batch", "in.ndjson", "-o", "iceberg:mine.s", "--json").json
    assert done["output"] == "mine.s in sessionize-data/mine"
    for name in ("s", "mine.s"):
        assert sessionize("query", f"SELECT uuid FROM {name}", "--json").rows == [{"uuid": "ann"}]
    assert "tables: loads, s" in sessionize("query", "FROM user_sessions", code=2).err
    assert [table["table"] for table in sessionize("maintain", "--dry-run", "--json").json["tables"]] == ["loads", "s"]


def test_reconcile_finds_home_and_pipeline_by_the_tables(sessionize, tmp_path):
    """The tables say which preset made them, and by which rules."""
    write(tmp_path / "in.ndjson", [clickstream("ann", 0), clickstream("ann", 20)])
    sessionize("run", "batch_file_processor", "--input", "in.ndjson", "--set", "rules.gap=10m")
    done = sessionize("reconcile", "--json")
    assert done.json["added"] == 0
    assert "rules.gap: 10m there, 30m here" in done.err
    assert sessionize("query", "SELECT count(*) AS n FROM user_sessions", "--json").rows == [{"n": 2}]


def test_files_that_are_in_already_are_refused_skipped_or_loaded_again(sessionize, tmp_path):
    write(tmp_path / "a.ndjson", [clickstream("ann", 0)])
    write(tmp_path / "b.ndjson", [clickstream("bob", 0)])
    for command in (["run", "batch_file_processor", "--input"], ["batch", "-o", "iceberg:mine.s"]):
        sessionize(*command, "a.ndjson")
        told = sessionize(*command, "a.ndjson", code=1).err
        assert "files are in the tables already" in told
        assert "1 of 1: a.ndjson (loaded " in told
        assert "--again loads all of them once more" in told
        both = ["a.ndjson", "--input", "b.ndjson"] if command[0] == "run" else ["a.ndjson", "b.ndjson"]
        assert "--new-only loads the other 1" in sessionize(*command, *both, code=1).err
        done = sessionize(*command, *both, "--new-only", "--json")
        assert done.json["consumed"] == 1
        assert "1 file is in the tables already and skipped: a.ndjson (loaded " in done.err
        assert sessionize(*command, *both, "--new-only", "--json").json["consumed"] == 0
        assert sessionize(*command, *both, "--again", "--json").json["consumed"] == 2
        assert "exclude each other" in sessionize(*command, *both, "--again", "--new-only", code=2).err
    rows = sessionize("query", "FROM loads", "--home", "sessionize-data/mine", "--json").rows
    assert len(rows) == 4
    assert all(row["is_in"] for row in rows)
