"""`batch` and `label` as a user types them, right and wrong."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

EVENTS = [
    {"uuid": "ann", "event_timestamp": "1704082500000", "page_name": "home", "event_id": "1"},
    {"uuid": "ann", "event_timestamp": "1704082560000", "page_name": "search", "event_id": "2"},
    {"uuid": "ann", "event_timestamp": "1704082560000", "page_name": "search", "event_id": "2"},
    {"uuid": "bob", "event_timestamp": "1704082500000", "page_name": "home", "event_id": "3"},
    {"uuid": "ann", "event_timestamp": "1704086160001", "page_name": "home", "event_id": "4"},
]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def events(tmp_path):
    path = tmp_path / "events.ndjson"
    path.write_text(lines(EVENTS))
    return path


def test_sessions_of_a_dialect(sessionize, events, tmp_path):
    done = sessionize("batch", "events.ndjson", "-o", "out.parquet", "--dialect", "clickstream", "--json")
    assert done.json["consumed"] == 5
    assert done.json["duplicate"] == 1
    assert done.json["sessions"] == 3
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names[0] == "uuid"
    assert sorted(table["session_id"].to_pylist()) == ["ann_1704082500000", "ann_1704086160001", "bob_1704082500000"]


def test_people_see_the_books_on_stderr(sessionize, events):
    done = sessionize("batch", "events.ndjson", "-o", "out.csv")
    assert done.out == ""
    assert "records read" in done.err
    assert "duplicate" in done.err


def test_a_mapping_of_ones_own(sessionize, tmp_path):
    row = {"who": {"id": 7}, "at": "2024-01-01T04:15:00+01:00", "where": "x"}
    (tmp_path / "in.jsonl").write_text(lines([row]))
    sessionize("batch", "in.jsonl", "-o", "out.ndjson", "--user", "who.id", "--time", "at", "--page", "where")
    made = json.loads((tmp_path / "out.ndjson").read_text())
    assert made["id"] == "7"
    assert made["session_start_time_ms"] == 1_704_078_900_000
    assert made["pages_visited"] == ["x"]
    assert "events_by_type" not in made


def test_csv_and_gzip_and_folders_and_stdin(sessionize, tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    with open(folder / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows([["u", "t"], ["ann", "0"], ["ann", "1000"]])
    with gzip.open(folder / "b.csv.gz", "wt") as file:
        file.write("u,t\nann,2000\n")
    done = sessionize("batch", "logs", "-o", "out.csv", "--user", "u", "--time", "t", "--json")
    assert (done.json["consumed"], done.json["sessions"]) == (3, 1)
    stdin = lines([{"u": "ann", "t": 5}]).encode()
    done = sessionize("batch", "-", "-o", "out.csv", "--user", "u", "--time", "t", "--json", stdin=stdin)
    assert done.json["sessions"] == 1


def test_what_is_not_read_is_named_once(sessionize, events, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.ndjson").write_bytes((tmp_path / events).read_bytes())
    for name in ("a.log", "b.log"):
        (tmp_path / "in" / name).touch()
    (tmp_path / "in" / "empty.csv").touch()
    for command in ("batch", "label"):
        done = sessionize(command, "in", "-o", "out.ndjson")
        assert [line for line in done.err.splitlines() if line.startswith("warning")] == [
            "warning: 2 files are not read (unknown file name ending): in/a.log, in/b.log",
            "warning: 1 file is empty: in/empty.csv",
        ]


def test_rules_on_the_command_line(sessionize, tmp_path):
    rows = [{"u": "a", "t": i * 60_000, "k": k} for i, k in enumerate(["view", "login", "beat", "logout", "view"])]
    (tmp_path / "in.ndjson").write_text(lines(rows))
    done = sessionize(
        "batch", "in.ndjson", "-o", "out.ndjson", "--user", "u", "--time", "t", "--event-type", "k",
        "--start-events", "login", "--end-events", "logout", "--excluded-events", "beat", "--session-ids", "sequential",
        "--json",
    )  # fmt: skip
    assert done.json["excluded"] == 1
    made = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()]
    assert [(s["session_id"], s["end_reason"]) for s in made] == [
        ("a_session_1_0", "rule:start_events"),
        ("a_session_2_0", "rule:end_events"),
        ("a_session_3_0", "end_of_input"),
    ]


def test_bare_numbers_are_minutes_and_hours(sessionize, tmp_path):
    (tmp_path / "in.ndjson").write_text(lines([{"u": "a", "t": 0}, {"u": "a", "t": 60_001}]))
    mapping = ("--user", "u", "--time", "t", "--json")
    assert sessionize("batch", "in.ndjson", "-o", "o.csv", "--gap", "1", *mapping).json["sessions"] == 2
    assert sessionize("batch", "in.ndjson", "-o", "o.csv", "--gap", "2", *mapping).json["sessions"] == 1


@pytest.mark.parametrize("command", ["batch", "label", "explain"])
def test_the_help_says_what_a_bare_number_is(sessionize, command):
    help_text = " ".join(sessionize(command, "--help").out.replace("│", " ").split())
    assert "without a unit: minutes" in help_text
    assert "without a unit: hours" in help_text


def test_only_some_columns(sessionize, events, tmp_path):
    sessionize("batch", "events.ndjson", "-o", "o.parquet", "--session-columns", "user,event_count, pages_visited")
    assert pq.read_schema(tmp_path / "o.parquet").names == ["uuid", "event_count", "pages_visited"]


def test_rejects_keep_the_bytes(sessionize, tmp_path):
    (tmp_path / "in.ndjson").write_bytes(lines(EVENTS[:1]).encode() + b'{"uuid": \xff}\n' + lines(EVENTS[3:4]).encode())
    done = sessionize("batch", "in.ndjson", "-o", "o.csv", "--rejects", "bad.parquet", "--json")
    assert (done.json["consumed"], done.json["rejected"], done.json["settled"]) == (3, 1, 2)
    bad = pq.read_table(tmp_path / "bad.parquet").to_pylist()[0]
    assert bad["raw"] == b'{"uuid": \xff}'
    assert bad["line_number"] == 2
    assert bad["source"].endswith("in.ndjson")
    assert done.json["rejected_by_reason"] == {bad["reason"]: 1}


def test_the_year_2099_is_rejected_unless_wanted(sessionize, tmp_path):
    (tmp_path / "in.ndjson").write_text(lines([{"u": "a", "t": 4_070_908_800_000}, {"u": "b", "t": 0}]))
    mapping = ("--user", "u", "--time", "t", "--json")
    done = sessionize("batch", "in.ndjson", "-o", "o.csv", *mapping)
    assert done.json["rejected_by_reason"] == {"future_timestamp": 1}
    assert sessionize("batch", "in.ndjson", "-o", "o.csv", "--max-future", "none", *mapping).json["sessions"] == 2


def test_spilling_changes_nothing(sessionize, tmp_path):
    rows = [{"u": f"u{i % 37}", "t": i * 1000, "p": f"/{i % 5}"} for i in range(3000)]
    (tmp_path / "in.ndjson").write_text(lines(rows))
    options = ("--user", "u", "--time", "t", "--page", "p", "--json")
    here = sessionize("batch", "in.ndjson", "-o", "a.parquet", *options).json
    there = sessionize("batch", "in.ndjson", "-o", "b.parquet", "--memory", "1KB", *options).json
    assert (here["spilled"], there["spilled"]) == (0, 3000)
    order = [("session_id", "ascending")]
    a, b = (pq.read_table(tmp_path / name).sort_by(order).to_pylist() for name in ("a.parquet", "b.parquet"))
    assert a == b


def test_labels(sessionize, events, tmp_path):
    done = sessionize("label", "events.ndjson", "-o", "o.ndjson", "--session-ids", "running", "--json")
    made = [json.loads(line) for line in (tmp_path / "o.ndjson").read_text().splitlines()]
    assert [row["session_id"] for row in made] == ["ann-1", "ann-1", "ann-1", "bob-1", "ann-2"]
    assert [row["uuid"] for row in made] == [row["uuid"] for row in EVENTS]
    assert done.json["consumed"] == 5


def test_into_iceberg_and_queried(sessionize, events):
    sessionize("batch", "events.ndjson", "-o", "iceberg:web.visits")
    rows = sessionize("query", "SELECT count(*) AS n FROM visits", "--iceberg-database", "web", "--json").rows
    assert rows == [{"n": 3}]
    sessionize("batch", "events.ndjson", "-o", "iceberg:web.visits", "--overwrite")
    rows = sessionize("query", "SELECT count(*) AS n FROM visits", "--iceberg-database", "web", "--json").rows
    assert rows == [{"n": 3}]


def test_empty_input(sessionize, tmp_path):
    (tmp_path / "in.ndjson").write_text("")
    assert sessionize("batch", "in.ndjson", "-o", "o.parquet", "--json").json["sessions"] == 0
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 0


def test_a_failed_run_leaves_the_old_output(sessionize, tmp_path):
    pq.write_table(pa.table({"u": ["a"]}), tmp_path / "torn.parquet")
    whole = (tmp_path / "torn.parquet").read_bytes()
    (tmp_path / "torn.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "o.csv").write_text("before")
    done = sessionize("batch", "torn.parquet", "-o", "o.csv", "--user", "u", "--time", "t", code=1)
    assert "torn.parquet" in done.err
    assert (tmp_path / "o.csv").read_text() == "before"
    assert not [p for p in tmp_path.iterdir() if "partial" in p.name]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["events.ndjson"], 2, "--output"),
        (["events.ndjson", "-o", "o.xlsx"], 2, ".parquet"),
        (["nothing.ndjson", "-o", "o.csv"], 1, "nothing.ndjson"),
        (["events.ndjson", "-o", "o.csv", "--dialect", "clikstream"], 2, "clickstream"),
        (["events.ndjson", "-o", "o.csv", "--user", "u"], 2, "--time"),
        (["events.ndjson", "-o", "o.csv", "--dialect", "clicks", "--user", "u"], 1, "no field 'u'"),
        (["events.ndjson", "-o", "o.csv", "--gap", "soon"], 2, "soon"),
        (["events.ndjson", "-o", "o.csv", "--gap", "0"], 2, "longer than zero"),
        (["events.ndjson", "-o", "o.csv", "--gap-boundary", "open"], 2, "exclusive"),
        (["events.ndjson", "-o", "o.csv", "--max-duration", "none", "--max-duration-mode", "rolling"], 2, "no effect"),
        (["events.ndjson", "-o", "o.csv", "--session-columns", "sesion_id"], 2, "session_id"),
        (["events.ndjson", "-o", "o.csv", "--memory", "lots"], 2, "lots"),
        (["events.ndjson", "-o", "iceberg:sessions"], 2, "database"),
        (["events.ndjson", "-o", "o.csv", "--nonsense"], 2, "nonsense"),
        (["events.ndjson", "-o", "/proc/no/o.csv"], 1, "/proc/no"),
    ],
)
def test_wrong_use_is_told(sessionize, events, arguments, code, says):
    done = sessionize("batch", *arguments, code=code)
    assert says in done.err
    assert done.out == ""


def test_the_plan_can_be_seen_first(sessionize, events, tmp_path):
    done = sessionize("batch", "events.ndjson", "-o", "o.csv", "--gap", "45m", "--dry-run")
    assert "45m" in done.out
    assert not (tmp_path / "o.csv").exists()


def test_rows_on_stdout(sessionize, events):
    done = sessionize("batch", events, "-o", "-")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert len(rows) > 1
    assert all("session_id" in row for row in rows)
    assert "stdout" in done.err
    assert "stdout has room for one result" in sessionize("batch", events, "-o", "-", "--json", code=2).err
