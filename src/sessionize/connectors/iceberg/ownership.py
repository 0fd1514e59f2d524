"""The owner of a table in its properties: the pipeline that writes it, and the rules of its sessions.

The sessions table has the whole record (session/spec.py); each other table has the pipeline, its sessions table, and
the name of the user column. It is written with the first rows, checked by every run before it writes and by every
commit, and read by everything that computes sessions again. docs/adr/0013.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sessionize.errors import MissingExtraError, StateError
from sessionize.session.spec import Difference, SessionSpec, describe_differences, kind_of_difference

try:
    from pyiceberg.table import Table
except ModuleNotFoundError as missing:  # this module of the package is imported first
    raise MissingExtraError("pyiceberg", "iceberg", "reading or writing Iceberg tables") from missing

# Table properties. Only the sessions table has the first one.
SPEC = "sessionize.spec"
PIPELINE = "sessionize.pipeline"
SESSIONS = "sessionize.sessions"
USER_COLUMN_PROPERTY = "sessionize.user-column"
# Followed by a writer's name: its last epoch, its watermark then, and the plan of its first epoch (epoch_sink.py).
EPOCH = "sessionize.epoch"
WATERMARK = "sessionize.watermark-ms"
BEGUN = "sessionize.begun"
# Records about writers and inputs, followed by a name (engine/stream/topic_shares.py).
FURTHER = ("sessionize.split", "sessionize.share")
# The ids of the loads in the table, separated by spaces (loads.py).
LOADED = "sessionize.loads"
# The ids of loads that a later load of the same files has replaced: they never complete (loads.py).
REPLACED_LOADS = "sessionize.replaced-loads"
# In a snapshot's summary: it has no rows, and only records loads.
NOTE = "sessionize.note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The pipeline that is about to write tables.

    sessions: the name of the sessions table. elsewhere: how to write to other tables; replacing: how to replace the
    rows of these, None if that is impossible. overwrite: the rows are replaced.
    """

    spec: SessionSpec
    sessions: str
    elsewhere: str
    replacing: str | None = None
    overwrite: bool = False

    def check(self, table: Table) -> None:
        """Errors: StateError if the table belongs to another pipeline or to sessions with other rules."""
        differences = self.differences(table)
        if not differences:
            return
        others = differences[0].key == "name"
        made = "by another pipeline" if others else f"with {kind_of_difference(differences)}"
        if differences[0].key == "user column":
            made = "with another user column"
        hint = f"write to other tables: {self.elsewhere}"
        if self.replacing is not None and not any(each.key == "user column" for each in differences):
            hint += f"; or replace the rows of these: {self.replacing}"
        if others:
            hint = f"two pipelines in the same tables would mix their sessions: {hint}"
        raise StateError(
            f"the tables were made {made}", detail=f"{_name(table)}: {describe_differences(differences)}", hint=hint
        )

    def differences(self, table: Table) -> list[Difference]:
        """The differences to the table's record; missing properties do not count."""
        there, here = table.properties, self.spec
        spec = spec_of(table) if self._has_sessions(table) else None
        if spec is not None:
            found = spec.differences(here)
        else:
            own = {"name": here.pipeline, "user column": here.user_column, "output.table": self.sessions}
            theirs = {"name": PIPELINE, "user column": USER_COLUMN_PROPERTY, "output.table": SESSIONS}
            pairs = ((key, there.get(theirs[key]), value) for key, value in own.items())
            found = [Difference(key, other, value) for key, other, value in pairs if other not in (None, value)]
        if not self.overwrite or (found and found[0].key == "name" and any(_writers(there))):
            return found
        return [each for each in found if each.key == "user column"]  # a column cannot be replaced with the rows

    def properties(self, table: str, user_name: str | None) -> dict[str, str]:
        """The properties of a new table of this name. user_name: the user column, None without users."""
        found = {PIPELINE: self.spec.pipeline, SESSIONS: self.sessions}
        if user_name is not None:
            found[USER_COLUMN_PROPERTY] = user_name
        return {**found, SPEC: self.spec.to_json()} if table == self.sessions else found

    def missing(self, table: Table) -> Mapping[str, str]:
        """The properties to set with the next rows: on a table without a record, or one that is replaced as a whole."""
        wanted = self.properties(table.name()[-1], None)
        spec = spec_of(table) if self._has_sessions(table) else None
        if spec is not None and not self.overwrite:
            # the columns of all runs, for computing sessions again
            wanted[SPEC] = spec.with_columns_of(self.spec).to_json()
        return {name: value for name, value in wanted.items() if table.properties.get(name) != value}

    def is_unused(self, table: Table) -> bool:
        """Whether another owner's table is unused: it never had rows or epochs. Failed runs leave such tables."""
        if not all(snapshot.summary is not None and snapshot.summary[NOTE] for snapshot in table.metadata.snapshots):
            return False
        return table.properties.get(PIPELINE, self.spec.pipeline) == self.spec.pipeline or not any(
            _writers(table.properties)
        )

    def _has_sessions(self, table: Table) -> bool:
        return table.name()[-1] == self.sessions


def spec_of(table: Table) -> SessionSpec | None:
    """The rules of the table's sessions; None for tables of earlier versions or other programs.

    Errors: StateError for a record that cannot be read.
    """
    text = table.properties.get(SPEC)
    if text is None:
        return None
    try:
        return SessionSpec.from_json(text)
    except ValueError as error:
        raise StateError(
            "a table's record of its rules cannot be read",
            detail=f"{_name(table)}, property {SPEC}: {error}",
            hint="a newer version or another program wrote it; use the version that created the tables",
        ) from error


def pipeline_of(table: Table) -> str | None:
    """The name of the pipeline that writes the table; None for tables of earlier versions or other programs."""
    return table.properties.get(PIPELINE)


def user_column_of(table: Table) -> str | None:
    """The name of a table's user column; None for a table of another program."""
    return table.properties.get(USER_COLUMN_PROPERTY)


def record_of(table: Table) -> dict[str, str]:
    """The properties that record the table's epochs, loads and owner."""
    loads = (LOADED, REPLACED_LOADS)
    kinds = tuple(f"{kind}." for kind in (EPOCH, WATERMARK, BEGUN, *FURTHER))
    return {name: value for name, value in table.properties.items() if name.startswith(kinds) or name in loads}


def _writers(properties: Mapping[str, str]) -> Iterable[str]:
    return (name for name in properties if name.startswith(f"{EPOCH}."))


def _name(table: Table) -> str:
    return ".".join(table.name())
