"""The sink of the store: an epoch's rows and its number in one transaction, so that each epoch counts once."""

import pyarrow as pa

from sessionize.connectors.store.database import Database, Transaction
from sessionize.connectors.store.ownership import StoreOwner
from sessionize.connectors.store.rows import further_fields_in_properties, plain_keys, to_storable
from sessionize.connectors.store.tables import (
    TableShape,
    books,
    check_names,
    late_events,
    rejected_events,
    user_sessions,
)
from sessionize.connectors.store.text import stored_text
from sessionize.errors import StateError
from sessionize.ports import EpochId, EpochRows
from sessionize.session.columns import USER


class StoreSink:
    """Writes sessions, late events and rejected records to a database (ports.EpochSink); events are for archives.

    user_name: what the input calls the user column. The tables are made by the first call. A session column that is
    not known becomes a column of the table. owner: who writes; None asks nobody.
    Not for several threads at once. Errors: ConfigError for a user_name that cannot be a column; StateError for a store
    with the rows of another owner, before anything is written; those of Database.
    """

    def __init__(self, database: Database, *, user_name: str = USER, owner: StoreOwner | None = None) -> None:
        check_names(user_name)
        self._database = database
        self._user_name = user_name
        self._sessions = user_sessions(user_name)
        self._late = late_events(user_name)
        self._rejected = rejected_events()
        self._owner = owner
        self._was_checked = False

    def write_epoch(self, epoch: EpochId, rows: EpochRows) -> None:
        """Write an epoch's rows, all or none of them (ports.EpochSink)."""
        late = further_fields_in_properties(rows.late, self._late)
        self.prepare(rows.sessions.schema)
        with self._database.transaction() as transaction:
            if not self._is_next(transaction, epoch):
                return
            self._claim(transaction, any(rows.num_rows for rows in (rows.sessions, rows.late, rows.rejected)))
            for table, new in ((self._rejected, rows.rejected), (self._late, late), (self._sessions, rows.sessions)):
                for piece in to_storable(new, table):
                    transaction.put(table, piece)
            transaction.record_epoch(_storable(epoch))

    def last_epoch(self, writer: str) -> int:
        """The writer's last epoch (ports.EpochSink); makes the tables that are not there."""
        self._check_once()
        self._make_tables()
        with self._database.transaction() as transaction:
            number, _ = transaction.last_epoch(stored_text(writer))
        return number

    def replace(self, removed: pa.Table, added: pa.Table, *, token: str) -> None:
        """Remove sessions and put others, with their `revision`, all at once; nothing when the token was used before.

        removed: the columns of user and session_id; those that are not there are passed over. added: session columns
        and `revision`. Errors: those of write_epoch.
        """
        self.prepare(added.schema)
        with self._database.transaction() as transaction:
            if not transaction.take_token(stored_text(token)):
                return
            self._claim(transaction, removed.num_rows or added.num_rows)
            if removed.num_rows:
                transaction.remove(self._sessions, plain_keys(removed, self._sessions))
            for piece in to_storable(added, self._sessions):
                transaction.put(self._sessions, piece)

    def bring_back(self, rejected: pa.Table, late: pa.Table, *, token: str) -> None:
        """Remove rejected records and add the events that became of them to the late ones, all at once; nothing when
        the token was used before.

        rejected: raw, source, line_number and reason; those that are not there are passed over. late: events. Errors:
        those of write_epoch.
        """
        events = further_fields_in_properties(late, self._late)
        self._check_once()
        self._make_tables()
        with self._database.transaction() as transaction:
            if transaction.take_token(stored_text(token)):
                self._claim(transaction, rejected.num_rows or late.num_rows)
                transaction.remove(self._rejected, plain_keys(rejected, self._rejected))
                for piece in to_storable(events, self._late):
                    transaction.put(self._late, piece)

    def check(self) -> None:
        """Look whose the rows are that are there; makes nothing.

        Errors: StateError when they are another owner's; those of Database.
        """
        if self._owner is not None and self._database.recorded() is not None:
            with self._database.transaction() as transaction:
                self._owner.look(transaction, self._all_tables)
        self._was_checked = True

    def close(self) -> None:
        """Disconnect."""
        self._database.close()

    def prepare(self, schema: pa.Schema) -> None:
        """Connect, and make the tables that are not there; schema: of the sessions to come. Errors: as write_epoch."""
        self._check_once()
        if not set(schema.names) <= set(self._sessions.column_names):
            self._sessions = self._widened(schema)
        self._make_tables()

    @property
    def _all_tables(self) -> tuple[TableShape, ...]:
        return (self._sessions, self._late, self._rejected)

    def _check_once(self) -> None:
        """Before anything is made; every write looks again, in its own transaction."""
        if not self._was_checked:
            self.check()

    def _claim(self, transaction: Transaction, rows: int) -> None:
        """Note whose the rows are that are about to be written."""
        if self._owner is not None and rows:
            self._owner.claim(transaction, self._all_tables)

    def _make_tables(self) -> None:
        self._database.prepare((*books(), self._rejected, self._late, self._sessions))

    def _widened(self, schema: pa.Schema) -> TableShape:
        known = user_sessions(self._user_name, schema)
        missing = [column for column in self._sessions.columns if column.name not in known.column_names]
        return TableShape(name=known.name, columns=(*known.columns, *missing), key=known.key, indexes=known.indexes)

    @staticmethod
    def _is_next(transaction: Transaction, epoch: EpochId) -> bool:
        epoch = _storable(epoch)
        number, plan = transaction.last_epoch(epoch.writer)
        if epoch.number == number and epoch.plan != plan:
            raise StateError(
                "an epoch was already written by another plan",
                detail=f"writer {epoch.writer!r}, epoch {number}: plan {plan} is in the store, {epoch.plan} was given",
                hint="two engines run under one name, or the state was removed and the tables were not: "
                "give each engine its own name, or bring the state back",
            )
        return epoch.number > number


def _storable(epoch: EpochId) -> EpochId:
    return EpochId(stored_text(epoch.writer), epoch.number, stored_text(epoch.plan))
