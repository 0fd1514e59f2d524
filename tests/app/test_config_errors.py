"""What a person is told when a pipeline cannot be meant: the place, the key, the value, and a way out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.errors import ConfigError
from sessionize.session.columns import SESSION_COLUMNS


def load(
    folder: Path,
    text: str | bytes,
    *,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> PipelineConfig:
    path = folder / "my.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_pipeline(str(path), overrides=overrides or {}, environ=environ or {})


def refusal(folder: Path, text: str | bytes, **places: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **places)
    return caught.value


# What cannot be meant. Each line: the file, and words that the error has to hold.

FILE = "file {folder}/my.toml: "
REFUSED = [
    # unknown keys
    (
        '[rules]\ngpa = "30m"',
        ["unknown key rules.gpa", FILE + "rules.gpa = …", "mean gap?", "lateness, watermark, max"],
    ),
    ('[rules]\nmax-duration = "2h"', ["unknown key rules.max-duration", "did you mean max_duration?"]),
    (
        'gap = "30m"',
        ["unknown key gap", "did you mean rules.gap?", "sections and keys: name, description, input"],
    ),
    ('"rules.gap" = "30m"', ["unknown key rules.gap", "did you mean rules.gap?"]),
    ("[rulez]\nx = 1", ["unknown section rulez", "did you mean rules?"]),
    ("[kafka.deep]\nx = 1", ["unknown section kafka", FILE + "kafka"]),
    (
        "[input.mapping]\nuser = 'u'\ntime = 't'\nevnt_id = 'x'",
        ["unknown key input.mapping.evnt_id", "mean event_id?"],
    ),
    # wrong type
    ("rules = 3", ["invalid rules: a section, not a value", "write it as a section: [rules]"]),
    ("[[rules]]\ngap = '3m'", ["invalid rules: a section, not a value"]),
    ("[rules.gap]\nminutes = 3", ["invalid rules.gap: not a duration"]),
    ("[rules]\ngap = true", ["invalid rules.gap: not a duration", "rules.gap = true"]),
    (
        "run.once = 'yes'",
        ["invalid run.once: expected true or false", 'run.once = "yes"', "once = true"],
    ),
    ("run.once = 1", ["invalid run.once: expected true or false"]),
    ("description = 3", ["invalid description: expected a text in quotes"]),
    ("input.paths = 'x'", ["invalid input.paths: expected a list", 'paths = ["events.ndjson"]']),
    ("input.paths = ['x', 3]", ["invalid input.paths[1]: expected a text", "input.paths[1] = 3"]),
    (
        "input.kind='generator'\ninput.generator.users = '10'",
        ["input.generator.users", "a whole number", "= 5000"],
    ),
    ("input.kind='generator'\ninput.generator.events = 1e3", ["a whole number"]),
    ("input.kind='generator'\ninput.generator.skew = nan", ["input.generator.skew", "a finite number"]),
    # wrong value
    ("[rules]\ngap = 30", ["invalid rules.gap: missing unit", "rules.gap = 30", '"30m" for minutes']),
    ("[rules]\ngap = '30'", ["invalid rules.gap: missing unit", '"30h" for hours']),
    ("[rules]\ngap = 0", ["invalid rules.gap: must be longer than zero"]),
    ("[rules]\ngap = '-3m'", ["invalid rules.gap: not a duration"]),
    ("[rules]\ngap = '200y'", ["invalid rules.gap: not a duration"]),
    ("[rules]\ngap = '99999d'", ["invalid rules.gap: must be between 0 and 100 years"]),
    ("[rules]\nmax_duration = 'never'", ["invalid rules.max_duration: not a duration"]),
    (
        "[rules]\ngap_boundary = 'exlusive'",
        [
            "invalid rules.gap_boundary",
            '"exlusive"',
            "did you mean exclusive?",
            'one of "exclusive", "inclusive"',
        ],
    ),
    ("input.dialect = 'click_stream'", ["did you mean clickstream?", '"user-events"']),
    ("run.log_level = 'loud'", ['run.log_level = "loud"', 'one of "DEBUG", "INFO"']),
    ("run.memory = 1", ["invalid run.memory: missing unit", '"500MB"']),
    ("run.memory = 'lots'", ["invalid run.memory: not a size"]),
    ("run.memory = '1MB'", ["invalid run.memory: too small", "at least 16MB"]),
    ("run.home = ''", ["invalid run.home: empty"]),
    ('run.home = "a\\u0000b"', ["invalid run.home: contains a control character"]),
    ("name = '../x'", ["invalid name: expected a plain name", 'name = "web"']),
    ("output.table = 'a.b'", ["invalid output.table: expected a plain name"]),
    (
        "output.columns = ['event_cuont']",
        ["output.columns[0]", "did you mean event_count?", SESSION_COLUMNS[1]],
    ),
    ("output.columns = []", ["invalid output.columns: no column"]),
    ("output.columns = ['user', 'user']", ["invalid output.columns: user occurs twice"]),
    ("rules.boundary = 'my_rules'", ["invalid rules.boundary", '"my_rules:after_logout"']),
    ("[input.mapping]\nuser = 'u'\ntime = 'a..b'", ["input.mapping.time", "the path has an empty part"]),
    ("[input.mapping]\nuser = 'u'", ["input.mapping.time is missing", FILE, 'time = "event_timestamp"']),
    ("[input.mapping]", ["the pipeline has 2 errors", "input.mapping.user is missing"]),
    (
        "input.kind='generator'\ninput.generator.late_fraction = 1.5",
        ["invalid input.generator.late_fraction", "at most 1"],
    ),
    ("input.kind='generator'\ninput.generator.users = 0", ["invalid input.generator.users: expected 1 or more"]),
    # Avro needs one schema, and JSON none
    ("input.kind='kafka'\ninput.kafka.format='avro'", ["invalid input.kafka.format: Avro needs a schema"]),
    (
        "input.kind='kafka'\n[input.kafka]\nformat='avro'\nschema_file='x.avsc'\nschema_registry='http://x:1'",
        ["invalid input.kafka.schema_file: schema_registry and schema_file exclude each other", "keep one"],
    ),
    (
        "input.kind='kafka'\n[input.kafka]\nschema_registry='http://x:1'",
        ["invalid input.kafka.schema_registry: json records need no schema", 'format = "avro"'],
    ),
    ("input.kind='kafka'\n[input.kafka]\nschema_file='x'", ["invalid input.kafka.schema_file: json records"]),
    (
        "input.kind='kafka'\n[input.kafka]\nformat='avro'\nschema_registry='x:8081'",
        ["invalid input.kafka.schema_registry: not the address", "https://registry:8081"],
    ),
    (
        "input.kind='kafka'\n[input.kafka]\nsettings=['schema.registry.ssl.ca.location=x']",
        ["schema.registry.ssl.ca.location is for a schema registry", "set schema_registry"],
    ),
    # options of a mode that is not selected, and contradictions
    (
        "input.kind = 'generator'\ninput.paths = ['a']",
        ["invalid input.paths: needs input.kind = files", 'set input.kind = "files"'],
    ),
    ("[input.generator]\nusers = 1", ["invalid input.generator: needs input.kind = generator"]),
    ("[input.generator]", ["invalid input.generator: needs input.kind = generator"]),
    (
        "[input.mapping]\nuser = ['a', 3]\ntime = 't'",
        ["invalid input.mapping.user: not a field path", '["user_id", "anonymous_id"]'],
    ),
    (
        "[input.mapping]\nuser = {join = ['a']}\ntime = 't'",
        ["invalid input.mapping.user: not a join of fields", '{join = ["ip", "user_agent"]}'],
    ),
    (
        "[input.fields]\nprice = {path = 'p', type = 'money'}",
        ["invalid input.fields", "not a field", "number, integer"],
    ),
    ("[input.fields]\npage = 'p'", ["a field cannot have the name of an event column"]),
    ("input.time_zone = 'Europe/Berln'", ["invalid input.time_zone", "'Europe/Berln'"]),
    (
        "[input.mapping]\nuser = 'a'\ntime = 't'\ntime_format = '%q'",
        ["invalid input.mapping.time_format: not a time format", "%q is not known"],
    ),
    (
        "input.kind = 'generator'\ninput.dialect = 'ga4'",
        ["invalid input.dialect: the generator has no records of this dialect", "clickstream"],
    ),
    (
        "input.kind='generator'\ninput.dialect = 'clicks'\ninput.generator.profile = 'ecommerce'",
        ["invalid input.generator.profile: input.dialect reads clicks records, not ecommerce"],
    ),
    (
        "input.kind='generator'\n[input.generator]\nevents = 1\nduration = '1h'\nrate = 2",
        ["invalid input.generator.rate", "remove one of the three"],
    ),
    (
        "output.path = 'x'",
        ["invalid output.path: needs output.kind = parquet or csv or ndjson"],
    ),
    ("output.kind = 'csv'", ["invalid output.path: kind = csv needs a file", 'path = "sessions.csv"']),
    (
        "[output]\nkind='csv'\npath='x.csv'\ntable='t'",
        ["invalid output.table: needs output.kind = iceberg"],
    ),
    ("[output]\nkind='csv'\npath='x.csv'\nmode='append'", ["invalid output.mode"]),
    (
        "[output]\nkind='csv'\npath='x.Parquet'",
        ["invalid output.path: a csv file ends in .csv"],
    ),
    (
        "rules.max_duration = 'none'\nrules.max_duration_mode = 'rolling'",
        [
            "invalid rules.max_duration_mode",
            "no effect without a maximum duration",
            "set max_duration or remove",
        ],
    ),
    # not TOML at all
    ("[rules]\ngap = 30m", ["not valid TOML", "/my.toml: ", "(at line 2, column"]),
    ("[rules]\ngap = [\n1,\n", ["not valid TOML", "(at line 4, column 1, the end)"]),
    ("gap = '1'\ngap = '2'", ["not valid TOML", "(at line 2, column"]),
    (b"[rules]\ngap = '\xff'", ["not UTF-8 text", "byte 0xff (at line 2, column 8)", "save it as UTF-8"]),
    ("a = " + "[" * 5_000, ["nested too deeply"]),
    (".".join("a" * 3_000) + " = 1", ["unknown section a"]),
    ("run.home = [" + "{" + ".".join("a" * 3_000) + " = 1}]", ["invalid run.home: expected a text"]),
    ("#" * 2_000_000, ["too large for a pipeline file", "2000000 bytes"]),
]


@pytest.mark.parametrize(
    ("text", "expected"), REFUSED, ids=lambda v: repr(v[:40]) if isinstance(v, str | bytes) else ""
)
def test_what_cannot_be_meant_is_named_with_its_place_and_a_way_out(
    tmp_path: Path, text: str | bytes, expected: list[str]
) -> None:
    error = refusal(tmp_path, text)
    for words in expected:
        assert words.replace("{folder}", str(tmp_path)) in str(error)
    assert "my.toml" in str(error)
    assert len(str(error)) < 1_000


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    error = refusal(tmp_path, "[rules]\ngap = 3\nlatness = '1m'\n[run]\nonce = 0\n")
    assert error.message == "the pipeline has 3 errors"
    for words in ("invalid rules.gap", "unknown key rules.latness", "invalid run.once"):
        assert words in str(error)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert load(tmp_path, b"\xef\xbb\xbf[rules]\ngap = '5m'").rules.gap == "5m"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SESSIONIZE_RULES__GPA": "1m"}, ["SESSIONIZE_RULES__GPA", "did you mean SESSIONIZE_RULES__GAP?"]),
        ({"SESSIONIZE_RULES_GAP": "1m"}, ["SESSIONIZE_RULES_GAP", "did you mean SESSIONIZE_RULES__GAP?"]),
        ({"SESSIONIZE_HOEM": "x"}, ["SESSIONIZE_HOEM", "did you mean SESSIONIZE_HOME?"]),
        ({"SESSIONIZE_QQQQQ": "x"}, ["SESSIONIZE_QQQQQ", "for example SESSIONIZE_RULES__GAP=45m"]),
        ({"SESSIONIZE_RULES__GAP": "30"}, ["environment SESSIONIZE_RULES__GAP: rules.gap = 30", "missing unit"]),
        ({"SESSIONIZE_RULES": "{ gpa = '1m' }"}, ["environment SESSIONIZE_RULES: rules.gpa", "mean gap?"]),
        (
            {"SESSIONIZE_INPUT__PATHS": "a"},
            ["environment SESSIONIZE_INPUT__PATHS", "expected a list in brackets"],
        ),
        (
            {"SESSIONIZE_HOME": "a", "SESSIONIZE_RUN__HOME": "b"},
            ["run.home is set twice", "SESSIONIZE_HOME and SESSIONIZE_RUN__HOME"],
        ),
    ],
)
def test_the_environment_is_checked_like_the_file(tmp_path: Path, environ: dict[str, str], expected: list[str]) -> None:
    error = refusal(tmp_path, "", environ=environ)
    for words in expected:
        assert words in str(error)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"rules.gpa": "1m"}, ["unknown key rules.gpa", "option: ", "did you mean gap?"]),
        ({"gap": "1m"}, ["unknown key gap", "did you mean rules.gap?"]),
        ({"rules": "1m"}, ["invalid rules: a section, not a value"]),
        ({"rules.gap.x": "1m"}, ["invalid rules.gap"]),
        ({"input.mapping": {"user": "u"}}, ["input.mapping.time is missing", "option: "]),
        ({"input.kafka.partitions": "a-b"}, ["expected partition numbers and ranges", '"0-3,7"']),
        ({"input.paths": "[a.csv]"}, ['input.paths = "[a.csv]"', """--set 'input.paths=["…"]'"""]),
    ],
)
def test_options_are_checked_like_the_file(tmp_path: Path, overrides: dict[str, object], expected: list[str]) -> None:
    error = refusal(tmp_path, "[rules]\ngap = '1m'", overrides=overrides)
    for words in expected:
        assert words in str(error)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("input.kafka.settings", "[sasl.password=geheim]"),
        ("input.kafka.settings", "sasl.password=geheim"),
        ("output.catalog.settings", "[a=b, s3.secret-access-key=geheim]"),
        ("input.kafka.password", "geheim"),
    ],
)
def test_a_secret_on_the_command_line_is_not_repeated(tmp_path: Path, key: str, value: str) -> None:
    error = refusal(tmp_path, "", overrides={key: value})
    assert " = …" in str(error)
    assert "geheim" not in str(error)


def test_a_file_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text("")
    with pytest.raises(ConfigError, match="no such pipeline file") as caught:
        load_pipeline(str(tmp_path / "shp.toml"), environ={})
    assert f"did you mean {tmp_path / 'shop.toml'}?" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_pipeline(f"{tmp_path}/", environ={})


def test_thousands_of_mistakes_are_counted_and_the_first_told(tmp_path: Path) -> None:
    error = refusal(tmp_path, "\n".join(f"key{i} = 1" for i in range(20_000)))
    assert error.message == "the pipeline has 20000 errors"
    assert "unknown key key0\n" in str(error)
    assert "- and 19990 more" in str(error)
    assert len(str(error)) < 5_000


def test_a_hostile_key_or_value_is_shown_short_and_without_control_characters(tmp_path: Path) -> None:
    key, value = "\\u001b[31m" + "k" * 100_000, "\\u001b[31m" + "v" * 100_000
    error = refusal(tmp_path, f'"{key}" = "{value}"')
    assert str(error).startswith("unknown key ?[31mkkk")
    assert "vvv" not in str(error)  # what nobody knows may be a secret
    assert "\x1b" not in str(error)
    assert len(str(error)) < 1_000
    error = refusal(tmp_path, f'[rules]\ngap = "{value}"')
    assert '= "\\u001b[31mvvv' in str(error)
    assert "\x1b" not in str(error)
    assert len(str(error)) < 1_000


@pytest.mark.parametrize(
    "text",
    [
        "settings = ['sasl.password=hunter2']",
        "settings = ['client.id=x', 'schema.registry.basic.auth.user.info=me:hunter2']",
        "format = 'avro'\nschema_registry = 'http://me:hunter2@127.0.0.1:8081'",
        "format = 'avro'\nschema_registry = 'http://me:hunter2/x@127.0.0.1:8081'",
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    told = str(refusal(tmp_path, f"[input]\nkind = 'kafka'\n[input.kafka]\n{text}"))
    assert told.startswith("invalid ")
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "text",
    [
        "[output.postgres]\ndsn = 'postgresql://me:hunter2@db/sessions'",
        "[output.postgres]\ndsn = 'postgresql://me:x/hunter2@db/sessions'",
        "[output.postgres]\ndsn = 'postgresql://me:x#hunter2?@db/sessions'",
        "[output.redis]\nurl = 'redis://:x/hunter2@cache:6379/0'",
        "[output.postgres]\ndsn = 'postgresql://db/sessions?sslmode=require&password=hunter2'",
        "[output.postgres]\ndsn = 'host=db PASSWORD = hunter2'",
        "[output.redis]\nurl = 'redis://:hunter2@cache:6379/0'",
        "[output.catalog]\nkind = 'rest'\nuri = 'https://me:hunter2@catalog'",
        "[output.catalog]\nsettings = ['adls.connection-string=hunter2']",
        "[input.kafka]\nsettings = ['ssl.key.pem=hunter2']",
    ],
)
def test_an_address_with_a_password_is_refused_before_any_command_shows_it(tmp_path: Path, text: str) -> None:
    told = str(refusal(tmp_path, text))
    assert told.startswith("invalid ")
    assert "hunter2" not in told


@pytest.mark.parametrize("dsn", ["host=db user=me passfile=/run/pass", "postgresql://me@db:5432/a?sslmode=require"])
def test_an_address_without_a_password_is_fine(tmp_path: Path, dsn: str) -> None:
    path = tmp_path / "fine.toml"
    path.write_text(f'name = "p"\n[output.postgres]\ndsn = "{dsn}"\n')
    assert load_pipeline(str(path)).output.postgres is not None


def test_a_topic_is_not_read_and_written(tmp_path: Path) -> None:
    text = "[input]\nkind = 'kafka'\n[input.kafka]\nservers = 'b:9092'\ntopic = 'clicks'\n[output.kafka]\n"
    error = refusal(tmp_path, f"{text}late = 'clicks'")
    assert "invalid output.kafka.late: this topic is the input" in str(error)
    error = refusal(tmp_path, f"{text}servers = 'b:9092'\nsessions = 'clicks'")
    assert "this topic is the input" in str(error)
    (tmp_path / "fine.toml").write_text(f"{text}servers = 'other:9092'\nlate = 'clicks'")
    load_pipeline(str(tmp_path / "fine.toml"))


def test_an_epoch_is_not_longer_than_the_future_that_is_allowed(tmp_path: Path) -> None:
    text = "[input]\nkind = 'kafka'\n[rules]\nmax_future = '5s'\n[stream]\nepoch = "
    assert "invalid rules.max_future" in str(refusal(tmp_path, f"{text}'10s'"))
    (tmp_path / "fine.toml").write_text(f"{text}'5s'")
    load_pipeline(str(tmp_path / "fine.toml"))
