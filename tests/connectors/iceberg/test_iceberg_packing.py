"""Packing beside writers that replace the same files; packing that ends: a second run has nothing to do."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform

from sessionize.connectors.iceberg import (
    Catalog,
    IcebergSink,
    MaintenanceSettings,
    commits,
    load_table,
    maintain_table,
    sorting,
    user_sessions,
)
from sessionize.connectors.iceberg import compaction as packing
from sessionize.connectors.iceberg.layouts import LayoutName
from sessionize.connectors.iceberg.listing import listed_files
from sessionize.connectors.iceberg.row_rewrite import RowReplacer
from sessionize.connectors.iceberg.staging import Staging
from sessionize.errors import OutputError, UnavailableError
from sessionize.session import columns as col
from tests.connectors.iceberg.writing import DAY_MS, data_files, sessions, stored, write_all

LAYOUT = user_sessions()


def opened(catalog: Catalog) -> Table:
    return load_table(catalog, "sessions", "user_sessions")


def append(catalog: Catalog, rows: pa.Table, layout: LayoutName | None = None) -> None:
    write_all(IcebergSink(catalog, user_sessions(layout=layout, buckets=2), table="user_sessions"), rows)


def spread(n: int, days: int, seed: int) -> pa.Table:
    """n sessions at any time of so many days, of users of any bucket."""
    random = np.random.default_rng(seed)
    start = random.integers(0, days, n) * DAY_MS + random.integers(0, DAY_MS, n)
    users = [f"user-{seed}-{i}" for i in random.integers(0, n, n)]
    return pa.table(
        {
            "user": users,
            col.SESSION_ID: [f"{user}_{at}_{i}" for i, (user, at) in enumerate(zip(users, start, strict=True))],
            col.SESSION_START: start,
            col.SESSION_END: start + 1000,
            col.EVENT_COUNT: np.full(n, 2),
        }
    )


def counts(catalog: Catalog) -> list[tuple[str, int]]:
    rows = stored(catalog)
    return sorted(zip(rows[col.SESSION_ID].to_pylist(), rows[col.EVENT_COUNT].to_pylist(), strict=True))


def named(catalog: Catalog) -> set[Path]:
    """The data files that some snapshot names."""
    table = opened(catalog)
    every = (
        entry.data_file.file_path
        for snapshot in table.snapshots()
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
    )
    return {Path(path.removeprefix("file://")) for path in every}


@pytest.fixture
def three_days(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """Three dates of three small files, each packed in a commit of its own."""
    monkeypatch.setattr(packing, "_UNIT_PARTITIONS_MAX", 1)
    for part in range(3):
        append(catalog, sessions(3, days=3).set_column(1, col.SESSION_ID, pa.array([f"{part}-{d}" for d in range(3)])))
    return catalog


def once(step: Callable[[], object]) -> Callable[[], bool]:
    """For `stop`: the step is done when it is asked for the first time; never to stop."""
    waiting = [step]

    def stop() -> bool:
        if waiting:
            waiting.pop()()
        return False

    return stop


def replace_in_last_day(catalog: Catalog) -> None:
    old = sessions(3, days=3).slice(2).set_column(1, col.SESSION_ID, pa.array(["1-2"]))
    new = old.set_column(old.column_names.index(col.EVENT_COUNT), col.EVENT_COUNT, pa.array([7]))
    RowReplacer(opened(catalog), LAYOUT).replace(
        old.select(["user", col.SESSION_ID]), new, token="t", start_ms=old[col.SESSION_START].combine_chunks()
    )


def compact(catalog: Catalog, stop: Callable[[], bool] = lambda: False) -> packing.Compacted:
    return packing.compact(opened(catalog), target_bytes=None, files_min=2, progress=lambda done, of: None, stop=stop)


def test_files_that_another_writer_replaced_between_two_of_our_commits_are_planned_again(
    three_days: Catalog, tmp_path: Path
) -> None:
    before = counts(three_days)
    done = compact(three_days, once(lambda: replace_in_last_day(three_days)))

    assert (done.files, done.into, done.rows) == (9, 3, 9)
    assert counts(three_days) == sorted((name, 7 if name == "1-2" else count) for name, count in before)
    assert data_files(tmp_path) == named(three_days)
    assert compact(three_days) == packing.Compacted()


@pytest.mark.parametrize("appends", [0, 1])
def test_files_are_looked_for_again_only_when_others_have_committed(
    three_days: Catalog, monkeypatch: pytest.MonkeyPatch, appends: int
) -> None:
    unchanged = packing._unchanged
    looked: list[bool] = []

    def watched(*arguments: Any) -> bool:
        looked.append(unchanged(*arguments))
        return looked[-1]

    monkeypatch.setattr(packing, "_unchanged", watched)
    other = once(lambda: append(three_days, spread(1, 1, 0)) if appends else None)

    assert compact(three_days, other).files == 9
    assert looked == [True] * 3 * appends


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "unanswered"])
def test_files_of_commits_that_were_refused_go_and_those_of_unanswered_ones_stay(
    three_days: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    before = data_files(tmp_path)

    def fails(*arguments: Any) -> Any:
        raise CommitFailedException("faster") if refused else ConnectionError("no answer")

    monkeypatch.setattr(commits, "_TRIES_MAX", 2)
    monkeypatch.setattr(three_days, "commit_table", fails)
    with pytest.raises(UnavailableError, match="compacted files cannot be committed"):
        compact(three_days)
    assert len(data_files(tmp_path) - before) == (0 if refused else 1)


def test_an_interrupt_after_the_commit_leaves_its_files(three_days: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    before, commit = counts(three_days), three_days.commit_table

    def interrupted(*arguments: Any) -> Any:
        commit(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(three_days, "commit_table", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compact(three_days)
    assert counts(three_days) == before
    assert compact(three_days).files == 6


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partitions do not fit into memory; in the proportions that there are without this."""
    monkeypatch.setattr(sorting, "MEMORY_BYTES_MAX", 3 << 18)
    monkeypatch.setattr(packing, "Staging", functools.partial(Staging, buffer_bytes_max=1 << 20))
    monkeypatch.setattr(packing, "_PIECE_BYTES", 1 << 17)


def maintained(catalog: Catalog) -> tuple[int, int]:
    """How many files were packed, and how many there are now."""
    done = maintain_table(catalog, "sessions", "user_sessions", MaintenanceSettings(target_bytes=50_000, keep_s=0))
    return done.packed, done.files_after


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize(
    ("layout", "days"),
    [
        ("auto", 1),
        ("auto", 3),
        ("auto", 200),
        ("auto", 4_000),
        ("date", 1),
        ("date", 5),
        ("date_bucket", 1),
        ("month", 1),
        ("month", 28),
        ("month", 60),
        ("none", 1),
        ("none", 28),
        ("none", 4_000),
    ],
)
def test_what_was_packed_is_not_packed_again(catalog: Catalog, layout: LayoutName, days: int) -> None:
    for part in range(16):
        append(catalog, spread(1_500, days, part), layout)
    expected = counts(catalog)

    packed, files = maintained(catalog)
    assert packed >= 16
    assert files >= 3
    assert maintained(catalog) == (0, files)
    assert counts(catalog) == expected


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize(("layout", "days"), [("date", 1), ("month", 28), ("none", 300)])
def test_sorted_files_are_sorted_again_with_many_that_came_later(
    catalog: Catalog, layout: LayoutName, days: int
) -> None:
    for part in range(12):
        append(catalog, spread(5_000, days, part), layout)
        if part == 3:
            maintained(catalog)

    packed, files = maintained(catalog)
    assert packed > 8
    assert maintained(catalog) == (0, files)
    listed = list(listed_files(opened(catalog)))
    assert None not in {each.dates for each in listed} | {each.buckets for each in listed}
    held = [each.buckets if days == 1 else each.dates for each in listed]
    assert sum(high - low for low, high in filter(None, held)) < 3 * (100 if days == 1 else days)


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize(("layout", "days"), [("date", 1), ("month", 28)])
def test_a_partition_that_is_packed_in_several_commits_is_not_packed_again(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, layout: LayoutName, days: int
) -> None:
    monkeypatch.setattr(packing, "_UNIT_BYTES_MAX", 400_000)
    for part in range(16):
        append(catalog, spread(2_000, days, part), layout)

    packed, files = maintained(catalog)
    assert packed == 16
    assert opened(catalog).metadata.last_sequence_number >= 16 + 2
    assert maintained(catalog) == (0, files)


@pytest.mark.usefixtures("small_memory")
def test_files_of_a_table_that_is_not_sorted_by_date_and_bucket_are_not_packed_again(catalog: Catalog) -> None:
    append(catalog, spread(1, 1, 99))
    with opened(catalog).update_sort_order() as order:
        order.asc("user", IdentityTransform())
    for part in range(16):
        append(catalog, spread(1_500, 1, part))

    packed, files = maintained(catalog)
    assert packed >= 16
    assert files >= 3
    assert maintained(catalog) == (0, files)


def test_groups_that_fit_into_one_commit_are_not_parted(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in range(2):
        append(catalog, spread(300, 4, part), "date")
    groups = packing.plan(opened(catalog), target_bytes=None, files_min=2)
    sizes = [group.size_bytes for group in groups]
    monkeypatch.setattr(packing, "_UNIT_BYTES_MAX", max(sizes) * 3 // 2)

    units = list(packing._units(groups))
    assert len(units) > 1
    assert [group.files for unit in units for group in unit] == [group.files for group in groups]


def test_a_failure_says_that_maintenance_failed(catalog: Catalog) -> None:
    append(catalog, sessions(1))
    snapshot = opened(catalog).current_snapshot()
    assert snapshot is not None
    Path(snapshot.manifest_list.removeprefix("file://")).unlink()
    with pytest.raises(OutputError, match=r"maintenance of a table failed\n.*sessions\.user_sessions"):
        maintained(catalog)
