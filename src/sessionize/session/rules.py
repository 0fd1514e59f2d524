"""Rules derive session boundaries from the events, as flags for each event.

The kernel gets flags, not rules: `starts` (the event opens a session), `ends` (it closes its session), `drop` (it does
not count), `converts`. Of `split_on_change` it gets the values that count, and compares them with those before. See
docs/spec/sessions.md, rule 4.
"""

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.errors import BoundaryError, ConfigError
from sessionize.session.columns import EVENT_TYPE
from sessionize.session.reasons import RULE_BASE

# A boundary function gets the events as an Arrow table (canonical columns, arrival order) and returns for each whether
# it opens a session. It sees each event alone; the time between two events belongs to the gap.
Boundary = Callable[[pa.Table], object]
BoolArray = npt.NDArray[np.bool_]
_SETS = {
    "start_events": "event types",
    "end_events": "event types",
    "excluded_events": "event types",
    "conversion_events": "event types",
    "split_on_change": "fields",
    "split_ignore": "values",
}
CodeArray = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """Flags per event, in the order of the table; None where no rule can set the flag.

    starts, ends int16[n]: 0, or the reason code of the rule (session/reasons.py). drop, converts bool[n].
    """

    starts: CodeArray | None = None
    ends: CodeArray | None = None
    drop: BoolArray | None = None
    converts: BoolArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the events themselves say about session boundaries and conversions.

    Event types are compared exactly, except conversions, which ignore case.

    Parameters
    ----------
    start_events : set of str
        An event of such a type opens a session.
    end_events : set of str
        An event of such a type is the last event of its session. A session that runs out without one ends by
        ``timeout``.
    excluded_events : set of str
        Events of such a type take no part in any session; the accounting counts them as ``excluded``.
    conversion_events : set of str
        They set ``has_conversion``, and their value is revenue. Default ``{"purchase"}``.
    boundary : callable or None
        A function of your own. It gets the events as an Arrow table (canonical columns, n rows in arrival order) and
        returns bool[n]: whether each event opens a session.
    boundary_name : str
        Reported as the reason: ``rule:<boundary_name>``. Default: the name of the function.
    split_on_change : set of str
        Event columns, canonical or further fields: an event whose value differs from the last one of its run opens a
        session. Missing values (null, empty text) and those of `split_ignore` count as no value.
    split_ignore : set of str
        Values that do not count for `split_on_change`; ``*`` stands for any text: ``"(direct)"``, ``"*.paypal.com*"``.

    Raises
    ------
    ConfigError
        A value is a string instead of a set, or an excluded event would open or close a session.

    Notes
    -----
    Source: docs/spec/sessions.md, rules 4 and 5.

    Examples
    --------
    >>> import pyarrow as pa, sessionize
    >>> visits = pa.table({"user": ["a", "a", "a"], "ms": [0, 1000, 2000], "kind": ["view", "logout", "view"]})
    >>> rules = sessionize.Rules(end_events=frozenset({"logout"}))
    >>> table = sessionize.sessions(visits, user="user", time="ms", event_type="kind", rules=rules)
    >>> table["end_reason"].to_pylist()
    ['rule:end_events', 'end_of_input']
    """

    start_events: frozenset[str] = frozenset()
    end_events: frozenset[str] = frozenset()
    excluded_events: frozenset[str] = frozenset()
    conversion_events: frozenset[str] = frozenset({"purchase"})
    boundary: Boundary | None = None
    boundary_name: str = field(default="")
    split_on_change: frozenset[str] = frozenset()
    split_ignore: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name, what in _SETS.items():
            value = getattr(self, name)
            if isinstance(value, str):
                raise ConfigError(f"{name} must be a set of {what}", detail=f"{name} = {value!r}", hint=f"[{value!r}]")
            object.__setattr__(self, name, frozenset(value))
        if self.split_ignore and not self.split_on_change:
            raise ConfigError(
                "split_ignore has no effect without split_on_change",
                detail=f"split_ignore = {sorted(self.split_ignore)}",
                hint="name the fields in split_on_change, or remove split_ignore",
            )
        both = self.excluded_events & (self.start_events | self.end_events)
        if both:
            raise ConfigError(
                "an excluded event cannot open or close a session",
                detail=f"event types {', '.join(sorted(both))}",
                hint="remove them from excluded_events, or from start_events and end_events",
            )
        if self.boundary is not None and not self.boundary_name:
            object.__setattr__(self, "boundary_name", getattr(self.boundary, "__name__", "boundary"))

    @property
    def names(self) -> tuple[str, ...]:
        """Rule names in the order of their reason codes."""
        return ("start_events", "end_events", self.boundary_name or "boundary", "day_start", "split_on_change")

    @property
    def split_fields(self) -> tuple[str, ...]:
        """The fields of split_on_change in the order in which they decide between simultaneous events."""
        return tuple(sorted(self.split_on_change))

    @property
    def need_event_type(self) -> bool:
        """Whether any rule that cuts or drops looks at the event type."""
        return bool(self.start_events or self.end_events or self.excluded_events)

    @property
    def cut(self) -> bool:
        """Whether any rule can cut, so that the order of simultaneous events matters."""
        return bool(self.start_events or self.end_events or self.boundary is not None)

    def flags(self, events: pa.Table, *, conversions: bool) -> Flags:
        """Compute the flags of a table of events. conversions: whether `converts` is needed."""
        has_type = EVENT_TYPE in events.column_names
        if self.need_event_type and not has_type:
            raise ConfigError(
                "a rule needs the event type, which the events lack",
                detail=f"columns: {', '.join(events.column_names)}",
                hint="map event_type, or remove start_events, end_events and excluded_events",
            )
        kind = events[EVENT_TYPE] if has_type else None
        starts = self._code(_is_in(kind, self.start_events), 0)
        if self.boundary is not None:
            custom = _boundary_mask(self.boundary, self.boundary_name, events)
            starts = np.where(custom, np.int16(RULE_BASE + 2), 0 if starts is None else starts).astype(np.int16)
        return Flags(
            starts=starts,
            ends=self._code(_is_in(kind, self.end_events), 1),
            drop=_is_in(kind, self.excluded_events),
            converts=self.converts(events) if conversions else None,
        )

    def converts(self, events: pa.Table) -> BoolArray | None:
        """bool[n]: which events are conversions; None if none can be."""
        kind = events[EVENT_TYPE] if EVENT_TYPE in events.column_names else None
        return _is_in(kind, self.conversion_events, fold_case=True)

    @staticmethod
    def _code(mask: BoolArray | None, rule: int) -> CodeArray | None:
        return None if mask is None else mask.astype(np.int16) * np.int16(RULE_BASE + rule)


def _is_in(kind: pa.ChunkedArray | None, wanted: frozenset[str], *, fold_case: bool = False) -> BoolArray | None:
    """bool[n]: whether each event type is one of the wanted; None when nothing is wanted or there are no types."""
    if kind is None or not wanted:
        return None
    names = {name.lower() for name in wanted} if fold_case else wanted
    parts = []
    for chunk in kind.chunks:
        coded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        words = pc.utf8_lower(coded.dictionary) if fold_case else coded.dictionary
        hit = pc.is_in(words, pa.array(sorted(names), words.type))
        # one more element at the end, for the index -1 of null
        table = np.append(hit.to_numpy(zero_copy_only=False).astype(bool), False)
        parts.append(table[pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)])
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def _boundary_mask(boundary: Boundary, name: str, events: pa.Table) -> BoolArray:
    if not events.num_rows:
        return np.zeros(0, bool)
    raw = _call_boundary(boundary, name, events)
    answer = f"{type(raw).__module__}.{type(raw).__qualname__}".removeprefix("builtins.")
    if isinstance(raw, pa.Array | pa.ChunkedArray):
        # null is no boundary: a comparison with a missing page gives null
        raw = np.asarray(pc.fill_null(raw, False)) if pa.types.is_boolean(raw.type) else raw
    try:
        mask = np.asarray(raw)
    except (ValueError, TypeError, pa.ArrowException):  # lists of different lengths, for instance
        mask = np.empty((), object)
    if mask.shape != (events.num_rows,) or mask.dtype != np.bool_:
        raise ConfigError(
            f"the boundary function {name} must return one boolean per event",
            detail=f"it returned {answer} ({mask.dtype} of shape {mask.shape}) for {events.num_rows} events",
            hint="return for example pyarrow.compute.equal(events['page'], 'logout')",
        )
    return mask


def _call_boundary(boundary: Boundary, name: str, events: pa.Table) -> object:
    """The function's result. Errors: BoundaryError for any error it raises."""
    try:
        return boundary(events)
    except MemoryError:
        raise
    except BaseException as error:
        if is_signal(error):
            raise
        raise BoundaryError(
            f"the boundary function {name} failed",
            detail=f"{type(error).__name__}: {error}, {_place(error)}, for {events.num_rows:,} events",
            hint="fix the function: it must return a boolean for every event, with any field values",
        ) from error


def is_signal(error: BaseException) -> bool:
    """Whether a signal handler raised it, as far as can be known, while custom code was running.

    Signal handlers run in the main thread at any point. A handler that ends the process raises its own class
    (cli/app.py); a plain SystemExit comes from sys.exit() in that code.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    return isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and type(error) is not SystemExit)


def _place(error: BaseException) -> str:
    """Where it was raised: the innermost line with a file."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "somewhere"
