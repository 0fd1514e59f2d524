"""The registry's client against a real HTTP server: there is no schema registry in Python to test with, so this one
speaks the two calls as Confluent documents them.
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest

from sessionize.connectors.kafka.registry import SchemaRegistry
from sessionize.errors import ConfigError, InputError, UnavailableError
from sessionize.formats.avro import AvroRecords, AvroWriter
from sessionize.formats.dialects import DIALECTS

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


class Handler(BaseHTTPRequestHandler):
    """Schemas by number and by subject; 403 without the right user, 5xx and other answers on demand."""

    schemas: ClassVar[dict[int, dict[str, object]]] = {}
    subjects: ClassVar[dict[str, int]] = {}
    answer_with: ClassVar[tuple[int, bytes] | None] = None
    calls: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.calls.append(self.path)
        _, kind, *rest = self.path.split("/")
        found = self.schemas.get(int(rest[1])) if kind == "schemas" else self.schemas.get(self.subjects[rest[0]])
        self.reply(200 if found else 404, found or {"error_code": 40403, "message": "Schema not found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = len(self.schemas) + 1
        self.schemas[number] = body
        self.subjects[self.path.split("/")[2]] = number
        self.reply(200, {"id": number})

    def reply(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        if self.headers["Authorization"] != "Basic " + base64.b64encode(b"me:hunter2hunter2").decode():
            status = 401
        elif self.answer_with is not None:
            status, data = self.answer_with
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running() -> Iterator[tuple[str, type[Handler]]]:
    class Own(Handler):
        schemas: ClassVar[dict[int, dict[str, object]]] = {}
        subjects: ClassVar[dict[str, int]] = {}
        calls: ClassVar[list[str]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", Own
        finally:
            server.shutdown()
            thread.join()


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
        with pytest.raises(InputError, match="no sense"):
            registry(url).schema(2)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ((503, b""), UnavailableError, "does not work now"),
        ((422, b""), InputError, "refuses the call"),
        ((302, b""), InputError, "refuses the call"),
        ((200, b"<html>"), InputError, "no sense"),
        ((200, b"[]"), InputError, "no sense"),
        ((200, b"{}"), InputError, "no sense"),
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
