"""Reads session files as `batch` writes them: Parquet with every column, CSV and JSON lines with the plain ones."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from sessionize.errors import ConfigError, InputError
from sessionize.session import columns as col

_BATCH_ROWS = 200_000
_NESTED = frozenset({col.PAGES_VISITED, col.EVENTS_BY_TYPE})


def session_rows(path: Path, user_name: str) -> Iterator[pa.Table]:
    """The rows in pieces, the user column called `user`. user_name: what the file calls it.

    Errors: InputError for a file that cannot be read or has no such column; ConfigError for another ending.
    """
    kind = path.suffix.lower()
    if kind not in (".parquet", ".csv", ".tsv", ".ndjson", ".jsonl"):
        raise ConfigError(
            "sessions are read from .parquet, .csv, .tsv or .ndjson", detail=str(path), hint="as `batch` writes them"
        )
    try:
        for table in _pieces(path, kind):
            if user_name not in table.column_names:
                raise InputError(
                    f"the sessions have no column {user_name!r}",
                    detail=f"{path}: {', '.join(table.column_names)}",
                    hint="name the user as for the events: --user FIELD (check)",
                )
            others = [n for n in table.column_names if n not in (user_name, col.USER)]
            rows = table.select([user_name, *others]).rename_columns([col.USER, *others])
            yield rows.set_column(0, col.USER, rows[col.USER].cast(pa.string()))
    except (OSError, pa.ArrowException) as error:
        raise InputError("the sessions cannot be read", detail=f"{path}: {error}") from error


def _pieces(path: Path, kind: str) -> Iterator[pa.Table]:
    if kind == ".parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                yield pa.Table.from_batches([batch])
    elif kind in (".csv", ".tsv"):
        types = {n: t for n, t in col.SESSION_TYPES.items() if n not in _NESTED and n != col.USER}
        convert = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False)
        parse = pa.csv.ParseOptions(delimiter="\t" if kind == ".tsv" else ",", newlines_in_values=True)
        with pa.csv.open_csv(path, parse_options=parse, convert_options=convert) as reader:
            for batch in reader:
                yield _without_nested(pa.Table.from_batches([batch]))
    else:
        if path.stat().st_size:
            yield _without_nested(pa.json.read_json(path))


def _without_nested(table: pa.Table) -> pa.Table:
    return table.select([name for name in table.column_names if name not in _NESTED])
