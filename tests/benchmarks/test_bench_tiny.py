"""The benchmarks as a user starts them, with 100,000 events: all is measured and checked, or says why not."""

import importlib.util
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
DEFAULT_PEERS = ("chdb", "duckdb", "polars", "pandas")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the inputs are made once for all tests."""
    return tmp_path_factory.mktemp("bench")


def bench(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], dict[str, list[dict[str, Any]]]]:
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--tiny", "--folder", str(folder), "--json", str(result)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    return done, json.loads(result.read_text())["results"] if result.exists() else {}


def in_benchmarks(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    ("task", "tables"),
    [
        (("--task", "batch"), ("batch 100k A", "batch 100k B", "batch 100k A+pages")),
        (("--task", "ndjson", "--variants", "B,A+pages"), ("ndjson 100k B", "ndjson 100k A+pages")),
    ],
)
def test_whole_processes_are_right_and_timed(folder, task, tables):
    done, results = bench(folder, *task)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tuple(results) == tables
    for rows in results.values():
        assert [row["name"] for row in rows] == ["sessionize", "sessionize, all columns", *DEFAULT_PEERS]
        for row in rows:
            if row["name"] in DEFAULT_PEERS and importlib.util.find_spec(row["name"]) is None:
                assert row["problem"].startswith("not installed: no " + row["name"])
                continue
            assert row["problem"] is None
            (run,) = row["runs"]
            assert run["wall_s"] > 0
            assert run["cpu_s"] > 0
            assert run["peak_mb"] > 40
    assert "× wall" in done.stdout


def test_core_and_start_up(folder):
    for task in ("core", "startup"):
        done, results = bench(folder, "--task", task, "--peers", "none")
        assert done.returncode == 0, done.stdout + done.stderr
        assert [row["problem"] for row in results[task]] == [None] * len(results[task])
    assert [row["name"] for row in results["startup"]][:3] == [
        "python -c pass",
        "sessionize --help",
        "tiny batch: sessionize",
    ]


@pytest.mark.parametrize(
    ("ending", "problem"),
    [
        ("counts[-1] += 1", "WRONG: users, starts, ends or counts differ"),
        ("counts.pop()", "FAILED: exit code 1"),
        ("sys.exit(3)", "FAILED: exit code 3"),
    ],
)
def test_a_wrong_or_failed_engine_gets_no_figures(folder, tmp_path, ending, problem):
    """A stand-in for the command: right but for one count; ending in a traceback; ending without a word."""
    peer = BENCHMARKS / "peers" / "duckdb_peer.py"
    stand_in = tmp_path / "sessionize"
    stand_in.write_text(
        f"#!{sys.executable}\n"
        "import subprocess, sys, pyarrow.parquet as pq\n"
        "source, output = sys.argv[2], sys.argv[4]\n"
        f"subprocess.run([{sys.executable!r}, {str(peer)!r}, source, output], check=True)\n"
        "table = pq.read_table(output)\n"
        "counts = table['event_count'].to_pylist()\n"
        f"{ending}\n"
        "at = table.column_names.index('event_count')\n"
        "pq.write_table(table.set_column(at, 'event_count', [counts]), output)\n"
    )
    stand_in.chmod(0o755)
    only = ("--task", "batch", "--variants", "A", "--peers", "duckdb")
    done, results = bench(folder, *only, "--sessionize", str(stand_in))
    assert done.returncode == 1
    mine, _, peer_row = results["batch 100k A"]
    assert mine["problem"] == problem
    assert peer_row["problem"] is None
    line = next(line for line in done.stdout.splitlines() if line.startswith("sessionize "))
    assert line.split()[1:9] == ["–"] * 8


def test_a_missing_command_is_said_and_fails(folder):
    done, results = bench(folder, "--task", "batch", "--variants", "A", "--peers", "duckdb", "--sessionize", "/no/such")
    assert done.returncode == 1
    assert results["batch 100k A"][0]["problem"] == "not installed: no /no/such"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("--peers", "duckdb,clickhouse"), "clickhouse: not one of chdb"),
        (("--variants", "C"), "C: not one of A, B, A+pages"),
        (("--repeat", "0"), "0 is not at least 1"),
        (("--bench-python", "/no/python"), "no /no/python"),
    ],
)
def test_wrong_use_is_refused(folder, wrong, says):
    done, _ = bench(folder, *wrong)
    assert done.returncode == 2
    assert says in done.stderr


def test_descendants_are_charged_even_when_they_outlive_their_parent():
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    spawn = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {burn!r}])"
    code = f"import sys, measure; r = measure.run([sys.executable, '-c', {spawn!r}], measure.Limits()); print(r.cpu_s)"
    assert float(in_benchmarks(code).stdout) >= 0.5


def test_memory_of_a_whole_tree_is_added_up():
    hold = "import time; block = bytearray(80_000_000); print('held', flush=True); time.sleep(1)"
    spawn = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {hold!r}]); {hold}; p.wait()"
    code = (
        f"import sys, measure; r = measure.run([sys.executable, '-c', {spawn!r}], measure.Limits()); print(r.peak_mb)"
    )
    assert float(in_benchmarks(code).stdout) >= 160


@pytest.mark.parametrize(
    ("limits", "says"),
    [("wall_s_max=0.5", "STOPPED: longer than 0 s"), ("tree_bytes_max=1000", "STOPPED: more than 0 GB of memory")],
)
def test_a_run_beyond_its_limits_is_ended_with_all_its_children(limits, says):
    spawn = "import subprocess; subprocess.run(['sleep', '60'])"
    code = (
        "import sys, measure\n"
        "measure.ORPHANS_WAIT_S = 1000\n"
        f"r = measure.run([sys.executable, '-c', {spawn!r}], measure.Limits({limits}))\n"
        "import os\n"
        "print(r.failure, len(measure.descendants(os.getpid())))"
    )
    began = time.perf_counter()
    assert in_benchmarks(code).stdout.split("\n")[0] == f"{says} 1"
    assert time.perf_counter() - began < 60  # what the children would take


def test_rounds_are_led_by_another_each_time_and_nobody_follows_the_same_twice():
    code = "import measure; print(*[''.join(order) for order in measure.rounds('abcd', 5)])"
    orders = in_benchmarks(code).stdout.split()
    assert [order[0] for order in orders] == ["a", "b", "c", "d", "a"]
    assert all(sorted(order) == list("abcd") for order in orders)
    pairs = [pair for order in orders[:4] for pair in itertools.pairwise(order)]
    assert len(set(pairs)) == len(pairs) == 12
