"""Opens what a run reads: files, and tables among them (table_inputs.py).

Several inputs are read one after the other, as several files are.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sessionize.app.extras import requires_extra
from sessionize.app.table_inputs import TableName, table_name
from sessionize.connectors.files.source import FileSource
from sessionize.connectors.files.source_paths import InputFile
from sessionize.formats.dialects import Dialect
from sessionize.formats.input_format import AUTO, InputFormat
from sessionize.ports import EventBatch, Source

if TYPE_CHECKING:
    from sessionize.app.tables.warehouse import Warehouse
    from sessionize.connectors.table_source import TableSnapshot, TableSource


class LoadSource(Source, Protocol):
    """What can be loaded: files and tables, or a run of the generator as if it were a file
    (app/tables/generated_loads.py).
    """

    @property
    def files(self) -> Sequence[InputFile]:
        """What is read, without what is left out; a table counts as a file."""

    def has_records(self, file: InputFile) -> bool:
        """Whether there is anything to load in a file."""

    def exclude(self, paths: Set[str]) -> None:
        """Do not read these of the files; before anything is read."""


class EventInput(LoadSource, Protocol):
    """Files and tables."""

    @property
    def has_files_of_one_size(self) -> bool:
        """Whether two files have equal size, so that their content may be equal."""

    def begun(self) -> AbstractContextManager[None]:
        """Read ahead in this block, where that is possible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How events are read; each as in FileSource. warehouse: where the Iceberg tables of a database are."""

    warehouse: "Callable[[str, str], Warehouse]"
    dialect: Dialect
    input_format: InputFormat = AUTO
    columns: frozenset[str] | None = None
    extras: bool = False
    max_future_ms: int | None = None
    now_ms: int | None = None
    plain_users: bool = False


def warehouse_at(home: Path | None) -> "Callable[[str, str], Warehouse]":
    """Where tables are for a command without a pipeline: as where it writes them."""

    def found(database: str, table: str) -> "Warehouse":
        from sessionize.app.tables.home_folders import home_of_table
        from sessionize.app.tables.warehouse import Warehouse

        return Warehouse(home_of_table(database, table) if home is None else home)

    return found


def open_input(inputs: Sequence[str], how: Reading) -> EventInput:
    """Look at the inputs; no event is read yet.

    Errors: those of FileSource; ConfigError, InputError, UnavailableError for tables; MissingExtraError.
    """
    tables = {text: table for text in inputs if (table := table_name(text)) is not None}
    if not tables:
        return _files(inputs, how)
    parts: list[FileSource | _Table] = []
    paths: list[str] = []
    for text in dict.fromkeys(inputs):
        if text not in tables:
            paths.append(text)
            continue
        if paths:
            parts.append(_files(paths, how))
        paths = []
        parts.append(_opened(tables[text], how))
    if paths:
        parts.append(_files(paths, how))
    return SeveralInputs(parts)


class SeveralInputs:
    """Files and tables as one input (EventInput); no file or table is read twice."""

    def __init__(self, parts: "Sequence[FileSource | _Table]") -> None:
        versions = dict[str, _Table]()
        self._parts = [
            part for part in parts if not isinstance(part, _Table) or versions.setdefault(part.version, part) is part
        ]

    @property
    def files(self) -> Sequence[InputFile]:
        """Files and tables, in the order of reading."""
        return tuple(file for part in self._parts for file in part.files)

    @property
    def size_bytes(self) -> int | None:
        """The size of all; None when that of one is unknown."""
        sizes = [part.size_bytes for part in self._parts]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def has_files_of_one_size(self) -> bool:
        """Whether two files have equal size, so that their content may be equal."""
        sizes = [file.size_bytes for file in self.files if file.size_bytes and file.version is None]
        return len(set(sizes)) < len(sizes)

    @property
    def event_columns(self) -> frozenset[str]:
        """The canonical columns of every batch, which follow from the dialect."""
        return self._parts[0].event_columns

    @property
    def user_name(self) -> str:
        """The dialect's."""
        return self._parts[0].user_name

    def has_records(self, file: InputFile) -> bool:
        """Whether there is anything to load. Errors: as batches."""
        return next(part for part in self._parts if file in part.files).has_records(file)

    def exclude(self, paths: Set[str]) -> None:
        """Do not read these."""
        for part in self._parts:
            part.exclude(paths)

    def begun(self) -> AbstractContextManager[None]:
        """Read the first of them ahead."""
        first = self._parts[0]
        return first.begun() if isinstance(first, FileSource) else nullcontext()

    def batches(self) -> Iterator[EventBatch]:
        """The events of one after the other. Errors: those of each."""
        for part in self._parts:
            yield from part.batches()


class _Table:
    """A table that counts as a file."""

    def __init__(self, source: "TableSource") -> None:
        table = source.table
        self._source = source
        self.version = table.version
        self._files = [InputFile(table.name, "table", size_bytes=table.size_bytes, version=table.version)]

    @property
    def files(self) -> Sequence[InputFile]:
        return tuple(self._files)

    @property
    def size_bytes(self) -> int | None:
        return self._source.size_bytes if self._files else 0

    @property
    def event_columns(self) -> frozenset[str]:
        return self._source.event_columns

    @property
    def user_name(self) -> str:
        return self._source.user_name

    def has_records(self, file: InputFile) -> bool:
        return self._source.table.row_count != 0

    def exclude(self, paths: Set[str]) -> None:
        self._files = [file for file in self._files if file.path not in paths]

    def batches(self) -> Iterator[EventBatch]:
        return self._source.batches() if self._files else iter(())


def _files(paths: Sequence[str], how: Reading) -> FileSource:
    return FileSource(
        list(paths),
        dialect=how.dialect,
        input_format=how.input_format,
        columns=how.columns,
        extras=how.extras,
        max_future_ms=how.max_future_ms,
        now_ms=how.now_ms,
        plain_users=how.plain_users,
    )


def _opened(name: TableName, how: Reading) -> _Table:
    snapshot = _snapshot(name, how)
    from sessionize.connectors.table_source import TableSource

    source = TableSource(
        snapshot,
        dialect=how.dialect,
        columns=how.columns,
        extras=how.extras,
        max_future_ms=how.max_future_ms,
        now_ms=how.now_ms,
        plain_users=how.plain_users,
    )
    return _Table(source)


def _snapshot(name: TableName, how: Reading) -> "TableSnapshot":
    if name.kind == "delta":
        with requires_extra("delta", "reading Delta tables"):
            from sessionize.connectors.delta import DeltaSnapshot

        return DeltaSnapshot(name.place, name=name.text)
    database, table = name.database_and_table
    catalog = how.warehouse(database, table).open()
    from sessionize.connectors.iceberg.table_source import IcebergSnapshot

    return IcebergSnapshot(catalog, database, table, name=name.text)
