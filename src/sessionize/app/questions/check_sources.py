"""What `check` looks at: files of events with or without sessions, or the tables of a home; and by which limits."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.analytics.checks import CheckReport
from sessionize.app.config.pipeline import PipelineConfig, load_pipeline, preset_names
from sessionize.app.format_options import DEFAULT_FORMAT
from sessionize.app.inputs import EventInput
from sessionize.app.options import RuleOptions
from sessionize.app.questions.check import EVENT, LATE, Checked
from sessionize.app.questions.user_parts import EventFiles
from sessionize.app.tables.explain import rules_of_tables
from sessionize.app.tables.rules import stored_spec
from sessionize.app.tables.warehouse import Warehouse, find_warehouse
from sessionize.app.warn import Warn
from sessionize.connectors.files.session_rows import session_rows
from sessionize.engine.accounting import Accounting, Progress
from sessionize.engine.batch.options import BatchOptions
from sessionize.errors import ConfigError
from sessionize.session import columns as col
from sessionize.session.names import DATA_QUALITY_CHECKER
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What is asked. words: a pipeline, or files. sessions: a file of sessions. pipeline: beside files, whose limits,
    record format and rules hold.
    """

    words: tuple[str, ...]
    files: EventFiles
    rules: RuleOptions
    sessions: Path | None = None
    pipeline: str | None = None
    home: Path | None = None
    database: str | None = None

    @property
    def names_pipeline(self) -> bool:
        """Whether the words name a pipeline, or nothing; otherwise they are files."""
        presets = {name for name, _ in preset_names()}
        return not self.words or (
            len(self.words) == 1 and (self.words[0] in presets or self.words[0].endswith(".toml"))
        )

    def config(self) -> PipelineConfig:
        """The pipeline whose limits hold. Errors: ConfigError."""
        name = self.words[0] if self.words and self.names_pipeline else self.pipeline or DATA_QUALITY_CHECKER
        return load_pipeline(name)

    def open(self, config: PipelineConfig, *, now_ms: int, warn: Warn, progress: Progress) -> Checked:
        """Look at what is to be checked. Errors: ConfigError, InputError; those of the catalog."""
        if not self.names_pipeline:
            return self._of_files(config, now_ms=now_ms, warn=warn, progress=progress)
        if self.sessions is not None:
            raise ConfigError("--sessions goes with files of events", hint="name them: FILES")
        return self._of_tables(config, warn=warn, progress=progress)

    def _of_files(self, config: PipelineConfig, *, now_ms: int, warn: Warn, progress: Progress) -> Checked:
        given = self.files.records.are_given or self.pipeline is None
        dialect = self.files.dialect() if given else config.dialect()
        own = (Policy(), Rules()) if self.pipeline is None else (config.policy(), config.event_rules())
        policy, rules = self.rules.over(*own, warn=warn)
        if not config.rules.conversion_events:
            rules = replace(rules, conversion_events=frozenset(dialect.conversion_events))
        of_pipeline = self.pipeline is not None and self.files.input_format == DEFAULT_FORMAT
        source = self.files.open(
            None,
            now_ms=now_ms,
            extras=rules.boundary is not None,
            dialect=dialect,
            input_format=config.input.as_format() if of_pipeline else None,
        )
        accounting = Accounting()
        return Checked(
            source=", ".join(self.words) + ("" if self.sessions is None else f" with {self.sessions}"),
            policy=policy,
            rules=rules,
            events=_of_source(source, accounting, progress),
            sessions=None if self.sessions is None else session_rows(self.sessions, source.user_name),
            accounting=accounting,
            rejected=accounting.rejected_by_reason,
            options=self.files.options(),
            lateness_ms=config.rules.lateness_ms,
            has_ids=col.EVENT_ID in source.event_columns,
            size_bytes=source.size_bytes,
        )

    def _of_tables(self, config: PipelineConfig, *, warn: Warn, progress: Progress) -> Checked:
        from sessionize.connectors import iceberg

        unnamed = config.name == DATA_QUALITY_CHECKER
        named = self.words[0] if self.words and not unnamed else None
        warehouse = find_warehouse(named, self.home, self.database)
        names = set(warehouse.tables())
        table = iceberg.USER_SESSIONS if unnamed else config.output.table
        lacking = [name for name in (iceberg.EVENTS, table) if name not in names]
        if lacking:
            there = ", ".join(sorted(names)) or "no tables"
            raise ConfigError(
                f"no table {lacking[0]} to check",
                detail=f"database {warehouse.database} in {warehouse.home} has {there}",
                hint="keep the events, output.events = true; or name files: sessionize check FILES",
            )
        policy, rules = rules_of_tables(
            warehouse,
            table=table,
            pipeline=None if unnamed else config.name,
            folder=None if unnamed else config.folder,
            boundary=None if unnamed else config.rules.boundary,
            otherwise=(config.policy(), config.event_rules()),
            warn=warn,
        )
        spec, _ = stored_spec(warehouse, table)
        accounting = Accounting()
        return Checked(
            source=f"{warehouse.database}.{table} in {warehouse.home}",
            policy=policy,
            rules=rules,
            events=_of_event_tables(warehouse, names, rules, accounting, progress),
            sessions=_of_table(warehouse, table, None),
            accounting=accounting,
            rejected=_rejected(warehouse) if iceberg.REJECTED_EVENTS in names else {},
            options=BatchOptions(memory_bytes_max=self.files.options().memory_bytes_max),
            lateness_ms=config.rules.lateness_ms,
            has_ids=True,
            are_tables=True,
            columns=frozenset(spec.columns) if spec is not None and spec.columns else None,
        )


def checked(options: CheckOptions, *, now_ms: int, warn: Warn, progress: Progress) -> CheckReport:
    """Look at everything and judge it. Errors: ConfigError, InputError; those of the catalog and of the rules."""
    config = options.config()
    found = options.open(config, now_ms=now_ms, warn=warn, progress=progress)
    return found.run(config.check, now_ms=now_ms, progress=progress)


def _of_source(source: EventInput, accounting: Accounting, progress: Progress) -> Iterator[tuple[int, pa.Table]]:
    for batch in source.batches():
        accounting.count_batch(batch, None)
        progress("read", batch.read_bytes, accounting)
        if batch.events.num_rows:
            yield EVENT, batch.events


def _of_event_tables(
    warehouse: Warehouse, names: set[str], rules: Rules, accounting: Accounting, progress: Progress
) -> Iterator[tuple[int, pa.Table]]:
    from sessionize.connectors import iceberg

    wanted = None if rules.boundary is not None else {*col.EVENT_TYPES, *rules.split_on_change} - {col.PROPERTIES}
    for what, name in ((EVENT, iceberg.EVENTS), (LATE, iceberg.LATE_EVENTS)):
        if name in names:
            for rows in _of_table(warehouse, name, wanted):
                accounting.consumed += rows.num_rows
                progress("read", 0, accounting)
                yield what, rows


def _of_table(warehouse: Warehouse, name: str, only: set[str] | None) -> Iterator[pa.Table]:
    """The rows of a table in pieces, its user column called `user`; rows without a user are left out."""
    from sessionize.connectors import iceberg

    table = warehouse.table(name)
    user = iceberg.user_column_of(table) or table.schema().fields[0].name
    for rows in iceberg.rows_in_pieces(table):
        kept = [each for each in rows.column_names if each != col.USER and (only is None or each in only)]
        users = rows[user].cast(pa.string())
        made = rows.select(kept).append_column(col.USER, users) if user != col.USER else rows.select([*kept, user])
        yield made.filter(pc.is_valid(made[col.USER]))


def _rejected(warehouse: Warehouse) -> dict[str, int]:
    from sessionize.connectors import iceberg

    found: dict[str, int] = {}
    for rows in iceberg.rows_in_pieces(warehouse.table(iceberg.REJECTED_EVENTS), only=["reason"]):
        for each in rows["reason"].value_counts().to_pylist():
            found[each["values"]] = found.get(each["values"], 0) + each["counts"]
    return found
