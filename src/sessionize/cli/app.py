"""The commands together."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from sessionize.cli import (
    batch,
    check,
    demo,
    diff,
    explain,
    init,
    inspect,
    label,
    maintain,
    produce,
    pruning,
    query,
    reconcile,
    rejected,
    run,
    sql,
    tune,
)
from sessionize.cli.declared import for_typer
from sessionize.cli.usage import Command

_WRONG_USE: Any = typer.BadParameter.__mro__[1]  # click's UsageError, wherever typer keeps its click


class _Commands(TyperGroup):
    """The commands; where the words of a command line are reported as wrong, those that may be secrets are left out."""

    def invoke(self, ctx: Any) -> Any:
        """As the base class says."""
        try:
            return super().invoke(ctx)
        except _WRONG_USE as error:
            from sessionize.app.config.values import without_secrets

            error.message = without_secrets(error.message)
            raise


app = typer.Typer(
    cls=_Commands,
    name="sessionize",
    help="Turns clickstream events into user sessions, in batch and streaming, with one set of rules.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", cls=Command)(for_typer(run.run))
app.command("batch", cls=Command)(for_typer(batch.batch))
app.command("label", cls=Command)(for_typer(label.label))
app.command("produce", cls=Command)(for_typer(produce.produce))
app.command("query", cls=Command)(for_typer(query.query))
app.command("sql", cls=Command)(for_typer(sql.sql))
app.command("explain", cls=Command)(for_typer(explain.explain))
app.command("diff", cls=Command)(for_typer(diff.diff))
app.command("check", cls=Command)(for_typer(check.check))
app.command("inspect", cls=Command)(for_typer(inspect.inspect))
app.command("tune", cls=Command)(for_typer(tune.tune))
app.command("pruning", cls=Command)(for_typer(pruning.pruning))
app.command("reconcile", cls=Command)(for_typer(reconcile.reconcile))
app.add_typer(rejected.app, name="rejected")
app.command("maintain", cls=Command)(for_typer(maintain.maintain))
app.command("init", cls=Command)(for_typer(init.init))
app.command("demo", cls=Command)(for_typer(demo.demo))


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from importlib.metadata import version as installed

        sys.stdout.write(f"sessionize {installed('sessionize')}\n")
        raise typer.Exit
