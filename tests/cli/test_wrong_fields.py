"""A field that the records do not have is named, in JSON as in CSV: with what they have instead."""

import json
from pathlib import Path
from typing import Any

import pytest

ROWS = [{"user": name, "when": 1_767_571_200_000, "page": "/", "geo": {"city": "X"}} for name in "abc"]
OPTIONS = "say where the fields are: --user FIELD --time FIELD --page FIELD (batch, label, explain)"


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "a.ndjson"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.parametrize("command", ["batch", "label"])
def test_none_of_the_records_has_the_field(sessionize: Any, records: Path, command: str) -> None:
    done = sessionize(command, "a.ndjson", "-o", "out.csv", "--user", "usr", "--time", "whem", code=1)
    assert "3 rejected: missing_user 3; no field 'usr' for the user, no field 'whem' for the time" in done.err
    assert "; the fields are: user, when, page, geo.city\n" in done.err
    assert f"hint: did you mean 'user' and 'when'? Otherwise {OPTIONS}" in done.err


def test_the_time_alone_and_a_nested_field(sessionize: Any, records: Path) -> None:
    done = sessionize("batch", "a.ndjson", "-o", "out.csv", "--user", "geo.city", "--time", "ts", code=1)
    assert "missing_time 3; no field 'ts' for the time; the fields are: user" in done.err
    assert f"hint: {OPTIONS}" in done.err
    done = sessionize("batch", "a.ndjson", "-o", "out.csv", "--user", "geo.cty", "--time", "when", code=1)
    assert "no field 'geo.cty' for the user; " in done.err
    assert "did you mean 'geo.city'?" in done.err


def test_a_dialect_that_is_not_theirs(sessionize: Any, records: Path) -> None:
    done = sessionize("batch", "a.ndjson", "-o", "out.csv", code=1)
    assert "no field 'uuid' for the user, no field 'event_timestamp' for the time; the fields are: user" in done.err
    assert "(now the dialect is 'clickstream')" in done.err


def test_a_dialect_that_fits_is_named(sessionize: Any, tmp_path: Path) -> None:
    (tmp_path / "access.log").write_text(
        '192.0.2.7 - - [02/Mar/2026:10:00:00 +0000] "GET /a HTTP/1.1" 200 1 "-" "B/9"\n'
    )
    done = sessionize("batch", "access.log", "-o", "out.csv", code=1)
    assert "access.log: no column 'uuid'; the columns are: ip, " in done.err
    assert "(now the dialect is 'clickstream'; the fields fit --dialect combined)" in done.err
    assert not (tmp_path / "out.csv").exists()


def test_a_file_without_a_header(sessionize: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("A,1610532000,/x\nA,1610532300,/y\n")
    done = sessionize("batch", "a.csv", "-o", "out.csv", "--user", "user", "--time", "ts", code=1)
    assert "hint: if the first line is no header, name the columns: --columns user,time,page" in done.err


def test_a_field_that_is_there_and_null_is_not_a_wrong_name(sessionize: Any, tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_text('{"user":null,"when":1}\n{"user":null,"when":2}\n')
    done = sessionize("batch", "a.ndjson", "-o", "out.csv", "--user", "user", "--time", "when", code=1)
    assert "missing_user 2\n" in done.err
    assert "no field" not in done.err


def test_most_of_the_records_lack_it(sessionize: Any, records: Path) -> None:
    with records.open("a") as out:
        out.write('{"usr":"d","when":1767571200000}\n')
    done = sessionize("batch", "a.ndjson", "-o", "out.csv", "--user", "usr", "--time", "when")
    assert "warning: most of the records have no field 'usr' for the user; the fields are: user, when, page" in done.err
    assert "hint: did you mean 'user'?" in done.err
    as_json = sessionize("batch", "a.ndjson", "-o", "out.csv", "--user", "usr", "--time", "when", "--json")
    assert as_json.json["rejected"] == 3
    assert "first_without" not in as_json.json
    few = sessionize("batch", "a.ndjson", "-o", "out.csv", "--user", "user", "--time", "when")
    assert "no field" not in few.err


def test_explain_and_pipelines(sessionize: Any, records: Path, tmp_path: Path) -> None:
    done = sessionize("explain", "a", "--input", "a.ndjson", "--user", "usr", "--time", "when", code=1)
    assert "no field 'usr' for the user; the fields are: user, when" in done.err
    assert "did you mean 'user'?" in done.err
    text = 'name = "mine"\n[input]\nkind = "{}"\npaths = ["{}"]\n[input.mapping]\nuser = "usr"\ntime = "when"\n'
    (tmp_path / "in").mkdir()
    records.rename(tmp_path / "in" / "a.ndjson")
    for kind, paths in (("files", "in/a.ndjson"), ("directory", "in")):
        (tmp_path / "mine.toml").write_text(text.format(kind, paths))
        done = sessionize("run", "mine.toml", "--once", "--home", kind, code=1)
        assert "no field 'usr' for the user; the fields are: user, when" in done.err
        assert "did you mean 'user'?" in done.err
