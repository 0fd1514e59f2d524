"""The sink of the store: an epoch's rows and its number in one transaction, so that each epoch counts once."""

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from sessionize.connectors.sql_store.database import Database, Transaction
from sessionize.connectors.sql_store.ownership import StoreOwner
from sessionize.connectors.sql_store.rows import further_fields_in_properties, plain_keys, to_storable
from sessionize.connectors.sql_store.tables import TableShape, books, check_names, table_shape
from sessionize.connectors.sql_store.text import stored_text
from sessionize.errors import ConfigError
from sessionize.ports import EpochId, EpochOutput
from sessionize.session.columns import USER
from sessionize.session.output_tables import (
    LATE_EVENTS,
    OUTPUT_TABLES,
    REJECTED_EVENTS,
    SESSIONS,
    Destination,
    Destinations,
    TableSpec,
)

# What is kept where nobody says otherwise, and what it is called; events are for archives.
DESTINATIONS = {spec.name: spec.name for spec in (SESSIONS, LATE_EVENTS, REJECTED_EVENTS)}


class StoreSink:
    """Writes output tables to a database (ports.EpochSink); a row with the key of one that is there takes its place.

    user_name: what the input calls the user column. destinations: output table -> what it is called in the database,
    DESTINATIONS by default. specs: the tables that an output may have, in the order of writing. The tables are made by
    the first call. A column that is not known becomes a column of the table, or goes into `properties` where the table
    has that. owner: who writes; None asks nobody.
    Not for several threads at once. Errors: ConfigError for a user_name that cannot be a column; StateError for a store
    with the rows of another owner, before anything is written; those of Database and Destinations.
    """

    def __init__(
        self,
        database: Database,
        *,
        user_name: str = USER,
        destinations: Mapping[str, str] | None = None,
        specs: tuple[TableSpec, ...] = OUTPUT_TABLES,
        owner: StoreOwner | None = None,
    ) -> None:
        check_names(user_name)
        self._database = database
        self._to = Destinations(DESTINATIONS if destinations is None else destinations, specs, user_name)
        self._to.check_apart()
        self._shapes = {each.spec.name: table_shape(each.spec, each.to) for each in self._to}
        self._owner = owner
        self._was_checked = False

    @property
    def known_tables(self) -> frozenset[str]:
        """The tables whose specs it was given."""
        return self._to.names

    def write_epoch(self, epoch: EpochId, output: EpochOutput) -> None:
        """Write an epoch's rows, all or none of them (ports.EpochSink)."""
        given = [(each.spec.name, self._fitting(each, rows)) for each, rows in self._to.rows(output.tables)]
        self._prepare()
        with self._database.transaction() as transaction:
            if not self._is_next(transaction, epoch):
                return
            self._claim(transaction, len(given))
            for name, rows in given:
                self._put(transaction, name, rows)
            transaction.record_epoch(_storable(epoch))

    def last_epoch(self, writer: str) -> int:
        """The writer's last epoch (ports.EpochSink); makes the tables that are not there."""
        self._prepare()
        with self._database.transaction() as transaction:
            number, _ = transaction.last_epoch(stored_text(writer))
        return number

    def replace(self, removed: pa.Table, added: pa.Table, *, token: str) -> None:
        """Remove sessions and put others, with their `revision`, all at once; nothing when the token was used before.

        removed: the columns of user and session_id; those that are not there are passed over. added: session columns
        and `revision`. Errors: those of write_epoch.
        """
        sessions = self._destination(SESSIONS)
        added = self._fitting(sessions, added)
        self._prepare()
        with self._database.transaction() as transaction:
            if not transaction.take_token(stored_text(token)):
                return
            self._claim(transaction, removed.num_rows or added.num_rows)
            self._remove(transaction, SESSIONS.name, removed)
            self._put(transaction, SESSIONS.name, added)

    def bring_back(self, rejected: pa.Table, late: pa.Table, *, token: str) -> None:
        """Remove rejected records and add the events that became of them to the late ones, all at once; nothing when
        the token was used before.

        rejected: raw, source, line_number and reason; those that are not there are passed over. late: events. Errors:
        those of write_epoch.
        """
        events = self._fitting(self._destination(LATE_EVENTS), late)
        self._destination(REJECTED_EVENTS)
        self._prepare()
        with self._database.transaction() as transaction:
            if transaction.take_token(stored_text(token)):
                self._claim(transaction, rejected.num_rows or late.num_rows)
                self._remove(transaction, REJECTED_EVENTS.name, rejected)
                self._put(transaction, LATE_EVENTS.name, events)

    def check(self) -> None:
        """Look whose the rows are that are there; makes nothing.

        Errors: StateError when they are another owner's; those of Database.
        """
        if self._owner is not None and self._database.recorded() is not None:
            with self._database.transaction() as transaction:
                self._owner.look(transaction, self._tables)
        self._was_checked = True

    def close(self) -> None:
        """Disconnect."""
        self._database.close()

    def prepare(self, schema: pa.Schema) -> None:
        """Connect, and make the tables that are not there; schema: of the sessions to come. Errors: as write_epoch."""
        self._widen(self._destination(SESSIONS), schema)
        self._prepare()

    @property
    def _tables(self) -> tuple[TableShape, ...]:
        return tuple(self._shapes.values())

    def _destination(self, spec: TableSpec) -> Destination:
        for each in self._to:
            if each.spec.name == spec.name:
                return each
        raise ConfigError("a store has no such table", detail=f"table {spec.name}", hint="give it a destination")

    def _prepare(self) -> None:
        if not self._was_checked:  # before anything is made; every write looks again, in its own transaction
            self.check()
        self._database.prepare((*books(), *self._tables))

    def _claim(self, transaction: Transaction, rows: int) -> None:
        """Note whose the rows are that are about to be written."""
        if self._owner is not None and rows:
            self._owner.claim(transaction, self._tables)

    def _fitting(self, to: Destination, rows: pa.Table) -> pa.Table:
        """The rows as the table takes them, which learns their further columns, or has them in `properties`."""
        if to.spec.keeps_fields:
            return further_fields_in_properties(rows, self._shapes[to.spec.name])
        self._widen(to, rows.schema)
        return rows

    def _widen(self, to: Destination, schema: pa.Schema) -> None:
        now = self._shapes[to.spec.name]
        if set(schema.names) <= set(now.column_names):
            return
        known = table_shape(to.spec, to.to, schema)
        missing = [column for column in now.columns if column.name not in known.column_names]
        self._shapes[to.spec.name] = replace(known, columns=(*known.columns, *missing))

    def _put(self, transaction: Transaction, name: str, rows: pa.Table) -> None:
        for piece in to_storable(rows, self._shapes[name]):
            transaction.put(self._shapes[name], piece)

    def _remove(self, transaction: Transaction, name: str, rows: pa.Table) -> None:
        if rows.num_rows:
            transaction.remove(self._shapes[name], plain_keys(rows, self._shapes[name]))

    @staticmethod
    def _is_next(transaction: Transaction, epoch: EpochId) -> bool:
        epoch = _storable(epoch)
        number, plan = transaction.last_epoch(epoch.writer)
        return not epoch.is_known(EpochId(epoch.writer, number, plan), where="the store")


def _storable(epoch: EpochId) -> EpochId:
    return EpochId(stored_text(epoch.writer), epoch.number, stored_text(epoch.plan))
