"""Copies of the inputs that people bring (data/), and commands over them within this process."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from typer.testing import CliRunner

from sessionize.cli.app import app

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Ran:
    """What came of a command. sessions: rows of the output. rejected: reason and line of each rejected record."""

    code: int
    err: str
    sessions: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)

    def counts(self, user: str | None = None) -> list[tuple[str, int]]:
        """User and number of events of each session, in order."""
        name = user or next(iter(self.sessions[0]))
        return sorted((row[name], row["event_count"]) for row in self.sessions)


def brought(folder: Path, *names: str) -> None:
    """Put copies of these inputs into a folder."""
    for name in names:
        if (DATA / name).is_dir():
            shutil.copytree(DATA / name, folder / name)
        else:
            shutil.copyfile(DATA / name, folder / name)


def ran(*words: str) -> Ran:
    """`sessionize WORDS` in the current folder; the output is sessions.parquet, with the rejected records beside."""
    done = CliRunner().invoke(app, [*words, "--rejects", "rejected.parquet", "--max-future", "none"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    if done.exit_code:
        return Ran(done.exit_code, done.output)
    rejected = Path("rejected.parquet")
    return Ran(
        0,
        done.output,
        pq.ParquetFile("sessions.parquet").read().to_pylist(),
        pq.ParquetFile(rejected).read().to_pylist() if rejected.exists() else [],
    )
