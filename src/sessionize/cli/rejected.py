"""`rejected show` and `rejected retry`: what could not be used, and bringing it back once it can be."""

from typing import Annotated

import typer

from sessionize.cli import options as opt
from sessionize.cli.declared import for_typer
from sessionize.cli.pipelines import HomeOverride, Set, configured
from sessionize.cli.usage import Command
from sessionize.errors import ConfigError

app = typer.Typer(help="Rejected records: show them, or try them again.", no_args_is_help=False)
_RAW_SHOWN = 200
_FILES_SHOWN = 5

Pipeline = Annotated[
    str | None,
    typer.Argument(
        metavar="PIPELINE",
        help="The preset or .toml file that reads them now; when left out the preset that the tables name.",
    ),
]
Reason = Annotated[str | None, typer.Option(help="Only records with this reason.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")]


@app.callback(invoke_without_command=True)
@for_typer
def rejected(
    context: typer.Context,
    pipeline: opt.PipelineOrNone = None,
    home: opt.HomeOrNone = None,
    database: opt.DatabaseOrNone = None,
    as_json: opt.Json = False,
) -> None:
    """Rejected records: show them (also without a command), or try them again."""
    if context.invoked_subcommand is None:
        show(pipeline, home, database, as_json)
        return
    sources = (context.get_parameter_source(name) for name in context.params)
    if any(source is not None and source.name == "COMMANDLINE" for source in sources):
        raise ConfigError(
            "the options stand before the command that is to have them",
            detail=f"rejected … {context.invoked_subcommand}",
            hint=f"write them after it: sessionize rejected {context.invoked_subcommand} --home DIR",
        )


@app.command("show", cls=Command)
@for_typer
def show(
    pipeline: opt.PipelineOrNone = None,
    home: opt.HomeOrNone = None,
    database: opt.DatabaseOrNone = None,
    as_json: opt.Json = False,
) -> None:
    """Every reason with its count and an example."""
    from rich.padding import Padding
    from rich.text import Text

    from sessionize.app.tables.retry_rejected import rejected_reasons
    from sessionize.cli import output as out

    place = opt.place_of(pipeline, home, database)
    found = rejected_reasons(place.home, database=place.database, catalog=place.catalog)
    if as_json:
        texts = [(each, None if each.raw is None else each.raw.decode("utf-8", "backslashreplace")) for each in found]
        out.print_json(
            [
                {
                    "reason": each.reason,
                    "count": each.count,
                    "example": {
                        "source": each.source, "line_number": each.line_number, "detail": each.detail, "raw": text
                    },
                }
                for each, text in texts
            ]
        )  # fmt: skip
        return
    console = out.console()
    console.print(f"{sum(each.count for each in found):,} rejected records")
    for each in found:  # not a table: records are long, and columns of fifteen characters cannot be read
        console.print()
        console.print(f"[bold]{out.escaped(each.reason)}[/]  {each.count:,}, for example")
        example = (f"{each.source}:{each.line_number}", each.detail, _cut(each.raw))
        for line, style in zip(example, ("", "", "dim"), strict=True):
            if line:
                console.print(Padding(Text(out.shown(line), style=style, overflow="fold"), (0, 0, 0, 2)))


@app.command("retry", cls=Command)
@for_typer
def retry(
    pipeline: Pipeline = None,
    reason: Reason = None,
    settings: Set = None,
    home: HomeOverride = None,
    dry_run: DryRun = False,
    as_json: opt.Json = False,
) -> None:
    """Decode rejected records again; what is good now joins the late events, and `reconcile` takes it from there."""
    from sessionize.app.streams.build import open_stores
    from sessionize.app.tables.retry_rejected import retry_rejected
    from sessionize.app.tables.rules import by_the_tables
    from sessionize.cli import output as out

    config = by_the_tables(configured(pipeline, settings, home), warn=out.print_warning)
    with open_stores(config) as stores:
        done = retry_rejected(config.home, config, reason=reason, dry_run=dry_run, stores=stores)
    if as_json:
        out.print_json(done.as_dict())
        return
    rows = [("looked at", f"{done.looked_at:,}", "")]
    if done.finished:
        rows.append(("finished", f"{done.finished:,}", "of a retry that was interrupted"))
    rows.append(("usable now", f"{done.usable:,}", "would join late_events" if dry_run else "joined late_events"))
    if done.cut_off:
        rows.append(("not tried", f"{sum(done.cut_off.values()):,}", "of files whose load was cut off or is under way"))
    rows += [(f"still {why}", f"{count:,}", "") for why, count in sorted(done.unusable.items())]
    out.print_table("what would change" if dry_run else "tried again", ["", "records", ""], rows, right=(1,))
    if done.cut_off:
        names = sorted(done.cut_off)
        more = f" and {len(names) - _FILES_SHOWN:,} more" if len(names) > _FILES_SHOWN else ""
        out.print_warning(
            f"run these files again, which replaces their records: {', '.join(names[:_FILES_SHOWN])}{more}"
        )


def _cut(raw: bytes | None) -> str:
    text = "" if raw is None else raw[: _RAW_SHOWN + 1].decode("utf-8", "backslashreplace")
    return text if len(text) <= _RAW_SHOWN else f"{text[:_RAW_SHOWN]}…"
