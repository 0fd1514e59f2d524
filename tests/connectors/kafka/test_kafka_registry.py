"""The registry's client against a real HTTP server: there is no schema registry in Python to test with, so
sessionize.testing has one.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from sessionize.connectors.kafka.registry import SchemaRegistry
from sessionize.errors import ConfigError, InputError, UnavailableError
from sessionize.formats.avro import AvroRecords, AvroWriter
from sessionize.formats.dialects import DIALECTS
from sessionize.testing.services.registry import SchemaRegistryServer

SCHEMA = json.dumps(
    {
        "type": "record",
        "name": "click",
        "fields": [
            {"name": "user_id", "type": "string"},
            {"name": "timestamp", "type": "long"},
            {"name": "url", "type": "string"},
        ],
    }
)


@contextmanager
def running() -> Iterator[tuple[str, SchemaRegistryServer]]:
    with SchemaRegistryServer(login="me:hunter2hunter2") as server:
        yield server.url, server


def registry(url: str, password: str = "hunter2hunter2") -> SchemaRegistry:
    return SchemaRegistry(url, user="me", password=password, timeout_s=5)


def test_what_is_registered_is_found_and_decodes():
    with running() as (url, server):
        client = registry(f"{url}/")
        number = client.register("clicks/v-value", SCHEMA)
        assert server.subjects == {"clicks%2Fv-value": number}
        assert client.schema(number) == [SCHEMA]
        assert client.schema(99) is None
        write = AvroWriter(SCHEMA, number=number).encode
        values = [write({"user_id": "u", "timestamp": n, "url": "/"}) for n in range(3)]
        records = AvroRecords(DIALECTS["clicks"], lookup=client.schema)
        found = records.decode(values, np.arange(3), source="t[0]", latest_ms=None)
        assert found.events["event_time_ms"].to_pylist() == [0, 1, 2]
        assert server.calls.count(f"/schemas/ids/{number}") == 2  # one of the test's own


def test_schemas_that_are_referred_to_come_first():
    with running() as (url, server):
        reference = {"name": "n", "subject": "inner", "version": 1}
        server.schemas |= {1: {"schema": "INNER"}, 2: {"schema": "OUTER", "references": [reference, reference]}}
        server.subjects["inner"] = 1
        assert registry(url).schema(2) == ["INNER", "OUTER"]
        server.schemas[1]["references"] = [reference]  # one that refers to itself ends, too
        with pytest.raises(InputError, match="invalid response"):
            registry(url).schema(2)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ((503, b""), UnavailableError, "is unavailable"),
        ((422, b""), InputError, "rejects the request"),
        ((302, b""), InputError, "rejects the request"),
        ((200, b"<html>"), InputError, "invalid response"),
        ((200, b"[]"), InputError, "invalid response"),
        ((200, b"{}"), InputError, "invalid response"),
    ],
)
def test_answers_that_are_no_schema(answer, kind, message):
    with running() as (url, server):
        server.answer_with = answer
        with pytest.raises(kind, match=message):
            registry(url).schema(1)
        assert "/elsewhere" not in server.calls


def test_wrong_credentials_are_refused_and_not_shown():
    with running() as (url, _), pytest.raises(InputError, match="refuses access") as caught:
        registry(url, "wrong-but-secret").schema(1)
    assert "secret" not in str(caught.value)


def test_a_registry_that_is_not_there_is_unavailable():
    with pytest.raises(UnavailableError, match="cannot be reached"):
        registry("http://127.0.0.1:1").schema(1)


@pytest.mark.parametrize("url", ["ftp://x", "x:8081", "http://", "http://me:hunter2@x"])
def test_addresses_that_cannot_be_meant(url):
    with pytest.raises(ConfigError) as caught:
        SchemaRegistry(url)
    assert "hunter2" not in str(caught.value)
