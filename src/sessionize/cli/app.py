"""The commands together, and what becomes of errors: exit 0 done, 1 failed, 2 wrong use."""

import os
import sys

import typer

from sessionize.cli import demo, files, pipelines, produce, tables
from sessionize.cli.output import print_error
from sessionize.errors import ConfigError, SessionizeError

app = typer.Typer(
    name="sessionize",
    help="Turns clickstream events into user sessions, from files, generators and tables, by one set of rules.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(pipelines.run)
app.command("batch")(files.batch)
app.command("label")(files.label)
app.command("produce")(produce.produce)
app.command("query")(tables.query)
app.command("explain")(tables.explain)
app.command("pruning")(tables.pruning)
app.command("init")(pipelines.init)
app.command("demo")(demo.demo)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and end.")) -> None:
    if version:
        from importlib.metadata import version as installed

        sys.stdout.write(f"sessionize {installed('sessionize')}\n")
        raise typer.Exit


def main() -> None:
    """Run the command line of this process."""
    try:
        app()
    except ConfigError as error:
        print_error(error)
        sys.exit(2)
    except SessionizeError as error:
        print_error(error)
        sys.exit(1)
    except BrokenPipeError:
        # whoever read our output has seen enough; the interpreter must not complain again while shutting down
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
