"""No run writes over its input, or where the next run would read it: that is refused before an output is opened."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sessionize.app.config.pipeline import load_pipeline
from sessionize.app.files import FilePlan
from sessionize.app.runs import plan
from sessionize.errors import ConfigError
from sessionize.formats.dialects import dialect_named
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules

EVENT = b'{"user_id": "ann", "timestamp": 1700000000000}\n'
REFUSED = "the output would overwrite an input"
Open = Callable[[Path, str, str], object]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.ndjson", "b.rejected.ndjson", "in/c.ndjson"):
        (tmp_path / name).write_bytes(EVENT)
    return tmp_path


def run(folder: Path, source: str, output: str) -> object:
    kind = Path(output).suffix[1:]
    pipeline = folder / "p.toml"
    pipeline.write_text(
        f'name = "p"\n[input]\nkind = "files"\npaths = ["{source}"]\n[input.mapping]\nuser = "user_id"\n'
        f'time = "timestamp"\n[output]\nkind = "{kind}"\npath = "{output}"\n'
    )
    return plan(load_pipeline(str(pipeline))).run()


def batch(folder: Path, source: str, output: str) -> object:
    rejects = Path(output).with_name(f"{Path(output).stem}.rejected.ndjson")
    dialect, policy, rules = dialect_named("clicks"), Policy(), Rules()
    return FilePlan(
        what="sessions",
        inputs=(source,),
        output=output,
        dialect=dialect,
        policy=policy,
        rules=rules,
        rejects=rejects,
    ).open()


@pytest.mark.parametrize("open_plan", [run, batch])
@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("a.ndjson", "a.ndjson"),
        ("a.ndjson", "in/../a.ndjson"),
        ("b.rejected.ndjson", "b.parquet"),  # the file of the rejected records
        ("in", "in/deep/new.csv"),
        ("in", "in/c.ndjson"),
        ("*.ndjson", "new.ndjson"),
        ("in/**/*.ndjson", "in/new.ndjson"),
        ("in/**/*.ndjson", "in/deep/more/new.parquet"),
        ("a.ndjson", "link.ndjson"),
        ("link.ndjson", "a.ndjson"),
        ("a.ndjson", "hard.ndjson"),
        ("in", "elsewhere.ndjson"),
        ("a.ndjson", "hard.parquet"),
    ],
)
def test_an_output_among_the_input_is_refused(folder: Path, open_plan: Open, source: str, output: str) -> None:
    (folder / "link.ndjson").symlink_to("a.ndjson")
    os.link("a.ndjson", "hard.ndjson")
    os.link("a.ndjson", "hard.rejected.ndjson")
    os.link("in/c.ndjson", "elsewhere.ndjson")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=REFUSED):
        open_plan(folder, source, output)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "p.toml"}
    assert after == before


@pytest.mark.parametrize("open_plan", [run, batch])
@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("a.ndjson", "b.ndjson"),
        ("in", "input.csv"),
        ("in/*.ndjson", "in/deep/new.ndjson"),
        ("in/**/*.json", "in/s.csv"),
    ],
)
def test_an_output_beside_the_input_is_written(folder: Path, open_plan: Open, source: str, output: str) -> None:
    (folder / "in" / "deep" / "d.json").write_bytes(EVENT)
    assert open_plan(folder, source, output) is not None
