"""The right answer of every benchmark task, in plain numpy, and whether an engine's output equals it.

Outputs are compared by row count and by an order-independent 64-bit checksum over (user, start, end, event
count) and, where pages were asked for, over every page with its position. The answer of a file is kept beside
it and made again when it changes. Tasks: A gap only; B gap and a rolling cap; A+pages adds the distinct pages
by first visit. "anchored" is for the core alone.
"""

import argparse
import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from events import CAP_MS, GAP_MS

Array = np.ndarray[Any, Any]

REFERENCE_VERSION = 1
COLUMNS = ("session_start_time_ms", "session_end_time_ms", "event_count")
PAGES_COLUMN = "pages_visited"
USER_NAMES = ("user", "uuid")  # as the Parquet and the NDJSON input call it
TASKS = ("A", "B", "A+pages")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an output of a task must come to. `pages` is None where the task has none."""

    sessions: int
    checksum: int
    pages: int | None = None


@dataclass(frozen=True, slots=True)
class Ordered:
    """Events sorted by user and time: user int64 (code), time_ms int64, page int64 (code)."""

    user: Array
    time_ms: Array
    page: Array


def ordered(user: Array, time_ms: Array, page: Array) -> Ordered:
    order = np.lexsort((time_ms, user))
    return Ordered(user[order].astype(np.int64), time_ms[order], page[order].astype(np.int64))


def chain_starts(events: Ordered) -> Array:
    """bool[n]: the user is new or was silent for more than the gap."""
    starts = np.ones(len(events.time_ms), bool)
    same_user = events.user[1:] == events.user[:-1]
    starts[1:] = ~same_user | (np.diff(events.time_ms) > GAP_MS)
    return starts


def rolling_starts(events: Ordered) -> Array:
    """bool[n]: as chain_starts, and an event at or after its session's start + cap starts the next."""
    starts = chain_starts(events)
    first = np.flatnonzero(starts)
    after = np.append(first[1:], len(starts))
    capped = events.time_ms[after - 1] - events.time_ms[first] >= CAP_MS
    for begin, end in zip(first[capped].tolist(), after[capped].tolist(), strict=True):
        chain = events.time_ms[begin:end]
        at = 0
        while (at := int(np.searchsorted(chain, chain[at] + CAP_MS))) < len(chain):
            starts[begin + at] = True
    return starts


def anchored_starts(events: Ordered) -> Array:
    """bool[n]: as chain_starts, and an event in another cap-long interval of its chain than the last."""
    starts = chain_starts(events)
    first = np.flatnonzero(starts)
    length = np.diff(np.append(first, len(starts)))
    interval = (events.time_ms - np.repeat(events.time_ms[first], length)) // CAP_MS
    starts[1:] |= interval[1:] != interval[:-1]
    return starts


def answer(events: Ordered, starts: Array, user_hash: Array, page_hash: Array | None) -> Answer:
    """The checksums of the sessions that begin where `starts` is set; hashes are uint64, indexed by code."""
    if len(starts) == 0:
        return Answer(0, 0, None if page_hash is None else 0)
    first = np.flatnonzero(starts)
    after = np.append(first[1:], len(starts))
    rows = row_hash(user_hash[events.user[first]], events.time_ms[first], events.time_ms[after - 1], after - first)
    if page_hash is None:
        return Answer(len(first), _sum(rows))
    session = np.cumsum(starts) - 1
    _, visit = np.unique(session * (int(events.page.max()) + 1) + events.page, return_index=True)
    visit.sort()
    offsets = np.searchsorted(session[visit], np.arange(len(first) + 1))
    return Answer(len(first), _sum(rows), pages_checksum(rows, offsets, page_hash[events.page[visit]]))


def text_hash(texts: pa.Array) -> Array:
    """uint64[n], a hash of every string's bytes."""
    digests = (hashlib.blake2b(t.encode(), digest_size=8).digest() for t in texts.to_pylist())
    return np.frombuffer(b"".join(digests), np.uint64)


def _mix(x: Array) -> Array:
    """Spreads every bit over the whole word (splitmix64's finaliser), so that sums don't cancel."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = x ^ (x >> np.uint64(31))
    return mixed


def row_hash(user_hash: Array, start_ms: Array, end_ms: Array, count: Array) -> Array:
    row = user_hash
    for column in (start_ms, end_ms, count):
        row = _mix(row ^ _mix(column.astype(np.int64).view(np.uint64)))
    return row


def pages_checksum(rows: Array, offsets: Array, page_hash: Array) -> int:
    """Over lists: row i has page_hash[offsets[i]:offsets[i + 1]]; a page counts with its row and position."""
    length = np.diff(offsets)
    position = np.arange(len(page_hash)) - np.repeat(offsets[:-1], length)
    return _sum(_mix(np.repeat(rows, length) ^ _mix(page_hash ^ _mix(position.view(np.uint64)))))


def _sum(hashes: Array) -> int:
    return int(np.sum(hashes, dtype=np.uint64))


def answers(path: Path) -> dict[str, Answer]:
    """The answers of all tasks for a Parquet file of events (user, ts, page)."""
    stat = path.stat()
    stamp = [REFERENCE_VERSION, stat.st_size, stat.st_mtime_ns]
    kept = path.with_name(path.name + ".answers.json")
    if kept.exists():
        saved = json.loads(kept.read_text())
        if saved["stamp"] == stamp:
            return {task: Answer(**fields) for task, fields in saved["answers"].items()}
    table = pq.read_table(path, columns=["user", "ts", "page"], read_dictionary=["user", "page"])
    user, user_names = _codes(table["user"])
    page, names_of_pages = _codes(table["page"])
    events = ordered(user, table["ts"].to_numpy(), page)
    del table, user, page
    user_hash, page_hash = text_hash(user_names), text_hash(names_of_pages)
    chains = chain_starts(events)
    made = {
        "A": answer(events, chains, user_hash, None),
        "B": answer(events, rolling_starts(events), user_hash, None),
        "A+pages": answer(events, chains, user_hash, page_hash),
    }
    unfinished = kept.with_name(f".{kept.name}.{os.getpid()}")
    unfinished.write_text(json.dumps({"stamp": stamp, "answers": {k: asdict(v) for k, v in made.items()}}, indent=1))
    unfinished.replace(kept)
    return made


def _codes(column: Any) -> tuple[Array, pa.Array]:
    """int32[n] and the distinct strings they point to; any string-like or dictionary column."""
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # combine_chunks leaves none at all as an empty chunked array
        column = pa.array([], column.type)
    return column.indices.to_numpy(zero_copy_only=False), column.dictionary.cast(pa.string())


def verdict(output: Path, task: str, expected: Answer) -> str:
    """ "ok", or what is wrong with an engine's output."""
    try:
        names = pq.read_schema(output).names if output.is_file() else pq.ParquetDataset(output).schema.names
        user_name = next((name for name in USER_NAMES if name in names), None)
        wanted = [*COLUMNS, *([PAGES_COLUMN] if task == "A+pages" else [])]
        missing = [name for name in wanted if name not in names] + ([] if user_name else ["user"])
        if user_name is None or missing:
            return f"no column {', '.join(missing)}; there are {', '.join(names)}"
        table = pq.read_table(output, columns=[user_name, *wanted])
        nulls = [name for name in table.column_names if table[name].null_count]
        if nulls:
            return f"nulls in {', '.join(nulls)}"
        if len(table) != expected.sessions:
            return f"{len(table):,} sessions, right are {expected.sessions:,}"
        if task == "A+pages" and pc.list_flatten(table[PAGES_COLUMN]).null_count:
            return f"nulls inside {PAGES_COLUMN}"
        rows = _row_hashes(table, user_name)
        if _sum(rows) != expected.checksum:
            return "users, starts, ends or counts differ"
        if task == "A+pages" and _pages_of(table[PAGES_COLUMN], rows) != expected.pages:
            return "pages differ"
    except (OSError, pa.ArrowException) as error:
        return f"unreadable: {error}"
    return "ok"


def sessions_checksum(sessions: pa.Table, user_name: str) -> int:
    """As Answer.checksum, of any sessions; checksums of parts add up (modulo 2**64) to that of the whole."""
    return _sum(_row_hashes(sessions, user_name))


def _row_hashes(sessions: pa.Table, user_name: str) -> Array:
    code, user_names = _codes(sessions[user_name])
    return row_hash(text_hash(user_names)[code], *(sessions[name].cast(pa.int64()).to_numpy() for name in COLUMNS))


def _pages_of(column: Any, rows: Array) -> int:
    code, texts = _codes(pc.list_flatten(column))
    offsets = np.append(0, np.cumsum(pc.list_value_length(column).to_numpy())).astype(np.int64)
    return pages_checksum(rows, offsets, text_hash(texts)[code])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("events", type=Path, help="Parquet file of events")
    parser.add_argument("outputs", type=Path, nargs="*", help="Parquet files of sessions to judge")
    parser.add_argument("--task", choices=TASKS, default="A")
    args = parser.parse_args()
    right = answers(args.events)
    verdicts = [verdict(path, args.task, right[args.task]) for path in args.outputs]
    print(json.dumps({"answers": {task: asdict(a) for task, a in right.items()}, "verdicts": verdicts}))
    return 0 if all(v == "ok" for v in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
