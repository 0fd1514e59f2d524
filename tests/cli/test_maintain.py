import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sessionize.cli.declared import for_typer
from sessionize.cli.maintain import maintain
from sessionize.cli.output import print_table
from sessionize.connectors.iceberg import IcebergEpochSink, open_catalog
from sessionize.errors import ConfigError
from sessionize.testing.epoch_sinks import epoch_id, epoch_rows

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(for_typer(maintain))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    sink = IcebergEpochSink(open_catalog(tmp_path))
    for number in (1, 2, 3):
        sink.write_epoch(epoch_id(number), epoch_rows(number + 1))
    return tmp_path


def run(home: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["--home", str(home), *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_json_says_for_each_table_what_was_done(home: Path) -> None:
    would = json.loads(run(home, "--dry-run", "--json"))
    done = json.loads(run(home, "--json", "--keep", "0s"))

    assert would["dry_run"] is True
    assert [table["table"] for table in done["tables"]] == ["events", "late_events", "rejected_events", "user_sessions"]
    events = done["tables"][0]
    assert (events["files_before"], events["files_after"], events["packed"], events["rows"]) == (3, 1, 3, 6)
    assert would["tables"][0]["files_after"] == 3
    assert events["snapshots_expired"] == 3


def test_a_table_for_people(home: Path) -> None:
    done = CliRunner().invoke(app, ["--home", str(home), "events"], catch_exceptions=False)
    shown = done.stdout
    assert "3 replaced files" in done.stderr
    assert "that began within 1h; a later maintain removes them" in done.stderr

    assert "events" in shown
    assert "3 → 1" in shown
    assert "user_sessions" not in shown


def test_names_of_tables_stay_whole_in_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    numbers = ("12,345,678", "1,367 → 100", "1,202.6 → 800.7", "1,364 → 97", "10 of 1,200", "3 (12.5 MiB)")
    columns = ("table", "rows", "files", "MiB", "compacted", "snapshots expired", "files removed")
    print_table("", columns, [("rejected_events", *numbers)], right=range(1, 7), lines=False)
    assert "rejected_events  " in capsys.readouterr().out


def test_a_table_that_is_not_there_stops_before_anything_is_done(home: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        run(home, "events", "nothing")
    assert json.loads(run(home, "--json", "--dry-run", "events"))["tables"][0]["files_before"] == 3


def test_files_that_may_be_in_use_are_not_removed_without_force(home: Path) -> None:
    with pytest.raises(ConfigError, match="unfinished commit"):
        run(home, "--orphan-age", "0")
    assert json.loads(run(home, "--orphan-age", "0", "--force", "--json"))["tables"][0]["orphans"] == 0


def test_a_home_without_tables(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tables yet"):
        run(tmp_path)
