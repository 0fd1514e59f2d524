"""`run`: a pipeline file or preset; every option overrides one of its keys."""

import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated

from sessionize.app.options import RunOptions
from sessionize.cli import options as opt
from sessionize.cli.declared import argument, group, option
from sessionize.errors import MissingExtraError
from sessionize.session.names import DATA_QUALITY_CHECKER

if TYPE_CHECKING:
    from sessionize.app.config.pipeline import PipelineConfig
    from sessionize.app.runs import RunPlan
    from sessionize.engine.accounting import Accounting

_OPTIONS = group(
    pipeline=argument(metavar="PIPELINE", help="Name of a preset, or a .toml file."),
    inputs=option("--input", help="Files to read instead of the pipeline's input; repeatable."),
    once=option("--once", help="Read what is there, close every session, and exit."),
    again=opt.AGAIN,
    new_only=opt.NEW_ONLY,
    test_mode=option("--test-mode", help="Check the installation: sample data, once, into a temporary folder."),
    kafka_servers=option("--kafka-servers", help="Brokers, comma-separated.", rich_help_panel="Kafka"),
    kafka_topic=option("--kafka-topic", help="The topic to read.", rich_help_panel="Kafka"),
    partitions=option(help="Partitions to read: 0-3,7. Default: all.", rich_help_panel="Kafka"),
    take_over=option(
        "--take-over",
        help="Take over the partitions of drained processes with another assignment.",
        rich_help_panel="Kafka",
    ),
    iceberg_database=option(help="Iceberg database.", rich_help_panel="Output"),
    iceberg_table=option(help="Iceberg table of the sessions.", rich_help_panel="Output"),
    gap=opt.GAP,
    max_duration=opt.MAX_DURATION,
    lateness=option(
        help="How far behind the newest events an event may be and still be on time.", rich_help_panel="Rules"
    ),
    settings=option("--set", metavar="KEY=VALUE", help="Override any key; repeatable."),
    home=option(help="Folder for tables, catalog and state.", rich_help_panel="Run"),
    log_level=option(help="DEBUG, INFO, WARNING or ERROR.", rich_help_panel="Run"),
)
DryRun = Annotated[bool, option("--dry-run", help="Print the plan and every setting with its source, and exit.")]


def run(
    options: Annotated[RunOptions, _OPTIONS],
    dry_run: DryRun = False,
    as_json: opt.Json = False,
) -> None:
    """Run a pipeline: read events, write sessions."""
    from sessionize.app.runs import plan
    from sessionize.cli import output as out

    if options.pipeline == DATA_QUALITY_CHECKER and not dry_run:
        from sessionize.cli.check import check

        check(options.inputs, home=options.home, as_json=as_json)
        return
    with options.loaded(warn=out.print_warning) as config:
        planned = plan(config)
        if dry_run:
            _print_plan(planned, as_json=as_json)
        elif config.input.is_stream:
            from sessionize.cli.streaming import run_stream

            run_stream(planned, as_json=as_json)
        else:
            where = "a temporary folder, now removed" if options.is_temporary else planned.destination
            _run(planned, where, as_json=as_json, show=options.test_mode)


def _print_plan(planned: "RunPlan", *, as_json: bool) -> None:
    """The run in a few lines, and every setting: key, value, where it came from."""
    from sessionize.app.config.pipeline import explain_config
    from sessionize.cli import output as out

    settings = explain_config(planned.config)
    if as_json:
        shown: dict[str, object] = {key: {"value": value, "from": origin} for key, value, origin in settings}
        out.print_json({"plan": {"value": dict(planned.lines()), "from": "the settings"}, **shown})
        return
    out.print_table("plan", ["", "value"], planned.lines())
    out.print_table(f"pipeline {planned.pipeline}", ["key", "value", "from"], settings)


def _run(planned: "RunPlan", where: str, *, as_json: bool, show: bool) -> None:
    from sessionize.cli import output as out

    started, config = time.perf_counter(), planned.config
    accounting, cut_short = _counted(planned, as_json=as_json)
    seconds = time.perf_counter() - started
    rules = config.policy().describe()
    dialect, repeats = config.dialect(), config.policy().repeats_ids
    out.warn_of_input(accounting, dialect, dialect.conversion_events, config.input.paths, repeats_ids=repeats)
    if as_json:
        result = {**accounting.as_dict(), "output": where, "rules": rules, "seconds": round(seconds, 3)}
        out.print_json({**result, "cut_short": True} if cut_short else result)
        return
    if config.run.log_level in ("DEBUG", "INFO"):
        out.print_accounting(accounting, seconds, where, rules=rules)
    if cut_short:
        sys.stderr.write("stopped early: these are the sessions of the events generated until then\n")
    if show and config.output.kind == "iceberg":
        _print_sessions(config)


def _counted(planned: "RunPlan", *, as_json: bool) -> "tuple[Accounting, bool]":
    """Run; a signal aborts a run over files, and ends generated events early: (totals, whether it did)."""
    from sessionize.app.hooks import Hooks
    from sessionize.cli.progress import shown
    from sessionize.cli.signals import aborted_by_signals, stopped_by_signals

    stopping = threading.Event()
    with (
        planned.open(Hooks(on_note=_print_note, stopping=stopping)) as opened,
        shown(opened.size_bytes, enabled=not as_json) as progress,
    ):
        if not planned.can_be_stopped:
            with aborted_by_signals() as abortable:
                return opened.run(abortable.watching(progress)), False
        follows = "finishing the sessions so far (press Ctrl-C again to abort)"
        with stopped_by_signals(follows, stopping=stopping):
            return opened.run(progress), opened.cut_short


def _print_note(note: str) -> None:
    sys.stderr.write(f"note: {note}\n")


def _print_sessions(config: "PipelineConfig") -> None:
    from sessionize.app.tables.warehouse import Warehouse
    from sessionize.cli import output as out

    try:
        out.print_rows("the largest sessions", Warehouse.of(config).largest_sessions(config.output.table))
    except MissingExtraError as missing:  # the run itself is done
        sys.stderr.write(f"{missing.message}: {missing.hint}\n")
