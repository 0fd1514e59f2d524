"""Which stored sessions have to change, so that they equal a batch over all events, late ones included.

    replacement = diff_sessions(events, stored, triggers, definition, horizon_ms=watermark_ms)

A **chain** is the events of a user with no silence between them that could split a session, and all events between two
of which one may be a duplicate of the other; the sessions of one chain never depend on another. Only chains that
contain a trigger (a late event) are computed again, by the Sessionizer as everywhere, and only those that are final: no
session that is still open in an engine can touch them. Rows that are equal to the stored ones stay, so a second call
changes nothing.
"""

from dataclasses import dataclass, replace
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
from sessionize.session.policy import Policy

REVISION_TYPE = pa.int64()
# Without these two a stored session can neither be identified nor be placed in time.
NEEDED_COLUMNS = (col.SESSION_ID, col.SESSION_START)

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Chains:
    """Chains of events, ordered by user and time: the user (a position in `users`), the first and the last event.

    of_event int64[n]: the chain of each event, in the order of the events.
    """

    users: pa.Array
    user: Ints
    first_ms: Ints
    last_ms: Ints
    of_event: Ints

    def __len__(self) -> int:
        return len(self.user)

    def locate(self, users: pa.ChunkedArray, times_ms: Ints) -> Ints:
        """The chain that contains each (user, time), -1 for none."""
        code = _codes(users, self.users)
        both = np.concatenate([self.user, code]), np.concatenate([self.first_ms, times_ms])
        asked = np.repeat([0, 1], [len(self), len(code)])
        order = np.lexsort((asked, both[1], both[0]))
        before = np.cumsum(asked[order] == 0) - 1
        found = np.empty(len(order), np.int64)
        found[order] = before
        chain = found[len(self) :]
        inside = chain >= 0
        inside[inside] = (self.user[chain[inside]] == code[inside]) & (self.last_ms[chain[inside]] >= times_ms[inside])
        return np.where(inside, chain, -1)


def without_excluded(events: pa.Table, definition: SessionDefinition) -> pa.Table:
    """The events without those of excluded types, with decoded text: what chains and sessions are made of."""
    events = events.cast(pa.schema([f.with_type(_plain(f.type)) for f in events.schema]))
    if not definition.rules.excluded_events or col.EVENT_TYPE not in events.column_names:
        return events
    dropped = pc.is_in(events[col.EVENT_TYPE], pa.array(sorted(definition.rules.excluded_events)))
    return events.filter(pc.invert(dropped))


def chains_of(events: pa.Table, policy: Policy) -> Chains:
    """The chains of events (user, event_time_ms, event_id if there), which may be in any order."""
    users = pc.unique(events[col.USER])
    code, time = _codes(events[col.USER], users), events[col.EVENT_TIME].to_numpy()
    order = np.lexsort((time, code))
    code, time = code[order], time[order]
    opens = np.ones(len(order), bool)
    opens[1:] = (code[1:] != code[:-1]) | (time[1:] - time[:-1] > policy.longest_silence_ms)
    if policy.repeats_ids and col.EVENT_ID in events.column_names:
        opens &= ~_within_repeats(code, time, events[col.EVENT_ID].cast(pa.large_string()), order, policy)
    of_event = np.empty(len(order), np.int64)
    of_event[order] = np.cumsum(opens) - 1
    closes = np.append(opens[1:], True)[: len(opens)]
    return Chains(users, code[opens], time[opens], time[closes], of_event)


def _within_repeats(code: Ints, time: Ints, ids: pa.ChunkedArray, order: Ints, policy: Policy) -> Bools:
    """Which events, by user and time, lie behind one and up to another of the same id that may repeat it.

    order: which event each is. ids: of the events as they came.
    """
    names = ids.combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.int64)[order]
    by_id = np.lexsort((np.arange(len(order)), names, code))
    before, after = by_id[:-1], by_id[1:]
    repeats = (code[before] == code[after]) & (names[before] == names[after]) & (names[after] >= 0)
    repeats &= time[after] - time[before] <= policy.duplicates_within_ms
    steps = np.zeros(len(order) + 1, np.int64)
    np.add.at(steps, before[repeats] + 1, 1)
    np.add.at(steps, after[repeats] + 1, -1)
    within: Bools = np.cumsum(steps)[:-1] > 0
    return within


def diff_sessions(
    events: pa.Table,
    stored: pa.Table,
    triggers: pa.Table,
    definition: SessionDefinition,
    *,
    horizon_ms: int | None,
    end_ms: int | None = None,
) -> Replacement:
    """Compare the stored sessions with those of all events, in the chains that contain a trigger and are final.

    events: accepted and late ones together (without_excluded), all of each chain that contains a trigger; with numbered
    session ids, all events of the users. stored: the sessions of these users in that time, with the columns of the
    definition and, if there is one, `revision`. triggers: user and event_time_ms of what may change a session.
    horizon_ms: the watermark up to which stored sessions are final, None when none is open any more. end_ms: the latest
    event time of the whole archive, of all users; default that of these events. Errors: ConfigError when the definition
    has too few columns.
    """
    check_columns(definition)
    policy = definition.policy
    chains = chains_of(events, policy)
    trigger_in = chains.locate(triggers[col.USER], triggers[col.EVENT_TIME].to_numpy())
    touched = np.zeros(len(chains), bool)
    touched[trigger_in[trigger_in >= 0]] = True
    final = np.ones(len(chains), bool) if horizon_ms is None else chains.last_ms < horizon_ms - policy.reach_ms
    starts = stored[col.SESSION_START].to_numpy()
    in_chain = chains.locate(stored[definition.user_name], starts)
    if definition.policy.numbers_sessions:
        touched, final = _whole_users(chains, touched, final, in_chain)
    taken = touched & final
    made, long_enough = _sessions(events, taken[chains.of_event], definition, end_ms)
    made_in = chains.locate(made[definition.user_name], made[col.SESSION_START].to_numpy())
    broken = _incomplete(chains, stored, in_chain, made, made_in, definition) & taken
    if definition.policy.numbers_sessions:
        outside = _codes(stored[definition.user_name], chains.users)[in_chain < 0]
        broken = (np.isin(chains.user, chains.user[broken]) | np.isin(chains.user, outside)) & taken
    settled = taken & ~broken
    waiting = (trigger_in >= 0) & ~np.append(settled, False)[trigger_in]
    keep, have = settled[made_in] & long_enough, np.append(settled, False)[in_chain]
    return _difference(
        stored.filter(pa.array(have)),
        in_chain[have],
        made.filter(pa.array(keep)),
        made_in[keep],
        definition,
        waiting=waiting,
        incomplete=len(np.unique(chains.user[broken])),
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


def _whole_users(chains: Chains, touched: Bools, final: Bools, in_chain: Ints) -> tuple[Bools, Bools]:
    """Numbered ids: all chains of a user are replaced together, and none while a stored session is in an open one,
    because the new numbers could be those of sessions that stay.
    """
    touched = np.isin(chains.user, chains.user[touched])
    stored_in = np.zeros(len(chains), bool)
    stored_in[in_chain[in_chain >= 0]] = True
    held_back = np.isin(chains.user, chains.user[stored_in & ~final])
    return touched, final & ~held_back


def _sessions(
    events: pa.Table, taken: Bools, definition: SessionDefinition, end_ms: int | None
) -> tuple[pa.Table, Bools]:
    """The sessions of a batch over all events, for these: `end_of_input` depends on the end of the whole input.

    Those that are too short to be written are among them, as they have events that stored sessions had; and which are
    long enough.
    """
    policy, columns = definition.policy, definition.columns
    more = () if not policy.drops_short else (col.SESSION_START, col.SESSION_END, col.EVENT_COUNT)
    every = replace(columns, names=(*columns.names, *(name for name in more if name not in columns)))
    all_lengths = replace(policy, min_events=1, min_duration_ms=0)
    sessionizer = Sessionizer.of(replace(definition, policy=all_lengths, columns=every))
    if end_ms is None and events.num_rows:
        end_ms = pc.max(events[col.EVENT_TIME]).as_py()
    if taken.any():
        sessionizer.push(events.filter(pa.array(taken)))
    made = sessionizer.flush(end_ms).cast(every.schema(definition.user_name))
    if not policy.drops_short:
        return made, np.ones(made.num_rows, bool)
    count, start, end = (made[name].to_numpy() for name in (col.EVENT_COUNT, col.SESSION_START, col.SESSION_END))
    return made.select(columns.schema(definition.user_name).names), policy.keeps(count, end - start)


def _incomplete(
    chains: Chains, stored: pa.Table, in_chain: Ints, made: pa.Table, made_in: Ints, definition: SessionDefinition
) -> Bools:
    """Chains whose stored sessions have more events than the archive, which then must not replace them."""
    broken = np.zeros(len(chains), bool)
    if col.SESSION_END in definition.columns:
        ends_in = chains.locate(stored[definition.user_name], stored[col.SESSION_END].to_numpy())
        differs = in_chain != ends_in
        for chain in (in_chain[differs], ends_in[differs]):
            broken[chain[chain >= 0]] = True
    if col.EVENT_COUNT in definition.columns and len(chains):
        there = in_chain >= 0
        counts = [
            np.bincount(chain, weights=count, minlength=len(chains))
            for chain, count in (
                (in_chain[there], stored[col.EVENT_COUNT].to_numpy()[there]),
                (made_in, made[col.EVENT_COUNT].to_numpy()),
            )
        ]
        if definition.policy.repeats_ids:  # an event that was late makes duplicates of stored ones
            counts[1] = np.bincount(chains.of_event, minlength=len(chains))
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
    chains = int(max(stored_in.max(initial=-1), made_in.max(initial=-1))) + 1
    next_revision = np.zeros(chains, np.int64)
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
    """For each made and each stored row, whether the other side has an equal one.

    A key that is stored twice equals nothing: both rows are removed, and the made row replaces them.
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
    """Element by element; null equals null."""
    if pa.types.is_nested(left.type):
        pairs = zip(left.to_pylist(), right.to_pylist(), strict=True)
        return np.fromiter((one == other for one, other in pairs), bool, len(left))
    equal = pc.fill_null(pc.equal(left, right), False)
    both_null = pc.and_(pc.is_null(left), pc.is_null(right))
    return np.asarray(pc.or_(equal, both_null))


def _keys(sessions: pa.Table, user_name: str) -> pa.Array:
    """User and session id as one text that begins with the user's length, so no two pairs give the same text."""
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
