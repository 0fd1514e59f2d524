"""Generated records to a stream of bytes: as fast as they can be written, or in real time.

In real time a record is written when it arrives: start_ms is the moment the writing starts.
"""

import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from sessionize.connectors.generator.arrival import EVENT
from sessionize.connectors.generator.settings import (
    DAY_MS,
    GeneratedTotals,
    GeneratorSettings,
    ProfileName,
)
from sessionize.connectors.generator.stream import Block, Stream, Tally
from sessionize.connectors.generator.wire import user_name
from sessionize.errors import OutputError

# Records that arrive so close together are written together.
_TICK_S = 0.005


@dataclass(frozen=True, slots=True)
class LateRecord:
    """An event that was held back. time_ms: when it happened. arrival_ms: when it came. line: its bytes."""

    user: str
    time_ms: int
    arrival_ms: int
    line: bytes


@dataclass(frozen=True, slots=True)
class Timer:
    """Where real time comes from: a clock that never goes back, and a way to wait; both in seconds."""

    now_s: Callable[[], float] = time.monotonic
    sleep_s: Callable[[float], None] = time.sleep


def write_lines(
    settings: GeneratorSettings,
    out: BinaryIO,
    *,
    realtime: bool = False,
    progress: Callable[[int], None] | None = None,
    on_late: Callable[[LateRecord], None] | None = None,
    timer: Timer | None = None,
) -> GeneratedTotals:
    """Write the records of a run as lines of JSON, and say what was written.

    progress is called with the number of events so far; on_late with each late event as it is written.
    A reader that goes away (BrokenPipeError) or Ctrl-C ends the run; the totals then say complete=False and
    count what was handed over. Errors: OutputError when the stream cannot take the bytes.
    """
    tally = Tally(settings)
    complete = False
    try:
        for block, start, stop in _pieces(settings, timer or Timer(), realtime=realtime):
            out.write(block.text(start, stop))
            if realtime:
                out.flush()
            tally.add(block, start, stop)
            if on_late is not None:
                _report_late(block, start, stop, on_late)
            if progress is not None:
                progress(tally.events)
        out.flush()
        complete = True
    except (BrokenPipeError, KeyboardInterrupt):
        pass
    except OSError as error:
        raise OutputError(
            "the generated records cannot be written",
            detail=f"{error.strerror or error} after {tally.events} events",
            hint="check the space on the disk and the permissions",
        ) from error
    return tally.totals(complete=complete)


def _pieces(settings: GeneratorSettings, timer: Timer, *, realtime: bool) -> Iterator[tuple[Block, int, int]]:
    """What to write next, as (block, start, stop); in real time not before it is due."""
    began_s = timer.now_s()
    for block in Stream(settings).blocks():
        if not realtime:
            yield block, 0, len(block)
            continue
        due_s = began_s + (block.records.arrival_ms - settings.start_ms) / 1_000
        start = 0
        while start < len(block):
            wait_s = float(due_s[start]) - timer.now_s()
            if wait_s > 0:
                timer.sleep_s(wait_s)
            # Whatever was slept too long, or falls due within a tick, goes out at once.
            stop = max(int(np.searchsorted(due_s, timer.now_s() + _TICK_S)), start + 1)
            yield block, start, stop
            start = stop


def _report_late(block: Block, start: int, stop: int, on_late: Callable[[LateRecord], None]) -> None:
    records = block.records
    late = records.late[start:stop] & (records.role[start:stop] == EVENT)
    for row in (start + np.flatnonzero(late)).tolist():
        on_late(
            LateRecord(
                user=user_name(int(records.steps.user[row])),
                time_ms=int(records.time_ms[row]),
                arrival_ms=int(records.arrival_ms[row]),
                line=bytes(block.text(row, row + 1)),
            )
        )


def sample(profile: ProfileName, n: int = 5, *, seed: int = 0) -> list[dict[str, Any]]:
    """The first n records of one visit, as the consumer of the profile will see them."""
    settings = GeneratorSettings(profile=profile, users=1, events=max(40 * n, 400), duration_ms=7 * DAY_MS, seed=seed)
    visits: dict[int, list[dict[str, Any]]] = {}
    for block in Stream(settings).blocks():
        for visit, line in zip(block.records.steps.visit.tolist(), block.lines.to_pylist(), strict=True):
            visits.setdefault(visit, []).append(json.loads(line))
            if len(visits[visit]) == n:
                return visits[visit]
    return [record for visit in visits.values() for record in visit][:n]


@contextmanager
def open_output(path: Path | str) -> Iterator[BinaryIO]:
    """A file to write to, gzipped when its name ends with .gz, or standard output for "-".

    The same records give the same file, gzipped too: it holds neither time nor name.
    Errors: OutputError when the file cannot be made.
    """
    if str(path) == "-":
        yield sys.stdout.buffer
        return
    with ExitStack() as opened:
        try:
            file = opened.enter_context(Path(path).open("wb"))
        except OSError as error:
            raise OutputError(
                "the file for the generated records cannot be made",
                detail=f"{path}: {error.strerror or error}",
                hint="check that its folder is there and may be written to",
            ) from error
        if Path(path).suffix != ".gz":
            yield file
            return
        packed = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0)
        yield cast(BinaryIO, opened.enter_context(packed))
