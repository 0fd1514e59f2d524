"""Sessions as they stand: the state of some users and their pending events, through the same pass, changing nothing.

A view is a small copy: the users asked for get slots 0, 1, 2, … of their own state and tallies, and share the names of
pages and event types. So it costs what those users hold, besides one look over the slots of all pending events.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.kernel.change_log import SERIAL, PushLog
from sessionize.kernel.cutting import Sessions
from sessionize.kernel.distinct_counts import DistinctCounts
from sessionize.kernel.emit import ClosedSessions, Emitter
from sessionize.kernel.folding import Folder
from sessionize.kernel.interner import Interner
from sessionize.kernel.pending import Rows
from sessionize.kernel.reorder import RowOrder
from sessionize.kernel.sessionizer_state import SessionizerState
from sessionize.kernel.text_arrays import plain_text

SlotArray = npt.NDArray[np.int32]
_NAMING = ("slot", "start", "chain", "piece", "number", "repeat")


@dataclass(frozen=True, slots=True)
class View:
    """The parts of a Sessionizer over some of its users. rows: their pending events, None if there are none."""

    folder: Folder
    emitter: Emitter
    rows: Rows | None


def sessions_as_they_stand(
    held: SessionizerState, folder: Folder, emitter: Emitter, order: RowOrder, slots: SlotArray, *, open_only: bool
) -> list[pa.Table]:
    """Tables of the sessions of these slots (ascending, distinct), the open ones without an end_reason."""
    view = _view(held, folder, emitter, slots, tallies=True)
    parts = []
    if view.rows is not None:
        settled = order.settle(view.rows.without(SERIAL), view.emitter.users)
        ended = view.folder.fold(settled) if len(settled) else None
        parts.append(None if open_only else ended)
    still = view.folder.state.live_slots()
    if len(still):
        parts.append(view.folder.release(still, np.zeros(len(still), np.int16)))
    return [view.emitter.table(ended) for ended in parts if ended is not None]


def ids_of_pushed(
    held: SessionizerState, folder: Folder, emitter: Emitter, order: RowOrder, log: PushLog, *, watermark_ms: int | None
) -> pa.Array:
    """Session ids of what the log has noted as pushed, in that order (Sessionizer.pushed_session_ids)."""
    n = log.next_serial - log.first_serial
    rows = log.waiting(watermark_ms)
    if rows is None:
        return pa.nulls(n, pa.string())
    view = _view(held, folder, emitter, np.unique(rows["slot"]), tallies=False)
    assert view.rows is not None  # what waits in the log waits in the buffer
    settled = order.settle(view.rows, view.emitter.users)
    if not len(settled):
        return pa.nulls(n, pa.string())
    done = view.folder.cut(settled)
    assert done.rows.order is not None  # the serial numbers are a payload, which is sorted with its order
    carried = len(done.carried["last"])
    serial = np.concatenate((np.full(carried, -1, np.int64), view.rows[SERIAL])) - log.first_serial
    length = done.sessions.last - done.sessions.first + 1
    session = np.repeat(np.arange(len(length)), length)
    place = serial[done.rows.order]
    if done.duplicates is not None:
        place = np.concatenate((place, serial[done.duplicates.order]))
        session = np.concatenate((session, session[done.duplicates.twin]))
    session_of = np.full(n, -1, np.int64)
    session_of[place[place >= 0]] = session[place >= 0]
    return plain_text(ids_of(done.sessions, view.emitter)).take(pa.array(session_of, mask=session_of < 0))


def ids_of(sessions: Sessions, emitter: Emitter) -> pa.Array:
    """The id of each session, before anything is added up."""
    return emitter.ids(ClosedSessions(columns={n: getattr(sessions, n) for n in _NAMING}, seen={}))


def _view(held: SessionizerState, folder: Folder, emitter: Emitter, slots: SlotArray, *, tallies: bool) -> View:
    users, state = Interner(), held.state.like_this(len(slots))
    mine = users.encode(plain_text(held.users.values(slots)))
    state.put(mine, held.state.take(slots))
    part = replace(
        folder,
        state=state,
        tallies={name: _part(tally, slots, mine) for name, tally in folder.tallies.items()} if tallies else {},
    )
    rows = held.pending.of_slots(slots)
    if rows is not None:
        rows = rows.with_columns({"slot": mine[np.searchsorted(slots, rows["slot"])]})
    return View(part, replace(emitter, users=users), rows)


def _part(tally: DistinctCounts, slots: SlotArray, mine: SlotArray) -> DistinctCounts:
    part = DistinctCounts(tally.limit)
    part.reserve(len(slots))
    part.append(mine, tally.take(slots))
    return part
