"""A stream on the terminal: a line that says how things stand, and what it came to at the end."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessionize.app.config import PipelineConfig
    from sessionize.engine.status import Status

_REDRAW_PER_S = 4


def run_stream(config: "PipelineConfig", *, as_json: bool) -> None:
    """Run a pipeline whose input has no end, until it is told to stop (or, with run.once, all is read)."""
    import time

    import pyarrow as pa

    from sessionize.app.logs import StreamLog
    from sessionize.app.opening import StoppedError
    from sessionize.app.streaming import open_stream
    from sessionize.cli import output as out
    from sessionize.cli.stopping import stopped_by_signals

    # Arrow's own allocator gives memory back between polls and has it cleared again: half of a stream's system time.
    pa.set_memory_pool(pa.system_memory_pool())
    started = time.perf_counter()
    drawn = sys.stderr.isatty() and not as_json
    try:
        follows = "finishing this epoch (once more to give up; the next run repeats what is open)"
        with status_line(enabled=drawn) as show:
            # a terminal shows the line, and warnings above it; everybody else gets the log, and nothing beside it
            level = "WARNING" if drawn else config.run.log_level
            log = StreamLog(config.name, level=level, outages=not drawn, dialect=config.dialect().name)
            say = None if drawn else lambda then: log.note("stopping", then=then)
            with (
                stopped_by_signals(follows, say) as stopping,
                log.listening(),
                open_stream(config, stopping=stopping, on_status=show, log=log) as opened,
            ):
                totals = opened.run()
    except StoppedError as stopped:
        if drawn:
            sys.stderr.write(f"{stopped.message}; nothing was read or written\n")
        else:
            log.note("stopped", why=f"{stopped.message}; nothing was read or written")
        return
    seconds = time.perf_counter() - started
    if as_json:
        out.print_json({**totals.as_dict(), "output": opened.describe(), "seconds": round(seconds, 3)})
    if not drawn:
        log.note(
            "stopped",
            totals=totals.as_dict(),
            balanced=totals.balanced,
            watermark_ms=opened.engine.watermark_ms,
            output=opened.describe(),
        )
    elif config.run.log_level in ("DEBUG", "INFO"):
        engine = opened.engine
        out.print_totals(
            totals,
            None,
            opened.describe(),
            open_sessions=engine.open_sessions,
            watermark_ms=engine.watermark_ms,
        )


@contextmanager
def status_line(*, enabled: bool) -> "Iterator[Any]":
    """Something to give each Status to, which draws it on stderr."""
    if not enabled:
        yield lambda status: None
        return
    from rich.live import Live

    from sessionize.cli.output import console

    latest: list[Status] = []
    with Live(
        get_renderable=lambda: drawing(latest[-1]) if latest else "starting …",
        console=console(stderr=True),
        refresh_per_second=_REDRAW_PER_S,
        transient=True,
    ):

        def show(status: "Status") -> None:
            latest[:] = [status]

        yield show


def drawing(status: "Status") -> Any:
    """How things stand, as a small table."""
    from datetime import UTC, datetime

    from rich.table import Table

    from sessionize.cli.output import escaped

    def number(value: int | None) -> str:
        return "?" if value is None else f"{value:,}"

    watermark = "none yet"
    if status.watermark_ms is not None:
        try:
            at = datetime.fromtimestamp(status.watermark_ms / 1000, UTC)
            # the day only where it is not today, as the line is to fit into eighty columns
            watermark = at.strftime("%H:%M:%S" if at.date() == datetime.now(UTC).date() else "%Y-%m-%d %H:%M:%S")
        except (OverflowError, ValueError):
            watermark = f"{status.watermark_ms} ms"
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("records", "/s", "behind", "pending", "watermark", "open", "late", "rejected", "epoch"):
        table.add_column(name, justify="left" if name == "watermark" else "right", no_wrap=True)
    epoch = "–" if status.last_epoch is None else f"{status.last_epoch.epoch:,}"
    table.add_row(
        number(status.consumed),
        f"{status.rate:,.0f}",
        number(status.behind),
        number(status.pending),
        watermark,
        number(status.open_sessions),
        number(status.late),
        number(status.rejected),
        epoch,
    )
    told = [] if status.doing is None else [escaped(status.doing)]
    if status.last_epoch is not None and status.last_epoch.mostly_late:
        last = status.last_epoch
        told.append(f"epoch {last.epoch:,} is mostly late: {last.late:,} of {last.consumed:,} records")
    for who, why in status.away.items():
        waits = "waits" if who == "reconcile" else "is away"  # that is us, not a server
        told.append(f"{escaped(who)} {waits}: {escaped(why)}, trying again")
    if any(status.unfit):
        told.append(f"too large for Kafka: {status.unfit[0]:,} rows shortened, {status.unfit[1]:,} skipped")
    if told:
        table.caption = "; ".join(told)
        warns = status.away or status.unfit[1] or (status.last_epoch is not None and status.last_epoch.mostly_late)
        table.caption_style, table.caption_justify = "yellow" if warns else "dim", "left"
    return table
