"""The commands together, and what becomes of errors: exit 0 done, 1 failed, 2 wrong use."""

import gc
import os
import signal
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from sessionize.cli import demo, explain, files, maintain, pipelines, produce, reconcile, rejected, tables
from sessionize.cli.output import print_error
from sessionize.errors import ConfigError, SessionizeError

_INTERRUPTED = 130
_WRONG_USE: Any = typer.BadParameter.__mro__[1]  # click's UsageError, wherever typer keeps its click


class _Commands(TyperGroup):
    """The commands; where the words of a command line are told as wrong, those that may be secrets are left out."""

    def invoke(self, ctx: Any) -> Any:
        """As the base class says."""
        try:
            return super().invoke(ctx)
        except _WRONG_USE as error:
            from sessionize.app.options import without_secrets

            error.message = without_secrets(error.message)
            raise


app = typer.Typer(
    cls=_Commands,
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
app.command("explain")(explain.explain)
app.command("pruning")(tables.pruning)
app.command("reconcile")(reconcile.reconcile)
app.add_typer(rejected.app, name="rejected")
app.command("maintain")(maintain.maintain)
app.command("init")(pipelines.init)
app.command("demo")(demo.demo)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and end.")) -> None:
    if version:
        from importlib.metadata import version as installed

        sys.stdout.write(f"sessionize {installed('sessionize')}\n")
        raise typer.Exit


def main() -> None:
    """Run the command line of this process, and end it."""
    # Rows live in arrays, not in objects; the default would look through the same few objects hundreds of times.
    gc.set_threshold(100_000, 50, 50)
    # Arrow's allocator may use large pages where the system has them: a third less system time on ten million events.
    os.environ.setdefault("MIMALLOC_ALLOW_LARGE_OS_PAGES", "1")
    code = run_command_line()
    # Everything is committed and closed. Freeing a gigabyte piece by piece would only take a tenth of a second more.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
    os._exit(code)


def run_command_line() -> int:
    """Run the command that this process was started with; returns its exit code."""
    # like Ctrl-C: temporary files are removed on the way out
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except SystemExit as end:
        code = _code_of(end)
        if code == _INTERRUPTED:  # what typer makes of a Ctrl-C that nobody has taken, in silence
            sys.stderr.write("interrupted\n")
        return code
    except ConfigError as error:
        print_error(error)
        return 2
    except SessionizeError as error:
        print_error(error)
        return 1
    except BrokenPipeError:
        # whoever read our output has seen enough; the interpreter must not complain again while shutting down
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return _INTERRUPTED
    except Exception:
        traceback.print_exc()
        return 1
    return 0


class _Terminated(SystemExit):
    """The process is asked to end; a plain SystemExit might come from a function of the user's."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated(128 + number)


def _code_of(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    sys.stderr.write(f"{end.code}\n")
    return 1
