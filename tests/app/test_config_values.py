"""Values in one line of text: --set, the environment, and options with a unit of their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.app.config.suggest import closest, did_you_mean
from sessionize.app.config.values import (
    format_value,
    hours_or_duration,
    minutes_or_duration,
    parse_set_option,
    parse_size_bytes,
    parse_value,
    without_secrets,
)
from sessionize.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("rules.max_duration_mode=rolling", "rules.max_duration_mode", "rolling"),
        ("rules.gap=45m", "rules.gap", "45m"),
        (' rules.gap = "45m" ', "rules.gap", "45m"),
        ("run.once=true", "run.once", True),
        ("input.generator.users=1_000", "input.generator.users", 1000),
        ("input.generator.skew=0.5", "input.generator.skew", 0.5),
        ('input.paths=["a=b", "c"]', "input.paths", ["a=b", "c"]),
        ("input.mapping={ user = 'u' }", "input.mapping", {"user": "u"}),
        ("output.path=", "output.path", ""),
        ("output.path=a=b", "output.path", "a=b"),
        ("output.path=1#2", "output.path", "1#2"),
        ("output.path=2026-01-05", "output.path", "2026-01-05"),
        ("output.path=07:30:00", "output.path", "07:30:00"),
        ("description=1\nname = 2", "description", "1\nname = 2"),
        ("description=" + "[" * 5000, "description", "[" * 5000),
    ],
)
def test_set_takes_toml_values_and_bare_words(text: str, key: str, value: object) -> None:
    found = parse_set_option(text)
    assert found == (key, value)
    assert type(found[1]) is type(value)


@pytest.mark.parametrize("text", ["", "rules.gap", "=3", "rules..gap=3", ".gap=3", "rules gap=3", "rules.gap.=1"])
def test_set_without_key_or_value_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_set_option(text)
    assert "--set rules.max_duration_mode=rolling" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("output.x.password", "output.x.password"),
        ("output.x.password hunter2", "output.x.password…"),
        ("output.x.password:hunter2", "output.x.password…"),
        ("output.x..password=hunter2", "output.x…"),
        ("=hunter2", "…"),
        ("hunter2", "…"),
        ("", "…"),
    ],
)
def test_what_is_not_a_setting_is_told_as_far_as_it_is_a_key(text: str, shown: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_set_option(text)
    assert caught.value.detail == f"--set {shown}"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("extra (a.toml)", "extra (a.toml)"),
        ("extra (x.password=hunter2)", "extra (x.password=…)"),
        ("extra (password= hunter2 more)", "extra (password=… more)"),
        ("extra (= hunter2)", "extra (=…)"),
        ("postgresql://me:hunter2@host/db", "postgresql://…@host/db"),
        ("postgresql:/me:hunter2@host/db", "postgresql:/…@host/db"),
        ("me:hunter2@127.0.0.1:9092", "…@127.0.0.1:9092"),
        ("C:/me@home/a.toml", "C:/me@home/a.toml"),
    ],
)
def test_words_without_secrets(words: str, shown: str) -> None:
    assert without_secrets(words) == shown


VALUES = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("aé .\"'", max_size=3), inner, max_size=2),
    max_leaves=5,
)


@given(VALUES)
def test_a_written_value_reads_back(value: object) -> None:
    assert parse_value(format_value(value)) == value


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("16MB", 16_000_000),
        ("1gb", 10**9),
        (" 2 GiB ", 2**31),
        ("1.5KiB", 1536),
        ("7b", 7),
        ("3TiB", 3 * 2**40),
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size_bytes(text) == size_bytes


@pytest.mark.parametrize("value", ["100", 100, 1.5, " 7 "])
def test_a_size_without_a_unit_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="missing unit") as caught:
        parse_size_bytes(value)
    assert repr(value) in str(caught.value.detail)


@pytest.mark.parametrize("value", ["", "GB", "-1GB", "1 XB", "1GB 2", True, None, ["1GB"], "1e3GB", "9" * 400 + "GB"])
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_size_bytes(value)
    assert caught.value.message == "invalid size"


@pytest.mark.parametrize(
    ("text", "gap"),
    [("30", "30m"), ("45m", "45m"), ("0.5", "30s"), ("90", "1h30m"), ("2h", "2h"), (" 5 ", "5m")],
)
def test_a_bare_inactivity_timeout_is_in_minutes(text: str, gap: str) -> None:
    assert minutes_or_duration(text, name="--gap") == gap


@pytest.mark.parametrize(
    ("text", "value", "warning"),
    [
        ("2", "2h", None),
        ("24", "1d", None),
        ("0.5", "30m", None),
        ("25", "1d1h", "25 hours; did you mean 25m?"),
        ("120", "5d", "120 hours; did you mean 120m?"),
        ("24.5", "1d30m", "24.5 hours; did you mean 24.5m?"),
        ("1e2", "4d4h", "100 hours; did you mean 100m?"),
        ("120h", "5d", None),
        ("7d", "7d", None),
        ("120m", "2h", None),
        ("None", "none", None),
    ],
)
def test_a_bare_maximum_is_in_hours_and_doubted_above_a_day(text: str, value: str, warning: str | None) -> None:
    assert hours_or_duration(text, name="--max-duration") == (value, warning)


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "1e400", "5 parsecs"])
def test_options_that_are_no_durations_name_the_option(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^invalid --gap: "):
        minutes_or_duration(text, name="--gap")
    with pytest.raises(ConfigError, match=r"^invalid --max-duration: "):
        hours_or_duration(text, name="--max-duration")


def test_suggestions_look_past_case_and_dashes() -> None:
    assert closest("Gap-Boundary", ["gap", "gap_boundary"]) == "gap_boundary"
    assert closest("gap", ["run.once", "rules.gap"]) == "rules.gap"
    assert closest("zzz", ["rules.gap"]) is None
    assert did_you_mean("zzz", ["rules.gap"]) == ""
    assert did_you_mean("rulesgap", ["rules.gap"]) == "did you mean rules.gap?"
