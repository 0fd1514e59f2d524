"""The events of one user, from files or from the project's tables, for `explain`."""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from sessionize.analytics.explain import Explanation, explain
from sessionize.connectors.files.source import FileSource
from sessionize.errors import InputError
from sessionize.formats.dialects import Dialect
from sessionize.session import columns as col
from sessionize.session.ids import user_hash_buckets
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules

if TYPE_CHECKING:
    from sessionize.connectors.iceberg import CatalogSettings


def explain_from_files(
    paths: list[str], user: str, dialect: Dialect, policy: Policy, rules: Rules | None = None
) -> Explanation:
    """Explain a user by the events in files. Errors: InputError, also when the user has none."""
    mine: list[pa.Table] = []
    latest: list[int] = []
    for batch in FileSource(paths, dialect=dialect).batches():
        if batch.events.num_rows:
            latest.append(pc.max(batch.events[col.EVENT_TIME]).as_py())
            mine.append(_of_user(batch.events, user))
    if not any(table.num_rows for table in mine):
        raise _nobody(user, ", ".join(paths))
    return explain(pa.concat_tables(mine), user, policy, rules=rules, end_ms=max(latest))


def explain_from_tables(
    home: Path,
    user: str,
    policy: Policy,
    rules: Rules | None = None,
    *,
    database: str = "sessions",
    catalog: "CatalogSettings | None" = None,
) -> Explanation:
    """Explain a user by the archived events in the project's tables. catalog: the one that they are in."""
    from sessionize.connectors.iceberg import EVENTS, load_table, open_catalog, readable
    from sessionize.connectors.iceberg.archive import latest_time_of

    table = load_table(open_catalog(home, settings=catalog, create=False), database, EVENTS)
    seen = readable(table).data
    data = seen if isinstance(seen, ds.Dataset) else ds.dataset(seen)
    # the table's first column is the user, under whatever name the input had for it
    name = data.schema.names[0]
    columns = {col.USER: ds.field(name), **{n: ds.field(n) for n in _CANONICAL if n in data.schema.names}}
    # rows are sorted by bucket, so that most of them are not even read
    mine = ds.field(name) == user
    if col.USER_HASH_BUCKET in data.schema.names:
        mine = (ds.field(col.USER_HASH_BUCKET) == user_hash_buckets(pa.array([user], pa.string()))[0]) & mine
    rows = data.to_table(columns=columns, filter=mine)
    if not rows.num_rows:
        raise _nobody(user, f"{database}.{EVENTS} in {home}")
    return explain(rows, user, policy, rules=rules, end_ms=latest_time_of(table))


_CANONICAL = (col.EVENT_TIME, col.EVENT_ID, col.EVENT_TYPE, col.PAGE, col.VALUE)


def _of_user(events: pa.Table, user: str) -> pa.Table:
    rows = events.filter(pc.equal(events[col.USER].cast(pa.string()), user))
    plain = [(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in rows.schema]
    return rows.cast(pa.schema(plain))


def _nobody(user: str, where: str) -> InputError:
    return InputError(
        "there are no events of this user", detail=f"user {user!r} in {where}", hint="names are compared exactly"
    )
