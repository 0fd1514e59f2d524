"""`rejected show` and `rejected retry`: rejected records, and decoding them again."""

from typing import Annotated

import typer

from sessionize.cli import options as opt
from sessionize.cli.declared import for_typer
from sessionize.cli.usage import Command
from sessionize.errors import ConfigError

app = typer.Typer(help="Show rejected records, or retry them.", no_args_is_help=False)
_RAW_SHOWN = 200
_FILES_SHOWN = 5

Pipeline = Annotated[
    str | None,
    typer.Argument(
        metavar="PIPELINE",
        help="Preset or .toml file that decodes them now; default: the preset that wrote the tables.",
    ),
]
Reason = Annotated[str | None, typer.Option(help="Only records with this reason.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the changes without making them.")]


@app.callback(invoke_without_command=True)
@for_typer
def rejected(
    context: typer.Context,
    pipeline: opt.PipelineOrNone = None,
    home: opt.HomeOrNone = None,
    database: opt.DatabaseOrNone = None,
    as_json: opt.Json = False,
) -> None:
    """Show rejected records (default), or retry them."""
    if context.invoked_subcommand is None:
        show(pipeline=pipeline, home=home, database=database, as_json=as_json)
        return
    sources = (context.get_parameter_source(name) for name in context.params)
    if any(source is not None and source.name == "COMMANDLINE" for source in sources):
        raise ConfigError(
            "options must follow the command",
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
    """Show every reason with its count and an example."""
    from rich.padding import Padding
    from rich.text import Text

    from sessionize.app.tables.retry_rejected import rejected_reasons
    from sessionize.app.tables.warehouse import find_warehouse
    from sessionize.cli import output as out

    found = rejected_reasons(find_warehouse(pipeline, home, database))
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
    settings: opt.Set = None,
    home: opt.HomeOverride = None,
    dry_run: DryRun = False,
    as_json: opt.Json = False,
) -> None:
    """Decode rejected records again; valid ones become late events, which `reconcile` merges."""
    from sessionize.app.tables.retry_rejected import retry_pipeline
    from sessionize.cli import output as out

    done = retry_pipeline(pipeline, settings, home, reason=reason, dry_run=dry_run, warn=out.print_warning)
    if as_json:
        out.print_json(done.as_dict())
        return
    rows = [("examined", f"{done.looked_at:,}", "")]
    if done.finished:
        rows.append(("finished", f"{done.finished:,}", "of an interrupted retry"))
    rows.append(("valid now", f"{done.usable:,}", "would move to late_events" if dry_run else "moved to late_events"))
    if done.cut_off:
        rows.append(("skipped", f"{sum(done.cut_off.values()):,}", "of files whose load was interrupted or is running"))
    rows += [(f"still {why}", f"{count:,}", "") for why, count in sorted(done.unusable.items())]
    out.print_table("what would change" if dry_run else "retried", ["", "records", ""], rows, right=(1,))
    if done.cut_off:
        names = sorted(done.cut_off)
        more = f" and {len(names) - _FILES_SHOWN:,} more" if len(names) > _FILES_SHOWN else ""
        out.print_warning(f"run these files again to replace their records: {', '.join(names[:_FILES_SHOWN])}{more}")


def _cut(raw: bytes | None) -> str:
    text = "" if raw is None else raw[: _RAW_SHOWN + 1].decode("utf-8", "backslashreplace")
    return text if len(text) <= _RAW_SHOWN else f"{text[:_RAW_SHOWN]}…"
