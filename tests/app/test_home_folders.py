"""Where tables are looked for: what is named, else the only home there is; several are listed."""

from pathlib import Path

import pytest

from sessionize.app.config.pipeline import explain_config, load_pipeline
from sessionize.app.tables.home_folders import home_of_table, homes_in, only_home
from sessionize.app.tables.rules import pipeline_of_home
from sessionize.app.tables.warehouse import find_warehouse
from sessionize.connectors.iceberg import IcebergSink, Owner, open_catalog, user_sessions
from sessionize.errors import ConfigError
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.session.spec import SessionSpec
from tests.connectors.iceberg.writing import sessions, write_all

DATA = Path("sessionize-data")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SESSIONIZE_HOME", raising=False)


def make(home: Path, pipeline: str | None, database: str = "sessions", table: str = "user_sessions") -> None:
    owner = None
    if pipeline is not None:
        spec = SessionSpec.of(Policy(), Rules(), pipeline=pipeline, user_column="user")
        owner = Owner(spec=spec, sessions=table, elsewhere="")
    sink = IcebergSink(open_catalog(home), user_sessions(), database=database, table=table, owner=owner)
    write_all(sink, sessions(1))


def test_a_pipeline_has_a_home_called_after_it() -> None:
    config = load_pipeline("kafka_stream", environ={})
    assert config.home == DATA / "kafka_stream"
    assert ("run.home", '"sessionize-data/kafka_stream"', "default") in explain_config(config)
    assert load_pipeline("kafka_stream", environ={}, overrides={"name": "web"}).home == DATA / "web"
    assert load_pipeline("kafka_stream", environ={"SESSIONIZE_HOME": "/x"}).home == Path("/x")


@pytest.mark.parametrize("state", ["kafka_stream", "kafka_stream-3", "kafka_stream-p0-3_7", "mine"])
def test_a_stream_of_an_earlier_version_goes_on_where_it_is(state: str) -> None:
    (DATA / "state" / state).mkdir(parents=True)
    assert load_pipeline("kafka_stream", environ={}, overrides={"stream.writer": "mine"}).home == DATA
    assert load_pipeline("kafka_stream", environ={}, overrides={"name": "kafka"}).home == DATA / "kafka"


def test_the_only_home_is_meant() -> None:
    with pytest.raises(ConfigError, match="no tables yet"):
        only_home()
    make(DATA / "web", "web")
    (DATA / "notes").mkdir()
    assert find_warehouse(None, None, None).home == DATA / "web"
    assert homes_in(DATA) == [DATA / "web"]


def test_several_homes_are_listed_with_the_options_to_write() -> None:
    make(DATA / "web", "web")
    make(DATA / "shop", "shop")
    for home in (None, DATA):
        with pytest.raises(ConfigError) as caught:
            find_warehouse(None, home, None)
        assert "--home sessionize-data/shop or --home sessionize-data/web" in str(caught.value)
    assert find_warehouse(None, DATA / "shop", None).home == DATA / "shop"
    assert find_warehouse("kafka_stream", None, None).home == DATA / "kafka_stream"
    assert find_warehouse("kafka_stream", DATA / "web", None).home == DATA / "web"


def test_tables_of_an_earlier_version_are_a_home_like_others() -> None:
    make(DATA, None)
    assert find_warehouse(None, None, None).home == DATA
    make(DATA / "web", "web")
    with pytest.raises(ConfigError, match="--home sessionize-data or --home sessionize-data/web"):
        find_warehouse(None, None, None)
    assert find_warehouse(None, DATA, None).home == DATA


def test_the_only_database_is_meant() -> None:
    make(DATA / "mine", "batch", database="mine", table="s")
    assert find_warehouse(None, None, None).database == "mine"
    assert find_warehouse(None, None, "other").database == "other"
    make(DATA / "mine", "batch", database="yours", table="s")
    with pytest.raises(ConfigError, match="--iceberg-database mine or --iceberg-database yours"):
        find_warehouse(None, None, None)
    make(DATA / "mine", "web")
    assert find_warehouse(None, None, None).database == "sessions"  # the usual one


def test_a_table_of_batch_is_in_a_home_called_after_its_database() -> None:
    assert home_of_table("mine", "s") == DATA / "mine"
    make(DATA, None, database="mine", table="s")
    assert home_of_table("mine", "s") == DATA  # where an earlier version made it
    assert home_of_table("mine", "t") == DATA / "mine"


def test_the_pipeline_that_made_the_tables_is_known_by_them() -> None:
    make(DATA / "a", "kafka_stream")
    assert pipeline_of_home(DATA / "a") == "kafka_stream"
    make(DATA / "old", None)
    assert pipeline_of_home(DATA / "old") is None
    make(DATA / "b", "web")
    with pytest.raises(ConfigError, match=r"made by a pipeline file[^$]*web\.toml"):
        pipeline_of_home(DATA / "b")
    make(DATA / "c", "batch")
    make(DATA / "c", "label", table="labels")
    with pytest.raises(ConfigError, match="`label` made has no events beside it"):
        pipeline_of_home(DATA / "c")
    make(DATA / "c", "kafka_stream", database="web")
    assert pipeline_of_home(DATA / "c") == "kafka_stream"
    make(DATA / "b", "shop", database="other")
    with pytest.raises(ConfigError, match="several pipelines"):
        pipeline_of_home(DATA / "b")
