"""Kind -> factory: how every source, sink, store and live view that a pipeline file can name is opened.

One table for each sort of part: a new kind is one entry. A factory takes its own section, and the run that it is for.
What a part needs to be installed is said when it is opened; nothing heavy is loaded before.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.config.secrets import as_shown, resolved
from sessionize.app.config.sections import InputSection, OutputSection
from sessionize.app.config.server_sections import (
    KafkaInputSection,
    KafkaOutputSection,
    LakeSection,
    PostgresSection,
    SqliteSection,
)
from sessionize.app.extras import requires_extra
from sessionize.app.streams.avro_input import avro_decoder, client_settings
from sessionize.app.streams.names import instance_of, shares_topic, state_folder
from sessionize.app.tables.rules import owner_of
from sessionize.app.tables.warehouse import Warehouse
from sessionize.errors import OutputError, UnavailableError
from sessionize.ports import EpochSink, LiveView, StreamSource
from sessionize.session.definition import SessionDefinition
from sessionize.session.output_tables import ENRICHED_EVENTS, EVENTS, LATE_EVENTS, REJECTED_EVENTS, SESSIONS

if TYPE_CHECKING:
    from sessionize.app.config.server_sections import RedisSection
    from sessionize.app.inputs import LoadSource
    from sessionize.connectors.kafka.oversized import Unfit
    from sessionize.connectors.sql_store import StoreOwner, StoreSink

TABLES = "iceberg"  # what the sink of the tables is called
POLL_RECORDS_MAX = 50_000


# ---- sources ----


def _files(config: PipelineConfig, now_ms: int) -> "LoadSource":
    from sessionize.app.inputs import Reading, open_input

    how = Reading(
        warehouse=lambda database, table: Warehouse.of_input(config),
        dialect=config.dialect(),
        input_format=config.input.as_format(),
        extras=True,
        max_future_ms=config.rules.max_future_ms,
        now_ms=now_ms,
    )
    return open_input(config.input_paths(), how)


def _generator(config: PipelineConfig, now_ms: int) -> "LoadSource":
    from sessionize.app.tables.generated_loads import GeneratedInput

    fields = config.dialect().fields
    return GeneratedInput(config.generator(), max_future_ms=config.rules.max_future_ms, now_ms=now_ms, fields=fields)


def _directory(config: PipelineConfig, writer: str) -> StreamSource:
    from sessionize.connectors.files.directory_source import DirectorySource

    return DirectorySource(
        list(config.input_paths()),
        dialect=config.dialect(),
        input_format=config.input.as_format(),
        log_path=state_folder(config, writer) / "files.book",
        exclude=_written_folders(config),
        extras=config.output.events,
        max_future_ms=config.rules.max_future_ms,
        bounded=config.run.once,
    )


def _topic(config: PipelineConfig, writer: str) -> StreamSource:
    with requires_extra("kafka", "reading from Kafka"):
        from sessionize.connectors.kafka.same_topic import check_same_topic
        from sessionize.connectors.kafka.stream_source import KafkaSource
        from sessionize.connectors.kafka.topic_id import topic_id
    kafka = config.input.kafka
    security = client_settings(resolved(kafka.settings))
    source = KafkaSource(
        kafka.servers,
        kafka.topic,
        config.dialect(),
        decoder=avro_decoder(config, extras=config.output.events),
        extras=config.output.events,
        partitions=kafka.partitions,
        instance=instance_of(config),
        security=security,
        max_future_ms=config.rules.max_future_ms,
        start=kafka.start,
        bounded=config.run.once,
        on_expired=kafka.on_expired,
        batch_records=min(config.stream.epoch_rows, POLL_RECORDS_MAX),
    )
    try:
        check_same_topic(state_folder(config, writer), kafka.topic, topic_id(kafka.servers, kafka.topic, security))
    except BaseException:
        source.close()
        raise
    return source


def _written_folders(config: PipelineConfig) -> list[Path]:
    """Where the pipeline itself writes files, which may lie below a followed folder."""
    warehouse, lake = config.output.catalog.warehouse, config.output.lake
    found = [config.home / name for name in ("state", "warehouse", "reconcile-pending", "rejected-retry")]
    if warehouse is not None and "://" not in (local := warehouse.removeprefix("file://")):
        found.append(Path(local).expanduser())
    return found if lake is None else [*found, config.home / Path(lake.path).expanduser()]


# input.kind -> what opens it. What has an end takes the present; what has none, the writer whose state it goes on from.
SOURCES: "Mapping[str, Callable[[PipelineConfig, int], LoadSource]]" = {"files": _files, "generator": _generator}
STREAM_SOURCES: Mapping[str, Callable[[PipelineConfig, str], StreamSource]] = {"kafka": _topic, "directory": _directory}


def _share(kafka: KafkaInputSection) -> str:
    if kafka.partitions is not None:
        return f", partitions {kafka.partitions}"
    return f", one of {kafka.instances} processes" if kafka.instances > 1 else ""


# input.kind -> what is read, in words, without anything that may be secret.
INPUTS: Mapping[str, Callable[[InputSection], str]] = {
    "files": lambda section: ", ".join(section.paths) or "no files are named",
    "generator": lambda section: f"generated events of the profile {section.profile}",
    "kafka": lambda section: (
        f"topic {section.kafka.topic} at {as_shown('servers', section.kafka.servers)}{_share(section.kafka)}"
    ),
    "directory": lambda section: (
        f"files that come into {', '.join(section.paths) or 'folders, of which none is named'}"
    ),
}


# ---- sinks of epochs ----


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkRun:
    """The run that a sink is opened for.

    on_change: gets a text for each change of existing tables. on_unfit: gets rows that were too large for Kafka.
    """

    config: PipelineConfig
    writer: str
    definition: SessionDefinition
    on_change: Callable[[str], None] = lambda change: None
    on_unfit: "Callable[[Unfit], None]" = lambda unfit: None

    @property
    def user_name(self) -> str:
        """What the user column is called."""
        return self.definition.user_name


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkKind:
    """A kind of output of a stream.

    section: its part of the pipeline file, None where the pipeline has none. open: makes the sink of a section.
    destination: where it writes to, in words, without anything that may be secret.
    """

    section: Callable[[OutputSection], Any]
    open: Callable[[Any, SinkRun], EpochSink]
    destination: Callable[[Any, PipelineConfig], str]


def _iceberg(output: OutputSection, run: SinkRun) -> EpochSink:
    catalog = Warehouse.of(run.config).open(create=True)
    from sessionize.connectors import iceberg

    return iceberg.IcebergEpochSink(
        catalog,
        user_name=run.user_name,
        database=output.database,
        destinations={
            SESSIONS.name: output.table,
            **({spec.name: spec.name for spec in (EVENTS, LATE_EVENTS)} if output.events else {}),
            **({REJECTED_EVENTS.name: REJECTED_EVENTS.name} if output.rejected else {}),
        },
        owner=owner_of(run.config),
        layout=output.layout,
        buckets=output.buckets,
        on_change=run.on_change,
    )


def _lake(section: LakeSection, run: SinkRun) -> EpochSink:
    from sessionize.connectors.parquet_lake import ParquetLakeSink

    return ParquetLakeSink(_in_home(section.path, run.config), user_name=run.user_name)


def _kafka(section: KafkaOutputSection, run: SinkRun) -> EpochSink:
    with requires_extra("kafka", "writing to Kafka"):
        from sessionize.connectors.kafka.epoch_sink import KafkaEpochSink

    source = run.config.input.kafka
    same = section.servers is None
    return KafkaEpochSink(
        source.servers if section.servers is None else section.servers,
        _topics(section),
        writer=run.writer,
        user_name=run.user_name,
        security=client_settings(resolved(section.settings or (source.settings if same else ()))),
        oversized=section.oversized,
        on_unfit=run.on_unfit,
    )


def _console(section: bool, run: SinkRun) -> EpochSink:
    from sessionize.connectors.console import ConsoleSink

    return ConsoleSink(sys.stdout)


def _sqlite(section: SqliteSection, config: PipelineConfig) -> "StoreSink":
    from sessionize.connectors.sql_store import StoreSink
    from sessionize.connectors.sql_store.sqlite import SqliteDatabase

    file = _in_home(section.path, config)
    owner = _store_owner(config, str(file), "give each pipeline its own output.sqlite.path, or its own home")
    return StoreSink(SqliteDatabase(file), user_name=config.dialect().user_name, owner=owner)


def _postgres(section: PostgresSection, config: PipelineConfig) -> "StoreSink":
    with requires_extra("postgres", "writing to PostgreSQL"):
        from sessionize.connectors.sql_store import StoreSink
        from sessionize.connectors.sql_store.postgres import Login, PostgresDatabase

    login = Login(dsn=section.dsn, password_env=section.password_env, password_file=_path(section.password_file))
    owner = _store_owner(config, str(login), "give each pipeline its own database or schema: output.postgres.dsn")
    return StoreSink(PostgresDatabase(login), user_name=config.dialect().user_name, owner=owner)


def _prepared_postgres(section: PostgresSection, run: SinkRun) -> EpochSink:
    """Connected, with its tables made: wrong credentials are an error now, not after the first epoch."""
    sink = _postgres(section, run.config)
    try:
        sink.prepare(run.definition.columns.schema(run.user_name))
    except BaseException:
        sink.close()
        raise
    return sink


def _store_owner(config: PipelineConfig, where: str, elsewhere: str) -> "StoreOwner":
    """The pipeline as a store knows it. elsewhere: what to do to write to another one."""
    from sessionize.connectors.sql_store import StoreOwner

    return StoreOwner(spec=config.spec(), where=where, elsewhere=elsewhere)


def _topics(section: KafkaOutputSection) -> dict[str, str]:
    """Table -> topic, of those that are written."""
    topics = {
        SESSIONS.name: section.sessions,
        ENRICHED_EVENTS.name: section.enriched,
        LATE_EVENTS.name: section.late,
        REJECTED_EVENTS.name: section.rejected,
    }
    return {table: topic for table, topic in topics.items() if topic is not None}


def _topics_in_words(section: KafkaOutputSection, config: PipelineConfig) -> str:
    servers = as_shown("servers", section.servers or config.input.kafka.servers)
    return f"topics {', '.join(_topics(section).values())} at {servers}"


# Name -> kind, in the order of writing: stores, tables, and last what other programs read live. Reconciling takes from
# the tables what has to be replaced, and it has to be in the stores by then.
SINKS: Mapping[str, SinkKind] = {
    "sqlite": SinkKind(
        section=lambda output: output.sqlite,
        open=lambda section, run: _sqlite(section, run.config),
        destination=lambda section, config: str(_in_home(section.path, config)),
    ),
    "postgres": SinkKind(
        section=lambda output: output.postgres,
        open=_prepared_postgres,
        destination=lambda section, config: str(as_shown("dsn", section.dsn)),
    ),
    TABLES: SinkKind(
        section=lambda output: output,
        open=_iceberg,
        destination=lambda output, config: f"{output.database}.{output.table} in {config.home}",
    ),
    "lake": SinkKind(
        section=lambda output: output.lake,
        open=_lake,
        destination=lambda section, config: str(_in_home(section.path, config)),
    ),
    "kafka": SinkKind(section=lambda output: output.kafka, open=_kafka, destination=_topics_in_words),
    "console": SinkKind(
        section=lambda output: output.console or None,
        open=_console,
        destination=lambda section, config: "standard output",
    ),
}
# Stores of the sessions beside the tables, which reconciling and `rejected retry` keep equal to them.
STORES: "Mapping[str, Callable[[Any, PipelineConfig], StoreSink]]" = {"sqlite": _sqlite, "postgres": _postgres}


def sinks_of(run: SinkRun) -> dict[str, Callable[[], EpochSink]]:
    """Name -> how to open it, in the order of writing."""
    return {name: lambda kind=kind, its=its: kind.open(its, run) for name, kind, its in _chosen(run.config)}  # type: ignore[misc]


def destinations_of(config: PipelineConfig) -> tuple[tuple[str, str], ...]:
    """Name and destination of each sink of a stream, in the order of writing."""
    return tuple((name, kind.destination(its, config)) for name, kind, its in _chosen(config))


def _chosen(config: PipelineConfig) -> Iterator[tuple[str, SinkKind, Any]]:
    for name, kind in SINKS.items():
        section = kind.section(config.output)
        if section is not None:
            yield name, kind, section


@contextmanager
def open_stores(config: PipelineConfig) -> "Iterator[list[StoreSink]]":
    """The stores that a stream writes its sessions to beside the tables, for replacing some of them.

    Runs that end by themselves write to no store. Errors: StateError for one with the sessions of another pipeline or
    of other rules, before anything is replaced.
    """
    with ExitStack() as opened:
        stores = []
        for name, make in STORES.items() if config.input.is_stream else ():
            section = SINKS[name].section(config.output)
            if section is None:
                continue
            stores.append(make(section, config))
            opened.callback(stores[-1].close)
            with suppress(UnavailableError, OutputError):  # the replacement itself raises it again
                stores[-1].check()
        yield stores


# ---- live views ----


def _redis(section: "RedisSection", run: SinkRun) -> LiveView:
    with requires_extra("redis", "updating open sessions in Redis"):
        from sessionize.connectors.redis import Login, RedisLiveView
    login = Login(url=section.url, password_env=section.password_env, password_file=_path(section.password_file))
    # the keys of one process are cleared when it starts, so several must not share them
    prefix = f"{section.prefix}{run.writer}:" if shares_topic(run.config) else section.prefix
    policy = run.definition.policy
    gap_ms = policy.longest_silence_ms + policy.inclusive_ms  # the longest of all gaps
    return RedisLiveView(login, gap_ms=gap_ms, prefix=prefix, user_name=run.user_name)


LIVE_VIEWS: Mapping[str, Callable[[Any, SinkRun], LiveView]] = {"redis": _redis}


def live_view(run: SinkRun) -> LiveView | None:
    """What shows open sessions, if anything does."""
    output = run.config.output
    return next((make(its, run) for name, make in LIVE_VIEWS.items() if (its := getattr(output, name))), None)


def _in_home(path: str, config: PipelineConfig) -> Path:
    return config.home / Path(path).expanduser()


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text).expanduser()
