"""`run` and `init`: a pipeline file or preset, run once; every option overrides one of its keys."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sessionize.cli import options as opt
from sessionize.errors import MissingExtraError

if TYPE_CHECKING:
    from sessionize.app.config.pipeline import PipelineConfig
    from sessionize.app.pipelines import PipelineRun
    from sessionize.engine.accounting import Accounting, Progress

DEFAULT_PIPELINE = "user_sessionization_pipeline"
# What --test-mode runs on: enough to see every column filled, over in a moment.
TEST_MODE = {"input.kind": "generator", "input.generator.events": 5_000, "input.generator.users": 50, "run.once": True}

Pipeline = Annotated[str, typer.Argument(metavar="PIPELINE", help="Name of a preset, or a .toml file.")]
Inputs = Annotated[
    list[str] | None, typer.Option("--input", help="Files to read instead of the pipeline's input; repeatable.")
]
Servers = Annotated[
    str | None,
    typer.Option("--kafka-servers", help="Brokers, comma-separated.", rich_help_panel="Kafka"),
]
Topic = Annotated[str | None, typer.Option("--kafka-topic", help="The topic to read.", rich_help_panel="Kafka")]
Partitions = Annotated[
    str | None, typer.Option(help="Partitions to read: 0-3,7. Default: all.", rich_help_panel="Kafka")
]
TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over",
        help="Take over the partitions of drained processes with another assignment.",
        rich_help_panel="Kafka",
    ),
]
Once = Annotated[bool, typer.Option("--once", help="Read what is there, close every session, and exit.")]
TestMode = Annotated[
    bool, typer.Option("--test-mode", help="Check the installation: sample data, once, into a temporary folder.")
]
Database = Annotated[str | None, typer.Option(help="Iceberg database.", rich_help_panel="Output")]
TableName = Annotated[str | None, typer.Option(help="Iceberg table of the sessions.", rich_help_panel="Output")]
Lateness = Annotated[
    str | None,
    typer.Option(
        help="How far behind the newest events an event may be and still be on time.", rich_help_panel="Rules"
    ),
]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any key; repeatable.")]
LogLevel = Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.", rich_help_panel="Run")]
HomeOverride = Annotated[Path | None, typer.Option(help="Folder for tables, catalog and state.", rich_help_panel="Run")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print every setting and its source, and exit.")]


def run(
    pipeline: Pipeline = DEFAULT_PIPELINE,
    inputs: Inputs = None,
    once: Once = False,
    again: opt.Again = False,
    new_only: opt.NewOnly = False,
    test_mode: TestMode = False,
    kafka_servers: Servers = None,
    kafka_topic: Topic = None,
    partitions: Partitions = None,
    take_over: TakeOver = False,
    iceberg_database: Database = None,
    iceberg_table: TableName = None,
    gap: opt.GapOrNone = None,
    max_duration: opt.MaxDurationOrNone = None,
    lateness: Lateness = None,
    settings: Set = None,
    home: HomeOverride = None,
    log_level: LogLevel = None,
    dry_run: DryRun = False,
    as_json: opt.Json = False,
) -> None:
    """Run a pipeline: read events, write sessions."""
    from sessionize.app.config.pipeline import load_pipeline
    from sessionize.app.config.values import parse_set_option

    overrides: dict[str, object] = {}
    if inputs:
        overrides |= {"input.kind": "files", "input.paths": list(inputs)}
    if kafka_servers is not None or kafka_topic is not None or partitions is not None:
        overrides |= {
            "input.kind": "kafka",
            "input.kafka.servers": kafka_servers,
            "input.kafka.topic": kafka_topic,
            "input.kafka.partitions": partitions,
        }
    if take_over:
        overrides["input.kafka.take_over"] = True
    if test_mode:
        overrides |= TEST_MODE
    if once:
        overrides["run.once"] = True
    if gap is not None:
        overrides["rules.gap"] = opt.gap_of(gap)
    if max_duration is not None:
        overrides["rules.max_duration"] = opt.max_of(max_duration)
    overrides |= {
        "input.known_files": opt.known_files_of(again, new_only),
        "output.database": iceberg_database,
        "output.table": iceberg_table,
        "rules.lateness": lateness,
        "run.log_level": log_level,
        "run.home": None if home is None else str(home),
    }
    overrides |= dict(parse_set_option(text) for text in settings or ())
    if test_mode and home is None:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="sessionize-test-") as folder:
            overrides["run.home"] = folder
            config = load_pipeline(pipeline, overrides=overrides)
            _run(config, dry_run=dry_run, as_json=as_json, show=True, temporary=True)
        return
    _run(load_pipeline(pipeline, overrides=overrides), dry_run=dry_run, as_json=as_json, show=test_mode)


def configured(pipeline: str | None, settings: list[str] | None, home: Path | None) -> "PipelineConfig":
    """The pipeline with what --set and --home put in place of its keys; without one, the preset that made the tables.

    Errors: ConfigError, also where the tables are several homes', or a pipeline's that has to be given.
    """
    from sessionize.app.config.pipeline import load_pipeline
    from sessionize.app.config.values import parse_set_option

    overrides: dict[str, object] = {"run.home": None if home is None else str(home)}
    overrides |= dict(parse_set_option(text) for text in settings or ())
    if pipeline is not None:
        return load_pipeline(pipeline, overrides=overrides)
    from sessionize.app.tables.homes import check_home, only_home
    from sessionize.app.tables.rules import pipeline_of_home

    config = load_pipeline(DEFAULT_PIPELINE, overrides=overrides)
    found = only_home() if config.run.home is None else config.home
    check_home(found)
    overrides["run.home"] = str(found)
    return load_pipeline(pipeline_of_home(found) or DEFAULT_PIPELINE, overrides=overrides)


def init(
    preset: Annotated[
        str | None, typer.Argument(metavar="PRESET", help="The preset to print; default: list all.")
    ] = None,
) -> None:
    """Print a preset as a pipeline file to edit: sessionize init NAME > my.toml."""
    from sessionize.app.config.presets import preset_names, preset_text

    if preset is not None:
        sys.stdout.write(preset_text(preset))
        return
    from sessionize.cli.output import print_table

    print_table("presets", ["name", "description"], preset_names())
    sys.stderr.write("to copy one:  sessionize init NAME > my.toml   then:  sessionize run my.toml\n")


def _run(config: "PipelineConfig", *, dry_run: bool, as_json: bool, show: bool, temporary: bool = False) -> None:
    from sessionize.app.config.pipeline import explain_config
    from sessionize.app.pipelines import plan_pipeline
    from sessionize.cli import output as out
    from sessionize.cli.progress import shown

    if dry_run:
        lines = explain_config(config)
        if as_json:
            out.print_json({key: {"value": value, "from": origin} for key, value, origin in lines})
        else:
            out.print_table(f"pipeline {config.name}", ["key", "value", "from"], lines)
        return
    if config.input.is_stream:
        from sessionize.cli.streaming import run_stream

        run_stream(config, as_json=as_json)
        return
    started = time.perf_counter()
    opened = plan_pipeline(config).open(on_change=_noted)
    with opened.outputs.aborted_on_error(), shown(opened.source.size_bytes, enabled=not as_json) as progress:
        accounting, cut_short = _stoppable(opened, progress)
    seconds = time.perf_counter() - started
    where = (
        "a temporary folder, now removed"
        if temporary
        else config.output.path or f"{config.output.database}.{config.output.table} in {config.home}"
    )
    rules = config.policy().describe()
    out.warn_of_absent_fields(accounting, config.dialect())
    if as_json:
        told = {**accounting.as_dict(), "output": where, "rules": rules, "seconds": round(seconds, 3)}
        out.print_json({**told, "cut_short": True} if cut_short else told)
        return
    if config.run.log_level in ("DEBUG", "INFO"):
        out.print_accounting(accounting, seconds, where, rules=rules)
    if cut_short:
        sys.stderr.write("stopped early: these are the sessions of the events generated until then\n")
    if show and config.output.kind == "iceberg":
        from sessionize.app.tables.warehouse import Warehouse

        try:
            out.print_rows("the largest sessions", Warehouse.of(config).largest_sessions(config.output.table))
        except MissingExtraError as missing:  # the run itself is done
            sys.stderr.write(f"{missing.message}: {missing.hint}\n")


def _stoppable(opened: "PipelineRun", progress: "Progress") -> "tuple[Accounting, bool]":
    """Run; a signal aborts a run over files, and ends generated events early: (totals, whether it did)."""
    from sessionize.cli.signals import aborted_by_signals, stopped_by_signals

    if opened.config.input.kind == "files":
        with aborted_by_signals() as abortable:
            return opened.run(abortable.watching(progress)), False
    cut_short = False

    def stop() -> bool:
        nonlocal cut_short
        cut_short = stopping.is_set()
        return cut_short

    with stopped_by_signals("finishing the sessions so far (press Ctrl-C again to abort)") as stopping:
        accounting = opened.run(progress, stop=stop)
    return accounting, cut_short


def _noted(change: str) -> None:
    sys.stderr.write(f"note: {change}\n")
