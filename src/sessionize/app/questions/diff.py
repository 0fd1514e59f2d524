"""`diff`: two policies over the same files."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from sessionize.analytics.policy_diff import PolicyDiff
    from sessionize.analytics.two_cuts import Side
    from sessionize.app.inputs import EventInput
    from sessionize.app.questions.user_parts import EventFiles
    from sessionize.engine.accounting import Accounting, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffRun:
    """An opened question. keep: how many examples of each kind."""

    files: "EventFiles"
    source: "EventInput"
    a: "Side"
    b: "Side"
    keep: int

    @property
    def size_bytes(self) -> int | None:
        """How much there is to read; None when unknown."""
        return self.source.size_bytes

    def run(self, progress: "Progress") -> "tuple[PolicyDiff, Accounting]":
        """Read everything and compare. Errors: InputError, also where every record is rejected; those of the rules."""
        from sessionize.analytics.policy_diff import PolicyDiff
        from sessionize.app.questions.user_parts import check_usable, of_each_part, read_events
        from sessionize.engine.accounting import Accounting

        accounting, found = Accounting(), PolicyDiff(a=self.a, b=self.b, keep=self.keep)

        def work(events: "pa.Table") -> "tuple[PolicyDiff, int]":
            return found.of(events, accounting.latest_ms or 0), events.num_rows

        tables = read_events(self.source, accounting, progress)
        for its, events in of_each_part(work, tables, self.files.options(), accounting):
            found.add(its)
            progress("write", events, accounting)
        check_usable(accounting, self.files.dialect())
        return found, accounting


def open_diff(files: "EventFiles", a: str, b: str, *, keep: int, now_ms: int) -> DiffRun:
    """Look at the policies and the input. Errors: ConfigError, InputError."""
    from sessionize.app.questions.policies import side_of

    dialect = files.dialect()
    sides = side_of(a, dialect), side_of(b, dialect)
    custom = any(side.rules.boundary is not None for side in sides)
    source = files.open(None, extras=custom, now_ms=now_ms)
    return DiffRun(files=files, source=source, a=sides[0], b=sides[1], keep=keep)
