"""Loading files, or generated events, into tables: what is there already is noticed before anything is written.

What is loaded is noted: connectors/iceberg/loads.py says what is kept where, and why a process that is killed in
between leaves nothing that blocks the next try or doubles rows. docs/adr/0013.
"""

import datetime as dt
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from sessionize.app.config.values import KnownFiles
from sessionize.app.inputs import LoadSource
from sessionize.app.locks import Turn
from sessionize.app.tables.generated_loads import GeneratedInput
from sessionize.app.tables.grown_files import grown_files, refuse_grown
from sessionize.connectors.files.fingerprint import fingerprint, same_content
from sessionize.connectors.files.source_paths import InputFile
from sessionize.connectors.local_paths import is_address
from sessionize.engine.accounting import Accounting, Progress
from sessionize.errors import StateError
from sessionize.ports import Sink

if TYPE_CHECKING:
    from sessionize.connectors.iceberg import Catalog, KnownFile, LoadMark

_NAMED_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a load goes. table: that of the sessions, or the only one. others: further tables that get rows of it.

    replacing: how to replace what the tables hold, for the hint; replaces: it is done. home: where loads take turns.
    """

    catalog: "Catalog"
    database: str
    table: str
    home: Path
    pipeline: str
    replacing: str
    others: tuple[str, ...] = ()
    replaces: bool = False


@dataclass(slots=True, kw_only=True)
class Load:
    """One load. mark: what the commits of its tables carry."""

    to: Destination
    mark: "LoadMark"
    source: LoadSource
    known: KnownFiles
    prints: dict[str, str | None]
    seen: frozenset[str] = frozenset()  # loads that were in when this one began
    earlier: frozenset[str] = frozenset()  # fingerprints that files had before they grew, of loads that are not in
    _records: int | None = None
    _written: int = 0
    _noted: bool = False
    _turn: Turn = field(init=False)

    def __post_init__(self) -> None:
        self._turn = Turn(self.to.home, "loads")

    @property
    def files(self) -> Sequence[InputFile]:
        """What is loaded."""
        return self.source.files

    @property
    def is_generated(self) -> bool:
        """Whether it is a run of the generator."""
        return isinstance(self.source, GeneratedInput)

    def watching(self, progress: Progress) -> Progress:
        """The same Progress; the number of records is noted with the load."""

        def counted(phase: str, done: int, accounting: Accounting) -> None:
            self._records = accounting.consumed
            progress(phase, done, accounting)

        return counted

    def sink(self, sink: Sink, *, last: bool = False) -> Sink:
        """A sink of the load, which is noted before the first of them is committed. last: by this one it is in."""
        return _OfLoad(self, sink, last)

    def note(self) -> None:
        """Note the load, unless it is noted; from here on no other load of this home is committed until the end.

        Loads that were cut off are replaced, and so is one of another home that is under way: it ends with an error.
        Errors: StateError when one of the files has come into the tables meanwhile, or when another home's load has
        replaced this one; those of the sink.
        """
        if self._noted:
            return
        from sessionize.connectors.iceberg import LOADS, IcebergSink, load_rows, loads_layout

        self._turn.take()
        if not self.to.replaces:
            self._refuse_new()
        rows = load_rows(
            load_id=self.mark.id,
            loaded_at=dt.datetime.now(dt.UTC),
            pipeline=self.to.pipeline,
            table=self.to.table,
            files=[_described(file, self.prints[file.path]) for file in self.files],
            records=self._records,
            rows_written=self._written,
        )
        loads = IcebergSink(self.to.catalog, loads_layout(), table=LOADS, database=self.to.database)
        try:
            loads.write(rows)
            loads.commit()
        except BaseException:
            loads.abort()
            raise
        self._noted = True
        if not self.to.replaces:
            self._replace_open()

    def _refuse_new(self) -> "list[KnownFile]":
        """The files that are known now. Errors: StateError when one of these came in since this load began."""
        there = _known(self.to)
        if self.known != "again":
            new = [each for each in there if each.load_id not in self.seen]
            refuse_grown(grown_files(self.files, self.prints, new), replacing=self.to.replacing)
            _refuse_known(self, new)
        return there

    def _replace_open(self) -> None:
        """Of two loads of the same files that are not in, one at least sees the other here, as each is noted first."""
        from sessionize.connectors.iceberg import load_table, replace_loads

        while True:
            self.mark.instead_of = _cut_off(self._refuse_new(), {*self.prints.values(), *self.earlier}) - {self.mark.id}
            if not self.mark.instead_of:
                return
            sessions = load_table(self.to.catalog, self.to.database, self.to.table)
            if replace_loads(sessions, self.mark.instead_of, by=self.mark):
                return

    def wrote(self, rows: int) -> None:
        """So many rows more came into the table of the sessions."""
        self._written += rows

    def end(self) -> None:
        """The load is committed, or given up: the next one may be."""
        self._turn.give_back()


@dataclass(slots=True)
class _OfLoad:
    """A sink whose commit belongs to a load (ports.Sink)."""

    load: Load
    wrapped: Sink
    last: bool

    def write(self, rows: pa.Table) -> None:
        """As the sink's."""
        self.wrapped.write(rows)
        if self.last:
            self.load.wrote(rows.num_rows)

    def commit(self) -> None:
        """As the sink's; a load without files has nothing to commit."""
        if not self.load.files:
            return
        self.load.note()
        self.wrapped.commit()
        if self.last:
            self.load.end()

    def abort(self) -> None:
        """As the sink's."""
        try:
            self.wrapped.abort()
        finally:
            if self.last:
                self.load.end()


def warn_of_twins(source: LoadSource, on_note: Callable[[str], None]) -> None:
    """Say that files of one content are read more than once."""
    same = [(file, first) for file, first in same_content(source.files) if source.has_records(file)]
    if same:
        names = twin_warnings(same)
        on_note(f"files with the same content are read more than once, and their events are counted each time: {names}")


def begin_load(
    source: LoadSource, to: Destination, *, known: KnownFiles, on_note: Callable[[str], None] = lambda text: None
) -> Load:
    """Look whether files of the source are in the tables already, or come twice, and refuse, skip or load them.

    on_note: gets a text about those that are skipped. Errors: StateError for files that are refused, or have grown
    since their load; those of reading files and tables.
    """
    from sessionize.connectors.iceberg import LoadMark, load_table, table_names

    mark = LoadMark(id=uuid.uuid4().hex[:12], last=to.table, replaces=to.replaces)
    prints = {file.path: _print_of(source, file) for file in source.files}
    load = Load(to=to, mark=mark, source=source, known=known, prints=prints)
    _settle_twins(load, on_note)
    if to.replaces:
        return load
    there = _known(to)
    _refuse_beside_half(to, there)
    load.seen = frozenset(each.load_id for each in there if each.is_in)
    grown = grown_files(load.files, prints, there)
    if known != "again":
        refuse_grown(grown, replacing=to.replacing)
    load.earlier = frozenset(before.fingerprint for _, before in grown if not before.is_in)
    if known == "refuse":
        _refuse_known(load, there)
    elif known == "skip" and (files := _are_in(load, there)):
        source.exclude({file.path for file in files})
        subject = "the generated events are" if load.is_generated else _counted(files)
        on_note(f"{subject} in the tables already and skipped: {_listed(files, load, there)}")
    mark.instead_of = _cut_off(there, {*load.earlier, *(prints[file.path] for file in load.files)})
    names = set(table_names(to.catalog, to.database)) if mark.instead_of else set()
    for name in names & {to.table, *to.others}:
        mark.old_files(load_table(to.catalog, to.database, name))  # that they can be told apart is known now
    return load


def _refuse_beside_half(to: Destination, there: "list[KnownFile]") -> None:
    """Sessions of before and events of after belong to nobody: what is added to them could never be computed again."""
    from sessionize.connectors.iceberg import partly_replaced

    half = partly_replaced(to.catalog, to.database, to.others, there)
    if half:
        raise StateError(
            "an earlier run that replaces these tables was interrupted",
            detail=f"replaced: {', '.join(half)}; not replaced: {to.table}",
            hint=f"{to.replacing} finishes it, with these files or others",
        )


def _known(to: Destination) -> "list[KnownFile]":
    from sessionize.connectors.iceberg import known_files

    return known_files(to.catalog, to.database, to.table)


def _by_print(there: "Iterable[KnownFile]") -> "dict[str | None, KnownFile]":
    """By content: the newest load that is in."""
    found: dict[str | None, KnownFile] = {}
    for each in there:
        if each.is_in:
            found.setdefault(each.fingerprint, each)
    return found


def _cut_off(there: "Iterable[KnownFile]", prints: Iterable[str | None]) -> frozenset[str]:
    """Loads that are not in and had some of these files."""
    mine = set(prints)
    return frozenset(each.load_id for each in there if not each.is_in and each.fingerprint in mine)


def _settle_twins(load: Load, on_note: Callable[[str], None]) -> None:
    """What to do with files of one content within the run."""
    first: dict[str | None, InputFile] = {}
    pairs = [(file, first.setdefault(load.prints[file.path], file)) for file in load.files if not file.pipe]
    found = [(file, same) for file, same in pairs if file is not same and load.source.has_records(file)]
    if not found or load.known == "again":
        return
    words = twin_warnings(found)
    if load.known == "refuse":
        raise StateError(
            "some files have the same content",
            detail=words,
            hint="--new-only loads one of each, --again loads all",
        )
    load.source.exclude({file.path for file, _ in found})
    on_note(f"files with the same content are loaded once: {words}")


def twin_warnings(pairs: list[tuple[InputFile, InputFile]]) -> str:
    """Files of one content, in words."""
    return "; ".join(f"{file.path} equals {same.path}" for file, same in pairs[:_NAMED_MAX]) + _more(len(pairs))


def _are_in(load: Load, there: "list[KnownFile]") -> list[InputFile]:
    """The files that are in the tables, as far as there is a record in them."""
    at = _by_print(there)
    return [file for file in load.files if load.prints[file.path] in at and load.source.has_records(file)]


def _refuse_known(load: Load, there: "list[KnownFile]") -> None:
    files = _are_in(load, there)
    if not files:
        return
    listed, replaces = _listed(files, load, there), f"{load.to.replacing} replaces what the tables hold"
    if load.is_generated:
        raise StateError(
            "the generated events are in the tables already",
            detail=listed,
            hint=f"another input.generator.seed generates other events, --again loads them once more, {replaces}",
        )
    fresh = len(load.files) - len(files)
    only = f"--new-only loads the other {fresh:,}, " if fresh else ""
    raise StateError(
        "files are in the tables already",
        detail=f"{len(files):,} of {len(load.files):,}: {listed}",
        hint=f"{only}--again loads all of them once more, {replaces}",
    )


def _listed(files: list[InputFile], load: Load, there: "list[KnownFile]") -> str:
    at = _by_print(there)

    def said(file: InputFile) -> str:
        known = at[load.prints[file.path]]
        name = "" if known.path == file.path else f" as {known.path}"
        if load.is_generated and known.records is not None:  # a run may have been stopped early
            name += f", {known.records:,} records"
        return f"{file.path} (loaded {known.loaded_at:%Y-%m-%d %H:%M:%S} UTC{name})"

    return ", ".join(said(file) for file in files[:_NAMED_MAX]) + _more(len(files))


def _more(count: int) -> str:
    return f" and {count - _NAMED_MAX:,} more" if count > _NAMED_MAX else ""


def _counted(files: list[InputFile]) -> str:
    return "1 file is" if len(files) == 1 else f"{len(files):,} files are"


def _print_of(source: LoadSource, file: InputFile) -> str | None:
    return source.fingerprint if isinstance(source, GeneratedInput) else fingerprint(file)


def _described(file: InputFile, mark: str | None) -> dict[str, object]:
    modified = None
    if not file.pipe and file.version is None and not is_address(file.path):
        modified = dt.datetime.fromtimestamp(os.stat(file.path).st_mtime, dt.UTC)
    size = None if file.pipe else file.size_bytes
    return {"path": file.path, "size_bytes": size, "modified_at": modified, "fingerprint": mark}
