"""What changes between two policies over the same events: which sessions, which figures, and the rule behind each.

Both cut the same events; then each event has a session on both sides. Sessions that share an event belong together, and
such a **change** is of one kind. Sessions are the same where they have the same events, whatever they are called: it is
decided on labels. The work is done a part of the users at a time, and only counts and some examples are kept.
"""

from collections import Counter
from dataclasses import dataclass, field
from math import fsum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.analytics.diff_examples import examples
from sessionize.analytics.silences import GapCounts
from sessionize.analytics.two_cuts import Bools, Cut, Groups, Ints, Side, cut_events, groups_of
from sessionize.session import columns as col

Kind = Literal["same", "renamed", "revalued", "resized", "split", "merged", "moved", "only_a", "only_b"]
KINDS: dict[Kind, str] = {
    "same": "same events, name and figures",
    "renamed": "same events, another id",
    "revalued": "same events, another reason, conversion or revenue",
    "resized": "one session on both sides, not the same events",
    "split": "one session of A is several of B",
    "merged": "several sessions of A are one of B",
    "moved": "several on both sides, with other boundaries",
    "only_a": "a session of A whose events have none in B",
    "only_b": "a session of B whose events have none in A",
}
_NAMES: tuple[Kind, ...] = tuple(KINDS)
_COMPARED = (col.HAS_CONVERSION, col.REVENUE, col.START_REASON, col.END_REASON)


@dataclass(slots=True)
class Figures:
    """What one side makes of the events. durations: of its sessions."""

    users: int = 0
    events: int = 0
    duplicates: int = 0
    excluded: int = 0
    short: int = 0
    one_event: int = 0
    conversions: int = 0
    revenue: list[float] = field(default_factory=list)
    durations: GapCounts = field(default_factory=GapCounts)

    def add(self, more: "Figures") -> None:
        """Add those of other users."""
        for name in ("users", "events", "duplicates", "excluded", "short", "one_event", "conversions"):
            setattr(self, name, getattr(self, name) + getattr(more, name))
        self.revenue = [fsum((*self.revenue, *more.revenue))]
        self.durations.add(more.durations)

    def as_dict(self) -> dict[str, float]:
        """By name; durations in ms, the quantiles within 1/64."""
        sessions = self.durations.sessions
        return {
            "sessions": sessions,
            "users": self.users,
            "events_in_sessions": self.events,
            "events_per_session": self.events / max(sessions, 1),
            "sessions_per_user": sessions / max(self.users, 1),
            "sessions_of_one_event": self.one_event,
            "mean_duration_ms": self.durations.duration_ms / max(sessions, 1),
            "median_duration_ms": self.durations.quantile_ms(0.5),
            "p90_duration_ms": self.durations.quantile_ms(0.9),
            "longest_duration_ms": self.durations.longest_ms,
            "total_duration_ms": self.durations.duration_ms,
            "sessions_with_conversion": self.conversions,
            "revenue": fsum(self.revenue),
            "duplicates": self.duplicates,
            "excluded": self.excluded,
            "sessions_too_short": self.short,
        }


@dataclass(slots=True, kw_only=True)
class PolicyDiff:
    """What was found so far.

    changes: how often each kind is there; sessions_a, sessions_b: the sessions in them. boundaries: (where it is alone:
    "a" or "b", reason) -> how many events open a session there and not on the other side. examples: of each kind, the
    first in time, at most `keep`.
    """

    a: Side
    b: Side
    keep: int
    figures_a: Figures = field(default_factory=Figures)
    figures_b: Figures = field(default_factory=Figures)
    changes: Counter[str] = field(default_factory=Counter)
    sessions_a: Counter[str] = field(default_factory=Counter)
    sessions_b: Counter[str] = field(default_factory=Counter)
    boundaries: Counter[tuple[str, str]] = field(default_factory=Counter)
    users_changed: int = 0
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        return all(kind == "same" or not count for kind, count in self.changes.items()) and not self.boundaries

    def of(self, events: pa.Table, end_ms: int) -> "PolicyDiff":
        """The difference over these events alone: all of some users. end_ms: when the whole input ended.

        Errors: ConfigError and BoundaryError of the rules.
        """
        made = PolicyDiff(a=self.a, b=self.b, keep=self.keep)
        if not events.num_rows:
            return made
        one, other = cut_events(events, self.a, end_ms), cut_events(events, self.b, end_ms)
        made.figures_a, made.figures_b = _figures(one, events), _figures(other, events)
        made._compare(events, one, other)
        return made

    def add(self, more: "PolicyDiff") -> None:
        """Add the difference over other users."""
        self.figures_a.add(more.figures_a)
        self.figures_b.add(more.figures_b)
        for name in ("changes", "sessions_a", "sessions_b", "boundaries"):
            getattr(self, name).update(getattr(more, name))
        self.users_changed += more.users_changed
        for kind, found in more.examples.items():
            both = [*self.examples.get(kind, ()), *found]
            self.examples[kind] = sorted(both, key=lambda each: (each["time_ms"], each["user"]))[: self.keep]

    def _compare(self, events: pa.Table, one: "Cut", other: "Cut") -> None:
        groups = groups_of(one, other)
        kinds = _kinds(groups, one, other)
        na, nb = groups.written(0, one), groups.written(1, other)
        for at, kind in enumerate(_NAMES):
            there = kinds == at
            if there.any():
                self.changes[kind] = int(np.count_nonzero(there))
                self.sessions_a[kind], self.sessions_b[kind] = int(na[there].sum()), int(nb[there].sum())
        opens_a, opens_b = one.opens(events.num_rows), other.opens(events.num_rows)
        for where, alone, cut in (("a", opens_a & ~opens_b, one), ("b", opens_b & ~opens_a, other)):
            reasons = cut.began.take(pa.array(cut.session[np.flatnonzero(alone)]))
            self.boundaries.update({(where, r["values"]): r["counts"] for r in reasons.value_counts().to_pylist()})
        user = events[col.USER].combine_chunks().indices.to_numpy()
        changed = np.flatnonzero(kinds > 0)
        self.users_changed = len(np.unique(user[groups.first_row[changed]]))
        if self.keep:
            of_kind: dict[str, Ints] = {kind: np.flatnonzero(kinds == at) for at, kind in enumerate(_NAMES) if at}
            self.examples = examples(events, groups, of_kind, one, other, keep=self.keep)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-compatible values."""
        a, b = self.figures_a.as_dict(), self.figures_b.as_dict()
        return {
            "a": {"name": self.a.name, "policy": self.a.policy.describe()},
            "b": {"name": self.b.name, "policy": self.b.policy.describe()},
            "equal": self.is_empty,
            "users_changed": self.users_changed,
            "figures": {name: {"a": a[name], "b": b[name], "difference": b[name] - a[name]} for name in a},
            "changes": {
                kind: {
                    "meaning": meaning,
                    "count": self.changes[kind],
                    "sessions_a": self.sessions_a[kind],
                    "sessions_b": self.sessions_b[kind],
                }
                for kind, meaning in KINDS.items()
            },
            "boundaries": [
                {"only_in": where, "reason": reason, "count": count}
                for (where, reason), count in sorted(self.boundaries.items(), key=lambda item: (-item[1], item[0]))
            ],
            "examples": {kind: self.examples[kind] for kind in _NAMES if self.examples.get(kind)},
        }


def _figures(cut: Cut, events: pa.Table) -> Figures:
    """What this side makes of the events."""
    its = np.flatnonzero(cut.written)
    duration, count = (cut.end - cut.start)[its], cut.count[its]
    user = events[col.USER].combine_chunks().indices.to_numpy()[cut.first_row[its]]
    made = Figures(
        users=len(np.unique(user)),
        events=int(count.sum()),
        duplicates=cut.counts.duplicate,
        excluded=cut.counts.excluded,
        short=len(cut) - len(its),
        one_event=int(np.count_nonzero(count == 1)),
        durations=GapCounts.of(duration),
    )
    if col.HAS_CONVERSION in cut.values.column_names:
        made.conversions = pc.sum(cut.values[col.HAS_CONVERSION]).as_py() or 0
    if col.REVENUE in cut.values.column_names:
        made.revenue = [fsum(pc.drop_null(cut.values[col.REVENUE]).to_numpy())]
    return made


def _kinds(groups: Groups, one: Cut, other: Cut) -> npt.NDArray[np.int8]:
    """int8[groups]: the position of the kind of each in KINDS, -1 where no side writes a session."""
    na, nb = groups.written(0, one), groups.written(1, other)
    size_a, size_b = groups.size(0, one), groups.size(1, other)
    all_a, all_b = (np.bincount(of, minlength=len(groups)) for of in (groups.of_a, groups.of_b))
    kinds = np.full(len(groups), -1, np.int8)

    def put(where: Bools, kind: Kind) -> None:
        kinds[where & (kinds < 0)] = _NAMES.index(kind)

    put((na > 0) & (nb == 0), "only_a")
    put((na == 0) & (nb > 0), "only_b")
    same_events = (all_a == 1) & (all_b == 1) & (groups.shared == size_a) & (groups.shared == size_b)
    alone = (na == 1) & (nb == 1)
    put(alone & ~same_events, "resized")
    put((na == 1) & (nb > 1), "split")
    put((na > 1) & (nb == 1), "merged")
    put((na > 1) & (nb > 1), "moved")
    pairs = np.flatnonzero(alone & same_events)
    in_a, in_b = _only_session(groups.of_a, pairs, len(groups)), _only_session(groups.of_b, pairs, len(groups))
    renamed = _differ(one.ids.take(pa.array(in_a)), other.ids.take(pa.array(in_b)))
    revalued = np.zeros(len(pairs), bool)
    for name in _COMPARED:
        if name in one.values.column_names and name in other.values.column_names:
            mine, theirs = one.values[name].take(pa.array(in_a)), other.values[name].take(pa.array(in_b))
            revalued |= _differ(mine, theirs)
    kinds[pairs] = np.where(
        revalued, _NAMES.index("revalued"), np.where(renamed, _NAMES.index("renamed"), _NAMES.index("same"))
    )
    return kinds


def _only_session(of: Ints, groups: Ints, n: int) -> Ints:
    """The one session of each of these groups."""
    session_of = np.zeros(n, np.int64)
    session_of[of] = np.arange(len(of))
    return session_of[groups]


def _differ(one: Any, other: Any) -> Bools:
    """bool[n]: where two columns differ; null equals null."""
    unequal = pc.fill_null(pc.not_equal(one, other), False)
    either = pc.xor(pc.is_null(one), pc.is_null(other))
    found = pc.or_(unequal, either)
    plain = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    made: Bools = plain.to_numpy(zero_copy_only=False).astype(bool)
    return made
