"""The stream of records: the same bytes every time, in the order of arrival, and counted exactly."""

import hashlib
import io
import json
import subprocess
import sys
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionize.connectors.generator import PROFILE_NAMES, GeneratorSettings, Timer, stream, write_lines
from sessionize.connectors.generator.arrival import DUPLICATE, EVENT, MALFORMED, REDELIVERY_MS_MAX
from sessionize.connectors.generator.malformed import KINDS

TROUBLED = {
    "late_fraction": 0.05,
    "out_of_order_ms": 20_000,
    "duplicate_fraction": 0.04,
    "broken_fraction": 0.06,
}


def text_of(run):
    out = io.BytesIO()
    accounting = write_lines(run, out)
    return out.getvalue(), accounting


def records_of(run):
    """The columns of all records of a run, by name, and their lines."""
    blocks = list(stream.Stream(run).blocks())
    columns = {
        name: np.concatenate([getattr(b.records, name) for b in blocks])
        for name in ("time_ms", "arrival_ms", "role", "late")
    }
    columns["number"] = np.concatenate([b.records.steps.number for b in blocks])
    columns["lines"] = np.array([line for b in blocks for line in b.lines.to_pylist()], dtype=object)
    return columns


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_a_seed_gives_the_same_bytes_and_another_seed_gives_others(profile):
    run = {"profile": profile, "users": 40, "events": 3_000, **TROUBLED}
    first, accounting = text_of(GeneratorSettings(seed=7, **run))
    again, totals_again = text_of(GeneratorSettings(seed=7, **run))
    other, _ = text_of(GeneratorSettings(seed=8, **run))
    assert first == again
    assert accounting == totals_again
    assert first != other


def test_another_process_gives_the_same_bytes():
    code = (
        "import io, hashlib; from sessionize.connectors.generator import *; out = io.BytesIO();"
        "write_lines(GeneratorSettings(users=30, events=2_000, late_fraction=0.1, broken_fraction=0.1), out);"
        "print(hashlib.sha256(out.getvalue()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    ours, _ = text_of(GeneratorSettings(users=30, events=2_000, late_fraction=0.1, broken_fraction=0.1))
    assert done.stdout.strip() == hashlib.sha256(ours).hexdigest()


@pytest.mark.parametrize("rows", [1, 100, 10**9])
def test_bytes_do_not_depend_on_how_the_stream_is_cut(rows, monkeypatch):
    run = GeneratorSettings(users=40, events=3_000, **TROUBLED)
    whole, accounting = text_of(run)
    monkeypatch.setattr(stream, "BLOCK_ROWS", rows)
    cut, totals_cut = text_of(run)
    assert cut == whole
    assert totals_cut == accounting


def test_real_time_gives_the_same_bytes():
    run = GeneratorSettings(users=40, rate_per_s=50, events=1_000, **TROUBLED)
    now_s = [0.0]
    timer = Timer(now_s=lambda: now_s[0], sleep_s=lambda s: now_s.__setitem__(0, now_s[0] + s))
    out = io.BytesIO()
    accounting = write_lines(run, out, realtime=True, timer=timer)
    assert (out.getvalue(), accounting) == text_of(run)


@settings(max_examples=40)
@given(
    profile=st.sampled_from(PROFILE_NAMES),
    seed=st.integers(0, 2**64 - 1),
    users=st.integers(1, 200),
    events=st.integers(1, 3_000),
    duration_ms=st.sampled_from([1_000, 60_000, 3_600_000, 86_400_000]),
    late=st.sampled_from([0.0, 0.05, 1.0]),
    out_of_order_ms=st.sampled_from([0, 1, 60_000]),
    duplicates=st.sampled_from([0.0, 0.03, 1.0]),
    broken=st.sampled_from([0.0, 0.03, 1.0]),
    skew=st.sampled_from([0.0, 1.0, 3.0]),
)
def test_totals_are_what_was_written(
    profile, seed, users, events, duration_ms, late, out_of_order_ms, duplicates, broken, skew
):
    run = GeneratorSettings(
        profile=profile,
        seed=seed,
        users=users,
        events=events,
        duration_ms=duration_ms,
        late_fraction=late,
        late_by_ms=20_000,
        out_of_order_ms=out_of_order_ms,
        duplicate_fraction=duplicates,
        broken_fraction=broken,
        skew=skew,
    )
    text, accounting = text_of(run)
    records = records_of(run)
    lines = text.splitlines(keepends=True)
    assert lines == records["lines"].tolist()
    assert accounting.size_bytes == len(text)
    assert accounting.records == len(lines) == accounting.good + accounting.broken
    assert accounting.events == events == np.count_nonzero(records["role"] == EVENT)
    assert accounting.duplicates == np.count_nonzero(records["role"] == DUPLICATE)
    assert accounting.broken == np.count_nonzero(records["role"] == MALFORMED) == sum(accounting.by_kind.values())
    good = records["role"] == EVENT
    assert accounting.late == np.count_nonzero(records["late"][good])
    assert (accounting.first_ms, accounting.last_ms) == (records["time_ms"][good].min(), records["time_ms"][good].max())
    assert accounting.complete
    assert_delivered_properly(records, run)


def assert_delivered_properly(records, run):
    """In order of arrival, within the bounds, never before the start, duplicates after what they repeat."""
    delay_ms = records["arrival_ms"] - records["time_ms"]
    assert (np.diff(records["arrival_ms"]) >= 0).all()
    assert records["arrival_ms"].min(initial=run.start_ms) >= run.start_ms
    first = records["role"] != DUPLICATE
    least_ms = records["late"] * run.late_by_ms
    assert (delay_ms >= least_ms).all()
    assert (delay_ms[first] <= (least_ms + run.out_of_order_ms)[first]).all()
    assert (delay_ms <= least_ms + run.out_of_order_ms + REDELIVERY_MS_MAX).all()
    delivered: dict[int, tuple[int, bytes]] = {}
    for number, role, arrival_ms, line in zip(
        records["number"].tolist(),
        records["role"].tolist(),
        records["arrival_ms"].tolist(),
        records["lines"].tolist(),
        strict=True,
    ):
        if role == EVENT:
            assert number not in delivered
            delivered[number] = (arrival_ms, line)
        elif role == DUPLICATE:
            assert delivered[number][0] < arrival_ms
            assert delivered[number][1] == line


def test_fractions_are_kept():
    _, accounting = text_of(GeneratorSettings(users=500, events=40_000, **TROUBLED))
    assert accounting.late / accounting.events == pytest.approx(0.05, rel=0.1)
    assert accounting.duplicates / accounting.events == pytest.approx(0.04, rel=0.1)
    assert accounting.broken / accounting.events == pytest.approx(0.06, rel=0.1)


def test_nothing_goes_wrong_unless_asked_for():
    run = GeneratorSettings(users=50, events=5_000)
    _, accounting = text_of(run)
    assert (accounting.late, accounting.duplicates, accounting.broken) == (0, 0, 0)
    records = records_of(run)
    assert (records["arrival_ms"] == records["time_ms"]).all()


def test_duplicates_and_broken_records_change_no_event():
    run = {"users": 60, "events": 4_000, "late_fraction": 0.05, "out_of_order_ms": 20_000}
    plain = records_of(GeneratorSettings(**run))
    troubled = records_of(GeneratorSettings(**run, duplicate_fraction=0.3, broken_fraction=0.3))
    events = troubled["role"] == EVENT
    assert troubled["lines"][events].tolist() == plain["lines"].tolist()


def test_late_events_reach_back_before_the_start_and_come_from_the_first_minute_on():
    run = GeneratorSettings(users=200, rate_per_s=20, duration_ms=60_000, late_fraction=0.05)
    records = records_of(run)
    late = records["late"]
    assert late.sum() > 20
    assert (records["time_ms"][late] < run.start_ms).all()  # 3 minutes late, in a run of one minute
    assert (records["time_ms"][~late] >= run.start_ms).all()


def test_every_event_id_is_unique():
    text, accounting = text_of(GeneratorSettings(users=50, events=20_000))
    ids = Counter(json.loads(line)["event_id"] for line in text.splitlines())
    assert len(ids) == accounting.events == 20_000


def test_broken_records_come_in_every_kind_and_are_one_line_each():
    run = GeneratorSettings(users=50, events=3_000, broken_fraction=1.0)
    text, accounting = text_of(run)
    assert set(accounting.by_kind) == {kind.name for kind in KINDS}
    assert len(KINDS) >= 25
    assert text.count(b"\n") == accounting.records


def test_an_endless_run_goes_on():
    blocks = stream.Stream(GeneratorSettings(users=50, rate_per_s=100)).blocks()
    seen = 0
    while seen < 100_000:
        block = next(blocks)
        seen += len(block)
    span_s = (block.records.arrival_ms[-1] - GeneratorSettings(events=1).start_ms) / 1_000
    assert span_s == pytest.approx(1_000, rel=0.05)


def test_memory_does_not_grow_with_the_run():
    def peak_bytes(days):
        tracemalloc.start()
        run = GeneratorSettings(users=2_000, events=30_000 * days, duration_ms=days * 86_400_000, **TROUBLED)
        for block in stream.Stream(run).blocks():
            assert len(block) <= stream.BLOCK_ROWS
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes(5) < 1.3 * peak_bytes(1)
