"""Writes generated records to a stream of bytes, as fast as possible or in real time.

In real time a record is written when it arrives (pace.py); start_ms is the time when writing starts.
"""

import gzip
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from sessionize.connectors.generator.arrival import EVENT
from sessionize.connectors.generator.json_encoder import user_name
from sessionize.connectors.generator.pace import Pace, Schedule, Timer
from sessionize.connectors.generator.settings import (
    GeneratedTotals,
    GeneratorSettings,
    ProfileName,
)
from sessionize.connectors.generator.stream import Block, RecordCounts, Stream
from sessionize.durable import atomic_write
from sessionize.errors import OutputError
from sessionize.session.time import MS_PER_DAY

# How long before the start the first records are prepared.
_AHEAD_S = 0.1


@dataclass(frozen=True, slots=True)
class LateRecord:
    """A delayed event. time_ms: when it happened. arrival_ms: when it arrived. line: its bytes."""

    user: str
    time_ms: int
    arrival_ms: int
    line: bytes


def write_lines(
    settings: GeneratorSettings,
    out: BinaryIO,
    *,
    realtime: bool = False,
    progress: Callable[[int], None] | None = None,
    on_late: Callable[[LateRecord], None] | None = None,
    timer: Timer | None = None,
) -> GeneratedTotals:
    """Write the records of a run as lines of JSON, and return the totals.

    progress is called with the number of events so far; on_late with each late event as it is written.
    A disconnected reader (BrokenPipeError) ends the run, as does Ctrl-C in real time; the totals then have
    complete=False and count the written records. Errors: OutputError if the stream cannot be written.
    """
    counts = RecordCounts(settings)
    complete = False
    try:
        for block, start, stop in _pieces(settings, timer or Timer(), realtime=realtime):
            out.write(block.text(start, stop))
            if realtime:
                out.flush()
            counts.add(block, start, stop)
            if on_late is not None:
                _report_late(block, start, stop, on_late)
            if progress is not None:
                progress(counts.events)
        out.flush()
        complete = True
    except BrokenPipeError:
        pass
    except KeyboardInterrupt:
        if not realtime:
            raise
    except OSError as error:
        raise OutputError(
            "the generated records cannot be written",
            detail=f"{error.strerror or error} after {counts.events} events",
            hint="check the disk space and the permissions",
        ) from error
    return counts.totals(complete=complete)


def _pieces(settings: GeneratorSettings, timer: Timer, *, realtime: bool) -> Iterator[tuple[Block, int, int]]:
    """The next records to write, as (block, start, stop); in real time not before they are due."""
    if not realtime:
        for block in Stream(settings).blocks():
            yield block, 0, len(block)
        return
    begun: list[tuple[Pace, int]] = []

    def begin() -> int:
        ahead_s = 0.0 if timer.wall_ms is None else _AHEAD_S
        start_ms = settings.start_ms if timer.wall_ms is None else timer.wall_ms() + round(_AHEAD_S * 1_000)
        begun.append((Pace(timer, began_s=timer.now_s() + ahead_s), start_ms))
        return start_ms

    schedule = Schedule(settings)
    for block in _prefetched(Stream(settings).blocks(begin=begin)):
        pace, start_ms = begun[0]
        due_s = schedule.due_s(block, begun_ms=start_ms)
        start = 0
        while start < len(block):
            allowed_s = pace.wait(float(due_s[start]))
            stop = max(int(np.searchsorted(due_s, allowed_s, side="right")), start + 1)
            yield block, start, stop
            start = stop


def _prefetched(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same blocks; another thread creates the next one while one is written."""
    with ThreadPoolExecutor(1, thread_name_prefix="generator") as maker:
        ahead = maker.submit(next, blocks, None)
        while (block := ahead.result()) is not None:
            ahead = maker.submit(next, blocks, None)
            yield block


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
    """The first n records of one visit, as a consumer of the profile sees them."""
    week_ms = 7 * MS_PER_DAY
    settings = GeneratorSettings(profile=profile, users=1, events=max(40 * n, 400), duration_ms=week_ms, seed=seed)
    visits: dict[int, list[dict[str, Any]]] = {}
    for block in Stream(settings).blocks():
        for visit, line in zip(block.records.steps.visit.tolist(), block.lines.to_pylist(), strict=True):
            visits.setdefault(visit, []).append(json.loads(line))
            if len(visits[visit]) == n:
                return visits[visit]
    return [record for visit in visits.values() for record in visit][:n]


@contextmanager
def open_output(path: Path | str, *, whole: bool = False) -> Iterator[BinaryIO]:
    """A file to write to, gzipped if its name ends with .gz, or standard output for "-".

    whole: the file gets its name when it is complete, and an earlier file stays until then; anything but a regular file
    (a pipe, a device) is written directly. Equal records give an equal file, also gzipped: the header has neither time
    nor name. Errors: OutputError if the file cannot be created.
    """
    if str(path) == "-":
        yield sys.stdout.buffer
        return
    path = Path(path)
    with ExitStack() as opened:
        try:
            atomic = whole and (path.is_file() or not path.exists())
            target = opened.enter_context(atomic_write(path)) if atomic else path
            file = opened.enter_context(target.open("wb"))
        except OSError as error:
            raise OutputError(
                "the file for the generated records cannot be created",
                detail=f"{path}: {error.strerror or error}",
                hint="check that its folder exists and is writable",
            ) from error
        if path.suffix != ".gz":
            yield file
            return
        packed = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0)
        yield cast(BinaryIO, opened.enter_context(packed))
