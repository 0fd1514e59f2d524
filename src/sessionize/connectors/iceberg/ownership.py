"""Whose a table is, as its properties say: which pipeline writes it, and how the sessions beside it are made.

The table of the sessions carries the whole record (session/spec.py); each other table the pipeline, the table of the
sessions that belong to it, and what it calls the user. It is written with the first rows, checked by every run before
anything is written and again by every commit, and read by all who compute sessions again. docs/adr/0013.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sessionize.errors import MissingExtraError, StateError
from sessionize.session.spec import Difference, SessionSpec, describe_differences, kind_of_difference

try:
    from pyiceberg.table import Table
except ModuleNotFoundError as missing:  # this module is the first of the package that is loaded
    raise MissingExtraError("pyiceberg", "iceberg", "reading or writing Iceberg tables") from missing

# Properties of tables. The first one is only on the table of the sessions.
SPEC = "sessionize.spec"
PIPELINE = "sessionize.pipeline"
SESSIONS = "sessionize.sessions"
USER_COLUMN_PROPERTY = "sessionize.user-column"
# With the name of a writer behind it: its last epoch, its watermark then, and the plan of its first epoch (epochs.py).
EPOCH = "sessionize.epoch"
WATERMARK = "sessionize.watermark-ms"
BEGUN = "sessionize.begun"
# What others note about writers and inputs, with a name behind it (engine/stream/shares.py).
FURTHER = ("sessionize.split", "sessionize.share")
# The ids of the loads of files that the table has, with spaces between (loads.py).
LOADED = "sessionize.loads"
# The ids of loads that a later load of the same files has replaced: they never come in (loads.py).
REPLACED_LOADS = "sessionize.replaced-loads"
# In a snapshot's summary: it has no rows, and only notes something about loads.
NOTE = "sessionize.note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who is about to write tables.

    sessions: the name of the table that the sessions are in. elsewhere: what to do to write other tables; replacing:
    what to do to replace the rows of these, None where that is not to be had. overwrite: the rows are replaced.
    """

    spec: SessionSpec
    sessions: str
    elsewhere: str
    replacing: str | None = None
    overwrite: bool = False

    def check(self, table: Table) -> None:
        """Errors: StateError when the table belongs to another pipeline, or to sessions that are made otherwise."""
        differences = self.differences(table)
        if not differences:
            return
        others = differences[0].key == "name"
        made = "by another pipeline" if others else f"with {kind_of_difference(differences)}"
        if differences[0].key == "user column":
            made = "with another user column"
        hint = f"write to other tables: {self.elsewhere}"
        if self.replacing is not None and not any(each.key == "user column" for each in differences):
            hint += f"; or replace what these hold: {self.replacing}"
        if others:
            hint = f"two pipelines in the same tables would mix their sessions: {hint}"
        raise StateError(
            f"the tables were made {made}", detail=f"{_name(table)}: {describe_differences(differences)}", hint=hint
        )

    def differences(self, table: Table) -> list[Difference]:
        """What the table says otherwise; what it says nothing about does not count."""
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
        """What a new table of this name says. user_name: what it calls the user, None without users."""
        found = {PIPELINE: self.spec.pipeline, SESSIONS: self.sessions}
        if user_name is not None:
            found[USER_COLUMN_PROPERTY] = user_name
        return {**found, SPEC: self.spec.to_json()} if table == self.sessions else found

    def missing(self, table: Table) -> Mapping[str, str]:
        """What has to be set with the next rows: on a table that says nothing yet, or that is replaced as a whole."""
        wanted = self.properties(table.name()[-1], None)
        spec = spec_of(table) if self._has_sessions(table) else None
        if spec is not None and not self.overwrite:
            # the columns of all runs: whoever computes sessions again makes these
            added = [name for name in self.spec.columns if name not in spec.columns]
            wanted[SPEC] = replace(spec, columns=(*spec.columns, *added)).to_json() if added else spec.to_json()
        return {name: value for name, value in wanted.items() if table.properties.get(name) != value}

    def may_take(self, table: Table) -> bool:
        """Whether a table that does not fit is of no use to anybody yet: it never had rows, nor another's epochs. A run
        that failed leaves such tables.
        """
        if not all(snapshot.summary is not None and snapshot.summary[NOTE] for snapshot in table.metadata.snapshots):
            return False
        return table.properties.get(PIPELINE, self.spec.pipeline) == self.spec.pipeline or not any(
            _writers(table.properties)
        )

    def _has_sessions(self, table: Table) -> bool:
        return table.name()[-1] == self.sessions


def spec_of(table: Table) -> SessionSpec | None:
    """How the table's sessions are made; None for tables of before, or of another program.

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
            hint="a newer version wrote it, or something else did; use the version that made the tables",
        ) from error


def pipeline_of(table: Table) -> str | None:
    """The name of the pipeline that writes the table; None for tables of before, or of another program."""
    return table.properties.get(PIPELINE)


def user_column_of(table: Table) -> str | None:
    """What a table calls its users; None for a table of another program."""
    return table.properties.get(USER_COLUMN_PROPERTY)


def record_of(table: Table) -> dict[str, str]:
    """The properties that say which epochs and loads the table has, and who writes it."""
    loads = (LOADED, REPLACED_LOADS)
    kinds = tuple(f"{kind}." for kind in (EPOCH, WATERMARK, BEGUN, *FURTHER))
    return {name: value for name, value in table.properties.items() if name.startswith(kinds) or name in loads}


def _writers(properties: Mapping[str, str]) -> Iterable[str]:
    return (name for name in properties if name.startswith(f"{EPOCH}."))


def _name(table: Table) -> str:
    return ".".join(table.name())
