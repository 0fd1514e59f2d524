"""A schema registry on loopback with the two calls that Confluent documents, for tests and trials.

Schemas are in memory. It can require a login, and can be set to answer anything.
"""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class SchemaRegistryServer:
    """Registered schemas by id and by subject. login: the user:password that calls need.

    answer_with: status and body of every answer while it is set. calls: the requested paths.
    """

    def __init__(self, *, login: str | None = None) -> None:
        self.login = login
        self.schemas: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, int] = {}
        self.answer_with: tuple[int, bytes] | None = None
        self.calls: list[str] = []
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address, which stays the same after a restart."""
        return f"http://127.0.0.1:{self._port}"

    def register(self, schema: str, *, subject: str = "t-value") -> int:
        """Register a schema; returns its id."""
        return self._add(subject, {"schema": schema})

    def start(self) -> None:
        """Listen, on the port of the first start."""
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, kind, *rest = self.path.split("/")
                number = int(rest[1]) if kind == "schemas" else registry.subjects.get(rest[0], 0)
                found = registry.schemas.get(number)
                self._reply(200 if found else 404, found or {"error_code": 40403, "message": "Schema not found"})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._reply(200, {"id": registry._add(self.path.split("/")[2], body)})

            def _reply(self, status: int, value: object) -> None:
                registry.calls.append(self.path)
                data = json.dumps(value).encode()
                if not registry._lets_in(self.headers["Authorization"]):
                    status = 401
                elif registry.answer_with is not None:
                    status, data = registry.answer_with
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="schema-registry")
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; the schemas stay. Does nothing if it is not running."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _add(self, subject: str, body: dict[str, Any]) -> int:
        number = len(self.schemas) + 1
        self.schemas[number] = body
        self.subjects[subject] = number
        return number

    def _lets_in(self, authorization: str | None) -> bool:
        return self.login is None or authorization == "Basic " + base64.b64encode(self.login.encode()).decode()
