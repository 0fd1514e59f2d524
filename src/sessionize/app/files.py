"""Files in, sessions or labelled events out: what `batch` and `label` do, as a plan that can be printed and run.

This road needs no pipeline file, so it loads none of the configuration machinery; and the engine only once the input is
being read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sessionize.app.batch import BatchRun, with_rejects
from sessionize.app.config.values import KnownFiles
from sessionize.app.inputs import EventInput, Reading, open_input, warehouse_at
from sessionize.app.output_paths import check_address_is_no_input, check_output_places
from sessionize.app.table_inputs import ICEBERG_PREFIX, check_input, database_and_table, local_inputs
from sessionize.app.tables.home_folders import home_of_table
from sessionize.connectors.files.quick_start import without_pandas
from sessionize.connectors.files.sink import FileSink, StdoutSink
from sessionize.connectors.local_paths import check_local, is_address
from sessionize.connectors.remote_addresses import check_address, is_remote
from sessionize.engine.accounting import Accounting, Progress, ignore
from sessionize.errors import ConfigError
from sessionize.formats.dialects import Dialect
from sessionize.formats.input_format import AUTO, InputFormat
from sessionize.ports import Sink
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition, check_fields, rule_columns
from sessionize.session.names import BATCH, LABEL
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules

if TYPE_CHECKING:
    import pyarrow as pa

    from sessionize.app.tables.loading import Load
    from sessionize.engine.batch.options import BatchOptions

STDOUT = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePlan:
    """A run over files, before anything is read.

    what: "sessions" or "labels". output: a file by its ending, or iceberg:database.table. columns: the session columns
    to make, None for all that the input can fill. home: where Iceberg tables are, None for a home called after the
    database. rejects: a file for the records that could not be used, None to count
    them only. memory_bytes_max: None for the engine's own limit. max_future_ms, now_ms: events later than now +
    max_future are rejected; None accepts any time. overwrite: the rows of an Iceberg table are replaced. known_files:
    what to do with files that are in it already.
    """

    what: Literal["sessions", "labels"]
    inputs: tuple[str, ...]
    output: str
    dialect: Dialect
    policy: Policy
    rules: Rules
    input_format: InputFormat = AUTO
    home: Path | None = None
    columns: tuple[str, ...] | None = None
    rejects: Path | None = None
    memory_bytes_max: int | None = None
    max_future_ms: int | None = None
    now_ms: int | None = None
    overwrite: bool = False
    known_files: KnownFiles = "refuse"

    def __post_init__(self) -> None:
        """Errors: ConfigError for a user column called like one of ours, and for an address in place of a path."""
        for name, path in (("-o", self.output), ("--rejects", self.rejects), ("--home", self.home)):
            if name == "-o" and is_address(self.output):
                check_address(self.output, name=name, writes=True)
            elif path is not None:
                check_local(path, name=name)
        for path in self.inputs:
            check_input(path, name="the input")
        labels = self.what == "labels"
        hint = "map it with --field NAME=PATH"
        check_fields(self.policy, self.rules, self.dialect.columns, hint=hint)
        col.check_user_name(self.dialect.user_name, sessions=not labels, events=labels)

    def lines(self) -> list[tuple[str, str]]:
        """The plan in words, for people."""
        return [
            ("input", ", ".join(self.inputs)),
            ("records", self.dialect.name),
            *((f"input {name}", str(value)) for name, value in self.input_format.words().items()),
            ("rules", self.policy.describe()),
            ("output", self.where()),
            ("rejected records", str(self.rejects) if self.rejects is not None else "counted only"),
        ]

    def where(self) -> str:
        """Where the rows go, in words. Errors: ConfigError."""
        if not self.output.startswith(ICEBERG_PREFIX):
            return "stdout" if self.output == STDOUT else self.output
        database, table = self._table()
        return f"{database}.{table} in {self._home(database, table)}"

    def open(self, on_note: Callable[[str], None] = lambda text: None) -> BatchRun:
        """Look at the input and open the outputs.

        on_note: gets a text about files that come twice, or are skipped. Errors: ConfigError, InputError, OutputError;
        StateError for a table of other rules, or files that are in it.
        """
        if self.rules.boundary is None:
            without_pandas()
        labels = self.what == "labels"
        how = Reading(
            warehouse=warehouse_at(self.home),
            dialect=self.dialect,
            input_format=self.input_format,
            columns=None if labels or self.rules.boundary is not None else self._event_columns(),
            extras=labels or self.rules.boundary is not None,
            max_future_ms=self.max_future_ms,
            now_ms=self.now_ms,
            plain_users=True,
        )
        source = open_input(self.inputs, how)
        is_file = not (self.output == STDOUT or self.output.startswith(ICEBERG_PREFIX) or is_remote(self.output))
        written = [Path(self.output)] if is_file else []
        check_address_is_no_input(self.output, self.inputs, source.files)
        written += [] if self.rejects is None else [self.rejects]
        check_output_places(local_inputs(self.inputs), source.files, written)
        bounces = bool(self.policy.bounce)
        wanted = col.SessionColumns.made_of(source.event_columns, only=self.columns, bounces=bounces)
        if self.output.startswith(ICEBERG_PREFIX):
            sink, load = self._into_table(source, wanted, on_note)
        else:
            if source.has_files_of_one_size:  # otherwise what looks closer is not even loaded
                from sessionize.app.tables.loading import warn_of_twins

                warn_of_twins(source, on_note)
            schema = wanted.schema(source.user_name) if self.what == "sessions" else None
            sink, load = self._file_sink(schema), None
        outputs = with_rejects(sink, self.rejects)

        def work(progress: Progress, stop: Callable[[], bool]) -> Accounting:
            with source.begun():  # the input is read ahead while the engine is loaded
                from sessionize.engine.batch.labels import run_label
                from sessionize.engine.batch.sessions import run_batch

                engine = run_batch if self.what == "sessions" else run_label
                return engine(source, outputs, self._definition(source, wanted), self._options(), progress=progress)

        return BatchRun(source, outputs, work, load)

    def run(self, on_note: Callable[[str], None] = lambda text: None, progress: Progress = ignore) -> Accounting:
        """Open it, run it, and close it. Errors: those of open, and of the engine."""
        with self.open(on_note) as opened:
            return opened.run(progress)

    def _file_sink(self, schema: "pa.Schema | None") -> Sink:
        if self.output == STDOUT:
            return StdoutSink()
        if not is_remote(self.output):
            return FileSink(Path(self.output), schema)
        from sessionize.connectors.files.remote_sink import RemoteFileSink

        return RemoteFileSink(self.output, schema)

    def _definition(self, source: EventInput, columns: col.SessionColumns) -> SessionDefinition:
        return SessionDefinition(policy=self.policy, rules=self.rules, columns=columns, user_name=source.user_name)

    def _options(self) -> "BatchOptions":
        from sessionize.engine.batch.options import MEMORY_BYTES_MAX, BatchOptions

        limit = self.memory_bytes_max
        return BatchOptions(memory_bytes_max=MEMORY_BYTES_MAX if limit is None else limit, dialect=self.dialect)

    def _event_columns(self) -> frozenset[str]:
        """The event columns that the wanted session columns and the rules need; the others are not even read."""
        has = self.dialect.columns
        wanted = col.SessionColumns.made_of(has, only=self.columns, bounces=bool(self.policy.bounce))
        return (wanted.event_columns | rule_columns(self.policy, self.rules)) & has

    def _into_table(
        self, source: EventInput, columns: col.SessionColumns, on_note: Callable[[str], None]
    ) -> "tuple[Sink, Load]":
        from sessionize.app.tables.loading import Destination, begin_load
        from sessionize.connectors.iceberg import IcebergSink, Owner, check_tables, open_catalog, user_sessions
        from sessionize.connectors.iceberg import events as event_layout
        from sessionize.session.spec import SessionSpec

        (database, table), user_name = self._table(), source.user_name
        layout = user_sessions(user_name) if self.what == "sessions" else event_layout(user_name)
        spec = SessionSpec.of(
            self.policy,
            self.rules,
            pipeline=BATCH if self.what == "sessions" else LABEL,
            user_column=user_name,
            dialect=self.dialect.name,
            columns=columns.names,
        )
        owner = Owner(
            spec=spec,
            sessions=table,
            elsewhere=f"give another --home, or another DATABASE.TABLE in -o {ICEBERG_PREFIX}DATABASE.TABLE",
            replacing="--overwrite",
            overwrite=self.overwrite,
        )
        home = self._home(database, table)
        catalog = open_catalog(home)
        check_tables(catalog, database, [(table, layout)], owner=owner)
        to = Destination(
            catalog=catalog,
            database=database,
            table=table,
            home=home,
            pipeline=spec.pipeline,
            replacing="--overwrite",
            replaces=self.overwrite,
        )
        load = begin_load(source, to, known=self.known_files, on_note=on_note)
        sink = IcebergSink(
            catalog, layout, table=table, database=database, overwrite=self.overwrite, owner=owner, load=load.mark
        )
        return load.sink(sink, last=True), load

    def _table(self) -> tuple[str, str]:
        """Database and table of an Iceberg output."""
        database, table = database_and_table(self.output, "an Iceberg output")
        if table == "loads":
            raise ConfigError(
                "the table name loads is reserved for the list of loads",
                detail=self.output,
                hint="give the table another name",
            )
        return database, table

    def _home(self, database: str, table: str) -> Path:
        return home_of_table(database, table) if self.home is None else self.home
