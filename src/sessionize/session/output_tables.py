"""The tables that a stream writes, as data: a sink loops over them and knows none by name (docs/adr/0015).

A further table is a TableSpec in OUTPUT_TABLES, rows under its name in the epoch's output (ports.EpochOutput), and a
destination in the pipeline. What a kind of sink does with a table, it derives from the spec.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.errors import ConfigError, OutputError
from sessionize.session import columns as col
from sessionize.session.ids import user_hash_buckets
from sessionize.session.names import USER_SESSIONS
from sessionize.session.time import MS_PER_DAY

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Derived:
    """A column that is computed from another one where the rows do not bring it."""

    name: str
    type: pa.DataType
    source: str
    compute: Callable[[pa.ChunkedArray], pa.Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index of a database on columns, (name, whether from the largest down); where: a boolean column that has to be
    true.
    """

    name: str
    columns: tuple[tuple[str, bool], ...]
    where: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """What a table is for every sink. Columns are named as in the rows of a run whose user column is `user`.

    name: the key of its rows in an epoch's output, and what it is called where the pipeline gives no other name.
    schema: its columns; a field that is not nullable has a value in every row. Rows may lack columns that are nullable.
    user_column: the column that holds the user, None for a table without users.
    key: the columns that make a row the same row. A sink that can update keeps the last row of a key, one that only
    appends (Iceberg, lake, Kafka, console) keeps each of a later epoch; of one epoch every sink writes the last row of
    a key, except where rows are `revised`. (): no row takes the place of another.
    removed_by: the columns by which rows are found that are to be removed; the key by default.
    revised: rows may be replaced later, as reconciling does; the table has a column `revision` that counts it.

    derived: columns of tables that are laid out in files, which rows need not bring. partition_by: the column of the
    UTC date by which rows are divided, and one with the number of the user's bucket. sort_by: the order of rows in a
    file. bounds: the columns by whose smallest and largest value a reader skips files; without any, those of all
    columns are kept, as the table format does.

    indexes: what databases find rows by. not_null: the columns that databases declare NOT NULL, when that is not what
    the schema says: tables that users have were made so. clock_times: columns of ms -> what a view calls them as times.

    message_key: the column that a message of a topic is keyed by; the user, or the first of the key, by default.
    opaque: columns of bytes that messages have as text where they are text, shortened. short_columns: what is left of a
    row that is larger than its topic takes; by default a row without its lists, maps, and opaque bytes.
    """

    name: str
    schema: pa.Schema
    user_column: str | None = None
    key: tuple[str, ...] = ()
    removed_by: tuple[str, ...] = ()
    revised: bool = False
    derived: tuple[Derived, ...] = ()
    partition_by: tuple[str, ...] = ()
    sort_by: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()
    indexes: tuple[Index, ...] = ()
    not_null: tuple[str, ...] | None = None
    clock_times: tuple[tuple[str, str], ...] = ()
    message_key: str | None = None
    opaque: tuple[str, ...] = ()
    short_columns: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError("a table cannot be called that", detail=repr(self.name), hint="use a-z, 0-9 and _")
        if not self.removed_by:
            object.__setattr__(self, "removed_by", self.key)
        if self.revised and col.REVISION not in {each.name for each in self.derived}:
            revision = Derived(col.REVISION, pa.int32(), self.schema.names[0], _zeros)
            object.__setattr__(self, "derived", (*self.derived, revision))
        if self.message_key is None:
            first = self.key[0] if self.key else None
            object.__setattr__(self, "message_key", self.user_column if self.user_column is not None else first)
        laid_out = (*self.partition_by, *self.sort_by, *self.bounds)
        in_rows = (*self.key, *self.removed_by, *(self.not_null or ()), *self.opaque, *self._optional)
        for name, known in ((n, k) for names, k in ((laid_out, self.columns), (in_rows, self.schema)) for n in names):
            if name not in known.names:
                raise ConfigError("a table has no such column", detail=f"table {self.name}: {name!r}")

    @property
    def _optional(self) -> tuple[str, ...]:
        return tuple(name for name in (self.user_column, self.message_key) if name is not None)

    @property
    def columns(self) -> pa.Schema:
        """All columns of a table that is laid out in files: those of the rows, and derived ones."""
        further = [pa.field(d.name, d.type) for d in self.derived if d.name not in self.schema.names]
        return pa.schema([*self.schema, *further])

    @property
    def keeps_fields(self) -> bool:
        """Whether rows may bring fields that nobody declared, which are kept in `properties` where there is no other
        place for them.
        """
        return col.PROPERTIES in self.schema.names

    def for_user(self, name: str) -> "TableSpec":
        """The table of a run whose input calls the user column so."""
        if self.user_column is None or self.user_column == name:
            return self
        old = self.user_column

        def new(names: Sequence[str]) -> tuple[str, ...]:
            return tuple(name if each == old else each for each in names)

        return replace(
            self,
            schema=pa.schema([column.with_name(name) if column.name == old else column for column in self.schema]),
            user_column=name,
            key=new(self.key),
            removed_by=new(self.removed_by),
            derived=tuple(replace(each, source=new([each.source])[0]) for each in self.derived),
            partition_by=new(self.partition_by),
            sort_by=new(self.sort_by),
            bounds=new(self.bounds),
            indexes=tuple(
                replace(each, columns=tuple((new([column])[0], falling) for column, falling in each.columns))
                for each in self.indexes
            ),
            not_null=None if self.not_null is None else new(self.not_null),
            message_key=None if self.message_key is None else new([self.message_key])[0],
            short_columns=frozenset(new(tuple(self.short_columns))),
        )


def utc_days(times_ms: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.int64]:
    """int64[n]: the days since 1970-01-01 UTC of times in ms, 0 for null; the last ms before 1970 lies in day -1."""
    times = pc.cast(times_ms, pa.int64())
    if isinstance(times, pa.ChunkedArray):
        times = times.combine_chunks()
    days: npt.NDArray[np.int64] = np.floor_divide(times.fill_null(0).to_numpy(zero_copy_only=False), MS_PER_DAY)
    return days


def utc_dates(times_ms: pa.ChunkedArray) -> pa.Array:
    """The UTC dates of times in ms. Errors: pa.ArrowInvalid for one that no date holds."""
    mask = times_ms.is_null().combine_chunks().to_numpy(zero_copy_only=False)
    return pa.array(utc_days(times_ms), mask=mask).cast(pa.int32()).cast(pa.date32())


def user_buckets(users: pa.ChunkedArray) -> pa.Array:
    """The bucket of each user; each distinct user is hashed once."""
    coded = users.combine_chunks()
    if not pa.types.is_dictionary(coded.type) or coded.dictionary.null_count:
        coded = pc.cast(coded, pa.string()).dictionary_encode()
    return user_hash_buckets(coded.dictionary).take(coded.indices)


def _zeros(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(np.zeros(len(column), np.int32))


def _schema(types: Mapping[str, pa.DataType], *, required: Sequence[str]) -> pa.Schema:
    return pa.schema([pa.field(name, type_, nullable=name not in required) for name, type_ in types.items()])


# A session is written once it is final; reconciling replaces it where late events change it.
SESSIONS = TableSpec(
    name=USER_SESSIONS,
    schema=_schema({name: col.SESSION_TYPES[name] for name in col.SESSION_COLUMNS}, required=(col.USER,)),
    user_column=col.USER,
    key=(col.USER, col.SESSION_ID),
    revised=True,
    derived=(
        Derived(col.SESSION_DATE, pa.date32(), col.SESSION_START, utc_dates),
        Derived(col.USER_HASH_BUCKET, pa.int32(), col.USER, user_buckets),
    ),
    partition_by=(col.SESSION_DATE, col.USER_HASH_BUCKET),
    sort_by=(col.SESSION_DATE, col.USER_HASH_BUCKET, col.USER, col.SESSION_START),
    # the end's reason is how reconciling finds sessions that ended with the input
    bounds=(col.USER, col.SESSION_START, col.SESSION_END, col.SESSION_DATE, col.USER_HASH_BUCKET, col.END_REASON),
    indexes=(
        Index(name="user_sessions_newest", columns=((col.USER, False), (col.SESSION_START, True))),
        Index(name="user_sessions_converted", columns=((col.SESSION_START, True),), where=col.HAS_CONVERSION),
    ),
    not_null=(col.USER, col.SESSION_ID, col.SESSION_START, col.SESSION_END),
    clock_times=((col.SESSION_START, "session_start_at"), (col.SESSION_END, "session_end_at")),
)

_EVENT_DERIVED = (
    Derived(col.EVENT_DATE, pa.date32(), col.EVENT_TIME, utc_dates),
    Derived(col.USER_HASH_BUCKET, pa.int32(), col.USER, user_buckets),
)
# Accepted events, as they came, with the fields of the input that have no column of their own.
EVENTS = TableSpec(
    name="events",
    schema=_schema(col.EVENT_TYPES, required=(col.USER, col.EVENT_TIME)),
    user_column=col.USER,
    derived=_EVENT_DERIVED,
    partition_by=(col.EVENT_DATE,),
    sort_by=(col.EVENT_DATE, col.USER_HASH_BUCKET),
    bounds=(col.USER, col.EVENT_TIME, col.EVENT_DATE, col.USER_HASH_BUCKET),
    not_null=(),
    short_columns=frozenset({*col.EVENT_TYPES, col.SESSION_ID, col.PROCESSING_TIME}) - {col.PROPERTIES},
)
# Events that came too late for their sessions.
LATE_EVENTS = replace(
    EVENTS,
    name="late_events",
    indexes=(Index(name="late_events_by_time", columns=((col.EVENT_TIME, False),)),),
)
# Accepted events with the session as it stood when the epoch was planned, and when that was, in ms.
ENRICHED_EVENTS = replace(
    EVENTS,
    name="enriched_events",
    schema=_schema(
        {**col.EVENT_TYPES, col.SESSION_ID: pa.string(), col.PROCESSING_TIME: pa.int64()},
        required=(col.USER, col.EVENT_TIME),
    ),
)
# Records that could not be used. They have no time that could be trusted, so there are no partitions.
REJECTED_EVENTS = TableSpec(
    name="rejected_events",
    schema=col.REJECTED_SCHEMA,
    removed_by=("source", "line_number", "reason", "raw"),
    # a path may be longer than PostgreSQL lets an index hold
    indexes=(Index(name="rejected_events_by_line", columns=(("line_number", False),)),),
    message_key="source",
    opaque=("raw",),
)

# In the order in which a sink that commits one table after the other does so: sessions last, so that whoever sees a
# session finds its events. A further table goes to the front: the last table that a sink writes also holds its record
# of epochs, and must stay the same.
OUTPUT_TABLES: tuple[TableSpec, ...] = (REJECTED_EVENTS, LATE_EVENTS, EVENTS, ENRICHED_EVENTS, SESSIONS)

# Those that the engine fills by itself; the sessions' are the session operator's, further ones those of operators.
ENGINE_TABLES: tuple[TableSpec, ...] = (REJECTED_EVENTS, LATE_EVENTS, EVENTS, ENRICHED_EVENTS)

# Those that a pipeline may keep in its warehouse: what maintenance and the check of the rules look at.
WAREHOUSE_TABLES: tuple[TableSpec, ...] = (SESSIONS, EVENTS, LATE_EVENTS, REJECTED_EVENTS)


def warehouse_names(sessions: str) -> tuple[str, ...]:
    """What the tables of a pipeline are called whose sessions' table has this name."""
    return (sessions, *(spec.name for spec in WAREHOUSE_TABLES if spec is not SESSIONS))


@dataclass(frozen=True, slots=True)
class Destination:
    """A table that a sink writes. to: where, in the words of the sink: a table, a topic, a folder."""

    spec: TableSpec
    to: str


@dataclass(frozen=True, slots=True)
class Destinations:
    """Which tables of the output a sink writes, and where; iterated in the order of the specs.

    to: table name -> where. specs: all tables that the output may have. user_name: what the rows call the user column.
    Errors: ConfigError for a name without a spec.
    """

    to: Mapping[str, str]
    specs: tuple[TableSpec, ...] = OUTPUT_TABLES
    user_name: str = col.USER
    _chosen: tuple[Destination, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.to) - self.names):
            raise ConfigError(
                "an output table is not known",
                detail=f"table {unknown[0]!r}",
                hint=f"one of {', '.join(sorted(self.names))}",
            )
        chosen = [Destination(s.for_user(self.user_name), self.to[s.name]) for s in self.specs if s.name in self.to]
        object.__setattr__(self, "_chosen", tuple(chosen))

    def check_apart(self) -> None:
        """For sinks that keep one table in one place. Errors: ConfigError where two tables have one destination."""
        where = [each.to for each in self._chosen]
        for each in self._chosen:
            if where.count(each.to) > 1:
                raise ConfigError(
                    "two output tables have one destination",
                    detail=", ".join(f"{other.spec.name} -> {other.to!r}" for other in self if other.to == each.to),
                    hint="give each table a destination of its own",
                )

    @property
    def names(self) -> frozenset[str]:
        """The names of all tables that the output may have."""
        return frozenset(spec.name for spec in self.specs)

    def __iter__(self) -> Iterator[Destination]:
        return iter(self._chosen)

    def __len__(self) -> int:
        return len(self._chosen)

    def rows(self, tables: Mapping[str, pa.Table]) -> list[tuple[Destination, pa.Table]]:
        """Of an epoch's output, the tables that have rows to write: the last row of each key, and all sessions.

        One epoch has several steps, as a drain ends what the watermark has not, and they may give one key again.

        Errors: OutputError for a table without a spec, before anything is written.
        """
        if unknown := sorted(set(tables) - self.names):
            raise OutputError(
                "an epoch has rows for a table that is not known",
                detail=f"table {unknown[0]!r}; known are {', '.join(sorted(self.names))}",
                hint="declare the table beside the others in session/output_tables.py, or give the sink its spec",
            )
        found = ((each, tables.get(each.spec.name)) for each in self._chosen)
        return [
            # sessions have names of their own: two of one key would be a mistake, which nobody should hide
            (each, rows if each.spec.revised else _last_of_keys(rows, each.spec.key))
            for each, rows in found
            if rows is not None and rows.num_rows
        ]


def _last_of_keys(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """The rows without those that are followed by another one of their key; a key with null is nobody else's."""
    if not key or not set(key) <= set(rows.column_names):
        return rows
    columns = [rows[name] for name in key]
    columns = [c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in columns]
    numbered = pa.table([*columns, pa.array(np.arange(rows.num_rows))], names=[*map(str, range(len(key))), "row"])
    by_key = numbered.group_by(numbered.column_names[:-1], use_threads=False)
    last = by_key.aggregate([("row", "max")])["row_max"].to_numpy()
    if len(last) == rows.num_rows:
        return rows
    kept = np.zeros(rows.num_rows, bool)
    kept[last] = True
    for column in columns:
        kept |= column.is_null().to_numpy()
    return rows.filter(pa.array(kept))
