"""Whose the rows of a store are: the pipeline that writes them, and by which rules it makes sessions.

The record lies in the store (sessionize_pipeline), as that of the tables does in theirs: docs/adr/0013. It comes with
the first rows, in the same transaction, and is compared by every write; stores of earlier versions take the first
pipeline that writes to them.
"""

from dataclasses import dataclass

from sessionize.connectors.sql_store.database import Transaction
from sessionize.connectors.sql_store.tables import TableShape
from sessionize.errors import StateError
from sessionize.session.spec import SessionSpec, describe_differences, kind_of_difference


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOwner:
    """Who is about to write a store. where: the store, for an error. elsewhere: what to do to write to another one."""

    spec: SessionSpec
    where: str
    elsewhere: str

    def check(self, recorded: str | None) -> None:
        """Errors: StateError when the record is another pipeline's, has other rules, or cannot be read."""
        if recorded is None:
            return
        try:
            differences = SessionSpec.from_json(recorded).differences(self.spec)
        except ValueError as error:
            raise StateError(
                "a store's record of its rules cannot be read",
                detail=f"{self.where}: {error}",
                hint="a newer version wrote it, or something else did; use the version that made the store",
            ) from error
        if not differences:
            return
        if differences[0].key == "name":
            made, why = "by another pipeline", "two pipelines in one store would mix their sessions: "
        elif differences[0].key == "user column":
            made, why = "with another user column", ""
        else:
            made, why = f"with {kind_of_difference(differences)}", ""
        raise StateError(
            f"the sessions of a store were made {made}",
            detail=f"{self.where}: {describe_differences(differences)}",
            hint=f"{why}{self.elsewhere}",
        )

    def look(self, transaction: Transaction, tables: tuple[TableShape, ...]) -> bool:
        """Whether the record is missing or of no use, because the tables hold no rows. Errors: those of check."""
        recorded = transaction.recorded()
        if recorded is None:
            return True
        try:
            self.check(recorded)
        except StateError:
            if transaction.has_rows(tables):
                raise
            return True
        return False

    def claim(self, transaction: Transaction, tables: tuple[TableShape, ...]) -> None:
        """Note whose the rows of this transaction are, where nobody has done so, and session columns of one's own that
        are new. Errors: those of check.
        """
        if self._to_record(transaction, tables) is not None:
            transaction.hold_record()
            text = self._to_record(transaction, tables)  # another one may have been faster
            if text is not None:
                transaction.record(text)

    def _to_record(self, transaction: Transaction, tables: tuple[TableShape, ...]) -> str | None:
        """The record to be made; None where the one that is there will do."""
        if self.look(transaction, tables):
            return self.spec.to_json()
        recorded = SessionSpec.from_json(transaction.recorded() or "")
        joined = recorded.with_columns_of(self.spec)
        return None if joined.own == recorded.own else joined.to_json()
