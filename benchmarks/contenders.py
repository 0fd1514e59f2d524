"""Who takes part: sessionize through its command line, and its peers, each as the command a user would run.

A peer is a script in peers/ run by the Python of .venv-bench, in the quickest form found for it; the
`-textbook` ones run the query that handbooks show. What can't take part says why and still gets its row.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
COLUMNS = ("user", "session_start_time_ms", "session_end_time_ms", "event_count")
PAGES_COLUMN = "pages_visited"
TASKS = ("A", "B", "A+pages")
TASK_MEANING = {
    "A": "a silence over 30 min starts a session",
    "B": "as A, and no session lasts 2 h or longer (rolling cap)",
    "A+pages": "as A, with the distinct pages in order of first visit",
}
SELF = "sessionize"
SELF_ALL = "sessionize, all columns"


@dataclass(frozen=True, slots=True)
class Peer:
    """A script in peers/ and the package it needs; `tasks` it can do."""

    script: str
    package: str
    textbook: bool = False
    tasks: tuple[str, ...] = TASKS
    default: bool = False
    why_not: str = ""


PEERS = {
    "chdb": Peer("chdb_peer.py", "chdb", default=True),
    "duckdb": Peer("duckdb_peer.py", "duckdb", default=True),
    "duckdb-textbook": Peer("duckdb_peer.py", "duckdb", textbook=True),
    "polars": Peer("polars_peer.py", "polars", default=True),
    "polars-textbook": Peer("polars_peer.py", "polars", textbook=True),
    "pandas": Peer("pandas_peer.py", "pandas", default=True),
    "datafusion": Peer(
        "datafusion_peer.py", "datafusion", tasks=("A", "A+pages"), why_not="takes over 20 GB with the cap"
    ),
    "pyspark": Peer("pyspark_peer.py", "pyspark"),
    "pyspark-textbook": Peer(
        "pyspark_peer.py", "pyspark", textbook=True, tasks=("A",), why_not="session_window has no cap and no pages"
    ),
}


@dataclass(frozen=True, slots=True)
class Contender:
    """A name and what runs it. `absent` says why it can't run at all."""

    name: str
    program: tuple[str, ...]
    peer: Peer | None
    threads: int
    absent: str | None = None

    def left_out(self, task: str) -> str | None:
        """Why this contender has no figure for `task`, None when it takes part."""
        if self.absent is not None:
            return self.absent
        if self.peer is not None and task not in self.peer.tasks:
            return f"left out: {self.peer.why_not}"
        return None

    @property
    def is_optional(self) -> bool:
        """Whether a run without it is a good one: true of peers."""
        return self.peer is not None

    def command(self, task: str, source: Path, output: Path) -> list[str]:
        if self.peer is None:
            return [
                *self.program,
                *sessionize_arguments(task, source, output, all_columns=self.name == SELF_ALL),
            ]
        command = [*self.program, str(source), str(output), "--task", task, "--threads", str(self.threads)]
        return [*command, "--textbook"] if self.peer.textbook else command


def sessionize_arguments(task: str, source: Path, output: Path, *, all_columns: bool) -> list[str]:
    arguments = ["batch", str(source), "-o", str(output)]
    if source.suffix == ".ndjson":
        # the dialect also reads event ids, types and conversions, which the peers are not asked for
        mapping = ["--user", "uuid", "--time", "event_timestamp"]
        mapping += ["--page", "page_name"] if task == "A+pages" else []
        arguments += ["--dialect", "clickstream"] if all_columns else mapping
    else:
        arguments += ["--user", "user", "--time", "ts"] + (["--page", "page"] if task == "A+pages" else [])
    arguments += ["--gap", "30m"]
    arguments += (
        ["--max-duration", "2h", "--max-duration-mode", "rolling"] if task == "B" else ["--max-duration", "none"]
    )
    if not all_columns:
        columns = (*COLUMNS, PAGES_COLUMN) if task == "A+pages" else COLUMNS
        arguments += ["--session-columns", ",".join(columns)]
    return arguments


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """The versions of those packages that `python` has. Errors: OSError when it can't be run."""
    code = (
        "import json, sys\nfrom importlib import metadata\nfound = {}\nfor name in sys.argv[1:]:\n"
        "    try:\n        found[name] = metadata.version(name)\n"
        "    except metadata.PackageNotFoundError:\n        pass\nprint(json.dumps(found))"
    )
    done = subprocess.run([str(python), "-c", code, *packages], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def line_up(
    peers: Sequence[str], sessionize: Path, bench_python: Path, threads: int
) -> tuple[list[Contender], dict[str, str]]:
    """The contenders in the order of the tables, and the versions of the peers' packages."""
    missing = None if sessionize.exists() else f"not installed: no {sessionize}"
    contenders = [Contender(name, (str(sessionize),), None, threads, missing) for name in (SELF, SELF_ALL)]
    packages = sorted({PEERS[name].package for name in peers} | {"numpy", "pyarrow"})
    there = versions(bench_python, packages) if bench_python.exists() else {}
    for name in peers:
        peer = PEERS[name]
        absent = None if peer.package in there else f"not installed: no {peer.package} for {bench_python}"
        contenders.append(
            Contender(name, (str(bench_python), str(HERE / "peers" / peer.script)), peer, threads, absent)
        )
    return contenders, there
