"""What is written about the pipeline file cannot drift: docs/configuration.md and pipeline.schema.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from sessionize.app.config.errors import section_of
from sessionize.app.config.pipeline import PipelineConfig, json_schema, known_keys, load_pipeline, schema_text
from sessionize.app.config.values import format_value

DOCS = Path(__file__).parents[2] / "docs"


def test_the_committed_schema_is_the_models() -> None:
    assert (DOCS / "pipeline.schema.json").read_text("utf-8") == schema_text(), (
        "write sessionize.app.config.pipeline.schema_text() to docs/pipeline.schema.json"
    )


def test_the_schema_describes_every_key_and_knows_no_null() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "$id" not in schema
    assert '"null"' not in json.dumps(schema)
    found = set()

    def walk(node: dict[str, Any], prefix: str) -> None:
        assert node["additionalProperties"] is False
        for name, part in node["properties"].items():
            if "$ref" in part:
                walk(schema["$defs"][part["$ref"].rpartition("/")[2]], f"{prefix}{name}.")
            else:
                found.add(prefix + name)
                assert part["description"]
                assert part["examples"]

    walk(schema, "")
    assert found == set(known_keys())


def documented_rows() -> dict[str, list[str]]:
    """Dotted key -> cells of its row in docs/configuration.md."""
    rows, section = {}, ""
    for line in (DOCS / "configuration.md").read_text("utf-8").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").strip("[]") + "." if line.startswith("## [") else ""
        elif line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            rows[section + cells[0].strip("`")] = cells
    return rows


def test_every_key_is_documented_and_no_other() -> None:
    assert set(documented_rows()) == set(known_keys())


@pytest.mark.parametrize("dotted", known_keys())
def test_the_documented_default_and_example_are_true(tmp_path: Path, dotted: str) -> None:
    model: Any = PipelineConfig
    *tables, name = dotted.split(".")
    for table in tables:
        model = section_of(model.model_fields[table])
    default = model.model_fields[name].default
    _, _, documented, _, example = documented_rows()[dotted]
    if default is None:
        default = {"input.dialect": "clickstream"}.get(dotted)
    if documented.startswith("`"):
        assert documented == f"`{format_value(default)}`"
    else:
        assert dotted == "name" or model.model_fields[name].is_required() or default is None
    needed = {
        "input.mapping": "input.mapping.user = 'u'\ninput.mapping.time = 't'\n",
        "input.generator": "input.kind = 'generator'\n",
        "input.kafka": "input.kind = 'kafka'\ninput.kafka.instances = 2\n",
        "rules.gap_by": "rules.gap_by.field = 'f'\n",
        "input.catalog": "input.catalog.kind = 'rest'\ninput.catalog.uri = 'u'\n",
        "output.catalog": "output.catalog.kind = 'rest'\noutput.catalog.uri = 'u'\n",
    }.get(".".join(tables), "output.kind = 'parquet'\n" if dotted == "output.path" else "")
    if dotted == "rules.split_ignore":
        needed = "rules.split_on_change = ['source']\n"
    if dotted == "rules.duplicates_within":
        needed = "rules.duplicates = 'id'\n"
    if dotted == "output.buckets":
        needed = "output.layout = 'date_bucket'\n"
    if dotted == "input.kafka.partitions":
        needed = "input.kind = 'kafka'\n"
    if dotted == "input.kafka.format":
        needed += "input.kafka.schema_file = 'x.avsc'\n"
    if dotted in ("input.kafka.schema_file", "input.kafka.schema_registry"):
        needed += "input.kafka.format = 'avro'\n"
    lines = [line for line in needed.splitlines() if not line.startswith(f"{dotted} ")]
    path = tmp_path / "my.toml"
    path.write_text("\n".join([*lines, f"{dotted} = {example.strip('| `')}"]), encoding="utf-8")
    load_pipeline(str(path), environ={})
