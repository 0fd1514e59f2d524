"""What the store's sink needs from a database: one transaction for rows and the record that they were written."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import pyarrow as pa

from sessionize.connectors.sql_store.tables import TableShape
from sessionize.ports import EpochId


class Transaction(Protocol):
    """What can be done before it is committed. Rows are those of rows.py."""

    def last_epoch(self, writer: str) -> tuple[int, str]:
        """The number and plan of the writer's last epoch, (0, "") before the first; others with this name wait."""

    def record_epoch(self, epoch: EpochId) -> None:
        """This is the writer's last epoch; last_epoch was asked before."""

    def take_token(self, token: str) -> bool:
        """Whether the token was not taken before; now it is."""

    def hold_record(self) -> None:
        """Others who would change the record of whose the rows are wait from now on."""

    def recorded(self) -> str | None:
        """The record of whose the rows are; None where there is none."""

    def record(self, text: str) -> None:
        """This is the record now; hold_record was called before."""

    def has_rows(self, tables: Sequence[TableShape]) -> bool:
        """Whether any of these tables has a row; one that is not there has none."""

    def put(self, table: TableShape, rows: pa.Table) -> None:
        """Add rows; a row with the key of one that is there takes its place."""

    def remove(self, table: TableShape, keys: pa.Table) -> None:
        """Remove the rows with these values of table.removed_by, as far as they are there; null is no value."""


class Database(Protocol):
    """A database, connected when it is needed, and again after the connection was lost.

    Not for several threads at once. Errors: UnavailableError when the same may succeed later, OutputError when not.
    """

    def prepare(self, tables: Sequence[TableShape]) -> None:
        """Make the tables, columns and indexes that are not there; others may do the same at this moment."""

    def recorded(self) -> str | None:
        """The record of whose the rows are; None where there is none, or no store. Nothing is made."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Commits at its end, durably, and undoes everything on any error."""

    def close(self) -> None:
        """Disconnect."""
