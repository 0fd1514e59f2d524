"""Made-up events to where people want them: the wiring of `produce`."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sessionize.connectors.generator import (
    GeneratedTotals,
    GeneratorSettings,
    LateRecord,
    open_output,
    sample,
    write_lines,
)
from sessionize.errors import ConfigError

__all__ = ["produce", "sample", "settings_of"]


def settings_of(*, start_ms: int | None, **values: Any) -> GeneratorSettings:
    """Generator settings; without a start they begin where the generator's own default says. Errors: ConfigError."""
    return GeneratorSettings(**values) if start_ms is None else GeneratorSettings(start_ms=start_ms, **values)


def produce(
    settings: GeneratorSettings,
    output: Path | None,
    *,
    realtime: bool = False,
    progress: Callable[[int], None] | None = None,
    on_late: Callable[[str, int], None] | None = None,
) -> GeneratedTotals:
    """Write the records to a file, or to stdout. on_late hears the user and how many ms behind a late event is."""

    def late(record: LateRecord) -> None:
        if on_late is not None:
            on_late(record.user, record.arrival_ms - record.time_ms)

    if output is not None and output.suffix.lower() in (".csv", ".tsv", ".parquet", ".avro"):
        raise ConfigError(
            "the generator writes JSON lines", detail=str(output), hint="end the name in .ndjson or .ndjson.gz"
        )
    target = nullcontext(sys.stdout.buffer) if output is None else open_output(output)
    with target as out:
        return write_lines(
            settings, out, realtime=realtime, progress=progress, on_late=None if on_late is None else late
        )
