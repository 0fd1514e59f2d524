"""An address where a path belongs is one clear error, and nothing is made: no folder `s3:`."""

import os

import pytest

ADDRESSES = [
    "s3://bucket/x.parquet",
    "gs://bucket/x.parquet",
    "https://me:hunter2@host/x.parquet",
    "file:///tmp/x.parquet",
]
RUN_INTO_FILE = ("run", "--input", "in.ndjson", "--set", "output.kind=parquet", "--set")
COMMANDS = [
    ("batch", "in.ndjson", "-o", "{}"),
    ("batch", "in.ndjson", "-o", "{}", "--dry-run"),
    ("batch", "in.ndjson", "-o", "o.csv", "--rejects", "{}"),
    ("batch", "in.ndjson", "-o", "iceberg:a.b", "--home", "{}"),
    ("batch", "{}", "-o", "o.csv"),
    ("label", "in.ndjson", "-o", "{}"),
    ("label", "in.ndjson", "-o", "o.csv", "--rejects", "{}"),
    ("run", "--home", "{}"),
    ("run", "--input", "{}"),
    (*RUN_INTO_FILE, "output.path={}"),
    ("run", "kafka_stream", "--set", "output.lake.path={}"),
    ("run", "kafka_stream", "--set", "output.sqlite.path={}"),
    ("query", "SELECT 1", "--home", "{}"),
    ("explain", "u", "--home", "{}"),
    ("explain", "u", "--input", "{}"),
    ("pruning", "--home", "{}"),
    ("maintain", "--home", "{}"),
    ("rejected", "--home", "{}"),
    ("rejected", "retry", "--home", "{}"),
    ("reconcile", "--home", "{}"),
    ("produce", "--events", "5", "-o", "{}"),
    ("demo", "--home", "{}"),
]  # fmt: skip


@pytest.fixture
def events(tmp_path):
    (tmp_path / "in.ndjson").write_text('{"uuid": "u", "event_timestamp": 1}\n')


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_address_is_refused_and_nothing_is_made(sessionize, events, tmp_path, command):
    before = sorted(os.listdir(tmp_path))
    for address in ADDRESSES[:1] if "dry-run" in command else ADDRESSES[::2]:
        done = sessionize(*(word.format(address) for word in command), code=2)
        assert done.err.count("error: ") == 1
        assert "a local path, not an address" in done.err
        assert "hunter2" not in done.err
        assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_kind_of_address_is_one(sessionize, events, tmp_path, address):
    done = sessionize("batch", "in.ndjson", "-o", address, code=2)
    assert ("without file://" in done.err) == address.startswith("file:")
    assert sorted(os.listdir(tmp_path)) == ["in.ndjson"]


def test_a_folder_with_a_colon_is_no_address(sessionize, events, tmp_path):
    sessionize("batch", "in.ndjson", "-o", "a:b/out.csv")
    assert (tmp_path / "a:b" / "out.csv").exists()
