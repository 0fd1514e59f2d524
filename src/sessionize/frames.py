"""Sessions of a data frame: a pandas, Polars, pyarrow or DuckDB frame in, the same kind out.

    import sessionize
    sessionize.sessions(frame, user="user_id", time="timestamp", page="url")
    sessionize.label(frame, user="user_id", time="timestamp")

The frame is bounded input to the same core as everything else; narwhals knows the kinds of frames.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import narwhals as nw
import pyarrow as pa
import pyarrow.compute as pc
from narwhals.typing import IntoFrame

from sessionize.arrow import decoded_type
from sessionize.engine.accounting import Accounting
from sessionize.engine.batch.sessions import sessions_of
from sessionize.errors import ConfigError, InputError
from sessionize.formats.frame_columns import check_time_options, frame_amounts, frame_times, frame_users
from sessionize.kernel.labels import label_events
from sessionize.kernel.validation import accepted, amounts
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition, compared_fields
from sessionize.session.durations import Duration
from sessionize.session.expressions import word_of
from sessionize.session.own_columns import OwnColumn, fields_named, read_columns
from sessionize.session.policy import GapBoundary, MaxDurationMode, Policy, SessionIds
from sessionize.session.rules import Rules

Frame = TypeVar("Frame", bound=IntoFrame)

_CANONICAL = frozenset({col.EVENT_ID, col.EVENT_TYPE, col.PAGE, col.PRODUCT, col.CATEGORY, col.VALUE})
_ROWS_AT_ONCE = 10_000_000


def sessions(
    frame: Frame,
    *,
    user: str,
    time: str,
    event_id: str | None = None,
    event_type: str | None = None,
    page: str | None = None,
    value: str | None = None,
    gap: Duration = "30m",
    gap_boundary: GapBoundary = "exclusive",
    max_duration: Duration | None = "2h",
    max_duration_mode: MaxDurationMode = "anchored",
    session_ids: SessionIds = "start",
    policy: Policy | None = None,
    rules: Rules | None = None,
    columns: list[str] | Mapping[str, Mapping[str, Any]] | None = None,
    time_format: str = "auto",
    time_zone: str | None = None,
    times: Literal["ms", "timestamp"] = "ms",
) -> Frame:
    """Turn a frame of events into a frame of sessions: one row per session, sorted by user and start.

    Parameters
    ----------
    frame : pandas, Polars, pyarrow or DuckDB frame
        The events, in any order; a Polars LazyFrame or DuckDB relation is collected.
    user : str
        Column of users: text or integers. The sessions have a column of the same name (integers become text, also those
        that pandas holds as floats).
    time : str
        Column of event times: timestamps, numbers, or text, by the rules of files. Numbers are ms since 1970 UTC, text
        is ISO 8601, and times without a zone are UTC, unless `time_format` and `time_zone` say otherwise.
    event_id : str, optional
        Column of event ids. Two events of one user with equal time and id count once.
    event_type : str, optional
        Column of event types. It adds ``events_by_type`` and ``has_conversion``; rules about types need it.
    page : str, optional
        Column of pages. It adds ``pages_visited``, ``entry_page`` and ``exit_page``.
    value : str, optional
        Column of amounts. With `event_type` it adds ``revenue``.
    gap, gap_boundary, max_duration, max_duration_mode, session_ids
        As in `Policy.of`.
    policy : Policy, optional
        All of these at once, and those that have no option here: `gap_by`, `day_start`, `max_events`, a minimum
        length, bounces, duplicates at other times.
    rules : Rules, optional
        What the events say about boundaries. Default: no start, end or excluded events; purchases are conversions.
    columns : list of str, or mapping, optional
        A list: only these session columns; the user column is always there. A mapping: further columns of your own
        beside the others, by name, each as in a pipeline file (docs/session-columns.md):
        ``{"first_referrer": {"first": "referrer"}}``. Their fields are the columns of the frame.

    time_format : str
        Form of the times: auto, s, ms, us, ns, iso8601, or a strptime pattern such as ``"%d.%m.%Y %H:%M"``.
    time_zone : str, optional
        IANA zone of times without one, also of timestamps. An hour that happens twice is the earlier one.
    times : {"ms", "timestamp"}
        ``"timestamp"`` gives ``session_start_time`` and ``session_end_time`` as timestamps (ms, UTC) in place of
        ``session_start_time_ms`` and ``session_end_time_ms``.

    Returns
    -------
    frame
        The same kind of frame as `frame`. docs/output.md lists the columns with types and units.

    Raises
    ------
    InputError
        A column is missing, or a user, time or value is one that an event cannot have.
    ConfigError
        An option has a value that is not allowed, or stands beside `policy`.

    Notes
    -----
    Source: docs/spec/sessions.md. Memory is proportional to the frame.

    Examples
    --------
    >>> import pyarrow as pa, sessionize
    >>> visits = pa.table({"user_id": ["a", "a", "b"], "at": [0, 60_000, 5_000_000]})
    >>> made = sessionize.sessions(visits, user="user_id", time="at", columns=["session_id", "event_count"])
    >>> made.to_pydict()
    {'user_id': ['a', 'b'], 'session_id': ['a_0', 'b_5000000'], 'event_count': [2, 1]}

    >>> visits = visits.append_column("source", [["news", "ads", None]])
    >>> sources = {"first_source": {"first": "source"}, "sources": {"distinct": "source"}}
    >>> made = sessionize.sessions(visits, user="user_id", time="at", columns=sources)
    >>> made.select(["first_source", "sources"]).to_pydict()
    {'first_source': ['news', None], 'sources': [['news', 'ads'], []]}
    """
    if times not in ("ms", "timestamp"):
        raise ConfigError("unknown form of times", detail=f"times = {times!r}", hint='"ms" or "timestamp"')
    if isinstance(user, str):
        col.check_user_name(user)
    asked = {"gap": gap, "gap_boundary": gap_boundary, "max_duration": max_duration}
    asked |= {"max_duration_mode": max_duration_mode, "session_ids": session_ids}
    policy = _policy(policy, asked)
    own = read_columns(columns) if isinstance(columns, Mapping) else ()
    only = None if columns is None or isinstance(columns, Mapping) else tuple(columns)
    given = {col.EVENT_ID: event_id, col.EVENT_TYPE: event_type, col.PAGE: page, col.VALUE: value}
    compared = compared_fields(policy, rules or Rules())
    form, keep_all = (time_format, time_zone), _has_boundary(rules)
    native, events = _read(frame, user, time, given, keep_all=keep_all, own=own, compared=compared, form=form)
    have = frozenset({col.USER, col.EVENT_TIME, *(name for name, column in given.items() if column is not None)})
    wanted = col.SessionColumns.made_of(have, only=only, bounces=bool(policy.bounce))
    extra = tuple(n for n in (col.SESSION_START, col.SESSION_ID) if n not in wanted)
    made = col.SessionColumns(tuple(n for n in col.SESSION_TYPES if n in wanted or n in extra))
    made = made.with_own(own, _field_types(events), user)
    definition = SessionDefinition(policy=policy, rules=rules or Rules(), columns=made, user_name=user)
    if value is not None and col.REVENUE in made:  # here, where rows have their own numbers
        amounts(events, definition.rules.converts(events), called=value)
    schema = made.schema(user)
    tables = [t.cast(schema) for t, _ in sessions_of(_pieces(events), definition, Accounting())]
    table = pa.concat_tables(tables or [schema.empty_table()])
    order = [(user, "ascending"), (col.SESSION_START, "ascending")]
    table = table.take(pc.sort_indices(table, sort_keys=order)).drop_columns(list(extra))
    result: Frame = _like(native, table if times == "ms" else _with_timestamps(table))
    return result


def label(
    frame: Frame,
    *,
    user: str,
    time: str,
    event_id: str | None = None,
    event_type: str | None = None,
    page: str | None = None,
    gap: Duration = "30m",
    gap_boundary: GapBoundary = "exclusive",
    max_duration: Duration | None = "2h",
    max_duration_mode: MaxDurationMode = "anchored",
    session_ids: SessionIds = "start",
    policy: Policy | None = None,
    rules: Rules | None = None,
    column: str = col.SESSION_ID,
    time_format: str = "auto",
    time_zone: str | None = None,
) -> Frame:
    """Add the id of each event's session to a frame of events; rows and their order stay.

    Parameters
    ----------
    frame, user, time, event_id, event_type, page, rules
        As in `sessions`.
    gap, gap_boundary, max_duration, max_duration_mode, session_ids, policy
        As in `sessions`.
    column : str
        Name of the new text column. Default ``"session_id"``.
    time_format, time_zone
        As in `sessions`.

    Returns
    -------
    frame
        The same kind of frame with one more column. An event of an excluded type has null there. A duplicate has the id
        of the event that it repeats.

    Raises
    ------
    InputError
        As in `sessions`, and when the frame already has a column of that name.
    ConfigError
        An option has a value that is not allowed.

    Notes
    -----
    Source: docs/spec/sessions.md.

    Examples
    --------
    >>> import pyarrow as pa, sessionize
    >>> visits = pa.table({"user_id": ["a", "a", "b"], "at": [0, 60_000, 5_000_000]})
    >>> sessionize.label(visits, user="user_id", time="at")["session_id"].to_pylist()
    ['a_0', 'a_0', 'b_5000000']
    """
    asked = {"gap": gap, "gap_boundary": gap_boundary, "max_duration": max_duration}
    asked |= {"max_duration_mode": max_duration_mode, "session_ids": session_ids}
    policy = _policy(policy, asked)
    given = {col.EVENT_ID: event_id, col.EVENT_TYPE: event_type, col.PAGE: page}
    compared = compared_fields(policy, rules or Rules())
    form, keep_all = (time_format, time_zone), _has_boundary(rules)
    native, events = _read(frame, user, time, given, keep_all=keep_all, compared=compared, form=form)
    if column in native.columns:
        raise InputError(
            "the frame already has a column of that name", detail=f"column {column!r}", hint="choose another: column=…"
        )
    ids = label_events(events, policy, rules=rules).session_id
    if nw.get_native_namespace(native).__name__ == "duckdb":
        result: Frame = _like(native, native.collect("pyarrow").to_native().append_column(column, ids))
        return result
    eager = native.collect() if isinstance(native, nw.LazyFrame) else native
    series = nw.new_series(column, ids.to_pylist(), nw.String, backend=eager.implementation)
    if eager.implementation.is_pandas():
        series = nw.from_native(series.to_native().set_axis(eager.to_native().index), series_only=True)
    done = eager.with_columns(series)
    labelled: Frame = (done.lazy() if isinstance(native, nw.LazyFrame) else done).to_native()
    return labelled


def _pieces(events: pa.Table) -> Iterator[pa.Table]:
    """The events, so many at a time that the text of a column has room in one array."""
    for start in range(0, events.num_rows, _ROWS_AT_ONCE):
        yield events.slice(start, _ROWS_AT_ONCE)


def _policy(policy: Policy | None, asked: dict[str, Any]) -> Policy:
    """The policy that is meant. Errors: ConfigError for an option beside a policy."""
    if policy is None:
        return Policy.of(**asked)
    named = [name for name, value in asked.items() if value != _DEFAULTS[name]]
    if named:
        raise ConfigError(
            "a policy has all options of a policy",
            detail=f"policy beside {', '.join(named)}",
            hint="name them in Policy.of(...), or leave policy out",
        )
    return policy


_DEFAULTS = {
    "gap": "30m",
    "gap_boundary": "exclusive",
    "max_duration": "2h",
    "max_duration_mode": "anchored",
    "session_ids": "start",
}


def _has_boundary(rules: Rules | None) -> bool:
    return rules is not None and rules.boundary is not None


def _field_types(events: pa.Table) -> dict[str, str]:
    """The columns that own session columns may name, with their types in words."""
    return {column.name: word_of(decoded_type(column.type)) for column in events.schema if column.name != col.USER}


def _read(
    frame: Any,
    user: str,
    time: str,
    given: dict[str, str | None],
    *,
    keep_all: bool,
    own: Sequence[OwnColumn] = (),
    compared: frozenset[str] = frozenset(),
    form: tuple[str, str | None] = ("auto", None),
) -> tuple[Any, pa.Table]:
    """The frame in narwhals' hands, and its events with canonical columns. own, compared: what else is needed of it.

    form: of its times, and their zone.
    """
    check_time_options(*form)
    try:
        native = nw.from_native(frame)
    except TypeError as error:
        raise InputError(
            "unsupported kind of frame",
            detail=f"{type(frame).__module__}.{type(frame).__name__}",
            hint="supported are pandas, Polars, pyarrow tables and DuckDB relations",
        ) from error
    present = native.collect_schema().names()
    for role, each in (("user", user), ("time", time)):
        if not isinstance(each, str):
            raise InputError(f"{role} must be the name of one column", detail=f"{role} = {each!r}")
    names = {user: col.USER, time: col.EVENT_TIME} | {c: name for name, c in given.items() if c is not None}
    for wanted in names:
        if wanted not in present:
            index = getattr(getattr(frame, "index", None), "names", ())
            hint = "frame.reset_index() makes a column of the index" if wanted in index else None
            raise InputError(
                "the frame has no such column",
                detail=f"column {wanted!r}",
                hint=hint or f"it has {', '.join(map(str, present))}",
            )
    if len(names) < 2 + sum(c is not None for c in given.values()):
        raise InputError("one column cannot have two roles", detail=f"user={user!r}, time={time!r}, {given}")
    fields = fields_named(own, present)
    known = {*present, col.EVENT_TIME, *(name for name, column in given.items() if column is not None)}
    for name in sorted(fields - known):
        raise InputError(
            "the frame has no such column",
            detail=f"column {name!r}, which a session column names",
            hint=f"it has {', '.join(present)}",
        )
    fields = (fields | compared) & set(present)
    chosen = native if keep_all else native.select(list(dict.fromkeys([*names, *sorted(fields)])))
    table = _as_table(chosen)
    rest = {n: table[n] for n in table.column_names if n in fields or n not in names}
    rest = {n: column for n, column in rest.items() if n not in col.EVENT_TYPES}
    # a canonical column that nothing was mapped to, and that the frame has under the same name
    given = {**given, **{n: n for n in sorted(fields & _CANONICAL) if given.get(n) is None}}
    at = frame_times(table[time], time, time_format=form[0], time_zone=form[1])
    events = {col.USER: frame_users(table[user], user), col.EVENT_TIME: at}
    for name, column in given.items():
        if column is not None:
            texts = name != col.VALUE
            events[name] = _cast(table[column], pa.string(), column) if texts else frame_amounts(table[column], column)
    called = {canonical: name for name, canonical in names.items()}
    return native, accepted(pa.table({**events, **rest}), called=called)


def _as_table(chosen: Any) -> pa.Table:
    """Errors: InputError for a column that Arrow has no type for."""
    try:
        return chosen.collect("pyarrow").to_native() if isinstance(chosen, nw.LazyFrame) else chosen.to_arrow()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InputError(
            "a column of the frame has values of several types, or of one that Arrow does not know",
            detail=str(error),
            hint='make it one type first, for example frame["user_id"].astype(str)',
        ) from error


def _with_timestamps(table: pa.Table) -> pa.Table:
    """Start and end as timestamps, under names without the unit."""
    for name in (col.SESSION_START, col.SESSION_END):
        if name in table.column_names:
            place = table.column_names.index(name)
            table = table.set_column(
                place, name.removesuffix("_ms"), table[name].cast(pa.timestamp("ms")).cast(pa.timestamp("ms", "UTC"))
            )
    return table


def _cast(column: pa.ChunkedArray, kind: pa.DataType, name: str) -> pa.ChunkedArray:
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"column {name!r} can't be used as {kind}", detail=str(error)) from error


def _like(native: Any, table: pa.Table) -> Any:
    """The table as the kind of frame that came in."""
    backend = nw.get_native_namespace(native)
    if backend.__name__ == "duckdb":
        return backend.from_arrow(table)
    if isinstance(native, nw.LazyFrame):
        return nw.from_arrow(table, backend=native.implementation).lazy().to_native()
    made = nw.from_arrow(table, backend=native.implementation).to_native()
    if native.implementation.is_pandas() and col.EVENTS_BY_TYPE in table.column_names:
        # pandas has no maps; Arrow would leave lists of pairs, people expect dicts
        made[col.EVENTS_BY_TYPE] = made[col.EVENTS_BY_TYPE].map(dict)
    return made
