"""Late events into the sessions: what a batch over everything says, and which stored rows have to change for it.

    replacement = reconcile(events, stored, causes, definition, horizon_ms=watermark_ms)

Events of a user with no silence between them that could split are a **run**; what lies in one run never depends on
another. Only runs that contain a cause (a late event) are computed again, by the Sessionizer like everything else, and
only runs that are final: nothing that is still open in an engine can touch them. Rows that come out as they are stored
stay, so doing it twice changes nothing the second time.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.arrow import decoded_type
from sessionize.errors import ConfigError
from sessionize.kernel.sessionizer import Sessionizer
from sessionize.ports import Replacement
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition

REVISION_TYPE = pa.int64()
# Without these two a stored session can neither be found again nor be placed in time.
NEEDED_COLUMNS = (col.SESSION_ID, col.SESSION_START)

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Chains:
    """Runs of one user's events, ordered by user and time: which user (a position in `users`), first and last event.

    of_event int64[n]: the run of each event, in the order of the events.
    """

    users: pa.Array
    user: Ints
    first_ms: Ints
    last_ms: Ints
    of_event: Ints

    def __len__(self) -> int:
        return len(self.user)

    def holding(self, users: pa.ChunkedArray, times_ms: Ints) -> Ints:
        """The run in which each (user, time) lies, -1 for none."""
        code = _codes(users, self.users)
        both = np.concatenate([self.user, code]), np.concatenate([self.first_ms, times_ms])
        asked = np.repeat([0, 1], [len(self), len(code)])
        order = np.lexsort((asked, both[1], both[0]))
        before = np.cumsum(asked[order] == 0) - 1
        found = np.empty(len(order), np.int64)
        found[order] = before
        run = found[len(self) :]
        inside = run >= 0
        inside[inside] = (self.user[run[inside]] == code[inside]) & (self.last_ms[run[inside]] >= times_ms[inside])
        return np.where(inside, run, -1)


def without_excluded(events: pa.Table, definition: SessionDefinition) -> pa.Table:
    """The events without those of excluded types, in plain text: what runs and sessions are made of."""
    events = events.cast(pa.schema([f.with_type(_plain(f.type)) for f in events.schema]))
    if not definition.rules.excluded_events or col.EVENT_TYPE not in events.column_names:
        return events
    dropped = pc.is_in(events[col.EVENT_TYPE], pa.array(sorted(definition.rules.excluded_events)))
    return events.filter(pc.invert(dropped))


def chains_of(events: pa.Table, longest_silence_ms: int) -> Chains:
    """The runs of events (user, event_time_ms), which may come in any order."""
    users = pc.unique(events[col.USER])
    code, time = _codes(events[col.USER], users), events[col.EVENT_TIME].to_numpy()
    order = np.lexsort((time, code))
    code, time = code[order], time[order]
    opens = np.ones(len(order), bool)
    opens[1:] = (code[1:] != code[:-1]) | (time[1:] - time[:-1] > longest_silence_ms)
    of_event = np.empty(len(order), np.int64)
    of_event[order] = np.cumsum(opens) - 1
    closes = np.append(opens[1:], True)[: len(opens)]
    return Chains(users, code[opens], time[opens], time[closes], of_event)


def reconcile(
    events: pa.Table,
    stored: pa.Table,
    causes: pa.Table,
    definition: SessionDefinition,
    *,
    horizon_ms: int | None,
    end_ms: int | None = None,
) -> Replacement:
    """Compare the stored sessions with those of all events, in the runs that hold a cause and are final.

    events: accepted and late ones together (without_excluded), of every run that holds a cause the whole; with numbered
    session ids, all events of the users. stored: the sessions of these users in that time, with the columns of the
    definition and, if there is one, `revision`. causes: user and event_time_ms of what made somebody look. horizon_ms:
    the watermark up to which stored sessions are final, None when nothing is open any more. end_ms: the latest event
    time of the whole archive, of all users; default that of these events. Errors: ConfigError when the definition makes
    too few columns.
    """
    check_columns(definition)
    silence_ms = definition.policy.longest_silence_ms
    runs = chains_of(events, silence_ms)
    caused_by = runs.holding(causes[col.USER], causes[col.EVENT_TIME].to_numpy())
    touched = np.zeros(len(runs), bool)
    touched[caused_by[caused_by >= 0]] = True
    final = np.ones(len(runs), bool) if horizon_ms is None else runs.last_ms < horizon_ms - silence_ms
    starts = stored[col.SESSION_START].to_numpy()
    in_run = runs.holding(stored[definition.user_name], starts)
    if definition.policy.numbers_sessions:
        touched, final = _whole_users(runs, touched, final, in_run)
    taken = touched & final
    made = _sessions(events, taken[runs.of_event], definition, end_ms)
    made_in = runs.holding(made[definition.user_name], made[col.SESSION_START].to_numpy())
    broken = _incomplete(runs, stored, in_run, made, made_in, definition) & taken
    if definition.policy.numbers_sessions:
        outside = _codes(stored[definition.user_name], runs.users)[in_run < 0]
        broken = (np.isin(runs.user, runs.user[broken]) | np.isin(runs.user, outside)) & taken
    settled = taken & ~broken
    waiting = (caused_by >= 0) & ~np.append(settled, False)[caused_by]
    keep, have = settled[made_in], np.append(settled, False)[in_run]
    return _difference(
        stored.filter(pa.array(have)),
        in_run[have],
        made.filter(pa.array(keep)),
        made_in[keep],
        definition,
        waiting=waiting,
        incomplete=len(np.unique(runs.user[broken])),
    )


def check_columns(definition: SessionDefinition) -> None:
    """Errors: ConfigError when the sessions lack columns without which they cannot be reconciled."""
    missing = [name for name in NEEDED_COLUMNS if name not in definition.columns]
    if missing:
        raise ConfigError(
            "sessions without these columns cannot be reconciled",
            detail=f"missing: {', '.join(missing)}",
            hint="add them to output.columns",
        )


def _whole_users(runs: Chains, touched: Bools, final: Bools, in_run: Ints) -> tuple[Bools, Bools]:
    """Numbered ids: a user's runs go together, and none of them goes while a stored session lies in an open one,
    because the new numbers could be those of sessions that stay.
    """
    touched = np.isin(runs.user, runs.user[touched])
    stored_in = np.zeros(len(runs), bool)
    stored_in[in_run[in_run >= 0]] = True
    held_back = np.isin(runs.user, runs.user[stored_in & ~final])
    return touched, final & ~held_back


def _sessions(events: pa.Table, taken: Bools, definition: SessionDefinition, end_ms: int | None) -> pa.Table:
    """What a batch over everything says of these events: `end_of_input` depends on the end of the whole input."""
    sessionizer = Sessionizer.of(definition)
    if end_ms is None and events.num_rows:
        end_ms = pc.max(events[col.EVENT_TIME]).as_py()
    if taken.any():
        sessionizer.push(events.filter(pa.array(taken)))
    return sessionizer.flush(end_ms).cast(definition.columns.schema(definition.user_name))


def _incomplete(
    runs: Chains, stored: pa.Table, in_run: Ints, made: pa.Table, made_in: Ints, definition: SessionDefinition
) -> Bools:
    """Runs whose stored sessions know of more events than the archive, which then must not overrule them."""
    broken = np.zeros(len(runs), bool)
    if col.SESSION_END in definition.columns:
        ends_in = runs.holding(stored[definition.user_name], stored[col.SESSION_END].to_numpy())
        odd = in_run != ends_in
        for run in (in_run[odd], ends_in[odd]):
            broken[run[run >= 0]] = True
    if col.EVENT_COUNT in definition.columns and len(runs):
        there = in_run >= 0
        counts = [
            np.bincount(run, weights=count, minlength=len(runs))
            for run, count in (
                (in_run[there], stored[col.EVENT_COUNT].to_numpy()[there]),
                (made_in, made[col.EVENT_COUNT].to_numpy()),
            )
        ]
        broken |= counts[0] > counts[1]
    return broken


def _difference(
    stored: pa.Table,
    stored_in: Ints,
    made: pa.Table,
    made_in: Ints,
    definition: SessionDefinition,
    *,
    waiting: Bools,
    incomplete: int,
) -> Replacement:
    same_made, same_stored = _equal_rows(stored, made, definition)
    old, new = stored.filter(pa.array(~same_stored)), made.filter(pa.array(~same_made))
    old_in, new_in = stored_in[~same_stored], made_in[~same_made]
    runs = int(max(stored_in.max(initial=-1), made_in.max(initial=-1))) + 1
    next_revision = np.zeros(runs, np.int64)
    revisions = np.zeros(old.num_rows, np.int64)
    if col.REVISION in old.column_names:
        revisions = old[col.REVISION].cast(REVISION_TYPE).fill_null(0).to_numpy()
    np.maximum.at(next_revision, old_in, revisions + 1)
    return Replacement(
        removed=old.select([definition.user_name, col.SESSION_ID]),
        removed_start_ms=old[col.SESSION_START].combine_chunks(),
        added=new.append_column(col.REVISION, pa.array(next_revision[new_in], REVISION_TYPE)),
        unchanged=int(np.count_nonzero(same_made)),
        waiting=waiting,
        incomplete=incomplete,
    )


def _equal_rows(stored: pa.Table, made: pa.Table, definition: SessionDefinition) -> tuple[Bools, Bools]:
    """For each made and each stored row, whether the other side has the very same one.

    A key that is stored twice is equal to nothing: both rows go, and what was made takes their place.
    """
    keys = _keys(stored, definition.user_name)
    partner = pc.index_in(_keys(made, definition.user_name), value_set=keys).fill_null(-1).to_numpy()
    same = partner >= 0
    twice = pc.is_in(keys, value_set=_repeated(keys)).to_numpy(zero_copy_only=False)
    same[same] = ~twice[partner[same]]
    left, right = made.filter(pa.array(same)), stored.take(pa.array(partner[same]))
    equal = np.ones(left.num_rows, bool)
    for name, kind in zip(left.schema.names, left.schema.types, strict=True):
        values = right[name].cast(kind) if name in right.column_names else pa.nulls(right.num_rows, kind)
        equal &= _equal(left[name], values)
    same[same] = equal
    in_stored = np.zeros(stored.num_rows, bool)
    in_stored[partner[same]] = True
    return same, in_stored


def _equal(left: Any, right: Any) -> Bools:
    """Element by element; nothing equals nothing."""
    if pa.types.is_nested(left.type):
        pairs = zip(left.to_pylist(), right.to_pylist(), strict=True)
        return np.fromiter((one == other for one, other in pairs), bool, len(left))
    equal = pc.fill_null(pc.equal(left, right), False)
    both_null = pc.and_(pc.is_null(left), pc.is_null(right))
    return np.asarray(pc.or_(equal, both_null))


def _keys(sessions: pa.Table, user_name: str) -> pa.Array:
    """User and session id in one text; the user's length in front, so that no two pairs give the same."""
    users, ids = (sessions[name].cast(pa.string()).combine_chunks() for name in (user_name, col.SESSION_ID))
    return pc.binary_join_element_wise(pc.binary_length(users).cast(pa.string()), users, ids, ":")


def _repeated(keys: pa.Array) -> pa.Array:
    counted = pc.value_counts(keys)
    return counted.field("values").filter(pc.greater(counted.field("counts"), 1))


def _plain(kind: pa.DataType) -> pa.DataType:
    kind = decoded_type(kind)
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def _codes(users: pa.ChunkedArray, known: pa.Array) -> Ints:
    """The position of each user in `known`, -1 for none."""
    codes: Ints = pc.index_in(users.cast(pa.string()), value_set=known).fill_null(-1).to_numpy().astype(np.int64)
    return codes
