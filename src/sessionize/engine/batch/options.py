"""How a batch run works, apart from what it makes."""

from dataclasses import dataclass
from pathlib import Path

from sessionize.formats.dialects import Dialect

MEMORY_BYTES_MAX = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """Limits and places of a batch run.

    memory_bytes_max: events held in memory before they are spilled. spill_directory: where they are spilled to, None
    for the system's place for temporary files. dialect: where the fields of the records are, for errors that name them;
    None where there is none.
    """

    memory_bytes_max: int = MEMORY_BYTES_MAX
    spill_directory: Path | None = None
    dialect: Dialect | None = None
