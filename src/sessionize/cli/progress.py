"""A progress bar on stderr for work that takes a while; nothing where nobody looks."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sessionize.cli.terminal.input_warnings import input_warnings
from sessionize.engine.accounting import Accounting, Progress, ignore


@contextmanager
def shown(size_bytes: int | None, *, enabled: bool = True) -> Iterator[Progress]:
    """A Progress that draws: bytes while reading, events while writing; the rest of the line says what was found.

    What the reading warns of is shown after it.
    """
    with input_warnings(), _drawn(size_bytes, enabled=enabled) as progress:
        yield progress


@contextmanager
def _drawn(size_bytes: int | None, *, enabled: bool) -> Iterator[Progress]:
    if not enabled or not sys.stderr.isatty():
        yield ignore
        return
    from rich import progress as bars

    from sessionize.cli.output import console

    columns = (
        bars.TextColumn("{task.description:<8}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
        bars.TextColumn("{task.fields[found]}"),
    )
    with bars.Progress(*columns, console=console(stderr=True), transient=False) as display:
        tasks = {"read": display.add_task("reading", total=size_bytes, found="")}

        def update(phase: str, done: int, accounting: Accounting) -> None:
            if phase == "commit":
                phase = next(reversed(tasks))
                display.update(tasks[phase], description="commit")
            elif phase not in tasks:
                display.update(tasks["read"], total=display.tasks[0].completed)
                expected = accounting.consumed - accounting.rejected
                tasks[phase] = display.add_task("writing", total=expected, found="")
            found = f"{accounting.consumed:,} records"
            if accounting.rejected:
                found += f", {accounting.rejected:,} rejected"
            if accounting.sessions:
                found += f", {accounting.sessions:,} sessions"
            display.update(tasks[phase], advance=done, found=found)

        yield update
        display.update(tasks["read"], total=display.tasks[0].completed)
