"""A version of a Delta table, read by deltalake's own engine, which applies deletion vectors.

It reads in one thread, so that the rows come in the same order every time.
"""

import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sessionize.connectors.local_paths import is_address
from sessionize.errors import InputError, MissingExtraError, SessionizeError, UnavailableError

try:
    from deltalake import DeltaTable, QueryBuilder
    from deltalake.exceptions import DeltaError, TableNotFoundError
except ModuleNotFoundError as missing:
    raise MissingExtraError(missing.name or "deltalake", "delta", "reading Delta tables") from missing

_ONE_THREAD = {"datafusion.execution.target_partitions": "1"}
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_OF_STORAGE = ("Generic S3 error", "Generic GCS error", "Generic MicrosoftAzure error", "error sending request")
_DAMAGED = "a Delta table cannot be read"


class DeltaSnapshot:
    """A Delta table as it was when it was opened. Implements table_source.TableSnapshot."""

    def __init__(self, place: str, *, name: str) -> None:
        """Read the log of the table; place: its folder or address. name: for messages and rejected records.

        Errors: InputError where there is no table, or one of a kind that cannot be read; UnavailableError.
        """
        self.name = name
        self._place = place
        try:
            self._table = DeltaTable(place)
            self.version = f"{self._table.metadata().id}@{self._table.version()}"
            self.schema = pa.schema(self._table.schema())
            files = pa.table(self._table.get_add_actions(flatten=True))
        except TableNotFoundError as error:
            raise InputError(
                "there is no Delta table", detail=name, hint="name the folder that has _delta_log in it"
            ) from error
        except (DeltaError, OSError, ValueError) as error:
            raise self._failure(error) from error
        self.size_bytes: int = pc.sum(files["size_bytes"]).as_py() or 0
        counts = files["num_records"] if "num_records" in files.column_names else pa.nulls(max(len(files), 1))
        self.row_count: int | None = None if counts.null_count else pc.sum(counts).as_py() or 0

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """These columns of all rows. Errors: InputError for files that are missing or damaged; UnavailableError."""
        names = ", ".join('"' + column.replace('"', '""') + '"' for column in columns)
        try:
            rows = QueryBuilder(_ONE_THREAD).register("t", self._table).execute(f"SELECT {names} FROM t")
            yield from pa.RecordBatchReader.from_stream(rows)
        except (DeltaError, OSError, pa.ArrowException, ValueError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> SessionizeError:
        text = " ".join(_COLORS.sub("", str(error)).replace("↳", "").split())
        if is_address(self._place) and (isinstance(error, OSError) or any(mark in text for mark in _OF_STORAGE)):
            return UnavailableError(
                _DAMAGED, detail=f"{self.name}: {text}", hint="check the address, the network and the credentials"
            )
        if "not found" in text:
            hint = "files of this version are gone, by VACUUM or by hand: restore them, or use a newer version"
        else:
            hint = "a file is damaged, or the table uses a feature that deltalake does not read"
        return InputError(_DAMAGED, detail=f"{self.name}: {text}", hint=hint)
