"""An address where a path belongs is one clear error, and nothing is made: no folder `s3:`.

Inputs, and the output of batch and label, may be addresses (tests/app/test_remote_files.py), but not of any kind.
"""

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
    ("batch", "in.ndjson", "-o", "o.csv", "--rejects", "{}"),
    ("batch", "in.ndjson", "-o", "iceberg:a.b", "--home", "{}"),
    ("label", "in.ndjson", "-o", "o.csv", "--rejects", "{}"),
    ("run", "--home", "{}"),
    (*RUN_INTO_FILE, "output.path={}"),
    ("run", "kafka_stream", "--set", "output.lake.path={}"),
    ("run", "kafka_stream", "--set", "output.sqlite.path={}"),
    ("query", "SELECT 1", "--home", "{}"),
    ("explain", "u", "--home", "{}"),
    ("pruning", "--home", "{}"),
    ("maintain", "--home", "{}"),
    ("rejected", "--home", "{}"),
    ("rejected", "retry", "--home", "{}"),
    ("reconcile", "--home", "{}"),
    ("produce", "--events", "5", "-o", "{}"),
    ("demo", "--home", "{}"),
    ("sql", "--dialect", "duckdb", "--table", "t", "--user", "u", "--time", "ts", "-o", "{}"),
    ("sql", "--dialect", "duckdb", "--table", "t", "--user", "u", "--time", "ts", "--loaded-at", "l", "--dbt", "{}"),
    ("check", "in.ndjson", "--junit", "{}"),
    ("tune", "in.ndjson", "-o", "{}"),
]  # fmt: skip
MAY_BE_ADDRESSES = [
    ("batch", "in.ndjson", "-o", "{}"),
    ("batch", "in.ndjson", "-o", "{}", "--dry-run"),
    ("batch", "{}", "-o", "o.csv"),
    ("label", "in.ndjson", "-o", "{}"),
    ("run", "--input", "{}"),
    ("explain", "u", "--input", "{}"),
]
REFUSED = [
    ("https://me:hunter2@host/x.parquet", "a secret in it"),
    ("s3://me:hunter2@bucket/x.parquet", "a secret in it"),
    ("file:///tmp/x.parquet", "without file://"),
    ("ftp://host/x.parquet", "unknown kind"),
]


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


@pytest.mark.parametrize("command", MAY_BE_ADDRESSES, ids=" ".join)
def test_addresses_that_cannot_be_used_are_refused_and_no_secret_is_shown(sessionize, events, tmp_path, command):
    for address, what in REFUSED[::3] if "dry-run" in command else REFUSED:
        done = sessionize(*(word.format(address) for word in command), code=2)
        assert done.err.count("error: ") == 1
        assert what in done.err
        assert "hunter2" not in done.err
        assert sorted(os.listdir(tmp_path)) == ["in.ndjson"]


def test_a_folder_with_a_colon_is_no_address(sessionize, events, tmp_path):
    sessionize("batch", "in.ndjson", "-o", "a:b/out.csv")
    assert (tmp_path / "a:b" / "out.csv").exists()
