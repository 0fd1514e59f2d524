"""What an engine of streams is given beside source and rules: its intervals and limits, and where epochs go."""

from collections.abc import Mapping
from dataclasses import dataclass

from sessionize.engine.stream.live_feed import LiveFeed
from sessionize.ports import EpochSink
from sessionize.session.policy import WatermarkRule


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """Intervals and limits of the engine.

    epoch_s: how long an epoch lasts at most. epoch_rows_max, epoch_bytes_max: at about how many records or bytes it
    ends early. poll_s: how long a poll waits. idle_after_s: silence after which a partition that is read to its end no
    longer holds the watermark back. retry_timeout_s: how long a server may be unavailable before the run ends. once:
    process what is there, and end; drain: and close every open session then. watermark: what advances the watermark of
    a partition (engine/lateness.py); follows_clock: whether the present bounds it.
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
