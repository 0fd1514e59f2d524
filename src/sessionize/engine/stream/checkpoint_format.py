"""Plans and checkpoints as bytes and back; a byte that is missing, added or changed is always noticed.

Every file is a frame: magic (4 bytes), version (uint32), length of what follows (uint64), content, CRC-32 of all before
it (uint32), little endian. A plan's content is JSON. A checkpoint's is the length of its header (uint32), the header
(JSON), and Arrow IPC streams. The header names them, with their sizes, in their order: for each operator its tables
and, for tables whose rows can be removed, the keys of those that were; and how tables add up (kernel/operator.py).

Checkpoints of version 1 are read as well: they have one header for all, and the streams users, gone and pending.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from sessionize.errors import StateError
from sessionize.kernel.changes import Changes
from sessionize.kernel.operator import Append, StateDelta, TableDelta, Upsert

VERSION, PLAN_VERSION = 2, 1
_HEAD = struct.Struct("<4sIQ")
_TAIL = struct.Struct("<I")
_PLAN, _CHECKPOINT = b"SZPL", b"SZCK"
_READS = {_CHECKPOINT: (1, VERSION), _PLAN: (PLAN_VERSION,)}
_ROWS_PER_BATCH = 1 << 18
RECORDS, INSTEAD_OF = "records", "instead_of"  # in Plan.extra, as all of these
SILENCE, SETTLED, DRAINED_TO = "silence_ms", "settled_ms", "drained_to_ms"


class DamagedError(Exception):
    """Bytes that are not what was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an epoch will do, fixed before it does it.

    ranges: split -> (first offset, offset after the last). watermark_ms: what it advances to, None for nowhere. now_ms:
    what counted as the present. drain: whether it ends every open session. extra: JSON of the engine: RECORDS, how
    many there were by partition; INSTEAD_OF, the digest of the plan whose place this one takes; SILENCE, how long each
    partition had been polled at its end (WatermarkTracker.epoch_silence); SETTLED, what WatermarkTracker.settle does at
    its end; DRAINED_TO, where the watermark goes after a drain.
    """

    epoch: int
    ranges: Mapping[str, tuple[int, int]]
    watermark_ms: int | None
    now_ms: int
    drain: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """16 hex digits that name this very plan."""
        return hashlib.sha256(self.as_json()).hexdigest()[:16]

    def as_json(self) -> bytes:
        """The plan in one canonical form."""
        plain = {**asdict(self), "ranges": {split: list(span) for split, span in self.ranges.items()}}
        return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFile:
    """A checkpoint file. token: names the state it leads to; after: the token of the state it builds on, "" for a base.

    header: the engine's. changes: a delta's, or the whole state of a base. size_bytes: of the file.
    """

    writer: str
    epoch: int
    token: str
    after: str
    header: dict[str, Any]
    changes: Changes
    size_bytes: int = 0


def plan_bytes(plan: Plan) -> list[memoryview]:
    """The file of a plan."""
    return _frame(_PLAN, PLAN_VERSION, [memoryview(plan.as_json())])


def read_plan(data: bytes) -> Plan:
    """Errors: DamagedError; StateError for a version that is not known."""
    return _plan(bytes(_content(_PLAN, data)[1]))


def plan_line(plan: Plan) -> bytes:
    """A plan as a line among others: its CRC-32 in 8 hex digits, a blank, JSON, a line feed."""
    text = plan.as_json()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def read_plan_line(line: bytes) -> Plan:
    """The plan of a line. Errors: DamagedError."""
    check, _, text = line.removesuffix(b"\n").partition(b" ")
    if check != b"%08x" % zlib.crc32(text):
        raise DamagedError("the checksum does not match")
    return _plan(text)


def _plan(text: bytes) -> Plan:
    plain = json.loads(text)
    return Plan(**{**plain, "ranges": {split: (span[0], span[1]) for split, span in plain["ranges"].items()}})


def checkpoint_bytes(stored: CheckpointFile) -> list[memoryview]:
    """The file of a checkpoint."""
    streams: list[memoryview] = []
    operators = {}
    for name, delta in stored.changes.deltas.items():
        tables = {}
        for table_name, table in delta.tables.items():
            parts = [part for part in (table.rows, table.removed) if part is not None]
            written = [_stream(part) for part in parts]
            streams += written
            tables[table_name] = {"merge": _rule(table.merge), "sizes": [len(stream) for stream in written]}
        operators[name] = {"header": delta.header, "whole": delta.whole, "tables": tables}
    header = {
        "writer": stored.writer,
        "epoch": stored.epoch,
        "token": stored.token,
        "after": stored.after,
        "engine": stored.header,
        "operators": operators,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    return _frame(_CHECKPOINT, VERSION, [memoryview(_TAIL.pack(len(text))), memoryview(text), *streams])


def read_checkpoint(data: bytes) -> CheckpointFile:
    """Errors: DamagedError; StateError for a version that is not known."""
    version, inside = _content(_CHECKPOINT, data)
    content = pa.py_buffer(data).slice(_HEAD.size, len(inside))
    at = _TAIL.size + _TAIL.unpack(content.slice(0, _TAIL.size))[0]
    header = json.loads(content.slice(_TAIL.size, at - _TAIL.size).to_pybytes())
    streams = _Streams(content, at)
    return CheckpointFile(
        writer=header["writer"],
        epoch=header["epoch"],
        token=header["token"],
        after=header["after"],
        header=header["engine"],
        changes=_changes_1(header, streams) if version == 1 else _changes_2(header["operators"], streams),
        size_bytes=len(data),
    )


@dataclass(slots=True)
class _Streams:
    """The streams of a file, one after the other."""

    content: pa.Buffer
    at: int

    def next(self, size: int) -> pa.Table:
        table = pa.ipc.open_stream(self.content.slice(self.at, size)).read_all()
        self.at += size
        return table


def _changes_1(header: Mapping[str, Any], streams: _Streams) -> Changes:
    users, gone, pending = (streams.next(size) for size in header["sizes"])
    names = pa.concat_arrays([pa.array([], pa.string()), *gone["user"].chunks])
    return Changes.of_sessions(header["kernel"], users, names, pending, whole=not header["after"])


def _changes_2(operators: Mapping[str, Any], streams: _Streams) -> Changes:
    deltas = {}
    for name, delta in operators.items():
        tables = {}
        for table_name, table in delta["tables"].items():
            rows, *removed = [streams.next(size) for size in table["sizes"]]
            merge = _rule_of(table["merge"])
            tables[table_name] = TableDelta(rows=rows, merge=merge, removed=removed[0] if removed else None)
        deltas[name] = StateDelta(header=delta["header"], tables=tables, whole=delta["whole"])
    return Changes(deltas)


def _rule(merge: Upsert | Append) -> dict[str, Any]:
    if isinstance(merge, Upsert):
        return {"upsert": list(merge.key)}
    return {"append": asdict(merge)}


def _rule_of(plain: Mapping[str, Any]) -> Upsert | Append:
    return Upsert(tuple(plain["upsert"])) if "upsert" in plain else Append(**plain["append"])


def _frame(magic: bytes, version: int, parts: list[memoryview]) -> list[memoryview]:
    head = memoryview(_HEAD.pack(magic, version, sum(len(part) for part in parts) + _TAIL.size))
    crc = 0
    for part in (head, *parts):
        crc = zlib.crc32(part, crc)
    return [head, *parts, memoryview(_TAIL.pack(crc))]


def _content(magic: bytes, data: bytes) -> tuple[int, memoryview]:
    """The version, and what is inside a frame.

    The version counts only when the bytes are whole: a flipped bit is no newer version.
    """
    if len(data) < _HEAD.size + _TAIL.size:
        raise DamagedError(f"{len(data)} bytes are too few")
    found, version, length = _HEAD.unpack_from(data)
    if found != magic:
        raise DamagedError("it does not begin like such a file")
    if length != len(data) - _HEAD.size:
        raise DamagedError(f"{len(data)} bytes where {length + _HEAD.size} were written")
    view = memoryview(data)
    if zlib.crc32(view[: -_TAIL.size]) != _TAIL.unpack_from(data, len(data) - _TAIL.size)[0]:
        raise DamagedError("the checksum does not match")
    if version not in _READS[magic]:
        raise StateError(
            "a checkpoint file has an unknown version",
            detail=f"version {version}, this program reads {' and '.join(map(str, _READS[magic]))}",
            hint="go on with the program that wrote it",
        )
    return version, view[_HEAD.size : -_TAIL.size]


def _stream(table: pa.Table) -> memoryview:
    out = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(out, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=_ROWS_PER_BATCH)
    return memoryview(out.getvalue())
