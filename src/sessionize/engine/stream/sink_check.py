"""Whether the state and an output belong together, asked before anything is written.

An output takes every epoch up to its last one as known, so a state that is behind it would lose what it reads; and an
output that is behind the state will never get what is missing, because the state does not go back.
"""

from collections.abc import Sequence

from sessionize.errors import StateError


def check_agreement(name: str, last: int | None, *, writer: str, done: int, begun: int) -> str | None:
    """A warning where an output has nothing of this writer yet, though the state is further; else None.

    last: the last epoch that the output has, 0 for none, None where it keeps no record. done: the epoch of the
    checkpoint. begun: the newest one that is planned, done where none is. Errors: StateError when they disagree.
    """
    if last is None:
        return None
    if last > begun:
        raise StateError(
            "an output is ahead of the state",
            detail=f"{name} has epochs of writer {writer!r} up to {last}, the state knows of {begun or 'none'}",
            hint="bring back the state that belongs to these outputs (run.home/state); or begin anew, with another "
            "run.home or stream.writer, and with outputs that are empty",
        )
    if last >= done:
        return None
    if last == 0:
        return f"{name} is new to writer {writer!r}: it gets what comes after epoch {done}"
    raise StateError(
        "an output lacks epochs that are done",
        detail=f"{name} has epochs of writer {writer!r} up to {last}, the state is at {done}",
        hint="bring back the output as it was, or the state that belongs to it; one without any of this writer's "
        "epochs counts as new, and gets what comes from now on",
    )


def check_columns(there: Sequence[str], here: Sequence[str]) -> None:
    """Errors: StateError when the state's sessions have other columns than this run's."""
    if there != here:
        raise StateError(
            "the state was made for other session columns",
            detail=f"{', '.join(there)} there, {', '.join(here)} here",
            hint="let the pipeline drain once with the old columns, then start with a new home",
        )
