"""Files that are loaded into tables, and loads that are killed: what their tests have in common."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.hooks import Hooks
from sessionize.app.runs import plan
from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.iceberg import IcebergSink

NOW_MS = 1_900_000_000_000
COUNTS = (
    "SELECT (SELECT count(*) FROM user_sessions) AS sessions, (SELECT count(*) FROM events) AS events,"
    " (SELECT count(*) FROM rejected_events) AS rejected"
)


def records(user: str, count: int) -> str:
    rows = [json.dumps({"user_id": user, "timestamp": NOW_MS - i * 60_000, "url": "/a"}) for i in range(count)]
    return "".join(f"{row}\n" for row in [*rows, "broken"])


def pipeline(folder: Path, *inputs: str, **settings: object) -> PipelineConfig:
    path = folder / "mine.toml"
    path.write_text('name = "mine"\n')
    paths = [str(folder / name) for name in inputs or ("in",)]
    mapping = {"input.mapping.user": "user_id", "input.mapping.time": "timestamp", "input.mapping.page": "url"}
    fixed = {"input.kind": "files", "input.paths": paths, "run.home": str(folder / "home"), **mapping}
    return load_pipeline(str(path), overrides={**fixed, **settings})


def run(config: PipelineConfig, tell: Callable[[str], None] = pytest.fail) -> Any:
    return plan(config, now_ms=NOW_MS).run(Hooks(on_note=tell))


def counts(folder: Path, warehouse: Warehouse | None = None) -> tuple[int, int, int]:
    row = (warehouse or Warehouse(folder / "home")).query(COUNTS).to_pylist()[0]
    return row["sessions"], row["events"], row["rejected"]


ONCE = (2, 6, 2)


def two_files(folder: Path) -> Path:
    """Two files of three events and a broken record."""
    (folder / "in").mkdir()
    for user in ("ann", "bob"):
        (folder / "in" / f"{user}.ndjson").write_text(records(user, 3))
    return folder


class KilledError(BaseException):
    """As if the process had gone: nothing is cleaned up."""


def killed_after(monkeypatch: pytest.MonkeyPatch, commits: int) -> None:
    commit, left = IcebergSink.commit, [commits]

    def stop_at(sink: IcebergSink, **more: Any) -> None:
        if not left[0]:
            raise KilledError
        commit(sink, **more)
        left[0] -= 1

    monkeypatch.setattr(IcebergSink, "commit", stop_at)
    monkeypatch.setattr(IcebergSink, "abort", lambda sink: None)
