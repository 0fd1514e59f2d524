"""What the connector uses of pyiceberg that pyiceberg does not promise to keep: whether it is there, and does the same.

A new version that changes one of these must fail here, by the name of the part, and not in a table of a user. The upper
bound in pyproject.toml is raised once these tests hold.
"""

import inspect
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyiceberg
import pytest
from packaging.requirements import Requirement
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io import pyarrow as arrow_io
from pyiceberg.io.pyarrow import ArrowScan, PyArrowFile, PyArrowFileIO
from pyiceberg.manifest import DataFile, ManifestEntry
from pyiceberg.partitioning import PartitionKey
from pyiceberg.table import Table, Transaction, locations
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import snapshot

from sessionize.connectors.iceberg import Catalog, events, open_table
from sessionize.connectors.iceberg.commits import append_files, replace_files, single_attempt
from sessionize.connectors.iceberg.layouts import specs_to_choose
from sessionize.connectors.iceberg.schema_evolution import aligned, complete
from sessionize.connectors.iceberg.staging import Staging

ROOT = Path(__file__).parents[3]
ADVICE = "keep pyiceberg below this version in pyproject.toml until the connector is changed"

# Module of the connector -> what it uses: where it is, its name, and the parameters that are passed by name or place.
USED: dict[str, list[tuple[Any, str, tuple[str, ...]]]] = {
    "commits.py": [
        (snapshot, "_SnapshotProducer", ("operation", "transaction", "io", "snapshot_properties")),
        (snapshot, "_MergeAppendFiles", ("operation", "transaction", "io", "snapshot_properties")),
        (snapshot, "_OverwriteFiles", ("operation", "transaction", "io", "snapshot_properties")),
        (snapshot, "ExpireSnapshots", ("transaction",)),
        (getattr(snapshot, "_SnapshotProducer", None), "_manifests", ()),
        (getattr(snapshot, "_SnapshotProducer", None), "new_manifest_writer", ("spec",)),
        (getattr(snapshot, "_SnapshotProducer", None), "spec", ("spec_id",)),
        (getattr(snapshot, "_SnapshotProducer", None), "append_data_file", ("data_file",)),
        (getattr(snapshot, "_SnapshotProducer", None), "delete_data_file", ("data_file",)),
        (Transaction, "table_metadata", ()),
        (Transaction, "commit_transaction", ()),
        (Table, "__init__", ("identifier", "metadata", "metadata_location", "io", "catalog", "config")),
        (ManifestEntry, "from_args", ()),
    ],
    "staging.py": [
        (arrow_io, "StatisticsCollector", ()),
        (arrow_io, "MetricModeTypes", ()),
        (arrow_io, "compute_statistics_plan", ("schema", "table_properties")),
        (
            arrow_io,
            "data_file_statistics_from_parquet_metadata",
            ("parquet_metadata", "stats_columns", "parquet_column_mapping"),
        ),
        (arrow_io, "parquet_path_to_id_mapping", ("schema",)),
        (arrow_io, "schema_to_pyarrow", ("schema",)),
        (DataFile, "from_args", ()),
        (PartitionKey, "partition", ()),
        (locations, "load_location_provider", ("table_location", "table_properties")),
    ],
    "storage.py": [
        (PyArrowFileIO, "parse_location", ("location", "properties")),
        (PyArrowFileIO(), "fs_by_scheme", ("scheme", "netloc")),
        (PyArrowFile, "__init__", ("location", "path", "fs")),
    ],
    "dataset.py": [(ArrowScan, "to_record_batches", ("tasks",)), (ArrowScan, "__init__", ("table_metadata", "io"))],
}


def note(module: str, what: str) -> str:
    return f"pyiceberg {pyiceberg.__version__}: {what}, which connectors/iceberg/{module} uses; {ADVICE}"


@pytest.mark.parametrize("module", sorted(USED))
def test_the_internals_that_are_used_are_there(module: str) -> None:
    for owner, name, parameters in USED[module]:
        what = f"{getattr(owner, '__name__', owner)}.{name}"
        found = getattr(owner, name, None)
        assert found is not None, note(module, f"there is no {what}")
        known = inspect.signature(found).parameters if parameters else {}
        missing = [parameter for parameter in parameters if parameter not in known]
        assert not missing, note(module, f"{what} has no parameter {', '.join(missing)}")


def test_the_installed_version_is_within_the_bounds_of_the_project() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (bound,) = [need for need in map(Requirement, extras["iceberg"]) if need.name == "pyiceberg"]
    assert bound.specifier.contains(pyiceberg.__version__)
    assert any(each.operator == "<" for each in bound.specifier), "internals are used, so there is an upper bound"


def staged(table: Table, rows: pa.Table) -> list[DataFile]:
    staging = Staging(table.io, table.metadata, table.schema())
    staging.add(aligned(complete(rows, events()), table.schema()))
    return staging.finish()


def of_days(*days: int) -> pa.Table:
    return pa.table({"user": [f"u{day}" for day in days], "event_time_ms": [day * 86_400_000 for day in days]})


def test_a_transaction_replaces_what_is_staged_and_never_changes_it(catalog: Catalog) -> None:
    """single_attempt knows by identity whether the metadata has to be worked out again."""
    transaction = single_attempt(open_table(catalog, "sessions", "events", events()))
    assert transaction._updates == (), note("commits.py", "Transaction._updates is no tuple any more")
    before, metadata = transaction._updates, transaction.table_metadata
    assert transaction.table_metadata is metadata
    transaction.set_properties({"a": "1"})
    assert transaction._updates is not before, note("commits.py", "Transaction._updates is changed in place")
    assert transaction.table_metadata.properties["a"] == "1", note("commits.py", "staged changes are not seen")
    assert "a" not in metadata.properties


def test_a_commit_that_lost_is_not_repeated_by_itself(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    table, calls = open_table(catalog, "sessions", "events", events()), list[object]()

    def refused(*arguments: object, **named: object) -> None:
        calls.append(arguments)
        raise CommitFailedException("another one was faster")

    monkeypatch.setattr(type(catalog), "commit_table", refused)
    transaction = single_attempt(table)
    append_files(transaction, staged(table, of_days(1)), {"k": "v"})
    with pytest.raises(CommitFailedException):
        transaction.commit_transaction()
    assert len(calls) == 1, note("commits.py", "commit.retry.num-retries = 0 does not prevent a repetition")


def test_a_commit_is_for_the_snapshot_that_was_looked_at(catalog: Catalog) -> None:
    table = open_table(catalog, "sessions", "events", events())
    late = single_attempt(table)
    append_files(late, staged(table, of_days(1)), {})
    first = single_attempt(table)
    append_files(first, staged(table, of_days(2)), {})
    first.commit_transaction()
    with pytest.raises(CommitFailedException):
        late.commit_transaction()
    assert table.refresh().scan().to_arrow()["user"].to_pylist() == ["u2"]


def test_one_snapshot_takes_files_of_several_partition_specs(catalog: Catalog) -> None:
    """A table that is laid out automatically: rows of many dates with few rows each go into one file."""
    table = open_table(catalog, "sessions", "events", events())
    by_date, unpartitioned = staged(table, of_days(1, 2)), staged(table, of_days(*range(0, 90_000, 30)))
    specs = {file.spec_id for file in (*by_date, *unpartitioned)}
    assert len(specs) == 2 <= len(specs_to_choose(table.metadata))
    transaction = single_attempt(table)
    append_files(transaction, [*by_date, *unpartitioned], {"k": "v"})
    table = transaction.commit_transaction()
    snapshot_ = table.current_snapshot()
    assert snapshot_ is not None
    assert snapshot_.summary is not None
    assert (snapshot_.summary.operation, snapshot_.summary["k"]) == (Operation.APPEND, "v")
    manifests = snapshot_.manifests(table.io)
    assert {manifest.partition_spec_id for manifest in manifests} == specs, note("commits.py", "files are lost by spec")
    assert len(table.scan().to_arrow()) == 2 + 3_000, note("commits.py", "_manifests lists files twice, or not at all")

    transaction = single_attempt(table)
    replace_files(transaction, by_date, staged(table, of_days(1)), {})
    table = transaction.commit_transaction()
    assert len(table.scan().to_arrow()) == 1 + 3_000, note("commits.py", "_OverwriteFiles keeps what was replaced")


def test_statistics_of_a_data_file_are_those_of_its_rows(catalog: Catalog) -> None:
    table = open_table(catalog, "sessions", "events", events(layout="none"))
    (file,) = staged(table, of_days(3, 1, 2))
    time_id, page_id = (table.schema().find_field(name).field_id for name in ("event_time_ms", "page"))
    low, high = (int.from_bytes(bounds[time_id], "little") for bounds in (file.lower_bounds, file.upper_bounds))
    assert (low, high) == (86_400_000, 3 * 86_400_000), note("staging.py", "bounds are not those of the rows")
    assert page_id not in file.lower_bounds, note("staging.py", "metrics modes are not kept")
    assert file.record_count == 3
