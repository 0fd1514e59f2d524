"""A run of the generator as something that is loaded into tables: the same settings make the same events.

Neither the present nor chance is in them (connectors/generator/settings.py): the first event has a fixed date, and all
that is random follows from the seed. So the settings say what a run brings, as the content of a file does.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import asdict

from sessionize.connectors.files.source_paths import InputFile
from sessionize.connectors.generator.settings import GeneratorSettings
from sessionize.connectors.generator.source import GeneratorSource
from sessionize.formats.dialects import Field
from sessionize.ports import EventBatch


class GeneratedInput:
    """A Source (ports/) of generated events that counts as one file.

    max_future_ms, now_ms, fields: as in GeneratorSource.
    """

    def __init__(
        self, settings: GeneratorSettings, *, max_future_ms: int | None, now_ms: int, fields: Iterable[Field] = ()
    ) -> None:
        name = name_of(settings)
        self.fingerprint = fingerprint_of(settings)
        self._source = GeneratorSource(settings, max_future_ms=max_future_ms, now_ms=now_ms, name=name, fields=fields)
        # like a pipe it is nowhere on the disk: no size, no time of change
        self._files = [InputFile(name, "ndjson", pipe=True)]

    @property
    def files(self) -> Sequence[InputFile]:
        """The run as a file; nothing when it is left out."""
        return tuple(self._files)

    def has_records(self, file: InputFile) -> bool:
        """A run has at least one event."""
        return True

    def exclude(self, paths: Set[str]) -> None:
        """Generate nothing, where the run is among these paths."""
        self._files = [file for file in self._files if file.path not in paths]

    @property
    def size_bytes(self) -> int | None:
        """About how many bytes the records have."""
        return self._source.size_bytes if self._files else 0

    @property
    def event_columns(self) -> frozenset[str]:
        """The canonical columns of the profile's records."""
        return self._source.event_columns

    @property
    def user_name(self) -> str:
        """What the profile's records call the user."""
        return self._source.user_name

    def batches(self) -> Iterator[EventBatch]:
        """Generate and decode, unless the run is left out."""
        return self._source.batches() if self._files else iter(())


def fingerprint_of(settings: GeneratorSettings) -> str:
    """32 hexadecimal digits: equal for settings that make the same events, whenever they run.

    Duplicates and broken records change none of the events, so they do not count; nor does how late no event comes.
    """
    # events, rate and duration say the same in several ways
    size = {"events": settings.total_events, "duration_ms": settings.span_ms, "rate_per_s": settings.mean_rate_per_s}
    steady = settings.rate_per_s is not None  # without a rate the events follow the time of day
    said = {**asdict(settings), **size, "steady": steady}
    for name in ("duplicate_fraction", "broken_fraction", *(() if settings.late_fraction else ("late_by_ms",))):
        del said[name]
    return hashlib.blake2b(b"generator " + json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()


def name_of(settings: GeneratorSettings) -> str:
    """What people recognise a run by."""
    return f"generator (seed {settings.seed}: {settings.total_events:,} events of {settings.users:,} users)"
