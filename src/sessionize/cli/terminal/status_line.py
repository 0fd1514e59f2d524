"""The status lines of a stream on a terminal: drawn again some times a second, as wide as the terminal is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from sessionize.engine.run_events import Event, Observer
    from sessionize.engine.run_events.reports import Status

_REDRAW_PER_S = 4
_STALE_S = 5.0  # without news for so long, the last known lag is no longer the lag
_SHORT_FROM = 1_000_000
_GAP = "  "


class StatusLine:
    """An Observer that draws the newest Status, with the run time and the ages of the last commit and of the lag.

    now_s: monotonic seconds. now_ms: ms since 1970, UTC.
    """

    def __init__(
        self,
        *,
        now_s: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._now_s, self._now_ms = now_s, now_ms
        self._started_s = now_s()
        self._status: Status | None = None
        self._shown_s = self._started_s
        self._epoch: tuple[int, float] | None = None  # the last committed one, and when it was reported
        self._last_lag: tuple[int, float] | None = None  # the last known lag, and when it was known
        self._unavailable_s: dict[str, float] = {}

    def on_event(self, event: "Event", /) -> None:
        """Draw the status that an event brings."""
        from sessionize.engine.run_events import StatusChanged

        if isinstance(event, StatusChanged):
            self.show(event.status)

    def show(self, status: "Status") -> None:
        """Draw this status."""
        now_s = self._now_s()
        last = status.last_epoch
        if last is not None and (self._epoch is None or self._epoch[0] != last.epoch):
            self._epoch = (last.epoch, now_s)
        if status.lag is not None:
            self._last_lag = (status.lag, now_s)
        self._unavailable_s = {who: self._unavailable_s.get(who, now_s) for who in status.unavailable}
        self._status, self._shown_s = status, now_s

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """The lines, each within the width of the terminal."""
        from rich.text import Text

        if self._status is None:
            yield Text("starting …", style="dim")
            return
        line, length = Text(no_wrap=True, overflow="ellipsis"), 0
        for label, value in self._items(self._status):
            item = Text.assemble((f"{label} ", "dim"), value) if label else Text(value)
            if length and length + len(_GAP) + len(item) > options.max_width:
                yield line
                line, length = Text(no_wrap=True, overflow="ellipsis"), 0
            if length:
                line.append(_GAP)
            line.append_text(item)
            length = len(line)
        yield line
        for text, style in self._notes(self._status):
            yield Text(text, style=style)

    def _items(self, status: "Status") -> Iterator[tuple[str, str]]:
        now_s = self._now_s()
        yield "up", lasted(now_s - self._started_s)
        yield "records", short(status.consumed)
        yield "", f"{short(round(status.rate))}/s"
        lag = self._lag(status, now_s)
        if lag is not None:
            yield lag
        yield "pending", short(status.pending)
        yield "open", short(status.open_sessions)
        yield "sessions", short(status.sessions)
        yield "late", short(status.late)
        yield "rejected", short(status.rejected)
        yield "watermark", self._watermark(status.watermark_ms)
        if self._epoch is None:
            yield "epoch", "none yet"
        else:
            yield "epoch", f"{self._epoch[0]:,}, {lasted(now_s - self._epoch[1])} ago"

    def _lag(self, status: "Status", now_s: float) -> tuple[str, str] | None:
        """How many records are left to read; where that cannot be known now, the last that was known and its age."""
        if self._last_lag is None:
            return ("lag", "unknown") if status.unavailable else None
        lag, known_s = self._last_lag
        if status.lag is not None and now_s - self._shown_s < _STALE_S:
            return "lag", short(lag)
        return "lag", f"unknown ({short(lag)} {lasted(now_s - known_s)} ago)"

    def _watermark(self, watermark_ms: int | None) -> str:
        if watermark_ms is None:
            return "none yet"
        try:
            at = datetime.fromtimestamp(watermark_ms / 1000, UTC)
        except (OverflowError, ValueError):
            return f"{watermark_ms} ms"
        today = datetime.fromtimestamp(self._now_ms() / 1000, UTC).date()
        return at.strftime("%H:%M:%S" if at.date() == today else "%Y-%m-%d %H:%M:%S")

    def _notes(self, status: "Status") -> Iterator[tuple[str, str]]:
        """What needs a sentence, and its style: the phase, late epochs, unavailable servers."""
        from sessionize.cli.output import shown

        if status.phase is not None:
            yield shown(status.phase), "dim"
        last = status.last_epoch
        if last is not None and last.mostly_late:
            yield f"epoch {last.epoch:,} is mostly late: {last.late:,} of {last.consumed:,} records", "yellow"
        if any(status.unfit):
            shortened, skipped = status.unfit
            text = f"too large for Kafka: {shortened:,} rows shortened, {skipped:,} skipped"
            yield text, "yellow" if skipped else "dim"
        for who, why in status.unavailable.items():
            lasts = lasted(self._now_s() - self._unavailable_s[who])
            # reconcile is a part of this process, not a server
            state = "is waiting" if who == "reconcile" else "is unavailable"
            yield f"{shown(who)} {state}, retrying for {lasts}: {shown(why)}", "yellow"


@contextmanager
def status_line(*, enabled: bool) -> "Iterator[Observer]":
    """An Observer that draws the status on stderr; one that does nothing where it is not enabled."""
    if not enabled:
        from sessionize.engine.run_events import UNOBSERVED

        yield UNOBSERVED
        return
    from rich.live import Live

    from sessionize.cli.output import console

    line = StatusLine()
    with Live(line, console=console(stderr=True), refresh_per_second=_REDRAW_PER_S, transient=True):
        yield line


def short(number: int) -> str:
    """A number in at most seven characters: 654,321 in full, 12,345,678 as 12.3M."""
    if abs(number) < _SHORT_FROM:
        return f"{number:,}"
    for unit, size in (("M", 10**6), ("G", 10**9), ("T", 10**12), ("P", 10**15)):
        if abs(number) < 999.5 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.2e}"


def lasted(seconds: float) -> str:
    """A length of time in two units at most: 5s, 2m10s, 3h05m, 2d04h."""
    whole = max(0, int(seconds))
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d{h:02}h"
    if hours:
        return f"{h}h{m:02}m"
    return f"{m}m{s:02}s" if m else f"{s}s"
