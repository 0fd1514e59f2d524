"""Sessions read back: closed ones from the tables, open ones from a live view, both as one ports.SessionReader."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sessionize.app.tables.query import quoted
from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.iceberg import user_column_of
from sessionize.connectors.iceberg.reconcile_source import floor_of_largest
from sessionize.ports import ClosedSessionReader, OpenSessionReader
from sessionize.session import columns as col
from sessionize.session.ids import user_hash_buckets
from sessionize.session.names import USER_SESSIONS
from sessionize.session.time import MS_PER_DAY

_NEWEST_FIRST = f"ORDER BY {col.SESSION_START} DESC, {col.SESSION_ID}"


@dataclass(frozen=True, slots=True)
class WarehouseSessions:
    """The sessions of a table (ports.ClosedSessionReader). Its partitions narrow what is read: bucket or date."""

    warehouse: Warehouse
    table: str = USER_SESSIONS

    def sessions_of(self, user: str, *, limit: int) -> pa.Table:
        """ClosedSessionReader.sessions_of."""
        table = self.warehouse.table(self.table)
        name = user_column_of(table) or table.schema().fields[0].name
        (bucket,) = user_hash_buckets(pa.array([user], pa.string())).to_pylist()
        has_bucket = col.USER_HASH_BUCKET in table.schema().column_names
        where = f"{col.USER_HASH_BUCKET} = {bucket} AND" if has_bucket else ""
        return self.warehouse.query(
            f"FROM {self._name} WHERE {where} {quoted(name)} = ? {_NEWEST_FIRST} LIMIT ?", (user, limit)
        )

    def recent(self, limit: int) -> pa.Table:
        """ClosedSessionReader.recent."""
        table, since = self.warehouse.table(self.table), ""
        names = table.schema().column_names
        floor_ms = floor_of_largest(table, col.SESSION_START, limit) if col.SESSION_START in names else None
        if floor_ms is not None:
            in_files = f"AND {col.SESSION_DATE} >= DATE '1970-01-01' + ({floor_ms // MS_PER_DAY})"
            since = f"WHERE {col.SESSION_START} >= {floor_ms} {in_files if col.SESSION_DATE in names else ''}"
        return self.warehouse.query(f"FROM {self._name} {since} {_NEWEST_FIRST} LIMIT ?", (limit,))

    @property
    def _name(self) -> str:
        return f"{quoted(self.warehouse.database)}.{quoted(self.table)}"


@dataclass(frozen=True, slots=True)
class Sessions:
    """Both kinds of sessions from where each is (ports.SessionReader)."""

    closed: ClosedSessionReader
    open: OpenSessionReader

    def sessions_of(self, user: str, *, limit: int) -> pa.Table:
        """ClosedSessionReader.sessions_of."""
        return self.closed.sessions_of(user, limit=limit)

    def recent(self, limit: int) -> pa.Table:
        """ClosedSessionReader.recent."""
        return self.closed.recent(limit)

    def open_session(self, user: str) -> Mapping[str, Any] | None:
        """OpenSessionReader.open_session."""
        return self.open.open_session(user)
