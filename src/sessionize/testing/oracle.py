"""What a stream has to come to: decoded, judged late record by record, and cut by the reference, all in plain Python.

Only the decoding is the product's own; it has its own tests.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sessionize.formats.dialects import Dialect
from sessionize.formats.json_lines import JsonLines
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.testing.comparison import EVENT_FIELDS, expected_sessions

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Oracle:
    """on_time, late: events as the reference knows them, in no order. rejected: how many records cannot be used."""

    on_time: list[Row]
    late: list[Row]
    rejected: int

    @classmethod
    def of_json(
        cls,
        partitions: Sequence[Sequence[bytes]],
        dialect: Dialect,
        *,
        lateness_ms: int,
        watermark: str = "confirmed",
        latest_ms: int | None = None,
    ) -> "Oracle":
        """Of the records of each partition, in the order of their offsets. watermark: the rule of that name (rule 8).
        latest_ms: what is later is rejected.
        """
        on_time: list[Row] = []
        late: list[Row] = []
        rejected = 0
        for records in partitions:
            rows, bad = decoded(records, dialect, latest_ms=latest_ms)
            rejected += bad
            kept, set_aside = judged(rows, lateness_ms, watermark)
            on_time += kept
            late += set_aside
        return cls(on_time, late, rejected)

    def sessions(self, policy: Policy, rules: Rules, *, late_too: bool = False) -> list[Any]:
        """The sessions of the events on time; late_too: of all, as after reconciling."""
        rows = self.on_time + self.late if late_too else self.on_time
        return expected_sessions(rows, policy, rules)


def judged(rows: Iterable[Row], lateness_ms: int, watermark: str = "confirmed") -> tuple[list[Row], list[Row]]:
    """The events on time and the late ones of a partition, in their order (docs/spec/sessions.md, rule 8), where
    nothing was ever waited for.
    """
    on_time: list[Row] = []
    late: list[Row] = []
    front: int | None = None
    reference: int | None = None
    step = max(lateness_ms, 1_000)
    last: dict[str, tuple[int, int]] = {}  # user -> time and number of its last event, the newest user at the end
    for number, row in enumerate(rows):
        is_late = front is not None and row["time"] < front - lateness_ms
        (late if is_late else on_time).append(row)
        moves_to = [row["time"]]
        if watermark == "confirmed":
            last.pop(row["user"], None)
            last[row["user"]] = (row["time"], number)
            witnesses = [time for time, at in list(last.values())[-63:] if at > number - 10_000]
            if reference is None or row["time"] > reference + step:
                if len(witnesses) >= 3 or number + 1 >= 1_000:
                    most = max(min(3, len(witnesses)), len(witnesses) // 2 + 1)
                    reached = sorted(witnesses)[-most]
                    reference = reached if reference is None else max(reference, reached)
                moves_to = [] if reference is None else [time for time in witnesses if time <= reference + step]
        front = max([*moves_to, *([] if front is None else [front])], default=None)
    return on_time, late


def decoded(records: Sequence[bytes], dialect: Dialect, *, latest_ms: int | None = None) -> tuple[list[Row], int]:
    """The events of some records as the reference knows them, in their order; and how many were rejected."""
    decoder = JsonLines(dialect, latest_ms=latest_ms)
    decoder.add(b"\n".join(records), source="records")
    decoder.flush()
    taken = decoder.take()
    rows = [
        {EVENT_FIELDS[name]: value for name, value in row.items() if name in EVENT_FIELDS}
        for row in taken.events.to_pylist()
    ]
    return rows, taken.rejected.num_rows
