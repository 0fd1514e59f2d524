"""The pipelines that come with the package: they load, teach, survive a copy, and mean what they say."""

import re
from pathlib import Path

import pytest

from sessionize.app.config.pipeline import known_keys, load_pipeline
from sessionize.app.config.presets import preset_names, preset_text
from sessionize.errors import ConfigError
from sessionize.session.policy import Policy

NAMES = [name for name, _ in preset_names()]


def test_the_presets_are_listed_with_what_they_are_for() -> None:
    assert NAMES == ["batch_file_processor", "data_quality_checker", "kafka_stream", "user_sessionization_pipeline"]
    for _, description in preset_names():
        assert 20 < len(description) < 90


@pytest.mark.parametrize("name", NAMES)
def test_a_copied_preset_is_the_same_pipeline(tmp_path: Path, name: str) -> None:
    preset = load_pipeline(name, environ={})
    assert preset.name == name
    copy = tmp_path / "my.toml"
    copy.write_text(preset_text(name), encoding="utf-8")
    assert load_pipeline(str(copy), environ={}) == preset
    assert preset.origin_of("rules.gap") == f"preset {name}"


def test_user_sessionization_pipeline_is_half_an_hour_and_two_hours_into_iceberg() -> None:
    config = load_pipeline("user_sessionization_pipeline", environ={})
    assert config.policy() == Policy(
        gap_ms=1_800_000, gap_boundary="exclusive", max_duration_ms=7_200_000, max_duration_mode="anchored"
    )
    assert config.rules.lateness_ms == 600_000
    assert (config.input.kind, config.input.dialect) == ("generator", "clickstream")
    assert config.generator().total_events == 200_000
    output = config.output
    assert (output.kind, output.database, output.table) == ("iceberg", "sessions", "user_sessions")
    assert output.events
    assert output.rejected


def test_batch_file_processor_reads_files_once_into_iceberg() -> None:
    config = load_pipeline("batch_file_processor", environ={}, overrides={"input.paths": ["a.ndjson"]})
    assert config.input_paths() == ("a.ndjson",)
    assert (config.input.kind, config.input.dialect, config.output.kind) == (
        "files",
        "clickstream",
        "iceberg",
    )
    assert config.run.once
    assert config.policy() == Policy()


def test_kafka_stream_follows_a_topic_until_stopped() -> None:
    config = load_pipeline("kafka_stream", environ={})
    assert config.input.is_stream
    assert (config.input.kind, config.input.dialect) == ("kafka", "clickstream")
    assert config.policy() == Policy()
    assert not config.run.once
    assert config.output.events
    assert config.output.rejected


SECTIONS = ("output.postgres", "output.sqlite", "output.redis", "output.kafka", "output.lake", "output.catalog")


@pytest.mark.parametrize("section", SECTIONS)
def test_a_further_output_of_kafka_stream_loads_when_its_lines_are_switched_on(tmp_path: Path, section: str) -> None:
    lines, on = [], False
    for line in preset_text("kafka_stream").splitlines():
        on = line.startswith(f"# [{section}]") or (on and line != "")
        lines.append(line.removeprefix("# ") if on else line)
    path = tmp_path / "my.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    output = load_pipeline(str(path), environ={}).output
    assert getattr(output, section.rpartition(".")[2]) != getattr(
        load_pipeline("kafka_stream", environ={}).output, section.rpartition(".")[2]
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_takes_files_and_a_file_to_write(name: str) -> None:
    overrides = {
        "input.kind": "files",
        "input.paths": ["a"],
        "input.mapping.user": "u",
        "input.mapping.time": "t",
        "output.kind": "parquet",
        "output.path": "out.parquet",
        "rules.max_duration": "none",
    }
    config = load_pipeline(name, environ={}, overrides=overrides)
    assert (config.input_paths(), config.output.path, config.input.dialect) == (("a",), "out.parquet", None)
    assert config.policy().max_duration_ms is None


def switched_on(text: str) -> list[str]:
    """Dotted keys of the `# key = value` lines, each of which is meant to be used by taking the # away."""
    keys, section = [], ""
    for line in text.splitlines():
        if header := re.match(r"#? ?\[([a-z.]+)\]$", line):
            section = header[1]
        elif key := re.match(r"# ([a-z_]+) = ", line):
            keys.append(f"{section}.{key[1]}")
    return keys


@pytest.mark.parametrize("name", NAMES)
def test_the_keys_in_the_comments_exist(name: str) -> None:
    keys = switched_on(preset_text(name))
    assert len(keys) > 5
    # A commented section ends the one before it, so a key under it may belong to either.
    leaves = {key.rpartition(".")[2] for key in known_keys()}
    assert {key.rpartition(".")[2] for key in keys} <= leaves
    assert all(len(line) <= 120 for line in preset_text(name).splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_an_example_in_the_comments_loads_when_it_is_switched_on(tmp_path: Path, name: str) -> None:
    text = preset_text(name)
    for key in (
        "start_events",
        "end_events",
        "excluded_events",
        "conversion_events",
        "gap_boundary",
        "columns",
    ):
        text = re.sub(rf"^# ({key} = )", r"\1", text, flags=re.MULTILINE)
    mapped = text.replace('dialect = "clickstream"', "")
    mapped = re.sub(r"^# (\[input.mapping\]|(user|time|event_id|page|time_format) = )", r"\1", mapped, flags=re.M)
    assert text != preset_text(name)
    assert mapped != text
    for i, changed in enumerate((text, mapped)):
        path = tmp_path / f"{i}.toml"
        path.write_text(changed, encoding="utf-8")
        assert load_pipeline(str(path), environ={}).rules.end_events == ("logout",)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("user_sesionization_pipeline", "did you mean user_sessionization_pipeline?"),
        ("batch-file-processor", "did you mean batch_file_processor?"),
        ("nothing like it", "a pipeline file ends in .toml"),
        ("", "a pipeline file ends in .toml"),
    ],
)
def test_an_unknown_preset_names_those_there_are(name: str, hint: str) -> None:
    for attempt in (lambda: preset_text(name), lambda: load_pipeline(name, environ={})):
        with pytest.raises(ConfigError) as caught:
            attempt()
        assert caught.value.message == f"no preset named {name!r}"
        assert caught.value.detail == f"presets: {', '.join(NAMES)}"
        assert hint in str(caught.value.hint)


def test_a_file_given_without_its_ending_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.toml").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_pipeline("shop", environ={})
    assert caught.value.hint == "did you mean the file shop.toml?"
