"""A Sessionizer as Arrow tables and as bytes, and back.

The bytes: b"SZST", the length of the header (uint32, little endian), the header (JSON: version, policy, rules, columns,
watermark, counts, sizes), Arrow IPC streams (users with an open session; pending events; recent ids, if
they are remembered), and the CRC-32 of all of
it. Codes are written out as strings, so a snapshot means the same to every shard and every process.
"""

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.errors import StateError
from sessionize.kernel.change_log import SERIAL, SlotLog
from sessionize.kernel.distinct_counts import Codes
from sessionize.kernel.payload import as_type
from sessionize.kernel.pending import Rows
from sessionize.kernel.sessionizer_state import SessionizerState
from sessionize.kernel.text_arrays import TEXT_BYTES_MAX, most_text_bytes, plain_text
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.session.spec import describe_differences, kind_of_difference, policy_differences

VERSION = 1
_MAGIC = b"SZST"
_THE_SAME = "restore with the same; a pipeline drains with the old ones (--once), then starts in a new --home"
# Columns that are left out where they are 0 throughout, as they are in nearly every run, and were before they existed.
_MAY_LACK = frozenset({"amount_high", "reach"})
_PAYLOAD = "payload "  # before the name of a column that only operators ask for


def describe(policy: Policy, rules: Rules) -> dict[str, Any]:
    """What the state was made with, as JSON-able values."""
    return {"policy": policy.record(), "rules": _describe(rules)}


def dump_tables(held: SessionizerState) -> dict[str, pa.Table]:
    """The whole state as {"users", "pending"}."""
    everyone = np.flatnonzero(held.state["live"] | (held.state["number"] > 0)).astype(np.int32)
    return {"users": user_rows(held, everyone), "pending": pending_rows(held, held.pending.of_slots(None))}


def user_rows(held: SessionizerState, slots: npt.NDArray[np.int32]) -> pa.Table:
    """The state of these slots, one row each: the user, the columns of OpenSessions, what was seen with counts."""
    state = {n: v for n, v in held.state.take(slots).items() if n not in _MAY_LACK or v.any()}
    seen = {name: tally.take(slots) for name, tally, _ in held.tallies}
    texts = {"user": held.users.values(slots)}
    texts |= {name: names.values(state[name]) for name in state if (names := held.names_of(name)) is not None}
    texts |= {name: names.values(seen[name].code) for name, _, names in held.tallies}
    if _too_large(texts) and len(slots) > 1:
        half = len(slots) // 2
        parts = [user_rows(held, slots[:half]), user_rows(held, slots[half:])]
        return pa.concat_tables(parts, promote_options="default")
    users: dict[str, Any] = {"user": plain_text(texts["user"])}
    users |= {n: plain_text(texts[n]) if n in texts else pa.array(values) for n, values in state.items()}
    for name, codes in seen.items():
        offsets = pa.array(codes.offsets(len(slots)))
        users[name] = pa.ListArray.from_arrays(offsets, plain_text(texts[name]))
        users[f"{name}_counts"] = pa.ListArray.from_arrays(offsets, pa.array(codes.count))
    return pa.table(users)


def pending_rows(held: SessionizerState, rows: Rows | None) -> pa.Table:
    """Pending events, one row each; a table without columns when there are none."""
    if rows is None or not len(rows):
        return pa.table({})
    kept = {n: values for n, values in rows.columns.items() if n not in ("slot", SERIAL)}
    texts = {n: names.values(v) for n, v in kept.items() if (names := held.names_of(n)) is not None}
    texts["user"] = held.users.values(rows["slot"])
    if _too_large(texts) and len(rows) > 1:
        half = len(rows) // 2
        parts = [rows.slice(0, half), rows.slice(half, len(rows))]
        return pa.concat_tables([pending_rows(held, part) for part in parts])
    columns = {n: pa.array(values) for n, values in kept.items() if n not in texts}
    columns |= {n: plain_text(array) for n, array in texts.items()}
    if rows.ids is not None:
        columns["id"] = rows.ids
    columns |= {f"{_PAYLOAD}{name}": column for name, column in rows.payload.items()}
    return pa.table(columns)


def user_changes(held: SessionizerState, log: SlotLog) -> tuple[pa.Table, pa.Array]:
    """The state rows of users that the log has noted, and the names of users nothing is known of; and begin anew."""
    slots, removed = log.clear()
    known = held.state["live"][slots] | (held.state["number"][slots] > 0)
    users = user_rows(held, slots[known])
    removed = pa.concat_arrays([removed, plain_text(held.users.values(slots[~known]))])
    return users, removed.filter(
        pc.invert(pc.is_in(removed, users["user"]))
    )  # one who came back was given another slot


def load_users(held: SessionizerState, users: pa.Table) -> None:
    """Put dumped state rows into fresh holdings."""
    for part in _whole_parts(users) if users.num_rows else ():
        _load_users(held, part)


def load_pending(
    held: SessionizerState, pending: pa.Table, carried: Mapping[str, pa.DataType], coded: Sequence[str]
) -> None:
    """Put dumped events into fresh holdings. carried: the payload that rows have, coded: the columns of codes; null
    where the dump lacks one, as those of before do that no session column was made of.
    """
    for part in _whole_parts(pending):
        _load_pending(held, part, carried, coded)


def has_other_types(pending: pa.Table, carried: Mapping[str, pa.DataType]) -> bool:
    """Whether dumped events have payload in another type than it is carried in now."""
    there = {field.name: field.type for field in pending.schema}
    return any(there.get(f"{_PAYLOAD}{name}", kind) != kind for name, kind in carried.items())


def _whole_parts(table: pa.Table) -> list[pa.Table]:
    """The table with one chunk a column, in parts where one has no room for the text."""
    if table.nbytes <= TEXT_BYTES_MAX:
        return [table.combine_chunks()]
    return [pa.Table.from_batches([batch]) for batch in table.to_batches()]


def _load_users(held: SessionizerState, users: pa.Table) -> None:
    slots = held.users.encode(users["user"])
    held.reserve()
    if len(slots):
        there = [name for name in held.state.types if name not in _MAY_LACK or name in users.column_names]
        held.state.put(slots, {name: _in(held, name, users[name]) for name in there})
    for name, tally, names in held.tallies:
        tally.reserve(held.state.capacity)
        column = users[name].combine_chunks()
        counts = users[f"{name}_counts"].combine_chunks()
        seen = column.flatten()  # unlike `values`, of these rows alone
        if len(slots) and len(seen):
            length = np.diff(column.offsets.to_numpy())
            owner = np.repeat(np.arange(len(slots)), length)
            tally.append(slots, Codes(owner, names.encode(seen), counts.flatten().to_numpy()))


def _load_pending(
    held: SessionizerState, rows: pa.Table, carried: Mapping[str, pa.DataType], coded: Sequence[str]
) -> None:
    if rows.num_rows:
        waiting = held.users.encode(rows["user"])
        held.reserve()
        plain = [n for n in rows.column_names if n not in ("user", "id") and not n.startswith(_PAYLOAD)]
        columns = {n: np.full(len(waiting), -1, np.int32) for n in coded} | {n: _in(held, n, rows[n]) for n in plain}
        if held.pushes is not None:
            columns[SERIAL] = np.full(len(waiting), -1, np.int64)
        payload = {n: as_type(rows, f"{_PAYLOAD}{n}", kind) for n, kind in carried.items()}
        ids = rows["id"] if "id" in rows.column_names else None
        held.pending.add(Rows({"slot": waiting, **columns}, ids, payload))


def to_bytes(held: SessionizerState, description: dict[str, Any], recent_ids: pa.Table | None = None) -> bytes:
    """The snapshot of a Sessionizer."""
    streams = [_ipc(table) for table in (*dump_tables(held).values(), recent_ids) if table is not None]
    header = json.dumps({"version": VERSION, **description, "sizes": [len(stream) for stream in streams]}).encode()
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
    names = ("users", "pending", "recent_ids")[: max(2, len(header["sizes"]))]
    for name, length in zip(names, header["sizes"], strict=True):
        tables[name] = pa.ipc.open_stream(body[at : at + length]).read_all()
        at += length
    return header, tables


def check_belongs(header: Mapping[str, Any], policy: Policy, rules: Rules) -> None:
    """Errors: StateError when the state was made with another policy or other rules."""
    differ = policy_differences(header["policy"], header["rules"], policy, _describe(rules))
    if differ:
        raise StateError(
            f"the state was made with {kind_of_difference(differ)}", detail=describe_differences(differ), hint=_THE_SAME
        )


def check_columns(there: Sequence[str], here: Sequence[str]) -> None:
    """Errors: StateError when the state's sessions have other columns than this run's."""
    if there != here:
        raise StateError(
            "the state was made for other session columns",
            detail=f"{', '.join(there)} there, {', '.join(here)} here",
            hint="let the pipeline drain once with the old columns (--once), then run it with the new ones",
        )


def check_own_columns(there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Errors: StateError when the state's sessions have other columns of their own than this run's."""
    if there != here:
        raise StateError(
            "the state was made for other session columns",
            detail=f"session_columns: {json.dumps(there)} there, {json.dumps(here)} here",
            hint="let the pipeline drain once with the old columns (--once), then run it with the new ones",
        )


def _describe(rules: Rules) -> dict[str, Any]:
    sets = ("start_events", "end_events", "excluded_events", "conversion_events")
    described = {**{name: sorted(getattr(rules, name)) for name in sets}, "boundary": rules.boundary_name}
    later = ("split_on_change", "split_ignore")
    return described | {name: sorted(getattr(rules, name)) for name in later if getattr(rules, name)}


def _too_large(texts: Mapping[str, pa.Array]) -> bool:
    """Whether any of them, written out, may be more than an Arrow array has room for."""
    return any(most_text_bytes(array) > TEXT_BYTES_MAX for array in texts.values())


def _in(held: SessionizerState, name: str, column: pa.ChunkedArray) -> npt.NDArray[Any]:
    names = held.names_of(name)
    if names is not None:
        codes: npt.NDArray[Any] = names.encode(column)
        return codes
    # a state that was merged of parts with and without the column
    values: npt.NDArray[Any] = (column.fill_null(0) if name in _MAY_LACK else column).to_numpy()
    return values.copy() if not values.flags.writeable else values


def _ipc(table: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return bytes(out.getvalue())
