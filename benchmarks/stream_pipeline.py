"""The pipeline file of our own rows in the streaming benchmarks, clickstream into Iceberg, and what it has written."""

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

SESSION_COLUMNS = ("uuid", "session_start_time_ms", "session_end_time_ms", "event_count")


def write_pipeline(path: Path, *, home: Path, settings: Mapping[str, Mapping[str, object]]) -> Path:
    """Write it, and return its path. settings: section -> key -> what stands there, over what all share."""
    sections: dict[str, dict[str, object]] = {
        "input": {"dialect": "clickstream"},
        "output": {"kind": "iceberg"},
        "stream": {"epoch": "10s"},
        "run": {"home": str(home)},
    }
    for section, values in settings.items():
        sections[section] = {**sections.get(section, {}), **values}
    lines = ['name = "bench"']
    for section, values in sections.items():
        # a JSON text, number, truth value or list of them is one of TOML too
        lines += ["", f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def from_kafka(servers: str, topic: str) -> dict[str, dict[str, object]]:
    """The settings that read a topic."""
    return {"input": {"kind": "kafka"}, "input.kafka": {"servers": servers, "topic": topic}}


def sessions_in_iceberg(home: Path) -> pa.Table:
    """The sessions that a run with this home has written."""
    from sessionize.connectors import iceberg

    catalog = iceberg.open_catalog(home, create=False)
    table = iceberg.load_table(catalog, iceberg.DATABASE, iceberg.USER_SESSIONS)
    return table.scan(selected_fields=SESSION_COLUMNS).to_arrow()
