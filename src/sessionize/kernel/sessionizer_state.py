"""What a Sessionizer remembers: users by number, their open sessions, what those have seen, events that still wait.

Names of users, pages and event types stand here once each, and everything else refers to them by code. Names that
nothing refers to any more are forgotten now and then, so memory follows what is open, not what was ever seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sessionize.kernel.change_log import PushLog, SlotLog
from sessionize.kernel.distinct_counts import DistinctCounts
from sessionize.kernel.interner import Interner
from sessionize.kernel.open_sessions import SPLIT, OpenSessions
from sessionize.kernel.own_columns import OwnAggregates
from sessionize.kernel.pending import Pending

NAMES_MIN = 1 << 16  # names of pages and types are tidied up no earlier than this
USERS_MIN = 1 << 12  # and names of users no earlier than this

Slots = npt.NDArray[np.int32]


@dataclass(slots=True, kw_only=True)
class SessionizerState:
    """The parts that hold. A slot is a user's number; pages, kinds: what open sessions have seen, None if not wanted.

    own: the aggregates of own columns, None without any; own_tallies: their distinct values.

    log: whose state changed since it was last asked for, None if nobody asks. pushes, users, page_names, kind_names,
    value_names (of split_on_change), pending: the reorder buffer's (kernel/reorder.py), which refers to users and names
    by the same numbers.
    """

    pages: DistinctCounts | None
    kinds: DistinctCounts | None
    log: SlotLog | None
    pushes: PushLog | None
    users: Interner
    page_names: Interner
    kind_names: Interner
    value_names: Interner
    pending: Pending
    own: OwnAggregates | None = None
    own_tallies: dict[str, DistinctCounts] = field(default_factory=dict)
    state: OpenSessions = field(default_factory=OpenSessions)
    names_limit: int = NAMES_MIN  # of pages and types; beyond it they are tidied up
    own_names_limit: int = NAMES_MIN

    @property
    def tallies(self) -> list[tuple[str, DistinctCounts, Interner]]:
        """What is counted by name, the tally, and the names behind its codes."""
        pairs = (("pages", self.pages, self.page_names), ("kinds", self.kinds, self.kind_names))
        found = [(name, tally, names) for name, tally, names in pairs if tally is not None]
        own = self.own
        return found if own is None else [*found, *((n, tally, own.names) for n, tally in self.own_tallies.items())]

    def names_of(self, column: str) -> Interner | None:
        """The names behind a state column of codes, or a column of pending events; None where it has no codes."""
        if column in ("entry", "exit", "page"):
            return self.page_names
        if column == "kind":
            return self.kind_names
        if column.startswith(SPLIT):
            return self.value_names
        return self.own.names if self.own is not None and column in self.own.coded else None

    def busy(self) -> npt.NDArray[np.bool_]:
        """bool by slot: users with an open session or pending events."""
        busy: npt.NDArray[np.bool_] = self.pending.in_use("slot", len(self.users))
        busy |= self.state["live"][: len(self.users)]
        return busy

    def reserve(self) -> None:
        """Make room for every user there is a number for."""
        self.state.reserve(len(self.users))
        for _, tally, _ in self.tallies:
            tally.reserve(self.state.capacity)

    def tidy(self, *, users: bool) -> None:
        """Forget names that nothing refers to; costs O(1) a name in the long run. users: those of users as well."""
        held = self.users.used
        if users and held > USERS_MIN:
            known = np.count_nonzero(self.state["live"])
            if held > 2 * (known + len(self.pending)) + USERS_MIN:
                idle = ~self.busy()
                if self.log is not None:
                    self.log.before_release(idle, self.users)
                self.users.release(np.flatnonzero(idle).astype(np.int32))
        values = [name for name in self.state.types if name.startswith(SPLIT)]
        if len(self.page_names) + len(self.kind_names) + len(self.value_names) > self.names_limit:
            self._tidy_names(self.page_names, self.pages, ["page"], ("entry", "exit"))
            self._tidy_names(self.kind_names, self.kinds, ["kind"], ())
            self._tidy_names(self.value_names, None, values, values)
            held = len(self.page_names) + len(self.kind_names) + len(self.value_names)
            self.names_limit = max(NAMES_MIN, 2 * held)
        if self.own is not None and len(self.own.names) > self.own_names_limit:
            self._tidy_own(self.own)
            self.own_names_limit = max(NAMES_MIN, 2 * len(self.own.names))

    def _tidy_names(
        self, names: Interner, tally: DistinctCounts | None, columns: Sequence[str], in_state: Sequence[str]
    ) -> None:
        """columns, in_state: the columns of pending events, and of the state, that refer to these names."""
        waiting = [name for name in columns if self.pending.has(name)]
        if tally is None and not waiting and not in_state:
            return
        in_use = self._in_state(len(names), in_state)
        if tally is not None:
            in_use |= tally.codes_in_use(len(names))
        for name in waiting:
            in_use |= self.pending.in_use(name, len(names))
        table = names.compact(in_use)
        if tally is not None:
            tally.recode(table)
        for name in waiting:
            self.pending.recode(name, table)
            if self.pushes is not None:
                self.pushes.recode(name, table)
        self._recode_state(table, in_state)

    def _tidy_own(self, own: OwnAggregates) -> None:
        in_use = self._in_state(len(own.names), own.coded)
        for tally in self.own_tallies.values():
            in_use |= tally.codes_in_use(len(own.names))
        table = own.names.compact(in_use)
        for tally in self.own_tallies.values():
            tally.recode(table)
        self._recode_state(table, own.coded)

    def _in_state(self, size: int, columns: Sequence[str]) -> npt.NDArray[np.bool_]:
        """bool[size]: which codes these state columns hold."""
        in_use, live = np.zeros(size, bool), self.state["live"]
        for column in columns:
            codes = self.state[column][live]
            in_use[codes[codes >= 0]] = True
        return in_use

    def _recode_state(self, table: npt.NDArray[np.int32], columns: Sequence[str]) -> None:
        live = self.state["live"]
        for column in columns:
            self.state[column][live] = table[self.state[column][live]]
