"""A Sessionizer as Arrow tables and as bytes, and back.

The bytes: b"SZST", the length of the header (uint32, little endian), the header (JSON: version, policy, rules, columns,
watermark, counts, sizes), two Arrow IPC streams (users with an open session; pending events), and the CRC-32 of all of
it. Codes are written out as strings, so a snapshot means the same to every shard and every process.
"""

import dataclasses
import json
import struct
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.errors import StateError
from sessionize.kernel.changes import SERIAL, ChangeLog, Changes
from sessionize.kernel.emit import plain_text
from sessionize.kernel.pending import Rows
from sessionize.kernel.tally import Codes, Tally
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.session.state import STATE_TYPES

if TYPE_CHECKING:
    from sessionize.kernel.interner import Interner
    from sessionize.kernel.sessionizer import Sessionizer

VERSION = 1
_MAGIC = b"SZST"
_CODED = {"entry": "_page_names", "exit": "_page_names", "page": "_page_names", "kind": "_kind_names"}


def describe(s: "Sessionizer") -> dict[str, Any]:
    """What is small and not in the tables, as JSON-able values."""
    return {
        "policy": dataclasses.asdict(s.policy),
        "rules": _describe(s.rules),
        "columns": list(s.columns.names),
        "user_name": s.user_name,
        "watermark_ms": s.watermark_ms,
        "latest_ms": s.latest_ms,
        "counts": s.counts.as_dict(),
    }


def dump_tables(s: "Sessionizer") -> dict[str, pa.Table]:
    """The whole state as {"users", "pending"}."""
    everyone = np.flatnonzero(s._state["live"] | (s._state["number"] > 0)).astype(np.int32)
    return {"users": user_rows(s, everyone), "pending": pending_rows(s, s._pending.of_slots(None))}


def user_rows(s: "Sessionizer", slots: npt.NDArray[np.int32]) -> pa.Table:
    """The state of these slots, one row each: the user, the columns of OpenSessions, what was seen with counts."""
    users: dict[str, Any] = {"user": plain_text(s._users.values(slots))}
    for name, values in s._state.take(slots).items():
        users[name] = _out(s, name, values)
    for name, tally, names in _tallies(s):
        held = tally.take(slots)
        offsets = pa.array(held.offsets(len(slots)))
        users[name] = pa.ListArray.from_arrays(offsets, plain_text(names.values(held.code)))
        users[f"{name}_counts"] = pa.ListArray.from_arrays(offsets, pa.array(held.count))
    return pa.table(users)


def pending_rows(s: "Sessionizer", rows: Rows | None) -> pa.Table:
    """Pending events, one row each; a table without columns when there are none."""
    if rows is None or not len(rows):
        return pa.table({})
    columns = {n: _out(s, n, values) for n, values in rows.columns.items() if n not in ("slot", SERIAL)}
    columns["user"] = plain_text(s._users.values(rows["slot"]))
    if rows.ids is not None:
        columns["id"] = rows.ids
    return pa.table(columns)


def take_changes(s: "Sessionizer", log: ChangeLog) -> Changes:
    """What the log has noted, as tables, and begin anew."""
    rows = log.waiting(s.watermark_ms)
    slots, gone, drained = log.clear()
    known = s._state["live"][slots] | (s._state["number"][slots] > 0)
    users = user_rows(s, slots[known])
    gone = pa.concat_arrays([gone, plain_text(s._users.values(slots[~known]))])
    return Changes(
        header={**describe(s), "drained": drained},
        users=users,
        gone=gone.filter(pc.invert(pc.is_in(gone, users["user"]))),  # a user who came back was given another slot
        pending=pending_rows(s, rows),
    )


def load_tables(s: "Sessionizer", tables: Mapping[str, pa.Table]) -> None:
    """Put dumped tables into a fresh Sessionizer. Errors: StateError when an event that was pending is missing."""
    said = s._counts.pending
    if tables["pending"].num_rows != said:
        raise StateError(
            "the state does not add up", detail=f"{tables['pending'].num_rows} pending events of {said} are there"
        )
    users, pending = tables["users"].combine_chunks(), tables["pending"].combine_chunks()
    slots = s._users.encode(users["user"])
    waiting = s._users.encode(pending["user"]) if pending.num_rows else None
    s._reserve()
    if len(slots):
        s._state.put(slots, {name: _in(s, name, users[name]) for name in STATE_TYPES})
    for name, tally, names in _tallies(s):
        tally.reserve(s._state.capacity)
        column = users[name].combine_chunks()
        counts = users[f"{name}_counts"].combine_chunks()
        if len(slots) and len(column.values):
            length = np.diff(column.offsets.to_numpy())
            owner = np.repeat(np.arange(len(slots)), length)
            tally.append(slots, Codes(owner, names.encode(column.values), counts.values.to_numpy()))
    if waiting is not None:
        columns = {n: _in(s, n, pending[n]) for n in pending.column_names if n not in ("user", "id")}
        if s._log is not None:
            columns[SERIAL] = np.full(len(waiting), -1, np.int64)
        s._pending.add(Rows({"slot": waiting, **columns}, pending["id"] if "id" in pending.column_names else None))


def to_bytes(s: "Sessionizer") -> bytes:
    """The snapshot of a Sessionizer."""
    streams = [_ipc(table) for table in dump_tables(s).values()]
    header = json.dumps({"version": VERSION, **describe(s), "sizes": [len(stream) for stream in streams]}).encode()
    body = b"".join([_MAGIC, struct.pack("<I", len(header)), header, *streams])
    return body + struct.pack("<I", zlib.crc32(body))


def from_bytes(data: bytes) -> tuple[dict[str, Any], dict[str, pa.Table]]:
    """Header and tables of a snapshot; StateError when it is damaged."""
    body = data[:-4]
    if len(data) < 12 or body[:4] != _MAGIC or struct.unpack("<I", data[-4:])[0] != zlib.crc32(body):
        raise StateError(
            "the snapshot is damaged", detail=f"{len(data)} bytes, checksum does not match", hint="use the one before"
        )
    size = struct.unpack("<I", body[4:8])[0]
    header = json.loads(body[8 : 8 + size])
    if header["version"] != VERSION:
        raise StateError(
            "the snapshot has an unknown version", detail=f"version {header['version']}, this program reads {VERSION}"
        )
    at = 8 + size
    tables = {}
    for name, length in zip(("users", "pending"), header["sizes"], strict=True):
        tables[name] = pa.ipc.open_stream(body[at : at + length]).read_all()
        at += length
    return header, tables


def check_belongs(header: Mapping[str, Any], policy: Policy, rules: Rules) -> None:
    """Errors: StateError when the state was made with another policy or other rules."""
    for what, ours in (("policy", dataclasses.asdict(policy)), ("rules", _describe(rules))):
        if header[what] != ours:
            differ = ", ".join(f"{k}: {header[what].get(k)!r} there, {v!r} here" for k, v in ours.items()
                               if header[what].get(k) != v)  # fmt: skip
            raise StateError(f"the snapshot was made with other {what}", detail=differ, hint="restore with the same")


def _describe(rules: Rules) -> dict[str, Any]:
    sets = ("start_events", "end_events", "excluded_events", "conversion_events")
    return {**{name: sorted(getattr(rules, name)) for name in sets}, "boundary": rules.boundary_name}


def _tallies(s: "Sessionizer") -> "list[tuple[str, Tally, Interner]]":
    pairs = (("pages", s._folder.pages, s._page_names), ("kinds", s._folder.kinds, s._kind_names))
    return [(name, tally, names) for name, tally, names in pairs if tally is not None]


def _out(s: "Sessionizer", name: str, values: npt.NDArray[Any]) -> pa.Array:
    return plain_text(getattr(s, _CODED[name]).values(values)) if name in _CODED else pa.array(values)


def _in(s: "Sessionizer", name: str, column: pa.ChunkedArray) -> npt.NDArray[Any]:
    if name in _CODED:
        codes: npt.NDArray[Any] = getattr(s, _CODED[name]).encode(column)
        return codes
    values: npt.NDArray[Any] = column.to_numpy()
    return values.copy() if not values.flags.writeable else values


def _ipc(table: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return bytes(out.getvalue())
