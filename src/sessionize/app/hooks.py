"""What callers of a use case hand in: who gets its reports, and what ends it early."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sessionize.engine.run_events import UNOBSERVED, Observer

if TYPE_CHECKING:
    from sessionize.ports import Clock, LiveView


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What gets the reports of a run, and what ends it early.

    on_note: gets a text for each change of existing tables, and for files that come twice. stopping: set when the
    run is to end; one over files is aborted instead. The others are of streams. observer: gets their events. live:
    shows open sessions, in place of the view that the pipeline names. clock: None for the machine's.
    """

    on_note: Callable[[str], None] = lambda note: None
    stopping: threading.Event = field(default_factory=threading.Event)
    observer: Observer = UNOBSERVED
    live: "LiveView | None" = None
    clock: "Clock | None" = None
