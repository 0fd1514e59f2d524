"""What the questions cost: tune, diff and check over the events of make_data.py, each as a whole process.

`questions.py --size 10m --repeat 3` makes the input where it is missing, and the sessions that check compares. Prints
medians of wall, CPU and peak memory; each answer is looked at: the events are all counted, and the check passes.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from make_data import SIZES, ensure, parquet_path, write_parquet
from measure import Limits, run, warm
from report import table

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ("--user", "user", "--time", "ts", "--page", "page", "--max-future", "none")


def commands(events: Path, sessions: Path) -> dict[str, list[str]]:
    """What is measured, by name; the arguments of the command line."""
    check = ["check", str(events), *RECORDS, "--sessions", str(sessions)]
    return {
        "tune": ["tune", str(events), *RECORDS],
        "diff, another gap and no maximum": ["diff", "default", "gap=15m,max_duration=none", str(events), *RECORDS],
        "diff, nothing differs": ["diff", "default", "default", str(events), *RECORDS],
        "check, events alone": ["check", str(events), *RECORDS],
        "check, sessions recomputed": check,
        "check, the same with --memory 300MB": [*check, "--memory", "300MB"],
    }


def events_of(name: str, answer: dict[str, object]) -> int:
    """How many events an answer is about."""
    if name.startswith("tune"):
        return int(str(answer["events"]))
    part, key = ("figures", "events_in_sessions") if name.startswith("diff") else ("counts", "events")
    counted = json.loads(json.dumps(answer[part]))[key]
    return int(counted["a"] if isinstance(counted, dict) else counted)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="10m")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "data")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    size, events = SIZES[arguments.size], parquet_path(arguments.folder, arguments.size)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    ensure(events, size, write_parquet)
    sessions = events.with_name(f"sessions-of-{events.name}")
    program = [sys.executable, "-m", "sessionize"]
    made = run([*program, "batch", str(events), *RECORDS, "-o", str(sessions)], Limits())
    assert made.failure is None, made.said
    warm(events)
    rows = []
    for name, words in commands(events, sessions).items():
        answer = events.with_name("answer.json")
        runs = []
        for _ in range(arguments.repeat):
            done = run(["sh", "-c", '"$@" --json > "$0"', str(answer), *program, *words], Limits())
            assert done.failure is None, done.said
            assert events_of(name, json.loads(answer.read_text())) == size.events, name
            runs.append(done)
        medians = (statistics.median(getattr(each, of) for each in runs) for of in ("wall_s", "cpu_s", "peak_mb"))
        rows.append([name, *(f"{value:,.1f}" for value in medians)])
        answer.unlink()
    sys.stdout.write(table(["question", "wall s", "CPU s", "peak MB"], rows) + "\n")


if __name__ == "__main__":
    main()
