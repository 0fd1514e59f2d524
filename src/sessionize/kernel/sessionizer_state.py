"""What a Sessionizer remembers: users by number, their open sessions, what those have seen, events that still wait.

Names of users, pages and event types stand here once each, and everything else refers to them by code. Names that
nothing refers to any more are forgotten now and then, so memory follows what is open, not what was ever seen.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sessionize.kernel.change_log import PushLog, SlotLog
from sessionize.kernel.distinct_counts import DistinctCounts
from sessionize.kernel.interner import Interner
from sessionize.kernel.open_sessions import OpenSessions
from sessionize.kernel.pending import Pending

NAMES_MIN = 1 << 16  # names of pages and types are tidied up no earlier than this
USERS_MIN = 1 << 12  # and names of users no earlier than this

Slots = npt.NDArray[np.int32]


@dataclass(slots=True, kw_only=True)
class SessionizerState:
    """The parts that hold. A slot is a user's number; pages, kinds: what open sessions have seen, None if not wanted.

    log: whose state changed since it was last asked for, None if nobody asks. pushes, users, page_names, kind_names,
    pending: the reorder buffer's (kernel/reorder.py), which refers to users and names by the same numbers.
    """

    pages: DistinctCounts | None
    kinds: DistinctCounts | None
    log: SlotLog | None
    pushes: PushLog | None
    users: Interner
    page_names: Interner
    kind_names: Interner
    pending: Pending
    state: OpenSessions = field(default_factory=OpenSessions)
    names_limit: int = NAMES_MIN  # of pages and types; beyond it they are tidied up

    @property
    def tallies(self) -> list[tuple[str, DistinctCounts, Interner]]:
        """What is counted by name, the tally, and the names behind its codes."""
        pairs = (("pages", self.pages, self.page_names), ("kinds", self.kinds, self.kind_names))
        return [(name, tally, names) for name, tally, names in pairs if tally is not None]

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
        if len(self.page_names) + len(self.kind_names) > self.names_limit:
            self._tidy_names(self.page_names, self.pages, "page", ("entry", "exit"))
            self._tidy_names(self.kind_names, self.kinds, "kind", ())
            self.names_limit = max(NAMES_MIN, 2 * (len(self.page_names) + len(self.kind_names)))

    def _tidy_names(self, names: Interner, tally: DistinctCounts | None, name: str, in_state: tuple[str, ...]) -> None:
        if tally is None:
            return
        in_use = tally.codes_in_use(len(names)) | self.pending.in_use(name, len(names))
        live = self.state["live"]
        for column in in_state:
            codes = self.state[column][live]
            in_use[codes[codes >= 0]] = True
        table = names.compact(in_use)
        tally.recode(table)
        self.pending.recode(name, table)
        if self.pushes is not None:
            self.pushes.recode(name, table)
        for column in in_state:
            self.state[column][live] = table[self.state[column][live]]
