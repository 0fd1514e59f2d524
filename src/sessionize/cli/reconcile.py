"""`reconcile`: late events are merged into the sessions, which then equal a batch over all events."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from sessionize.cli import options as opt

if TYPE_CHECKING:
    from sessionize.app.tables.reconcile import Reconciled, ReconcileProgress

Pipeline = Annotated[
    str | None,
    typer.Argument(
        metavar="PIPELINE",
        help="Preset or .toml file that made the sessions; default: the preset that wrote the tables.",
    ),
]
Window = Annotated[str | None, typer.Option(help="How far back to merge late events: 1h, 24h; default: all.")]
Drained = Annotated[
    bool, typer.Option("--drained", help="Treat every session as closed; only if no engine runs or will resume.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the changes without making them.")]


def reconcile(
    pipeline: Pipeline = None,
    window: Window = None,
    drained: Drained = False,
    settings: opt.Set = None,
    home: opt.HomeOverride = None,
    dry_run: DryRun = False,
    as_json: opt.Json = False,
) -> None:
    """Merge late events into the sessions, which then equal a batch over all archived events.

    The pipeline's stores (output.sqlite, output.postgres) get the same changes.

    Only final sessions change; late events of open sessions wait for the next run.
    """
    from sessionize.app.tables.reconcile import reconcile_pipeline
    from sessionize.cli import output as out

    with _progress(enabled=not as_json) as progress:
        done = reconcile_pipeline(
            pipeline,
            settings,
            home,
            window=window,
            drained=drained,
            dry_run=dry_run,
            progress=progress,
            warn=out.print_warning,
        )
    if as_json:
        out.print_json(done.as_dict())
    else:
        _print_summary(done)


@contextmanager
def _progress(*, enabled: bool) -> "Iterator[ReconcileProgress]":
    """A bar of users on stderr; nothing where nobody looks."""
    if not enabled or not sys.stderr.isatty():
        yield lambda done, total, so_far: None
        return
    from rich.progress import Progress

    from sessionize.cli.output import console

    with Progress(console=console(stderr=True)) as bar:
        task = bar.add_task("users", total=None)
        yield lambda done, total, so_far: bar.update(task, completed=done, total=total)


def _print_summary(done: "Reconciled") -> None:
    from sessionize.cli import output as out

    rows = [
        ("late events examined", done.late_events, ""),
        ("users affected", done.users, ""),
        ("sessions replaced", done.replaced, ""),
        ("sessions added", done.added, "as replacements, or new"),
        ("sessions unchanged", done.unchanged, ""),
        ("late events waiting", done.waiting, "see below" if done.waiting else ""),
    ]
    if done.incomplete_users:
        rows.append(("users skipped", done.incomplete_users, "see below"))
    title = "what would change" if done.dry_run else "reconciled"
    out.print_table(title, ["", "number", ""], [(name, f"{n:,}", note) for name, n, note in rows], right=(1,))
    for note in _notes(done):
        out.console().print(note, highlight=False)


def _notes(done: "Reconciled") -> Iterator[str]:
    """What the numbers mean for whoever reads them, and what to do."""
    if done.incomplete_users:
        yield (
            "users skipped: their stored sessions have more events than the archive, so the archive is incomplete. "
            "Their sessions did not change, and their late events wait. Was the same input appended twice, or were "
            "archived events removed? Restore the missing events; or load the whole input again into an empty "
            "home."
        )
    if done.waiting and done.horizon_ms is not None:
        yield (
            "late events waiting: their sessions may still be open in an engine"
            + (", or their users were skipped" if done.incomplete_users else "")
            + ". A later reconcile merges them, after the engine has closed these sessions. If no engine runs, resume "
            "one to close them (run --once); if none will ever resume, use reconcile --drained."
        )
