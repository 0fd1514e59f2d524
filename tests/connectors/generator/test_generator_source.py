"""The generator as a pipeline's input: good records come out as events, broken ones are rejected, none is lost."""

import io
import json

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sessionize.connectors.generator import PROFILE_NAMES, GeneratorSettings, write_lines
from sessionize.connectors.generator.malformed import KINDS, malformed_record
from sessionize.connectors.generator.profiles import PROFILES
from sessionize.connectors.generator.source import GeneratorSource
from sessionize.errors import ConfigError
from sessionize.formats.dialects import DIALECTS
from sessionize.formats.json_lines import JsonLines
from sessionize.ports import Source
from sessionize.session import columns as col

RUN = {
    "users": 50,
    "events": 6_000,
    "late_fraction": 0.02,
    "out_of_order_ms": 30_000,
    "duplicate_fraction": 0.03,
    "broken_fraction": 0.1,
}


def plain(table):
    """Text as text, whether a batch came with dictionaries or not."""
    types = [(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in table.schema]
    return table.cast(pa.schema(types))


def read(source):
    batches = list(source.batches())
    events = pa.concat_tables([plain(b.events) for b in batches], promote_options="default")
    return events, pa.concat_tables([b.rejected for b in batches]), batches


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_consumed_is_good_and_broken_to_the_record(profile):
    settings = GeneratorSettings(profile=profile, **RUN)
    source: Source = GeneratorSource(settings)
    out = io.BytesIO()
    accounting = write_lines(settings, out)
    events, rejected, batches = read(source)
    assert events.num_rows == accounting.good
    assert rejected.num_rows == accounting.broken > 500
    assert sum(b.consumed for b in batches) == accounting.records
    assert rejected.schema == col.REJECTED_SCHEMA
    lines = out.getvalue().split(b"\n")
    for record in rejected.to_pylist():
        assert record["source"] == "generator"
        assert lines[record["line_number"] - 1] == record["raw"]


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_events_are_what_the_records_say(profile):
    settings = GeneratorSettings(profile=profile, users=30, events=2_000)
    out = io.BytesIO()
    accounting = write_lines(settings, out)
    source = GeneratorSource(settings)
    events, rejected, _ = read(source)
    assert rejected.num_rows == 0
    dialect = DIALECTS[profile]
    assert source.event_columns == dialect.columns <= set(events.column_names)
    assert source.user_name == dialect.user_name
    records = [json.loads(line) for line in out.getvalue().splitlines()]
    assert events[col.USER].to_pylist() == [r[PROFILES[profile].user_field] for r in records]
    assert events[col.USER].null_count == events[col.EVENT_TIME].null_count == 0
    times = pc.min_max(events[col.EVENT_TIME]).as_py()
    assert (times["min"], times["max"]) == (accounting.first_ms, accounting.last_ms)


@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_the_dialect_sees_every_conversion(profile):
    conversions = PROFILES[profile].conversions
    settings = GeneratorSettings(profile=profile, users=30, events=5_000)
    events, _, _ = read(GeneratorSource(settings))
    wanted = DIALECTS[profile].conversion_events
    if not conversions or not wanted:
        assert col.EVENT_TYPE not in events.column_names or not set(events[col.EVENT_TYPE].to_pylist()) & set(wanted)
        return
    found = pc.sum(pc.is_in(events[col.EVENT_TYPE], pa.array(wanted))).as_py()
    out = io.BytesIO()
    write_lines(settings, out)
    marks = {"clickstream": b'"BK-', "user-events": b'"amount"', "ecommerce": b'"purchase"'}
    assert found == out.getvalue().count(marks[profile]) > 20


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=[k.name for k in KINDS])
@pytest.mark.parametrize("profile", PROFILE_NAMES)
def test_every_kind_of_broken_record_is_rejected(profile, kind):
    settings = GeneratorSettings(profile=profile, users=5, events=40)
    out = io.BytesIO()
    write_lines(settings, out)
    good = out.getvalue().splitlines(keepends=True)
    lines = JsonLines(DIALECTS[profile], latest_ms=settings.start_ms + 2 * 86_400_000)
    for choice, line in enumerate(good):
        broken = malformed_record(line, PROFILES[profile], choice * 7 * len(KINDS) + kind)
        assert broken.count(b"\n") == 1
        assert broken != line
        lines.add(broken, source="test", first_line=choice)
    decoded = lines.take()
    assert decoded.events.num_rows == 0
    assert decoded.rejected.num_rows == len(good)


@pytest.mark.parametrize("batch_rows", [1, 999, 10**6])
def test_batches_may_be_cut_anywhere(batch_rows):
    settings = GeneratorSettings(**(RUN | {"events": 1_500}))
    whole_events, whole_rejected, _ = read(GeneratorSource(settings))
    events, rejected, batches = read(GeneratorSource(settings, batch_rows=batch_rows))
    assert all(b.consumed == batch_rows for b in batches[:-1])
    assert len(batches) == -(-sum(b.consumed for b in batches) // batch_rows)
    assert events.select(sorted(events.column_names)) == whole_events.select(sorted(whole_events.column_names))
    assert rejected == whole_rejected


def test_the_progress_adds_up():
    source = GeneratorSource(GeneratorSettings(**RUN), batch_rows=500)
    read_bytes = [b.read_bytes for b in source.batches()]
    assert min(read_bytes) > 0
    assert sum(read_bytes) == source.size_bytes
    assert source.size_bytes == pytest.approx(6_000 * 235, rel=0.1)


def test_only_wanted_columns_are_built():
    wanted = frozenset({col.USER, col.EVENT_TIME})
    source = GeneratorSource(GeneratorSettings(events=100), columns=wanted, extras=False)
    events, _, _ = read(source)
    assert set(events.column_names) == source.event_columns == wanted


def test_a_run_of_the_past_accepts_nothing_of_2099_and_a_run_of_the_future_accepts_itself():
    far = GeneratorSettings(events=200, start_ms=4_000_000_000_000)
    events, rejected, _ = read(GeneratorSource(far, now_ms=0, max_future_ms=0))
    assert (events.num_rows, rejected.num_rows) == (200, 0)
    broken = GeneratorSettings(events=500, broken_fraction=1.0)
    _, rejected, _ = read(GeneratorSource(broken, now_ms=2_000_000_000_000))
    assert "future_timestamp" in rejected["reason"].to_pylist()
    _, rejected, _ = read(GeneratorSource(broken, max_future_ms=None))
    assert "future_timestamp" not in rejected["reason"].to_pylist()


def test_a_run_without_an_end_is_no_source():
    with pytest.raises(ConfigError, match="no end"):
        GeneratorSource(GeneratorSettings(rate_per_s=5.0))


def test_empty_batches_are_refused():
    with pytest.raises(ConfigError, match="at least one record"):
        GeneratorSource(GeneratorSettings(events=5), batch_rows=0)
