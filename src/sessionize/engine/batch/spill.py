"""Events on disk, split by user, for input that does not fit in memory.

Each of SPILL_PARTS files takes the events of the users whose name hashes to it; a file is later read back whole, so the
largest input is about SPILL_PARTS times the memory, unless one user alone is larger than that.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sessionize.arrow import decoded_type
from sessionize.engine.batch.event_buffer import EventBuffer
from sessionize.errors import OutputError
from sessionize.session import columns as col
from sessionize.session.ids import user_hash_buckets

SPILL_PARTS = 25


class Spill:
    """A directory of spill files, removed on close."""

    def __init__(self, parent: Path | None = None) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="sessionize-spill-", dir=parent))
        # the files of each part, the last one open; a new one begins when the columns change
        self._files: dict[int, list[Path]] = {}
        self._writers: dict[int, tuple[pa.Schema, pa.ipc.RecordBatchStreamWriter]] = {}
        self.rows = 0

    def __enter__(self) -> "Spill":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, held: EventBuffer) -> None:
        """Append the events to the files of their users. Errors: OutputError when the disk is full."""
        part_of_user = (user_hash_buckets(held.names()).to_numpy() % SPILL_PARTS).astype(np.uint8)
        try:
            for table in held.tables():
                self._add(table, part_of_user)
        except OSError as error:
            raise OutputError(
                "the input does not fit in memory, and spilling it to disk failed",
                detail=f"{self._directory}: {error}",
                hint="free some space there, point TMPDIR to a larger disk, or allow more memory: "
                "--memory (batch, label), run.memory in a pipeline",
            ) from error

    def parts(self) -> Iterator[EventBuffer]:
        """The events of each file that has any."""
        for _, writer in self._writers.values():
            writer.close()
        for part in sorted(self._files):
            held = EventBuffer()
            for path in self._files[part]:
                with pa.OSFile(str(path)) as file:
                    for batch in pa.ipc.open_stream(file):
                        held.add(pa.Table.from_batches([batch]))
                path.unlink()
            yield held

    def close(self) -> None:
        """Remove every file."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _add(self, table: pa.Table, part_of_user: npt.NDArray[np.uint8]) -> None:
        table = table.combine_chunks()
        part = part_of_user[table[col.USER].chunk(0).indices.to_numpy()]
        by_part = part.argsort(kind="stable")
        bounds = np.searchsorted(part[by_part], np.arange(SPILL_PARTS + 1))
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            rows = table.take(pa.array(by_part[bounds[number] : bounds[number + 1]])).combine_chunks()
            self._write(number, rows)
        self.rows += table.num_rows

    def _write(self, part: int, rows: pa.Table) -> None:
        plain = rows.cast(pa.schema([(f.name, decoded_type(f.type)) for f in rows.schema]))
        schema, writer = self._writers.get(part, (None, None))
        if writer is None or schema != plain.schema:
            if writer is not None:
                writer.close()
            files = self._files.setdefault(part, [])
            files.append(self._directory / f"part-{part:02d}-{len(files)}.arrow")
            writer = pa.ipc.new_stream(str(files[-1]), plain.schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
            self._writers[part] = (plain.schema, writer)
        writer.write_table(plain)
