"""`explain`: a user's sessions from the archived events of a home's tables, or straight from files.

Tables say by which rules they were made, and that is how they are explained, unless other rules are asked for.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.analytics.explain import Explanation, explain
from sessionize.app.config.boundary import load_boundary
from sessionize.app.config.pipeline import load_pipeline
from sessionize.app.format_options import DEFAULT_FORMAT, FormatOptions
from sessionize.app.inputs import Reading, open_input, warehouse_at
from sessionize.app.options import RecordOptions, RuleOptions
from sessionize.app.tables.warehouse import Warehouse, find_warehouse
from sessionize.app.warn import Warn
from sessionize.engine.accounting import Accounting
from sessionize.errors import ConfigError, InputError
from sessionize.formats.absent_fields import AbsentFields
from sessionize.formats.dialects import Dialect
from sessionize.formats.input_format import AUTO, InputFormat
from sessionize.session import columns as col
from sessionize.session.definition import rule_columns
from sessionize.session.ids import user_hash_buckets
from sessionize.session.names import USER_SESSIONS
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from sessionize.session.spec import SessionSpec, describe_differences

if TYPE_CHECKING:
    from sessionize.connectors.iceberg.reconcile_source import IcebergTable


def explain_user(
    user: str,
    pipeline: str | None,
    home: Path | None,
    database: str | None,
    *,
    inputs: list[str] | None,
    records: RecordOptions,
    input_format: FormatOptions,
    rules: RuleOptions,
    warn: Warn,
) -> tuple[Explanation, bool]:
    """Explain a user by files (inputs), else by the tables of a pipeline or a home.

    The second value: whether it was by the rules that the tables' sessions were made by. records, input_format: how the
    files are read; the pipeline's own where nothing is said. rules: those to replace. warn: gets a text where rules
    differ. Errors: ConfigError, InputError; those of the catalog.
    """
    config = None if pipeline is None else load_pipeline(pipeline)
    own = (Policy(), Rules()) if config is None else (config.policy(), config.event_rules())
    if inputs:
        dialect = config.dialect() if config is not None and not records.are_given else records.as_dialect()
        of_pipeline = config is not None and input_format == DEFAULT_FORMAT
        form = config.input.as_format() if config is not None and of_pipeline else input_format.as_format()
        policy, its = rules.over(*own, warn=warn)
        return explain_from_files(inputs, user, dialect, policy, its, input_format=form, home=home), False
    warehouse = find_warehouse(pipeline, home, database)
    table = USER_SESSIONS if config is None else config.output.table
    theirs = rules_of_tables(
        warehouse,
        table=table,
        pipeline=None if config is None else config.name,
        folder=None if config is None else config.folder,
        boundary=None if config is None else config.rules.boundary,
        otherwise=own,
        warn=warn,
    )
    here = rules.over(*theirs, warn=warn)
    if differences := _spec(theirs).differences(_spec(here)):
        warn(f"the sessions of the table were made with other rules: {describe_differences(differences)}")
    elif config is not None and (differences := _spec(theirs).differences(_spec(own))):
        warn(
            "the pipeline's rules differ from those of the tables; using those of the tables: "
            + describe_differences(differences)
        )
    return explain_from_tables(warehouse, user, *here, table=table), here == theirs


def _spec(rules: tuple[Policy, Rules]) -> SessionSpec:
    return SessionSpec.of(*rules, pipeline="", user_column="", boundary=rules[1].boundary_name or None)


def explain_from_files(
    paths: list[str],
    user: str,
    dialect: Dialect,
    policy: Policy,
    rules: Rules | None = None,
    *,
    input_format: InputFormat = AUTO,
    home: Path | None = None,
) -> Explanation:
    """Explain a user by the events in files and tables. home: of Iceberg tables among them.

    Errors: InputError, also when the user has none.
    """
    mine: list[pa.Table] = []
    latest: list[int] = []
    accounting = Accounting()
    how = Reading(warehouse=warehouse_at(home), dialect=dialect, input_format=input_format)
    for batch in open_input(paths, how).batches():
        accounting.count_batch(batch, None)
        if batch.events.num_rows:
            latest.append(pc.max(batch.events[col.EVENT_TIME]).as_py())
            mine.append(_of_user(batch.events, user))
    if not any(table.num_rows for table in mine):
        raise _nobody(user, ", ".join(paths), accounting.absent_fields(dialect))
    return explain(pa.concat_tables(mine), user, policy, rules=rules, end_ms=max(latest))


def explain_from_tables(
    warehouse: Warehouse,
    user: str,
    policy: Policy,
    rules: Rules,
    *,
    table: str = USER_SESSIONS,
) -> Explanation:
    """Explain a user by the archived events, those that came late among them, beside what the sessions' table has.

    Errors: ConfigError where no events are kept; InputError for a user without events.
    """
    from sessionize.connectors import iceberg
    from sessionize.connectors.iceberg import reconcile_source as archive

    catalog, database = warehouse.open(), warehouse.database
    names = iceberg.table_names(catalog, database)
    if iceberg.EVENTS not in names:
        raise ConfigError(
            "no events to explain the sessions from",
            detail=f"database {database} in {warehouse.home} has no table {iceberg.EVENTS}",
            hint="name their input files: --input FILE",
        )
    tables = {
        name: iceberg.load_table(catalog, database, name)
        for name in (iceberg.EVENTS, iceberg.LATE_EVENTS, table)
        if name in names
    }
    needed = _CANONICAL | rule_columns(policy, rules)
    needs_all = rules.boundary is not None  # a function of the user's own sees every column
    events = {
        name: _rows(each, user, date="event_date", only=None if needs_all else needed)
        for name, each in tables.items()
        if name != table
    }
    if not any(rows.num_rows for rows in events.values()):
        raise _nobody(user, f"{database}.{' and .'.join(events)} in {warehouse.home}")
    newest = [archive.latest_time_of(tables[name]) for name in events]
    stored = _rows(tables[table], user, date=col.SESSION_DATE, only=None).to_pylist() if table in tables else None
    return explain(
        events[iceberg.EVENTS],
        user,
        policy,
        rules=rules,
        end_ms=max(ms for ms in newest if ms is not None),
        late=events.get(iceberg.LATE_EVENTS),
        stored=stored,
    )


def rules_of_tables(
    warehouse: Warehouse,
    *,
    table: str = USER_SESSIONS,
    pipeline: str | None,
    folder: Path | None,
    boundary: str | None,
    otherwise: tuple[Policy, Rules],
    warn: Warn,
) -> tuple[Policy, Rules]:
    """By which rules the sessions of a table were made; `otherwise`, with a warning, where they do not say.

    pipeline, folder, boundary: the name of the pipeline that is given, where its own functions are, and which it names;
    None where none is given. Errors: ConfigError for another pipeline than theirs, and for a function that is not found
    or that the pipeline does not name: whoever may write to tables does not choose the code that runs here.
    """
    from sessionize.app.tables.rules import stored_spec

    spec, recorded = stored_spec(warehouse, table, pipeline=pipeline)
    if spec is None:
        if not recorded:
            by = "those of the pipeline" if pipeline is not None else otherwise[0].describe()
            warn(f"the tables do not record their rules (an earlier version wrote them); using {by}")
        return otherwise
    if spec.boundary is None:
        return spec.policy, spec.rules()
    if spec.boundary != boundary or folder is None:
        raise ConfigError(
            "the sessions were made with a boundary function that the pipeline does not name"
            if folder is not None
            else "the sessions were made with a boundary function of a pipeline",
            detail=f"rules.boundary = {spec.boundary!r}",
            hint="name the pipeline that made them, --pipeline FILE: its functions are searched beside it",
        )
    return spec.policy, spec.rules(load_boundary(spec.boundary, folder=folder))


_CANONICAL = frozenset({col.EVENT_TIME, col.EVENT_ID, col.EVENT_TYPE, col.PAGE, col.VALUE})


def _rows(table: "IcebergTable", user: str, *, date: str, only: frozenset[str] | None) -> pa.Table:
    """A user's rows, with the user column called `user`."""
    from sessionize.connectors.iceberg import reconcile_source as archive
    from sessionize.connectors.iceberg import user_column_of

    name = user_column_of(table) or table.schema().fields[0].name
    users = pa.array([user], pa.string())
    wanted = archive.Wanted(users, frozenset(user_hash_buckets(users).to_pylist()), None)
    rows = archive.rows_of(table, wanted, user_name=name, date=date, only=None if only is None else only | {name})
    if name != col.USER and col.USER in rows.column_names:
        rows = rows.drop_columns([col.USER])
    return rows.rename_columns([col.USER if each == name else each for each in rows.column_names])


def _of_user(events: pa.Table, user: str) -> pa.Table:
    rows = events.filter(pc.equal(events[col.USER].cast(pa.string()), user))
    plain: list[tuple[str, Any]] = [
        (f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in rows.schema
    ]
    return rows.cast(pa.schema(plain))


def _nobody(user: str, where: str, absent: AbsentFields | None = None) -> InputError:
    return InputError(
        "no events of this user",
        detail=f"user {user!r} in {where}" + ("" if absent is None else f": {absent.detail}"),
        hint="names are compared exactly" if absent is None else absent.hint,
    )
