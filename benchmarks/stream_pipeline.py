"""The pipeline file of our own rows in the streaming benchmarks: a Kafka topic of clickstream into Iceberg."""

import json
from collections.abc import Mapping
from pathlib import Path


def write_pipeline(
    path: Path, *, servers: str, topic: str, home: Path, settings: Mapping[str, Mapping[str, object]]
) -> Path:
    """Write it, and return its path. settings: section -> key -> text, number or truth value, over what all share."""
    sections: dict[str, dict[str, object]] = {
        "input": {"kind": "kafka", "dialect": "clickstream"},
        "input.kafka": {"servers": servers, "topic": topic},
        "output": {"kind": "iceberg"},
        "stream": {"epoch": "10s"},
        "run": {"home": str(home)},
    }
    for section, values in settings.items():
        sections[section] = {**sections.get(section, {}), **values}
    lines = ['name = "bench"']
    for section, values in sections.items():
        # a JSON text, number or truth value is one of TOML too
        lines += ["", f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    path.write_text("\n".join(lines) + "\n")
    return path
