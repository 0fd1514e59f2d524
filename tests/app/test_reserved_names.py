"""Names that cannot be used are refused with the configuration, before a table is made."""

from pathlib import Path

import pytest

from sessionize.app.config.sections import _RESERVED_TABLES
from sessionize.app.files import FilePlan
from sessionize.connectors.iceberg import EVENTS, LATE_EVENTS, LOADS, REJECTED_EVENTS
from sessionize.errors import ConfigError
from sessionize.formats.dialects import Dialect, dialect_named
from sessionize.session.output_tables import warehouse_names
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from tests.app.loads import pipeline, two_files


@pytest.mark.parametrize("table", [EVENTS, LATE_EVENTS, REJECTED_EVENTS, LOADS])
def test_tables_beside_the_sessions_are_reserved(tmp_path: Path, table: str) -> None:
    assert set(_RESERVED_TABLES) == {*warehouse_names("user_sessions"), LOADS} - {"user_sessions"}
    with pytest.raises(ConfigError, match=r"(?s)output\.table.*reserved for another table"):
        pipeline(two_files(tmp_path), **{"output.table": table})


def test_the_list_of_loads_is_no_output(tmp_path: Path) -> None:
    plan = FilePlan(
        what="sessions",
        inputs=(str(two_files(tmp_path) / "in"),),
        output="iceberg:mine.loads",
        dialect=dialect_named("clicks"),
        policy=Policy(),
        rules=Rules(),
        home=tmp_path / "home",
    )
    with pytest.raises(ConfigError, match="loads is reserved for the list of loads"):
        plan.open()
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", ['a"b', "a\\b", 'deep.a"b'])
def test_a_field_that_no_decoder_takes_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"(?s)input\.mapping\.user.*cannot be mapped"):
        pipeline(two_files(tmp_path), **{"input.mapping.user": name})
    with pytest.raises(ConfigError, match=r"(?s)cannot be mapped.*user = "):
        Dialect.mapping(user=name, time="t")


def test_other_odd_names_are_taken() -> None:
    assert Dialect.mapping(user="a'b é/\u2028{}", time="@timestamp").columns
