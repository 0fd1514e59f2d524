"""The parts of a stream, each opened as the pipeline file says: the source, the sinks, the live view.

What a part needs to be installed is said when it is asked for.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sessionize.app.config.pipeline import PipelineConfig
from sessionize.app.config.secrets import resolved
from sessionize.app.config.server_sections import KafkaOutputSection, PostgresSection
from sessionize.app.extras import requires_extra
from sessionize.app.streams.avro_input import avro_decoder, client_settings
from sessionize.app.tables.rules import owner_of
from sessionize.app.tables.warehouse import Warehouse
from sessionize.errors import OutputError, UnavailableError
from sessionize.ports import EpochSink, StreamSource
from sessionize.session.definition import SessionDefinition
from sessionize.session.tables import ENRICHED_EVENTS, EVENTS, LATE_EVENTS, REJECTED_EVENTS, SESSIONS

if TYPE_CHECKING:
    from sessionize.connectors.kafka.oversized import Unfit
    from sessionize.connectors.redis import RedisLiveView
    from sessionize.connectors.store import StoreOwner, StoreSink

TABLES = "iceberg"  # what the sink of the tables is called
POLL_RECORDS_MAX = 50_000


def instance_of(config: PipelineConfig) -> tuple[int, int] | None:
    """(i, n) when the topic is split between n processes, of which this is number i; None for a whole topic."""
    from sessionize.connectors.kafka.partitions import instance_of as instance_of_host

    kafka = config.input.kafka
    if config.input.kind != "kafka" or kafka.instances == 1:
        return None
    if kafka.instance is not None:
        return (kafka.instance, kafka.instances)
    return instance_of_host(os.uname().nodename, kafka.instances)


def state_folder(config: PipelineConfig, writer: str) -> Path:
    """Where a writer keeps its checkpoints."""
    return config.home / "state" / writer


def open_source(config: PipelineConfig, writer: str) -> StreamSource:
    """The input. Errors: ConfigError, MissingExtraError, InputError, UnavailableError."""
    if config.input.kind == "directory":
        from sessionize.connectors.files.directory_source import DirectorySource

        return DirectorySource(
            list(config.input_paths()),
            dialect=config.dialect(),
            log_path=state_folder(config, writer) / "files.book",
            exclude=_written_folders(config),
            extras=config.output.events,
            max_future_ms=config.rules.max_future_ms,
            bounded=config.run.once,
        )
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


def sinks_of(
    config: PipelineConfig,
    writer: str,
    definition: SessionDefinition,
    *,
    on_change: Callable[[str], None] = lambda change: None,
    on_unfit: "Callable[[Unfit], None]" = lambda unfit: None,
) -> dict[str, Callable[[], EpochSink]]:
    """Name -> how to open it, in the order of writing: stores, tables, and last what other programs read live.

    on_change: gets a text for each change of existing tables. on_unfit: gets rows that were too large for Kafka.
    """
    output, makers = config.output, dict[str, Callable[[], EpochSink]]()
    makers |= _stores(config, definition.user_name)
    if (postgres := output.postgres) is not None:
        makers["postgres"] = lambda: _prepared(_postgres(config, definition.user_name, postgres), definition)
    # after the stores: reconciling takes from the tables what has to be replaced, and it has to be in the stores then
    makers[TABLES] = lambda: _iceberg(config, definition, on_change)
    if (lake := output.lake) is not None:
        makers["lake"] = lambda: _lake(config, definition, lake.path)
    if (kafka := output.kafka) is not None:
        makers["kafka"] = lambda: _kafka(config, writer, definition, kafka, on_unfit)
    if output.console:
        makers["console"] = _console
    return makers


@contextmanager
def open_stores(config: PipelineConfig) -> "Iterator[list[StoreSink]]":
    """The stores that a stream writes its sessions to beside the tables, for replacing some of them.

    Errors: StateError for one with the sessions of another pipeline or of other rules, before anything is replaced.
    """
    with ExitStack() as opened:
        stores = []
        for make in _stores(config, config.dialect().user_name).values():
            stores.append(make())
            opened.callback(stores[-1].close)
            with suppress(UnavailableError, OutputError):  # the replacement itself raises it again
                stores[-1].check()
        yield stores


def live_view(config: PipelineConfig, writer: str, definition: SessionDefinition) -> "RedisLiveView | None":
    """What shows open sessions, if anything does."""
    redis = config.output.redis
    if redis is None:
        return None
    with requires_extra("redis", "updating open sessions in Redis"):
        from sessionize.connectors.redis import Login, RedisLiveView
    login = Login(url=redis.url, password_env=redis.password_env, password_file=_path(redis.password_file))
    # the keys of one process are cleared when it starts, so several must not share them
    shares = instance_of(config) is not None or (
        config.input.kind == "kafka" and config.input.kafka.partitions is not None
    )
    prefix = f"{redis.prefix}{writer}:" if shares else redis.prefix
    return RedisLiveView(login, gap_ms=definition.policy.gap_ms, prefix=prefix, user_name=definition.user_name)


def _iceberg(config: PipelineConfig, definition: SessionDefinition, on_change: Callable[[str], None]) -> EpochSink:
    catalog = Warehouse.of(config).open(create=True)
    from sessionize.connectors import iceberg

    output = config.output
    return iceberg.IcebergEpochSink(
        catalog,
        user_name=definition.user_name,
        database=output.database,
        destinations={
            SESSIONS.name: output.table,
            **({spec.name: spec.name for spec in (EVENTS, LATE_EVENTS)} if output.events else {}),
            **({REJECTED_EVENTS.name: REJECTED_EVENTS.name} if output.rejected else {}),
        },
        owner=owner_of(config),
        layout=output.layout,
        buckets=output.buckets,
        on_change=on_change,
    )


def _lake(config: PipelineConfig, definition: SessionDefinition, path: str) -> EpochSink:
    from sessionize.connectors.lake import ParquetLakeSink

    return ParquetLakeSink(config.home / Path(path).expanduser(), user_name=definition.user_name)


def _stores(config: PipelineConfig, user_name: str) -> "dict[str, Callable[[], StoreSink]]":
    """Name -> how to open it. Runs that end by themselves write to no store."""
    makers = dict[str, Callable[[], "StoreSink"]]()
    if not config.input.is_stream:
        return makers
    if (sqlite := config.output.sqlite) is not None:
        makers["sqlite"] = lambda: _sqlite(config, user_name, sqlite.path)
    if (postgres := config.output.postgres) is not None:
        makers["postgres"] = lambda: _postgres(config, user_name, postgres)
    return makers


def _sqlite(config: PipelineConfig, user_name: str, path: str) -> "StoreSink":
    from sessionize.connectors.store import StoreSink
    from sessionize.connectors.store.sqlite import SqliteDatabase

    file = config.home / Path(path).expanduser()
    owner = _store_owner(config, str(file), "give each pipeline its own output.sqlite.path, or its own home")
    return StoreSink(SqliteDatabase(file), user_name=user_name, owner=owner)


def _postgres(config: PipelineConfig, user_name: str, section: PostgresSection) -> "StoreSink":
    with requires_extra("postgres", "writing to PostgreSQL"):
        from sessionize.connectors.store import StoreSink
        from sessionize.connectors.store.postgres import Login, PostgresDatabase

    login = Login(dsn=section.dsn, password_env=section.password_env, password_file=_path(section.password_file))
    owner = _store_owner(config, str(login), "give each pipeline its own database or schema: output.postgres.dsn")
    return StoreSink(PostgresDatabase(login), user_name=user_name, owner=owner)


def _store_owner(config: PipelineConfig, where: str, elsewhere: str) -> "StoreOwner":
    """The pipeline as a store knows it. elsewhere: what to do to write to another one."""
    from sessionize.connectors.store import StoreOwner

    return StoreOwner(spec=config.spec(), where=where, elsewhere=elsewhere)


def _prepared(sink: "StoreSink", definition: SessionDefinition) -> EpochSink:
    """Connected, with its tables made: wrong credentials are an error now, not after the first epoch."""
    try:
        sink.prepare(definition.columns.schema(definition.user_name))
    except BaseException:
        sink.close()
        raise
    return sink


def _kafka(
    config: PipelineConfig,
    writer: str,
    definition: SessionDefinition,
    section: KafkaOutputSection,
    on_unfit: "Callable[[Unfit], None]",
) -> EpochSink:
    with requires_extra("kafka", "writing to Kafka"):
        from sessionize.connectors.kafka.epoch_sink import KafkaEpochSink

    same = section.servers is None
    topics = {
        SESSIONS.name: section.sessions,
        ENRICHED_EVENTS.name: section.enriched,
        LATE_EVENTS.name: section.late,
        REJECTED_EVENTS.name: section.rejected,
    }
    return KafkaEpochSink(
        config.input.kafka.servers if section.servers is None else section.servers,
        {table: topic for table, topic in topics.items() if topic is not None},
        writer=writer,
        user_name=definition.user_name,
        security=client_settings(resolved(section.settings or (config.input.kafka.settings if same else ()))),
        oversized=section.oversized,
        on_unfit=on_unfit,
    )


def _console() -> EpochSink:
    from sessionize.connectors.console import ConsoleSink

    return ConsoleSink(sys.stdout)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text).expanduser()
