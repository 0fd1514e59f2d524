import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from sessionize.connectors.iceberg import IcebergSink, load_table, open_catalog, user_sessions

COMMITS = 3

# Opens a home that nobody made before, then commits as fast as it can once it is told to.
WRITER = """
import sys
from pathlib import Path
import pyarrow as pa
from sessionize.connectors.iceberg import IcebergSink, open_catalog, user_sessions
home, name, column = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
sink = IcebergSink(open_catalog(home), user_sessions(), table="user_sessions")
for i in range(int(sys.argv[4])):
    sink.write(pa.table({"user": [f"{name}-{i}"], "session_start_time_ms": [i], column: [name]}))
    sink.commit()
"""


def run_together(home: Path, *arguments: tuple[str, str]) -> None:
    command = [sys.executable, "-W", "error", "-c", WRITER, str(home)]
    writers = [
        subprocess.Popen([*command, *pair, str(COMMITS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for pair in arguments
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0


def test_commits_of_two_processes_all_survive(tmp_path: Path) -> None:
    run_together(tmp_path, ("a", "start_reason"), ("b", "start_reason"))

    table = load_table(open_catalog(tmp_path), "sessions", "user_sessions")
    users = table.scan().to_arrow()["user"].to_pylist()
    assert sorted(users) == sorted(f"{name}-{i}" for name in "ab" for i in range(COMMITS))
    assert len(table.snapshots()) == 2 * COMMITS


def test_two_processes_that_bring_different_new_columns(tmp_path: Path) -> None:
    run_together(tmp_path, ("a", "from_a"), ("b", "from_b"))

    rows = load_table(open_catalog(tmp_path), "sessions", "user_sessions").scan().to_arrow().to_pylist()
    assert sorted((row["user"][0], row["from_a"], row["from_b"]) for row in rows) == sorted(
        [("a", "a", None)] * COMMITS + [("b", None, "b")] * COMMITS
    )


def test_a_writer_that_comes_second_keeps_the_first_one_s_rows(tmp_path: Path) -> None:
    sinks = [IcebergSink(open_catalog(tmp_path), user_sessions(), table="user_sessions") for _ in range(3)]
    for i, sink in enumerate(sinks):
        sink.write(pa.table({"user": [f"user-{i}"], "session_start_time_ms": [0]}))
    for sink in reversed(sinks):
        sink.commit()

    table = load_table(open_catalog(tmp_path), "sessions", "user_sessions")
    assert sorted(table.scan().to_arrow()["user"].to_pylist()) == ["user-0", "user-1", "user-2"]


def test_an_overwrite_replaces_also_what_came_while_it_was_written(tmp_path: Path) -> None:
    catalog = open_catalog(tmp_path)
    replacing = IcebergSink(catalog, user_sessions(), table="user_sessions", overwrite=True)
    replacing.write(pa.table({"user": ["new"], "session_start_time_ms": [0]}))
    appending = IcebergSink(open_catalog(tmp_path), user_sessions(), table="user_sessions")
    appending.write(pa.table({"user": ["old"], "session_start_time_ms": [0]}))
    appending.commit()
    replacing.commit()

    users = load_table(catalog, "sessions", "user_sessions").scan().to_arrow()["user"].to_pylist()
    assert users == ["new"]
