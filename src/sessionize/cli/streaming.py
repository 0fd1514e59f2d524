"""A stream on the terminal: its status while it runs, and its result at the end."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sessionize.app.runs import RunPlan

_LOG_WAITS_S = 2.0  # how long a stream waits for a reader of its log that takes nothing


def run_stream(planned: "RunPlan", *, as_json: bool) -> None:
    """Run a pipeline whose input has no end, until it is asked to stop (or, with run.once, all is read)."""
    import time

    import pyarrow as pa

    from sessionize.app.hooks import Hooks
    from sessionize.app.streams.logs import StreamLog
    from sessionize.app.streams.startup import StoppedError
    from sessionize.cli import output as out
    from sessionize.cli.signals import stopped_by_signals
    from sessionize.cli.standard_streams import dropped_lines, never_wait_longer_than
    from sessionize.cli.terminal.status_line import status_line
    from sessionize.engine.run_events import Observers, StreamStopping

    config = planned.config
    never_wait_longer_than(_LOG_WAITS_S)
    # Arrow's own allocator gives memory back between polls and has it cleared again: half of a stream's system time.
    pa.set_memory_pool(pa.system_memory_pool())
    started = time.perf_counter()
    drawn = sys.stderr.isatty() and not as_json
    try:
        follows = "finishing this epoch (press Ctrl-C again to abort; the next run repeats unfinished work)"
        with status_line(enabled=drawn) as line:
            # a terminal shows the status line, with warnings above it; elsewhere stderr is the log and nothing else
            level = "WARNING" if drawn else config.run.log_level
            log = StreamLog(
                config.name,
                level=level,
                outages=not drawn,
                readable=drawn,
                dropped=dropped_lines,
            )
            say = None if drawn else lambda then: log.on_event(StreamStopping(then=then))
            with (
                stopped_by_signals(follows, say) as stopping,
                planned.open(Hooks(stopping=stopping, observer=Observers(log, line))) as opened,
            ):
                accounting = opened.run()
    except StoppedError as stopped:
        if drawn:
            sys.stderr.write(f"{stopped.message}; nothing was read or written\n")
        return
    seconds = time.perf_counter() - started
    dropped = {"log_lines_dropped": dropped_lines()} if dropped_lines() else {}
    if as_json:
        run = {"output": planned.destination, "rules": config.policy().describe(), "seconds": round(seconds, 3)}
        out.print_json({**accounting.as_dict(), **run, **dropped})
    if drawn and config.run.log_level in ("DEBUG", "INFO"):
        out.print_accounting(
            accounting,
            None,
            planned.destination,
            rules=config.policy().describe(),
            open_sessions=opened.open_sessions or 0,
            watermark_ms=opened.watermark_ms,
        )
