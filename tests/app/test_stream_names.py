"""What the parts of a stream are called where somebody hears who is away."""

from pathlib import Path

import pytest

from sessionize.app.config.pipeline import load_pipeline
from sessionize.app.streams.names import name_of_input

KAFKA = '[input]\nkind = "kafka"\n'
FOLDER = '[input]\nkind = "directory"\npaths = ["in"]\n'
TOPIC = '[output.kafka]\nservers = "127.0.0.1:9092"\nsessions = "s"\n'


@pytest.mark.parametrize(
    ("text", "name"),
    [(KAFKA, "kafka"), (KAFKA + TOPIC, "kafka input"), (FOLDER, "directory"), (FOLDER + TOPIC, "directory")],
)
def test_the_input_is_not_called_as_an_output_is(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    assert name_of_input(load_pipeline(str(tmp_path / "p.toml"), environ={})) == name
