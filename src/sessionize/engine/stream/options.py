"""What an engine of streams is given beside source and rules: how it moves, where epochs go, who hears of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sessionize.engine.stream.live_feed import LiveFeed
from sessionize.engine.stream.status import EpochReport, Status
from sessionize.ports import EpochSink
from sessionize.session.policy import WatermarkRule


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How the engine moves.

    epoch_s: how long an epoch lasts at most; epoch_rows_max, epoch_bytes_max: how many records it has, about, and how
    large they are, before it ends early. poll_s: how long a poll waits. idle_after_s: silence after which a partition
    that is read to its end no longer holds the watermark. retry_timeout_s: how long a server may be away before the run
    ends. once: process what is there, and end; drain: and end every open session then. watermark: what moves a
    partition's front (engine/stream/lateness.py); follows_clock: the present bounds it.
    """

    epoch_s: float = 10.0
    epoch_rows_max: int = 1_000_000
    epoch_bytes_max: int = 256 << 20
    poll_s: float = 0.2
    idle_after_s: float = 60.0
    retry_timeout_s: float = 600.0
    once: bool = False
    drain: bool = True
    watermark: WatermarkRule = "confirmed"
    follows_clock: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOutputs:
    """Where epochs go.

    sinks: name -> sink, in the order in which they are written. live: what shows open sessions meanwhile. enrich: give
    the sinks the events with their sessions so far.
    """

    sinks: Mapping[str, EpochSink]
    live: LiveFeed | None = None
    enrich: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """Who hears of a run.

    epoch: of every committed epoch. status: how things stand, some times a second. step: the name of every step of an
    epoch before it begins, from whichever thread does it. warning: (what, which) of what the run does without:
    `damaged` checkpoint files, a merge of them that failed (`merge-failed`), sinks that have nothing of the epochs
    before (`output-new`), records of a repeated epoch that the source no longer has (`records-gone`).
    """

    epoch: Callable[[EpochReport], None] = lambda report: None
    status: Callable[[Status], None] = lambda status: None
    step: Callable[[str], None] = lambda step: None
    warning: Callable[[str, str], None] = lambda what, which: None
