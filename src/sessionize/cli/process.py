"""The process of a command: what becomes of its errors and signals. Exit 0 done, 1 failed, 2 wrong use."""

import gc
import os
import signal
import sys

from sessionize.cli import standard_streams
from sessionize.cli.fast_batch import quick_command
from sessionize.cli.output import print_error
from sessionize.cli.signals import swallowed, terminate
from sessionize.errors import ConfigError, SessionizeError

_INTERRUPTED = 128 + signal.SIGINT
_ENDED_BY_SIGNAL = {_INTERRUPTED: "interrupted", 128 + signal.SIGTERM: "terminated"}


def main() -> None:
    """Run the command line of this process, and end it."""
    try:
        code = _run()
    except KeyboardInterrupt:  # before the command began, or after it ended
        sys.stderr.write(f"{_ENDED_BY_SIGNAL[_INTERRUPTED]}\n")
        code = _INTERRUPTED
    sys.stderr.flush()
    # Everything is committed and closed. Freeing a gigabyte piece by piece would only take a tenth of a second more.
    os._exit(code)


def _run() -> int:
    standard_streams.install()
    sys.unraisablehook = swallowed
    # Rows live in arrays, not in objects; the default would look through the same few objects hundreds of times.
    gc.set_threshold(100_000, 50, 50)
    # Arrow's allocator may use large pages where the system has them: a third less system time on ten million events.
    os.environ.setdefault("MIMALLOC_ALLOW_LARGE_OS_PAGES", "1")
    code = run_command_line()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or 1
    except SessionizeError as error:
        if not code:  # else it has been printed: what is left in the buffer fails again
            print_error(error)
        code = code or 1
    return code


def run_command_line() -> int:
    """Run the command that this process was started with; returns its exit code."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        command = quick_command(sys.argv[1:])
        if command is None:
            from sessionize.cli.app import app

            app()
        else:
            command()
    except SystemExit as end:
        code = _code_of(end)
        if code in _ENDED_BY_SIGNAL:
            sys.stderr.write(f"{_ENDED_BY_SIGNAL[code]}\n")
        return code
    except ConfigError as error:
        print_error(error)
        return 2
    except SessionizeError as error:
        print_error(error)
        return 1
    except BrokenPipeError:
        return 1  # whoever read our output has seen enough
    except KeyboardInterrupt:
        sys.stderr.write(f"{_ENDED_BY_SIGNAL[_INTERRUPTED]}\n")
        return _INTERRUPTED
    except ModuleNotFoundError as error:
        from sessionize.app.extras import missing_extra

        missing = missing_extra(error)
        if missing is None:
            return _unforeseen()
        print_error(missing)
        return 1
    except Exception:
        return _unforeseen()
    return 0


def _unforeseen() -> int:
    import traceback

    traceback.print_exc()
    return 1


def _code_of(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    sys.stderr.write(f"{end.code}\n")
    return 1
