"""`maintain`: compact the tables' small files, expire snapshots, remove unused files."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from sessionize.cli import options as opt

if TYPE_CHECKING:
    from sessionize.app.tables.maintain import MaintenanceProgress, TableMaintenance

_MIB = 1 << 20


def maintain(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="TABLE", help="Tables to maintain; default: all.")
    ] = None,
    pipeline: opt.PipelineOrNone = None,
    home: opt.HomeOrNone = None,
    database: opt.DatabaseOrNone = None,
    target_size: Annotated[
        float | None, typer.Option(help="Target file size in MiB; default: the table's own.")
    ] = None,
    keep: Annotated[
        str, typer.Option(help="Keep snapshots that were current within this time, for running queries.")
    ] = "1h",
    keep_snapshots: Annotated[int, typer.Option(help="Keep this many of the newest snapshots, at any age.")] = 1,
    orphan_age: Annotated[
        float, typer.Option(help="Remove files that no snapshot ever named after this many hours, at least 1.")
    ] = 72.0,
    force: Annotated[
        bool, typer.Option("--force", help="Allow --orphan-age below an hour; only while nothing writes.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the changes without making them.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Compact small files, expire old snapshots, remove the files that only these needed; safe beside a running engine.

    Compacted files are compared with the old ones row by row before they replace them. The old files are removed by the
    first maintain that runs --keep later, when no reader can need them.
    """
    from dataclasses import asdict

    from sessionize.app.tables.maintain import MaintenanceSettings
    from sessionize.app.tables.maintain import maintain as maintain_tables
    from sessionize.app.tables.warehouse import find_warehouse
    from sessionize.cli import output as out
    from sessionize.session.durations import parse_duration_ms

    settings = MaintenanceSettings(
        target_bytes=None if target_size is None else int(target_size * _MIB),
        keep_s=parse_duration_ms(keep, name="--keep") / 1000,
        keep_snapshots=keep_snapshots,
        orphan_age_h=orphan_age,
        force=force,
        dry_run=dry_run,
    )
    warehouse = find_warehouse(pipeline, home, database)
    with _shown() as progress:
        done = maintain_tables(warehouse, settings, tables=tables or (), progress=progress)
    for warning in (table.warning() for table in done):
        if warning is not None:
            out.print_warning(warning)
    if as_json:
        out.print_json({"dry_run": dry_run, "tables": [asdict(table) for table in done]})
        return
    columns = ("table", "rows", "files", "MiB", "compacted", "snapshots expired", "files removed")
    title = "What would change" if dry_run else ""
    out.print_table(title, columns, [_cells(table) for table in done], right=range(1, len(columns)), lines=False)
    waiting, size = sum(table.waiting for table in done), sum(table.waiting_bytes for table in done)
    if waiting:
        sys.stderr.write(
            f"{waiting:,} replaced files ({size / _MIB:,.1f} MiB) are kept for readers that began within {keep}; "
            "a later maintain removes them\n"
        )


def _cells(table: "TableMaintenance") -> tuple[str, ...]:
    removed, size = table.freed + table.orphans, table.freed_bytes + table.orphan_bytes
    return (
        table.table,
        f"{table.rows:,}",
        f"{table.files_before:,} → {table.files_after:,}",
        f"{table.bytes_before / _MIB:,.1f} → {table.bytes_after / _MIB:,.1f}",
        f"{table.packed:,} → {table.packed_into:,}",
        f"{table.snapshots_expired:,} of {table.snapshots_before:,}",
        f"{removed:,}" + (f" ({size / _MIB:,.1f} MiB)" if removed else ""),
    )


@contextmanager
def _shown() -> "Iterator[MaintenanceProgress | None]":
    """A bar for each table on a terminal; nothing where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress as bars

    from sessionize.cli.output import console, escaped

    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.TextColumn("{task.fields[doing]}"))
    with bars.Progress(*columns, console=console(stderr=True), transient=True) as display:
        tasks: dict[str, bars.TaskID] = {}

        def update(table: str, doing: str, done: int, total: int) -> None:
            if table not in tasks:
                for before in tasks.values():  # one table after the other
                    display.update(before, doing="done", total=1, completed=1)
                tasks[table] = display.add_task(escaped(table), total=None, doing="")
            display.update(tasks[table], doing=doing, total=total or None, advance=done)

        yield update
